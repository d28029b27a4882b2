"""Metered usage and its cost: of a user, of everybody, as JSON and as CSV."""

from __future__ import annotations

import csv
import io
from typing import Any

from lifecycle.model import WorkspaceStatus as W
from lifecycle.pricing import GIB
from lifecycle.usage import month_of, month_window

HOUR = 3_600_000


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
            {"workspaceId": "w1", "seconds": 90.0, "minutes": 1.5, "storedSeconds": 0.0}
            | {"storedGibHours": 0.0, "cost": 0.015},
            {"workspaceId": "w2", "seconds": 30.0, "minutes": 0.5, "storedSeconds": 0.0}
            | {"storedGibHours": 0.0, "cost": 0.005},
        ],
        "kinds": [
            {"kind": "running", "seconds": 120.0, "minutes": 2.0, "gibHours": None, "cost": 0.02},
            {"kind": "stored", "seconds": 0.0, "minutes": 0.0, "gibHours": 0.0, "cost": 0.0},
        ],
        "classes": [{"machineClass": "", "seconds": 120.0, "minutes": 2.0, "cost": 0.02}],
        "cost": 0.02,
        "currency": "EUR",
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
    ran = [row["workspaceId"] for row in said["workspaces"] if row["seconds"]]
    assert ran == [workspace.id]
    past = (await world.call("GET", "/api/usage?user=ada&month=2020-01")).json
    assert (past["seconds"], past["workspaces"]) == (0, [])


async def test_whose_usage(alone: Any) -> None:
    alone.usage.rows["bob"] = [("w1", 1, 0, 5)]
    assert (await alone.call("GET", "/api/usage?user=nobody")).json["seconds"] == 0
    assert (await alone.call("GET", "/api/usage", user="ada")).json["userId"] == "ada"
    assert (await alone.call("GET", "/api/usage?user=ada", user="ada")).status == 200
    foreign = await alone.call("GET", "/api/usage?user=bob", user="ada")
    unknown = await alone.call("GET", "/api/usage?user=nobody", user="ada")
    assert foreign.refusal == (404, "not_found")
    assert foreign.text == unknown.text


async def test_what_a_month_cost(alone: Any) -> None:
    start, end = month_window("2025-11")
    alone.usage.rows["ada"] = [
        ("gone", 1, start, start + HOUR, "running", "big", 0),
        ("gone", 1, start + HOUR, start + 2 * HOUR, "stored", "", 100 * GIB),
        ("w2", 1, end - HOUR, end + HOUR, "running", "small", 0),
    ]
    said = (await alone.call("GET", "/api/usage?user=ada&month=2025-11")).json
    assert (said["cost"], said["currency"]) == (7.6, "EUR")
    assert {row["kind"]: row["cost"] for row in said["kinds"]} == {"running": 6.6, "stored": 1.0}
    assert {row["machineClass"]: row["cost"] for row in said["classes"]} == {"big": 6, "small": 0.6}
    assert [(row["workspaceId"], row["cost"]) for row in said["workspaces"]] == [
        ("gone", 7.0),
        ("w2", 0.6),
    ]
    assert said["kinds"][1]["gibHours"] == 100


async def test_everybody_page_by_page(alone: Any) -> None:
    start, _ = month_window("2025-11")
    for number in range(5):
        alone.usage.rows[f"u{number}"] = [("w", 1, start, start + HOUR, "running", "", 0)]
    path = "/api/usage?month=2025-11&limit=2"
    first = (await alone.call("GET", path)).json
    assert ([row["userId"] for row in first["users"]], first["next"]) == (["u0", "u1"], "u1")
    last = (await alone.call("GET", f"{path}&after=u3")).json
    assert ([row["userId"] for row in last["users"]], last["next"]) == (["u4"], None)
    assert last["users"][0]["seconds"] == 3600
    own = (await alone.call("GET", path, user="u3")).json
    assert own["userId"] == "u3", "a person sees nobody else"


async def test_sheets(alone: Any) -> None:
    start, _ = month_window("2025-11")
    alone.usage.rows["ada"] = [("w1", 1, start, start + 1500, "running", '=1+1,"x"', 0)]
    answer = await alone.call("GET", "/api/usage?user=ada&month=2025-11&format=csv")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.text.endswith("\r\n")
    [head, row] = csv.reader(io.StringIO(answer.text))
    told = dict(zip(head, row, strict=True))
    assert told["class"] == '\'=1+1,"x"', "no spreadsheet computes it"
    assert (told["start"], told["seconds"]) == ("2025-11-01T00:00:00.000+00:00", "1.5")
    path = "/api/usage?month=2025-11&format=csv&limit=1"
    alone.usage.rows["bob"] = []
    users = await alone.call("GET", path)
    assert users.text.splitlines()[1].startswith("ada,2025-11,1.5,")
    assert "after=ada" in users.headers["link"]
