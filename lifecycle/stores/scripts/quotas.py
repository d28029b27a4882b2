"""Fair use in Lua: what a user has taken, whether a start is refused, and what follows from hours used up."""

from __future__ import annotations

from lifecycle.stores.scripts.prelude import PRELUDE

FAIR_USE = """
-- What a user has taken: workspaces, those that run or wait to, those whose time counts on, and the running time
-- of the day and the month with them, side by side ones each. O(their workspaces), never their history.
local function taken(user)
  local periods, key = hour_periods(), 'hours:' .. user
  local day, month = redis.call('HGET', key, periods[1][1]), redis.call('HGET', key, periods[2][1])
  local sum = {workspaces = 0, running = 0, open = 0, day = tonumber(day or '0'), month = tonumber(month or '0'),
               dayEnds = periods[1][3], monthEnds = periods[2][3], period = {periods[1][1], periods[2][1]}}
  for _, id in ipairs(redis.call('SMEMBERS', 'user:' .. user .. ':workspaces')) do
    local row = redis.call('HMGET', 'workspace:' .. id, 'status', 'next', 'runningSince')
    local since = tonumber(row[3] or '0') or 0
    sum.workspaces = sum.workspaces + 1
    if row[1] == 'queued' or row[1] == 'starting' or row[1] == 'running' or row[2] == 'start' then
      sum.running = sum.running + 1
    end
    if since > 0 then
      sum.open = sum.open + 1
      sum.day = sum.day + within(periods[1], since, now)
      sum.month = sum.month + within(periods[2], since, now)
    end
  end
  return sum
end

local function refusal(limit, used, allowed, frees)
  return cjson.encode({limit = limit, used = used, allowed = allowed, freesAt = text(frees), now = text(now)})
end

-- Why this user may start nothing now, or nil; a start that is not refused counts. o: quota {running, day, month}
-- (0: no bound), starts {count, ms}: so many in that time, queue: how many may wait, atOnce: how many boot at once.
local function refused_start(user, o)
  local sum, starts = taken(user), 'starts:' .. user
  local running, day, month = unpack(o.quota)
  if running > 0 and sum.running >= running then return refusal('running', sum.running, running, 0) end
  if month > 0 and sum.month >= month then return refusal('hours_a_month', sum.month, month, sum.monthEnds) end
  if day > 0 and sum.day >= day then return refusal('hours_a_day', sum.day, day, sum.dayEnds) end
  -- Without a queue nobody waits for a turn to boot: then who boots counts as well.
  local waiting, room = redis.call('ZCARD', 'boot:queue'), o.queue
  if room == 0 then waiting, room = waiting + redis.call('ZCARD', 'workspaces:starting'), o.atOnce end
  if o.asleep and waiting >= room then return refusal('max_queue', waiting, room, 0) end
  local count, window = unpack(o.starts)
  if count == 0 then return nil end
  local oldest = tonumber(redis.call('LINDEX', starts, count - 1) or '-inf')
  if now - oldest < window then return refusal('start_rate', count, count, oldest + window) end
  redis.call('LPUSH', starts, text(now))
  redis.call('LTRIM', starts, 0, count - 1)
  redis.call('PEXPIRE', starts, window)
  return nil
end
"""

TAKEN = (
    PRELUDE
    + FAIR_USE
    + """
-- ARGV user. What they have taken, as JSON; sessions: open ones, as gateways that are there tell of them.
local sum, told = taken(ARGV[1]), {}
sum.sessions = 0
local ids = redis.call('SMEMBERS', 'user:' .. ARGV[1] .. ':workspaces')
for _, gateway in ipairs(#ids > 0 and redis.call('ZRANGEBYSCORE', 'heartbeat:gateways', now - 15000, '+inf') or {}) do
  for _, n in ipairs(redis.call('HMGET', 'connections:' .. gateway, unpack(ids))) do
    sum.sessions = sum.sessions + (tonumber(n) or 0)
  end
end
for _, quota in ipairs({'hours_a_day', 'hours_a_month'}) do
  told[quota] = redis.call('HGET', 'hours:' .. ARGV[1], 'told:' .. quota) or ''
end
sum.told, sum.now = told, now
return cjson.encode(sum)
"""
)

QUOTA_AGAIN = """
-- ARGV user, score that was read, next score or ''. When to look again, unless they began to run something meanwhile.
if redis.call('ZSCORE', 'quota:due', ARGV[1]) ~= ARGV[2] then return 0 end
if ARGV[3] == '' then redis.call('ZREM', 'quota:due', ARGV[1])
else redis.call('ZADD', 'quota:due', ARGV[3], ARGV[1]) end
return 1
"""

QUOTA_DUE = (
    PRELUDE
    + """
-- Everybody who runs something: for who begins to lead, perhaps with other plans. Returns how many workspaces run.
local ids = redis.call('ZRANGE', 'workspaces:running', 0, -1)
for _, id in ipairs(ids) do look_at_hours(field(id, 'userId')) end
return #ids
"""
)

QUOTA_STOP = (
    PRELUDE
    + """
-- ARGV ms until then ('' calls it off), ids. Workspaces of who has used their hours up stop at that time, whatever
-- happens in them. One that has to stop earlier still does. Returns those that were changed.
local changed = {}
for i = 2, #ARGV do
  local id = ARGV[i]
  local at, why = tonumber(field(id, 'stopBy')) or 0, field(id, 'stopByReason')
  local by = ARGV[1] ~= '' and now + tonumber(ARGV[1]) or 0
  local runs = field(id, 'status') == 'running'
  if runs and (by == 0 and why == 'quota' or by > 0 and why ~= 'quota' and (at == 0 or at > by)) then
    set(id, {stopBy = by > 0 and text(by) or '', stopByReason = by > 0 and 'quota' or ''})
    due(id)
    mark(id)
    changed[#changed + 1] = id
  end
end
return changed
"""
)
