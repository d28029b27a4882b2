"""Records that outlast Redis: workspaces' records in a database, one file per technology behind the Protocol below.

Redis stays the working copy that everything is read from and decided on; what is kept here is written
with every change of a record, before anything acts on it, and wins where the two have parted.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

DELETED = "deleted"
"""Status of what is left of a deleted workspace: its epoch, which machines remember too."""


@dataclass(frozen=True, slots=True)
class Record:
    """A workspace's record as it is kept. stamp: of the change that wrote it, in microseconds of Redis's
    clock: no two changes of a workspace have the same. expires_at: when it may be forgotten, in seconds
    since 1970; 0 is never. fields: the others that `workspace:{id}` holds."""

    workspace_id: str
    user_id: str
    status: str
    epoch: int
    stamp: int
    expires_at: int = 0
    fields: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, row: Mapping[str, str]) -> Record:
        """From names and texts, as row() gives them."""
        rest = dict(row)
        return cls(
            workspace_id=rest.pop("workspaceId"),
            user_id=rest.pop("userId"),
            status=rest.pop("status"),
            epoch=int(rest.pop("epoch")),
            stamp=int(rest.pop("stamp")),
            expires_at=int(rest.pop("expiresAt", 0)),
            fields=rest,
        )

    def row(self) -> dict[str, str]:
        own = {
            "workspaceId": self.workspace_id, "userId": self.user_id, "status": self.status,
            "epoch": str(self.epoch), "stamp": str(self.stamp),
        }  # fmt: skip
        expiry = {"expiresAt": str(self.expires_at)} if self.expires_at else {}
        return {**self.fields, **own, **expiry}


class Records(Protocol):
    """Raises StoreUnavailable when it does not answer, StoreError (with what to do) when it is set up wrongly."""

    name: str
    """Which records these are, for logs and for Redis: "dynamodb:workspaces". No password."""

    async def open(self) -> None:
        """Make sure that it can be used: the table is there (DynamoDB), the schema is the newest (PostgreSQL)."""

    async def get(self, workspace_id: str) -> Record | None:
        """As last written: a read that is never behind."""

    async def put(self, record: Record, over: Record | None) -> bool:
        """Write it if what is there has the status, epoch and stamp of `over` (None: if nothing is
        there); whether it was written. False as well when the answer to a first try was lost."""

    def scan(self) -> AsyncIterator[Record]:
        """Every record, in no order, page by page."""

    async def close(self) -> None: ...


class Succession(Enum):
    """How Redis's record and the kept one follow each other."""

    SAME = "same"
    WRITE = "write"  # Redis is ahead: keep what it has
    RESTORE = "restore"  # Redis has lost changes: put back what was kept


def remembers(trail: Sequence[int], stamp: int, length: int) -> bool:
    """Whether a record with that trail came out of the change with that stamp. A trail of full length
    has dropped its oldest stamps: what is older than all of it is taken for one of those."""
    return stamp in trail or (len(trail) >= length and stamp < trail[0])


def succession(
    theirs: Record | None, ours: Record | None, trail: Sequence[int], length: int
) -> Succession:
    """theirs: what is kept. ours: what Redis has now, read after it. trail: the stamps of the changes that
    led to ours, oldest first, of which the last `length` are remembered.

    Everything kept was in Redis before. So ours has theirs among its ancestors, unless Redis has lost it.
    """
    if ours is None:
        lost = theirs is not None and theirs.status != DELETED
        return Succession.RESTORE if lost else Succession.SAME
    if theirs is None:
        return Succession.WRITE
    if theirs.stamp == ours.stamp:
        return Succession.SAME
    if remembers(trail, theirs.stamp, length):
        return Succession.WRITE
    # Made again after its deletion: a new life, which knows the epochs of the old one.
    made_again = theirs.status == DELETED and all(theirs.stamp < stamp for stamp in trail)
    if made_again and theirs.epoch <= ours.epoch:
        return Succession.WRITE
    return Succession.RESTORE
