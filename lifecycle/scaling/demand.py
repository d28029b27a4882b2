"""How many people come and leave, and how surely that is known. Pure: counts and the time in, a forecast out.

Rates are moving averages over three windows. How far forecasts were off is measured: each is held against what came
of it a lead time later, so a demand that comes in waves widens the next forecast by itself.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import exp, sqrt

FAST, SLOW, LONG = 6.0, 120.0, 900.0
"""Seconds that the moving averages of arrivals remember: to notice a rush, to know the rate, to know its trend."""

BEGUN = 60.0  # seconds that an average remembers at least, however short there has been anything to remember
FEW = 0.1  # a second: a rate below that is taken for it in the search for a rush; three at once are one, two are not
LEAVING = 300.0  # seconds that the average of departures remembers
SURPRISE = 4.0  # a rate so many standard deviations above the slow one is a rush
PANIC = 60.0  # seconds that a rush is believed to go on after its last sign
LEARNING = 1800.0  # seconds that errors of forecasts are remembered
SPREAD_MIN, SPREAD_MAX = 1.0, 6.0
OUTLIER = 25.0  # the square of an error in standard deviations, at most: one rush says little of usual days
FORETOLD = 10  # forecasts kept, over one lead time


@dataclass(frozen=True, slots=True)
class Foretold:
    """at: when it can be told; users, variance: as they were expected to be then. gap: seconds to the one before."""

    at: float
    users: float
    variance: float
    gap: float


@dataclass(frozen=True, slots=True)
class Demand:
    """What is remembered between two ticks. Times in seconds, rates in people a second. arrivals: all that came since
    `since`. spread: variance of what comes over that of a Poisson process."""

    since: float
    at: float
    fast: float = 0.0
    slow: float = 0.0
    long: float = 0.0
    leaving: float = 0.0
    spread: float = 1.0
    panic_until: float = 0.0
    arrivals: int = 0
    foretold: tuple[Foretold, ...] = ()

    @property
    def rate(self) -> float:
        """Arrivals a second: while there is a rush, the fast average."""
        return max(self.fast, self.slow) if self.panics else self.slow

    @property
    def panics(self) -> bool:
        return self.at < self.panic_until

    @property
    def trend(self) -> float:
        """By how much the rate grows in a second; 0 while it falls, for a fall is never counted on."""
        growth = (self.slow - self.long) / (LONG - SLOW)
        if self.panics:
            growth = max(growth, (self.fast - self.slow) / (SLOW - FAST))
        return max(0.0, growth)


@dataclass(frozen=True, slots=True)
class Forecast:
    """Over a lead time: how many come and leave, on average; spread: of the coming."""

    up: float
    down: float
    spread: float


def begin(now: float) -> Demand:
    return Demand(since=now, at=now)


def observe(demand: Demand, now: float, users: int, arrivals: int, departures: int) -> Demand:
    """After a tick in which so many came and left, and which ended with so many users."""
    seconds = now - demand.at
    if seconds <= 0:
        return demand
    age = now - demand.since
    came, left = arrivals / seconds, departures / seconds
    fast = _average(demand.fast, came, seconds, FAST)
    slow = _average(demand.slow, came, seconds, min(SLOW, max(age, BEGUN)))
    long = _average(demand.long, came, seconds, min(LONG, max(age, BEGUN)))
    noise = SURPRISE * sqrt(demand.spread * max(slow, FEW) / (2 * FAST))
    spread, foretold = _learn(demand, now, users)
    return replace(
        demand,
        at=now,
        fast=fast,
        slow=slow,
        long=long,
        leaving=_average(demand.leaving, left, seconds, min(LEAVING, max(age, BEGUN))),
        spread=spread,
        foretold=foretold,
        panic_until=now + PANIC if fast > slow + noise else demand.panic_until,
        arrivals=demand.arrivals + arrivals,
    )


def forecast(demand: Demand, lead_time: float) -> Forecast:
    """What comes within that time."""
    up = demand.rate * lead_time + demand.trend * lead_time**2 / 2
    return Forecast(up, demand.leaving * lead_time, demand.spread)


def foretell(demand: Demand, users: int, lead_time: float) -> Demand:
    """Remember what is expected now, to be held against what comes."""
    at, gap = demand.at + lead_time, lead_time / FORETOLD
    # Lead times were longer while the pool's API was short of launches: what was foretold for then says little now.
    near = tuple(each for each in demand.foretold if each.at <= at + gap)
    demand = replace(demand, foretold=near)
    if near and at - near[-1].at < gap:
        return demand
    told = forecast(demand, lead_time)
    expected = Foretold(at, users + told.up - told.down, told.up + told.down, gap)
    return replace(demand, foretold=(*near[-FORETOLD:], expected))


def _average(before: float, value: float, seconds: float, window: float) -> float:
    return before + (value - before) * (1.0 - exp(-seconds / window))


def _learn(demand: Demand, now: float, users: int) -> tuple[float, tuple[Foretold, ...]]:
    due = [each for each in demand.foretold if each.at <= now]
    if not due:
        return demand.spread, demand.foretold
    spread = demand.spread
    for each in due:
        if each.variance >= 0.5:  # of less nothing can be learnt
            error = min(OUTLIER, (users - each.users) ** 2 / each.variance)
            spread += (error - spread) * min(1.0, each.gap / LEARNING)
    spread = min(SPREAD_MAX, max(SPREAD_MIN, spread))
    return spread, tuple(each for each in demand.foretold if each.at > now)
