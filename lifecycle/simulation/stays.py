"""How long people stay. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random
from statistics import NormalDist

from lifecycle.simulation.spec import DAY, Parameter, number

PARAMETERS = {
    "stay": Parameter("mean seconds of a visit", number(1, DAY), 2460.0),
    "sigma": Parameter("standard deviation of their logarithms", number(0.01, 3), 0.9),
}

_NORMAL = NormalDist()


@dataclass(frozen=True, slots=True)
class Stays:
    """Lognormal, at most `longest`. mean: seconds, before that bound (41 minutes are a class or an evening's task)."""

    mean: float = 2460.0
    sigma: float = 0.9
    longest: float = DAY

    @property
    def mu(self) -> float:
        """Mean of their logarithms."""
        return math.log(self.mean) - self.sigma**2 / 2

    def draw(self, chance: Random) -> float:
        """Seconds, to the millisecond."""
        seconds = math.exp(self.mu + self.sigma * chance.gauss(0.0, 1.0))
        return round(min(self.longest, max(1.0, seconds)), 3)

    def within(self, seconds: float) -> float:
        """E[min(stay, seconds)]: how long of the next `seconds` somebody who comes now is there on average."""
        x = min(seconds, self.longest)
        if x <= 0:
            return 0.0
        z = (math.log(x) - self.mu) / self.sigma
        return self.mean * _NORMAL.cdf(z - self.sigma) + x * (1.0 - _NORMAL.cdf(z))
