"""How many were there, from time to time, as arrivals whose expected occupancy follows it. Pure. Errors: WorkloadError.

at,users
2026-11-23T09:00:00Z,412
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from datetime import UTC
from random import Random
from statistics import median
from typing import Any

from lifecycle.simulation import arrivals, stays, stretch, visits
from lifecycle.simulation.generated import bounded
from lifecycle.simulation.moments import Clock, shown
from lifecycle.simulation.recorded import number, place, unused
from lifecycle.simulation.records import Workload
from lifecycle.simulation.rows import Row, Table, table
from lifecycle.simulation.spec import DAY, Parameter, WorkloadError, of
from lifecycle.simulation.spec import number as a_number
from lifecycle.simulation.stays import Stays
from lifecycle.simulation.stretch import Days

COUNTS = ("users", "occupancy", "count")
MOST = 1e6

PEOPLE = {
    "users": Parameter("scale it so that its highest value is this", a_number(1, MOST)),
    "returns": Parameter("share of visits by somebody who was there before", a_number(0, 1), 0.3),
    **stays.PARAMETERS,
}

PARAMETERS: Mapping[str, Parameter] = {**stretch.PARAMETERS, **PEOPLE}

Series = Sequence[tuple[int, float]]
"""(milliseconds since 1970, people), by time."""


def workload(name: str, file: str, text: str, values: Mapping[str, Any], seed: int) -> Workload:
    """The workload of a file's text."""
    rows = table(file, text)
    column = next((name for name in COUNTS if name in rows.columns), COUNTS[0])
    repairs = unused(rows, ("at", column, "capacity"), "at")
    repairs += unused(rows, ("at", column, *rows.columns), column)
    clock = Clock(values["zone"] or UTC, once=True)
    series = [_counted(rows, row, column, clock) for row in rows.rows]
    if len(series) < 2:
        raise WorkloadError(f"{file}:1:1: it needs two rows at least, to know what happens between")
    repairs += clock.repairs() + order(rows, series)
    series.sort()
    days = stretch.chosen(
        [at for at, _ in series], place(clock, values["zone"]), values["day"], values["days"], file
    )
    return followed(name, series, days, values, seed, repairs)


def followed(
    name: str, series: Series, days: Days, values: Mapping[str, Any], seed: int, repairs: list[str]
) -> Workload:
    """The days' part of the series as visits; their stays are drawn."""
    part = [(days.seconds(at), people) for at, people in series if days.has(at)]
    counted = [people for at, people in part if at >= 0]
    if len(counted) < 2 or not (most := max(counted)):
        where = shown(days.start_ms, days.zone)
        raise WorkloadError(f"{name}: nobody is there from {where} on; choose another day")
    factor = (values["users"] or most) / most
    part = [(at, people * factor) for at, people in part]
    said = [*repairs, *_bridged(part, days)]
    if part[0][1] >= 1:
        said.append(f"nobody is there before {shown(days.start_ms + part[0][0] * 1000, days.zone)}:"
                    f" who was, {part[0][1]:,.0f}, comes until the next moment")  # fmt: skip
    stay, chance = Stays(values["stay"], values["sigma"]), Random(seed)
    rates, too_fast = arrivals.following(part, stay)
    if too_fast:
        said.append(f"at {len(too_fast):,} of its moments it falls faster than people leave: nobody comes before them,"
                    " and more are there than it says (a shorter stay= follows closer)")  # fmt: skip
    times = arrivals.drawn(bounded(rates), chance)
    found = visits.of_times(times, lambda _: stay.draw(chance), values["returns"], chance)
    if not found or found[-1].at < 0:
        raise WorkloadError(f"{name}: so few are there that nobody comes; raise users=")
    said += [*stretch.evening(found, days), *stretch.odd(days)]
    return Workload(name, found, days.start_ms, (), tuple(said), until=days.length)


def _counted(rows: Table, row: Row, column: str, clock: Clock) -> tuple[int, float]:
    try:
        at_ms = clock.read(row.values.get("at", ""))
    except ValueError as error:
        raise rows.error(row, "at", str(error)) from None
    people = number(rows, row, column)
    if not 0 <= people <= MOST:
        what = f"{column} must be from 0 to {MOST:,.0f}, not {people:,g}; correct it"
        raise rows.error(row, column, what)
    return at_ms, people


def order(rows: Table, series: Series) -> list[str]:
    """Says what will be sorted. Raises WorkloadError where one moment has two rows."""
    seen: dict[int, int] = {}
    for row, (at, _) in zip(rows.rows, series, strict=True):
        if at in seen:
            raise rows.error(row, "at", f"line {seen[at]} is of the same moment; keep one of them")
        seen[at] = row.line
    wrong = sum(b < a for (a, _), (b, _) in itertools.pairwise(series))
    return (
        [of(wrong, "row was out of order and was sorted", "rows were out of order and were sorted")]
        if wrong
        else []
    )


def _bridged(part: Sequence[tuple[float, float]], days: Days) -> list[str]:
    """Says which steps are much longer than most; people come evenly in them."""
    steps = [(b - a, a) for (a, _), (b, _) in itertools.pairwise(part)]
    usual = median(step for step, _ in steps)
    return [
        f"a gap of {step / 3600:.1f} h from {shown(days.start_ms + at * 1000, days.zone)}:"
        " people are taken to come evenly in it"
        for step, at in steps
        if step > 3 * usual and step >= 3600
    ][: int(DAY // 3600)]
