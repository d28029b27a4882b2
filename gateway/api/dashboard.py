"""Calls of the dashboard: the account of everything, once or live, and what an operator does to machines."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress

from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.responses import Response

from gateway.api.errors import NotFound
from gateway.api.events import RECONNECT_MS, SEND_TIMEOUT, Streams
from gateway.api.operation import Call, Reply
from gateway.api.showing import machine_answer
from lifecycle.stores import StoreUnavailable


class DashboardCalls:
    """GET /api/dashboard; holds this process's streams."""

    def __init__(self) -> None:
        self.streams = Streams()

    async def get(self, call: Call) -> Reply | Response:
        if "text/event-stream" not in call.request.headers.get("accept", ""):
            return Reply(200, await call.parts.dashboard.account())
        self.streams.check(None)
        return EventSourceResponse(
            self._sent(call),
            headers={"Cache-Control": "no-store"},
            ping=call.parts.keep_alive,
            ping_message_factory=lambda: ServerSentEvent(comment="keep-alive"),
            send_timeout=SEND_TIMEOUT,
        )

    async def _sent(self, call: Call) -> AsyncGenerator[ServerSentEvent, None]:
        with self.streams.counted(None):
            yield ServerSentEvent(comment="accounts follow", retry=RECONNECT_MS)
            # Without Redis the stream ends, and the page comes back.
            with suppress(StoreUnavailable):
                async with aclosing(call.parts.dashboard.follow()) as accounts:
                    async for account in accounts:
                        yield ServerSentEvent(account.model_dump_json(by_alias=True))


async def drain(call: Call) -> Reply:
    """Nothing new comes to it, and the scaler leaves it so; once nobody is on it, it is given back."""
    return await _held(call, True)


async def undrain(call: Call) -> Reply:
    return await _held(call, False)


async def _held(call: Call, held: bool) -> Reply:
    machine_id = call.request.path_params["id"]
    fleet = call.parts.fleet
    if await fleet.machine(machine_id) is None:
        raise NotFound("there is no such machine; GET /api/machines lists them")
    await fleet.hold(machine_id, held)
    machine = await fleet.machine(machine_id)
    if machine is None:
        raise NotFound(f"machine {machine_id} is gone meanwhile")
    return Reply(200, machine_answer(machine))
