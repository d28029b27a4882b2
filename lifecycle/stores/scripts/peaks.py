"""Peaks that were declared by the API. What is over goes with the next look."""

from __future__ import annotations

from lifecycle.stores.scripts.prelude import PRELUDE

_CURRENT = (
    PRELUDE
    + """
local function is_number(value) return type(value) == 'number' and value - value == 0 end  -- finite

-- Names and bodies of those that are not over; the others go, and so does what is no peak.
local function current()
  local rows, kept = redis.call('HGETALL', 'peaks'), {}
  for i = 1, #rows, 2 do
    local read, peak = pcall(cjson.decode, rows[i + 1])
    local fits = read and type(peak) == 'table' and is_number(peak.users) and is_number(peak.early)
    if fits and is_number(peak.at) and is_number(peak.late) and peak.at + peak.late * 1000 > now then
      kept[#kept + 1] = rows[i]
      kept[#kept + 1] = rows[i + 1]
    else
      redis.call('HDEL', 'peaks', rows[i])
    end
  end
  return kept
end
"""
)

PEAKS = (
    _CURRENT
    + """
return {text(now), current()}
"""
)

PEAK_DECLARE = (
    _CURRENT
    + """
-- ARGV name, JSON {at, users, early, late}, at, how many there may be, reason. Returns "ok", "past" or "full", and now.
local name, at = ARGV[1], tonumber(ARGV[3])
if at < now then return {'past', text(now)} end
local count = #current() / 2
if count >= tonumber(ARGV[4]) and redis.call('HEXISTS', 'peaks', name) == 0 then return {'full', text(now)} end
redis.call('HSET', 'peaks', name, ARGV[2])
event('pool.peak', {peak = name, at = ARGV[3], state = 'declared', reason = ARGV[5]})
return {'ok', text(now)}
"""
)

PEAK_REMOVE = (
    _CURRENT
    + """
-- ARGV name. Returns its body, or nothing.
current()
local body = redis.call('HGET', 'peaks', ARGV[1])
if not body then return nil end
redis.call('HDEL', 'peaks', ARGV[1])
event('pool.peak', {peak = ARGV[1], state = 'removed', reason = 'no longer expected'})
return body
"""
)
