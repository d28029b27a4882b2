"""Calls about how long one workspace lives: its own policy, keeping it longer, pinning it.

A person may ask for less than their plan gives, for hours of their own, and for another while before their
files are put away. The rest is the operator's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

from pydantic.alias_generators import to_camel

from gateway.api import bodies
from gateway.api.answers import PolicyAnswer
from gateway.api.errors import ApiError, Invalid
from gateway.api.operation import Call, Reply
from gateway.api.workspaces import conflict, owned, shown
from lifecycle.model import Workspace, WorkspaceStatus
from lifecycle.plans import FIELDS, PlanError, Policy, policy_values, said_values

_W = WorkspaceStatus
PERSONS = frozenset(
    {"idle-timeout", "signals", "quiet-hours", "quiet-idle-timeout", "autostart", "time-zone"}
)
"""What a person may set of it."""


async def policy(call: Call) -> Reply:
    return Reply(200, _answer(call, await owned(call)))


async def set_policy(call: Call) -> Reply:
    """The whole of what is the caller's to say; what is left out, or null, is as the plan has it."""
    body: bodies.OwnPolicy = call.body
    workspace = await owned(call)
    said = _said(body)
    if call.user is not None:
        _allow(said, call.parts.plans.of(workspace.plan).policy)
        others = said_values(workspace.own_policy)
        said |= {name: value for name, value in others.items() if name not in PERSONS}
    text = json.dumps(said, sort_keys=True) if said else ""
    return Reply(200, _answer(call, await call.parts.store.set_policy(workspace.id, text)))


async def keep(call: Call) -> Reply:
    """Not put away before then; never sooner than it would have been."""
    body: bodies.Keep = call.body
    workspace = await owned(call)
    if workspace.status not in (_W.STOPPED, _W.FAILED):
        why = "only what is stopped or has failed is waiting to be put away"
        raise conflict(workspace, why)
    retention = call.parts.plans.policy_of(workspace).retention
    seconds = retention if body.seconds is None else body.seconds
    if call.user is not None and seconds > retention:
        message = f"seconds: {retention:g} at a time; ask again before they are over"
        raise ApiError(403, "forbidden", message, details={"allowed": retention})
    return await _lived(call, await call.parts.store.keep(workspace.id, seconds))


async def pin(call: Call) -> Reply:
    return await _pin(call, True)


async def unpin(call: Call) -> Reply:
    return await _pin(call, False)


async def _pin(call: Call, pinned: bool) -> Reply:
    workspace = await owned(call)
    if call.user is not None:
        raise ApiError(403, "forbidden", "only the operator's API key may ask this")
    return await _lived(call, await call.parts.store.pin(workspace.id, pinned))


async def _lived(call: Call, workspace: Workspace) -> Reply:
    return Reply(200, await shown(call, workspace, await call.parts.store.now_ms()))


def _said(body: bodies.OwnPolicy) -> dict[str, Any]:
    """As a plans file spells it. Raises Invalid."""
    found = {name: value for name in FIELDS if (value := getattr(body, FIELDS[name])) is not None}
    for name, value in found.items():
        try:
            policy_values({name: value}, "policy")
        except PlanError as error:
            words = str(error).partition(f"{name} ")[2]
            field = to_camel(FIELDS[name])
            raise Invalid(f"{field}: {words}", field) from None
    return found


def _allow(said: Mapping[str, Any], plan: Policy) -> None:
    """Raises ApiError for what a person may not have."""
    for name in said:
        if name not in PERSONS:
            raise _forbidden(name, "is for the operator to set")
    for name in ("idle-timeout", "quiet-idle-timeout"):
        if said.get(name, 0) > plan.idle_timeout:
            raise _forbidden(name, f"at most {plan.idle_timeout:g} seconds, as the plan gives")
    more = set(said.get("signals", ())) - plan.signals
    if more:
        raise _forbidden("signals", f"{', '.join(sorted(more))} does not count in this plan")


def _forbidden(name: str, why: str) -> ApiError:
    field = to_camel(FIELDS[name])
    return ApiError(403, "forbidden", f"{field}: {why}", details={"field": field})


def _answer(call: Call, workspace: Workspace) -> PolicyAnswer:
    plans = call.parts.plans
    own, plan = said_values(workspace.own_policy), plans.of(workspace.plan)
    values = plans.policy_of(workspace)
    sources: dict[str, Literal["own", "plan", "default"]] = {}
    for name, field in FIELDS.items():
        of_plan = getattr(plan.policy, field) != getattr(plans.default.policy, field)
        sources[to_camel(field)] = "own" if name in own else "plan" if of_plan else "default"
    return PolicyAnswer(
        workspace_id=workspace.id,
        plan=plan.name,
        pinned=workspace.pinned,
        values={to_camel(field): _plain(getattr(values, field)) for field in FIELDS.values()},
        sources=sources,
    )


def _plain(value: Any) -> Any:
    return sorted(value) if isinstance(value, frozenset) else value
