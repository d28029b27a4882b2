"""Which days of a record are simulated, and what is said of them. Pure. Errors: WorkloadError."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta, tzinfo

from lifecycle.simulation.moments import days_between, midnight_ms, shown
from lifecycle.simulation.records import Visit, Workload
from lifecycle.simulation.spec import DAY, Parameter, WorkloadError, calendar, whole, zone
from lifecycle.simulation.visits import largest_gaps, merged

MOST_DAYS = 31
LONGEST_GAP = 3 * 3600.0  # seconds; a night has some that are shorter
FEW = 20  # visits; of fewer, every gap is a long one

PARAMETERS = {
    "day": Parameter("the first day, as in 2026-11-23; the record's first unless given", calendar),
    "days": Parameter("how many days; all of the record's unless given", whole(1, MOST_DAYS)),
    "zone": Parameter("time zone of times that name none, and in which days begin", zone),
}


@dataclass(frozen=True, slots=True)
class Days:
    """From start_ms (a midnight) until end_ms. zone: in which days begin."""

    start_ms: int
    end_ms: int
    zone: tzinfo
    chosen: bool = False

    def has(self, at_ms: float) -> bool:
        return self.start_ms <= at_ms < self.end_ms

    def seconds(self, at_ms: float) -> float:
        """Since the first day began."""
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
    found = Days(start, end, where, day is not None)
    if not any(found.has(at) for at in times_ms):
        which = f"{first.date()}" if days == 1 else f"{days} days from {first.date()}"
        raise WorkloadError(f"{source}: nothing happened on {which}; it has {there}")
    return found


def workload(name: str, visits: Sequence[Visit], days: Days, repairs: Sequence[str]) -> Workload:
    """visits: in any order, times since the first day began. Overlaps are merged, gaps are said."""
    whole_visits, overlapping = merged(visits)
    said = list(repairs)
    if overlapping:
        said.append(
            f"{overlapping:,} visits overlapped another of the same user and were taken as one with it"
        )
    said += gaps(whole_visits, days)
    return Workload(name, whole_visits, days.start_ms, (), tuple(said))


def gaps(visits: Sequence[Visit], days: Days) -> list[str]:
    """The longest stretches between two arrivals in words."""
    if len(visits) < FEW:
        return []
    found = largest_gaps(visits, LONGEST_GAP, visits[-1].at)
    return [
        f"a gap of {(end - begin) / 3600:.1f} h from {shown(days.start_ms + begin * 1000, days.zone)} has no arrivals"
        for begin, end in found
    ]
