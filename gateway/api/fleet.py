"""Calls about machines, the pool, metered usage, and about who calls."""

from __future__ import annotations

from gateway.api import bodies
from gateway.api.answers import (
    MeAnswer,
    PoolAnswer,
    UsageAnswer,
    WorkspaceUsage,
)
from gateway.api.errors import Invalid, NotFound
from gateway.api.operation import Call, Reply
from gateway.api.showing import machine_answer
from lifecycle.usage import Interval, month_of, month_window, open_interval, total


async def machines(call: Call) -> Reply:
    return Reply(200, [machine_answer(machine) for machine in await call.parts.fleet.machines()])


async def pool(call: Call) -> Reply:
    decision = await call.parts.fleet.pool_decision()
    return Reply(200, PoolAnswer.model_validate({_camel(k): v for k, v in decision.items()}))


async def usage(call: Call) -> Reply:
    query: bodies.UsageQuery = call.query
    user_id = query.user or call.user
    if user_id is None:
        raise Invalid("user: say whose usage, as in /api/usage?user=ada", "user")
    if call.user not in (None, user_id):
        raise NotFound("there is no such user")
    now_ms = await call.parts.store.now_ms()
    month = query.month or month_of(now_ms)
    used = total(await _intervals(call, user_id), now_ms, month_window(month))
    rows = [
        WorkspaceUsage(workspace_id=name, seconds=ms / 1000, minutes=_minutes(ms))
        for name, ms in sorted(used.by_workspace.items())
    ]
    content = UsageAnswer(
        user_id=user_id,
        month=month,
        seconds=used.total_ms / 1000,
        minutes=_minutes(used.total_ms),
        running=used.running,
        workspaces=rows,
    )
    return Reply(200, content)


async def me(call: Call) -> Reply:
    return Reply(200, MeAnswer(user_id=call.user, admin=call.user is None))


async def _intervals(call: Call, user_id: str) -> list[Interval]:
    """The closed ones as metered; those that run still are in the records.

    The records are read first: what is closed between the two reads is then in both, and counts once.
    """
    records = await call.parts.store.list(user_id)
    going_on = [interval for row in records if (interval := open_interval(row))]
    return going_on + [Interval(*row) for row in await call.parts.usage.usage(user_id)]


def _minutes(milliseconds: int) -> float:
    return round(milliseconds / 60_000, 2)


def _camel(name: str) -> str:
    """ "warm_slots" → "warmSlots", "at_ms" → "at": in the API every time is milliseconds."""
    head, *rest = name.removesuffix("_ms").split("_")
    return head + "".join(word.capitalize() for word in rest)
