"""What machines call by themselves: to join with the code of their launch, and to say that they are there.

Neither call asks for an API key. Joining: the code in the body, which opens one machine's place once.
Reporting: the machine's own token, which it got for the code. Both are held against what the signing key
makes of the machine's id, in constant time and before Redis is asked, so that guessing costs us little.
"""

from __future__ import annotations

import hmac
from dataclasses import replace

import structlog
from pydantic import TypeAdapter, ValidationError

from gateway.api import bodies
from gateway.api.answers import Empty, JoinAnswer
from gateway.api.errors import ApiError, Invalid, NotFound
from gateway.api.operation import Call, Reply
from gateway.auth import bearer
from lifecycle.agent.contract import Report

log = structlog.get_logger()

_REPORT = TypeAdapter(Report)


async def join(call: Call) -> Reply:
    body: bodies.Join = call.body
    joining, fleet = call.parts.joining, call.parts.fleet
    machine_id = joining.machine(body.code, body.index)
    if not machine_id:
        raise _unauthorized("this is no join code of this gateway's; machines get theirs at launch")
    outcome = await fleet.join(machine_id, body.nonce, body.address, body.instance)
    machine = await fleet.machine(machine_id) if outcome == "ok" else None
    if outcome == "used":
        log.warning("machine.join_refused", machine=machine_id, address=body.address)
        message = f"somebody has joined as {machine_id} before, or may have; its code opens nothing"
        raise ApiError(409, "join_code_used", message)
    if machine is None:
        raise NotFound(f"no machine {machine_id} is waited for")
    token = joining.token(machine_id)
    return Reply(200, JoinAnswer(machine_id=machine_id, token=token, slots=machine.slots))


async def report(call: Call) -> Reply:
    body: bodies.MachineReport = call.body
    machine_id = call.request.path_params["id"]
    given = bearer(call.request.headers.raw) or ""
    if not hmac.compare_digest(given.encode(), call.parts.joining.token(machine_id).encode()):
        raise _unauthorized("this is not that machine's token")
    said = _report(machine_id, body)
    if not await call.parts.fleet.heard(machine_id, body.address):
        raise NotFound(f"there is no record of machine {machine_id} (yet)")
    await call.parts.fleet.report(said)
    await call.parts.fleet.observe(machine_id, body.instance, "")
    if body.notice is not None:
        await call.parts.noticed(machine_id, body.notice.kind, body.notice.at)
    return Reply(200, Empty())


def _report(machine_id: str, body: bodies.MachineReport) -> Report:
    try:
        said = _REPORT.validate_python(body.report)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])[:64]
        raise Invalid(f"report: {where}: {first['msg']}", "report") from None
    if said.machine_id != machine_id:
        raise Invalid(f"report: it is not one of machine {machine_id}", "report")
    return replace(said, workspaces=())


def _unauthorized(message: str) -> ApiError:
    return ApiError(401, "unauthorized", message, headers={"WWW-Authenticate": "Bearer"})
