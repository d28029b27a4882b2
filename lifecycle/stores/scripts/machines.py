"""What changes a machine's record."""

from __future__ import annotations

from lifecycle.stores.scripts.prelude import PRELUDE

MACHINE_NEW = (
    PRELUDE
    + """
-- ARGV pool, slots, count, bound, beyond, class. Intents, written down before the pool hears of them, with numbers
-- that follow each other: they are one launch. They are new to us and to the pool: a pool may hold machines
-- that a flushed Redis knows nothing of.
local count = math.min(tonumber(ARGV[3]), tonumber(ARGV[4]) - redis.call('SCARD', 'machines'))
if count <= 0 then return {} end
local last = math.max(tonumber(redis.call('GET', 'machines:last') or '0'), tonumber(ARGV[5]))
redis.call('SET', 'machines:last', text(last + count))
local ids = {}
for number = last + 1, last + count do
  local id = 'm-' .. text(number)
  ids[#ids + 1] = id
  redis.call('SADD', 'machines', id)
  redis.call('HSET', 'machine:' .. id, 'machineId', id, 'pool', ARGV[1], 'status', 'launching',
    'statusSince', text(now), 'createdAt', text(now), 'slots', ARGV[2], 'address', '', 'emptySince', text(now),
    'class', ARGV[6])
  event('machine.launching', {machine = id, pool = ARGV[1]})
end
return ids
"""
)

MACHINE_ADOPT = (
    PRELUDE
    + """
-- ARGV id, pool, slots, token, number, instance, zone, class. The record of a machine that the pool has was lost: written anew,
-- with the note that what lies on it has yet to be heard.
local id, record = ARGV[1], 'machine:' .. ARGV[1]
if redis.call('EXISTS', record) == 1 then return 0 end
local last = tonumber(redis.call('GET', 'machines:last') or '0')
redis.call('SET', 'machines:last', text(math.max(last, tonumber(ARGV[5]))))
redis.call('SADD', 'machines', id)
redis.call('HSET', record, 'machineId', id, 'pool', ARGV[2], 'status', 'launching',
  'statusSince', text(now), 'createdAt', text(now), 'slots', ARGV[3], 'token', ARGV[4],
  'address', '', 'emptySince', redis.call('SCARD', record .. ':slots') > 0 and '0' or text(now), 'unheard', '1',
  'instance', ARGV[6], 'zone', ARGV[7], 'class', ARGV[8])
event('machine.adopted', {machine = id, pool = ARGV[2]})
return 1
"""
)

MACHINE_CHANGE = (
    PRELUDE
    + """
-- ARGV id, to, from (comma separated), empty ('1': only while no workspace holds a slot, '2': nor has files
-- there), reason, address
local id, to, record = ARGV[1], ARGV[2], 'machine:' .. ARGV[1]
local status = redis.call('HGET', record, 'status')
if not status then return {'gone', ''} end
if not string.find(',' .. ARGV[3] .. ',', ',' .. status .. ',', 1, true) then return {'status', status} end
if status == 'draining' and to == 'ready' then  -- since that was decided, a person or its pool may have asked for it
  if redis.call('HEXISTS', record, 'heldBy') == 1 then return {'held', status} end
  if redis.call('HEXISTS', record, 'doomedAt') == 1 then return {'doomed', status} end
end
if ARGV[4] ~= '0' and redis.call('SCARD', record .. ':slots') > 0 then return {'occupied', status} end
if ARGV[4] == '2' and redis.call('SCARD', record .. ':files') > 0 then return {'files', status} end
if status == 'launching' and to == 'ready' and redis.call('HGET', record, 'unheard') ~= '1' then
  local since = redis.call('HGET', record, 'statusSince')
  -- One that was launched is as old as its launch; a stopped one that is started again is quicker.
  local took = redis.call('HGET', record, 'createdAt') == since and 'launch:seconds' or 'start:seconds'
  redis.call('LPUSH', took, text(now - tonumber(since)))
  redis.call('LTRIM', took, 0, 99)
end
redis.call('HSET', record, 'status', to, 'statusSince', text(now), 'reason', ARGV[5])
if ARGV[6] ~= '' then redis.call('HSET', record, 'address', ARGV[6]) end
if to == 'launching' then redis.call('HDEL', record, 'doomedAt', 'heldBy') end  -- started again, it is not taken away
if to == 'ready' then
  redis.call('HDEL', record, 'unheard')
  redis.call('HSET', record, 'emptySince',
    redis.call('SCARD', record .. ':slots') > 0 and '0' or text(now))
end
event('machine.' .. to, {machine = id, reason = ARGV[5]})
if to == 'terminated' then
  for _, ws in ipairs(redis.call('SMEMBERS', record .. ':files')) do
    if field(ws, 'machineId') == id and not OCCUPYING[field(ws, 'status')] then
      set(ws, {machineId = ''})
      mark(ws)
    end
  end
  redis.call('SREM', 'machines', id)
  redis.call('ZREM', 'heartbeat:machines', id)
  redis.call('DEL', record .. ':files', record .. ':slots')
  redis.call('HDEL', record, 'token')
  redis.call('EXPIRE', record, 86400)
end
return {'ok', to}
"""
)

MACHINE_REPORT = (
    PRELUDE
    + """
-- ARGV id, field/value pairs
if redis.call('EXISTS', 'machine:' .. ARGV[1]) == 0 then return 0 end
redis.call('ZADD', 'heartbeat:machines', now, ARGV[1])
redis.call('HSET', 'machine:' .. ARGV[1], unpack(ARGV, 2))
return 1
"""
)

MACHINE_OBSERVE = (
    PRELUDE
    + """
-- ARGV id, instance, zone, class: the pool's own names for it, for its place and its kind, as far as it says
-- them. No event.
local record = 'machine:' .. ARGV[1]
if redis.call('EXISTS', record) == 0 then return 0 end
for name, value in pairs({instance = ARGV[2], zone = ARGV[3], class = ARGV[4]}) do
  if value ~= '' and redis.call('HGET', record, name) ~= value then redis.call('HSET', record, name, value) end
end
return 1
"""
)

MACHINE_JOIN = (
    PRELUDE
    + """
-- ARGV id, nonce, address, instance. The first nonce that comes with a machine's code is its agent's; any
-- other is somebody who read the code. Whose it was before a loss of this record nobody knows, so an
-- adopted one takes none.
local id, record = ARGV[1], 'machine:' .. ARGV[1]
local status, nonce = redis.call('HGET', record, 'status'), redis.call('HGET', record, 'nonce')
if not status or status == 'terminated' then return 'gone' end
if nonce and nonce == ARGV[2] then return 'ok' end
if status ~= 'launching' or redis.call('HGET', record, 'joined') == '1'
  or redis.call('HGET', record, 'unheard') == '1' then return 'used' end
redis.call('HSET', record, 'joined', '1', 'nonce', ARGV[2], 'address', ARGV[3])
if ARGV[4] ~= '' then redis.call('HSET', record, 'instance', ARGV[4]) end
redis.call('ZADD', 'heartbeat:machines', now, id)
event('machine.joined', {machine = id})
return 'ok'
"""
)

MACHINE_HEARD = (
    PRELUDE
    + """
-- ARGV id, address. Its agent says where it is. The first word since it was launched or started again is news.
local id, record = ARGV[1], 'machine:' .. ARGV[1]
local status = redis.call('HGET', record, 'status')
if not status or status == 'terminated' then return 0 end
local before = tonumber(redis.call('ZSCORE', 'heartbeat:machines', id) or '0')
redis.call('HSET', record, 'address', ARGV[2], 'joined', '1')
redis.call('ZADD', 'heartbeat:machines', now, id)
if status == 'launching' and before < tonumber(redis.call('HGET', record, 'statusSince')) then
  event('machine.joined', {machine = id})
end
return 1
"""
)

MACHINE_HOLD = (
    PRELUDE
    + """
-- ARGV id, held ('1' or ''). A person drains it, or lets it work again: nothing but a person ends that.
local id, held, record = ARGV[1], ARGV[2] == '1', 'machine:' .. ARGV[1]
local status = redis.call('HGET', record, 'status')
if not status or status == 'terminated' then return {'gone', ''} end
if status ~= 'ready' and status ~= 'draining' then return {'status', status} end
if not held and redis.call('HEXISTS', record, 'doomedAt') == 1 then return {'doomed', status} end
local to = held and 'draining' or 'ready'
if held then redis.call('HSET', record, 'heldBy', 'operator') else redis.call('HDEL', record, 'heldBy') end
if status ~= to then
  local reason = held and 'drained by an operator' or 'an operator wants it again'
  redis.call('HSET', record, 'status', to, 'statusSince', text(now), 'reason', reason,
    'emptySince', redis.call('SCARD', record .. ':slots') > 0 and '0' or text(now))
  event('machine.' .. to, {machine = id, reason = reason})
end
return {'ok', to}
"""
)

MACHINE_DOOM = (
    PRELUDE
    + """
-- ARGV id, at, reason. The pool takes it back then: nothing new comes to it. Told again, an earlier time counts.
local id, record = ARGV[1], 'machine:' .. ARGV[1]
local status = redis.call('HGET', record, 'status')
if not status or status == 'terminated' then return 0 end
local known = tonumber(redis.call('HGET', record, 'doomedAt') or '0')
local at = tonumber(ARGV[2])
if known == 0 or at < known then
  redis.call('HSET', record, 'doomedAt', text(at), 'reason', ARGV[3])
  event('machine.doomed', {machine = id, reason = ARGV[3], at = text(at)})
end
if status == 'ready' then
  redis.call('HSET', record, 'status', 'draining', 'statusSince', text(now), 'reason', ARGV[3])
  event('machine.draining', {machine = id, reason = ARGV[3]})
end
return 1
"""
)
