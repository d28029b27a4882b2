"""GET /api/usage: metered time and what it costs, of a user in a month or of all users, as JSON or CSV.

Seconds and money are exact to the millisecond; minutes are those seconds, rounded to two places.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from urllib.parse import urlencode

from starlette.responses import Response

from gateway.api import bodies
from gateway.api.answers import (
    ClassUsage,
    KindUsage,
    UsageAnswer,
    UsageReply,
    UsersUsage,
    UserUsage,
    WorkspaceUsage,
)
from gateway.api.errors import NotFound
from gateway.api.operation import NEVER_CACHED, Call, Reply
from lifecycle.pricing import GIB, HOUR_MS, shown
from lifecycle.usage import (
    RUNNING,
    STORED,
    Interval,
    Piece,
    month_of,
    month_window,
    open_interval,
    pieces,
    total,
)

CSV = "text/csv; charset=utf-8"
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet takes for the beginning of a formula."""


async def usage(call: Call) -> Reply | Response:
    query: bodies.UsageQuery = call.query
    if call.user is not None and query.user not in (None, call.user):
        raise NotFound("there is no such user")
    now_ms = await call.parts.store.now_ms()
    month = query.month or month_of(now_ms)
    as_csv = query.format == "csv" or (
        query.format is None and "text/csv" in call.request.headers.get("accept", "")
    )
    user_id = query.user or call.user
    if user_id is None:
        everybody = await _everybody(call, month, now_ms)
        return _users_csv(call, everybody) if as_csv else Reply(200, UsageReply(everybody))
    rows = await _intervals(call, user_id, month)
    used = pieces(rows, now_ms, month_window(month))
    if as_csv:
        return _intervals_csv(call, user_id, month, used)
    running = total(rows, now_ms, month_window(month)).running
    return Reply(200, UsageReply(_of_user(call, user_id, month, used, running)))


def _of_user(
    call: Call, user_id: str, month: str, used: Sequence[Piece], running: int
) -> UsageAnswer:
    ran = _of_kind(used, RUNNING)
    workspaces = [
        WorkspaceUsage(
            workspace_id=name,
            seconds=_seconds(_of_kind(part, RUNNING)),
            minutes=_minutes(_of_kind(part, RUNNING)),
            stored_seconds=_seconds(_of_kind(part, STORED)),
            stored_gib_hours=_gib_hours(part),
            cost=_cost(call, part),
        )
        for name in sorted({piece.workspace_id for piece in used})
        for part in [[piece for piece in used if piece.workspace_id == name]]
    ]
    classes = [
        ClassUsage(
            machine_class=name,
            seconds=_seconds(part),
            minutes=_minutes(part),
            cost=_cost(call, part),
        )
        for name in sorted({piece.machine_class for piece in ran})
        for part in [[piece for piece in ran if piece.machine_class == name]]
    ]
    kinds = [
        KindUsage(
            kind=kind,
            seconds=_seconds(part),
            minutes=_minutes(part),
            gib_hours=_gib_hours(part) if kind == STORED else None,
            cost=_cost(call, part),
        )
        for kind in (RUNNING, STORED)
        for part in [_of_kind(used, kind)]
    ]
    return UsageAnswer(
        user_id=user_id,
        month=month,
        seconds=_seconds(ran),
        minutes=_minutes(ran),
        running=running,
        workspaces=workspaces,
        kinds=kinds,
        classes=classes,
        cost=_cost(call, used),
        currency=_currency(call),
    )


async def _everybody(call: Call, month: str, now_ms: int) -> UsersUsage:
    """A page of users by name; each costs one read of their month."""
    query: bodies.UsageQuery = call.query
    window = month_window(month)
    names = [n for n in await call.parts.usage.users(window[0]) if n > (query.after or "")]
    rows = []
    for name in names[: query.limit]:
        used = pieces(await _intervals(call, name, month), now_ms, window)
        ran = _of_kind(used, RUNNING)
        rows.append(
            UserUsage(
                user_id=name,
                seconds=_seconds(ran),
                minutes=_minutes(ran),
                stored_gib_hours=_gib_hours(used),
                cost=_cost(call, used),
            )
        )
    following = rows[-1].user_id if len(names) > query.limit else None
    return UsersUsage(month=month, currency=_currency(call), users=rows, next=following)


async def _intervals(call: Call, user_id: str, month: str) -> list[Interval]:
    """The closed ones as metered; those that are open still are in the records.

    The records are read first: what is closed between the two reads is then in both, and counts once.
    """
    records = await call.parts.store.list(user_id)
    going_on = [interval for row in records if (interval := open_interval(row))]
    closed = await call.parts.usage.usage(user_id, month_window(month)[0])
    return going_on + [Interval(*row) for row in closed]


def _of_kind(used: Iterable[Piece], kind: str) -> list[Piece]:
    return [piece for piece in used if piece.kind == kind]


def _seconds(used: Iterable[Piece]) -> float:
    return sum(piece.milliseconds for piece in used) / 1000


def _minutes(used: Iterable[Piece]) -> float:
    return round(sum(piece.milliseconds for piece in used) / 60_000, 2)


def _gib_hours(used: Iterable[Piece]) -> float:
    stored = sum(piece.milliseconds * piece.bytes for piece in used if piece.kind == STORED)
    return shown(Decimal(stored) / GIB / HOUR_MS)


def _cost(call: Call, used: Iterable[Piece]) -> float | None:
    prices = call.parts.prices
    return shown(prices.cost(used)) if prices else None


def _currency(call: Call) -> str | None:
    return call.parts.prices.currency if call.parts.prices else None


# CSV, after RFC 4180


def _intervals_csv(call: Call, user_id: str, month: str, used: Iterable[Piece]) -> Response:
    head = ("user", "workspace", "kind", "class", "bytes", "start", "end", "seconds", "cost")
    rows = [
        (
            user_id, p.workspace_id, p.kind, p.machine_class, p.bytes, _time(p.start_ms),
            _time(p.end_ms), p.milliseconds / 1000, _cost(call, [p]),
        )
        for p in sorted(used, key=lambda piece: (piece.start_ms, piece.workspace_id))
    ]  # fmt: skip
    return _sheet(call, f"usage-{month}-{user_id}", head, rows)


def _users_csv(call: Call, page: UsersUsage) -> Response:
    head = ("user", "month", "seconds", "minutes", "stored_gib_hours", "cost", "currency")
    rows = [
        (u.user_id, page.month, u.seconds, u.minutes, u.stored_gib_hours, u.cost, page.currency)
        for u in page.users
    ]
    response = _sheet(call, f"usage-{page.month}", head, rows)
    if page.next is not None:
        query = {
            "month": page.month,
            "format": "csv",
            "after": page.next,
            "limit": call.query.limit,
        }
        response.headers["Link"] = f'</api/usage?{urlencode(query)}>; rel="next"'
    return response


def _sheet(
    call: Call, name: str, head: Sequence[str], rows: Iterable[Sequence[object]]
) -> Response:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(head)
    writer.writerows([[_cell(value) for value in row] for row in rows])
    plain = "".join(c if c.isalnum() or c in "._-" else "_" for c in name)
    headers = {**NEVER_CACHED, "Content-Disposition": f'attachment; filename="{plain}.csv"'}
    return Response(text.getvalue(), media_type=CSV, headers=headers)


def _cell(value: Any) -> Any:
    """Text that a spreadsheet would compute stays text."""
    if isinstance(value, str) and value.startswith(FORMULA):
        return f"'{value}"
    return "" if value is None else value


def _time(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds")
