"""The virtual clock: what time it is, and what is to happen at which moment. Pure: it goes where it is told to go."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from math import inf
from typing import Any


class Clock:
    """now: seconds since the day began. now_ms: the same moment, milliseconds since the epoch."""

    def __init__(self, start_ms: int) -> None:
        self.start_ms = self.now_ms = start_ms
        self.now = 0.0
        self._numbers = 0
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []

    def go_to(self, at: float) -> None:
        self.now, self.now_ms = at, self.ms(at)

    def ms(self, at: float) -> int:
        return self.start_ms + int(at * 1000)

    def at(self, ms: int) -> float:
        return (ms - self.start_ms) / 1000

    def number(self) -> int:
        """The next of one series for all of the day: events, machines, places in the queue. Of two that are alike
        otherwise the lower one is first."""
        self._numbers += 1
        return self._numbers

    def call(self, when: float, act: Callable[..., None], *what: Any) -> None:
        """Let act(*what) happen then. What has been overtaken by then is for act to see: nothing is called off."""
        heappush(self._events, (when, self.number(), act, what))

    @property
    def next_at(self) -> float:
        """When the next event is; inf: there is none."""
        return self._events[0][0] if self._events else inf

    def happen(self) -> None:
        """The next event, now."""
        _, _, act, what = heappop(self._events)
        act(*what)
