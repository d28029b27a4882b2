"""What changes a workspace's record. `apply` of the prelude is the only door to its status; ADOPT writes records
that were lost. Every answer ends with the stamp of the change, '' when nothing was changed."""

from __future__ import annotations

from lifecycle.stores.scripts.prelude import PRELUDE
from lifecycle.stores.scripts.quotas import FAIR_USE

DELETED_KEPT = 90 * 86_400  # seconds that the epoch of a deleted workspace is remembered

ENSURE = (
    PRELUDE
    + """
-- ARGV id, limit (0: none), then field/value pairs of a new record
local id = ARGV[1]
if redis.call('EXISTS', 'workspace:' .. id) == 1 then return {'found', 0, ''} end
local fields = {}
for i = 3, #ARGV, 2 do fields[ARGV[i]] = ARGV[i + 1] end
local mine = 'user:' .. fields.userId .. ':workspaces'
local used = redis.call('SCARD', mine)
local bound = tonumber(ARGV[2])
if bound > 0 and used >= bound then return {'limit', used, ''} end
fields.createdAt, fields.statusSince, fields.asleepSince, fields.status = text(now), text(now), text(now), 'stopped'
-- Machines remember the epochs of what was deleted, and refuse them.
fields.epoch = redis.call('GETDEL', 'epoch:' .. id) or '0'
set(id, fields)
succeed(id)
redis.call('SADD', mine, id)
redis.call('ZADD', 'workspaces:stopped', now, id)
open_interval(id, false, now)
tell(id, 'workspace.created')
return {'made', used + 1, stamp}
"""
)

WAITED = 1000  # ms in the queue; whoever had a slot sooner did not wait for one

CHANGE = (
    PRELUDE
    + f"\nlocal WAITED = {WAITED}"
    + """
-- ARGV id, to, options (JSON): from {status…}, epoch?, set {field: text}, bump?, place {machine}?,
-- unlessSeen? {kind: ms}, unlessExtended? ms, chain {status…}?, unlessConnected? (a session
-- of it is open), waited? (there was no slot). Returns {outcome, status, stamp}; outcome "ok" or what stood in
-- the way.
local id, to, o = ARGV[1], ARGV[2], cjson.decode(ARGV[3])
local status = field(id, 'status')
if status == '' then return {'gone', '', ''} end
local allowed = false
for _, s in ipairs(o.from) do if s == status then allowed = true end end
if not allowed then return {'status', status, ''} end
if o.epoch and o.epoch ~= tonumber(field(id, 'epoch')) then return {'epoch', status, ''} end
for kind, since in pairs(o.unlessSeen or {}) do
  if (tonumber(field(id, 'seen:' .. kind)) or 0) > since then return {'active', status, ''} end
end
if o.unlessExtended and tonumber(field(id, 'extendUntil')) > o.unlessExtended then return {'active', status, ''} end
if o.unlessConnected and connected(id) then return {'active', status, ''} end
local fields = o.set or {}
if o.place then
  local record = 'machine:' .. o.place
  if redis.call('HGET', record, 'status') ~= 'ready' then return {'machine', status, ''} end
  local slots = tonumber(redis.call('HGET', record, 'slots'))
  if redis.call('SCARD', record .. ':slots') >= slots then return {'slots', status, ''} end
  fields.machineId = o.place
end
if o.waited and now - tonumber(field(id, 'statusSince')) >= WAITED then flows('waits') end
if o.bump then fields.epoch = text(math.max(tonumber(field(id, 'epoch')), o.bump) + 1) end
if to == 'running' then
  redis.call('LPUSH', 'boot:seconds', text(now - tonumber(field(id, 'statusSince'))))
  redis.call('LTRIM', 'boot:seconds', 0, 99)
end
for _, step in ipairs(o.chain or {}) do
  local answer = apply(id, step, {reason = fields.reason or field(id, 'reason')})
  if answer then return answer end
end
local answer = apply(id, to, fields, o.tell)
if answer then return answer end
follow(id)
return {'ok', field(id, 'status'), stamp}
"""
)

WAKE = (
    PRELUDE
    + FAIR_USE
    + """
-- ARGV id, boost in ms (a higher priority is an earlier arrival), priority or '', bounds (JSON, see refused_start).
-- Only what really makes it run later is held against them: asked for again it is refused nothing.
local id, status = ARGV[1], field(ARGV[1], 'status')
if status == '' then return {'gone', '', ''} end
local ending = status == 'stopping' or status == 'terminating'
if ASLEEP[status] or (ending and field(id, 'next') ~= 'start') then
  local bounds = cjson.decode(ARGV[4])
  bounds.asleep = ASLEEP[status]
  local refused = refused_start(field(id, 'userId'), bounds)
  if refused then return {'limit', refused, ''} end
end
local urgent = ARGV[3] ~= '' and ARGV[3] ~= field(id, 'priority')
if urgent then set(id, {priority = ARGV[3]}) end
-- It was moved: somebody waits for it now, so its next boot is theirs. It may just be up: then they came with this boot.
local claimed = field(id, 'moved') == '1'
if claimed then set(id, {moved = ''}) end
if claimed and status == 'running' then
  redis.call('ZADD', 'heartbeat:workspaces', 'GT', now, id)
  set(id, {['seen:boot'] = text(now)})
end
if ASLEEP[status] then
  enqueue(id, ARGV[2])
elseif ending then
  set(id, {next = 'start', boost = ARGV[2]})
  tell(id, 'workspace.progress', {step = 'finishing'})
elseif urgent or claimed then
  mark(id)
end
return {'ok', '', stamp}
"""
)

STOP = (
    PRELUDE
    + """
-- ARGV id, reason, then ('' or 'terminate')
local id, status, after = ARGV[1], field(ARGV[1], 'status'), ARGV[3]
if status == '' then return {'gone', ''} end
if status == 'queued' or status == 'starting' or status == 'running' then
  set(id, {next = after})
  apply(id, status == 'queued' and 'stopped' or 'stopping', {reason = ARGV[2], step = ''})
  follow(id)
elseif status == 'stopping' or status == 'terminating' then
  -- Only a visit takes a deletion back: stopping what is being deleted goes without saying.
  local next = field(id, 'next')
  if next ~= after and (after ~= '' or next == 'start') then
    set(id, {next = after})
    mark(id)
  end
elseif after == 'terminate' and (status == 'stopped' or status == 'failed') then
  apply(id, 'terminating', {reason = ARGV[2], next = ''})
end
return {'ok', stamp}
"""
)

DELETE = (
    PRELUDE
    + f"\nlocal KEPT = {DELETED_KEPT}"
    + """
local id, status = ARGV[1], field(ARGV[1], 'status')
if status == '' then return {'gone', '', ''} end
if status ~= 'terminated' then return {'status', status, ''} end
tell(id, 'workspace.deleted')
redis.call('SREM', 'user:' .. field(id, 'userId') .. ':workspaces', id)
close_account(id, now)
redis.call('ZREM', 'workspaces:terminated', id)
redis.call('ZREM', 'workspaces:due', id)
redis.call('DEL', 'notices:' .. id, 'notices:' .. id .. ':last', 'noticed:' .. id)
redis.call('SET', 'epoch:' .. id, field(id, 'epoch'), 'EX', KEPT)
if redis.call('EXISTS', 'store:durable') == 1 then  -- what is left of it, until that is kept
  redis.call('HSET', 'deleted:' .. id, 'workspaceId', id, 'userId', '', 'status', 'deleted',
    'epoch', field(id, 'epoch'), 'expiresAt', text(t[1] + KEPT), 'stamp', stamp, 'trail', field(id, 'trail'))
end
redis.call('DEL', 'workspace:' .. id)
return {'ok', '', stamp}
"""
)

TOUCH = (
    PRELUDE
    + """
-- ARGV id, kind, source. Returns 1 unless it is asleep, or about to be.
local id = ARGV[1]
local noted = sighted(id, ARGV[2], now, ARGV[3])
if not noted or (field(id, 'status') == 'stopping' and field(id, 'next') ~= 'start') then return 0 end
return 1
"""
)

EXTEND = (
    PRELUDE
    + """
local id = ARGV[1]
if field(id, 'status') == '' then return {'gone', ''} end
set(id, {extendUntil = text(math.max(tonumber(field(id, 'extendUntil')), now + tonumber(ARGV[2])))})
due(id)
tell(id, 'workspace.extended', {['until'] = field(id, 'extendUntil')})
return {'ok', stamp}
"""
)

NOTE = (
    PRELUDE
    + """
-- ARGV id, epoch, machine, event, then field/value pairs. A fact about a boot that is no status change;
-- refused once the boot is over or its files are elsewhere: a snapshot that was begun before they were
-- removed and ended after is not of the whole. machineId = '' lets go of the machine that held them.
local id = ARGV[1]
if field(id, 'status') == '' or field(id, 'epoch') ~= ARGV[2] then return {0, ''} end
if field(id, 'machineId') ~= ARGV[3] then return {0, ''} end
local fields, more = {}, {}
for i = 5, #ARGV, 2 do fields[ARGV[i]] = ARGV[i + 1]; more[ARGV[i]] = ARGV[i + 1] end
if fields.machineId then
  if OCCUPYING[field(id, 'status')] then return {0, ''} end
  home(id, fields.machineId); fields.machineId = nil
end
set(id, fields)
resize(id)
more.machineId = nil
tell(id, ARGV[4], more)
return {1, stamp}
"""
)

ADOPT = (
    PRELUDE
    + """
-- ARGV machine, fields of a new record (JSON), what its machine says (JSON): {status, epoch, address, …}.
-- A record that was lost, or that is older than what its machine knows, is written as the machine says.
-- The one way to a status but `apply`: nothing is known of the status that it was in.
local machine, o, said = ARGV[1], cjson.decode(ARGV[2]), cjson.decode(ARGV[3])
local id, to = o.workspaceId, said.status
local there = redis.call('HGET', 'machine:' .. machine, 'status')
if not there or there == 'terminated' then return {'machine', ''} end
local old = field(id, 'status')
if old == '' then
  if tonumber(redis.call('GET', 'epoch:' .. id) or '0') >= tonumber(said.epoch) then return {'deleted', ''} end
  o.createdAt, o.asleepSince = text(now), text(now)
  set(id, o)
  succeed(id)
  redis.call('SADD', 'user:' .. o.userId .. ':workspaces', id)
else
  if OCCUPYING[old] or old == 'terminating' then return {'busy', ''} end
  if tonumber(field(id, 'epoch')) >= tonumber(said.epoch) then return {'known', ''} end
end
home(id, machine)
if old == 'queued' then  -- somebody came back first, and wants it to run
  if to == 'stopping' then said.next = 'start'
  elseif not OCCUPYING[to] then
    to = 'queued'
    said.errorCode, said.error = '', ''
  end
end
said.status = to
if to ~= old then
  said.statusSince = text(now)
  redis.call('ZREM', 'workspaces:' .. old, id)
  redis.call('ZADD', 'workspaces:' .. to, now, id)
end
if to ~= 'queued' then redis.call('ZREM', 'boot:queue', id) end
if old == '' then open_interval(id, to == 'running', now) else meter(id, old, to) end
if OCCUPYING[to] then
  redis.call('ZADD', 'heartbeat:workspaces', now, id)
  said['seen:boot'] = text(now)
else
  said.lastActiveAt = text(now)  -- unknown is never idle
end
said.moved = ''
set(id, said)
due(id)
seat(id, machine, OCCUPYING[to] or false)
tell(id, 'workspace.adopted', {status = to})
if old == 'queued' and to ~= old then tell(id, 'workspace.' .. to) end
return {'ok', stamp}
"""
)
