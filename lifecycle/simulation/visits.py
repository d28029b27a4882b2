"""Visits from times, and from stretches of time that may overlap. Pure."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from random import Random

from lifecycle.simulation.records import Visit

MOST = 5_000_000
"""Visits of a workload; more would take some GiB."""

JITTER = 600.0  # seconds by which copies of what happened are moved, either way

Draw = Callable[[float], float]
"""Seconds that somebody stays who comes then."""


def of_times(times: Iterable[float], stay: Draw, returns: float, chance: Random) -> list[Visit]:
    """One visit at each time, which are in order. returns: share of visits by somebody who has been there, if anybody
    has left by then."""
    visits: list[Visit] = []
    leaving: list[tuple[float, int]] = []
    gone: list[int] = []
    newest = 0
    for at in times:
        while leaving and leaving[0][0] < at:
            gone.append(heapq.heappop(leaving)[1])
        user, newest = (
            (_taken(gone, chance), newest)
            if returns and chance.random() < returns and gone
            else (newest, newest + 1)
        )
        visit = Visit(at, user, stay(at))
        visits.append(visit)
        if returns:
            heapq.heappush(leaving, (at + visit.seconds, user))
    return visits


def _taken(names: list[int], chance: Random) -> int:
    """One of them, which is no longer there afterwards."""
    place = int(chance.random() * len(names))
    names[place], names[-1] = names[-1], names[place]
    return names.pop()


def merged(visits: Sequence[Visit]) -> tuple[list[Visit], int]:
    """Visits by time, with those of one user that overlap made into one; and how many that took away. A user has one
    workspace: a second tab of it is no second visit. The first one's priority holds."""
    whole: list[Visit] = []
    newest: dict[int, int] = {}
    for visit in sorted(visits, key=lambda v: (v.at, v.user)):
        place = newest.get(visit.user)
        if place is not None and visit.at <= (end := whole[place].at + whole[place].seconds):
            was = whole[place]
            longer = round(max(end, visit.at + visit.seconds) - was.at, 3)
            whole[place] = Visit(was.at, was.user, longer, was.priority)
            continue
        newest[visit.user] = len(whole)
        whole.append(visit)
    return whole, len(visits) - len(whole)


def scaled(
    times: Sequence[float], factor: float, jitter: float, chance: Random, since: float = 0.0
) -> list[float]:
    """Each time `factor` times on average, copies moved by up to `jitter` seconds either way; by time. A factor below
    one leaves some out and moves none. None is moved to before `since`."""

    def copies() -> Iterator[float]:
        often, rest = int(factor), factor % 1
        for at in times:
            if often or chance.random() < rest:
                yield at
            for _ in range(often - 1 + (often > 0 and chance.random() < rest)):
                yield since + abs(at - since + chance.uniform(-jitter, jitter))

    return sorted(round(at, 3) for at in copies())


def multiplied(
    visits: Iterable[Visit], factor: float, since: float, until: float, chance: Random
) -> list[Visit]:
    """The visits of `factor` times as many users on average. Copies are users of their own, who come up to JITTER seconds
    earlier or later, all their visits by as much, and stay as long; a factor below one leaves users out. All come from
    `since` to `until`."""
    given = list(visits)
    newest = max((visit.user for visit in given), default=0)
    # User → they and their copies, and how much later each of them comes.
    people: dict[int, list[tuple[int, float]]] = {}
    found = []
    for visit in given:
        if visit.user not in people:
            often = int(factor) + (chance.random() < factor % 1)
            copies = [(newest + n, chance.uniform(-JITTER, JITTER)) for n in range(1, often)]
            people[visit.user] = [(visit.user, 0.0), *copies] if often else []
            newest += len(copies)
        found += [
            replace(visit, at=_within(visit.at + later, since, until), user=user)
            for user, later in people[visit.user]
        ]
    return found


def _within(at: float, since: float, until: float) -> float:
    """A time beyond either end is as far inside of it; the end itself is the next day's."""
    at = since + abs(at - since)
    return round(min(until - abs(until - at), until - 0.001), 3)


def largest_gaps(visits: Sequence[Visit], least: float, until: float) -> list[tuple[float, float]]:
    """(begin, end) of stretches of at least so many seconds in which nobody comes, the longest three, by time."""
    times = [visit.at for visit in visits]
    gaps = [(a, b) for a, b in zip(times, [*times[1:], until], strict=True) if b - a >= least]
    return sorted(sorted(gaps, key=lambda gap: gap[0] - gap[1])[:3])
