"""What the API is given in its tests: a store in memory with Redis's semantics, and its neighbours."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from gateway.api.answers import DashboardAnswer, LiveSessions, PoolAnswer
from lifecycle.identifiers import workspace_id_for
from lifecycle.model import (
    ASLEEP,
    Event,
    Machine,
    MachineStatus,
    Workspace,
    WorkspaceStatus,
    check_transition,
)
from lifecycle.notices import Notice, Preferences
from lifecycle.notices.deliveries import Delivery
from lifecycle.peaks import Peak
from lifecycle.peaks_book import Ahead, Book
from lifecycle.peaks_declared import ENTRIES_MAX, Entry
from lifecycle.queueing import boost_ms
from lifecycle.stores import Conflict, LimitReached, StoreUnavailable
from lifecycle.stores.peaks import Declared

_W = WorkspaceStatus
FIELDS = {"machineId": "machine_id", "errorCode": "error_code", "snapshotId": "snapshot_id"}


class FakeStore:
    """A WorkspaceStore, with the change() that the lifecycle loops make."""

    def __init__(self, max_workspaces_per_user: int, max_queue: int) -> None:
        self.rows: dict[str, Workspace] = {}
        self.queue: dict[str, int] = {}
        self.max_workspaces, self.max_queue = max_workspaces_per_user, max_queue

    async def now_ms(self) -> int:
        return int(time.time() * 1000)

    async def ensure(
        self,
        user_id: str,
        name: str = "",
        *,
        plan: str = "default",
        priority: str = "normal",
        region: str = "local",
    ) -> tuple[Workspace, bool]:
        workspace_id = workspace_id_for(user_id, name)
        if workspace_id in self.rows:
            return self.rows[workspace_id], False
        used = sum(row.user_id == user_id for row in self.rows.values())
        if used >= self.max_workspaces:
            raise LimitReached("workspaces", self.max_workspaces, used)
        now = await self.now_ms()
        self.rows[workspace_id] = Workspace(
            workspace_id, user_id, _W.STOPPED, now, now,
            name=name, plan=plan, priority=priority, region=region,
        )  # fmt: skip
        return self.rows[workspace_id], True

    async def get(self, workspace_id: str) -> Workspace | None:
        return self.rows.get(workspace_id)

    async def list(
        self, user_id: str | None = None, status: Collection[WorkspaceStatus] | None = None
    ) -> list[Workspace]:
        rows = [
            row
            for row in self.rows.values()
            if user_id in (None, row.user_id) and (status is None or row.status in status)
        ]
        return sorted(rows, key=lambda row: (-row.created_at_ms, row.id))

    async def wake(self, workspace_id: str, priority: str = "") -> Workspace:
        row = self._require(workspace_id)
        row = self._set(row, priority=priority or row.priority)
        if row.status in ASLEEP:
            if len(self.queue) >= self.max_queue:
                raise LimitReached("max_queue", self.max_queue, len(self.queue))
            self.queue[row.id] = await self.now_ms() - boost_ms(row.priority)
            return await self._to(row, _W.QUEUED, reason="", error="", error_code="", next="")
        if row.status in (_W.STOPPING, _W.TERMINATING):
            return self._set(row, next="start")
        return row

    async def stop(self, workspace_id: str, reason: str, then: str = "") -> Workspace:
        row = self._require(workspace_id)
        if row.status in (_W.QUEUED, _W.STARTING, _W.RUNNING):
            to = _W.STOPPED if row.status is _W.QUEUED else _W.STOPPING
            row = await self._to(row, to, reason=reason, next=then)
        elif row.status in (_W.STOPPING, _W.TERMINATING):
            row = self._set(row, next=then)
        if then == "terminate" and row.status in (_W.STOPPED, _W.FAILED):
            row = await self._to(row, _W.TERMINATING, reason=reason, next="")
        return row

    async def terminate(self, workspace_id: str, reason: str) -> Workspace:
        return await self.stop(workspace_id, reason, "terminate")

    async def delete(self, workspace_id: str) -> None:
        row = self._require(workspace_id)
        if row.status is not _W.TERMINATED:
            raise Conflict(f"workspace {workspace_id} is {row.status}", row.status)
        del self.rows[workspace_id]

    async def touch(self, workspace_id: str, kind: str) -> bool:
        row = self._require(workspace_id)
        if row.status not in (_W.STARTING, _W.RUNNING):
            return False
        now = await self.now_ms()
        self._set(row, last_active_at_ms=now, seen={**row.seen, kind: now})
        return True

    async def extend(self, workspace_id: str, seconds: float) -> Workspace:
        row = self._require(workspace_id)
        until = await self.now_ms() + int(seconds * 1000)
        return self._set(row, extend_until_ms=max(row.extend_until_ms, until))

    async def set_policy(self, workspace_id: str, text: str) -> Workspace:
        return self._set(self._require(workspace_id), own_policy=text)

    async def keep(self, workspace_id: str, seconds: float) -> Workspace:
        row = self._require(workspace_id)
        until = await self.now_ms() + int(seconds * 1000)
        return self._set(row, keep_until_ms=max(row.keep_until_ms, until))

    async def pin(self, workspace_id: str, pinned: bool) -> Workspace:
        return self._set(self._require(workspace_id), pinned=pinned)

    async def queue_position(self, workspace_id: str) -> int | None:
        places = sorted(self.queue, key=self.queue.__getitem__)  # of equals, who came first
        return places.index(workspace_id) + 1 if workspace_id in places else None

    async def change(
        self, workspace: Workspace, to: WorkspaceStatus, *, fields: Mapping[str, str] | None = None
    ) -> Workspace:
        return await self._to(
            workspace, to, **{FIELDS.get(k, k): v for k, v in (fields or {}).items()}
        )

    def _require(self, workspace_id: str) -> Workspace:
        if workspace_id not in self.rows:
            raise Conflict(f"there is no workspace {workspace_id}")
        return self.rows[workspace_id]

    async def _to(self, row: Workspace, to: WorkspaceStatus, **fields: Any) -> Workspace:
        check_transition(row.status, to)
        now = await self.now_ms()
        if to is not _W.QUEUED:
            self.queue.pop(row.id, None)
        if to in (_W.STARTING, _W.RUNNING):
            fields |= {"last_active_at_ms": now, "seen": {**row.seen, "boot": now}}
        fields["running_since_ms"] = now if to is _W.RUNNING else 0
        return self._set(row, status=to, status_since_ms=now, **fields)

    def _set(self, row: Workspace, **fields: Any) -> Workspace:
        self.rows[row.id] = replace(row, **fields)
        return self.rows[row.id]


class AwayStore:
    """A store that does not answer."""

    def __getattr__(self, name: str) -> Any:
        async def away(*_: Any, **__: Any) -> Any:
            raise StoreUnavailable("Redis did not answer: connection refused")

        return away


class FakeFleet:
    def __init__(self) -> None:
        self.decision: dict[str, Any] = {}
        self.held: list[tuple[str, bool]] = []

    async def machines(self) -> list[Machine]:
        return [
            Machine(
                "m-1", "local", MachineStatus.READY, 1000, 5,
                address="127.0.0.1:4711", token="machine-token", occupied=2, reason="",
            )
        ]  # fmt: skip

    async def machine(self, machine_id: str) -> Machine | None:
        return next((m for m in await self.machines() if m.id == machine_id), None)

    async def hold(self, machine_id: str, held: bool) -> None:
        self.held.append((machine_id, held))

    async def pool_decision(self) -> dict[str, Any]:
        return self.decision


class FakeEvents:
    """A stream in memory: ids "n-0", subscribers with a bounded queue that drops its oldest."""

    def __init__(self, pending_max: int = 256) -> None:
        self.kept: list[Event] = []
        self.queues: dict[asyncio.Queue[Event], str | None] = {}
        self.pending_max = pending_max

    def tell(self, kind: str, **data: str) -> Event:
        event = Event(f"{1000 + len(self.kept)}-0", kind, data)
        self.kept.append(event)
        for queue, workspace in self.queues.items():
            if workspace in (None, data.get("workspace")):
                if queue.full():
                    queue.get_nowait()
                queue.put_nowait(event)
        return event

    async def history(self, after_id: str, limit: int) -> list[Event]:
        if not after_id:
            return self.kept[-limit:]
        place = int(after_id.partition("-")[0])
        return [event for event in self.kept if event.at_ms > place][:limit]

    @contextmanager
    def subscription(self, workspace: str | None) -> Iterator[asyncio.Queue[Event]]:
        queue: asyncio.Queue[Event] = asyncio.Queue(self.pending_max)
        self.queues[queue] = workspace
        try:
            yield queue
        finally:
            del self.queues[queue]


class FakeUsage:
    def __init__(self) -> None:
        self.rows: dict[str, list[tuple[Any, ...]]] = {}

    async def usage(self, user_id: str, since_ms: int = 0) -> list[Any]:
        return self.rows.get(user_id, [])

    async def users(self, since_ms: int) -> list[str]:
        return sorted(self.rows)


class FakeDashboard:
    """The same account again and again."""

    async def account(self) -> DashboardAnswer:
        return DashboardAnswer(
            at=5, sessions=LiveSessions(total=0, gateways=[]), workspaces={}, machines=[],
            machines_total=0, queue=[], scaler=PoolAnswer(), cost=None, events=[], series=[],
        )  # fmt: skip

    async def follow(self) -> AsyncGenerator[DashboardAnswer, None]:
        for _ in range(2):
            yield await self.account()


class FakeBook:
    """Nobody was told anything, and every delivery may be sent again."""

    async def since(self, workspace_id: str, seq: int, limit: int = 50) -> list[Notice]:
        return []

    async def preferences(self, user_id: str) -> Preferences:
        return Preferences()

    async def list(self, *asked: Any) -> list[Delivery]:
        return []

    async def retry(self, delivery_id: str) -> Delivery:
        notice = Notice(1, "workspace.stopped", "ws-1", "ada", 5, "it stopped")
        return Delivery(delivery_id, "webhook", notice, "demo")


class FakeHealth:
    def __init__(self) -> None:
        self.reasons: list[str] = []

    async def ready(self) -> tuple[bool, list[str]]:
        return not self.reasons, self.reasons


class FakeKeys:
    def __init__(self) -> None:
        self.kept: dict[str, str] = {}

    async def claim(self, key: str, fingerprint: str) -> str:
        return self.kept.setdefault(key, fingerprint)


class FakePeaks:
    """A book in memory. entries: of the operator's file."""

    def __init__(self) -> None:
        self.told: dict[str, Peak] = {}
        self.entries: list[Entry] = []

    async def look(self) -> Book:
        now = int(time.time() * 1000)
        found = [Ahead(peak) for peak in self.told.values() if peak.until_ms > now]
        found += [Ahead(peak, entry) for entry in self.entries for peak in entry.peaks(now)]
        return Book(now, sorted(found, key=lambda each: (each.peak.at_ms, each.peak.name)))

    async def in_file(self, name: str) -> bool:
        return any(entry.name == name for entry in self.entries)

    async def declare(self, peak: Peak) -> tuple[Declared, int]:
        now = int(time.time() * 1000)
        if peak.at_ms < now:
            return "past", now
        if len(self.told) >= ENTRIES_MAX and peak.name not in self.told:
            return "full", now
        self.told[peak.name] = peak
        return "ok", now

    async def remove(self, name: str) -> Peak | None:
        return self.told.pop(name, None)
