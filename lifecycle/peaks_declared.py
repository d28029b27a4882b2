"""Peaks as people declare them: what a file may say, when those that repeat come next, and what the pool cannot do for
them. Pure.

Errors: PeaksError (which entry, which field, what is wrong, and what belongs there).

    [[peak]]
    name = "exam"
    at = 2026-12-01T09:00:00+01:00
    users = 3000
    early = 600                     # seconds before, from which on they come
    late = 1800                     # seconds after, until which they come

    [[peak]]
    name = "lecture"
    cron = "0 9 * * MON-FRI"        # instead of at: it repeats
    time-zone = "Europe/Berlin"
    users = 400
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from difflib import get_close_matches
from functools import partial
from typing import Any

from lifecycle import schedule
from lifecycle.activity import span
from lifecycle.peaks import EARLY, LATE, SURE, Peak

NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"
ENTRIES_MAX = 100
USERS_MAX = 10**6
WINDOW_MAX = 86_400.0  # seconds before or after
AHEAD_MAX = 366 * 86_400_000  # ms: beyond is a slip of the pen
NEXT = 3  # times of one that repeats that are looked at: those that are open, then those that come next


class PeaksError(Exception):
    """The file with peaks is none. str(error) says what is wrong, and what belongs there."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One declaration. at_ms: its time; 0 where `cron`, by the clock of `zone`, says when it repeats."""

    name: str
    users: int
    at_ms: int = 0
    cron: str = ""
    zone: str = "UTC"
    early: float = EARLY
    late: float = LATE

    def peaks(self, now_ms: int) -> list[Peak]:
        """Its times that are not over: at most NEXT of them, the first first."""
        found: list[Peak] = []
        after_ms = now_ms - int(self.late * 1000)
        while len(found) < NEXT:
            at_ms = schedule.next_time(self.cron, self.zone, after_ms) if self.cron else self.at_ms
            if at_ms is None or at_ms <= after_ms:
                break
            found.append(Peak(at_ms, self.users, self.name, self.early, self.late))
            after_ms = at_ms
        return found


def entries_of(table: Mapping[str, Any], zone: str = "UTC") -> tuple[Entry, ...]:
    """What a TOML file declares. zone: of those that name none. Raises PeaksError."""
    _only(table, ("peak",), "the file")
    rows = table.get("peak", [])
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise PeaksError("peak: must be entries that are headed [[peak]], in two brackets")
    if len(rows) > ENTRIES_MAX:
        raise PeaksError(f"peak: {len(rows)} entries; {ENTRIES_MAX} are possible")
    found: dict[str, Entry] = {}
    for number, row in enumerate(rows, 1):
        entry = _entry(row, number, zone)
        if entry.name in found:
            raise PeaksError(f"peak {number}: name: {entry.name} is the name of another one too")
        found[entry.name] = entry
    return tuple(found.values())


def _entry(row: Mapping[str, Any], number: int, zone: str) -> Entry:
    where = f"peak {number}"
    name = _read(row, "name", where)
    where = f"peak {name}"
    _only(row, _READERS, where)
    if ("at" in row) == ("cron" in row):
        said = "not both at and cron" if "at" in row else "when it is"
        example = "at = 2026-12-01T09:00:00+01:00 for once, or cron = '0 9 * * MON-FRI'"
        raise PeaksError(f"{where}: at: say {said}: {example}")
    if "at" in row and "time-zone" in row:
        raise PeaksError(f"{where}: time-zone: is for cron; leave it out, at has its own offset")
    return Entry(
        name,
        _read(row, "users", where),
        at_ms=_read(row, "at", where) if "at" in row else 0,
        cron=_read(row, "cron", where) if "cron" in row else "",
        zone=_read(row, "time-zone", where, zone),
        early=_read(row, "early", where, EARLY),
        late=_read(row, "late", where, LATE),
    )


def _read(row: Mapping[str, Any], field: str, where: str, default: Any = None) -> Any:
    if field not in row and default is not None:
        return default
    try:
        return _READERS[field](row.get(field))
    except ValueError as error:
        raise PeaksError(f"{where}: {field}: {error}") from None


def _only(found: Mapping[str, Any], known: Iterable[str], where: str) -> None:
    for name in found:
        if name not in known:
            near = get_close_matches(name, list(known), 1)
            meant = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
            raise PeaksError(f"{where}: {name:.60}: is not known; {meant}")


def _name(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(NAME, value):
        raise ValueError(f"must be letters, digits, _, . and -, at most 64, not {_shown(value)}")
    return value


def _users(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= USERS_MAX:
        raise ValueError(f"must be a whole number from 1 to {USERS_MAX:,}, not {_shown(value)}")
    return value


def _at(value: Any) -> int:
    if not isinstance(value, datetime) or value.tzinfo is None:
        example = "2026-12-01T09:00:00+01:00, without quotes"
        raise ValueError(f"must be a time with its offset, as {example}, not {_shown(value)}")
    return round(value.timestamp() * 1000)


def _cron(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(
            f"must be a cron expression such as '0 9 * * MON-FRI', not {_shown(value)}"
        )
    schedule.check(value, "UTC")
    return value


def _zone(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"must be a time zone such as Europe/Berlin, not {_shown(value)}")
    schedule.check("* * * * *", value)
    return value


def _window(value: Any, least: float) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not least <= value <= WINDOW_MAX:
        raise ValueError(
            f"must be seconds from {least:g} to {WINDOW_MAX:,.0f}, not {_shown(value)}"
        )
    return float(value)


def _shown(value: Any) -> str:
    said = "nothing" if value is None else repr(value) if isinstance(value, str) else str(value)
    return f"{said:.40}"


_READERS: dict[str, Callable[[Any], Any]] = {
    "name": _name,
    "at": _at,
    "cron": _cron,
    "time-zone": _zone,
    "users": _users,
    "early": partial(_window, least=0.0),
    "late": partial(_window, least=1.0),
}


@dataclass(frozen=True, slots=True)
class Reach:
    """What the pool can do. lead_time: seconds until a machine is there. granted, rate: launches that its API grants at
    once, and a second after that (0: no bound)."""

    slots: int
    max_machines: int
    lead_time: float
    granted: float = 0.0
    rate: float = 0.0

    def machines(self, users: int) -> int:
        return -(-users // self.slots)


def doubts(
    peak: Peak, others: Sequence[Peak], reach: Reach, now_ms: int, is_ready: bool = False
) -> str:
    """What the pool cannot do for it, in words; "" if all is well. others: what else is declared. is_ready: it is reckoned
    with, and every machine that is wanted is there."""
    too_soon = "" if is_ready else _too_soon(peak, reach, now_ms)
    return "; ".join(filter(None, (_too_many(peak, others, reach), too_soon)))


def _too_many(peak: Peak, others: Sequence[Peak], reach: Reach) -> str:
    same_time = [
        each
        for each in others
        if each != peak and each.from_ms < peak.until_ms and peak.from_ms < each.until_ms
    ]
    users = peak.users + sum(each.users for each in same_time)
    waiting = users - reach.max_machines * reach.slots
    if waiting <= 0:
        return ""
    beside = f" with {', '.join(each.name for each in same_time)}" if same_time else ""
    return (
        f"{users:,} people{beside} need {reach.machines(users):,} machines of {reach.slots} slots, and"
        f" --max-machines allows {reach.max_machines:,}: at least {waiting:,} of them will wait; raise it"
    )


def _too_soon(peak: Peak, reach: Reach, now_ms: int) -> str:
    machines = min(reach.max_machines, reach.machines(peak.users))
    takes = SURE * reach.lead_time
    if reach.rate > 0:
        takes += max(0.0, machines - reach.granted) / reach.rate
    left = max(0.0, (peak.from_ms - now_ms) / 1000)
    if left >= takes:
        return ""
    when = f"in {span(left)}" if left else "now"
    return (
        f"its people may come {when}, and {machines:,} machines take {span(takes)}:"
        f" who comes in the {span(takes - left)} before they are there may wait"
    )
