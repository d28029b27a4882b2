"""Calls about notices: what a workspace's person was told, what they want to hear of, and what became of deliveries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gateway.api import bodies
from gateway.api.answers import DeliveryAnswer, NoticeAnswer, PreferencesAnswer
from gateway.api.errors import ApiError, Invalid, NotFound
from gateway.api.operation import Call, Reply
from gateway.api.workspaces import owned
from lifecycle.notices import STOPPING_SOON, Preferences
from lifecycle.notices.deliveries import Delivery
from lifecycle.stores import Conflict


async def notices(call: Call) -> Reply:
    query: bodies.NoticesQuery = call.query
    workspace = await owned(call)
    rows = [
        NoticeAnswer(
            seq=each.seq,
            type=each.type,
            workspace_id=each.workspace_id,
            at=each.at_ms,
            text=each.text,
            data=dict(each.data),
        )
        for each in await call.parts.notices.since(workspace.id, query.after)
    ]
    return Reply(200, rows)


async def preferences(call: Call) -> Reply:
    user_id = _whose(call)
    return Reply(200, _preferences(user_id, await call.parts.notices.preferences(user_id)))


async def prefer(call: Call) -> Reply:
    body: bodies.Preferences = call.body
    user_id = _whose(call)
    email = (body.email or "") if "email" in body.model_fields_set else None
    if email and call.user is not None:
        now = await call.parts.notices.preferences(user_id)
        if email != now.email:
            # Nobody may have us write to somebody else.
            raise ApiError(403, "forbidden", "an e-mail address is set by the operator")
    opt_out: Mapping[str, Sequence[str]] | None = None
    if body.opt_out is not None:
        opt_out = {str(type): channels for type, channels in body.opt_out.items()}
    if opt_out and "ide" in opt_out.get(STOPPING_SOON, ()):
        message = (
            f"optOut: in the IDE, everybody is told of {STOPPING_SOON}: it is their last chance"
        )
        raise Invalid(message, "optOut")
    return Reply(
        200, _preferences(user_id, await call.parts.notices.prefer(user_id, email, opt_out))
    )


async def deliveries(call: Call) -> Reply:
    query: bodies.DeliveriesQuery = call.query
    found = await call.parts.deliveries.list(query.user, query.status, query.limit)
    return Reply(200, [_delivery(each) for each in found])


async def retry(call: Call) -> Reply:
    try:
        found = await call.parts.deliveries.retry(call.request.path_params["id"])
    except Conflict as conflict:
        if conflict.actual:
            raise
        message = "there is no such delivery; GET /api/deliveries lists those of 7 days"
        raise NotFound(message) from None
    return Reply(200, _delivery(found))


def _whose(call: Call) -> str:
    query: bodies.UserQuery = call.query
    user_id = query.user or call.user
    if user_id is None:
        raise Invalid("user: say whose preferences, as in /api/preferences?user=ada", "user")
    if call.user not in (None, user_id):
        raise NotFound("there is no such user")
    return user_id


def _preferences(user_id: str, found: Preferences) -> PreferencesAnswer:
    opt_out = {type: list(channels) for type, channels in sorted(found.opt_out.items())}
    return PreferencesAnswer(user_id=user_id, email=found.email or None, opt_out=opt_out)


def _delivery(row: Delivery) -> DeliveryAnswer:
    return DeliveryAnswer(
        id=row.id,
        channel=row.channel,
        to=row.to or None,
        workspace_id=row.notice.workspace_id,
        user_id=row.notice.user_id,
        type=row.notice.type,
        text=row.notice.text,
        status=row.status,
        attempts=row.attempts,
        retried=row.retried,
        created_at=row.created_at_ms,
        attempted_at=row.attempted_at_ms or None,
        next_attempt_at=row.due_at_ms or None,
        duration_ms=row.duration_ms,
        code=row.code or None,
        answer=row.answer,
    )
