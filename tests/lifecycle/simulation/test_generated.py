"""Models: the same seed is the same workload, and each has the shape that its name says."""

from __future__ import annotations

from collections import Counter
from statistics import mean, pvariance

import pytest

from lifecycle.simulation.generated import HOURS, MODELS, START_MS
from lifecycle.simulation.records import BEFORE, Workload
from lifecycle.simulation.workloads import workload


def peak_of(found: Workload) -> int:
    moves = sorted(
        [(visit.at, 1) for visit in found.visits] + [(v.at + v.seconds, -1) for v in found.visits]
    )
    there = most = 0
    for _, step in moves:
        there += step
        most = max(most, there)
    return most


SMALL = {name: f"{name}:users=200" for name in MODELS}


@pytest.mark.parametrize("name", MODELS)
def test_the_same_seed_is_the_same_workload(name: str) -> None:
    first = workload(SMALL[name], 7)
    assert first == workload(SMALL[name], 7)
    assert first.visits != workload(SMALL[name], 8).visits
    times = [visit.at for visit in first.visits]
    assert times == sorted(times)
    assert min(times) >= (0 if name == "rush" else -BEFORE), "the evening before fills the pool"
    assert all(1 <= visit.seconds <= 86_400 for visit in first.visits)
    assert (first.name, first.start_ms) == (SMALL[name], START_MS)


@pytest.mark.parametrize("name", ["poisson", "diurnal", "bursts"])
def test_users_are_the_peak(name: str) -> None:
    assert 950 < peak_of(workload(f"{name}:users=1000", 1)) < 1180


def test_sessions_are_visits_a_day() -> None:
    found = workload("diurnal:sessions=5000,days=2", 1)
    assert abs(sum(visit.at >= 0 for visit in found.visits) - 10_000) < 400
    poisson = workload("poisson:sessions=5000", 1).visits
    assert abs(sum(visit.at >= 0 for visit in poisson) - 5000) < 300


def test_a_day_has_two_peaks_and_a_quiet_night() -> None:
    by_hour = Counter(
        int(visit.at // 3600) for visit in workload("diurnal:sessions=50000", 1).visits
    )
    assert min(by_hour, key=by_hour.__getitem__) in (4, 5)
    assert max(by_hour, key=by_hour.__getitem__) in (18, 19, 20)
    assert by_hour[9] > by_hour[11]
    assert by_hour[16] < by_hour[14]
    assert HOURS.index(max(HOURS)) == 19


def test_bursts_are_over_dispersed() -> None:
    def dispersion(text: str) -> float:
        """Variance over mean of arrivals a minute, from ten to two; 1 for Poisson."""
        counts = Counter(int(visit.at // 60) for visit in workload(text, 1).visits)
        found = [counts[minute] for minute in range(600, 840)]
        return pvariance(found) / mean(found)

    assert dispersion("diurnal:users=1000") < 1.4
    assert dispersion("bursts:users=1000") > 2


def test_a_rush_comes_within_minutes_out_of_nothing() -> None:
    found = workload("rush:users=5000,seconds=300,at=00:05", 1)
    times = [visit.at for visit in found.visits]
    assert len(times) == 5000
    assert 300 <= times[0] <= times[-1] <= 600
    assert len({visit.user for visit in found.visits}) == 5000
    assert len(workload("rush", 1).visits) == 100_000


def test_an_exam_is_declared_or_not() -> None:
    found, unsaid = (
        workload("exam:users=100,extra=500,at=10:00", 1),
        workload("exam-undeclared:users=100,extra=500,at=10:00", 1),
    )
    assert found.visits == unsaid.visits
    assert unsaid.peaks == ()
    assert [(peak.at_ms - START_MS, peak.users, peak.name) for peak in found.peaks] == [
        (36_000_000, 500, "exam")
    ]
    near = [visit for visit in found.visits if 35_400 <= visit.at <= 36_600]
    assert len(near) > 500
    assert peak_of(found) > 550
    assert 85 * 60 < mean(visit.seconds for visit in near) < 100 * 60


def test_returns_are_of_people_who_were_there() -> None:
    found = workload("diurnal:users=300,returns=0.5", 1)
    users = len({visit.user for visit in found.visits})
    assert 0.45 < 1 - users / len(found.visits) < 0.51
    ends: dict[int, float] = {}
    for visit in found.visits:
        assert visit.at >= ends.get(visit.user, -BEFORE)
        ends[visit.user] = visit.at + visit.seconds
    assert len({v.user for v in workload("diurnal:users=300,returns=0", 1).visits}) == len(
        workload("diurnal:users=300,returns=0", 1).visits
    )
