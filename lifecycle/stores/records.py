"""Records that outlast Redis: workspaces' records in a database, one file per technology behind the Protocol below.

Redis stays the working copy that everything is read from and decided on; what is kept here is written
with every change of a status, before anything acts on it, and wins where the two have parted.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Record:
    """A workspace's record as it is kept. stamp: of the change that wrote it, in microseconds of Redis's
    clock: no two changes of a workspace have the same. fields: everything, as `workspace:{id}` holds it."""

    workspace_id: str
    user_id: str
    status: str
    epoch: int
    stamp: int
    fields: Mapping[str, str] = field(default_factory=dict)


class Records(Protocol):
    """Raises StoreUnavailable when it does not answer, StoreError (with what to do) when it is set up wrongly."""

    async def open(self) -> None:
        """Make sure that it can be used: the table is there (DynamoDB), the schema is the newest (PostgreSQL)."""

    async def get(self, workspace_id: str) -> Record | None:
        """As last written: a read that is never behind."""

    async def put(self, record: Record, over: Record | None) -> bool:
        """Write it if what is there has the status, epoch and stamp of `over` (None: if nothing is
        there); whether it was written."""

    async def remove(self, over: Record) -> bool:
        """Forget it if it is as `over` says; whether it was (True as well when nothing was there)."""

    def scan(self) -> AsyncIterator[Record]:
        """Every record, in no order, page by page."""

    async def close(self) -> None: ...
