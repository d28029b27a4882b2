"""Deliveries: claimed before they are tried, noted afterwards."""

from __future__ import annotations

from lifecycle.stores.scripts.notices import DELIVERIES_AGE
from lifecycle.stores.scripts.prelude import PRELUDE

CLAIM = (
    PRELUDE
    + """
-- ARGV claim, limit, ms that it holds. Returns the rows that are due, now being tried. One whose claim ran out
-- was interrupted: that is no new attempt, and what to do about it is not decided here.
local said = 'deliveries:claim:' .. ARGV[1]
local ids = redis.call('LRANGE', said, 0, -1)  -- the answer to the same question got lost
if #ids == 0 then
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', 'deliveries:due', '-inf', now, 'LIMIT', 0, ARGV[2])) do
    local row = 'delivery:' .. id
    local status = redis.call('HGET', row, 'status')
    if not status then
      redis.call('ZREM', 'deliveries:due', id)
    else
      local again = status == 'sending'
      if not again then redis.call('HINCRBY', row, 'attempts', 1) end
      redis.call('HSET', row, 'status', 'sending', 'claim', ARGV[1], 'interrupted', again and '1' or '')
      if not again then redis.call('HSET', row, 'attempted', text(now)) end
      redis.call('ZADD', 'deliveries:due', now + tonumber(ARGV[3]), id)
      ids[#ids + 1] = id
    end
  end
  if #ids > 0 then
    redis.call('RPUSH', said, unpack(ids))
    redis.call('EXPIRE', said, 60)
  end
end
local rows = {}
for _, id in ipairs(ids) do rows[#rows + 1] = redis.call('HGETALL', 'delivery:' .. id) end
return rows
"""
)

NOTED = """
-- ARGV id, claim, status, due ms or '', then field/value pairs. 0 when somebody else has it by now.
local row = 'delivery:' .. ARGV[1]
if redis.call('HGET', row, 'claim') ~= ARGV[2] then return 0 end
redis.call('HSET', row, 'status', ARGV[3], 'claim', '', 'due', ARGV[4], unpack(ARGV, 5))
if ARGV[4] == '' then
  redis.call('ZREM', 'deliveries:due', ARGV[1])
else
  redis.call('ZADD', 'deliveries:due', ARGV[4], ARGV[1])
end
return 1
"""

RETRY = (
    PRELUDE
    + f"\nlocal AGE = {DELIVERIES_AGE}"
    + """
-- ARGV id. Returns "ok", "gone", or the status that it cannot be sent again from.
local row = 'delivery:' .. ARGV[1]
local status = redis.call('HGET', row, 'status')
if not status then return 'gone' end
if status ~= 'failed' and status ~= 'unknown' then return status end
redis.call('HSET', row, 'status', 'pending', 'attempts', '0', 'due', text(now), 'claim', '', 'interrupted', '')
redis.call('HINCRBY', row, 'retried', 1)
redis.call('EXPIRE', row, AGE)
redis.call('ZADD', 'deliveries:due', now, ARGV[1])
return 'ok'
"""
)

PREFER = """
-- ARGV user, email or '-' (as it is), then field/value pairs of opt-outs; '' takes one back.
local key = 'preferences:' .. ARGV[1]
local function put(name, value)
  if value == '' then redis.call('HDEL', key, name) else redis.call('HSET', key, name, value) end
end
if ARGV[2] ~= '-' then put('email', ARGV[2]) end
for i = 3, #ARGV, 2 do put(ARGV[i], ARGV[i + 1]) end
return 1
"""
