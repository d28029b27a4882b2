"""What docs/scaling.md is measured with: between figures, and what nobody can do better than."""

from __future__ import annotations

import pytest

from bench.scaling import PAGE, PARTS, cheapest, fluid_wait, latest_ramp
from lifecycle.peaks import Peak
from lifecycle.simulation.records import Account, Cloud, Visit, Workload
from lifecycle.simulation.summary import Summary

START_MS = 20_000 * 86_400_000


def row(policy: str, waited: int, overhead: float) -> Summary:
    """One of 10,000 arrivals, of whom so many waited."""
    return Summary(
        [Account(policy, None, "", 1, 10_000, 10_000, [5.0] * waited, overhead, 1.0, 5.0, 0.0, {}, [])]
    )  # fmt: skip


def test_the_cheapest_lies_between_the_figures_that_were_tried() -> None:
    """From 10 % who wait to 0.1 % are two decades: 1 % is in the middle."""
    rows = [row("ours", 1000, 1.10), row("ours", 10, 1.30), row("theirs", 100, 1.25)]
    assert cheapest(rows, 0.99) == pytest.approx({"ours": 1.20, "theirs": 1.25})
    assert cheapest(rows, 0.9) == pytest.approx({"ours": 1.10, "theirs": 1.25})
    assert cheapest(rows, 0.999) == pytest.approx({"ours": 1.30})
    assert cheapest(rows, 0.9999) == {}, "nobody ever served so many warm"


def test_the_cheapest_of_three_figures_is_found_in_whatever_order() -> None:
    rows = [row("ours", 10, 1.4), row("ours", 1000, 1.1), row("ours", 100, 1.2)]
    assert cheapest(rows, 1 - 10**-1.5)["ours"] == pytest.approx(1.15)
    assert cheapest(rows, 1 - 10**-2.5)["ours"] == pytest.approx(1.30)


def of(*visits: Visit, peaks: tuple[Peak, ...] = ()) -> Workload:
    return Workload("test", visits, START_MS, peaks)


def test_nobody_can_wait_for_less_than_machines_that_come_as_fast_as_they_are_granted() -> None:
    """Granted at 10, 12 and 14, up a minute later."""
    three = of(*(Visit(10, user, 1000) for user in range(3)))
    assert fluid_wait(three, Cloud(burst=1, rate=0.5), 1, 60) == 62
    assert fluid_wait(three, Cloud(burst=1, rate=0.5), 2, 60) == pytest.approx((60 + 60 + 62) / 3)
    assert fluid_wait(three, Cloud(), 1, 60) == 60


def test_a_slot_that_has_come_free_is_taken() -> None:
    """A slot from 60 on, and again from 60 + 10 + 30; the second machine is there at 1060."""
    two = of(Visit(0, 0, 10), Visit(50, 1, 10))
    assert fluid_wait(two, Cloud(burst=1, rate=0.001), 1, 30) == (60 + 50) / 2


def test_the_latest_ramp_that_is_in_time() -> None:
    """For ten two machines: one launched 60 s before 3000, one 62 s before; they are filled from 3000 and 3100 on."""
    cloud = Cloud(burst=1, rate=0.5)
    usual, exam = Visit(100, 0, 60), [Visit(3000 + 20 * n, 1 + n, 60) for n in range(10)]
    there = of(usual, *exam, peaks=(Peak(START_MS + 3_600_000, 10),))
    account = Account("", None, "", 1, 11, 11, [], 9.0, 2.0, 5.0, 0.0, {}, [])
    hours = (60 + 62 + 0 + 100) / 3600
    assert latest_ramp(there, cloud, 5, account) == pytest.approx(2.0 + hours)


def test_each_part_has_its_place_on_the_page() -> None:
    page = PAGE.read_text()
    for part in (*PARTS, "safety"):
        assert page.count(f"<!-- sim:{part} -->") == page.count(f"<!-- /sim:{part} -->") == 1
