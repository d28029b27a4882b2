"""`ide-gateway peaks` and `peak`: the API's calls, and what people type and read. On the standard library alone."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime, time, timedelta
from typing import Any
from urllib.parse import quote

from gateway.client import Client, NotThere, aligned, duration
from gateway.terminal import one_line

_COLUMNS = ("PEAK", "AT", "IN", "USERS", "HELD", "FROM", "UNTIL", "DECLARED BY")


def peaks(client: Client) -> list[dict[str, Any]]:
    answer = client.call("GET", "/api/peaks")
    return [row for row in answer if isinstance(row, dict)] if isinstance(answer, list) else []


def add(
    client: Client, name: str, at_ms: int, users: int, early: float | None, late: float | None
) -> dict[str, Any]:
    """What was written down. early, late: seconds; None: as the gateway has it."""
    body = {"name": name, "at": at_ms, "users": users, "earlySeconds": early, "lateSeconds": late}
    said = {field: value for field, value in body.items() if value is not None}
    return dict(client.call("POST", "/api/peaks", said))


def remove(client: Client, name: str) -> None:
    try:
        client.call("DELETE", f"/api/peaks/{quote(name, safe='')}")
    except NotThere as error:
        raise NotThere(str(error), "see them all: ide-gateway peaks") from error


def moment(text: str, now: datetime) -> datetime:
    """What a person typed: a time with its offset, one of this terminal's time zone, or a time of day: the next of that
    name. now: of this terminal. Raises ValueError, in words."""
    with suppress(ValueError):
        return datetime.fromisoformat(text).astimezone()
    try:
        today = datetime.combine(now.date(), time.fromisoformat(text.zfill(5)))
    except ValueError:
        raise ValueError(
            f"{text!r} is no time: give one such as 2026-12-01T09:00, 2026-12-01T09:00+01:00 or 09:00"
        ) from None
    at = today.astimezone()
    return at if at > now else (today + timedelta(days=1)).astimezone()


def table(rows: list[dict[str, Any]], now_ms: float) -> list[str]:
    """`peaks`, line by line; times are this terminal's. What the pool cannot do stands below."""
    lines = aligned([_COLUMNS, *(_cells(row, now_ms) for row in rows)])
    return lines + [notice for row in rows if (notice := notice_of(row))]


def notice_of(row: dict[str, Any]) -> str:
    said = row.get("notice")
    return one_line(f"! {row.get('name')}: {said}") if said else ""


def _cells(row: dict[str, Any], now_ms: float) -> tuple[str, ...]:
    at, held = int(row.get("at") or 0), row.get("heldSlots")
    first = at - float(row.get("earlySeconds") or 0) * 1000
    last = at + float(row.get("lateSeconds") or 0) * 1000
    cron = f" ({row['cron']} {row.get('timeZone')})" if row.get("cron") else ""
    cells = (
        row.get("name"),
        f"{datetime.fromtimestamp(at / 1000):%Y-%m-%d %H:%M}",
        "now" if row.get("state") == "open" else duration((at - now_ms) / 1000),
        f"{row.get('users', 0):,}",
        "-" if held is None else f"{held:,}",
        f"{datetime.fromtimestamp(first / 1000):%H:%M}",
        f"{datetime.fromtimestamp(last / 1000):%H:%M}",
        f"{row.get('source')}{cron}",
    )
    return tuple(one_line(str(cell)) for cell in cells)
