"""Metered usage in Lua: what `apply` calls with every change of a status, in the same step.

A workspace has one interval open from its creation to its deletion: "running" (runningSince, runningClass)
or "stored" (storedSince, storedBytes). Where one ends the next begins, at the same millisecond, so they
leave no gap and never overlap, whoever asks for the change and whoever dies after it.

The same step keeps sums of everybody, so that what all of it costs is a read of three hashes, however many they are:
used:{month} is what has ended, used:open what goes on, by the month in which it began, and used:open:since when.
"""

from __future__ import annotations

from lifecycle.stores.scripts.hours import HOURS

USAGE_KEPT = 396 * 86_400_000  # ms: 13 months, of 31 days at most and of 365 days in 12

METERING = (
    HOURS
    + f"\nlocal USAGE_KEPT = {USAGE_KEPT}"
    + """
-- Time times size (bytes; 1 of what runs) that has ended, in this month and the one before (UTC).
local function count_used(what, size, from, to)
  local periods = hour_periods()
  for _, period in ipairs({periods[2], periods[4]}) do
    local amount = size * within(period, from, to)
    if amount > 0 then
      local key = 'used:' .. string.sub(period[1], 2)
      redis.call('HINCRBYFLOAT', key, what, text(amount))
      redis.call('PEXPIRE', key, 70 * DAY)
    end
  end
end

-- sign: 1 when it begins, -1 when it ends. `since` counts from the first of its month.
local function stand(what, since, size, sign)
  local month, first = month_of(math.floor(since / DAY))
  local name = string.sub(month, 2) .. ' ' .. what
  local left = redis.call('HINCRBYFLOAT', 'used:open', name, text(sign * size))
  redis.call('HINCRBYFLOAT', 'used:open:since', name, text(sign * size * (since - first * DAY)))
  if tonumber(left) <= 0 then
    redis.call('HDEL', 'used:open', name)
    redis.call('HDEL', 'used:open:since', name)
  end
end

-- What the record has open is in the sums; it notes what was added, and the same is taken out again.
local function count_open(id)
  local what, size, since = 'running/' .. field(id, 'runningClass'), 1, tonumber(field(id, 'runningSince')) or 0
  if since == 0 then
    what, size, since = 'stored', tonumber(field(id, 'storedBytes')) or 0, tonumber(field(id, 'storedSince')) or 0
  end
  if since > 0 and size > 0 then stand(what, since, size, 1) end
  set(id, {counted = since > 0 and size > 0 and table.concat({what, text(since), text(size)}, ' ') or ''})
end

local function uncount(id)
  local what, since, size = string.match(field(id, 'counted'), '^(%S+) (%d+) (%d+)$')
  if what then
    stand(what, tonumber(since), tonumber(size), -1)
    set(id, {counted = ''})
  end
end

-- What is open ends at `till` (not before it began: clocks jump), and what ends then is returned: the next
-- one begins there. Records from before there were stored intervals have none open.
local function close_interval(id, till)
  local kind, class, bytes, since = 'running', field(id, 'runningClass'), '0', tonumber(field(id, 'runningSince')) or 0
  if since == 0 then
    kind, class, bytes, since = 'stored', '', field(id, 'storedBytes'), tonumber(field(id, 'storedSince')) or 0
  end
  uncount(id)
  if since == 0 then return till end
  till = math.max(till, since)
  if kind == 'running' or till > since then
    local key = 'usage:' .. field(id, 'userId')
    local added = redis.call('ZADD', key, till, table.concat(
      {id, field(id, 'epoch'), kind, class, bytes == '' and '0' or bytes, text(since), text(till)}, '/'))
    if added == 1 and kind == 'running' then count_used('running/' .. class, 1, since, till)
    elseif added == 1 then count_used('stored', tonumber(bytes) or 0, since, till) end
    redis.call('ZREMRANGEBYSCORE', key, '-inf', now - USAGE_KEPT)
  end
  if kind == 'running' then count_hours(field(id, 'userId'), since, till) end
  return till
end

-- Its user is in the index for ever while anything of theirs is open.
local function open_interval(id, running, at)
  redis.call('ZADD', 'metered:users', 'inf', field(id, 'userId'))
  if running then
    local class = redis.call('HGET', 'machine:' .. field(id, 'machineId'), 'class') or ''
    look_at_hours(field(id, 'userId'))
    set(id, {runningSince = text(at), runningClass = string.gsub(class, '[^%w._-]', '_'), storedSince = '0'})
  else
    local bytes = field(id, 'filesBytes')
    set(id, {storedSince = text(at), storedBytes = bytes == '' and '0' or bytes, runningSince = '0'})
  end
  count_open(id)
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
  if redis.call('SCARD', 'user:' .. user .. ':workspaces') == 0 then redis.call('ZADD', 'metered:users', till, user) end
  redis.call('ZREMRANGEBYSCORE', 'metered:users', '-inf', now - USAGE_KEPT)
end
"""
)
