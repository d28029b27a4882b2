"""Reads that belong together, as one command: the loops make them every second, over every machine."""

from __future__ import annotations

MACHINES_READ = """
-- ARGV most at once, ids (all there are, without any). Returns {rows, ids left over}, a row being
-- {record, slots taken, files there, last report}.
local most, ids = tonumber(ARGV[1]), {}
if #ARGV > 1 then
  for i = 2, #ARGV do ids[#ids + 1] = ARGV[i] end
else
  ids = redis.call('SMEMBERS', 'machines')
end
local rows, rest = {}, {}
for i, id in ipairs(ids) do
  if i > most then
    rest[#rest + 1] = id
  else
    local key = 'machine:' .. id
    rows[i] = {redis.call('HGETALL', key), redis.call('SCARD', key .. ':slots'), redis.call('SCARD', key .. ':files'),
      redis.call('ZSCORE', 'heartbeat:machines', id)}
  end
end
return {rows, rest}
"""

COUNTS = """
-- ARGV statuses. Returns how many workspaces are in each.
local found = {}
for i, status in ipairs(ARGV) do found[i] = redis.call('ZCARD', 'workspaces:' .. status) end
return found
"""

CENSUS = """
-- ARGV '1' (also how long machines take, which changes slowly) or '', then statuses. Returns how many workspaces
-- are in each, {arrivals, departures, waits} counted so far, and {recent launches, recent starts} in ms.
local found = {}
for i = 2, #ARGV do found[i - 1] = redis.call('ZCARD', 'workspaces:' .. ARGV[i]) end
local flow, took = redis.call('HMGET', 'pool:flow', 'arrivals', 'departures', 'waits'), {}
if ARGV[1] == '1' then
  took = {redis.call('LRANGE', 'launch:seconds', 0, -1), redis.call('LRANGE', 'start:seconds', 0, -1)}
end
return {found, flow, took}
"""

IN_STATUS = """
-- ARGV statuses. Returns the ids of the workspaces in them, longest in it first, one status after the other.
local found = {}
for _, status in ipairs(ARGV) do
  for _, id in ipairs(redis.call('ZRANGE', 'workspaces:' .. status, 0, -1)) do found[#found + 1] = id end
end
return found
"""

WORKSPACES_READ = """
-- ARGV ids. Returns of each {record, last activity}.
local found = {}
for i, id in ipairs(ARGV) do
  found[i] = {redis.call('HGETALL', 'workspace:' .. id), redis.call('ZSCORE', 'heartbeat:workspaces', id)}
end
return found
"""

DUE = """
-- Returns how many workspaces are due to be looked at, and how many deliveries there are to make.
local t = redis.call('TIME')
return {redis.call('ZCOUNT', 'workspaces:due', '-inf', t[1] * 1000 + math.floor(t[2] / 1000)),
  redis.call('ZCARD', 'deliveries:due')}
"""
