"""How long did a user's workspaces run? Sums metered intervals; pure.

An interval is one running time of one boot. Time is counted once for each workspace however often it
was metered; two workspaces that run side by side count both.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple


class Interval(NamedTuple):
    workspace_id: str
    epoch: int
    start_ms: int
    end_ms: int | None
    """None: it runs still."""


@dataclass(frozen=True, slots=True)
class Usage:
    total_ms: int
    by_workspace: dict[str, int]
    """Milliseconds; workspaces without any in the window are left out."""
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


def total(intervals: Iterable[Interval], now_ms: int, window: tuple[int, int]) -> Usage:
    """What falls into the window [from, to). An open interval counts until now."""
    of_workspace: dict[str, list[Interval]] = {}
    for interval in intervals:
        of_workspace.setdefault(interval.workspace_id, []).append(interval)
    sums: dict[str, int] = {}
    running = 0
    for workspace_id, rows in of_workspace.items():
        spans = [_clip(span, window) for span in _closed(rows, now_ms)]
        if milliseconds := _covered(spans):
            sums[workspace_id] = milliseconds
        newest = [row for row in rows if row.epoch == max(row.epoch for row in rows)]
        running += all(row.end_ms is None for row in newest)
    return Usage(sum(sums.values()), sums, running)


def _closed(rows: list[Interval], now_ms: int) -> list[tuple[int, int]]:
    """An open interval ends now, or where its boot is known to have ended: it was read before that
    was metered, or its own end was lost and a newer boot began."""
    spans = []
    for row in rows:
        ends = [now_ms]
        ends += [other.start_ms for other in rows if other.epoch > row.epoch]
        ends += [other.end_ms for other in rows if other.epoch == row.epoch and other.end_ms]
        spans.append((row.start_ms, min(ends) if row.end_ms is None else row.end_ms))
    return spans


def _clip(span: tuple[int, int], window: tuple[int, int]) -> tuple[int, int]:
    return max(span[0], window[0]), min(span[1], window[1])


def _covered(spans: Iterable[tuple[int, int]]) -> int:
    """Length of the union."""
    covered, reached = 0, 0
    for start, end in sorted(spans):
        covered += max(0, end - max(start, reached))
        reached = max(reached, end)
    return covered
