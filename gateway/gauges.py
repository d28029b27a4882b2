"""Figures for /metrics that nobody tells of as they happen: read from the records, or heard in the events."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable

from gateway.metrics import Metrics
from lifecycle.model import Event
from lifecycle.pricing import Prices
from lifecycle.stores.fleet import RedisFleet
from lifecycle.stores.redis import RedisStore
from lifecycle.stores.signals import RedisSignals
from lifecycle.usage import RUNNING

INTERVAL = 5.0
BOOTS_MAX = 10_000  # waits and boots under way whose start is remembered; the oldest is forgotten


class Gauges:
    def __init__(
        self,
        metrics: Metrics,
        store: RedisStore,
        fleet: RedisFleet,
        signals: RedisSignals,
        leads: Callable[[], bool],
        prices: Prices | None = None,
    ) -> None:
        """leads: whether this process runs the loops. What happens once is counted by it alone."""
        self._metrics, self._store, self._fleet, self._leads = metrics, store, fleet, leads
        self._signals, self._prices = signals, prices
        self._queued: OrderedDict[str, int] = OrderedDict()
        self._started: OrderedDict[str, int] = OrderedDict()

    def on_event(self, event: Event) -> None:
        if not self._leads():
            return
        workspace = event.data.get("workspace", "")
        if event.type == "workspace.queued":
            _remember(self._queued, workspace, event.at_ms)
        elif event.type == "workspace.starting":
            queued = self._queued.pop(workspace, None)
            if queued is not None:
                self._metrics.queue_wait_seconds.observe((event.at_ms - queued) / 1000)
            _remember(self._started, workspace, event.at_ms)
        elif event.type == "workspace.running":
            started = self._started.pop(workspace, None)
            if started is not None:
                self._metrics.boot_seconds.observe((event.at_ms - started) / 1000)
            self._metrics.booted(warm=event.data.get("warm") == "1")
        elif event.type == "workspace.stopping" and event.data.get("reason") == "idle":
            self._metrics.idle_stops.inc()
        elif event.type == "workspace.snapshotted":
            self._metrics.snapshot_taken(True)
        elif event.type == "workspace.stopped" and event.data.get("reason") == "snapshot failed":
            self._metrics.snapshot_taken(False)

    async def refresh(self) -> None:
        """Read the counts from Redis. Raises StoreError."""
        counts = await self._store.counts()
        self._metrics.count_workspaces(counts, counts["queued"])
        machines = await self._fleet.machines()
        self._metrics.count_machines(Counter(str(machine.status) for machine in machines))
        if self._prices is not None:
            rate = sum(
                m.occupied * self._prices.hour(RUNNING, m.machine_class, 0) for m in machines
            )
            self._metrics.cost_per_hour.set(float(rate))
        looks, deliveries = await self._signals.due()
        self._metrics.due_workspaces.set(looks)
        self._metrics.due_deliveries.set(deliveries)
        self._metrics.lease_held.set(1 if self._leads() else 0)
        decision = await self._fleet.pool_decision()
        if decision:
            self._metrics.scaled(decision)


def _remember(since: OrderedDict[str, int], workspace: str, at_ms: int) -> None:
    since[workspace] = at_ms
    while len(since) > BOOTS_MAX:
        since.popitem(last=False)
