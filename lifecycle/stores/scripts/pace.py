"""How fast things go, in one look."""

from __future__ import annotations

from lifecycle.stores.scripts.prelude import PRELUDE

PACE = (
    PRELUDE
    + """
-- ARGV ages in ms, growing from 0. O(log n) for each, and the lists are bounded; boots under way are at most so many.
local users, held = 0, {}
for _, status in ipairs({'queued', 'starting', 'running'}) do
  users = users + redis.call('ZCARD', 'workspaces:' .. status)
end
for i = 1, #ARGV do
  local oldest = ARGV[i + 1] and '(' .. text(now - ARGV[i + 1]) or '-inf'
  held[i] = redis.call('ZCOUNT', 'workspaces:running', oldest, i == 1 and '+inf' or text(now - ARGV[i]))
end
return {text(now), users, redis.call('ZRANGE', 'workspaces:starting', 0, 999, 'WITHSCORES'),
  redis.call('LRANGE', 'boot:seconds', 0, -1), redis.call('LRANGE', 'launch:seconds', 0, -1),
  redis.call('LRANGE', 'start:seconds', 0, -1),
  redis.call('LRANGE', 'run:seconds', 0, -1), held, redis.call('LRANGE', 'boot:arrivals', 0, -1)}
"""
)
