"""Rates, the occupancy they lead to, and back; visits of times."""

from __future__ import annotations

from random import Random

import pytest

from lifecycle.simulation import arrivals, visits
from lifecycle.simulation.arrivals import Stretch
from lifecycle.simulation.records import Visit
from lifecycle.simulation.stays import Stays

STAYS = Stays(mean=1200.0, sigma=0.9)


def test_stays_have_their_mean_and_their_bound() -> None:
    chance = Random(1)
    drawn = [STAYS.draw(chance) for _ in range(20_000)]
    assert abs(sum(drawn) / len(drawn) - 1200) < 30
    for within in (60.0, 1200.0, 7200.0):
        measured = sum(min(stay, within) for stay in drawn) / len(drawn)
        assert STAYS.within(within) == pytest.approx(measured, rel=0.03)
    assert STAYS.within(0) == 0
    long = Stays(mean=50_000.0, sigma=2.0)
    assert max(long.draw(chance) for _ in range(1000)) == long.longest
    assert long.within(1e9) == long.within(long.longest) < 50_000


def test_arrivals_come_at_their_rates() -> None:
    rates = [Stretch(0, 1000, 2.0), Stretch(1000, 2000, 0.0), Stretch(2000, 3000, 0.5)]
    times = list(arrivals.drawn(rates, Random(3)))
    assert times == sorted(times)
    assert list(arrivals.drawn(rates, Random(3))) == times
    first, last = sum(t < 1000 for t in times), sum(t >= 2000 for t in times)
    assert first + last == len(times)
    assert abs(first - 2000) < 180  # four standard deviations
    assert abs(last - 500) < 90
    assert arrivals.expected(rates) == 2500


def test_occupancy_is_rate_times_stay() -> None:
    steady = [Stretch(0, 86_400, 0.1)]
    assert arrivals.there(steady, STAYS, 80_000) == pytest.approx(120, rel=0.01)
    assert arrivals.there(steady, STAYS, 0) == 0
    assert arrivals.peak(steady, STAYS) == pytest.approx(120, rel=0.01)
    assert arrivals.peak(arrivals.scaled(steady, 2), STAYS) == pytest.approx(240, rel=0.01)


def test_a_peak_is_looked_for_from_0_on() -> None:
    evening = [Stretch(-7200, -3600, 1.0), Stretch(-3600, 0, 0.0)]
    assert arrivals.peak(evening, STAYS) == arrivals.there(evening, STAYS, 0) > 0
    assert arrivals.peak(evening[:1], STAYS) == 0


def test_rates_follow_an_occupancy() -> None:
    series = [
        (hour * 3600.0, people) for hour, people in enumerate((0, 10, 40, 90, 80, 60, 50, 45))
    ]
    rates, too_fast = arrivals.following(series, STAYS)
    assert too_fast == []
    for at, people in series:
        assert arrivals.there(rates, STAYS, at) == pytest.approx(people)


def test_people_cannot_leave_faster_than_they_do() -> None:
    series = [(0.0, 0.0), (3600.0, 100.0), (3660.0, 0.0), (20_000.0, 1.0)]
    rates, too_fast = arrivals.following(series, STAYS)
    assert too_fast == [3660.0]
    assert [rate.rate > 0 for rate in rates] == [True, False, True]


def test_who_has_left_may_come_again() -> None:
    found = visits.of_times([0.0, 1.0, 20.0, 21.0], lambda _: 10.0, 1.0, Random(1))
    assert [visit.user for visit in found][:2] == [0, 1]
    assert {visit.user for visit in found[2:]} == {0, 1}
    strangers = visits.of_times([0.0, 1.0, 20.0], lambda _: 10.0, 0.0, Random(1))
    assert [visit.user for visit in strangers] == [0, 1, 2]


def test_overlaps_of_one_user_are_merged() -> None:
    given = [Visit(5, 1, 3), Visit(0, 1, 6, "vip"), Visit(8, 1, 1), Visit(20, 1, 1), Visit(4, 2, 9)]
    assert visits.merged(given) == ([Visit(0, 1, 9, "vip"), Visit(4, 2, 9), Visit(20, 1, 1)], 2)


def test_times_are_multiplied_or_thinned() -> None:
    times = [float(n * 10) for n in range(1000)]
    more = visits.scaled(times, 2.5, 3.0, Random(1))
    assert abs(len(more) - 2500) < 70
    assert set(times) <= set(more)
    assert all(
        min(abs(at - near) for near in (at // 10 * 10, at // 10 * 10 + 10)) <= 3 for at in more
    )
    early = visits.scaled([at - 600 for at in times], 2.5, 300.0, Random(1), since=-600.0)
    assert -600 <= early[0] < 0
    fewer = visits.scaled(times, 0.2, 3.0, Random(1))
    assert set(fewer) < set(times)
    assert abs(len(fewer) - 200) < 60


def test_the_longest_gaps() -> None:
    found = [Visit(at, 0, 1) for at in (0, 10, 50, 60, 90, 95)]
    assert visits.largest_gaps(found, 20, 95) == [(10, 50), (60, 90)]
    assert visits.largest_gaps(found, 1, 200) == [(10, 50), (60, 90), (95, 200)]
