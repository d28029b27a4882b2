"""Reads the figures of the fleet from the records and hears what happens once; only the leader sends."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable

import structlog

from lifecycle.model import Event, WorkspaceStatus
from lifecycle.stores.fleet import RedisFleet
from lifecycle.stores.redis import RedisStore
from lifecycle.stores.signals import RedisSignals
from lifecycle.telemetry import MetricSink, SinkError
from lifecycle.telemetry.figures import Facts, Happened, measure

log = structlog.get_logger(__name__)

INTERVAL = 60.0  # seconds: what CloudWatch keeps for 15 days; finer ones cost more and say no more
STARTS_MAX = 10_000  # boots under way whose start is remembered; the oldest is forgotten
BOOTS_MAX = 10_000  # durations between two turns; more are left out


class Reporter:
    def __init__(
        self,
        sink: MetricSink,
        store: RedisStore,
        fleet: RedisFleet,
        signals: RedisSignals,
        leads: Callable[[], bool],
        max_machines: int,
    ) -> None:
        """leads: whether this process runs the loops. What happens once is counted by it alone."""
        self._sink, self._leads, self._max_machines = sink, leads, max_machines
        self._store, self._fleet, self._signals = store, fleet, signals
        self._started: OrderedDict[str, int] = OrderedDict()
        self._boots: list[float] = []
        self._counts: Counter[str] = Counter()

    def on_event(self, event: Event) -> None:
        """For News.listen."""
        if not self._leads():
            return
        workspace, reason = event.data.get("workspace", ""), event.data.get("reason", "")
        if event.type == "workspace.starting":
            self._started[workspace] = event.at_ms
            while len(self._started) > STARTS_MAX:
                self._started.popitem(last=False)
        elif event.type == "workspace.running":
            started = self._started.pop(workspace, None)
            if started is not None and len(self._boots) < BOOTS_MAX:
                self._boots.append((event.at_ms - started) / 1000)
        elif event.type == "workspace.failed":
            if self._started.pop(workspace, None) is not None:
                self._counts["failed boots"] += 1
        elif event.type == "workspace.stopping" and reason == "idle":
            self._counts["idle stops"] += 1
        elif event.type == "machine.lost":
            self._counts["lost machines"] += 1

    async def tick(self) -> None:
        """One turn, for `every(INTERVAL, …)`: read and send. Raises StoreError."""
        if not self._leads():
            return
        facts, now_ms = await self._facts()
        try:
            await self._sink.put(measure(facts, now_ms))
        except SinkError as error:
            log.warning("telemetry.lost", why=str(error))

    async def _facts(self) -> tuple[Facts, int]:
        connections: Counter[str] = Counter()
        for gateway in await self._signals.gateways():
            connections.update(await self._signals.connections(gateway))
        running = await self._store.list(status=(WorkspaceStatus.RUNNING,))
        facts = Facts(
            workspaces=await self._store.counts(),
            queued=await self._store.queued(),
            connections=connections,
            users=len({workspace.user_id for workspace in running}),
            machines=await self._fleet.machines(),
            max_machines=self._max_machines,
            happened=self._take(),
        )
        return facts, await self._store.now_ms()

    def _take(self) -> Happened:
        """What was heard since the last turn; it is told once, even if that is lost."""
        counts, boots = self._counts, tuple(self._boots)
        self._counts, self._boots = Counter(), []
        return Happened(
            boots=boots,
            failed_boots=counts["failed boots"],
            idle_stops=counts["idle stops"],
            lost_machines=counts["lost machines"],
        )
