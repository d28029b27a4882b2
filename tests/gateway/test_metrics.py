"""The figures: their names, their labels, and that no caller can make series."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway.closing import STOPPED
from gateway.metrics import Metrics
from lifecycle.model import MachineStatus, WorkspaceStatus

EXPECTED = {
    "sessions", "sessions_opened_total", "sessions_closed_total", "evictions_total", "workspaces",
    "machines", "queue_length", "boot_seconds", "idle_stops_total", "snapshots_total",
    "relay_up_bytes_total", "relay_down_bytes_total", "proxy_requests_total",
    "heartbeat_flush_seconds", "redis_up", "lease_held", "scaler_desired_machines",
    "scaler_observed_machines", "scaler_live_users", "scaler_free_slots", "scaler_lead_seconds",
    "scaler_promised_waits_ratio", "scaler_waits_ratio", "scaler_rush", "info",
    "queue_wait_seconds", "due_workspaces", "due_deliveries", "cost_per_hour",
    "connections_refused_total", "boots_total",
}  # fmt: skip


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(version="1.2.3")


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"ide_gateway_{name}", labels)


def test_every_series_is_there_with_a_text_and_in_the_one_prefix(metrics: Metrics) -> None:
    text = metrics.render().decode()
    families = list(text_string_to_metric_families(text))
    assert all(f.name.startswith("ide_gateway_") and f.documentation for f in families)
    helped = {line.split()[2] for line in text.splitlines() if line.startswith("# HELP")}
    names = {name.removeprefix("ide_gateway_") for name in helped}
    assert {n for n in names if not n.startswith("process_")} == EXPECTED
    assert "_created" not in text


def test_labels_are_a_closed_set(metrics: Metrics) -> None:
    metrics.session_closed(1000)
    metrics.proxied(200)
    metrics.snapshot_taken(True)
    labels = {
        (sample.name.removeprefix("ide_gateway_"), label)
        for family in metrics.registry.collect()
        for sample in family.samples
        for label in sample.labels
    }
    assert {label for _, label in labels} == {"code", "status", "result", "class", "le", "version"}


def test_sessions_come_and_go(metrics: Metrics) -> None:
    metrics.session_opened()
    metrics.session_opened()
    metrics.session_closed(STOPPED.code)
    assert value(metrics, "sessions") == 1
    assert value(metrics, "sessions_opened_total") == 2
    assert value(metrics, "sessions_closed_total", code="4410") == 1


def test_codes_that_clients_make_up_count_as_other(metrics: Metrics) -> None:
    for code in (3000, 4000, 4999, 0, -1):
        metrics.session_closed(code)
    assert value(metrics, "sessions_closed_total", code="other") == 5


def test_a_status_that_is_missing_has_none(metrics: Metrics) -> None:
    metrics.count_workspaces({"running": 3, "queued": 1}, queue_length=1)
    metrics.count_workspaces({"stopped": 2}, queue_length=0)
    metrics.count_machines({"ready": 2})
    for status in WorkspaceStatus:
        expected = 2 if status is WorkspaceStatus.STOPPED else 0
        assert value(metrics, "workspaces", status=status) == expected
    assert value(metrics, "queue_length") == 0
    assert value(metrics, "machines", status=MachineStatus.READY) == 2
    assert value(metrics, "machines", status=MachineStatus.LOST) == 0


def test_what_else_is_told(metrics: Metrics) -> None:
    metrics.relayed(10, 200)
    metrics.relayed(1, 2)
    metrics.proxied(404)
    metrics.proxied(999)
    metrics.snapshot_taken(ok=False)
    need = {"free": 4, "lead_time": 60.0, "probability": 0.01, "panic": True}
    metrics.scaled(
        {"want": 3, "have": 2, "users": 11, "warm_slots": 1, "need": need}
        | {"memory": {"came": 50.0, "waited": 1.0}}
    )
    metrics.boot_seconds.observe(4)
    assert value(metrics, "relay_up_bytes_total") == 11
    assert value(metrics, "relay_down_bytes_total") == 202
    assert value(metrics, "proxy_requests_total", **{"class": "4xx"}) == 1
    assert value(metrics, "proxy_requests_total", **{"class": "other"}) == 1
    assert value(metrics, "snapshots_total", result="failed") == 1
    assert value(metrics, "scaler_desired_machines") == 3
    assert value(metrics, "scaler_observed_machines") == 2
    assert value(metrics, "scaler_live_users") == 11
    assert value(metrics, "scaler_free_slots") == 4
    assert value(metrics, "scaler_lead_seconds") == 60
    assert value(metrics, "scaler_promised_waits_ratio") == 0.01
    assert value(metrics, "scaler_waits_ratio") == 0.02
    assert value(metrics, "scaler_rush") == 1
    assert value(metrics, "boot_seconds_bucket", le="5.0") == 1
    assert value(metrics, "boot_seconds_bucket", le="3.0") == 0


def test_two_of_them_share_nothing(metrics: Metrics) -> None:
    metrics.session_opened()
    assert value(Metrics(), "sessions") == 0
