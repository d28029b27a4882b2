"""How long one workspace lives, beside what its plan says of it."""

from __future__ import annotations

from lifecycle.stores.scripts.prelude import PRELUDE

LIVES = (
    PRELUDE
    + """
-- ARGV id, what ("policy", "keep", "pin"), value: JSON, milliseconds from now, "1" or "".
local id, what, value = ARGV[1], ARGV[2], ARGV[3]
if field(id, 'status') == '' then return {'gone', ''} end
due(id)
if what == 'policy' then
  set(id, {policy = value})
  tell(id, 'workspace.policy')
elseif what == 'keep' then
  local old = tonumber(field(id, 'keepUntil')) or 0
  set(id, {keepUntil = text(math.max(old, now + tonumber(value)))})
  tell(id, 'workspace.kept', {['until'] = field(id, 'keepUntil')})
else
  set(id, {pinned = value})
  tell(id, value == '1' and 'workspace.pinned' or 'workspace.unpinned')
end
return {'ok', stamp}
"""
)
