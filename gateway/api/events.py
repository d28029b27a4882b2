"""What happened: the newest or the following events as a list, or all of them live as server-sent events.

A person sees the events of their own workspaces. A live stream resumes after `Last-Event-ID` (or
`after`) as far as the events are kept; without either it begins now.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, contextmanager, suppress

from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.responses import Response

from gateway.api import bodies
from gateway.api.errors import ApiError, Invalid
from gateway.api.operation import Call, Reply
from gateway.api.showing import event_answer
from gateway.api.workspaces import owned
from lifecycle.model import Event
from lifecycle.stores import StoreUnavailable

PAGE = 500  # events read at once
SCAN = 2000  # of the newest events, when only some of them are the caller's
RECONNECT_MS = 2000
SEND_TIMEOUT = 30  # seconds; a reader that takes nothing for so long is let go, and may resume
RESET = "events.reset"  # the stream lost its tail and numbers anew
MAX_STREAMS = 500  # per process; more are told 503
MAX_STREAMS_PER_CALLER = 50  # more are told 429

Visible = Callable[[Event], bool]


class Streams:
    """Open event streams, bounded: each holds a connection and a place in the fan-out."""

    def __init__(self) -> None:
        self._open: dict[str | None, int] = {}

    def check(self, caller: str | None) -> None:
        """Raises when there is no room for one more. caller: a user, None for the operator."""
        if sum(self._open.values()) >= MAX_STREAMS:
            message = f"this gateway already sends {MAX_STREAMS} event streams; try again later"
            raise ApiError(503, "too_many_streams", message, retry_after=RECONNECT_MS // 1000)
        if caller is not None and self._open.get(caller, 0) >= MAX_STREAMS_PER_CALLER:
            message = f"{MAX_STREAMS_PER_CALLER} event streams are open already; close one"
            raise ApiError(429, "too_many_streams", message, retry_after=RECONNECT_MS // 1000)

    @contextmanager
    def counted(self, caller: str | None) -> Iterator[None]:
        self._open[caller] = self._open.get(caller, 0) + 1
        try:
            yield
        finally:
            self._open[caller] -= 1
            if not self._open[caller]:
                del self._open[caller]


class EventCalls:
    """GET /api/events; holds this process's streams."""

    def __init__(self) -> None:
        self.streams = Streams()

    async def get(self, call: Call) -> Reply | Response:
        query: bodies.EventsQuery = call.query
        workspace = (await owned(call, query.workspace_id)).id if query.workspace_id else None
        visible = await _visible(call, workspace)
        if "text/event-stream" not in call.request.headers.get("accept", ""):
            rows = await _listed(call, visible, query.after or "", query.limit)
            return Reply(200, [event_answer(row) for row in rows])
        after = _resume_after(call) or query.after or ""
        self.streams.check(call.user)
        return EventSourceResponse(
            self._sent(call, visible, workspace, after),
            headers={"Cache-Control": "no-store"},
            ping=call.parts.keep_alive,
            ping_message_factory=lambda: ServerSentEvent(comment="keep-alive"),
            send_timeout=SEND_TIMEOUT,
        )

    async def _sent(
        self, call: Call, visible: Visible, workspace: str | None, after: str
    ) -> AsyncGenerator[ServerSentEvent, None]:
        with self.streams.counted(call.user):
            yield ServerSentEvent(comment="events follow", retry=RECONNECT_MS)
            # Without Redis the stream ends; the browser comes back and resumes where it was.
            with suppress(StoreUnavailable):
                async with aclosing(_followed(call, workspace, after)) as events:
                    async for event in events:
                        if visible(event):
                            text = event_answer(event).model_dump_json(by_alias=True)
                            yield ServerSentEvent(text, id=event.id)


async def _followed(call: Call, workspace: str | None, after: str) -> AsyncGenerator[Event, None]:
    """What came after that id, then what comes. Subscribed first, so that nothing falls between."""
    history = call.parts.history
    with call.parts.subscription(workspace) as arriving:
        sent = after or next((event.id for event in await history("", 1)), "0-0")
        behind = bool(after)
        while True:
            while behind and (page := await history(sent, PAGE)):
                for event in page:
                    yield event
                sent = page[-1].id
            event = await arriving.get()
            # It was full: its oldest may be gone, so what came is read from the stream instead.
            behind = arriving.qsize() >= arriving.maxsize - 1
            if event.type == RESET or (not behind and _place(event.id) > _place(sent)):
                yield event
                sent = event.id


async def _listed(call: Call, visible: Visible, after: str, limit: int) -> list[Event]:
    """Oldest first. Without `after` the newest that are visible, as far as SCAN reaches back."""
    if not after:
        newest = await call.parts.history("", SCAN)
        return [event for event in newest if visible(event)][-limit:]
    rows: list[Event] = []
    while len(rows) < limit and (page := await call.parts.history(after, PAGE)):
        rows += [event for event in page if visible(event)]
        after = page[-1].id
    return rows[:limit]


async def _visible(call: Call, workspace: str | None) -> Visible:
    """Is an event for this caller's eyes? A person's new workspaces are noticed by their own events."""
    if call.user is None or workspace is not None:
        return lambda event: workspace is None or event.data.get("workspace") == workspace
    own = {row.id for row in await call.parts.store.list(call.user)}

    def mine(event: Event) -> bool:
        name = event.data.get("workspace")
        if event.data.get("user") == call.user and name:
            own.add(name)
        return name in own

    return mine


def _resume_after(call: Call) -> str:
    """The browser's own header, sent when it reconnects."""
    text = call.request.headers.get("last-event-id", "")
    if text and not re.fullmatch(bodies.EVENT_ID, text):
        message = "Last-Event-ID: must be the id of an event, such as 1700000000000-0"
        raise Invalid(message, "Last-Event-ID")
    return text


def _place(event_id: str) -> tuple[int, int]:
    ms, _, n = event_id.partition("-")
    return int(ms), int(n or 0)
