"""What a person reads of simulations. Pure: lines of text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from lifecycle.simulation.records import OURS, Visit, Workload
from lifecycle.simulation.spec import of
from lifecycle.simulation.summary import PERCENTS, Mean, Summary

_NUMBER = re.compile(r"[\d,.]+")


def heading(workload: Workload, seeds: int) -> list[str]:
    """Of which visits, and what was mended."""
    visits = counted_visits(workload)
    users = of(len({visit.user for visit in visits}), "user", "users")
    before = len(workload.visits) - len(visits)
    lines = [
        f"{workload.name}: {of(len(visits), 'visit', 'visits')} of {users} in {of(workload.days, 'day', 'days')},"
        f" {of(seeds, 'seed', 'seeds')}"
        + (f"; {before:,} before it, not counted" if before else "")
    ]
    for peak in workload.peaks:
        seconds = (peak.at_ms - workload.start_ms) / 1000
        lines.append(f"  declared: {peak.users:,} around {clock(seconds)} {peak.name}".rstrip())
    return lines + [f"  note: {repair}" for repair in workload.repairs]


def counted_visits(workload: Workload) -> list[Visit]:
    """Those that are not of the evening before."""
    return [visit for visit in workload.visits if visit.at >= workload.counted_from]


def main_table(rows: Sequence[Summary], means: Mapping[str, str]) -> list[str]:
    """Policies against figures; what each policy's figure means stands below."""
    priced = any(row.cost.value for row in rows)
    head = (
        "POLICY", "FIGURE", "WARM", *(f"WAITED p{p}" for p in PERCENTS), "ALL p95", "ALL p99",
        "MACHINE-HOURS", "OVER BOUND", *(["COST"] if priced else []),
    )  # fmt: skip
    cells = [_cells(row, priced) for row in rows]
    bound = f"{max(row.bound_hours for row in rows):,.1f}"
    clairvoyant = ("(bound)", "", "", "", "", "", "", "", bound, "1.000", *([""] if priced else []))
    lines = aligned([head, *cells, clairvoyant])
    named = dict.fromkeys(row.policy for row in rows if row.figure is not None)
    notes = [f"  {name}: its figure is {means[name]}" for name in named if means.get(name)]
    return [
        *lines,
        "",
        *notes,
        "  warm: served within a second. waited: those who were not. all: everybody. ±: 95 %, over seeds.",
        "  bound: whoever holds a slot, packed without a gap; who waits is in none.",
    ]


def _cells(row: Summary, priced: bool) -> tuple[str, ...]:
    return (
        row.policy,
        "" if row.figure is None else f"{row.figure:g}",
        percent(row.warm),
        *(_wait(row.waited(p)) for p in PERCENTS),
        _wait(row.everybody(95)),
        _wait(row.everybody(99)),
        _plus_minus(row.machine_hours, 1),
        _plus_minus(row.overhead, 3),
        *([_plus_minus(row.cost, 2)] if priced else []),
    )


def percent(share: Mean) -> str:
    """ "99.12 % ± 0.10" """
    return f"{share.value * 100:.2f} %" + (
        "" if share.margin is None else f" ± {share.margin * 100:.2f}"
    )


def _plus_minus(of: Mean, digits: int) -> str:
    return f"{of.value:,.{digits}f}" + ("" if of.margin is None else f" ± {of.margin:,.{digits}f}")


def _wait(seconds: float) -> str:
    return f"{seconds:,.0f} s" if seconds else "0"


def hours_table(rows: Sequence[Summary]) -> list[str]:
    """Who waited, by the hour of the day, against what was promised: is the promise kept at four in the morning too?"""
    hours = sorted({hour for row in rows for hour in row.hours})
    if not hours:
        return []
    head = ("HOUR", "ARRIVALS", *(row.label.upper() for row in rows))
    lines = [
        (
            f"{hour:02}",
            f"{rows[0].hours.get(hour, (0, 0))[0]:,}",
            *(_share(row, hour) for row in rows),
        )
        for hour in hours
    ]
    marked = any(promised(row) for row in rows)
    legend = "  !: more than was promised, and not by chance" if marked else ""
    return [
        "Who had to wait, by the hour of their coming",
        *aligned([head, *lines]),
        *filter(None, [legend]),
    ]


def _share(row: Summary, hour: int) -> str:
    came, waited = row.hours.get(hour, (0, 0))
    promise = promised(row)
    broken = promise is not None and hour in row.beyond(promise)
    return f"{waited / came * 100:.2f} %{'!' if broken else ' '}" if came else "- "


def promised(row: Summary) -> float | None:
    """The share that may wait; None: nothing is promised."""
    return (row.figure or None) if row.policy in OURS else None


def promises(rows: Iterable[Summary]) -> list[str]:
    """Whether each promise was kept, over the whole time."""
    lines = []
    for row in rows:
        if (promise := promised(row)) is None:
            continue
        share = 1.0 - row.warm.value
        certain = row.certain(len(row.waits), row.arrivals) > promise
        kept = "not kept" if certain else "kept" if share <= promise else "kept, but for chance"
        late = ", ".join(f"{hour:02}" for hour in row.beyond(promise))
        lines.append(
            f"{row.label}: at most {promise * 100:g} % may wait, {share * 100:.2f} % did: {kept}"
            + (f"; not within these hours: {late}" if late else "")
        )
    return lines


def counted(rows: Iterable[Summary]) -> list[str]:
    """What else was counted: launches, refusals and so on, as means over seeds."""
    return [
        f"{row.label}: " + ", ".join(f"{name} {value:,.6g}" for name, value in row.counts.items())
        for row in rows
        if row.counts
    ]


def clock(seconds: float) -> str:
    """ "09:12", "2d09:12:30" """
    day, rest = divmod(round(seconds), 86_400)
    hours, minutes, odd = rest // 3600, rest // 60 % 60, rest % 60
    return f"{f'{day + 1}d' if day else ''}{hours:02}:{minutes:02}" + (f":{odd:02}" if odd else "")


def aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    """Columns, numbers to the right and words to the left."""
    columns = [[str(cell) for cell in column] for column in zip(*lines, strict=True)]
    set_ = [_column(column) for column in columns]
    return ["  ".join(cells).rstrip() for cells in zip(*set_, strict=True)]


def _column(cells: list[str]) -> list[str]:
    width = max(map(len, cells))
    right = all(not cell or _NUMBER.match(cell) or cell.startswith("-") for cell in cells[1:])
    return [cell.rjust(width) if right else cell.ljust(width) for cell in cells]
