"""The lease, heartbeats and their gaps."""

from __future__ import annotations

from lifecycle.stores.scripts.prelude import PRELUDE

LEASE_TAKE = (
    PRELUDE
    + """
-- ARGV holder, ttl ms. Returns the fencing token while held by the asker, else 0.
local value = redis.call('GET', 'lease:lifecycle')
if value then
  local holder, token = string.match(value, '^(.-) (%d+)$')
  if holder ~= ARGV[1] then return 0 end
  redis.call('PEXPIRE', 'lease:lifecycle', ARGV[2])
  return tonumber(token)
end
local token = redis.call('INCR', 'lease:lifecycle:token')
redis.call('SET', 'lease:lifecycle', ARGV[1] .. ' ' .. text(token), 'PX', ARGV[2])
event('lease.acquired', {gateway = ARGV[1], fence = text(token)})
return token
"""
)

LEASE_GIVE = """
local value = redis.call('GET', 'lease:lifecycle')
if value and string.match(value, '^(.-) %d+$') == ARGV[1] then return redis.call('DEL', 'lease:lifecycle') end
return 0
"""

LEFT = """
-- A gateway's last session of these was closed, or nobody knows of them any more.
local function left_behind(gateway, still)
  for _, ws in ipairs(redis.call('HKEYS', 'connections:' .. gateway)) do
    if not still[ws] and field(ws, 'status') ~= '' then set(ws, {left = text(now)}) end
  end
end
"""

FLUSH = (
    PRELUDE
    + LEFT
    + """
-- One gateway's second. ARGV gateway, gap ms, JSON {sessions: {member: age ms},
-- active: {workspace: {kind: [age ms, source]}}, closed: [member], connections: {workspace: n} | null,
-- events: [[type, {fields}]]}. Returns now, and 1 if
-- nothing was known of that gateway.
local gateway, gap, o = ARGV[1], tonumber(ARGV[2]), cjson.decode(ARGV[3])
local last = tonumber(redis.call('GET', 'heartbeat:last') or '0')
-- After a gap (Redis or every gateway was away) old heartbeats say nothing: idleness is counted from now.
if now - last > gap or last > now + gap or redis.call('EXISTS', 'heartbeat:since') == 0 then
  redis.call('SET', 'heartbeat:since', text(now))
end
redis.call('SET', 'heartbeat:last', text(now))
local new = redis.call('ZADD', 'heartbeat:gateways', now, gateway)
-- Thousands in one command are little more work than one, but not more than Lua's stack has room for.
local pairs_of = {}
for member, age in pairs(o.sessions) do
  pairs_of[#pairs_of + 1] = now - age
  pairs_of[#pairs_of + 1] = member
end
for i = 1, #pairs_of, 2000 do
  redis.call('ZADD', 'heartbeat:sessions', 'GT', unpack(pairs_of, i, math.min(i + 1999, #pairs_of)))
end
for i = 1, #o.closed, 2000 do
  redis.call('ZREM', 'heartbeat:sessions', unpack(o.closed, i, math.min(i + 1999, #o.closed)))
end
for ws, kinds in pairs(o.active) do
  for kind, seen in pairs(kinds) do sighted(ws, kind, now - seen[1], seen[2]) end
end
if type(o.connections) == 'table' then
  local key = 'connections:' .. gateway
  left_behind(gateway, o.connections)
  redis.call('DEL', key)
  for ws, n in pairs(o.connections) do redis.call('HSET', key, ws, text(n)) end
end
for _, e in ipairs(o.events) do event(e[1], e[2]) end
return {text(now), new}
"""
)

EVICT = (
    PRELUDE
    + """
-- ARGV member, unless seen since (ms). Gone from the set and told in one step, unless it was seen meanwhile.
local score = tonumber(redis.call('ZSCORE', 'heartbeat:sessions', ARGV[1])) or math.huge
if score > tonumber(ARGV[2]) then return 0 end
redis.call('ZREM', 'heartbeat:sessions', ARGV[1])
local ws, session = string.match(ARGV[1], '^(.-)/(.*)$')
event('session.evicted', {workspace = ws, session = session, gateway = string.match(session, '^(.*)%-%d+$') or '',
  reason = ARGV[3]})
return 1
"""
)

FORGET_GATEWAY = (
    PRELUDE
    + LEFT
    + """
-- ARGV gateway, unless seen since (ms)
local score = tonumber(redis.call('ZSCORE', 'heartbeat:gateways', ARGV[1]) or '0')
if score > tonumber(ARGV[2]) then return 0 end
redis.call('ZREM', 'heartbeat:gateways', ARGV[1])
left_behind(ARGV[1], {})
redis.call('DEL', 'connections:' .. ARGV[1])
event('gateway.lost', {gateway = ARGV[1]})
return 1
"""
)

TRUSTED = (
    PRELUDE
    + """
-- ARGV gap ms. False as well when no gateway has flushed for that long (or the clock went back by it):
-- the flush that counts idleness anew is still to come.
local last = tonumber(redis.call('GET', 'heartbeat:last') or '0')
if now - last > tonumber(ARGV[1]) or last > now + tonumber(ARGV[1]) then return false end
return redis.call('GET', 'heartbeat:since')
"""
)

DISTRUST = (
    PRELUDE
    + """
redis.call('SET', 'heartbeat:since', text(now))
event('heartbeats.distrusted', {reason = ARGV[1]})
return text(now)
"""
)

LEAVE = (
    PRELUDE
    + LEFT
    + """
-- ARGV gateway, fresh ms. Returns the other gateways that flushed of late: the last one to leave gets none.
redis.call('ZREM', 'heartbeat:gateways', ARGV[1])
left_behind(ARGV[1], {})
redis.call('DEL', 'connections:' .. ARGV[1])
return redis.call('ZRANGEBYSCORE', 'heartbeat:gateways', now - tonumber(ARGV[2]), '+inf')
"""
)
