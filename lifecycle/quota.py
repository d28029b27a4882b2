"""What a user has of their quotas, when it frees, whom to tell, and when to look again. Pure.

Hours count by day and month, UTC, of all of a user's workspaces together: two that run side by side count both.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from lifecycle.plans import Quota

WORKSPACES, RUNNING, SESSIONS = "workspaces", "running", "sessions"
HOURS_A_DAY, HOURS_A_MONTH = "hours_a_day", "hours_a_month"
FOR_GOOD = frozenset({WORKSPACES, RUNNING})
"""Quotas that time does not free: something has to be deleted, or stopped."""
HOURLY = frozenset({HOURS_A_DAY, HOURS_A_MONTH})

THRESHOLDS = (75, 90, 100)  # percent of hours at which a person is told
HOUR_MS = 3_600_000


@dataclass(frozen=True, slots=True)
class Taken:
    """What a user has taken. running: workspaces that run or wait to. counting: those whose time counts on;
    it is in day_ms and month_ms up to now. periods: names of the day and the month. told: quota → the
    period and threshold that was told last, as Alert.mark."""

    now_ms: int
    workspaces: int = 0
    running: int = 0
    sessions: int = 0
    counting: int = 0
    day_ms: int = 0
    month_ms: int = 0
    day_ends_ms: int = 0
    month_ends_ms: int = 0
    periods: tuple[str, str] = ("", "")
    told: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Standing:
    """One quota. allowed: 0 is without a bound. frees_at_ms: when what is used counts no more; None: not by
    waiting."""

    quota: str
    used: float
    allowed: float
    frees_at_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Alert:
    """A person has used that many percent of their hours."""

    standing: Standing
    threshold: int
    mark: str
    """Names period and threshold: who was told of that mark is not told again."""


@dataclass(frozen=True, slots=True)
class _Hours:
    quota: str
    used_ms: int
    allowed_ms: int
    ends_ms: int
    period: str


def standings(quota: Quota, taken: Taken) -> list[Standing]:
    """Every quota, bounded or not."""
    return [
        Standing(WORKSPACES, taken.workspaces, quota.workspaces),
        Standing(RUNNING, taken.running, quota.running),
        Standing(SESSIONS, taken.sessions, quota.sessions),
        *(_standing(each) for each in _hours(quota, taken)),
    ]


def alerts(quota: Quota, taken: Taken) -> list[Alert]:
    """What to tell: of each quota of hours the highest threshold that was reached in this period, unless it
    was told."""
    found = []
    for each in _hours(quota, taken):
        reached = [t for t in THRESHOLDS if each.allowed_ms and each.used_ms >= _at(each, t)]
        period, _, last = taken.told.get(each.quota, "").partition(" ")
        known = int(last) if period == each.period and last else 0
        if reached and reached[-1] > known:
            mark = f"{each.period} {reached[-1]}"
            found.append(Alert(_standing(each), reached[-1], mark))
    return found


def used_up(quota: Quota, taken: Taken) -> bool:
    """Whether there are no hours left, of the day or of the month."""
    return any(h.allowed_ms and h.used_ms >= h.allowed_ms for h in _hours(quota, taken))


def next_look_ms(quota: Quota, taken: Taken) -> int | None:
    """When the next threshold is reached at the rate of what runs now, or a period with a bound ends; None:
    nothing changes by itself. A start is looked at when it happens."""
    times = []
    for each in _hours(quota, taken):
        if not each.allowed_ms or not taken.counting:
            continue
        left = [_at(each, t) - each.used_ms for t in THRESHOLDS if _at(each, t) > each.used_ms]
        crosses = taken.now_ms + math.ceil(min(left) / taken.counting) if left else each.ends_ms
        times.append(min(crosses, each.ends_ms))
    return min(times, default=None)


def words(
    limit: str, used: float, allowed: float, frees_at_ms: int | None = None, wait: float = 0
) -> str:
    """A refusal for a person: which bound, how much of it is used, what to do. wait: seconds until it frees."""
    used_text, allowed_text = f"{used:g}", f"{allowed:g}"
    match limit:
        case "workspaces":
            said = f"There are {used_text} of {allowed_text} workspaces that this plan allows"
            return f"{said}; delete and purge one, or ask the operator for more."
        case "running":
            said = f"{used_text} of {allowed_text} workspaces run or wait to, as this plan allows"
            return f"{said} at once; stop one first."
        case "hours_a_day" | "hours_a_month":
            period = "today" if limit == HOURS_A_DAY else "this month"
            said = f"{used_text} of {allowed_text} running hours of this plan are used {period}"
            return f"{said}; they are free again {_moment(frees_at_ms, wait)}."
        case "start_rate":
            said = f"{used_text} of {allowed_text} starts were asked for within a minute"
            return f"{said}; try again in {math.ceil(wait)} s."
        case "max_queue":
            said = (
                f"{used_text} workspaces are waiting to start, and no more than {allowed_text} may"
            )
            return f"{said}. Nothing was lost: try again in half a minute."
        case _:
            return f"{limit}: {used_text} of {allowed_text} are used; try again later."


def alert_words(alert: Alert) -> str:
    """An alert for a person."""
    it = alert.standing
    period = "today's" if it.quota == HOURS_A_DAY else "this month's"
    said = f"{it.used:g} of {period} {it.allowed:g} running hours are used"
    frees = f"They are free again {_moment(it.frees_at_ms)}."
    if alert.threshold < 100:
        return f"{said} ({alert.threshold} %). {frees}"
    return f"{said}: what runs is stopped in a few minutes, files are kept. {frees}"


def _hours(quota: Quota, taken: Taken) -> tuple[_Hours, _Hours]:
    day, month = taken.periods
    return (
        _Hours(HOURS_A_DAY, taken.day_ms, _ms(quota.hours_a_day), taken.day_ends_ms, day),
        _Hours(HOURS_A_MONTH, taken.month_ms, _ms(quota.hours_a_month), taken.month_ends_ms, month),
    )


def _ms(hours: float) -> int:
    return int(hours * HOUR_MS)


def hours(milliseconds: float) -> float:
    """As they are shown: never more than were used."""
    return math.floor(milliseconds / HOUR_MS * 100) / 100


def _at(each: _Hours, threshold: int) -> int:
    return -(-each.allowed_ms * threshold // 100)


def _standing(each: _Hours) -> Standing:
    return Standing(each.quota, hours(each.used_ms), each.allowed_ms / HOUR_MS, each.ends_ms)


def _moment(at_ms: int | None, wait: float = 0) -> str:
    """ "at 00:00 UTC on 1 December (in 5 h)"."""
    at = datetime.fromtimestamp((at_ms or 0) / 1000, UTC)
    span = f" (in {_span(wait)})" if wait else ""
    return f"at {at:%H:%M} UTC on {at.day} {at:%B}{span}"


def _span(seconds: float) -> str:
    for size, name in ((172_800, "days"), (7200, "h"), (120, "min")):
        if seconds >= size:
            return f"{round(seconds / (size / 2))} {name}"  # two of a unit are its least
    return f"{math.ceil(seconds)} s"
