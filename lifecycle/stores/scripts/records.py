"""What brings Redis and the records that outlast it together."""

from __future__ import annotations

from lifecycle.stores.scripts.prelude import PRELUDE

RESTORE = (
    PRELUDE
    + """
-- ARGV id, stamp of the record that is replaced ('gone': there is none), the record as it was kept (JSON). All that
-- belongs to it is as it was then; its idleness is counted from now. Returns 0 when Redis has another one by now.
local id, o = ARGV[1], cjson.decode(ARGV[3])
local there = redis.call('EXISTS', 'workspace:' .. id) == 1
if (there and field(id, 'stamp') or 'gone') ~= ARGV[2] then return 0 end
local old = field(id, 'status')
-- What was open here goes on until what is open there began; what was metered here is not metered again.
local metered, open = now, math.max(tonumber(o.runningSince) or 0, tonumber(o.storedSince) or 0)
if there then
  home(id, '')
  redis.call('SREM', 'user:' .. field(id, 'userId') .. ':workspaces', id)
  if o.status == 'deleted' then close_account(id, math.floor(tonumber(o.stamp) / 1000))
  else metered = close_interval(id, open > 0 and open or now) end
  redis.call('ZREM', 'workspaces:' .. old, id)
  redis.call('ZREM', 'boot:queue', id)
  redis.call('ZREM', 'heartbeat:workspaces', id)
  redis.call('DEL', 'workspace:' .. id)
end
redis.call('DEL', 'deleted:' .. id, 'epoch:' .. id)
redis.call('SREM', 'store:pending', id)
local to, machine = o.status, o.machineId or ''
if to == 'deleted' then
  redis.call('SET', 'epoch:' .. id, o.epoch, 'EXAT', o.expiresAt)
  if there then event('workspace.deleted', {workspace = id}) end
  return 1
end
o.machineId, o.trail = '', o.stamp
set(id, o)
home(id, machine)
redis.call('SADD', 'user:' .. o.userId .. ':workspaces', id)
redis.call('ZADD', 'workspaces:' .. to, o.statusSince, id)
if to == 'queued' then
  redis.call('ZADD', 'boot:queue', tonumber(o.statusSince) - (tonumber(o.boost) or 0), id)
end
if OCCUPYING[to] then
  seat(id, machine, true)
  redis.call('ZADD', 'heartbeat:workspaces', now, id)
  set(id, {['seen:boot'] = text(now)})
end
if open == 0 or there then open_interval(id, to == 'running', metered) else count_open(id) end
redis.call('ZADD', 'metered:users', 'inf', o.userId)
due(id)
say(id, 'workspace.restored', {status = to})
if there and to ~= old then say(id, 'workspace.' .. to) end
return 1
"""
)

KEPT = """
-- ARGV id, stamp. That change is kept; what came after it is still pending.
local deleted = 'deleted:' .. ARGV[1]
local live, left = redis.call('HGET', 'workspace:' .. ARGV[1], 'stamp'), redis.call('HGET', deleted, 'stamp')
if left == ARGV[2] then redis.call('DEL', deleted) end
if (live or left or ARGV[2]) == ARGV[2] then redis.call('SREM', 'store:pending', ARGV[1]) end
"""

PEND = (
    PRELUDE
    + """
-- ARGV ids. Hold these against what is kept; those from before there were stamps get one.
for _, id in ipairs(ARGV) do
  if field(id, 'status') ~= '' then
    if field(id, 'stamp') == '' then mark(id) end
    redis.call('SADD', 'store:pending', id)
  end
end
"""
)

REBUILT = (
    PRELUDE
    + """
-- ARGV durable, records, count. Returns 0 when Redis has lost its data once more since `durable` was read.
if redis.call('GET', 'store:durable') ~= ARGV[1] then return 0 end
if redis.call('GET', 'store:rebuilt') ~= ARGV[2] then
  redis.call('SET', 'store:rebuilt', ARGV[2])
  if ARGV[3] ~= '0' then event('store.rebuilt', {records = ARGV[2], restored = ARGV[3]}) end
end
return 1
"""
)
