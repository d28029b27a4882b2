"""What a workspace is allowed and how long it lives: its own policy, over its plan's, over the defaults. Pure.

PlanError says what is wrong with a plans file or a workspace's own policy, and where.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

KINDS = ("input", "frames", "job", "api")
"""Signals that a policy may count as activity. `boot` always counts."""


class PlanError(ValueError):
    """str(error) names the plan and the field, and what it may be."""


@dataclass(frozen=True, slots=True)
class Policy:
    """How long a workspace lives. Times are seconds.

    idle_timeout: without a signal that counts: stop. signals: which count. max_job_hours: a job counts
    for that long. retention: stopped for that long: snapshot and terminate; keep: never.
    max_lifetime: runs for that long at most, whatever happens in it; 0: without a bound.
    quiet_hours: cron expression whose matching minutes are quiet; there quiet_idle_timeout holds.
    autostart: cron expression of when it is started by itself. time_zone: of both; an IANA name.
    countdown: how long before a stop the person is told. ending_notice: the same before a termination.
    """

    idle_timeout: float = 3600.0
    signals: frozenset[str] = frozenset(KINDS)
    max_job_hours: float = 6.0
    retention: float = 86_400.0
    keep: bool = False
    max_lifetime: float = 0.0
    quiet_hours: str = ""
    quiet_idle_timeout: float = 600.0
    autostart: str = ""
    time_zone: str = "UTC"
    countdown: tuple[float, ...] = (300.0, 60.0)
    ending_notice: tuple[float, ...] = (86_400.0, 3600.0)


@dataclass(frozen=True, slots=True)
class Quota:
    """What one user of a plan may have; 0 is without a bound. running: workspaces that run or wait to.
    hours_a_day, hours_a_month: running time of all of them together, UTC."""

    workspaces: int = 20
    running: int = 0
    sessions: int = 100
    hours_a_day: float = 0.0
    hours_a_month: float = 0.0


@dataclass(frozen=True, slots=True)
class Plan:
    name: str
    policy: Policy = Policy()
    quota: Quota = Quota()
    priority: str = "normal"


@dataclass(frozen=True, slots=True)
class Plans:
    """Every plan by its name. default: for workspaces whose plan is not (or no longer) in the file."""

    default: Plan
    by_name: Mapping[str, Plan] = field(default_factory=dict)

    def of(self, name: str) -> Plan:
        return self.by_name.get(name, self.default)
