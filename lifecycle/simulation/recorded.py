"""Visits that somebody has recorded, as rows. Pure. Errors: WorkloadError, as FILE:LINE:COLUMN: what; what to do.

    at,seconds,user,priority
    2026-11-23T09:00:12Z,1800,ada,normal

| column     | holds                                                                                    |
|------------|------------------------------------------------------------------------------------------|
| `at`       | when they came: ISO 8601, or seconds or milliseconds since 1970                          |
| `seconds`  | how long they stayed; or `until`, written as `at` is; without either, stays are drawn    |
| `user`     | who; without it everybody comes once                                                     |
| `priority` | `vip`, `normal` or `batch`, or seconds                                                   |
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, timezone, tzinfo
from difflib import get_close_matches
from random import Random
from typing import Any

from lifecycle.queueing import boost_ms
from lifecycle.simulation import stays, stretch
from lifecycle.simulation.moments import Clock, is_time
from lifecycle.simulation.records import Visit, Workload
from lifecycle.simulation.rows import Row, Table, table
from lifecycle.simulation.spec import Parameter, WorkloadError, of
from lifecycle.simulation.stays import Stays

COLUMNS = ("at", "seconds", "until", "user", "priority")
LONGEST = 7 * 86_400.0

PARAMETERS: Mapping[str, Parameter] = {
    **stretch.PARAMETERS,
    **stretch.TIMES,
    **stays.PARAMETERS,
}


@dataclass(frozen=True, slots=True)
class Came:
    """One row. seconds: None where the file does not say."""

    at_ms: int
    seconds: float | None
    user: str
    priority: str


def workload(name: str, file: str, text: str, values: Mapping[str, Any], seed: int) -> Workload:
    """The workload of a file's text. seed: of stays that it does not say, and of who comes besides."""
    rows = table(file, text, "at", is_time)
    _no_events(rows)
    repairs = unused(rows, COLUMNS, "at")
    clock = Clock(values["zone"] or UTC)
    came = [_came(rows, row, clock) for row in rows.rows]
    if not came:
        raise WorkloadError(f"{file}:1:1: there are no rows in it; each visit needs one")
    repairs += clock.repairs() + _order(came)
    days = stretch.chosen(
        [c.at_ms for c in came], place(clock, values["zone"]), values["day"], values["days"], file
    )
    kept = sorted((c for c in came if days.has(c.at_ms, c.seconds or 0)), key=lambda c: c.at_ms)
    repairs += _stays(kept)
    stay, chance = Stays(values["stay"], values["sigma"]), Random(seed)
    numbers: dict[str, int] = {}
    visits = [
        Visit(
            days.seconds(c.at_ms),
            numbers.setdefault(c.user or f"\0{number}", len(numbers)),
            stay.draw(chance) if c.seconds is None else max(1.0, c.seconds),
            c.priority,
        )
        for number, c in enumerate(kept)
    ]
    return stretch.workload(name, visits, days, repairs, values["times"], seed)


def _no_events(rows: Table) -> None:
    """Each of them would be read as a visit. Raises WorkloadError."""
    for row in rows.rows:
        if {"type", "workspaceId"} <= row.values.keys():
            raise rows.error(
                row,
                "type",
                "it is an event of GET /api/events, and no visit; is it an events: file?"
                " write events: in place of recorded:",
            )


def unused(rows: Table, known: tuple[str, ...], needed: str) -> list[str]:
    """Says which columns are not used. Raises WorkloadError if one is probably a known one misspelt, or one is missing."""
    others = [name for name in rows.columns if name not in known]
    first = rows.rows[0] if rows.rows else None
    line = 1 if first is None or first.delimiter else first.line
    for name in others:
        near = get_close_matches(name, set(known) - set(rows.columns), 1, 0.75)
        if near:
            raise WorkloadError(
                f"{rows.file}:{line}:1: column {name:.40}: did you mean {near[0]}? rename it, or remove it"
            )
    if needed not in rows.columns:
        raise WorkloadError(
            f"{rows.file}:{line}:1: there is no column {needed}; known ones are {', '.join(known)};"
            " name it so, or add it"
        )
    return [f"columns that are not used: {', '.join(f'{n:.40}' for n in others)}"] if others else []


def place(clock: Clock, wanted: tzinfo | None) -> tzinfo:
    """Where days begin: as was asked for, else as the first time's own offset says."""
    if wanted or clock.without_zone or clock.offset is None:
        return wanted or UTC
    return timezone(clock.offset)


def _came(rows: Table, row: Row, clock: Clock) -> Came:
    try:
        at_ms = clock.read(row.values.get("at", ""))
    except ValueError as error:
        raise rows.error(row, "at", str(error)) from None
    user = row.values.get("user")
    if user is not None and (isinstance(user, bool) or not isinstance(user, str | int)):
        raise rows.error(row, "user", f"a user must be text or a number, not {user!r:.40}")
    return Came(at_ms, _seconds(rows, row, at_ms, clock), str(user or ""), _priority(rows, row))


def _seconds(rows: Table, row: Row, at_ms: int, clock: Clock) -> float | None:
    said = row.values.get("seconds", "")
    if said not in ("", None):
        return _checked(rows, row, "seconds", number(rows, row, "seconds"))
    if (until := row.values.get("until", "")) not in ("", None):
        try:
            ends_ms = clock.read(until)
        except ValueError as error:
            raise rows.error(row, "until", str(error)) from None
        clock.newest_ms = (
            at_ms  # the next row is held against when this one came, not when they left
        )
        return _checked(rows, row, "until", (ends_ms - at_ms) / 1000)
    if {"seconds", "until"} & set(rows.columns):
        raise rows.error(
            row, "seconds", "it says neither seconds nor until; give one, or take the row out"
        )
    return None


def _checked(rows: Table, row: Row, name: str, seconds: float) -> float:
    if seconds < 0:
        raise rows.error(row, name, f"a stay of {seconds:,.3f} s ends before it begins; correct it")
    if seconds > LONGEST:
        raise rows.error(
            row, name,
            f"a stay of {seconds / 86400:,.0f} days is longer than {LONGEST / 86400:.0f}; correct it"
            " (is it in milliseconds? seconds are meant)",
        )  # fmt: skip
    return round(seconds, 3)


def number(rows: Table, row: Row, name: str) -> float:
    """A finite number, also one that is written as text. Raises WorkloadError."""
    value = row.values.get(name)
    try:
        found = math.nan if isinstance(value, bool | None) else float(value)
    except (TypeError, ValueError, OverflowError):
        found = math.nan
    if not math.isfinite(found):
        raise rows.error(row, name, f"{name} must be a number, not {value!r:.40}; correct it")
    return found


def _priority(rows: Table, row: Row) -> str:
    value = row.values.get("priority")
    if value in ("", None):
        return "normal"
    try:
        boost_ms(str(value))
    except (ValueError, OverflowError):
        what = f"priority must be vip, normal, batch or seconds, not {value!r:.40}; correct it"
        raise rows.error(row, "priority", what) from None
    return str(value)


def _order(came: list[Came]) -> list[str]:
    wrong = sum(b.at_ms < a.at_ms for a, b in itertools.pairwise(came))
    return (
        [of(wrong, "row was out of order and was sorted", "rows were out of order and were sorted")]
        if wrong
        else []
    )


def _stays(came: list[Came]) -> list[str]:
    said = []
    if came and came[0].seconds is None:
        said.append("it does not say how long people stayed: stays are drawn (stay=, sigma=)")
    short = sum(c.seconds is not None and c.seconds < 1 for c in came)
    if short:
        said.append(
            of(
                short,
                "stay of less than a second was taken",
                "stays of less than a second were taken",
            )
            + " as one second"
        )
    return said
