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
    """The scaler's own names, as the API spells names; of what it remembers what its decision is made of."""
    told = {name: value for name, value in decision.items() if name not in ("memory", "flow")}
    memory = decision.get("memory")
    if isinstance(memory, Mapping):
        told |= _remembered(memory)
    return PoolAnswer.model_validate(_spelled(told))


def _remembered(memory: Mapping[str, Any]) -> dict[str, Any]:
    """rates: people a second, over some seconds, two minutes and a quarter of an hour. promise: of those who came,
    fading, so many waited. window: what was wanted of late, and nothing later exceeded."""
    demand = memory.get("demand") or {}
    came, waited = memory.get("came", 0.0), memory.get("waited", 0.0)
    return {
        "since_ms": int(memory.get("since", 0.0) * 1000),
        "rates": {name: demand.get(name) for name in ("fast", "slow", "long", "leaving")},
        "promise": {
            "came": came,
            "waited": waited,
            "share": waited / came if came else 0.0,
            "credit": memory.get("credit"),
        },
        "pace": {name: memory.get(name) for name in ("tokens", "burst", "given")},
        "window": [
            {"at_ms": int(at * 1000), "machines": machines}
            for at, machines in memory.get("wanted", ())
        ],
    }


async def me(call: Call) -> Reply:
    return Reply(200, MeAnswer(user_id=call.user, admin=call.user is None))


def _spelled(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {_camel(name): _spelled(each) for name, each in value.items()}
    return [_spelled(each) for each in value] if isinstance(value, list | tuple) else value


def _camel(name: str) -> str:
    """ "warm_slots" → "warmSlots", "at_ms" → "at": in the API every time is milliseconds."""
    head, *rest = name.removesuffix("_ms").split("_")
    return head + "".join(word.capitalize() for word in rest)
