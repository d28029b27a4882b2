"""Workloads out of a model and a seed. Pure: the same seed is the same workload.

| name              | what comes                                                                       |
|-------------------|----------------------------------------------------------------------------------|
| `poisson`         | as many at every hour                                                            |
| `diurnal`         | a working day: a peak in the morning, a higher one in the evening, a quiet night |
| `bursts`          | the same day, but half of all visits begin together with others: classes         |
| `rush`            | everybody within 15 minutes, out of nothing                                      |
| `exam`            | a day, and many more around one moment, which was declared                       |
| `exam-undeclared` | the same, and nobody said so                                                     |
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from lifecycle.peaks import Peak
from lifecycle.simulation import arrivals, stays, visits
from lifecycle.simulation.arrivals import Stretch
from lifecycle.simulation.records import BEFORE, Visit, Workload
from lifecycle.simulation.spec import DAY, Parameter, WorkloadError, clock, number, one_of, whole
from lifecycle.simulation.stays import Stays
from lifecycle.simulation.visits import MOST

START_MS = 1_772_409_600_000  # Monday, 2 March 2026, 00:00 UTC

HOURS = (
    0.50, 0.36, 0.26, 0.18, 0.15, 0.17, 0.38, 0.66, 0.82, 0.83, 0.77, 0.77,
    0.80, 0.79, 0.81, 0.78, 0.68, 0.82, 0.98, 1.00, 0.94, 0.91, 0.88, 0.72,
)  # fmt: skip
"""Arrivals of each hour of a day against the busiest one's: in the manner of New York's taxis on a weekday, written by
hand and fitted to nothing. For measured days there are flights, bikes and parking."""

STEP = 600.0  # seconds that a rate of the day holds

BELL = (3.0, 3.0)  # a beta law: most come in the middle, few in the first and the last minute

EXAM_EARLY = EXAM_LATE = 600.0

_PEOPLE = {
    "users": Parameter("most of them there at once, on average (1500 unless sessions is given)", number(1, 1e6)),
    "sessions": Parameter("visits a day, in place of users", number(1, MOST)),
    "days": Parameter("how many days", whole(1, 31), 1),
    "returns": Parameter("share of visits by somebody who was there before", number(0, 1), 0.3),
    **stays.PARAMETERS,
}  # fmt: skip

_EXAM = {
    **_PEOPLE,
    "extra": Parameter("how many come to the exam", whole(1, 1_000_000), 3000),
    "at": Parameter("when it begins", clock, 9 * 3600.0),
    "length": Parameter("seconds that it lasts", number(60, DAY), 5400.0),
}


@dataclass(frozen=True, slots=True)
class Model:
    """make: the workload's visits and peaks out of parameters and chance."""

    means: str
    parameters: Mapping[str, Parameter]
    make: Callable[[Mapping[str, Any], Random], tuple[list[Visit], tuple[Peak, ...]]]

    def workload(self, name: str, values: Mapping[str, Any], seed: int) -> Workload:
        """Raises WorkloadError where parameters contradict each other."""
        found, peaks = self.make(values, Random(seed))
        if not found or found[-1].at < 0:
            raise WorkloadError("nobody comes; ask for more users or days")
        until = values.get("days", 0) * DAY  # a rush is over with the last who comes
        return Workload(name, found, START_MS, peaks, until=until)


def day(users: float | None, sessions: float | None, days: int, stay: Stays) -> list[Stretch]:
    """A working day's rates, again and again. users: at the peak; sessions: a day. One of them is given."""
    one = [Stretch(at, at + STEP, _hourly(at + STEP / 2)) for at in _steps(DAY)]
    if sessions is not None:
        factor = sessions / arrivals.expected(one)
    else:
        # Two days: the first one's evening is still there in the second one's night.
        factor = (users or 0) / arrivals.peak(one + _later(one, DAY), stay)
    real = arrivals.scaled(one, factor)
    evening = [s for s in _later(real, -DAY) if s.begins >= -BEFORE]
    return [*evening, *(s for n in range(days) for s in _later(real, n * DAY))]


def _steps(length: float) -> list[float]:
    return [n * STEP for n in range(int(length / STEP))]


def _later(stretches: list[Stretch], seconds: float) -> list[Stretch]:
    return [Stretch(s.begins + seconds, s.ends + seconds, s.rate) for s in stretches]


def _hourly(at: float) -> float:
    """The day's shape at that second: straight lines between the middles of hours."""
    place = at / 3600 - 0.5
    hour = int(place // 1)
    share = place - hour
    return HOURS[hour % 24] * (1 - share) + HOURS[(hour + 1) % 24] * share


def _people(values: Mapping[str, Any]) -> tuple[float | None, float | None]:
    users, sessions = values["users"], values["sessions"]
    if users is not None and sessions is not None:
        raise WorkloadError("users and sessions say the same twice; leave one out")
    users = 1500.0 if users is None and sessions is None else users
    return users, sessions


def _stays(values: Mapping[str, Any]) -> Stays:
    return Stays(values["stay"], values["sigma"])


def bounded(stretches: list[Stretch]) -> list[Stretch]:
    """The same. Raises WorkloadError if more visits come of it than anybody wants to wait for."""
    if (coming := arrivals.expected(stretches)) > MOST:
        raise WorkloadError(
            f"about {coming:,.0f} visits are more than {MOST:,}; ask for fewer users or days, or longer stays"
        )
    return stretches


def _drawn(stretches: list[Stretch], values: Mapping[str, Any], chance: Random) -> list[Visit]:
    stay = _stays(values)
    times = arrivals.drawn(bounded(stretches), chance)
    return visits.of_times(times, lambda _: stay.draw(chance), values["returns"], chance)


def _poisson(values: Mapping[str, Any], chance: Random) -> tuple[list[Visit], tuple[Peak, ...]]:
    users, sessions = _people(values)
    rate = sessions / DAY if sessions else (users or 0) / _stays(values).within(DAY)
    return _drawn([Stretch(-BEFORE, values["days"] * DAY, rate)], values, chance), ()


def _diurnal(values: Mapping[str, Any], chance: Random) -> tuple[list[Visit], tuple[Peak, ...]]:
    return _drawn(day(*_people(values), values["days"], _stays(values)), values, chance), ()


def _bursts(values: Mapping[str, Any], chance: Random) -> tuple[list[Visit], tuple[Peak, ...]]:
    """A share of the day's rate becomes moments at which a whole class comes, within five minutes or so."""
    base = bounded(day(*_people(values), values["days"], _stays(values)))
    share, size = values["classes"], values["size"]
    alone = arrivals.drawn(arrivals.scaled(base, 1 - share), chance)
    together = [
        round(chance.gauss(at, values["spread"]), 3)
        for at in list(arrivals.drawn(arrivals.scaled(base, share / size), chance))
        # As many to one less than twice the size, each as likely: a class of 25 has 1 to 49.
        for _ in range(chance.randint(1, 2 * size - 1))
    ]
    stay = _stays(values)
    times = heapq.merge(alone, sorted(together))
    return visits.of_times(times, lambda _: stay.draw(chance), values["returns"], chance), ()


def _rush(values: Mapping[str, Any], chance: Random) -> tuple[list[Visit], tuple[Peak, ...]]:
    stay, begins = _stays(values), values["at"]
    draw = chance.random if values["shape"] == "even" else lambda: chance.betavariate(*BELL)
    times = sorted(round(begins + draw() * values["seconds"], 3) for _ in range(values["users"]))
    found = visits.of_times(times, lambda _: stay.draw(chance), 0.0, chance)
    return [replace(each, priority=_priority(values, chance)) for each in found], ()


def _priority(values: Mapping[str, Any], chance: Random) -> str:
    lot = chance.random()
    if lot < values["vip"]:
        return "vip"
    return "batch" if lot < values["vip"] + values["batch"] else "normal"


def _exam(values: Mapping[str, Any], chance: Random) -> tuple[list[Visit], tuple[Peak, ...]]:
    """Who comes to the exam comes within ten minutes of its beginning, most of them close to it, and stays to its end."""
    begins, count = values["at"], values["extra"]
    if begins >= values["days"] * DAY:
        raise WorkloadError("at: the exam would be after the last day; ask for more days")
    usual, _ = _diurnal(values, chance)
    first = 1 + max((visit.user for visit in usual), default=-1)
    extra = [_sitting(begins, values["length"], first + number, chance) for number in range(count)]
    peak = Peak(START_MS + round(begins * 1000), count, "exam", EXAM_EARLY, EXAM_LATE)
    return sorted([*usual, *extra], key=lambda v: v.at), (peak,)


def _sitting(begins: float, length: float, user: int, chance: Random) -> Visit:
    at = max(0.0, begins + chance.triangular(-EXAM_EARLY, EXAM_LATE, 0.0))
    ends = begins + length + chance.uniform(-300.0, 600.0)
    return Visit(round(at, 3), user, round(max(60.0, ends - at), 3))


def _unsaid(values: Mapping[str, Any], chance: Random) -> tuple[list[Visit], tuple[Peak, ...]]:
    return _exam(values, chance)[0], ()


_BURSTS = {
    **_PEOPLE,
    "classes": Parameter("share of visits that begin with a class", number(0, 1), 0.5),
    "size": Parameter("people of a class, on average", whole(1, 10_000), 25),
    "spread": Parameter("standard deviation of their coming, in seconds", number(0, 3600), 120.0),
}

_RUSH = {
    "users": Parameter("how many come", whole(1, 1_000_000), 100_000),
    "seconds": Parameter("within how long", number(1, DAY), 900.0),
    "at": Parameter("when the first may come", clock, 600.0),
    "shape": Parameter(
        "bell: most in the middle; even: as many in the first second as in any",
        one_of("bell", "even"),
        "bell",
    ),
    "vip": Parameter("share of people with that priority", number(0, 0.5), 0.05),
    "batch": Parameter("share of people with that priority", number(0, 0.5), 0.05),
    **stays.PARAMETERS,
}

MODELS: Mapping[str, Model] = {
    "poisson": Model("as many at every hour", _PEOPLE, _poisson),
    "diurnal": Model("a working day: two peaks, a quiet night", _PEOPLE, _diurnal),
    "bursts": Model("a working day with classes that begin together", _BURSTS, _bursts),
    "rush": Model("everybody within minutes, out of nothing", _RUSH, _rush),
    "exam": Model("a working day and a declared exam", _EXAM, _exam),
    "exam-undeclared": Model("a working day and an exam that nobody announced", _EXAM, _unsaid),
}
