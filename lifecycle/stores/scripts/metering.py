"""Metered usage in Lua: `meter` is called by `apply` with every change of a status, in the same step."""

from __future__ import annotations

METERING = """
-- from, to: statuses. What ran until now is an interval of its user.
local function meter(id, from, to)
  if from ~= 'running' then return end
  local since = field(id, 'runningSince')
  redis.call('ZADD', 'usage:' .. field(id, 'userId'), since,
             id .. '/' .. field(id, 'epoch') .. '/' .. since .. '/' .. text(now))
  set(id, {runningSince = '0'})
end
"""
