"""Calls about machines, the pool, and about who calls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.api.answers import MeAnswer, PoolAnswer
from gateway.api.operation import Call, Reply
from gateway.api.peaks import rows
from gateway.api.showing import machine_answer


async def machines(call: Call) -> Reply:
    return Reply(200, [machine_answer(machine) for machine in await call.parts.fleet.machines()])


async def pool(call: Call) -> Reply:
    decision = await call.parts.fleet.pool_decision()
    peaks = [row.model_dump(mode="json", by_alias=True) for row in await rows(call.parts, decision)]
    return Reply(200, decision_answer({**decision, "peaks": peaks}))


def decision_answer(decision: Mapping[str, Any]) -> PoolAnswer:
    """The scaler's own names, as the API spells names."""
    return PoolAnswer.model_validate(_spelled(decision))


async def me(call: Call) -> Reply:
    return Reply(200, MeAnswer(user_id=call.user, admin=call.user is None))


def _spelled(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {_camel(name): _spelled(each) for name, each in value.items()}
    return [_spelled(each) for each in value] if isinstance(value, list) else value


def _camel(name: str) -> str:
    """ "warm_slots" → "warmSlots", "at_ms" → "at": in the API every time is milliseconds."""
    head, *rest = name.removesuffix("_ms").split("_")
    return head + "".join(word.capitalize() for word in rest)
