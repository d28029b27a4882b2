"""Peaks by the API: declared, listed with what is held for them, removed, and refused in words."""

from __future__ import annotations

import time
from typing import Any

import pytest

from lifecycle.peaks import Peak
from lifecycle.peaks_declared import Entry, Reach

HOUR = 3_600_000


def soon(hours: float = 1) -> int:
    return int(time.time() * 1000 + hours * HOUR)


def exam(**more: Any) -> dict[str, Any]:
    return {"name": "exam", "at": soon(), "users": 40, **more}


async def test_declared_listed_and_removed(alone: Any) -> None:
    body = exam(earlySeconds=120, lateSeconds=900)
    answer = await alone.call("POST", "/api/peaks", body)
    row = {
        **body, "state": "ahead", "source": "api", "cron": None, "timeZone": None,
        "heldSlots": None, "notice": None,
    }  # fmt: skip
    assert (answer.status, answer.json) == (200, row)
    assert (await alone.call("GET", "/api/peaks")).json == [row]
    removed = await alone.call("DELETE", "/api/peaks/exam")
    assert (removed.status, removed.json) == (200, row)
    assert (await alone.call("GET", "/api/peaks")).json == []
    assert (await alone.call("DELETE", "/api/peaks/exam")).refusal == (404, "not_found")


async def test_usually_they_come_from_ten_minutes_before_to_half_an_hour_after(alone: Any) -> None:
    answer = await alone.call("POST", "/api/peaks", exam())
    assert (answer.json["earlySeconds"], answer.json["lateSeconds"]) == (600, 1800)


async def test_the_same_name_replaces(alone: Any) -> None:
    await alone.call("POST", "/api/peaks", exam())
    await alone.call("POST", "/api/peaks", exam(users=7))
    assert [row["users"] for row in (await alone.call("GET", "/api/peaks")).json] == [7]


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "an exam"}, "name"),
        ({"name": "x" * 65}, "name"),
        ({"users": 0}, "users"),
        ({"users": 1_000_001}, "users"),
        ({"users": 2.5}, "users"),
        ({"users": True}, "users"),
        ({"at": "9:00"}, "at"),
        ({"at": 1_700_000_000_000}, "at"),
        ({"at": 1_700_000_000}, "at"),  # seconds
        ({"at": soon(24 * 367)}, "at"),
        ({"earlySeconds": -1}, "earlySeconds"),
        ({"earlySeconds": 86_401}, "earlySeconds"),
        ({"lateSeconds": 0}, "lateSeconds"),
        ({"late": 5}, "late"),
    ],
)
async def test_what_is_no_peak(alone: Any, wrong: dict[str, Any], field: str) -> None:
    answer = await alone.call("POST", "/api/peaks", exam(**wrong))
    assert answer.status == 422
    assert answer.error["field"] == field
    assert field in answer.error["message"]
    assert alone.peaks.told == {}


async def test_a_time_that_is_past_is_told_with_its_unit(alone: Any) -> None:
    answer = await alone.call("POST", "/api/peaks", exam(at=soon(-2) - 1000))
    assert answer.error["message"] == "at: was 2 h ago; it is in milliseconds since the epoch"


async def test_a_hundred_and_no_more(alone: Any) -> None:
    for n in range(100):
        await alone.peaks.declare(Peak(soon(), 1, f"p{n}"))
    answer = await alone.call("POST", "/api/peaks", exam())
    assert answer.refusal == (409, "too_many_peaks")
    assert (await alone.call("POST", "/api/peaks", exam(name="p7"))).status == 200


async def test_what_the_file_declares_is_changed_there(alone: Any) -> None:
    alone.peaks.entries = [Entry("lecture", 400, cron="0 9 * * *", zone="Europe/Berlin")]
    rows = (await alone.call("GET", "/api/peaks")).json
    assert [row["source"] for row in rows] == ["file"] * 3
    assert {(row["cron"], row["timeZone"]) for row in rows} == {("0 9 * * *", "Europe/Berlin")}
    posted = await alone.call("POST", "/api/peaks", exam(name="lecture"))
    assert posted.refusal == (409, "declared_in_file")
    removed = await alone.call("DELETE", "/api/peaks/lecture")
    assert removed.refusal == (409, "declared_in_file")


async def test_what_the_pool_cannot_do_is_said_with_numbers(served: Any) -> None:
    async with served(reach=Reach(slots=5, max_machines=100, lead_time=80)) as world:
        too_many = (await world.call("POST", "/api/peaks", exam(users=3000))).json["notice"]
        assert too_many == (
            "3,000 people need 600 machines of 5 slots, and --max-machines allows 100:"
            " at least 2,500 of them will wait; raise it"
        )
        body = exam(name="quiz", at=soon(0.01), users=20, earlySeconds=0)
        too_soon = (await world.call("POST", "/api/peaks", body)).json["notice"]
        assert "its people may come in 3" in too_soon
        assert "4 machines take 1 min" in too_soon
        assert "3,000" not in too_soon


async def test_what_is_held_is_told_of_each_and_with_the_pool(alone: Any) -> None:
    body = exam()
    await alone.call("POST", "/api/peaks", body)
    held = {"peak": {"name": "exam", "at_ms": body["at"], "users": 40}, "slots": 25}
    alone.fleet.decision = {"want": 6, "need": {"lead_time": 2.0, "peaks": [held]}}
    [row] = (await alone.call("GET", "/api/peaks")).json
    assert (row["heldSlots"], row["notice"]) == (25, None)
    pool = (await alone.call("GET", "/api/pool")).json
    assert pool["peaks"] == [row]
    assert pool["need"]["peaks"][0]["peak"]["at"] == body["at"], "spelled as everywhere in the API"
    now = exam(name="now", at=soon(0.01))
    assert "may come now" in (await alone.call("POST", "/api/peaks", now)).json["notice"]
    held["peak"] |= {"name": "now", "at_ms": now["at"]}
    alone.fleet.decision |= {"have": 6}
    rows = {row["name"]: row for row in (await alone.call("GET", "/api/peaks")).json}
    assert rows["now"]["notice"] is None, "all machines that are wanted are there"
    open_now = exam(name="now", at=soon(0.01))
    assert (await alone.call("POST", "/api/peaks", open_now)).json["state"] == "open"
