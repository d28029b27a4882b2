"""The Lua that makes every change one atomic step. `apply` is the only door to a workspace's status; ADOPT
and RESTORE write records that were lost.

`tell` also stamps the record, so that what is kept elsewhere can be held against it. `apply` keeps the
record, the status indexes, the slots of machines, the boot queue, the metered usage and
the events stream in step, so that no reader ever sees one without the others. Time is Redis's own.
"""

from __future__ import annotations

from collections.abc import Iterable

from lifecycle.model import ASLEEP, OCCUPYING, WORKSPACE_TRANSITIONS
from lifecycle.moving import MOVING
from lifecycle.stores.scripts.metering import METERING


def _lua_set(names: Iterable[str]) -> str:
    return "{" + ",".join(f"['{name}']=true" for name in sorted(names)) + "}"


def _lua_transitions() -> str:
    """The transition table as Lua, so that the rule stands once, in the model."""
    rows = (f"['{old}']={_lua_set(news)}" for old, news in WORKSPACE_TRANSITIONS.items())
    return "{" + ",".join(rows) + "}"


EVENTS_KEPT = 10_000
TRAIL = 32  # stamps that a record remembers: changes it may be ahead of what is kept elsewhere

PRELUDE = (
    f"""
local ALLOWED = {_lua_transitions()}
local OCCUPYING = {_lua_set(OCCUPYING)}
local ASLEEP = {_lua_set(ASLEEP)}
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local TRAIL = {TRAIL}
local MOVING = '{MOVING}'

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

-- Every recorded change has a stamp of its own, in microseconds; the last of them are the record's trail. Where
-- records are kept elsewhere as well, the change is now pending there. Sightings are no recorded change.
local stamp = ''
local function mark(id)
  local last = tonumber(field(id, 'stamp')) or 0
  stamp = text(math.max(t[1] * 1000000 + t[2], last + 1))
  local trail = {}
  for one in string.gmatch(field(id, 'trail'), '%d+') do trail[#trail + 1] = one end
  trail[#trail + 1] = stamp
  set(id, {stamp = stamp, trail = table.concat(trail, ' ', math.max(1, #trail - TRAIL + 1))})
  if redis.call('EXISTS', 'store:durable') == 1 then redis.call('SADD', 'store:pending', id) end
end

-- Its deletion is yet to be kept elsewhere: what is written now is the next change of the same record.
local function succeed(id)
  local deleted = 'deleted:' .. id
  for _, name in ipairs({'stamp', 'trail'}) do set(id, {[name] = redis.call('HGET', deleted, name) or ''}) end
  redis.call('DEL', deleted)
end

local function say(id, kind, more)
  local fields = {workspace = id, user = field(id, 'userId'), machine = field(id, 'machineId'),
                  epoch = field(id, 'epoch'), reason = field(id, 'reason')}
  for name, value in pairs(more or {}) do fields[name] = value end
  event(kind, fields)
end

local function tell(id, kind, more)
  mark(id)
  say(id, kind, more)
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

"""
    + METERING
    + """
-- When the lifecycle has to look at it next (policy.look): now, for that look to say when again.
local function due(id) redis.call('ZADD', 'workspaces:due', now, id) end

-- Who comes for a slot and who gives one back: counted for the scaler, and never reset.
local function flows(what) redis.call('HINCRBY', 'pool:flow', what, 1) end

-- What is stopped to start elsewhere at once: nobody left, and nobody came.
local function moves(id)
  return field(id, 'next') == 'start' and string.sub(field(id, 'reason'), 1, #MOVING) == MOVING
end

-- A session of it is open on some gateway.
local function connected(id)
  for _, gateway in ipairs(redis.call('ZRANGE', 'heartbeat:gateways', 0, -1)) do
    if tonumber(redis.call('HGET', 'connections:' .. gateway, id) or '0') > 0 then return true end
  end
  return false
end

-- It moves, and its boot will be no sign of life. Cut short by a move, a boot that somebody waits for stays theirs; so
-- does the next one of whoever is connected: they come back by themselves, and nobody told them of a stop.
local function keeps_clock(id, old)
  return moves(id) and (old == 'running' or field(id, 'moved') == '1') and not connected(id)
end

-- Somebody was seen there, at that time. It counts where a slot is held, and on the way to another: what moves keeps its
-- clock.
local function sighted(id, kind, at, source)
  local status = field(id, 'status')
  if OCCUPYING[status] then
    redis.call('ZADD', 'heartbeat:workspaces', 'GT', at, id)
  elseif status == 'queued' and field(id, 'moved') == '1' then
    set(id, {lastActiveAt = text(math.max(at, tonumber(field(id, 'lastActiveAt')) or 0))})
  else
    return false
  end
  -- Another gateway may have seen later ones.
  if at >= (tonumber(field(id, 'seen:' .. kind)) or 0) then
    set(id, {['seen:' .. kind] = text(at), ['source:' .. kind] = source})
  end
  return true
end

local function apply(id, to, fields, more)
  local old = field(id, 'status')
  if not ALLOWED[old] or not ALLOWED[old][to] then
    return redis.error_reply('ILLEGAL ' .. old .. ' to ' .. to)
  end
  meter(id, old, to)
  if fields.machineId then home(id, fields.machineId); fields.machineId = nil end
  local since = now
  if to == 'stopped' and old == 'terminating' then
    since = tonumber(field(id, 'asleepSince'))  -- called off: it has been asleep all along
  elseif to == 'stopped' or to == 'failed' then
    fields.asleepSince = text(now)
  end
  fields.status, fields.statusSince = to, text(since)
  if to == 'starting' then
    for _, name in ipairs({'job', 'jobSince', 'warned', 'stopBy', 'stopByReason', 'keepUntil'}) do fields[name] = '' end
  end
  set(id, fields)
  if to == 'stopping' then set(id, {moved = keeps_clock(id, old) and '1' or ''}) end
  resize(id)
  due(id)
  local held = OCCUPYING[old] or old == 'queued'
  if held and (to == 'failed' or (to == 'stopped' and not moves(id))) then flows('departures') end
  redis.call('ZREM', 'workspaces:' .. old, id)
  redis.call('ZADD', 'workspaces:' .. to, since, id)
  seat(id, field(id, 'machineId'), OCCUPYING[to] or false)
  if to ~= 'queued' then redis.call('ZREM', 'boot:queue', id) end
  if (to == 'starting' or to == 'running') and field(id, 'moved') == '1' then
    -- No sign of life: what was seen last stays so. NX: it may have been seen while it starts.
    redis.call('ZADD', 'heartbeat:workspaces', 'NX', tonumber(field(id, 'lastActiveAt')) or now, id)
  elseif to == 'starting' or to == 'running' then
    redis.call('ZADD', 'heartbeat:workspaces', now, id)
    set(id, {['seen:boot'] = text(now)})
  elseif not OCCUPYING[to] then
    local seen = redis.call('ZSCORE', 'heartbeat:workspaces', id)
    if seen then set(id, {lastActiveAt = seen}) end
    redis.call('ZREM', 'heartbeat:workspaces', id)
  end
  tell(id, 'workspace.' .. to, more)
end

-- First come, first served even within a millisecond: a score is exact to less than a microsecond.
local function enqueue(id, boost)
  redis.call('ZADD', 'boot:queue', t[1] * 1000 + t[2] / 1000 - tonumber(boost), id)
  redis.call('LPUSH', 'boot:arrivals', text(now) .. ' ' .. text(tonumber(boost)))
  redis.call('LTRIM', 'boot:arrivals', 0, 499)
  if not moves(id) then flows('arrivals') end
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
