"""What the simulator takes and tells: visits in, an account of the day out. Times are seconds since the day began
unless a name says otherwise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lifecycle.peaks import Peak
from lifecycle.simulation.spec import DAY

BEFORE = 4 * 3600.0
"""Seconds of the evening before, as far as it is known, that come first, at times below 0, and fill the pool: nothing
of it is counted."""

PROMISE, MOVING = "promise", "moving"
OURS = (PROMISE, MOVING)
"""Policies that decide as live. Their figure is a promise, the share of arrivals that may have to wait; of 0, where warm slots
alone are kept, nothing is promised."""


@dataclass(frozen=True, slots=True)
class Visit:
    """user comes, and stays connected for `seconds`. Each user has one workspace."""

    at: float
    user: int
    seconds: float
    priority: str = "normal"


@dataclass(frozen=True, slots=True)
class Workload:
    """visits: by time. start_ms: the day's first moment, milliseconds since the epoch. peaks: those that were declared.
    repairs: what was mended while it was read, in words. counted_from: what happens before only fills the pool; visits
    may be at times below 0 for that. until: it goes on for so long, though nobody may come any more."""

    name: str
    visits: Sequence[Visit]
    start_ms: int
    peaks: tuple[Peak, ...] = ()
    repairs: tuple[str, ...] = ()
    counted_from: float = 0.0
    until: float = 0.0

    @property
    def last(self) -> float:
        """When the last one comes."""
        return max((visit.at for visit in self.visits), default=0.0)

    @property
    def days(self) -> int:
        """Of 23 to 25 hours; where it goes on for no given time, until the last one comes."""
        return round(self.until / DAY) or int(self.last // DAY) + 1


@dataclass(frozen=True, slots=True)
class Cloud:
    """What machines come from. boot, start: median seconds until a new machine, and a stopped one, is ready; spread:
    standard deviation of their logarithms. fails, hangs: share of launches that end in an error at once, and that are
    never heard of again. burst, rate: machines that the API grants at once, and a second after that; 0: no limit.
    refusals: (from, to) in which there is no capacity. spot_hours: mean life of a machine that is taken back; 0: none
    is. notice: seconds between being told so and the end. price: of a machine, an hour. price_stopped: of one that is
    stopped."""

    boot: float = 60.0
    start: float = 20.0
    spread: float = 0.15
    fails: float = 0.0
    hangs: float = 0.0
    burst: int = 0
    rate: float = 0.0
    refusals: tuple[tuple[float, float], ...] = ()
    spot_hours: float = 0.0
    notice: float = 120.0
    price: float = 0.0
    price_stopped: float = 0.0


@dataclass(frozen=True, slots=True)
class Sample:
    """One moment. users: hold a slot or wait for one. ready, coming, stopped: machines. want: as decided."""

    at: float
    users: int
    waiting: int
    ready: int
    coming: int
    stopped: int
    want: int


@dataclass(frozen=True, slots=True)
class Account:
    """policy, setting: who decided, and the one figure it was set to (None: it has none). arrivals: visits that needed a
    slot. waits: seconds of those that had to wait for theirs for a second or more; the rest were served warm.
    machine_hours: from launch to end. bound_hours: the same had each moment's users been packed without a gap, with
    every arrival known ahead. hours: hour of the day → (arrivals, how many of them waited). cost: machines times price.
    counts: what else was counted; "billed" is what usage costs by the prices. violations: promises of safety that were
    broken, in words. explained: the scaler's decisions near the moment that was asked about. seconds: that the simulation took. priorities: priority → (arrivals, mean wait, longest wait)."""

    policy: str
    setting: float | None
    workload: str
    seed: int
    visits: int
    arrivals: int
    waits: Sequence[float]
    machine_hours: float
    bound_hours: float
    user_hours: float
    cost: float
    hours: Mapping[int, tuple[int, int]]
    samples: Sequence[Sample]
    counts: Mapping[str, float] = field(default_factory=dict)
    violations: Sequence[str] = ()
    explained: Sequence[Mapping[str, Any]] = ()
    seconds: float = 0.0
    priorities: Mapping[str, tuple[int, float, float]] = field(default_factory=dict)

    @property
    def warm(self) -> float:
        """Share of arrivals that were served warm."""
        return 1.0 - len(self.waits) / self.arrivals if self.arrivals else 1.0

    @property
    def overhead(self) -> float:
        """Machine-hours over the bound's."""
        return self.machine_hours / self.bound_hours if self.bound_hours else 1.0
