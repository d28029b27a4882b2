"""What is made of accounts: figures with their margins, tables, JSON, explanations."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from lifecycle.peaks import Peak
from lifecycle.simulation import report
from lifecycle.simulation.explaining import explained
from lifecycle.simulation.records import Account, Cloud, Visit, Workload
from lifecycle.simulation.results import results
from lifecycle.simulation.summary import (
    Summary,
    least_share,
    mean,
    percentile,
    summaries,
)


def account(**more: Any) -> Account:
    plain: dict[str, Any] = {
        "policy": "promise", "setting": 0.01, "workload": "w", "seed": 1, "visits": 1200, "arrivals": 1000,
        "waits": [5.0, 30.0, 10.0], "machine_hours": 120.0, "bound_hours": 100.0, "user_hours": 400.0, "cost": 0.0,
        "hours": {9: (600, 1), 4: (400, 2)}, "samples": (), "counts": {"launches": 30},
    }  # fmt: skip
    return Account(**(plain | more))


def test_means_have_margins() -> None:
    assert (mean([3.0]).value, mean([3.0]).margin) == (3.0, None)
    found = mean([1.0, 2.0, 3.0, 4.0, 5.0])
    assert found.value == 3.0
    assert found.margin == pytest.approx(2.776 * 1.5811 / 5**0.5, rel=1e-3)
    many = mean([float(n % 2) for n in range(100)])
    assert many.margin == pytest.approx(
        1.984 * 0.50252 / 10, rel=1e-3
    )  # t of 99 degrees of freedom: 1.984
    assert mean([2.0, 2.0]).margin == 0.0


def test_percentiles() -> None:
    assert [percentile([1.0, 2.0, 3.0, 4.0], p) for p in (25, 50, 99, 100)] == [1, 2, 4, 4]
    assert [percentile([7.0, 9.0], p, zeros=98) for p in (50, 98, 99, 100)] == [0, 0, 7, 9]
    assert percentile([], 99) == 0


def test_what_chance_explains() -> None:
    assert least_share(0, 100) == 0
    assert least_share(1, 100) < 0.01 < least_share(30, 1000)
    assert least_share(10, 100) == pytest.approx(0.0552, abs=1e-4)
    assert least_share(0, 0) == 0


def test_accounts_by_policy_and_figure() -> None:
    rows = summaries([
        account(), account(policy="ceil", setting=None), account(seed=2, waits=[1.0] * 7, hours={9: (600, 50)}),
    ])  # fmt: skip
    assert [(row.label, [a.seed for a in row.accounts]) for row in rows] == [
        ("promise 0.01", [1, 2]), ("ceil", [1]),
    ]  # fmt: skip
    both = rows[0]
    assert (both.arrivals, len(both.waits)) == (2000, 10)
    assert both.warm.value == pytest.approx(0.995)
    assert [both.waited(p) for p in (50, 95, 99)] == [1.0, 30.0, 30.0]
    assert (both.everybody(99), both.everybody(99.9)) == (0, 5.0)
    assert both.hours == {4: (400, 2), 9: (1200, 51)}
    assert both.beyond(0.01) == [9]
    assert both.counts == {"launches": 30}


def test_an_account_without_arrivals() -> None:
    empty = Summary([account(arrivals=0, waits=[], hours={}, bound_hours=0.0, counts={})])
    lines = [
        *report.main_table([empty], {}),
        *report.hours_table([empty]),
        *report.counted([empty]),
    ]
    assert "100.00 %" in lines[1]
    assert report.promises([empty]) == ["promise 0.01: at most 1 % may wait, 0.00 % did: kept"]


def test_the_main_table() -> None:
    ceil = account(policy="ceil", setting=None, waits=[4.0] * 100)
    lines = report.main_table(summaries([account(), account(seed=2), ceil]), {"promise": "a share"})
    assert lines[:4] == [
        "POLICY   FIGURE            WARM  WAITED p50  WAITED p95  WAITED p99  ALL p95  ALL p99  MACHINE-HOURS     OVER BOUND",
        "promise    0.01  99.70 % ± 0.00        10 s        30 s        30 s        0        0    120.0 ± 0.0  1.200 ± 0.000",
        "ceil                    90.00 %         4 s         4 s         4 s      4 s      4 s          120.0          1.200",
        "(bound)                                                                                        100.0          1.000",
    ]  # fmt: skip
    assert "  promise: its figure is a share" in lines
    assert report.main_table([Summary([account(cost=12.5)])], {})[0].endswith("COST")
    assert report.main_table([Summary([account(cost=12.5)])], {})[1].endswith("12.50")


def test_waits_by_the_hour_against_the_promise() -> None:
    rows = summaries(
        [account(hours={4: (400, 30), 9: (600, 7)}), account(policy="ceil", setting=1.0)]
    )
    assert report.hours_table(rows) == [
        "Who had to wait, by the hour of their coming",
        "HOUR  ARRIVALS  PROMISE 0.01   CEIL 1",
        "  04       400       7.50 %!  0.50 %",
        "  09       600       1.17 %   0.17 %",
        "  !: more than was promised, and not by chance",
    ]
    late = summaries([account(hours={4: (400, 30)}, waits=[1.0] * 30)])
    assert report.promises(late) == [
        "promise 0.01: at most 1 % may wait, 3.00 % did: not kept; not within these hours: 04"
    ]


def test_all_who_promise_are_judged() -> None:
    rows = summaries([account(policy="moving", hours={4: (400, 30)}, waits=[1.0] * 30)])
    assert report.promises(rows) == [
        "moving 0.01: at most 1 % may wait, 3.00 % did: not kept; not within these hours: 04"
    ]
    assert report.hours_table(rows)[2:] == [
        "  04       400      7.50 %!", "  !: more than was promised, and not by chance",
    ]  # fmt: skip
    nothing = summaries([account(setting=0.0, hours={4: (400, 30)})])
    assert report.promises(nothing) == []
    assert report.hours_table(nothing)[2:] == ["  04       400    7.50 %"]


def test_the_same_people_with_every_seed_are_one_witness() -> None:
    ten = [account(seed=n, waits=[1.0] * 14, hours={9: (1000, 14)}) for n in range(10)]
    (drawn,), (same,) = summaries(ten), summaries(ten, same_visits=True)
    assert "1.40 % did: not kept; not within" in report.promises([drawn])[0]
    assert report.promises([same]) == report.promises(summaries(ten[:1]))
    assert report.promises([same])[0].endswith("1.40 % did: kept, but for chance")


def test_chance_breaks_no_promise() -> None:
    close = summaries([account(waits=[1.0] * 11, hours={})])
    assert report.promises(close)[0].endswith("1.10 % did: kept, but for chance")


def test_the_heading_says_what_was_mended() -> None:
    visits = [Visit(5, 0, 9), Visit(90_000, 0, 9)]
    workload = Workload(
        "mine", visits, 0, (Peak(32_400_000, 3000, "exam"),), ("2 rows were sorted",)
    )
    assert report.heading(workload, 3) == [
        "mine: 2 visits of 1 user in 2 days, 3 seeds",
        "  declared: 3,000 around 09:00 exam",
        "  note: 2 rows were sorted",
    ]


@pytest.mark.parametrize(
    ("last", "until", "days"),
    [
        (89_000, 90_000, 1),  # a day of 25 hours, in its last one
        (82_000, 82_800, 1),
        (5, 3 * 86_400, 3),
        (86_700, 86_400, 1),  # an exam at midnight
        (1500, 0, 1),  # a rush
        (87_000, 0, 2),
    ],
)
def test_how_many_days_there_are(last: float, until: float, days: int) -> None:
    assert Workload("mine", [Visit(last, 0, 9)], 0, until=until).days == days


def test_the_heading_counts_what_is_counted() -> None:
    visits = [Visit(-9, 0, 9), Visit(-5, 1, 9), Visit(5, 2, 9)]
    workload = Workload("mine", visits, 0, until=2 * 86_400 + 90_000.0)
    assert report.heading(workload, 1) == [
        "mine: 1 visit of 1 user in 3 days, 1 seed; 2 before it, not counted"
    ]
    found = results(workload, Cloud(), {}, summaries([account()]))["workload"]
    assert (found["visits"], found["before"], found["users"]) == (1, 2, 1)


def test_json() -> None:
    workload = Workload("mine", [Visit(5, 0, 9)], 0, (Peak(32_400_000, 3000),), ("sorted",))
    rows = summaries([account(), account(seed=2)])
    found = json.loads(
        json.dumps(results(workload, Cloud(spot_hours=3), {"idle_timeout": 60.0}, rows))
    )
    assert (found["version"], found["workload"]["peaks"][0]["atMs"]) == (2, 32_400_000)
    assert (found["cloud"]["spotHours"], found["settings"]) == (3, {"idleTimeout": 60})
    (row,) = found["policies"]
    assert (row["policy"], row["figure"], row["seeds"]) == ("promise", 0.01, [1, 2])
    assert row["warm"] == {"mean": 0.997, "margin": 0}
    assert row["waited"] == {"p50": 10, "p95": 30, "p99": 30}
    assert row["hours"][0] == {"hour": 4, "arrivals": 800, "waited": 4}
    assert [run["seed"] for run in found["runs"]] == [1, 2]


DECISION = {
    "at": 33_122.0, "want": 14, "have": 12, "launch": 2, "reason": "61 are expected in 60 s", "warm_slots": 61,
    "quantile": 0.987654, "idle": None, "capped": False, "drain": ("m-1", "m-2"), "lead": {"boot": 61.25, "from": 40},
    "windows": [{"seconds": 60.0, "arrivals": 12}, {"seconds": 3600.0, "arrivals": 1400}],
}  # fmt: skip


def test_a_decision_is_explained() -> None:
    earlier = DECISION | {"at": 33_100.0, "windows": []}
    lines = explained(account(explained=[earlier, DECISION]), 33_120.0)
    assert lines[:17] == [
        "promise 0.01, near 09:12 (seed 1):",
        "",
        "09:12:02  want 14, have 12, launch 2",
        "  61 are expected in 60 s",
        "  warm slots: 61",
        "  quantile: 0.9877",
        "  idle: -",
        "  capped: no",
        "  drain: m-1, m-2",
        "  lead:",
        "    boot: 61.25",
        "    from: 40",
        "  windows:",
        "    SECONDS  ARRIVALS",
        "         60        12",
        "      3,600     1,400",
        "",
    ]
    assert lines[17].startswith("09:11:40  want 14")
    nothing = explained(replace(account(), explained=()), 90_000.0)
    assert nothing == [
        "promise 0.01: nothing was decided near 2d01:00; the simulation had ended by then"
    ]
    assert explained(account(explained=[{}]), 60.0)[2] == "at a moment that was not noted"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "00:00"),
        (33_120, "09:12"),
        (33_150.4, "09:12:30"),
        (88_200, "2d00:30"),
        (86_399.9, "2d00:00"),
    ],
)
def test_clocks(seconds: float, text: str) -> None:
    assert report.clock(seconds) == text
