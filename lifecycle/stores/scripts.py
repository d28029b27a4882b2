"""The Lua that makes every change one atomic step. `apply` is the only door to a workspace's status; ADOPT
writes records that were lost.

It keeps the record, the status indexes, the slots of machines, the boot queue, the metered usage and
the events stream in step, so that no reader ever sees one without the others. Time is Redis's own.
"""

from __future__ import annotations

from collections.abc import Iterable

from lifecycle.model import ASLEEP, OCCUPYING, WORKSPACE_TRANSITIONS


def _lua_set(names: Iterable[str]) -> str:
    return "{" + ",".join(f"['{name}']=true" for name in sorted(names)) + "}"


def _lua_transitions() -> str:
    """The transition table as Lua, so that the rule stands once, in the model."""
    rows = (f"['{old}']={_lua_set(news)}" for old, news in WORKSPACE_TRANSITIONS.items())
    return "{" + ",".join(rows) + "}"


EVENTS_KEPT = 10_000

PRELUDE = (
    f"""
local ALLOWED = {_lua_transitions()}
local OCCUPYING = {_lua_set(OCCUPYING)}
local ASLEEP = {_lua_set(ASLEEP)}
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)

local function text(n) return string.format('%.0f', n) end

local function event(kind, fields)
  local row = {{'type', kind}}
  for name, value in pairs(fields) do
    if value and value ~= '' then row[#row + 1] = name; row[#row + 1] = tostring(value) end
  end
  redis.call('XADD', 'events', 'MAXLEN', '~', {EVENTS_KEPT}, '*', unpack(row))
end
"""
    + """
local function field(id, name) return redis.call('HGET', 'workspace:' .. id, name) or '' end

local function set(id, fields)
  local row = {}
  for name, value in pairs(fields) do row[#row + 1] = name; row[#row + 1] = tostring(value) end
  if #row > 0 then redis.call('HSET', 'workspace:' .. id, unpack(row)) end
end

local function tell(id, kind, more)
  local fields = {workspace = id, user = field(id, 'userId'), machine = field(id, 'machineId'),
                  epoch = field(id, 'epoch'), reason = field(id, 'reason')}
  for name, value in pairs(more or {}) do fields[name] = value end
  event(kind, fields)
end

local function seat(id, machine, taken)
  if machine == '' then return end
  local slots, record = 'machine:' .. machine .. ':slots', 'machine:' .. machine
  if taken then
    redis.call('SADD', slots, id)
  else
    redis.call('SREM', slots, id)
  end
  if redis.call('EXISTS', record) == 1 then
    local empty = redis.call('HGET', record, 'emptySince') or '0'
    if redis.call('SCARD', slots) > 0 then redis.call('HSET', record, 'emptySince', '0')
    elseif empty == '0' then redis.call('HSET', record, 'emptySince', text(now)) end
  end
end

local function home(id, machine)
  local old = field(id, 'machineId')
  if old == machine then return end
  if old ~= '' then
    seat(id, old, false)
    redis.call('SREM', 'machine:' .. old .. ':files', id)
  end
  if machine ~= '' then redis.call('SADD', 'machine:' .. machine .. ':files', id) end
  set(id, {machineId = machine})
end

local function apply(id, to, fields, more)
  local old = field(id, 'status')
  if not ALLOWED[old] or not ALLOWED[old][to] then
    return redis.error_reply('ILLEGAL ' .. old .. ' to ' .. to)
  end
  if old == 'running' then
    local since = field(id, 'runningSince')
    redis.call('ZADD', 'usage:' .. field(id, 'userId'), since,
               id .. '/' .. field(id, 'epoch') .. '/' .. since .. '/' .. text(now))
    set(id, {runningSince = '0'})
  end
  if fields.machineId then home(id, fields.machineId); fields.machineId = nil end
  local since = now
  if to == 'stopped' and old == 'terminating' then
    since = tonumber(field(id, 'asleepSince'))  -- called off: it has been asleep all along
  elseif to == 'stopped' or to == 'failed' then
    fields.asleepSince = text(now)
  end
  fields.status, fields.statusSince = to, text(since)
  if to == 'running' then fields.runningSince = text(now) end
  set(id, fields)
  redis.call('ZREM', 'workspaces:' .. old, id)
  redis.call('ZADD', 'workspaces:' .. to, since, id)
  seat(id, field(id, 'machineId'), OCCUPYING[to] or false)
  if to ~= 'queued' then redis.call('ZREM', 'boot:queue', id) end
  if to == 'starting' or to == 'running' then
    redis.call('ZADD', 'heartbeat:workspaces', now, id)
    set(id, {['seen:boot'] = text(now)})
  elseif not OCCUPYING[to] then
    local seen = redis.call('ZSCORE', 'heartbeat:workspaces', id)
    if seen then set(id, {lastActiveAt = seen}) end
    redis.call('ZREM', 'heartbeat:workspaces', id)
  end
  tell(id, 'workspace.' .. to, more)
end

local function enqueue(id, boost)
  redis.call('ZADD', 'boot:queue', now - tonumber(boost), id)
  apply(id, 'queued', {reason = '', errorCode = '', error = '', next = '', step = '', boost = boost})
end

-- What was asked for meanwhile follows at once, in the same step.
local function follow(id)
  local next, status = field(id, 'next'), field(id, 'status')
  if next == 'terminate' and (status == 'stopped' or status == 'failed') then
    set(id, {next = ''})
    apply(id, 'terminating', {reason = 'deleted'})
  elseif next == 'start' and (status == 'stopped' or status == 'terminated') then
    enqueue(id, field(id, 'boost') ~= '' and field(id, 'boost') or '0')
  elseif status == 'failed' then
    set(id, {next = ''})
  end
end
"""
)

ENSURE = (
    PRELUDE
    + """
-- ARGV id, limit, then field/value pairs of a new record
local id = ARGV[1]
if redis.call('EXISTS', 'workspace:' .. id) == 1 then return {'found', 0} end
local fields = {}
for i = 3, #ARGV, 2 do fields[ARGV[i]] = ARGV[i + 1] end
local mine = 'user:' .. fields.userId .. ':workspaces'
local used = redis.call('SCARD', mine)
if used >= tonumber(ARGV[2]) then return {'limit', used} end
fields.createdAt, fields.statusSince, fields.asleepSince, fields.status = text(now), text(now), text(now), 'stopped'
-- Machines remember the epochs of what was deleted, and refuse them.
fields.epoch = redis.call('GETDEL', 'epoch:' .. id) or '0'
set(id, fields)
redis.call('SADD', mine, id)
redis.call('ZADD', 'workspaces:stopped', now, id)
tell(id, 'workspace.created')
return {'made', used + 1}
"""
)

CHANGE = (
    PRELUDE
    + """
-- ARGV id, to, options (JSON): from {status…}, epoch?, set {field: text}, bump?, place {machine}?,
-- unlessActiveSince?, chain {status…}?. Returns {outcome, status}; outcome "ok" or what stood in the way.
local id, to, o = ARGV[1], ARGV[2], cjson.decode(ARGV[3])
local status = field(id, 'status')
if status == '' then return {'gone', ''} end
local allowed = false
for _, s in ipairs(o.from) do if s == status then allowed = true end end
if not allowed then return {'status', status} end
if o.epoch and o.epoch ~= tonumber(field(id, 'epoch')) then return {'epoch', status} end
if o.unlessActiveSince then
  local seen = tonumber(redis.call('ZSCORE', 'heartbeat:workspaces', id) or '0')
  if seen > o.unlessActiveSince or tonumber(field(id, 'extendUntil')) > now then
    return {'active', status}
  end
end
local fields = o.set or {}
if o.place then
  local record = 'machine:' .. o.place
  if redis.call('HGET', record, 'status') ~= 'ready' then return {'machine', status} end
  local slots = tonumber(redis.call('HGET', record, 'slots'))
  if redis.call('SCARD', record .. ':slots') >= slots then return {'slots', status} end
  fields.machineId = o.place
end
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
return {'ok', field(id, 'status')}
"""
)

WAKE = (
    PRELUDE
    + """
-- ARGV id, boost in ms (a higher priority is an earlier arrival), priority or '', max_queue
local id, status = ARGV[1], field(ARGV[1], 'status')
if status == '' then return {'gone', 0} end
if ARGV[3] ~= '' then set(id, {priority = ARGV[3]}) end
if ASLEEP[status] then
  local used = redis.call('ZCARD', 'boot:queue')
  if used >= tonumber(ARGV[4]) then return {'limit', used} end
  enqueue(id, ARGV[2])
elseif status == 'stopping' or status == 'terminating' then
  set(id, {next = 'start', boost = ARGV[2]})
  tell(id, 'workspace.progress', {step = 'finishing'})
end
return {'ok', 0}
"""
)

STOP = (
    PRELUDE
    + """
-- ARGV id, reason, then ('' or 'terminate')
local id, status, after = ARGV[1], field(ARGV[1], 'status'), ARGV[3]
if status == '' then return 'gone' end
if status == 'queued' or status == 'starting' or status == 'running' then
  set(id, {next = after})
  apply(id, status == 'queued' and 'stopped' or 'stopping', {reason = ARGV[2], step = ''})
  follow(id)
elseif status == 'stopping' or status == 'terminating' then
  -- Only a visit takes a deletion back: stopping what is being deleted goes without saying.
  if after ~= '' or field(id, 'next') == 'start' then set(id, {next = after}) end
elseif after == 'terminate' and (status == 'stopped' or status == 'failed') then
  apply(id, 'terminating', {reason = ARGV[2], next = ''})
end
return 'ok'
"""
)

DELETE = (
    PRELUDE
    + """
local id, status = ARGV[1], field(ARGV[1], 'status')
if status == '' then return {'gone', ''} end
if status ~= 'terminated' then return {'status', status} end
tell(id, 'workspace.deleted')
redis.call('SREM', 'user:' .. field(id, 'userId') .. ':workspaces', id)
redis.call('ZREM', 'workspaces:terminated', id)
redis.call('SET', 'epoch:' .. id, field(id, 'epoch'), 'EX', 90 * 86400)
redis.call('DEL', 'workspace:' .. id)
return {'ok', ''}
"""
)

TOUCH = (
    PRELUDE
    + """
local id, status = ARGV[1], field(ARGV[1], 'status')
if not (status == 'starting' or status == 'running') then return 0 end
redis.call('ZADD', 'heartbeat:workspaces', 'GT', now, id)
set(id, {['seen:' .. ARGV[2]] = text(now)})
return 1
"""
)

EXTEND = (
    PRELUDE
    + """
local id = ARGV[1]
if field(id, 'status') == '' then return 'gone' end
set(id, {extendUntil = text(math.max(tonumber(field(id, 'extendUntil')), now + tonumber(ARGV[2])))})
tell(id, 'workspace.extended', {['until'] = field(id, 'extendUntil')})
return 'ok'
"""
)

NOTE = (
    PRELUDE
    + """
-- ARGV id, epoch, machine, event, then field/value pairs. A fact about a boot that is no status change;
-- refused once the boot is over or its files are elsewhere: a snapshot that was begun before they were
-- removed and ended after is not of the whole. machineId = '' lets go of the machine that held them.
local id = ARGV[1]
if field(id, 'status') == '' or field(id, 'epoch') ~= ARGV[2] then return 0 end
if field(id, 'machineId') ~= ARGV[3] then return 0 end
local fields, more = {}, {}
for i = 5, #ARGV, 2 do fields[ARGV[i]] = ARGV[i + 1]; more[ARGV[i]] = ARGV[i + 1] end
if fields.machineId then
  if OCCUPYING[field(id, 'status')] then return 0 end
  home(id, fields.machineId); fields.machineId = nil
end
set(id, fields)
more.machineId = nil
tell(id, ARGV[4], more)
return 1
"""
)

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

ADOPT = (
    PRELUDE
    + """
-- ARGV machine, fields of a new record (JSON), what its machine says (JSON): {status, epoch, address, …}.
-- A record that was lost, or that is older than what its machine knows, is written as the machine says.
-- The one way to a status but `apply`: nothing is known of the status that it was in.
local machine, o, said = ARGV[1], cjson.decode(ARGV[2]), cjson.decode(ARGV[3])
local id, to = o.workspaceId, said.status
local there = redis.call('HGET', 'machine:' .. machine, 'status')
if not there or there == 'terminated' then return 'machine' end
local old = field(id, 'status')
if old == '' then
  if tonumber(redis.call('GET', 'epoch:' .. id) or '0') >= tonumber(said.epoch) then return 'deleted' end
  o.createdAt, o.asleepSince = text(now), text(now)
  set(id, o)
  redis.call('SADD', 'user:' .. o.userId .. ':workspaces', id)
else
  if OCCUPYING[old] or old == 'terminating' then return 'busy' end
  if tonumber(field(id, 'epoch')) >= tonumber(said.epoch) then return 'known' end
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
if to == 'running' then said.runningSince = text(now) end
if OCCUPYING[to] then
  redis.call('ZADD', 'heartbeat:workspaces', now, id)
  said['seen:boot'] = text(now)
else
  said.lastActiveAt = text(now)  -- unknown is never idle
end
set(id, said)
seat(id, machine, OCCUPYING[to] or false)
tell(id, 'workspace.adopted', {status = to})
if old == 'queued' and to ~= old then tell(id, 'workspace.' .. to) end
return 'ok'
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

FLUSH = (
    PRELUDE
    + """
-- One gateway's second. ARGV gateway, gap ms, JSON {sessions: {member: age ms}, active: {workspace: age ms},
-- closed: [member], connections: {workspace: n} | null, events: [[type, {fields}]]}. Returns now, and 1 if
-- nothing was known of that gateway.
local gateway, gap, o = ARGV[1], tonumber(ARGV[2]), cjson.decode(ARGV[3])
local last = tonumber(redis.call('GET', 'heartbeat:last') or '0')
-- After a gap (Redis or every gateway was away) old heartbeats say nothing: idleness is counted from now.
if now - last > gap or last > now + gap or redis.call('EXISTS', 'heartbeat:since') == 0 then
  redis.call('SET', 'heartbeat:since', text(now))
end
redis.call('SET', 'heartbeat:last', text(now))
local new = redis.call('ZADD', 'heartbeat:gateways', now, gateway)
for member, age in pairs(o.sessions) do redis.call('ZADD', 'heartbeat:sessions', 'GT', now - age, member) end
for _, member in ipairs(o.closed) do redis.call('ZREM', 'heartbeat:sessions', member) end
for ws, age in pairs(o.active) do
  local status = field(ws, 'status')
  if status == 'running' or status == 'starting' then
    redis.call('ZADD', 'heartbeat:workspaces', 'GT', now - age, ws)
    local known = tonumber(field(ws, 'seen:frames')) or 0  -- another gateway may have seen later ones
    set(ws, {['seen:frames'] = text(math.max(known, now - age))})
  end
end
if type(o.connections) == 'table' then
  local key = 'connections:' .. gateway
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
    + """
-- ARGV gateway, unless seen since (ms)
local score = tonumber(redis.call('ZSCORE', 'heartbeat:gateways', ARGV[1]) or '0')
if score > tonumber(ARGV[2]) then return 0 end
redis.call('ZREM', 'heartbeat:gateways', ARGV[1])
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
    + """
-- ARGV gateway, fresh ms. Returns the other gateways that flushed of late: the last one to leave gets none.
redis.call('ZREM', 'heartbeat:gateways', ARGV[1])
redis.call('DEL', 'connections:' .. ARGV[1])
return redis.call('ZRANGEBYSCORE', 'heartbeat:gateways', now - tonumber(ARGV[2]), '+inf')
"""
)
