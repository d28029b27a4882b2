"""One policy at one figure over several seeds. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from statistics import fmean, stdev

from lifecycle.simulation.records import Account

PERCENTS = (50, 95, 99)

# Student's t: 97.5 % of means lie below, by degrees of freedom from 1.
_T = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
    2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
    2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
_Z = 1.96


@dataclass(frozen=True, slots=True)
class Mean:
    """value, and how far the true one may be from it either way with a probability of 95 %; None: of one seed."""

    value: float
    margin: float | None = None


def mean(values: Sequence[float]) -> Mean:
    """Of independent values, by Student's t."""
    if len(values) < 2:
        return Mean(fmean(values))
    freedom = len(values) - 1
    t = _T[freedom - 1] if freedom <= len(_T) else _Z + 2.4 / freedom
    return Mean(fmean(values), t * stdev(values) / math.sqrt(len(values)))


def least_share(count: float, among: float) -> float:
    """The lowest share that `count` of `among` may stand for, at 95 % (Wilson's interval)."""
    if not among:
        return 0.0
    share, z = count / among, _Z
    middle = share + z * z / (2 * among)
    margin = z * math.sqrt(share * (1 - share) / among + z * z / (4 * among * among))
    return max(0.0, (middle - margin) / (1 + z * z / among))


def percentile(ordered: Sequence[float], percent: float, zeros: int = 0) -> float:
    """Nearest rank among ordered values, with so many zeros before them; 0 of none."""
    place = math.ceil((zeros + len(ordered)) * percent / 100) - 1 - zeros
    return ordered[place] if ordered and place >= 0 else 0.0


@dataclass(frozen=True)
class Summary:
    """accounts: one of each seed, at least one. repeats: how many of them have the same visits: 1, or all."""

    accounts: Sequence[Account]
    repeats: int = 1

    @property
    def policy(self) -> str:
        return self.accounts[0].policy

    @property
    def figure(self) -> float | None:
        return self.accounts[0].setting

    @property
    def label(self) -> str:
        """ "promise 0.01" """
        return self.policy if self.figure is None else f"{self.policy} {self.figure:g}"

    @cached_property
    def warm(self) -> Mean:
        return mean([account.warm for account in self.accounts])

    @cached_property
    def machine_hours(self) -> Mean:
        return mean([account.machine_hours for account in self.accounts])

    @cached_property
    def overhead(self) -> Mean:
        return mean([account.overhead for account in self.accounts])

    @cached_property
    def bound_hours(self) -> float:
        return fmean(account.bound_hours for account in self.accounts)

    @cached_property
    def cost(self) -> Mean:
        return mean([account.cost for account in self.accounts])

    @cached_property
    def arrivals(self) -> int:
        """Of all seeds."""
        return sum(account.arrivals for account in self.accounts)

    @cached_property
    def waits(self) -> list[float]:
        """Of all seeds, shortest first."""
        return sorted(wait for account in self.accounts for wait in account.waits)

    def waited(self, percent: float) -> float:
        """Percentile of those who had to wait."""
        return percentile(self.waits, percent)

    def everybody(self, percent: float) -> float:
        """Percentile of all arrivals; most of them did not wait."""
        return percentile(self.waits, percent, self.arrivals - len(self.waits))

    @cached_property
    def hours(self) -> Mapping[int, tuple[int, int]]:
        """Hour of the day → (arrivals, how many of them waited), of all seeds."""
        names = sorted({hour for account in self.accounts for hour in account.hours})
        return {hour: self._hour(hour) for hour in names}

    def _hour(self, hour: int) -> tuple[int, int]:
        found = [account.hours.get(hour, (0, 0)) for account in self.accounts]
        return sum(arrivals for arrivals, _ in found), sum(waited for _, waited in found)

    def certain(self, waited: int, came: int) -> float:
        """The lowest share of those who wait that chance leaves open. People who come again with every seed are no
        further witnesses: they count once."""
        return least_share(waited / self.repeats, came / self.repeats)

    def beyond(self, promise: float) -> list[int]:
        """Hours in which more had to wait than was promised, and not by chance."""
        return [
            h for h, (came, waited) in self.hours.items() if self.certain(waited, came) > promise
        ]

    @cached_property
    def counts(self) -> Mapping[str, float]:
        """Means over seeds."""
        names = sorted({name for account in self.accounts for name in account.counts})
        return {name: fmean(a.counts.get(name, 0) for a in self.accounts) for name in names}

    @property
    def violations(self) -> list[str]:
        return [f"seed {a.seed}: {what}" for a in self.accounts for what in a.violations]


def summaries(accounts: Iterable[Account], same_visits: bool = False) -> list[Summary]:
    """By policy and figure, in the order in which accounts come. same_visits: whatever the seed."""
    order: dict[tuple[str, float | None], int] = {}
    rows = list(accounts)
    for account in rows:
        order.setdefault((account.policy, account.setting), len(order))
    rows.sort(key=lambda a: (order[a.policy, a.setting], a.seed))
    groups = [list(group) for _, group in groupby(rows, lambda a: (a.policy, a.setting))]
    return [Summary(group, len(group) if same_visits else 1) for group in groups]
