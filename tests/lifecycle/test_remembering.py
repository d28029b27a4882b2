"""What the scaler remembers is read back as it was, or not at all."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any

import pytest

from lifecycle.pace import Flow
from lifecycle.peaks import Opened, Peak
from lifecycle.remembering import flow_recalled, recalled
from lifecycle.scaling.demand import Demand, Foretold
from lifecycle.scaling.records import Memory, Rule

NOW = 2_000_000  # ms
RULE = Rule(burst=100, rate=2.0)
MEMORY = Memory(
    since=1000.0,
    at=1990.0,
    demand=Demand(900.0, 1990.0, 0.5, 0.4, 0.3, 0.2, 1.5, 0.0, 70, (Foretold(2050.0, 9, 3.5, 6.0),)),
    credit=-0.5,
    wanted=((1900.0, 7), (1990.0, 3)),
    tokens=12.5,
    burst=50.0,
    given_at=1990.0,
    peaks=(Opened(Peak(1_900_000, 30, "exam"), 12, 0.25),),
)  # fmt: skip


def written(memory: Memory) -> Any:
    return json.loads(json.dumps(asdict(memory)))


def test_it_is_read_back_as_it_was() -> None:
    assert recalled(written(MEMORY), NOW, RULE) == MEMORY


def test_it_is_fresh_for_a_minute() -> None:
    assert recalled(written(MEMORY), 2_050_000, RULE) == MEMORY
    assert recalled(written(MEMORY), 2_050_001, RULE) is None
    assert recalled(written(MEMORY), 2_050_001, RULE, fresh=900) == MEMORY
    assert recalled(written(MEMORY), 1_989_999, RULE) is None, "it is of the future"


def test_launches_are_granted_as_the_rule_says_now() -> None:
    less = recalled(written(MEMORY), NOW, replace(RULE, burst=10))
    assert less is not None
    assert (less.burst, less.tokens) == (10.0, 10.0)
    unbound = recalled(written(replace(MEMORY, burst=0.0, tokens=0.0)), NOW, RULE)
    assert unbound is not None
    assert unbound.burst == 100.0


@pytest.mark.parametrize(
    "odd",
    [
        None,
        [],
        "memory",
        {},
        {**asdict(MEMORY), "more": 1},
        {**asdict(MEMORY), "credit": "0"},
        {**asdict(MEMORY), "credit": True},
        {**asdict(MEMORY), "credit": float("nan")},
        {**asdict(MEMORY), "wanted": [[1.0]]},
        {**asdict(MEMORY), "wanted": 7},
        {**asdict(MEMORY), "demand": {}},
        {**asdict(MEMORY), "since": 1991.0},
    ],
)
def test_of_what_is_odd_nothing_is_believed(odd: Any) -> None:
    assert recalled(odd, NOW, RULE) is None


def test_counters() -> None:
    assert flow_recalled({"arrivals": 3, "departures": 2, "waits": 1}) == Flow(3, 2, 1)
    assert flow_recalled({"arrivals": 3}) is None
    assert flow_recalled(None) is None
    assert Flow(5, 2, 1).since(Flow(3, 2, 0)) == Flow(2, 0, 1)
    assert Flow(5, 1, 1).since(Flow(3, 2, 0)) == Flow(), "some of it was lost"
    assert Flow(5, 2, 1).since(None) == Flow()
