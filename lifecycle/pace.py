"""How fast things go in the pool, as the store knows it: what a time in the queue is reckoned from. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

AGES = (0.0, *(10 * 1.3**step for step in range(36)))
"""Seconds, 10 s to 27 h: workspaces that run are counted by how long they have, not listed."""


@dataclass(frozen=True, slots=True)
class Pace:
    """users: workspaces that hold a slot or wait for one. booting: for how long each boots, seconds. boots,
    launches, starts (of stopped machines), runs: recent durations, seconds. running: (for how long, how many) run, seconds. arrivals:
    (how long ago somebody came, what their priority was worth), seconds, newest first."""

    now_ms: int
    users: int = 0
    booting: Sequence[float] = ()
    boots: Sequence[float] = ()
    launches: Sequence[float] = ()
    starts: Sequence[float] = ()
    runs: Sequence[float] = ()
    running: Sequence[tuple[float, int]] = ()
    arrivals: Sequence[tuple[float, float]] = ()


@dataclass(frozen=True, slots=True)
class Flow:
    """How many came for a slot, gave one back, and had to wait for one: counted on and on, or of a while."""

    arrivals: int = 0
    departures: int = 0
    waits: int = 0

    def since(self, before: Flow | None) -> Flow:
        """What was counted since then; nothing where that is unknown: counters that are less than they
        were have been lost."""
        if before is None:
            return Flow()
        row = (
            self.arrivals - before.arrivals,
            self.departures - before.departures,
            self.waits - before.waits,
        )
        return Flow(*row) if min(row) >= 0 else Flow()


@dataclass(frozen=True, slots=True)
class Census:
    """counts: status → workspaces in it. flow: as counted so far. launches, starts: recent seconds until a new
    machine, and a stopped one, was ready; None when they were not asked for."""

    counts: Mapping[str, int]
    flow: Flow
    launches: Sequence[float] | None = None
    starts: Sequence[float] | None = None


def middle(step: int) -> float:
    """The age that stands for those between AGES[step] and the next."""
    return AGES[step] * 1.14 if step else AGES[1] / 2


def by_age(ages: Iterable[float]) -> list[tuple[float, int]]:
    """(age, how many) of each step that has any."""
    found = Counter(bisect_right(AGES, max(0.0, age)) - 1 for age in ages)
    return [(middle(step), count) for step, count in sorted(found.items())]
