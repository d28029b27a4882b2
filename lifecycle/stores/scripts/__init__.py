"""The Lua that makes every change one atomic step, by what it changes."""

from __future__ import annotations

from lifecycle.stores.scripts.admission import ADMIT, RELEASE
from lifecycle.stores.scripts.jobs import JOB
from lifecycle.stores.scripts.looks import PUT_ON_DUE, SCHEDULE, WARNED
from lifecycle.stores.scripts.machines import (
    MACHINE_ADOPT,
    MACHINE_CHANGE,
    MACHINE_DOOM,
    MACHINE_HEARD,
    MACHINE_HOLD,
    MACHINE_JOIN,
    MACHINE_NEW,
    MACHINE_OBSERVE,
    MACHINE_REPORT,
)
from lifecycle.stores.scripts.policies import LIVES
from lifecycle.stores.scripts.prelude import EVENTS_KEPT, TRAIL
from lifecycle.stores.scripts.quotas import QUOTA_AGAIN, QUOTA_DUE, QUOTA_STOP, TAKEN
from lifecycle.stores.scripts.reading import (
    CENSUS,
    COUNTS,
    DUE,
    IN_STATUS,
    MACHINES_READ,
    WORKSPACES_READ,
)
from lifecycle.stores.scripts.records import KEPT, PEND, REBUILT, RESTORE
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
    "ADMIT",
    "ADOPT",
    "CENSUS",
    "CHANGE",
    "COUNTS",
    "DELETE",
    "DISTRUST",
    "DUE",
    "ENSURE",
    "EVENTS_KEPT",
    "EVICT",
    "EXTEND",
    "FLUSH",
    "FORGET_GATEWAY",
    "IN_STATUS",
    "JOB",
    "KEPT",
    "LEASE_GIVE",
    "LEASE_TAKE",
    "LEAVE",
    "LIVES",
    "MACHINES_READ",
    "MACHINE_ADOPT",
    "MACHINE_CHANGE",
    "MACHINE_DOOM",
    "MACHINE_HEARD",
    "MACHINE_HOLD",
    "MACHINE_JOIN",
    "MACHINE_NEW",
    "MACHINE_OBSERVE",
    "MACHINE_REPORT",
    "NOTE",
    "PEND",
    "PUT_ON_DUE",
    "QUOTA_AGAIN",
    "QUOTA_DUE",
    "QUOTA_STOP",
    "REBUILT",
    "RELEASE",
    "RESTORE",
    "SCHEDULE",
    "STOP",
    "TAKEN",
    "TOUCH",
    "TRAIL",
    "TRUSTED",
    "WAKE",
    "WARNED",
    "WORKSPACES_READ",
]
