"""How long did a user's workspaces run, and how long were they stored? Sums metered intervals; pure.

Time is exact to the millisecond and counted once for each workspace, however often it was metered; two
workspaces side by side count both. Money is computed from these milliseconds (pricing.py): the minutes that
are shown are only rounded.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import NamedTuple

from lifecycle.model import Workspace

RUNNING = "running"
STORED = "stored"


class Interval(NamedTuple):
    """kind: "running", on a machine billed as machine_class, or "stored", with so many bytes of files."""

    workspace_id: str
    epoch: int
    start_ms: int
    end_ms: int | None
    """None: it goes on."""
    kind: str = RUNNING
    machine_class: str = ""
    bytes: int = 0


class Piece(NamedTuple):
    """Time of an interval that no other interval of its workspace and kind has counted."""

    workspace_id: str
    kind: str
    machine_class: str
    bytes: int
    start_ms: int
    end_ms: int

    @property
    def milliseconds(self) -> int:
        return self.end_ms - self.start_ms


class Total(NamedTuple):
    """Of everybody, of one kind and class. amount: milliseconds in a month, times bytes where they are stored.
    size: how many run now, or bytes that are stored now."""

    kind: str
    machine_class: str
    amount: Decimal
    size: Decimal


@dataclass(frozen=True, slots=True)
class Usage:
    """Milliseconds that ran; workspaces without any in the window are left out."""

    total_ms: int
    by_workspace: dict[str, int]
    running: int
    """Workspaces that run still, and so count on."""


def month_window(month: str) -> tuple[int, int]:
    """First millisecond of the month "2025-11" and of the one after it, UTC. Raises ValueError."""
    try:
        start = datetime.strptime(month, "%Y-%m").replace(tzinfo=UTC)
    except ValueError:
        raise ValueError(f"{month} is no month; write it like 2025-11") from None
    end = start.replace(year=start.year + start.month // 12, month=start.month % 12 + 1)
    return int(start.timestamp() * 1000), int(end.timestamp() * 1000)


def month_of(now_ms: int) -> str:
    """ "2025-11", UTC."""
    return datetime.fromtimestamp(now_ms / 1000, UTC).strftime("%Y-%m")


def open_interval(workspace: Workspace) -> Interval | None:
    """What its record counts just now; None for a record from before anything was stored by the minute."""
    w = workspace
    if w.running_since_ms:
        return Interval(w.id, w.epoch, w.running_since_ms, None, RUNNING, w.running_class)
    if w.stored_since_ms:
        return Interval(w.id, w.epoch, w.stored_since_ms, None, STORED, "", w.stored_bytes)
    return None


def pieces(intervals: Iterable[Interval], now_ms: int, window: tuple[int, int]) -> list[Piece]:
    """What falls into the window [from, to), by workspace and kind, oldest first. An open interval counts
    until now."""
    found: list[Piece] = []
    for (workspace_id, kind), rows in _grouped(intervals).items():
        reached = window[0]
        for row, end in _closed(rows, now_ms):
            start, end = max(row.start_ms, reached), min(end, window[1])
            if start < end:
                size = row.bytes if kind == STORED else 0
                found.append(Piece(workspace_id, kind, row.machine_class, size, start, end))
                reached = end
    return found


def total(intervals: Iterable[Interval], now_ms: int, window: tuple[int, int]) -> Usage:
    """What ran in the window [from, to)."""
    rows = [row for row in intervals if row.kind == RUNNING]
    sums: dict[str, int] = {}
    for piece in pieces(rows, now_ms, window):
        sums[piece.workspace_id] = sums.get(piece.workspace_id, 0) + piece.milliseconds
    running = 0
    for found in _grouped(rows).values():
        newest = max(row.start_ms for row in found)
        running += all(row.end_ms is None for row in found if row.start_ms == newest)
    return Usage(sum(sums.values()), sums, running)


def totals(
    ended: Mapping[str, str],
    going_on: Mapping[str, str],
    since: Mapping[str, str],
    month: str,
    now_ms: int,
) -> list[Total]:
    """Of this month, from sums as the metering keeps them. ended: "running/{class}" or "stored" → amount in
    that month. going_on: "{month} {what}" → size of what began in that month; since: its beginnings, in
    milliseconds of that month times size, summed: n that began at a, b, … have had n·now - (a + b + …)."""
    amounts = {what: Decimal(amount) for what, amount in ended.items()}
    sizes: dict[str, Decimal] = {}
    passed = now_ms - month_window(month)[0]
    for name, text in going_on.items():
        began, _, what = name.partition(" ")
        size = Decimal(text)
        before = Decimal(since.get(name, "0")) if began == month else Decimal(0)
        sizes[what] = sizes.get(what, Decimal(0)) + size
        if began <= month:
            amounts[what] = amounts.get(what, Decimal(0)) + max(Decimal(0), size * passed - before)
    rows = []
    for what in sorted({*amounts, *sizes}):
        kind, _, machine_class = what.partition("/")
        amount, size = amounts.get(what, Decimal(0)), sizes.get(what, Decimal(0))
        rows.append(Total(kind, machine_class, amount, size))
    return rows


def _grouped(intervals: Iterable[Interval]) -> dict[tuple[str, str], list[Interval]]:
    groups: dict[tuple[str, str], list[Interval]] = {}
    for row in intervals:
        groups.setdefault((row.workspace_id, row.kind), []).append(row)
    return dict(sorted(groups.items()))


def _closed(rows: Sequence[Interval], now_ms: int) -> list[tuple[Interval, int]]:
    """Oldest first, each with its end. An open one ends now, or where it is known to have ended: it was read
    before that was metered, or its own end was lost and a newer one began."""
    found = []
    for row in sorted(rows, key=lambda row: (row.start_ms, row.end_ms or now_ms)):
        ends = [now_ms]
        ends += [other.start_ms for other in rows if other.start_ms > row.start_ms]
        ends += [other.end_ms for other in rows if other.start_ms == row.start_ms and other.end_ms]
        found.append((row, min(ends) if row.end_ms is None else row.end_ms))
    return found
