"""Visits out of a gateway's own events."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lifecycle.simulation import happened
from lifecycle.simulation.records import Workload
from lifecycle.simulation.spec import Asked, WorkloadError

NINE_MS = 1_763_974_800_000  # 24 November 2025, 09:00 UTC


def event(
    minute: float, kind: str, workspace: str = "", session: str = "", gateway: str = ""
) -> dict[str, Any]:
    """As GET /api/events shows it."""
    return {
        "id": f"{NINE_MS}-{minute}", "type": kind, "at": NINE_MS + round(minute * 60_000), "workspaceId": workspace or None,
        "userId": "ada", "instanceId": None, "sessionId": session or None, "gateway": gateway or None, "epoch": 1,
        "reason": None, "data": {},
    }  # fmt: skip


def read(events: list[dict[str, Any]], **values: str) -> Workload:
    return read_text(json.dumps(events), **values)


def read_text(text: str, **values: str) -> Workload:
    asked = Asked("events", "day.json", values).read(happened.PARAMETERS)
    return happened.workload("mine", "day.json", text, asked, 1)


def minutes(workload: Workload) -> list[tuple[float, int, float]]:
    """(since nine, user, how long)"""
    return [(v.at / 60 - 540, v.user, v.seconds / 60) for v in workload.visits]


OPENED, CLOSED = "session.opened", "session.closed"


def test_a_visit_lasts_while_there_are_sessions() -> None:
    events = [
        event(0, "workspace.queued", "w1"), event(0.5, "workspace.running", "w1"),
        event(1, OPENED, "w1", "g-1"), event(2, OPENED, "w1", "g-2"), event(3, OPENED, "w2", "g-3"),
        event(5, CLOSED, "w1", "g-1"), event(9, CLOSED, "w1", "g-2"), event(10, CLOSED, "w2", "g-3"),
        event(20, OPENED, "w1", "g-4"), event(21, CLOSED, "w1", "g-4"),
    ]  # fmt: skip
    workload = read(events)
    assert minutes(workload) == [(1, 0, 8), (3, 1, 7), (20, 0, 1)]
    assert workload.repairs == (
        "1 visit overlapped another of the same user and was taken as one with it",
    )
    lines = "\n".join(map(json.dumps, events))  # as `ide-gateway events -o json` prints them
    assert read_text(lines) == workload
    pages = json.dumps(events[:4]) + "\n" + json.dumps(events[4:]) + "\n[]\n"
    assert read_text(pages) == workload
    assert read(events[::-1]) == workload


@pytest.mark.parametrize(
    "ending",
    [
        event(5, "session.evicted", "w1", "g-1"),
        event(5, "workspace.stopping", "w1"),
        event(5, "workspace.failed", "w1"),
        event(5, "gateway.lost", gateway="g"),
    ],
    ids=lambda e: e["type"],
)
def test_what_else_ends_a_session(ending: dict[str, Any]) -> None:
    events = [
        event(0, OPENED, "w1", "g-1"),
        ending,
        event(6, CLOSED, "w1", "g-1"),
        event(9, "lease.acquired"),
    ]
    workload = read(events)
    assert (minutes(workload), workload.repairs) == ([(0, 0, 5)], ())


def test_another_gateways_sessions_go_on() -> None:
    events = [
        event(0, OPENED, "w1", "g-1-7"), event(5, "gateway.lost", gateway="g"), event(6, CLOSED, "w1", "g-1-7"),
    ]  # fmt: skip
    assert minutes(read(events)) == [(0, 0, 6)]


def test_the_edges_of_the_record() -> None:
    events = [
        event(0, "machine.ready"),
        event(4, CLOSED, "w1", "g-1"),
        event(5, OPENED, "w2", "g-2"),
        event(9, "machine.ready"),
    ]
    workload = read(events)
    assert minutes(workload) == [(0, 0, 4), (5, 1, 4)]
    assert workload.repairs == (
        "1 had begun before the record: counted from its first moment",
        "1 had not ended by the end of the record: counted until then",
    )


def test_without_sessions_starts_and_stops_tell() -> None:
    events = [
        event(0, "workspace.queued", "w1"), event(1, "workspace.running", "w1"),
        event(90, "workspace.stopping", "w1"), event(91, "workspace.stopped", "w1"),
        event(95, "workspace.stopping", "w2"),
    ]  # fmt: skip
    assert minutes(read(events)) == [(0, 0, 90), (0, 1, 95)]
    workload = read(events, idle="3600")
    assert minutes(workload) == [(0, 0, 30), (0, 1, 35)]
    assert workload.repairs[0] == (
        "no sessions were told of: stays are from queued to the stop, less an idle timeout of 3600 s (idle=)"
    )


def test_more_people_than_there_were() -> None:
    events = [event(60, OPENED, "w1", "g-1"), event(90, CLOSED, "w1", "g-1")]
    workload = read(events, times="3")
    assert [(v.user, v.seconds) for v in sorted(workload.visits, key=lambda v: v.user)] == [
        (0, 1800), (1, 1800), (2, 1800)
    ]  # fmt: skip
    assert all(abs(v.at - workload.visits[0].at) <= 1200 for v in workload.visits)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("[]", "day.json:1:1: there are no events in it"),
        ("", "day.json:1:1: there are no events in it"),
        ('[\n{"at": 1}]', "day.json:2:1: it is no event of GET /api/events: it has no type; is it a recorded: file?"),
        ('[{"type": "session.opened", "at": "now"}]', "day.json:1:35: at must be a number, not 'now'; correct it"),
        ('[{"type": "session.opened", "at": 5000}]', "day.json:1:35: at must be milliseconds since 1970"),
        (f'[{{"type": "session.opened", "at": {NINE_MS}, "sessionId": 7}}]', "sessionId must be text, not 7"),
        (json.dumps([event(0, "machine.ready")]), "there are no visits among its 1 event of 2025-11-24"),
        ('{"error": {"code": "unauthorized"}}', "it is no event of GET /api/events"),
        ('[{"type": ', "it is no JSON"),
    ],
)  # fmt: skip
def test_what_is_refused(text: str, error: str) -> None:
    with pytest.raises(WorkloadError) as refused:
        read_text(text)
    assert error in str(refused.value)


def test_the_evening_before_comes_first() -> None:
    """w1 since six in the evening until ten past midnight; w2 at eleven; w3 since half past seven, gone by ten."""
    events = [
        event(-900, OPENED, "w1", "g-1"), event(-810, OPENED, "w3", "g-2"), event(-660, CLOSED, "w3", "g-2"),
        event(-600, OPENED, "w2", "g-3"), event(-590, CLOSED, "w2", "g-3"), event(-530, CLOSED, "w1", "g-1"),
        event(0, OPENED, "w2", "g-4"), event(5, CLOSED, "w2", "g-4"),
    ]  # fmt: skip
    workload = read(events, day="2025-11-24")
    assert minutes(workload) == [(-780, 0, 250), (-600, 1, 10), (0, 1, 5)]
    assert workload.repairs == (
        "the evening before (2 visits since 2025-11-23 20:00) fills the pool and is not counted",
    )
    with pytest.raises(WorkloadError, match="nothing happened on 2025-11-24"):
        read(events[:6], day="2025-11-24")


def test_a_day_is_chosen() -> None:
    events = [event(0, OPENED, "w1", "g-1"), event(1, CLOSED, "w1", "g-1")]
    events += [event(1440, OPENED, "w1", "g-2"), event(1441, CLOSED, "w1", "g-2")]
    assert minutes(read(events, day="2025-11-25")) == [(0, 0, 1)]
    assert minutes(read(events, zone="Asia/Tokyo", days="1")) == [
        (540, 0, 1)
    ]  # nine UTC is six in the evening there
