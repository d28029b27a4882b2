"""Notices: each is written once, with its deliveries, in one step."""

from __future__ import annotations

from lifecycle.stores.scripts.prelude import PRELUDE

NOTICES_KEPT = 50  # of a workspace; a tab that was away for longer has missed the older ones
NOTICES_AGE = 40 * 86_400  # seconds: no termination is announced longer ahead than that
KEYS_KEPT = 1000  # what a workspace was told of, newest; an older one would be told again
DELIVERIES_KEPT = 10_000  # in the log; beyond it the oldest go, even those that wait
DELIVERIES_AGE = 7 * 86_400  # seconds

_BOUNDS = f"""
local NOTICES_KEPT, NOTICES_AGE, KEYS_KEPT = {NOTICES_KEPT}, {NOTICES_AGE}, {KEYS_KEPT}
local DELIVERIES_KEPT, DELIVERIES_AGE = {DELIVERIES_KEPT}, {DELIVERIES_AGE}
"""

_DELIVERIES = """
local function forget(delivery)
  redis.call('DEL', 'delivery:' .. delivery)
  redis.call('ZREM', 'deliveries', delivery)
  redis.call('ZREM', 'deliveries:due', delivery)
end

local function deliver(channel, fields)
  -- Never given twice, not even by a Redis that lost its data: receivers tell by it what they had before.
  local delivery = 'msg_' .. text(now) .. '_' .. text(redis.call('INCR', 'deliveries:last'))
  local row = {'id', delivery, 'channel', channel, 'status', 'pending', 'attempts', '0', 'created', text(now),
               'due', text(now)}
  for name, value in pairs(fields) do row[#row + 1] = name; row[#row + 1] = tostring(value) end
  redis.call('HSET', 'delivery:' .. delivery, unpack(row))
  redis.call('EXPIRE', 'delivery:' .. delivery, DELIVERIES_AGE)
  redis.call('ZADD', 'deliveries:due', now, delivery)
  redis.call('ZADD', 'deliveries', now, delivery)
  local old = redis.call('ZRANGEBYSCORE', 'deliveries', '-inf', now - DELIVERIES_AGE * 1000, 'LIMIT', 0, 100)
  for _, one in ipairs(old) do forget(one) end
  local spare = redis.call('ZCARD', 'deliveries') - DELIVERIES_KEPT
  if spare > 0 then
    for _, one in ipairs(redis.call('ZRANGE', 'deliveries', 0, spare - 1)) do forget(one) end
  end
end
"""

NOTIFY = (
    PRELUDE
    + _BOUNDS
    + _DELIVERIES
    + """
-- ARGV workspace, type, key, text, data as JSON, channels in words. Returns its seq; 0 when that was told before,
-- or there is no such workspace.
local id, kind, said = ARGV[1], ARGV[2], ARGV[4]
local user = field(id, 'userId')
if user == '' then return 0 end
-- A quota is the user's: they hear of it once, whichever of their workspaces it comes up with.
local noticed = kind == 'quota.alert' and 'user:' .. user .. ':noticed' or 'noticed:' .. id
if redis.call('ZADD', noticed, 'NX', now, ARGV[3]) == 0 then return 0 end
redis.call('ZREMRANGEBYRANK', noticed, 0, -KEYS_KEPT - 1)
redis.call('EXPIRE', noticed, NOTICES_AGE)

local out = {}
for channel in string.gmatch(redis.call('HGET', 'preferences:' .. user, 'optOut:' .. kind) or '', '%S+') do
  out[channel] = true
end
local data = cjson.decode(ARGV[5])
local last = 'notices:' .. id .. ':last'
local seq = redis.call('INCR', last)
redis.call('EXPIRE', last, 2 * NOTICES_AGE)
if kind == 'workspace.stopping_soon' or not out.ide then
  local notices = 'notices:' .. id
  redis.call('RPUSH', notices, cjson.encode({seq = seq, type = kind, user = user, at = now, text = said, data = data}))
  redis.call('LTRIM', notices, -NOTICES_KEPT, -1)
  redis.call('EXPIRE', notices, NOTICES_AGE)
  local told = {}
  for name, value in pairs(data) do told[name] = value end
  told.workspace, told.user, told.seq, told.notice, told.text = id, user, text(seq), kind, said
  event('workspace.notice', told)
end
for channel in string.gmatch(ARGV[6], '%S+') do
  local to = ''
  if channel == 'email' then to = redis.call('HGET', 'preferences:' .. user, 'email') or '' end
  if not out[channel] and (channel ~= 'email' or to ~= '') then
    deliver(channel, {workspace = id, user = user, name = field(id, 'name'), seq = text(seq), notice = kind,
      text = said, at = text(now), data = ARGV[5], to = to})
  end
end
return seq
"""
)
