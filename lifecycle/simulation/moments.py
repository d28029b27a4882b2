"""Times as files write them: ISO 8601, or seconds or milliseconds since 1970. Pure. Errors: ValueError, in words."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

from lifecycle.simulation.spec import of

ISO, SECONDS, MILLISECONDS = "ISO 8601", "seconds since 1970", "milliseconds since 1970"

EARLIEST, LATEST = 946_684_800.0, 4_102_444_800.0  # 2000 and 2100


def kind_of(value: Any) -> str:
    """How a time is written. Raises ValueError."""
    number = _number(value)
    if number is None:
        if isinstance(value, str) and re.match(r"\d{4}-\d\d-\d\d", value.strip()):
            return ISO
        raise ValueError(
            f"{_said(value)} is no time; write it as 2026-11-23T09:00:00Z, or in seconds or milliseconds since 1970"
        )
    if EARLIEST <= number < LATEST:
        return SECONDS
    if EARLIEST <= number / 1000 < LATEST:
        return MILLISECONDS
    raise ValueError(
        f"{_said(value)} is no time from 2000 to 2100 in seconds or milliseconds since 1970; correct it"
    )


def is_time(value: Any) -> bool:
    try:
        kind_of(value)
    except ValueError:
        return False
    return True


def _number(value: Any) -> float | None:
    """A finite number, written as such or as text."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, str) and not re.fullmatch(r"\s*[+-]?\d+(\.\d*)?(e\d+)?\s*", value, re.I):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _said(value: Any) -> str:
    return f'"{value:.40}"' if isinstance(value, str) else f"{value!r:.40}"


@dataclass
class Clock:
    """Reads the times of one file, one after another. kind: how the first was written; the others have to be as well.
    zone: of times that name none. once: no two rows are of one moment. skipped, twice: how many were read that the
    clock never showed or showed twice."""

    zone: tzinfo
    once: bool = False
    kind: str = ""
    without_zone: int = 0
    skipped: int = 0
    twice: int = 0
    newest_ms: int = 0
    offset: timedelta | None = None

    def read(self, value: Any) -> int:
        """Milliseconds since 1970. Raises ValueError."""
        kind = kind_of(value)
        self.kind = self.kind or kind
        if kind != self.kind:
            raise ValueError(
                f"this time is written as {kind}, those before it as {self.kind}; write all alike"
            )
        if kind == ISO:
            self.newest_ms = self._iso(str(value).strip())
        else:
            number = _number(value) or 0.0
            self.newest_ms = round(number if kind == MILLISECONDS else number * 1000)
        return self.newest_ms

    def _iso(self, text: str) -> int:
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            raise ValueError(
                f'"{text:.40}" is no date and time; write it as 2026-11-23T09:00:00Z'
            ) from None
        if moment.tzinfo is None:
            self.without_zone += 1
            moment = self._local(moment)
        ms = round(moment.timestamp() * 1000)
        if not EARLIEST <= ms / 1000 < LATEST:
            raise ValueError(f'"{text:.40}" is no time from 2000 to 2100; correct it')
        self.offset = moment.utcoffset() if self.offset is None else self.offset
        return ms

    def _local(self, moment: datetime) -> datetime:
        """In the zone. A time that the clock skipped is an hour later; of one that it showed twice, the second is meant
        once time would otherwise run backwards."""
        first, second = moment.replace(tzinfo=self.zone), moment.replace(tzinfo=self.zone, fold=1)
        if first.utcoffset() == second.utcoffset():
            return first
        there = first.astimezone(UTC).astimezone(self.zone)
        if there.replace(tzinfo=None) != moment:
            self.skipped += 1
            return first
        self.twice += 1
        behind = self.newest_ms - first.timestamp() * 1000
        return second if behind > 0 or (self.once and behind == 0) else first

    def repairs(self) -> list[str]:
        """What has to be known of how times were read."""
        said = [f"times were read as {self.kind}"] if self.kind and self.kind != ISO else []
        if self.without_zone:
            said.append(
                of(self.without_zone, "time without a zone was", "times without a zone were")
                + f" read as {self.zone} (zone=… says otherwise)"
            )
        if self.skipped:
            said.append(
                f"{of(self.skipped, 'time lies', 'times lie')} in the hour that the clock of {self.zone} skipped: taken an hour later"
            )
        if self.twice:
            said.append(
                f"{of(self.twice, 'time lies', 'times lie')} in the hour that the clock of {self.zone} showed twice:"
                " taken as the first, and as the second once they ran backwards"
            )
        return said


def midnight_ms(at_ms: int, zone: tzinfo) -> int:
    """When the day of that moment began there."""
    moment = datetime.fromtimestamp(at_ms / 1000, zone)
    return round(moment.replace(hour=0, minute=0, second=0, microsecond=0).timestamp() * 1000)


def shown(at_ms: float, zone: tzinfo) -> str:
    """ "2026-11-23 09:12"."""
    return datetime.fromtimestamp(at_ms / 1000, zone).strftime("%Y-%m-%d %H:%M")


def days_between(times_ms: Sequence[int], zone: tzinfo) -> str:
    """ "2026-11-01 to 2026-11-22"."""
    first, last = (
        datetime.fromtimestamp(ms / 1000, zone).date() for ms in (min(times_ms), max(times_ms))
    )
    return f"{first}" if first == last else f"{first} to {last}"
