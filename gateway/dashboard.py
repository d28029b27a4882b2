"""What an operator looks at: one account of everything, computed once for all who look.

While somebody looks it is computed every two seconds; while nobody does, only a sample for the charts is taken.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Sequence
from typing import Any, Protocol

import structlog

from gateway.api.answers import (
    CostNow,
    DashboardAnswer,
    GatewaySessions,
    LiveSessions,
    MachineNow,
    Sample,
    Seat,
    Waiting,
)
from gateway.api.fleet import decision_answer
from gateway.api.showing import event_answer, machine_answer
from lifecycle.model import OCCUPYING, Event, Machine, MachineStatus, Workspace, WorkspaceStatus
from lifecycle.pricing import Prices, shown
from lifecycle.stores import StoreError
from lifecycle.usage import Total, month_of

log = structlog.get_logger(__name__)

LOOK = 2.0  # seconds between two accounts while somebody looks
SAMPLE = 10.0  # seconds between two points of the charts
SAMPLES = 180  # points: 30 minutes
MACHINES_MAX = 500  # shown; the first launched
QUEUE_MAX = 100  # shown; who is next
EVENTS = 30

_W = WorkspaceStatus


class Records(Protocol):
    async def now_ms(self) -> int: ...

    async def counts(self) -> dict[str, int]: ...

    async def queued(self) -> list[Workspace]: ...

    async def list(
        self, user_id: str | None = None, status: Collection[WorkspaceStatus] | None = None
    ) -> list[Workspace]: ...


class Machines(Protocol):
    async def machines(self) -> list[Machine]: ...

    async def pool_decision(self) -> dict[str, Any]: ...


class Sessions(Protocol):
    async def gateways(self) -> dict[str, int]: ...

    async def connections(self, gateway: str) -> dict[str, int]: ...

    async def history(self, after_id: str, limit: int) -> Sequence[Event]: ...


class Metered(Protocol):
    async def totals(self, now_ms: int) -> Sequence[Total]: ...


class Dashboard:
    def __init__(
        self,
        store: Records,
        fleet: Machines,
        signals: Sessions,
        usage: Metered,
        eta: Callable[[int], Awaitable[float]],
        prices: Prices | None,
        look: float = LOOK,
    ) -> None:
        """eta: place in the queue → seconds. look: seconds between two accounts."""
        self._store, self._fleet, self._signals, self._usage = store, fleet, signals, usage
        self._eta, self._prices, self._look = eta, prices, look
        self._samples: deque[Sample] = deque(maxlen=SAMPLES)
        self._lookers: set[asyncio.Queue[DashboardAnswer]] = set()
        self._looking: asyncio.Task[None] | None = None
        self._known: tuple[float, asyncio.Task[DashboardAnswer]] | None = None
        self.computed = 0
        """Accounts so far."""

    async def account(self) -> DashboardAnswer:
        """What there is now; not older than one look. Raises StoreError."""
        now = asyncio.get_running_loop().time()
        if self._known is None or now >= self._known[0]:
            self._known = (now + self._look * 0.9, asyncio.create_task(self._compute()))
        return await asyncio.shield(self._known[1])

    async def follow(self) -> AsyncGenerator[DashboardAnswer, None]:
        """An account now and with every look, one computation for everybody who looks. Close it when done.
        Raises StoreError when the first cannot be told."""
        queue: asyncio.Queue[DashboardAnswer] = asyncio.Queue(1)  # full: the older one goes
        self._lookers.add(queue)
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look_on())
        try:
            yield await self.account()
            while True:
                yield await queue.get()
        finally:
            self._lookers.discard(queue)

    async def _look_on(self) -> None:
        while True:
            await asyncio.sleep(self._look)
            if not self._lookers:
                return
            try:
                account = await self.account()
            except StoreError as error:
                log.info("dashboard.blind", why=str(error))
                continue
            for queue in self._lookers:
                if queue.full():
                    queue.get_nowait()
                queue.put_nowait(account)

    async def sample(self) -> None:
        """A point for the charts: small, and also while nobody looks. Raises StoreError."""
        counts, machines = await self._store.counts(), await self._fleet.machines()
        sessions = sum(row.sessions for row in await self._gateways())
        ready = [m for m in machines if m.status is MachineStatus.READY]
        self._samples.append(
            Sample(
                at=await self._store.now_ms(),
                sessions=sessions,
                running=counts[_W.RUNNING],
                queued=counts[_W.QUEUED],
                machines=len(ready),
                slots=sum(m.slots for m in ready),
            )
        )

    async def _compute(self) -> DashboardAnswer:
        self.computed += 1
        now, counts = await self._store.now_ms(), await self._store.counts()
        machines, gateways = await self._fleet.machines(), await self._gateways()
        seated = await self._store.list(status=OCCUPYING)
        of_machine: dict[str, list[Workspace]] = {}
        for workspace in seated:
            of_machine.setdefault(workspace.machine_id, []).append(workspace)
        events = await self._signals.history("", EVENTS)
        return DashboardAnswer(
            at=now,
            sessions=LiveSessions(total=sum(row.sessions for row in gateways), gateways=gateways),
            workspaces=counts,
            machines=[_machine(m, of_machine.get(m.id, [])) for m in machines[:MACHINES_MAX]],
            machines_total=len(machines),
            queue=await self._queue(),
            scaler=decision_answer(await self._fleet.pool_decision()),
            cost=await self._cost(now),
            events=[event_answer(event) for event in reversed(events)],
            series=list(self._samples),
        )

    async def _gateways(self) -> list[GatewaySessions]:
        return [
            GatewaySessions(
                gateway=name,
                sessions=sum((await self._signals.connections(name)).values()),
                last_seen_at=seen,
            )
            for name, seen in sorted((await self._signals.gateways()).items())
        ]

    async def _queue(self) -> list[Waiting]:
        waiting = (await self._store.queued())[:QUEUE_MAX]
        return [
            Waiting(
                workspace_id=w.id,
                user_id=w.user_id,
                name=w.name,
                priority=w.priority,
                since=w.status_since_ms,
                position=place,
                eta_seconds=math.ceil(await self._eta(place)),
            )
            for place, w in enumerate(waiting, 1)
        ]

    async def _cost(self, now_ms: int) -> CostNow | None:
        prices = self._prices
        if prices is None:
            return None
        used = await self._usage.totals(now_ms)
        return CostNow(
            currency=prices.currency,
            per_hour=shown(prices.rate(used)),
            month=month_of(now_ms),
            month_to_date=shown(prices.month(used)),
        )


def _machine(machine: Machine, seated: Sequence[Workspace]) -> MachineNow:
    return MachineNow(
        **machine_answer(machine).model_dump(),
        machine_class=machine.machine_class,
        held=bool(machine.held_by),
        doomed_at=machine.doomed_at_ms or None,
        seats=[
            Seat(
                workspace_id=w.id,
                user_id=w.user_id,
                name=w.name,
                status=w.status,
                running_since=w.running_since_ms or None,
                pinned=w.pinned,
            )
            for w in sorted(seated, key=lambda w: w.id)
        ],
    )
