"""The control channel: what browsers tell of their people, and what they are told of their workspace.

    control = Control(store, notices, heartbeats, policy_of, trusted_since)
    news.listen(control.on_event)
    await control.serve(scope, receive, send, workspace)     # a WebSocket of somebody who may

An event only says that it is time to look: each look reads the record and the notices after the last one
told, so what a tab hears is true and in order whatever events are lost, doubled or late. All tabs of a
workspace share one look. Being connected is no activity: only `seen` and `stay` are.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import structlog
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from gateway import closing
from gateway.control_messages import SUBPROTOCOL, BadMessage, Hello, Seen, heard
from gateway.proxy_client import ABORT
from gateway.relay import refuse
from gateway.room import Look, NoticesSince, Records, Room
from gateway.tab import Pace, Tab
from lifecycle.activity import bound_once_running
from lifecycle.model import Event, Workspace, WorkspaceStatus
from lifecycle.plans import Policy
from lifecycle.stores import StoreError

log = structlog.get_logger(__name__)

HELLO_WITHIN = 10.0  # seconds from the handshake
SEEN_EVERY = 10.0  # seconds; what a tab says of its person in between adds nothing
MESSAGES = 5.0  # a second of one tab
TABS_MAX = 50  # of one workspace in this process; one more is refused with 4429
POSTS_KNOWN = (
    10_000  # workspaces whose last POST is remembered; beyond, the oldest may say it again
)
LOOKS_AT_ONCE = 32  # the others wait: Redis that is back after a while is not stormed


class Sightings(Protocol):
    def saw(self, workspace: str, kind: str, source: str) -> None:
        """Note it; Redis hears within a second, or once it is back."""


class ActiveRecords(Records, Protocol):
    """The store, as far as a person at a workspace changes it."""

    async def touch(self, workspace_id: str, kind: str, source: str = "api") -> bool: ...

    async def extend(self, workspace_id: str, seconds: float) -> Workspace: ...


class Control:
    """All tabs of this process."""

    def __init__(
        self,
        store: ActiveRecords,
        notices: NoticesSince,
        heartbeats: Sightings,
        policy_of: Callable[[Workspace], Policy],
        trusted_since: Callable[[], Awaitable[int | None]],
        *,
        max_tabs: int = 10_000,
    ) -> None:
        """max_tabs: of all workspaces together; one more is refused with 1013."""
        self._store, self._heartbeats, self._policy_of = store, heartbeats, policy_of
        self._trusted_since = trusted_since
        self._look = Look(store, notices, policy_of, trusted_since, LOOKS_AT_ONCE)
        self._max_tabs = max_tabs
        self._rooms: dict[str, Room] = {}
        self._tabs = 0
        self._posts: OrderedDict[str, tuple[Pace, float]] = OrderedDict()

    def __len__(self) -> int:
        return self._tabs

    def on_event(self, event: Event) -> None:
        """Look again at what it is about. Called with every event, in order."""
        if event.type == "events.reset":
            for each in self._rooms.values():
                each.look_anew()
        elif event.type.startswith("workspace."):
            room = self._rooms.get(event.data.get("workspace", ""))
            if room is not None:
                room.look()

    def end_all(self, close: closing.Close) -> None:
        for room in self._rooms.values():
            for tab in room.tabs:
                tab.close(close)

    async def serve(self, scope: Scope, receive: Receive, send: Send, workspace: Workspace) -> None:
        """One connection, from its handshake to its end."""
        room = self._rooms.get(workspace.id)
        if SUBPROTOCOL not in scope["subprotocols"]:
            await refuse(scope, receive, send, closing.BAD_MESSAGE)
        elif room is not None and len(room.tabs) >= TABS_MAX:
            await refuse(scope, receive, send, closing.TOO_MANY_SESSIONS)
        elif self._tabs >= self._max_tabs:
            await refuse(scope, receive, send, closing.OVERLOADED)
        else:
            await self._attend(scope, receive, send, workspace.id)

    async def _attend(self, scope: Scope, receive: Receive, send: Send, workspace_id: str) -> None:
        room = self._rooms.get(workspace_id)
        if room is None:
            room = self._rooms[workspace_id] = Room(workspace_id, self._look)
        abort = scope.get("extensions", {}).get(ABORT, _nothing)
        tab = Tab(send, abort, Pace(MESSAGES, _now()))
        room.tabs.add(tab)
        self._tabs += 1
        try:
            await receive()  # websocket.connect
            await send({"type": "websocket.accept", "subprotocol": SUBPROTOCOL})
            await self._listen(room, tab, receive)
        except OSError:
            pass  # gone before it was greeted
        finally:
            tab.gone()
            room.tabs.discard(tab)
            self._tabs -= 1
            if not room.tabs and self._rooms.get(workspace_id) is room:
                del self._rooms[workspace_id]
                room.close()

    async def _listen(self, room: Room, tab: Tab, receive: Receive) -> None:
        try:
            async with asyncio.timeout(HELLO_WITHIN):
                message = await receive()
            while message["type"] == "websocket.receive":
                await self._hear(room, tab, message.get("bytes"))
                message = await receive()
            return
        except TimeoutError:
            reason = f"no hello within {HELLO_WITHIN:g} s"
        except BadMessage as error:
            reason = str(error)
        tab.close(closing.BAD_MESSAGE, reason)
        while (await receive())["type"] != "websocket.disconnect":
            pass

    async def _hear(self, room: Room, tab: Tab, data: bytes | None) -> None:
        if not tab.pace.take(_now()):
            raise BadMessage(f"more than {MESSAGES:g} messages a second")
        said = heard(data)
        if isinstance(said, Hello) is tab.greeted:
            raise BadMessage("the first message, and only the first, is a hello")
        if isinstance(said, Hello):
            tab.greeted, tab.client, tab.seq = True, said.client, said.seq
            room.look_anew()
        elif isinstance(said, Seen):
            if _now() - tab.seen_at >= SEEN_EVERY:
                tab.seen_at = _now()
                await self._saw(room, tab.client)
        else:
            await self._stay(room)

    async def _saw(self, room: Room, source: str) -> None:
        """At once where a countdown runs: the others shall see it end."""
        if not room.counting_down:
            self._heartbeats.saw(room.id, "input", source)
            return
        try:
            await self._store.touch(room.id, "input", source)
        except StoreError:
            self._heartbeats.saw(room.id, "input", source)
        room.look()

    async def _stay(self, room: Room) -> None:
        try:
            workspace = await self._store.get(room.id)
            up = workspace is not None and workspace.status is WorkspaceStatus.RUNNING
            # On the move, it goes on with the clock that it had: what is said now counts there.
            if workspace is not None and (up or workspace.moved):
                await self._keep(workspace)
        except StoreError as error:
            # Nothing is stopped while Redis is away; what it is told afterwards counts from now.
            self._heartbeats.saw(room.id, "input", "stayed")
            log.warning("control.stay_late", workspace=room.id, why=str(error))
        room.look()

    async def _keep(self, workspace: Workspace) -> None:
        policy = self._policy_of(workspace)
        now_ms, trusted = await self._store.now_ms(), await self._trusted_since()
        await self._store.touch(workspace.id, "input", "stayed")
        stops = bound_once_running(workspace, policy, now_ms, trusted)
        if stops.at_ms is not None and not stops.hard:
            await self._store.extend(workspace.id, policy.idle_timeout)

    async def input(self, request: Request, workspace_id: str) -> Response:
        """POST /_gateway/input: `seen` of a client without the channel."""
        del request
        now = _now()
        pace, seen_at = self._posts.pop(workspace_id, (Pace(MESSAGES, now), float("-inf")))
        allowed, due = pace.take(now), now - seen_at >= SEEN_EVERY
        self._posts[workspace_id] = (pace, now if allowed and due else seen_at)
        while len(self._posts) > POSTS_KNOWN:
            self._posts.popitem(last=False)
        if not allowed:
            message = f"more than {MESSAGES:g} a second; one in {SEEN_EVERY:g} s is enough"
            return JSONResponse(
                {"error": {"code": "too_many_requests", "message": message, "retryAfter": 10}},
                429,
                {"cache-control": "no-store", "retry-after": "10"},
            )
        if due:
            room = self._rooms.get(workspace_id)
            if room is not None:
                await self._saw(room, "browser")
            else:
                self._heartbeats.saw(workspace_id, "input", "browser")
        return Response(status_code=204, headers={"cache-control": "no-store"})


def _now() -> float:
    return asyncio.get_running_loop().time()


def _nothing(*_: Any) -> None:
    """Where the server offers no way to cut a connection off."""
