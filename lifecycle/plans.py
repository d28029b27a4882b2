"""What a workspace is allowed and how long it lives: its own policy, over its plan's, over the defaults. Pure.

PlanError says what is wrong with a plans file or a workspace's own policy, and where.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from functools import partial
from typing import Any

from lifecycle import schedule
from lifecycle.model import Workspace
from lifecycle.queueing import PRIORITIES, boost_ms

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
    _known: dict[tuple[str, str], Policy] = field(default_factory=dict, compare=False, repr=False)

    def of(self, name: str) -> Plan:
        return self.by_name.get(name, self.default)

    def policy_of(self, workspace: Workspace) -> Policy:
        """Its own policy over its plan's. What it no longer may say for itself, its plan says."""
        policy = self.of(workspace.plan).policy
        if not workspace.own_policy:
            return policy
        key = (workspace.plan, workspace.own_policy)
        if key not in self._known:
            if len(self._known) >= KNOWN_MAX:
                self._known.clear()
            self._known[key] = replace(policy, **own_values(workspace.own_policy))
        return self._known[key]


KNOWN_MAX = 10_000
"""Own policies that are kept as they were read; beyond, all are read anew."""


def plans_of(table: Mapping[str, Any], default: Plan) -> Plans:
    """A plans file: {"plans": {name: {"idle-timeout": …, "quota": {…}}}}. What a plan does not say, the
    file's default plan does, and what that does not, `default`. Raises PlanError."""
    _known_only(table, ("plans",), "the file")
    plans = table.get("plans", {})
    if not isinstance(plans, Mapping) or not all(
        isinstance(one, Mapping) for one in plans.values()
    ):
        raise PlanError("plans must be tables, such as [plans.pro]")
    usual = _plan("default", plans.get("default", {}), default)
    others = {name: _plan(name, said, usual) for name, said in plans.items()}
    return Plans(usual, {**others, "default": usual})


def default_plan(
    values: Mapping[str, Any], quota: Quota = Quota(), priority: str = "normal"
) -> Plan:
    """The plan that settings make: flag's name → value; lists as text with commas. Raises PlanError, by flag."""
    readers = {**_READERS, "signals": parse_signals} | dict.fromkeys(_LISTS, parse_seconds_list)
    found = {FIELDS[k]: _told(f"--{k}", readers[FIELDS[k]], value) for k, value in values.items()}
    return Plan("default", Policy(**found), quota, priority)


def parse_seconds_list(text: str) -> tuple[float, ...]:
    """ "300,60" as (300, 60), longest first; "" as none. Raises ValueError in words."""
    return _moments([_number(one) for one in text.split(",")] if text.strip() else [])


def parse_signals(text: str) -> frozenset[str]:
    """ "input,job" as a set. Raises ValueError in words."""
    return _signals([one.strip() for one in text.split(",")] if text.strip() else [])


def policy_values(said: Mapping[str, Any], where: str) -> dict[str, Any]:
    """{"idle-timeout": 60} as {"idle_timeout": 60.0}. Raises PlanError, which names `where` and the field."""
    _known_only(said, FIELDS, where)
    return {
        FIELDS[name]: _told(f"{where}: {name}", _READERS[FIELDS[name]], value)
        for name, value in said.items()
    }


def own_values(own_policy: str) -> dict[str, Any]:
    """What of a workspace's own policy can still be read, by the policy's fields."""
    return policy_values(said_values(own_policy), "own policy")


def said_values(own_policy: str) -> dict[str, Any]:
    """The same as it was said: spelled as in a plans file."""
    try:
        said = json.loads(own_policy) if own_policy else {}
    except ValueError:
        return {}
    found: dict[str, Any] = {}
    for name, value in said.items() if isinstance(said, dict) else ():
        try:
            policy_values({name: value}, "own policy")
        except PlanError:
            continue
        found[name] = value
    return found


def _plan(name: str, said: Mapping[str, Any], usual: Plan) -> Plan:
    where = f"plans.{name}"
    policy = {k: v for k, v in said.items() if k not in ("quota", "priority")}
    _known_only(policy, (*FIELDS, "quota", "priority"), where)
    quota = said.get("quota", {})
    if not isinstance(quota, Mapping):
        raise PlanError(f"{where}: quota must be a table, such as [{where}.quota]")
    _known_only(quota, QUOTA_FIELDS, f"{where}.quota")
    bounds = {
        QUOTA_FIELDS[k]: _told(f"{where}.quota: {k}", _whole if k in _WHOLE else _positive, v)
        for k, v in quota.items()
    }
    return Plan(
        name,
        replace(usual.policy, **policy_values(policy, where)),
        replace(usual.quota, **bounds),
        _told(f"{where}: priority", _priority, said.get("priority", usual.priority)),
    )


def _known_only(said: Mapping[str, Any], names: Collection[str], where: str) -> None:
    for name in said:
        if name not in names:
            near = get_close_matches(name, names, 1)
            meant = f"did you mean {near[0]}?" if near else f"known are {', '.join(names)}"
            raise PlanError(f"{where}: there is no {str(name)[:60]}; {meant}")


def _told(where: str, read: Callable[[Any], Any], value: Any) -> Any:
    try:
        return read(value)
    except ValueError as error:
        raise PlanError(f"{where} {error}") from None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(
            f"must be seconds, such as 300,60; {text.strip()!r} is no number"
        ) from None


def _positive(value: Any, unit: str = "number") -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"must be a {unit}, not {value!r}")
    if value < 0:
        raise ValueError(f"must be 0 or more, not {value!r}")
    return float(value)


def _above_zero(value: Any) -> float:
    if _positive(value, unit="number of seconds") <= 0:
        raise ValueError("must be above 0 seconds")
    return float(value)


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"must be a whole number, 0 for no bound, not {value!r}")
    return value


def _truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"must be true or false, not {value!r}")
    return value


def _signals(value: Any) -> frozenset[str]:
    if not isinstance(value, list | tuple) or not set(map(str, value)) <= set(KINDS):
        raise ValueError(f"must be some of {', '.join(KINDS)}, not {value!r}")
    return frozenset(value)


def _moments(value: Any) -> tuple[float, ...]:
    if not isinstance(value, list | tuple):
        raise ValueError(f"must be a list of seconds such as [300, 60], not {value!r}")
    return tuple(sorted({_above_zero(one) for one in value}, reverse=True))


def _cron(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"must be a cron expression such as '0 7 * * MON-FRI', not {value!r}")
    if value:
        schedule.check(value, "UTC")
    return value


def _zone(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"must be a time zone such as Europe/Berlin, not {value!r}")
    schedule.check("* * * * *", value)
    return value


def _priority(value: Any) -> str:
    try:
        boost_ms(str(value))
    except ValueError:
        raise ValueError(
            f"must be {', '.join(PRIORITIES)} or a number of seconds, not {value!r}"
        ) from None
    return str(value)


FIELDS = {one.name.replace("_", "-"): one.name for one in fields(Policy)}
"""As a plans file and the flags spell it → the policy's field."""

QUOTA_FIELDS = {one.name.replace("_", "-"): one.name for one in fields(Quota)}

_WHOLE = ("workspaces", "running", "sessions")
_LISTS = ("countdown", "ending_notice")
_seconds = partial(_positive, unit="number of seconds")
_READERS: dict[str, Callable[[Any], Any]] = {
    "idle_timeout": _above_zero,
    "signals": _signals,
    "max_job_hours": partial(_positive, unit="number of hours"),
    "retention": _seconds,
    "keep": _truth,
    "max_lifetime": _seconds,
    "quiet_hours": _cron,
    "quiet_idle_timeout": _above_zero,
    "autostart": _cron,
    "time_zone": _zone,
    "countdown": _moments,
    "ending_notice": _moments,
}
