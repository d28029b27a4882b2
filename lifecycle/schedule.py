"""Cron expressions in a time zone: is this minute one of theirs, when is the next, when does that change? Pure.

Quiet minutes are those of the clock on the wall: where the clock is put back, an hour is quiet twice, and where
it is put forward, the minutes that are left out are never quiet. A start at a time that is left out
happens when the clock has been put forward, and one in an hour that comes twice happens once, as in Debian's cron.
Expressions: minute, hour, day of the month, month, day of the week; ranges, lists, steps, names, L and #.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

AHEAD_DAYS = 8
"""How far next_change looks: a week, and the day on which the clock is changed."""

_MINUTE_MS = 60_000
_ANY_MOMENT = datetime(2000, 1, 1)


def check(expression: str, zone: str) -> None:
    """Raise ValueError, in words for the person who wrote it, unless both can be used."""
    _zone(zone)
    _fields(expression)


def matches(expression: str, zone: str, at_ms: int) -> bool:
    """Whether the minute of at_ms is one of the expression's."""
    return _is_in(_fields(expression), _local(at_ms, _zone(zone)))


def next_time(expression: str, zone: str, after_ms: int) -> int | None:
    """The first moment after after_ms; None when the expression names none, as 30 February."""
    _fields(expression)
    # In the second of two like hours the first answers are those of the first of them.
    for moment in CronSim(expression, _local(after_ms, _zone(zone))):
        at_ms = round(moment.timestamp() * 1000)
        if at_ms > after_ms:
            return at_ms
    return None


def next_change(expression: str, zone: str, at_ms: int) -> int | None:
    """When minutes of the expression begin next, or end if at_ms is one; None: not within AHEAD_DAYS."""
    fields, clock = _fields(expression), _zone(zone)
    moment = at_ms - at_ms % _MINUTE_MS
    inside = _is_in(fields, _local(moment, clock))
    end = moment + AHEAD_DAYS * 86_400_000
    while moment < end:
        moment += _stride(fields, _local(moment, clock)) * _MINUTE_MS
        if _is_in(fields, _local(moment, clock)) != inside:
            return moment
    return None


def _stride(fields: CronSim, local: datetime) -> int:
    """Minutes that are all alike from local on: the rest of the hour, where its minutes do not matter."""
    whole_hour = len(fields.minutes) == 60 or not _hour_is_in(fields, local)
    # A clock is put back or forward at a full quarter of an hour, and not always at a full hour.
    return 15 - local.minute % 15 if whole_hour else 1


def _is_in(fields: CronSim, local: datetime) -> bool:
    return local.minute in fields.minutes and _hour_is_in(fields, local)


def _hour_is_in(fields: CronSim, local: datetime) -> bool:
    return (
        local.hour in fields.hours
        and local.month in fields.months
        and fields.match_day(local.date())
    )


def _local(at_ms: int, zone: ZoneInfo) -> datetime:
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=at_ms // 1000)
    return moment.astimezone(zone)


@lru_cache(maxsize=1024)
def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, LookupError):
        raise ValueError(
            f"{name!r} is no time zone: give an IANA name such as Europe/Berlin or UTC"
        ) from None


@lru_cache(maxsize=1024)
def _fields(expression: str) -> CronSim:
    try:
        if len(expression.split()) != 5:
            raise CronSimError("there are not five of them")
        return CronSim(expression, _ANY_MOMENT)
    except CronSimError as error:
        raise ValueError(
            f"{expression!r} is no cron expression ({error}): give minute, hour, day of the month,"
            " month and day of the week, such as '0 7 * * MON-FRI'"
        ) from None
