"""When people come: rates by stretches of time, what occupancy they lead to, and which rates lead to an occupancy. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random

from lifecycle.simulation.stays import Stays


@dataclass(frozen=True, slots=True)
class Stretch:
    """rate: arrivals a second from `begins` until `ends`, both in seconds."""

    begins: float
    ends: float
    rate: float


def scaled(stretches: Sequence[Stretch], factor: float) -> list[Stretch]:
    return [Stretch(s.begins, s.ends, s.rate * factor) for s in stretches]


def expected(stretches: Sequence[Stretch]) -> float:
    """How many come."""
    return sum(s.rate * (s.ends - s.begins) for s in stretches)


def drawn(stretches: Sequence[Stretch], chance: Random) -> Iterator[float]:
    """Times of a Poisson process with these rates, exactly: what is left of a gap is carried into the next stretch."""
    left = chance.expovariate(1.0)
    for s in stretches:
        at, room = s.begins, s.rate * (s.ends - s.begins)
        while left < room:
            at += left / s.rate
            yield round(min(at, s.ends), 3)
            room -= left
            left = chance.expovariate(1.0)
        left -= room


def there(stretches: Sequence[Stretch], stays: Stays, at: float) -> float:
    """How many of those who have come are there at that moment, on average."""
    total = 0.0
    for s in stretches:
        if s.begins >= at:
            break
        if s.rate and at - s.ends < stays.longest:
            total += s.rate * (stays.within(at - s.begins) - stays.within(max(0.0, at - s.ends)))
    return total


def peak(stretches: Sequence[Stretch], stays: Stays) -> float:
    """Most people there at once, on average, from 0 on, looked at where rates change. Who came before 0 may be there."""
    return max((there(stretches, stays, s.ends) for s in stretches if s.ends >= 0), default=0.0)


def following(
    series: Sequence[tuple[float, float]], stays: Stays
) -> tuple[list[Stretch], list[float]]:
    """Rates whose expected occupancy is that of the series, (seconds, people) by time; and the moments at which it falls
    faster than people leave, where nobody comes and more are there than it says. Nobody is there before the first moment.

    Solved stretch by stretch: what is missing after those who are still there has to come in between."""
    stretches: list[Stretch] = []
    too_fast: list[float] = []
    for (begins, _), (ends, people) in itertools.pairwise(series):
        still = there(stretches, stays, ends)
        rate = (people - still) / stays.within(ends - begins)
        if rate < 0 and still - people > max(1.0, 0.02 * still):
            too_fast.append(ends)
        stretches.append(Stretch(begins, ends, max(0.0, rate)))
    return stretches, too_fast
