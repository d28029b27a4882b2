"""What works in a workspace although nobody may be there, as its machine's reports tell."""

from __future__ import annotations

from lifecycle.stores.scripts.prelude import PRELUDE

JOB = (
    PRELUDE
    + """
-- ARGV id, epoch, job in words or ''. Returns {1 when it began or ended, stamp}. A job that ends takes its bound along:
-- the next one has its own.
local id, job = ARGV[1], ARGV[3]
if field(id, 'status') ~= 'running' or field(id, 'epoch') ~= ARGV[2] then return {0, ''} end
local before = field(id, 'job')
if job ~= '' then
  redis.call('ZADD', 'heartbeat:workspaces', 'GT', now, id)
  set(id, {['seen:job'] = text(now), ['source:job'] = job, job = job})
  if field(id, 'jobSince') == '' then set(id, {jobSince = text(now)}) end
else
  set(id, {job = '', jobSince = ''})
end
if (job == '') == (before == '') then return {0, ''} end
due(id)
tell(id, 'workspace.job', {state = job == '' and 'ended' or 'began', job = job ~= '' and job or before})
return {1, stamp}
"""
)
