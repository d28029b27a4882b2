"""What /metrics shows. Base units, one prefix, never a label per user or workspace.

A registry of its own per process: nothing global, nothing shared between tests. Each gateway process
answers for itself; what is counted from Redis (workspaces, machines, queue) is the same in all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from gateway.closing import BY_CODE
from lifecycle.model import MachineStatus, WorkspaceStatus

disable_created_metrics()  # type: ignore[no-untyped-call]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
PREFIX = "ide_gateway"

CLOSE_CODES = frozenset({*range(1000, 1016), *BY_CODE})
"""Shown by number; a client may send any of 4,000 others, which count as "other"."""

PROXY_CLASSES = frozenset({"1xx", "2xx", "3xx", "4xx", "5xx"})
WAIT_BUCKETS = (0.1, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800)
BOOT_BUCKETS = (0.5, 1, 2, 3, 5, 8, 13, 20, 30, 45, 60, 90, 120, 180, 300)
FLUSH_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)


class Metrics:
    """Every series, and a verb for each thing that is told of."""

    def __init__(self, version: str = "") -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(namespace=PREFIX, registry=self.registry)
        Info(PREFIX, "The gateway that answers.", registry=self.registry).info({"version": version})
        self.sessions = self._gauge("sessions", "Open WebSocket sessions of this process.")
        self.sessions_opened = self._counter("sessions_opened", "Sessions opened.")
        self.sessions_closed = self._counter("sessions_closed", "Sessions closed.", "code")
        self.connections_refused = self._counter(
            "connections_refused", "Connections turned away at a bound.", "reason"
        )
        self.evictions = self._counter("evictions", "Sessions evicted for want of a heartbeat.")
        self.workspaces = self._gauge("workspaces", "Workspaces by status.", "status")
        self.machines = self._gauge("machines", "Machines by status.", "status")
        self.queue_length = self._gauge("queue_length", "Workspaces that wait for a slot.")
        self.queue_wait_seconds = self._histogram(
            "queue_wait_seconds", "From asking for a workspace until its boot begins.", WAIT_BUCKETS
        )
        self.due_workspaces = self._gauge(
            "due_workspaces", "Workspaces that are due to be looked at by the lifecycle."
        )
        self.due_deliveries = self._gauge(
            "due_deliveries",
            "Notices that wait for a delivery, those to be tried again among them.",
        )
        self.cost_per_hour = self._gauge(
            "cost_per_hour", "Price of an hour of what is on machines now; 0 without --prices."
        )
        self.boot_seconds = self._histogram(
            "boot_seconds", "From the start of a boot until the IDE is ready.", BOOT_BUCKETS
        )
        self.boots = self._counter(
            "boots", "Boots that came to run, given a warm IDE or with one of their own.", "kind"
        )
        self.idle_stops = self._counter("idle_stops", "Workspaces stopped for idleness.")
        self.snapshots = self._counter("snapshots", "Snapshots by result.", "result")
        self.relay_up_bytes = self._counter("relay_up_bytes", "Bytes from clients to workspaces.")
        self.relay_down_bytes = self._counter(
            "relay_down_bytes", "Bytes from workspaces to clients."
        )
        self.proxy_requests = self._counter("proxy_requests", "Proxied HTTP requests.", "class")
        self._proxied: dict[int, Counter] = {}
        self._closed: dict[str, Counter] = {}
        self.heartbeat_flush_seconds = self._histogram(
            "heartbeat_flush_seconds", "One flush of heartbeats to Redis.", FLUSH_BUCKETS
        )
        self.redis_up = self._gauge("redis_up", "1 while Redis answers this process.")
        self.lease_held = self._gauge(
            "lease_held", "1 while this process runs the lifecycle loops."
        )
        self.scaler_desired = self._gauge("scaler_desired_machines", "Machines the scaler wants.")
        self.scaler_observed = self._gauge("scaler_observed_machines", "Machines it counts on.")
        self.scaler_users = self._gauge("scaler_live_users", "Live users it saw.")
        self.scaler_free = self._gauge("scaler_free_slots", "Slots it wants free.")
        self.scaler_lead = self._gauge(
            "scaler_lead_seconds", "What it expects a machine to take until it is ready."
        )
        self.scaler_promised = self._gauge(
            "scaler_promised_waits_ratio", "Share of those who come that may find no free slot."
        )
        self.scaler_waits = self._gauge(
            "scaler_waits_ratio", "Share of those who came of late that found none."
        )
        self.scaler_rush = self._gauge("scaler_rush", "1 while more come than usual.")
        for status in WorkspaceStatus:
            self.workspaces.labels(status).set(0)
        for machine_status in MachineStatus:
            self.machines.labels(machine_status).set(0)

    def session_opened(self) -> None:
        self.sessions_opened.inc()
        self.sessions.inc()

    def session_closed(self, code: int) -> None:
        """code: the close code it ended with."""
        label = str(code) if code in CLOSE_CODES else "other"
        counter = self._closed.get(label)
        if counter is None:
            counter = self._closed[label] = self.sessions_closed.labels(label)
        counter.inc()
        self.sessions.dec()

    def relayed(self, bytes_up: int, bytes_down: int) -> None:
        """What a session moved since it was last told."""
        self.relay_up_bytes.inc(bytes_up)
        self.relay_down_bytes.inc(bytes_down)

    def proxied(self, status: int) -> None:
        """status: of the answer."""
        kind = status // 100
        counter = self._proxied.get(kind)
        if counter is None:  # a label is looked up once: it costs more than the counting
            name = f"{kind}xx"
            counter = self.proxy_requests.labels(name if name in PROXY_CLASSES else "other")
            self._proxied[kind] = counter
        counter.inc()

    def booted(self, *, warm: bool) -> None:
        self.boots.labels("warm" if warm else "cold").inc()

    def snapshot_taken(self, ok: bool) -> None:
        self.snapshots.labels("ok" if ok else "failed").inc()

    def count_workspaces(self, by_status: Mapping[str, int], queue_length: int) -> None:
        """A status that is missing has none."""
        for status in WorkspaceStatus:
            self.workspaces.labels(status).set(by_status.get(status, 0))
        self.queue_length.set(queue_length)

    def count_machines(self, by_status: Mapping[str, int]) -> None:
        """A status that is missing has none."""
        for status in MachineStatus:
            self.machines.labels(status).set(by_status.get(status, 0))

    def scaled(self, decision: Mapping[str, Any]) -> None:
        """The scaler's last decision, as it was written down."""
        self.scaler_desired.set(decision["want"])
        self.scaler_observed.set(decision["have"])
        self.scaler_users.set(decision["users"])
        need, memory = decision.get("need") or {}, decision.get("memory") or {}
        self.scaler_free.set(max(decision.get("warm_slots", 0), need.get("free", 0)))
        self.scaler_lead.set(need.get("lead_time", 0.0))
        self.scaler_promised.set(need.get("probability", 0.0))
        came = memory.get("came", 0.0)
        self.scaler_waits.set(memory.get("waited", 0.0) / came if came else 0.0)
        self.scaler_rush.set(bool(need.get("panic")))

    def render(self) -> bytes:
        """Prometheus text, CONTENT_TYPE."""
        return generate_latest(self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"{PREFIX}_{name}", text, labels, registry=self.registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"{PREFIX}_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(f"{PREFIX}_{name}", text, buckets=buckets, registry=self.registry)
