"""Machines, and the pool."""

from __future__ import annotations

import json
from typing import Any


async def test_machines_without_their_secrets(alone: Any) -> None:
    answer = await alone.call("GET", "/api/machines")
    [machine] = answer.json
    assert (machine["instanceId"], machine["status"]) == ("m-1", "ready")
    assert (machine["slots"], machine["occupied"], machine["lastReportAt"]) == (5, 2, None)
    assert "machine-token" not in answer.text
    assert "127.0.0.1" not in answer.text


async def test_the_pool_tells_its_last_decision_with_its_inputs(alone: Any) -> None:
    assert (await alone.call("GET", "/api/pool")).json == {"peaks": []}
    alone.fleet.decision = {"at_ms": 5, "want": 3, "have": 2, "warm_slots": 1, "drain": ["m-1"]}
    answer = await alone.call("GET", "/api/pool")
    assert answer.json == {
        "at": 5,
        "want": 3,
        "have": 2,
        "warmSlots": 1,
        "drain": ["m-1"],
        "peaks": [],
    }


async def test_an_operator_drains_a_machine(alone: Any) -> None:
    assert (await alone.call("POST", "/api/machines/m-1/drain")).json["instanceId"] == "m-1"
    await alone.call("POST", "/api/machines/m-1/undrain")
    assert alone.fleet.held == [("m-1", True), ("m-1", False)]
    assert (await alone.call("POST", "/api/machines/m-9/drain")).refusal == (404, "not_found")
    refused = await alone.call("POST", "/api/machines/m-1/drain", user="ada")
    assert refused.refusal == (403, "forbidden")


async def test_the_dashboard_once_and_live(alone: Any) -> None:
    assert (await alone.call("GET", "/api/dashboard")).json["at"] == 5
    live = await alone.call("GET", "/api/dashboard", Accept="text/event-stream")
    assert live.headers["content-type"].startswith("text/event-stream")
    accounts = [line for line in live.text.splitlines() if line.startswith("data:")]
    assert [json.loads(line.removeprefix("data:"))["at"] for line in accounts] == [5, 5]
