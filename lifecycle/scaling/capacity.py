"""What is there: machines by what can be done with them, and how long one takes to be there. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lifecycle.model import STANDBY, Machine, MachineStatus
from lifecycle.scaling.records import Facts, Rule

_M = MachineStatus

COUNTED = frozenset({_M.READY, _M.LAUNCHING})
"""Statuses of machines that are there, or will be."""

LATE = 0.75  # the quantile of recent boots that a machine is expected to take
OVERDUE, FEW = 3.0, 5
"""Lead times after which a launch is not counted on any more, once so many launches were measured."""


@dataclass(slots=True)
class Capacity:
    """awake: machines that count as there; back: stopped ones whose owner comes back, which do as well. alive: all
    that take a place under the bound. draining: ids of those whose drain can be called off. stopped: ids of those on
    standby; parking: those that are emptied to be stopped. asleep: dedicated ones whose owner is away. empty: those that
    nobody is on and nobody owns. boot: seconds that a new one is expected to take."""

    boot: float
    awake: int
    back: int
    alive: int
    draining: list[str]
    stopped: list[str]
    asleep: list[Machine]
    empty: list[Machine]
    parking: int = 0

    @property
    def there(self) -> int:
        return self.awake + self.back

    @property
    def reserve(self) -> int:
        """Machines on standby, or on their way there."""
        return len(self.stopped) + self.parking


def lead_time(seconds: Sequence[float], guess: float) -> float:
    """Seconds that a machine is expected to take, from what recent ones took; the guess before any did."""
    if not seconds:
        return guess
    return sorted(seconds)[min(len(seconds) - 1, int(LATE * len(seconds)))]


def capacity_of(facts: Facts, rule: Rule, now_ms: int) -> Capacity:
    boot, returning = lead_time(facts.boots, rule.boot_guess), facts.returning
    # 0 while too little is known of others.
    overdue_ms = now_ms - OVERDUE * 1000 * boot if len(facts.boots) >= FEW else 0.0
    found = Capacity(boot, facts.busy, 0, facts.busy + len(facts.machines), [], [], [], [])
    for m in facts.machines:
        own = rule.parks and m.slots == 1 and m.holds_files > 0
        sleeps = own and not m.occupied and m.id not in returning
        if sleeps:
            found.asleep.append(m)
        if m.status is _M.READY:
            if not sleeps:
                found.awake += 1
                if not own and not m.occupied and m.empty_since_ms:
                    found.empty.append(m)
        elif m.status is _M.LAUNCHING:
            # An adopted one that is still silent after its time may never answer; nor may one that takes far longer
            # than others do. They do not count.
            if not (sleeps or m.unheard or m.doomed_at_ms or m.status_since_ms < overdue_ms):
                found.awake += 1
        elif m.status is _M.DRAINING:
            if not (m.doomed_at_ms or m.held_by):
                found.draining.append(m.id)
                found.parking += m.reason == STANDBY
        elif m.status is _M.STOPPED:
            if not own:
                found.stopped.append(m.id)
            elif m.id in returning:
                found.back += 1
    return found
