"""What changes a machine's record."""

from __future__ import annotations

from lifecycle.stores.scripts.prelude import PRELUDE

MACHINE_NEW = (
    PRELUDE
    + """
-- ARGV pool, slots, token, bound, beyond. The intent, written down before the pool hears of it. Its number
-- is new to us and to the pool: a pool may hold machines that a flushed Redis knows nothing of.
if redis.call('SCARD', 'machines') >= tonumber(ARGV[4]) then return '' end
local number = math.max(tonumber(redis.call('GET', 'machines:last') or '0'), tonumber(ARGV[5])) + 1
redis.call('SET', 'machines:last', text(number))
local id = 'm-' .. text(number)
redis.call('SADD', 'machines', id)
redis.call('HSET', 'machine:' .. id, 'machineId', id, 'pool', ARGV[1], 'status', 'launching',
  'statusSince', text(now), 'createdAt', text(now), 'slots', ARGV[2], 'token', ARGV[3],
  'address', '', 'emptySince', text(now))
event('machine.launching', {machine = id, pool = ARGV[1]})
return id
"""
)

MACHINE_ADOPT = (
    PRELUDE
    + """
-- ARGV id, pool, slots, token, number. The record of a machine that the pool has was lost: written anew,
-- with the note that what lies on it has yet to be heard.
local id, record = ARGV[1], 'machine:' .. ARGV[1]
if redis.call('EXISTS', record) == 1 then return 0 end
local last = tonumber(redis.call('GET', 'machines:last') or '0')
redis.call('SET', 'machines:last', text(math.max(last, tonumber(ARGV[5]))))
redis.call('SADD', 'machines', id)
redis.call('HSET', record, 'machineId', id, 'pool', ARGV[2], 'status', 'launching',
  'statusSince', text(now), 'createdAt', text(now), 'slots', ARGV[3], 'token', ARGV[4],
  'address', '', 'emptySince', text(now), 'unheard', '1')
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
if ARGV[4] ~= '0' and redis.call('SCARD', record .. ':slots') > 0 then return {'occupied', status} end
if ARGV[4] == '2' and redis.call('SCARD', record .. ':files') > 0 then return {'files', status} end
redis.call('HSET', record, 'status', to, 'statusSince', text(now), 'reason', ARGV[5])
if ARGV[6] ~= '' then redis.call('HSET', record, 'address', ARGV[6]) end
if to == 'ready' then
  redis.call('HDEL', record, 'unheard')
  redis.call('HSET', record, 'emptySince',
    redis.call('SCARD', record .. ':slots') > 0 and '0' or text(now))
end
event('machine.' .. to, {machine = id, reason = ARGV[5]})
if to == 'terminated' then
  for _, ws in ipairs(redis.call('SMEMBERS', record .. ':files')) do
    if field(ws, 'machineId') == id and not OCCUPYING[field(ws, 'status')] then set(ws, {machineId = ''}) end
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
