"""Running hours by user, day and month (UTC) in Lua: what quotas are held against, without reading history.

The hash hours:{user} holds milliseconds of closed intervals: "d20000" (days since 1970) and "m2026-11". What runs
still is added from the records. "told:{quota}" is the period and threshold that its person was told of.
"""

from __future__ import annotations

HOURS = """
local DAY = 86400000

-- Day number → its month as text and the day number of that month's first (Howard Hinnant's civil_from_days).
local function month_of(day)
  local z = day + 719468
  local era = math.floor(z / 146097)
  local doe = z - era * 146097
  local yoe = math.floor((doe - math.floor(doe / 1460) + math.floor(doe / 36524) - math.floor(doe / 146096)) / 365)
  local doy = doe - (365 * yoe + math.floor(yoe / 4) - math.floor(yoe / 100))
  local mp = math.floor((5 * doy + 2) / 153)
  local month = mp < 10 and mp + 3 or mp - 9
  local year = yoe + era * 400 + (month <= 2 and 1 or 0)
  return string.format('m%04d-%02d', year, month), day - (doy - math.floor((153 * mp + 2) / 5))
end

-- Today and yesterday, this month and the one before: key, first ms, end ms. What is older counts nowhere.
local function hour_periods()
  local day = math.floor(now / DAY)
  local month, first = month_of(day)
  local before, before_first = month_of(first - 1)
  local _, next_first = month_of(first + 31)
  return {
    {'d' .. text(day), day * DAY, (day + 1) * DAY},
    {month, first * DAY, next_first * DAY},
    {'d' .. text(day - 1), (day - 1) * DAY, day * DAY},
    {before, before_first * DAY, first * DAY},
  }
end

-- The part of [from, to) within a period.
local function within(period, from, to) return math.max(0, math.min(to, period[3]) - math.max(from, period[2])) end

-- An interval of running that has ended; the hash forgets what is older than the periods. How long it was tells
-- who waits when slots come free.
local function count_hours(user, from, to)
  local key, keep = 'hours:' .. user, {}
  for _, period in ipairs(hour_periods()) do
    keep[period[1]] = true
    local ms = within(period, from, to)
    if ms > 0 then redis.call('HINCRBY', key, period[1], text(ms)) end
  end
  for _, name in ipairs(redis.call('HKEYS', key)) do
    if not keep[name] and string.sub(name, 1, 5) ~= 'told:' then redis.call('HDEL', key, name) end
  end
  redis.call('LPUSH', 'run:seconds', text(to - from))
  redis.call('LTRIM', 'run:seconds', 0, 299)
  if redis.call('EXISTS', key) == 1 then redis.call('PEXPIRE', key, 70 * DAY) end
end

-- What a user's running workspaces use up is looked at by whoever leads: now, for that look to say when again.
local function look_at_hours(user) redis.call('ZADD', 'quota:due', now, user) end
"""
