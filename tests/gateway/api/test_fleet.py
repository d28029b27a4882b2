"""Machines, and the pool."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import pytest

from lifecycle.scaler import scale
from lifecycle.scaling.memory import begin
from lifecycle.scaling.records import Facts, Rule


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


async def test_the_pool_tells_what_was_reckoned_and_remembered(alone: Any) -> None:
    rule = Rule(wait_probability=0.01, burst=100, rate=1.0)
    memory = begin(1_000_000, rule)
    for second in (2, 4):
        now = 1_000_000 + second * 1000
        decision, memory = scale(Facts(3, [], arrivals=3, waits=1), rule, memory, now)
    flow = {"arrivals": 6, "departures": 0, "waits": 2}
    alone.fleet.decision = decision.to_json() | {"memory": asdict(memory), "flow": flow}
    told = (await alone.call("GET", "/api/pool")).json
    assert told["need"]["leadTime"] == 60.0
    assert told["need"]["probability"] == 0.01
    assert told["promise"] == {
        "came": 6, "waited": 2, "share": pytest.approx(1 / 3), "credit": memory.credit
    }  # fmt: skip
    assert told["rates"]["slow"] == memory.demand.slow
    assert told["pace"]["burst"] == 100
    assert told["window"][-1] == {"at": 1_004_000, "machines": decision.want}
    assert (told["since"], told["reason"]) == (1_000_000, decision.reason)
    assert {"memory", "flow"}.isdisjoint(told)


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
