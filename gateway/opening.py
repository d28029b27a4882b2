"""WebSocket handshakes below the application: done again as it has decided for one that said the same.

Two handshakes of a kind differ in their Sec-WebSocket-Key and nothing else. An Opening stands where a Passing
(passing.py) stands, until the workspace has switched protocols; then the connection is a Session like any other.
What goes wrong goes to the application: it has the close codes and the pages.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any, Protocol, cast

from gateway import closing
from gateway.bounds import death_options, mind_peer
from gateway.headers import Header
from gateway.heartbeats import TooManySessions
from gateway.passing import Key, Way, Ways
from gateway.relay import EARLY_LIMIT, switching_protocols
from gateway.tunnel import Session
from gateway.upgrade import HEAD_LIMIT, UpstreamInvalid, accept_key, switched
from gateway.wire import connect, wired
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


class Opening(asyncio.Protocol):
    """One handshake that waits for the workspace's answer; the protocol of its connection there."""

    __slots__ = (
        "_accept", "_below", "_early", "_ending", "_key", "_received", "_request", "_session",
        "_sessions", "_target", "_task", "_upstream", "_way", "_ways",
    )  # fmt: skip

    def __init__(
        self, ways: Ways, sessions: Sessions, below: Below, way: Way, target: bytes, key: bytes
    ) -> None:
        self._ways, self._sessions, self._below, self._way = ways, sessions, below, way
        self._target, self._key, self._accept = target, key, accept_key(key)
        self._request = self._early = self._received = b""
        self._session: Session | None = None  # until it is handed over, or has failed
        self._upstream: asyncio.Transport | None = None
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
        self._ways.opening.set(self)
        way, options = self._way, death_options(self._ways.upstreams.peer_timeout)
        try:
            self._upstream = connect(self._ways.loop, way.host, way.port, self, options)
        except OSError:
            self._fail()
            return
        if self._upstream is None:
            self._task = self._ways.loop.create_task(self._connect())
            self._ways.tasks.add(self._task)
            self._task.add_done_callback(self._ways.tasks.discard)

    async def _connect(self) -> None:
        """Where that takes the event loop: a name to look up."""
        way, peer_timeout = self._way, self._ways.upstreams.peer_timeout
        try:
            transport, _ = await self._ways.loop.create_connection(lambda: self, way.host, way.port)
        except OSError:
            self._fail()
            return
        if peer_timeout and not transport.is_closing():
            mind_peer(transport, peer_timeout)

    # The connection to the workspace

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        upstream = self._upstream = cast(asyncio.Transport, transport)
        if self._session is None:
            upstream.abort()
            return
        way = self._way
        upstream.write(
            b"GET %b HTTP/1.1\r\n%bsec-websocket-key: %b\r\n\r\n" % (self._target, way.headers, self._key)
        )  # fmt: skip

    def data_received(self, data: bytes) -> None:
        session, upstream = self._session, self._upstream
        if session is None or upstream is None:
            return
        if self._received:
            data = self._received + data
        end = data.find(b"\r\n\r\n")
        if (len(data) if end < 0 else end) > HEAD_LIMIT:
            self._fail()
        elif end < 0:
            self._received = data
        else:
            try:
                answer = self._answer(data[:end])
            except UpstreamInvalid:
                self._fail()
                return
            self._hand_over(session, upstream, answer, data[end + 4 :])

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail()

    def _answer(self, head: bytes) -> bytes:
        """The client's 101; put together once for each of the workspace's that differs in more than its Accept."""
        before, accept, behind = head.partition(self._accept)
        known = self._way.switches.get((before, behind)) if accept else None
        if known is not None:
            return self._accept.join(known)
        answered = switched(head, [*self._way.offer, (b"sec-websocket-key", self._key)])
        answer = switching_protocols(self._accept, answered, self._sessions.back(answered))
        if len(self._way.switches) < SWITCHES_MAX:
            ours, _, rest = answer.partition(self._accept)
            self._way.switches[before, behind] = ours, rest
        return answer

    def _hand_over(
        self, session: Session, upstream: asyncio.Transport, answer: bytes, leftover: bytes
    ) -> None:
        self._over()
        below = self._below
        transport, connections = below.transport, below.connections
        below.let_go()
        transport = wired(transport)
        if not transport.is_closing():
            transport.write(answer)
        session.start(
            transport, upstream, connections, self._sessions.ended, loop=self._ways.loop,
            early_up=self._early, early_down=leftover,
        )  # fmt: skip
        self._sessions.opened(session)
        if self._ending:
            session.end(closing.RESTARTING)

    def _over(self) -> bool:
        """It is decided; whether it was not before."""
        was, self._session = self._session, None
        self._ways.opening.drop(self)
        return was is not None

    def _give_up(self) -> bool:
        """Whether there was anything to give up."""
        session = self._session
        if not self._over() or session is None:
            return False
        self._sessions.ended(session, 0)
        if self._upstream is not None:
            self._upstream.abort()
        if self._task is not None:
            self._task.cancel()
        return True

    def late(self) -> None:
        self._fail()

    def _fail(self) -> None:
        """What went wrong, the application finds out, and says."""
        if self._give_up():
            self._below.look_again(self._request + self._early)

    # As of a Passing

    def more(self, data: bytes) -> None:
        self._early += data
        if len(self._early) > EARLY_LIMIT:
            self._below.transport.pause_reading()

    def client_full(self, full: bool) -> None:
        """Nothing is written to it yet."""

    def client_gone(self) -> None:
        self._give_up()

    def close_after(self) -> None:
        self._ending = True
