"""How many slots have to be free, so that somebody who comes finds one with a promised probability? Pure.

Over a machine's lead time `up` people come and `down` leave, on average. Who comes finds no slot if the net of both has
used up what is free now. Comings are spread `spread` times as wide as a Poisson process (a negative binomial law),
leavings are a Poisson process. Few of them are counted exactly; of many the law is normal, with its skew (Cornish and
Fisher). The exact one matters below some twenty slots: there a normal law is off by a slot in five.
"""

from __future__ import annotations

from bisect import bisect_left
from functools import lru_cache
from math import ceil, exp, inf, lgamma, log, log1p, sqrt
from statistics import NormalDist

EXACT = 12.0  # variance up to which the law is counted out
GRID = 1.04  # means are rounded to 4 % for that: the tables are kept
NORMAL = NormalDist()


def shortfall(free: int, up: float, down: float, spread: float = 1.0) -> float:
    """Probability that who comes at the end of the lead time finds no slot, with `free` slots free now."""
    variance = spread * up + down
    if variance <= EXACT:
        tail = _tail(_step(up), _step(down), _step(spread))
        return tail[free] if 0 <= free < len(tail) else float(free < 0)
    sigma = sqrt(variance)
    z = (free - 0.5 - (up - down)) / sigma
    return NORMAL.cdf(-_without_skew(z, _skew(up, down, spread, sigma)))


def slots_needed(probability: float, up: float, down: float, spread: float = 1.0) -> int:
    """The least number of free slots with a shortfall of at most that probability (above 0, below 1)."""
    variance = spread * up + down
    if variance <= EXACT:
        tail = _tail(_step(up), _step(down), _step(spread))
        return bisect_left(tail, -probability, key=lambda p: -p)
    sigma = sqrt(variance)
    z = -NORMAL.inv_cdf(probability)
    z += _skew(up, down, spread, sigma) * (z * z - 1) / 6
    return max(0, ceil(up - down + 0.5 + z * sigma))


def _skew(up: float, down: float, spread: float, sigma: float) -> float:
    """Of the net: third central moment (m·s·(2s - 1) for a negative binomial law) over sigma cubed."""
    return (up * spread * (2 * spread - 1) - down) / sigma**3


def _without_skew(z: float, skew: float) -> float:
    """The w of which slots_needed makes z = w + skew·(w² - 1)/6, solved for w. (Cornish and Fisher's own z - skew·(z² - 1)/6
    turns back for large z: more free slots would be a larger risk.)"""
    root = 1.0 + skew * skew / 9 + 2 * skew * z / 3
    if root <= 0.0:  # beyond where the law ends: nothing is that small, or that large
        return -inf if skew > 0 else inf
    return (2 * z + skew / 3) / (1.0 + sqrt(root))


def _step(value: float) -> int:
    """The value's place on a grid of GRID; very small ones are all the same."""
    return max(-120, round(log(max(value, 1e-9)) / log(GRID)))


@lru_cache(20_000)
def _tail(up_step: int, down_step: int, spread_step: int) -> tuple[float, ...]:
    """P(net ≥ free) for free = 0, 1, …, until it is nothing."""
    up, down, spread = (GRID**step for step in (up_step, down_step, spread_step))
    come, leave = _negative_binomial(up, max(1.0, spread)), _negative_binomial(down, 1.0)
    at_most = [0.0]  # P(leavings < n)
    for each in leave:
        at_most.append(at_most[-1] + each)
    found = []
    for free in range(len(come)):
        some = (p * at_most[min(n - free + 1, len(leave))] for n, p in enumerate(come[free:], free))
        found.append(min(1.0, sum(some)))
    return tuple(found)


def _negative_binomial(mean: float, spread: float) -> list[float]:
    """P(0), P(1), … of counts with that mean and variance = spread × mean; a Poisson law where spread is 1."""
    size = mean / (spread - 1) if spread > 1.0001 else inf
    most = ceil(mean + 12 + 9 * sqrt(spread * mean) + 6 * (spread - 1))
    if size == inf:
        return [exp(n * log(mean) - mean - lgamma(n + 1)) for n in range(most)]
    q = log(1 - 1 / spread)
    first = size * log1p(-(1 - 1 / spread))
    return [
        exp(lgamma(n + size) - lgamma(size) - lgamma(n + 1) + first + n * q) for n in range(most)
    ]
