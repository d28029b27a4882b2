"""WebSocket handshakes below the application: done again as it has decided for one that said the same.

Two handshakes of a kind differ in their Sec-WebSocket-Key and nothing else. An Opening stands where a Passing
(passing.py) stands, until the workspace has switched protocols; then the connection is a Session like any other.
What goes wrong goes to the application: it has the close codes and the pages.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any, Protocol

from gateway import closing
from gateway.headers import Header
from gateway.heartbeats import TooManySessions
from gateway.passing import Key, Way, Ways
from gateway.relay import EARLY_LIMIT, switching_protocols
from gateway.tunnel import Session
from gateway.upgrade import Upstream, UpstreamError, accept_key, open_upstream
from gateway.wire import wired
from lifecycle.model import Workspace

KIND = b"WEBSOCKET"
"""Stands for the method in the key of what is remembered."""

_NAMES = (b"Sec-WebSocket-Key: ", b"sec-websocket-key: ")
_LINE_FEED = 10
SWITCHES_MAX = (
    4  # answers of one workspace that are kept: they differ where one has a date, or a cookie
)
_KEY = re.compile(rb"[A-Za-z0-9+/]{22}==\r\n")


class Sessions(Protocol):
    """Who counts sessions."""

    def admit(self, workspace: Workspace) -> Session:
        """Raises TooManySessions."""

    def opened(self, session: Session) -> None: ...

    def ended(self, session: Session, code: int) -> None: ...

    def back(self, answered: list[Header]) -> list[Header]:
        """Of the workspace's headers, those for the client."""


class Below(Protocol):
    """The client's protocol, as an Opening needs it."""

    transport: asyncio.Transport
    connections: set[Any]

    def let_go(self) -> None:
        """It has nothing more to do with its connection."""

    def look_again(self, request: bytes) -> None: ...


def handshake(block: bytes, address: str) -> tuple[Key, bytes] | None:
    """(what is remembered of it, its Sec-WebSocket-Key); None for another request, or another spelling."""
    for name in _NAMES:
        at = block.find(name)
        if at == 0 or (at > 0 and block[at - 1] == _LINE_FEED):
            key = block[at + len(name) : at + len(name) + 26]
            if _KEY.fullmatch(key):
                return (KIND, block[:at] + block[at + len(name) + 26 :], address), key[:24]
    return None


def without_key(said: list[Header]) -> list[Header]:
    return [header for header in said if header[0] != b"sec-websocket-key"]


class Opening:
    """One handshake that waits for the workspace's answer."""

    __slots__ = (
        "_accept", "_below", "_early", "_ending", "_key", "_known", "_looked_at", "_request", "_session",
        "_sessions", "_target", "_task", "_way", "_ways",
    )  # fmt: skip

    def __init__(
        self, ways: Ways, sessions: Sessions, below: Below, way: Way, target: bytes, key: bytes
    ) -> None:
        self._ways, self._sessions, self._below, self._way = ways, sessions, below, way
        self._target, self._key, self._accept = target, key, accept_key(key)
        self._known: tuple[bytes, bytes] | None = None
        self._looked_at = (b"", b"")
        self._request = self._early = b""
        self._session: Session | None = None
        self._task: asyncio.Task[None] | None = None
        self._ending = False

    def start(self, request: bytes, early: bytes) -> None:
        """request: its head as it came. early: what came behind it."""
        self._request, self._early = request, early
        try:
            self._session = self._sessions.admit(self._way.workspace)
        except TooManySessions:
            self._below.look_again(request + early)
            return
        self._task = self._ways.loop.create_task(self._open(self._session))
        self._ways.tasks.add(self._task)
        self._task.add_done_callback(self._ways.tasks.discard)

    async def _open(self, session: Session) -> None:
        way, upstream, target, key = self._way, None, self._target, self._key
        offer = [*way.offer, (b"sec-websocket-key", key)]
        request = b"GET %b HTTP/1.1\r\n%bsec-websocket-key: %b\r\n\r\n" % (target, way.headers, key)
        try:
            upstream = await open_upstream(
                way.host,
                way.port,
                target,
                offer,
                peer_timeout=self._ways.upstreams.peer_timeout,
                request=request,
                is_known=self._is_known,
            )
        except UpstreamError:
            pass
        finally:
            if upstream is None:
                self._sessions.ended(session, 0)
        if upstream is None:
            self._below.look_again(self._request + self._early)
        else:
            self._hand_over(session, upstream)

    def _is_known(self, head: bytes) -> bool:
        before, accept, behind = head.partition(self._accept)
        if not accept:
            return False
        self._known = self._way.switches.get((before, behind))
        self._looked_at = before, behind
        return self._known is not None

    def _answer(self, upstream: Upstream) -> bytes:
        """The client's 101; put together once for each of the workspace's that differs in more than its Accept."""
        if self._known is not None:
            return self._accept.join(self._known)
        back = self._sessions.back(upstream.headers)
        answer = switching_protocols(self._accept, upstream.headers, back)
        before, _, behind = answer.partition(self._accept)
        if len(self._way.switches) < SWITCHES_MAX:
            self._way.switches[self._looked_at] = before, behind
        return answer

    def _hand_over(self, session: Session, upstream: Upstream) -> None:
        below, answer = self._below, self._answer(upstream)
        transport, connections = below.transport, below.connections
        below.let_go()
        transport = wired(transport)
        if not transport.is_closing():
            transport.write(answer)
        session.start(
            transport, upstream.transport, connections, self._sessions.ended,
            early_up=self._early, early_down=upstream.leftover,
        )  # fmt: skip
        self._sessions.opened(session)
        if self._ending:
            session.end(closing.RESTARTING)

    # As of a Passing

    def more(self, data: bytes) -> None:
        self._early += data
        if len(self._early) > EARLY_LIMIT:
            self._below.transport.pause_reading()

    def client_full(self, full: bool) -> None:
        """Nothing is written to it yet."""

    def client_gone(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def close_after(self) -> None:
        self._ending = True
