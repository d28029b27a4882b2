"""How many sessions a user has open, over all gateways: the zset sessions:{user}."""

from __future__ import annotations

from lifecycle.stores.scripts.prelude import PRELUDE

ADMIT = (
    PRELUDE
    + """
-- ARGV user, member, bound. 1: it may open; 0: so many are open. One that no gateway tells of is over, unless it was
-- let in a moment ago: its first flush is yet to come.
local key = 'sessions:' .. ARGV[1]
if redis.call('ZCARD', key) >= tonumber(ARGV[3]) then
  for _, member in ipairs(redis.call('ZRANGEBYSCORE', key, '-inf', now - 15000)) do
    if not redis.call('ZSCORE', 'heartbeat:sessions', member) then redis.call('ZREM', key, member) end
  end
end
if redis.call('ZCARD', key) >= tonumber(ARGV[3]) and not redis.call('ZSCORE', key, ARGV[2]) then return 0 end
redis.call('ZADD', key, now, ARGV[2])
redis.call('EXPIRE', key, 30 * 86400)
return 1
"""
)

RELEASE = """
return redis.call('ZREM', 'sessions:' .. ARGV[1], ARGV[2])
"""
