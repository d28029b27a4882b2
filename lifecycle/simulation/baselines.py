"""How others size a pool, each with the one figure that its operator turns. Pure.

They decide how many machines are wanted; which ones come and go is carried out as for ours (the same placement, only empty machines,
the same delay), so that only the rule is compared. Sources: the projects' own code and documents, as of 2026.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from lifecycle.model import MachineStatus
from lifecycle.scaler import scale
from lifecycle.scaling.capacity import COUNTED
from lifecycle.scaling.records import Decision, Facts, Memory, Rule

Want = Callable[[float, int, Facts, Rule], int]
"""(now in seconds, machines there or coming, facts, rule) → machines wanted."""


def deciding(want: Want) -> Callable[[Facts, Rule, Memory, int], tuple[Decision, Memory]]:
    """As the simulator calls it. The wanted machines are put as users who fill them: a rule that lags behind may want fewer
    than the users who are there need, and none of them knows of declared peaks."""

    def decide(facts: Facts, rule: Rule, memory: Memory, now_ms: int) -> tuple[Decision, Memory]:
        there = facts.busy + sum(m.status in COUNTED for m in facts.machines)
        wanted = max(0, want(now_ms / 1000, there, facts, rule))
        plain = replace(rule, warm_slots=0, wait_probability=0.0, standby=0)
        put = replace(facts, users=wanted * rule.slots, peaks=())
        decision, memory = scale(put, plain, memory, now_ms)
        reason = f"{wanted} machines for {facts.users} users by the rule; {decision.have} are there"
        return replace(decision, users=facts.users, reason=reason), memory

    return decide


def ceil(machines: float) -> int:
    """Rounded up; 50 users and 10 % in fives are 11 machines, though 50 * 1.1 / 5 is 11.000000000000002."""
    return math.ceil(machines - 1e-9)


def ceil_rule(extra: float) -> Want:
    """ceil(users · (1 + extra) / slots): the first rule, and that plus some percent."""
    return lambda now, there, facts, rule: ceil(facts.users * (1 + extra) / rule.slots)


def agones(share: float) -> Want:
    """Agones' FleetAutoscaler, buffer policy in percent: allocated / (1 - share), rounded up, looked at every 30 s."""
    return _Held(30.0, lambda facts, rule: ceil(facts.users / (1 - share) / rule.slots))


def fixed(machines: float) -> Want:
    return lambda now, there, facts, rule: int(machines)


class _Held:
    """A rule that is asked again only after some seconds."""

    def __init__(self, seconds: float, want: Callable[[Facts, Rule], int]) -> None:
        self._seconds, self._want = seconds, want
        self._at, self._held = float("-inf"), 0

    def __call__(self, now: float, there: int, facts: Facts, rule: Rule) -> int:
        if now - self._at >= self._seconds:
            self._at, self._held = now, self._want(facts, rule)
        return self._held


class Kpa:
    """Knative's autoscaler: ceil(average concurrency over 60 s / (target · slots)); in panic, once 6 s want twice of what
    is ready, by the window that wants more, and only upwards until 60 s after. (Its bound of a thousand times what is ready
    never matters here.)"""

    STABLE, PANIC = 60.0, 6.0

    def __init__(self, target: float) -> None:
        self._target = target
        self._seen: list[tuple[float, int]] = []
        self._panics_until, self._most = 0.0, 0

    def __call__(self, now: float, there: int, facts: Facts, rule: Rule) -> int:
        self._seen.append((now, facts.users))
        while self._seen[0][0] <= now - self.STABLE:
            self._seen.pop(0)
        stable, panic = self._wants(now - self.STABLE, rule), self._wants(now - self.PANIC, rule)
        ready = facts.busy + sum(m.status is MachineStatus.READY for m in facts.machines)
        if panic >= 2 * max(1, ready):
            self._panics_until = now + self.STABLE
        if now >= self._panics_until:
            self._most = 0
            return stable
        self._most = max(self._most, panic, stable)
        return self._most

    def _wants(self, since: float, rule: Rule) -> int:
        users = [count for at, count in self._seen if at > since]
        return ceil(sum(users) / len(users) / (self._target * rule.slots))


class Hpa:
    """Kubernetes' horizontal autoscaler: every 15 s ceil(there · utilisation / target), nothing within 10 % of the target;
    never below the largest of the last 300 s."""

    SYNC, TOLERANCE, WINDOW = 15.0, 0.1, 300.0

    def __init__(self, target: float) -> None:
        self._target = target
        self._at, self._want = float("-inf"), 0
        self._told: list[tuple[float, int]] = []

    def __call__(self, now: float, there: int, facts: Facts, rule: Rule) -> int:
        if now - self._at < self.SYNC:
            return self._want
        self._at = now
        used = facts.users / (max(1, there) * rule.slots)
        near = abs(used / self._target - 1) <= self.TOLERANCE
        wanted = there if near else ceil(max(1, there) * used / self._target)
        self._told = [(at, n) for at, n in self._told if at > now - self.WINDOW] + [(now, wanted)]
        self._want = max(n for _, n in self._told)
        return self._want
