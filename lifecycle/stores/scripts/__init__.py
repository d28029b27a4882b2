"""The Lua that makes every change one atomic step, by what it changes."""

from __future__ import annotations

from lifecycle.stores.scripts.machines import (
    MACHINE_ADOPT,
    MACHINE_CHANGE,
    MACHINE_NEW,
    MACHINE_REPORT,
)
from lifecycle.stores.scripts.prelude import EVENTS_KEPT
from lifecycle.stores.scripts.signals import (
    DISTRUST,
    EVICT,
    FLUSH,
    FORGET_GATEWAY,
    LEASE_GIVE,
    LEASE_TAKE,
    LEAVE,
    TRUSTED,
)
from lifecycle.stores.scripts.workspaces import (
    ADOPT,
    CHANGE,
    DELETE,
    ENSURE,
    EXTEND,
    NOTE,
    STOP,
    TOUCH,
    WAKE,
)

__all__ = [
    "ADOPT",
    "CHANGE",
    "DELETE",
    "DISTRUST",
    "ENSURE",
    "EVENTS_KEPT",
    "EVICT",
    "EXTEND",
    "FLUSH",
    "FORGET_GATEWAY",
    "LEASE_GIVE",
    "LEASE_TAKE",
    "LEAVE",
    "MACHINE_ADOPT",
    "MACHINE_CHANGE",
    "MACHINE_NEW",
    "MACHINE_REPORT",
    "NOTE",
    "STOP",
    "TOUCH",
    "TRUSTED",
    "WAKE",
]
