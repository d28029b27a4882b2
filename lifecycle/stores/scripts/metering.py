"""Metered usage in Lua: what `apply` calls with every change of a status, in the same step.

A workspace has one interval open from its creation to its deletion: "running" (runningSince, runningClass)
or "stored" (storedSince, storedBytes). Where one ends the next begins, at the same millisecond, so they
leave no gap and never overlap, whoever asks for the change and whoever dies after it.
"""

from __future__ import annotations

from lifecycle.stores.scripts.hours import HOURS

USAGE_KEPT = 396 * 86_400_000  # ms: 13 months, of 31 days at most and of 365 days in 12

METERING = (
    HOURS
    + f"\nlocal USAGE_KEPT = {USAGE_KEPT}"
    + """
-- What is open ends at `till` (not before it began: clocks jump), and what ends then is returned: the next
-- one begins there. Records from before there were stored intervals have none open.
local function close_interval(id, till)
  local kind, class, bytes, since = 'running', field(id, 'runningClass'), '0', tonumber(field(id, 'runningSince')) or 0
  if since == 0 then
    kind, class, bytes, since = 'stored', '', field(id, 'storedBytes'), tonumber(field(id, 'storedSince')) or 0
  end
  if since == 0 then return till end
  till = math.max(till, since)
  if kind == 'running' or till > since then
    local key = 'usage:' .. field(id, 'userId')
    redis.call('ZADD', key, till, table.concat(
      {id, field(id, 'epoch'), kind, class, bytes == '' and '0' or bytes, text(since), text(till)}, '/'))
    redis.call('ZREMRANGEBYSCORE', key, '-inf', now - USAGE_KEPT)
  end
  if kind == 'running' then count_hours(field(id, 'userId'), since, till) end
  return till
end

-- Its user is in the index for ever while anything of theirs is open.
local function open_interval(id, running, at)
  redis.call('ZADD', 'usage:users', 'inf', field(id, 'userId'))
  if running then
    local class = redis.call('HGET', 'machine:' .. field(id, 'machineId'), 'class') or ''
    look_at_hours(field(id, 'userId'))
    set(id, {runningSince = text(at), runningClass = string.gsub(class, '[^%w._-]', '_'), storedSince = '0'})
  else
    local bytes = field(id, 'filesBytes')
    set(id, {storedSince = text(at), storedBytes = bytes == '' and '0' or bytes, runningSince = '0'})
  end
end

-- from, to: statuses.
local function meter(id, from, to)
  if (from == 'running') ~= (to == 'running') then
    open_interval(id, to == 'running', close_interval(id, now))
  end
end

-- Another size of what is stored is another interval.
local function resize(id)
  local since, bytes = tonumber(field(id, 'storedSince')) or 0, tonumber(field(id, 'filesBytes')) or 0
  if since > 0 and bytes ~= (tonumber(field(id, 'storedBytes')) or 0) then
    open_interval(id, false, close_interval(id, now))
  end
end

-- It is deleted, at that time.
local function close_account(id, at)
  local till, user = close_interval(id, at), field(id, 'userId')
  if redis.call('SCARD', 'user:' .. user .. ':workspaces') == 0 then redis.call('ZADD', 'usage:users', till, user) end
  redis.call('ZREMRANGEBYSCORE', 'usage:users', '-inf', now - USAGE_KEPT)
end
"""
)
