"""What a user may have, and what they have of it."""

from __future__ import annotations

from gateway.api import bodies
from gateway.api.answers import QuotaAnswer, QuotaStanding
from gateway.api.errors import Invalid, NotFound
from gateway.api.operation import Call, Reply
from lifecycle.quota import standings


async def quota(call: Call) -> Reply:
    query: bodies.QuotaQuery = call.query
    user_id = query.user or call.user
    if user_id is None:
        raise Invalid("user: say whose quotas, as in /api/quota?user=ada", "user")
    if call.user not in (None, user_id):
        raise NotFound("there is no such user")
    parts, plan = call.parts, query.plan
    if plan is None:
        newest = await parts.store.list(user_id)
        plan = newest[0].plan if newest else parts.plans.default.name
    found = standings(parts.plans.of(plan).quota, await parts.taken(user_id))
    rows = [
        QuotaStanding(
            quota=each.quota,
            used=each.used,
            allowed=each.allowed or None,
            frees_at=each.frees_at_ms if each.allowed else None,
        )
        for each in found
    ]
    return Reply(200, QuotaAnswer(user_id=user_id, plan=plan, quotas=rows))
