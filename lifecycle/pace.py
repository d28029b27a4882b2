"""How fast things go in the pool, as the store knows it: what a time in the queue is reckoned from. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

AGES = (0.0, *(10 * 1.3**step for step in range(36)))
"""Seconds, 10 s to 27 h: workspaces that run are counted by how long they have, not listed."""


@dataclass(frozen=True, slots=True)
class Pace:
    """users: workspaces that hold a slot or wait for one. booting: for how long each boots, seconds. boots,
    launches, runs: recent durations, seconds. running: (for how long, how many) run, seconds. arrivals:
    (how long ago somebody came, what their priority was worth), seconds, newest first."""

    now_ms: int
    users: int = 0
    booting: Sequence[float] = ()
    boots: Sequence[float] = ()
    launches: Sequence[float] = ()
    runs: Sequence[float] = ()
    running: Sequence[tuple[float, int]] = ()
    arrivals: Sequence[tuple[float, float]] = ()


def middle(step: int) -> float:
    """The age that stands for those between AGES[step] and the next."""
    return AGES[step] * 1.14 if step else AGES[1] / 2


def by_age(ages: Iterable[float]) -> list[tuple[float, int]]:
    """(age, how many) of each step that has any."""
    found = Counter(bisect_right(AGES, max(0.0, age)) - 1 for age in ages)
    return [(middle(step), count) for step, count in sorted(found.items())]
