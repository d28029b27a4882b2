"""Which workspaces time has to be looked at for: the zset workspaces:due."""

from __future__ import annotations

from lifecycle.stores.scripts.prelude import PRELUDE

SCHEDULE = """
-- ARGV (id, score that was read, next score or '')*. When to look again, unless a change has made it due meanwhile.
for i = 1, #ARGV, 3 do
  if redis.call('ZSCORE', 'workspaces:due', ARGV[i]) == ARGV[i + 1] then
    if ARGV[i + 2] == '' then redis.call('ZREM', 'workspaces:due', ARGV[i])
    else redis.call('ZADD', 'workspaces:due', ARGV[i + 2], ARGV[i]) end
  end
end
"""

WARNED = (
    PRELUDE
    + """
-- ARGV id, epoch, at ms. Its person is warned of a stop at that time; 0: it is off. Refused once the boot is over.
local id = ARGV[1]
if field(id, 'status') ~= 'running' or field(id, 'epoch') ~= ARGV[2] then return 0 end
set(id, {warned = ARGV[3]})
return 1
"""
)

PUT_ON_DUE = (
    PRELUDE
    + """
-- Those in a status that time changes, and on no list.
local lost = 0
for _, status in ipairs({'running', 'stopped', 'failed'}) do
  for _, id in ipairs(redis.call('ZDIFF', 2, 'workspaces:' .. status, 'workspaces:due')) do
    due(id)
    lost = lost + 1
  end
end
return lost
"""
)
