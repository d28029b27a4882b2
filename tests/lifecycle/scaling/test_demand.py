"""What is remembered of who comes and leaves: timelines, and laws."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from math import isfinite
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifecycle.scaling.demand import (
    FORETOLD,
    PANIC,
    SPREAD_MAX,
    SPREAD_MIN,
    Demand,
    begin,
    forecast,
    foretell,
    observe,
)

TICK = 2.0  # seconds, as the loops look


def steady(demand: Demand, seconds: float, every: float, leave_every: float = 0.0) -> Demand:
    """Somebody comes every so many seconds, and leaves."""
    began, came, left = demand.at, 0, 0
    while demand.at < began + seconds:
        now = demand.at + TICK
        came_now = int((now - began) / every) if every else 0
        left_now = int((now - began) / leave_every) if leave_every else 0
        demand = observe(demand, now, 0, came_now - came, left_now - left)
        came, left = came_now, left_now
    return demand


def quiet(seconds: float = 3600.0) -> Demand:
    return steady(begin(0.0), seconds, 0.0)


def test_the_rates_of_a_steady_stream() -> None:
    demand = steady(begin(0.0), 3600, every=4.0, leave_every=8.0)
    assert demand.arrivals == 900
    assert demand.slow == pytest.approx(0.25, rel=0.05)
    assert demand.long == pytest.approx(0.25, rel=0.05)
    assert demand.leaving == pytest.approx(0.125, rel=0.05)
    assert demand.rate == demand.slow, "there is no rush"
    told = forecast(demand, 60.0)
    assert told.up == pytest.approx(15, rel=0.1)
    assert told.down == pytest.approx(7.5, rel=0.1)


def test_a_rate_is_known_within_a_minute_or_two_of_the_beginning() -> None:
    demand = steady(begin(0.0), 120, every=1.0)
    assert demand.slow == pytest.approx(1.0, rel=0.3)


@pytest.mark.parametrize("tick", [0.5, 2.0, 10.0])
def test_how_often_one_looks_hardly_matters(tick: float) -> None:
    demand = begin(0.0)
    while demand.at < 1800:
        demand = observe(demand, demand.at + tick, 0, round(4 * tick), round(2 * tick))
    assert demand.slow == pytest.approx(4.0, rel=0.05)
    assert demand.leaving == pytest.approx(2.0, rel=0.05)


def test_a_rush_is_noticed_within_seconds_and_counted_on() -> None:
    demand = steady(begin(0.0), 1800, every=10.0)
    assert not demand.panics
    seconds, before = 0.0, demand.rate
    while not demand.panics:
        seconds += TICK
        demand = observe(demand, demand.at + TICK, 0, 4, 0)  # 2 a second, twenty times as many
    assert seconds <= 6.0
    demand = steady(demand, 20, every=0.5)
    assert demand.rate == demand.fast > 5 * before


@pytest.mark.parametrize("came", [1, 2])
def test_one_or_two_after_a_quiet_hour_are_no_rush(came: int) -> None:
    demand = observe(quiet(), 3600 + TICK, came, came, 0)
    assert not demand.panics
    apart = quiet()
    for _ in range(came):
        apart = observe(apart, apart.at + TICK, 1, 1, 0)
    assert not apart.panics


def test_ten_at_once_after_a_quiet_hour_are_one() -> None:
    assert observe(quiet(), 3600 + TICK, 10, 10, 0).panics


def test_panic_ends_a_while_after_its_last_sign() -> None:
    demand = observe(quiet(), 3600 + TICK, 50, 50, 0)
    last = demand.at
    while demand.panics:
        demand = observe(demand, demand.at + TICK, 50, 0, 0)
        if demand.panic_until > last + PANIC:
            last = demand.panic_until - PANIC
    assert 0 <= demand.at - last - PANIC <= TICK
    assert demand.at < 3600 + 5 * PANIC, "an end of it comes by itself"
    assert demand.rate == demand.slow


def test_the_trend_counts_a_rise_and_never_a_fall() -> None:
    rising = begin(0.0)
    for minute in range(30):
        rising = steady(rising, 60, every=10.0 / (1 + minute))
    assert rising.trend > 0
    assert forecast(rising, 60.0).up > rising.rate * 60
    falling = steady(steady(begin(0.0), 3600, every=1.0), 300, every=20.0)
    assert falling.slow < falling.long
    assert falling.trend == 0.0
    assert forecast(falling, 60.0).up == falling.rate * 60


@pytest.mark.parametrize("at", [0.0, -100.0])
def test_time_that_stands_still_or_goes_back_changes_nothing(at: float) -> None:
    demand = steady(begin(0.0), 600, every=3.0)
    assert observe(demand, demand.at + at, 7, 1000, 1000) == demand


def spread_after(batch: int, hours: float, seed: int = 1) -> float:
    """Twelve come in a minute on average, in batches; everybody stays for half an hour; a lead time of 90 s."""
    dice, demand, users = Random(seed), begin(0.0), 0
    due: list[float] = []
    next_at = 0.0
    while demand.at < hours * 3600:
        now, came = demand.at + TICK, 0
        while next_at <= now:
            came += batch
            due += [next_at + dice.expovariate(1 / 1800) for _ in range(batch)]
            next_at += dice.expovariate(0.2 / batch)
        left = sum(at <= now for at in due)
        due = [at for at in due if at > now]
        users += came - left
        demand = foretell(observe(demand, now, users, came, left), users, 90.0)
    return demand.spread


def test_people_who_come_in_crowds_widen_the_spread_and_those_who_come_alone_do_not() -> None:
    alone = [spread_after(1, 3, seed) for seed in (1, 2, 3)]
    crowds = [spread_after(6, 3, seed) for seed in (1, 2, 3)]
    assert max(alone) < 2.2
    assert min(crowds) > 2.5
    assert sum(crowds) > 2 * sum(alone)


def test_what_was_foretold_is_held_against_what_came_once() -> None:
    demand = replace(begin(0.0), slow=1.0, long=1.0)
    demand = foretell(demand, 100, 60.0)
    assert [(each.at, each.users) for each in demand.foretold] == [(60.0, 160.0)]
    before = observe(demand, 59.0, 300, 59, 0)
    assert (before.spread, before.foretold) == (demand.spread, demand.foretold)
    after = observe(before, 60.0, 300, 1, 0)
    assert after.spread > before.spread
    assert after.foretold == ()
    assert observe(after, 61.0, 900, 0, 0).spread == after.spread


ticks = st.tuples(
    st.floats(-5, 600), st.integers(0, 10**4), st.integers(0, 10**4), st.integers(0, 10**4),
    st.floats(0, 3600),
)  # fmt: skip


@given(st.lists(ticks, max_size=60))
def test_whatever_comes_the_state_stays_bounded_and_finite(seen: list[tuple[float, int, int, int, float]]) -> None:  # fmt: skip
    demand = begin(1e9)
    for seconds, users, arrivals, departures, lead in seen:
        demand = observe(demand, demand.at + seconds, users, arrivals, departures)
        demand = foretell(demand, users, lead)
        assert len(demand.foretold) <= FORETOLD + 1
        assert SPREAD_MIN <= demand.spread <= SPREAD_MAX
        told = forecast(demand, lead)
        for value in (demand.fast, demand.slow, demand.long, demand.leaving, demand.rate, demand.trend, told.up, told.down):  # fmt: skip
            assert isfinite(value)
            assert value >= 0


def test_what_was_foretold_for_long_after_a_shorter_lead_time_is_dropped() -> None:
    demand = replace(begin(0.0), slow=1.0, long=1.0)
    hour = foretell(demand, 100, 3600.0)
    soon = foretell(observe(hour, 600.0, 100, 600, 600), 100, 60.0)
    assert [each.at for each in hour.foretold] == [3600.0]
    assert [each.at for each in soon.foretold] == [660.0]


def test_forecasts_that_are_kept_are_a_tenth_of_a_lead_time_apart() -> None:
    demand = begin(0.0)
    for _ in range(500):
        demand = observe(demand, demand.at + 1.0, 5, 1, 1)
        demand = foretell(demand, 5, 100.0)
    told = [each.at for each in demand.foretold]
    assert len(told) <= FORETOLD + 1
    assert min(b - a for a, b in pairwise(told)) >= 100.0 / FORETOLD
