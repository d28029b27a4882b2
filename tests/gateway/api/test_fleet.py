"""Machines, the pool, metered usage."""

from __future__ import annotations

from typing import Any

from lifecycle.model import WorkspaceStatus as W
from lifecycle.usage import month_of, month_window


async def test_machines_without_their_secrets(alone: Any) -> None:
    answer = await alone.call("GET", "/api/machines")
    [machine] = answer.json
    assert (machine["instanceId"], machine["status"]) == ("m-1", "ready")
    assert (machine["slots"], machine["occupied"], machine["lastReportAt"]) == (5, 2, None)
    assert "machine-token" not in answer.text
    assert "127.0.0.1" not in answer.text


async def test_the_pool_tells_its_last_decision_with_its_inputs(alone: Any) -> None:
    assert (await alone.call("GET", "/api/pool")).json == {}
    alone.fleet.decision = {"at_ms": 5, "want": 3, "have": 2, "warm_slots": 1, "drain": ["m-1"]}
    answer = await alone.call("GET", "/api/pool")
    assert answer.json == {"at": 5, "want": 3, "have": 2, "warmSlots": 1, "drain": ["m-1"]}


async def test_usage_of_a_month(world: Any) -> None:
    start, end = month_window("2025-11")
    world.usage.rows["ada"] = [
        ("w1", 1, start - 60_000, start + 90_000),
        ("w2", 1, end - 30_000, end + 1),
        ("w1", 2, end + 5, end + 10),
    ]
    answer = await world.call("GET", "/api/usage?user=ada&month=2025-11")
    assert answer.status == 200
    assert answer.json == {
        "userId": "ada",
        "month": "2025-11",
        "seconds": 120.0,
        "minutes": 2.0,
        "running": 0,
        "workspaces": [
            {"workspaceId": "w1", "seconds": 90.0, "minutes": 1.5},
            {"workspaceId": "w2", "seconds": 30.0, "minutes": 0.5},
        ],
    }


async def test_what_runs_counts_until_now(world: Any, until: Any) -> None:
    workspace = await world.bring("ada", W.RUNNING)
    await world.bring("ada", W.STOPPED, "b")

    async def counted() -> bool:
        said = (await world.call("GET", "/api/usage", user="ada")).json
        return bool(said["seconds"] > 0)

    await until(counted)
    month = month_of(await world.store.now_ms())
    said = (await world.call("GET", f"/api/usage?user=ada&month={month}")).json
    assert said["running"] == 1
    assert [row["workspaceId"] for row in said["workspaces"]] == [workspace.id]
    past = (await world.call("GET", "/api/usage?user=ada&month=2020-01")).json
    assert (past["seconds"], past["workspaces"]) == (0, [])


async def test_whose_usage(alone: Any) -> None:
    alone.usage.rows["bob"] = [("w1", 1, 0, 5)]
    assert (await alone.call("GET", "/api/usage")).refusal == (422, "invalid")
    assert (await alone.call("GET", "/api/usage?user=nobody")).json["seconds"] == 0
    assert (await alone.call("GET", "/api/usage", user="ada")).json["userId"] == "ada"
    assert (await alone.call("GET", "/api/usage?user=ada", user="ada")).status == 200
    foreign = await alone.call("GET", "/api/usage?user=bob", user="ada")
    unknown = await alone.call("GET", "/api/usage?user=nobody", user="ada")
    assert foreign.refusal == (404, "not_found")
    assert foreign.text == unknown.text
