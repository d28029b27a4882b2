"""Which days of a record are simulated, and what is said of them. Pure. Errors: WorkloadError."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta, tzinfo
from random import Random

from lifecycle.simulation.moments import days_between, midnight_ms, shown
from lifecycle.simulation.records import BEFORE, Visit, Workload
from lifecycle.simulation.spec import (
    DAY,
    Parameter,
    WorkloadError,
    calendar,
    number,
    of,
    whole,
    zone,
)
from lifecycle.simulation.visits import JITTER, MOST, largest_gaps, merged, multiplied

MOST_DAYS = 31
LONGEST_GAP = 3 * 3600.0  # seconds; a night has some that are shorter
FEW = 20  # visits; of fewer, every gap is a long one

PARAMETERS = {
    "day": Parameter("the first day, as in 2026-11-23; the record's first unless given", calendar),
    "days": Parameter("how many days; all of the record's unless given", whole(1, MOST_DAYS)),
    "zone": Parameter("time zone of times that name none, and in which days begin", zone),
}
TIMES = {
    "times": Parameter("times as many people, as in 1.3: a third more", number(0.01, 1000), 1.0)
}
"""Of what has visits, each of somebody."""


@dataclass(frozen=True, slots=True)
class Days:
    """From start_ms (a midnight) until end_ms. zone: in which days begin."""

    start_ms: int
    end_ms: int
    zone: tzinfo

    @property
    def early_ms(self) -> int:
        """When the evening begins that fills the pool. In real time, whatever the clock does meanwhile."""
        return self.start_ms - round(BEFORE * 1000)

    @property
    def length(self) -> float:
        """In seconds."""
        return self.seconds(self.end_ms)

    def counts(self, at_ms: float) -> bool:
        """Whether it is of the days themselves."""
        return self.start_ms <= at_ms < self.end_ms

    def has(self, at_ms: float, lasts: float = 0.0) -> bool:
        """Whether it is of the days or of the evening before; or began earlier and lasts, so many seconds, into the days."""
        return at_ms < self.end_ms and (
            at_ms >= self.early_ms or at_ms + 1000 * lasts > self.start_ms
        )

    def seconds(self, at_ms: float) -> float:
        """Since the first day began; below 0 the evening before."""
        return round((at_ms - self.start_ms) / 1000, 3)


def chosen(
    times_ms: Sequence[int], where: tzinfo, day: date | None, days: int | None, source: str
) -> Days:
    """The days that were asked for, or all that the record has. Raises WorkloadError if there are none or too many."""
    there = days_between(times_ms, where)
    if day is None:
        start = midnight_ms(min(times_ms), where)
    else:
        start = round(datetime(day.year, day.month, day.day, tzinfo=where).timestamp() * 1000)
    first = datetime.fromtimestamp(start / 1000, where)
    last = midnight_ms(max(times_ms), where)
    if days is None and day is not None:
        days = 1
    if days is None:
        days = 1 + round((last - start) / 1000 / DAY)
        if days > MOST_DAYS:
            raise WorkloadError(
                f"{source}: it has {days:,} days, {there}; choose at most {MOST_DAYS}, as in day={first.date()},days=7"
            )
    end = round(
        (first.replace(tzinfo=None) + timedelta(days=days)).replace(tzinfo=where).timestamp() * 1000
    )
    found = Days(start, end, where)
    if not any(found.counts(at) for at in times_ms):
        which = f"{first.date()}" if days == 1 else f"{days} days from {first.date()}"
        raise WorkloadError(
            f"{source}: nothing happened on {which}; it has {there}: choose of them with day="
        )
    return found


def workload(
    name: str,
    visits: Sequence[Visit],
    days: Days,
    repairs: Sequence[str],
    times: float,
    seed: int,
) -> Workload:
    """visits: in any order, times since the first day began. Overlaps are merged, gaps are said. times: so many times as
    many users; seed: of who they are. Raises WorkloadError if nobody comes on the days themselves."""
    whole_visits, overlapping = merged([_late(visit) for visit in visits])
    if whole_visits[-1].at < 0:
        raise WorkloadError(
            f"{name}: nobody came from {shown(days.start_ms, days.zone)} on who was not there already; choose another day"
        )
    said = list(repairs)
    if overlapping:
        said.append(
            of(
                overlapping,
                "visit overlapped another of the same user and was",
                "visits overlapped another of the same user and were",
            )
            + " taken as one with it"
        )
    whole_visits, scaled = _scaled(name, whole_visits, days, times, seed)
    said += [*scaled, *evening(whole_visits, days), *odd(days), *gaps(whole_visits, days)]
    return Workload(name, whole_visits, days.start_ms, (), tuple(said), until=days.length)


def _late(visit: Visit) -> Visit:
    """Who came before the evening and is still there comes as it begins: a stay of a week is not simulated for its end."""
    if visit.at >= -BEFORE:
        return visit
    return replace(visit, at=-BEFORE, seconds=round(visit.at + visit.seconds + BEFORE, 3))


def _scaled(
    name: str, visits: list[Visit], days: Days, times: float, seed: int
) -> tuple[list[Visit], list[str]]:
    """As many times as many users, and that in words. Raises WorkloadError if that is too many, or nobody."""
    if times == 1:
        return visits, []
    if len(visits) * times > MOST:
        raise WorkloadError(
            f"{name}: {times:g} times its {len(visits):,} visits are more than {MOST:,}; ask for fewer times or days"
        )
    found, _ = merged(multiplied(visits, times, -BEFORE, days.length, Random(f"{seed}/times")))
    if not any(visit.at >= 0 for visit in found):
        raise WorkloadError(f"{name}: of {times:g} times its users nobody comes; raise times=")
    moved = f"; copies come up to {JITTER / 60:.0f} minutes earlier or later" if times > 1 else ""
    return found, [f"{times:g} times as many users{moved}, drawn for each seed"]


def evening(visits: Sequence[Visit], days: Days) -> list[str]:
    """What comes before the first day, in words."""
    early = sum(visit.at < 0 for visit in visits)
    if not early:
        return []
    since = shown(days.early_ms, days.zone)
    return [
        f"the evening before ({of(early, 'visit', 'visits')} since {since}) fills the pool and is not counted"
    ]


def odd(days: Days) -> list[str]:
    """Days on which clocks change, in words: what counts seconds since midnight is not what the clock showed."""
    first = datetime.fromtimestamp(days.start_ms / 1000, days.zone).replace(tzinfo=None)
    count = round((days.end_ms - days.start_ms) / 1000 / DAY)
    begins = [
        (first + timedelta(n)).replace(tzinfo=days.zone).timestamp() for n in range(count + 1)
    ]
    return [
        f"{(first + timedelta(n)).date()} has {(b - a) / 3600:g} hours, as clocks change: times such as 09:12 count"
        " hours since midnight, on it and after it"
        for n, (a, b) in enumerate(itertools.pairwise(begins))
        if b - a != DAY
    ]


def gaps(visits: Sequence[Visit], days: Days) -> list[str]:
    """The longest stretches between two arrivals of the days themselves, in words."""
    counted = [visit for visit in visits if visit.at >= 0]
    if len(counted) < FEW:
        return []
    found = largest_gaps(counted, LONGEST_GAP, counted[-1].at)
    return [
        f"a gap of {(end - begin) / 3600:.1f} h from {shown(days.start_ms + begin * 1000, days.zone)} has no arrivals"
        for begin, end in found
    ]
