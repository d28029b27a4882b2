"""Calls about one workspace, and about lists of them.

A workspace of somebody else answers exactly like one that does not exist. 200: it is as asked for;
202: it is on its way there.
"""

from __future__ import annotations

import hashlib
import json
import math

from gateway.api import bodies
from gateway.api.answers import (
    ActivityAnswer,
    EntryAnswer,
    Queue,
    WorkspaceAnswer,
)
from gateway.api.errors import ApiError, Invalid, NotFound
from gateway.api.operation import Call, Reply
from gateway.api.showing import manifest_answer, workspace_answer
from gateway.auth import may
from gateway.hosts import workspace_id_error
from lifecycle.activity import alive_because, explain
from lifecycle.model import Workspace, WorkspaceStatus
from lifecycle.policy import ends_at
from lifecycle.queueing import boost_ms

_W = WorkspaceStatus
ON_ITS_WAY = frozenset({_W.QUEUED, _W.STARTING, _W.STOPPING, _W.TERMINATING})
UP = frozenset({_W.STARTING, _W.RUNNING})

RETRY_BUSY = 5
MAX_KEY = 255


async def create(call: Call) -> Reply:
    body: bodies.Create = call.body
    user_id = _whose(call, body)
    await _claim_key(call, user_id)
    asked = str(body.priority) if "priority" in body.model_fields_set else ""
    store, priority = call.parts.store, asked or call.parts.plans.of(body.plan).priority
    workspace, _ = await store.ensure(
        user_id, body.name, plan=body.plan, priority=priority, region=body.region
    )
    if workspace.user_id != user_id:  # ids are hashes of 50 bits: a collision opens nothing
        message = "this name's id belongs to another workspace; choose another name"
        raise ApiError(409, "conflict", message)
    workspace = await store.wake(workspace.id, asked)
    return await _reply(call, workspace, {"Location": f"/api/workspaces/{workspace.id}"})


async def listing(call: Call) -> Reply:
    query: bodies.ListQuery = call.query
    user_id = query.user_id
    if call.user is not None:
        if user_id not in (None, call.user):
            return Reply(200, [])  # as for a user without any
        user_id = call.user
    wanted = {query.status} if query.status else None
    rows = await call.parts.store.list(user_id, wanted)
    now_ms = await call.parts.store.now_ms()
    return Reply(200, [await shown(call, row, now_ms) for row in rows])


async def get(call: Call) -> Reply:
    workspace = await owned(call)
    return Reply(200, await shown(call, workspace, await call.parts.store.now_ms()))


async def start(call: Call) -> Reply:
    workspace = await owned(call)
    return await _reply(call, await call.parts.store.wake(workspace.id))


async def stop(call: Call) -> Reply:
    workspace = await owned(call)
    return await _reply(call, await call.parts.store.stop(workspace.id, "requested"))


async def delete(call: Call) -> Reply:
    """Snapshot and terminate; with ?purge=true forget a terminated one and its snapshots."""
    query: bodies.DeleteQuery = call.query
    workspace = await owned(call)
    if query.purge:
        if workspace.status is not _W.TERMINATED:
            raise conflict(workspace, "only a terminated one can be purged; DELETE it first")
        await call.parts.purge(workspace.id)
        return Reply(204)
    if workspace.status is not _W.TERMINATED:
        workspace = await call.parts.store.terminate(workspace.id, "deleted")
    # 202 even if it is done: what deleting promises is the same either way.
    return Reply(202, await shown(call, workspace, await call.parts.store.now_ms()))


async def extend(call: Call) -> Reply:
    body: bodies.Extend = call.body
    workspace = await owned(call)
    if workspace.status not in {*UP, _W.QUEUED}:
        raise conflict(workspace, "only a running one can be extended; start it first")
    default = call.parts.plans.policy_of(workspace).idle_timeout
    seconds = default if body.seconds is None else body.seconds
    workspace = await call.parts.store.extend(workspace.id, seconds)
    return Reply(200, await shown(call, workspace, await call.parts.store.now_ms()))


async def snapshot(call: Call) -> Reply:
    workspace = await owned(call)
    if workspace.status in ON_ITS_WAY:
        raise conflict(workspace, "wait until that is done", retry_after=RETRY_BUSY)
    if not workspace.machine_id:
        raise conflict(workspace, "it has no files on a machine; start it first")
    return Reply(200, manifest_answer(await call.parts.snapshot(workspace.id)))


async def heartbeat(call: Call) -> Reply:
    """Activity on purpose. It keeps a running workspace alive and wakes none."""
    body: bodies.Heartbeat = call.body
    workspace = await owned(call, body.workspace_id if isinstance(body, bodies.Update) else None)
    if not await call.parts.store.touch(workspace.id, body.kind):
        raise conflict(workspace, "a heartbeat wakes nothing; start it")
    return Reply(200, await _shown_again(call, workspace))


async def enter(call: Call) -> Reply:
    body: bodies.Enter = call.body
    workspace = await owned(call)
    entry = await call.parts.enter(workspace, body.next)
    content = EntryAnswer(
        workspace_id=workspace.id, url=entry.url, token=entry.token, expires_at=entry.expires_at_ms
    )
    return Reply(200, content)


async def activity(call: Call) -> Reply:
    workspace = await owned(call)
    parts = call.parts
    policy = parts.plans.policy_of(workspace)
    record = explain(workspace, await parts.store.now_ms(), policy)
    head = {"workspaceId": workspace.id, "status": workspace.status}
    return Reply(200, ActivityAnswer.model_validate({**head, **record}))


async def owned(call: Call, workspace_id: str | None = None) -> Workspace:
    """The workspace named in the path (or given), if the caller may see it. Raises NotFound."""
    asked = workspace_id if workspace_id is not None else call.request.path_params["id"]
    workspace = None if workspace_id_error(asked) else await call.parts.store.get(asked)
    if workspace is None or not may(call.principal, workspace.user_id):
        raise NotFound("there is no such workspace; GET /api/workspaces lists yours")
    return workspace


def _whose(call: Call, body: bodies.Create) -> str:
    """Whose workspace it becomes; persons also get neither a better place nor another plan."""
    if call.user is None:
        if body.user_id is None:
            raise Invalid("userId: field required", "userId")
        return body.user_id
    if body.user_id not in (None, call.user):
        raise ApiError(403, "forbidden", "userId: you can create workspaces for yourself only")
    if boost_ms(str(body.priority)) > 0 or body.plan != "default":
        raise ApiError(403, "forbidden", "only the operator gives a higher priority or a plan")
    return call.user


async def _claim_key(call: Call, user_id: str) -> None:
    """The call can be repeated anyway; the key only tells a repetition from another call."""
    key = call.request.headers.get("idempotency-key")
    if key is None:
        return
    if not 0 < len(key) <= MAX_KEY or not key.isprintable():
        message = f"Idempotency-Key: 1 to {MAX_KEY} printable characters"
        raise Invalid(message, "Idempotency-Key")
    body: bodies.Create = call.body
    fields = [user_id, body.name, str(body.priority), body.plan, body.region]
    fingerprint = hashlib.sha256(json.dumps(fields).encode()).hexdigest()
    caller = "admin" if call.user is None else f"user {call.user}"
    if await call.parts.keys.claim(f"{caller} {key}", fingerprint) != fingerprint:
        message = "this Idempotency-Key came with another body before; take a new key"
        raise Invalid(message, "Idempotency-Key", "idempotency_mismatch")


async def _reply(call: Call, workspace: Workspace, headers: dict[str, str] | None = None) -> Reply:
    answer = await shown(call, workspace, await call.parts.store.now_ms())
    return Reply(202 if workspace.status in ON_ITS_WAY else 200, answer, headers or {})


async def _shown_again(call: Call, workspace: Workspace) -> WorkspaceAnswer:
    """After a change that answers no record. It may be gone since; then what was known is shown."""
    fresh = await call.parts.store.get(workspace.id) or workspace
    return await shown(call, fresh, await call.parts.store.now_ms())


async def shown(call: Call, workspace: Workspace, now_ms: int) -> WorkspaceAnswer:
    policy = call.parts.plans.policy_of(workspace)
    return workspace_answer(
        workspace,
        url=call.parts.url_of(workspace.id),
        alive=alive_because(workspace, now_ms, policy),
        kept_until_ms=ends_at(workspace, policy),
        queue=await _queue(call, workspace, now_ms),
    )


async def _queue(call: Call, workspace: Workspace, now_ms: int) -> Queue | None:
    if workspace.status is _W.STARTING:
        spent = max(0, now_ms - workspace.status_since_ms) / 1000
        left = await call.parts.eta(0) - spent
        return Queue(position=0, eta_seconds=max(1, math.ceil(left)))
    if workspace.status is not _W.QUEUED:
        return None
    position = await call.parts.store.queue_position(workspace.id)
    if position is None:  # it left the queue since the record was read
        position = 0
    return Queue(
        position=position, eta_seconds=math.ceil(await call.parts.eta(position, workspace))
    )


def conflict(workspace: Workspace, hint: str, retry_after: int | None = None) -> ApiError:
    message = f"workspace {workspace.id} is {workspace.status}: {hint}"
    details = {"status": workspace.status}
    return ApiError(409, "conflict", message, retry_after=retry_after, details=details)
