"""Connections to workspaces over HTTP: opened when needed, kept while they rest, never shared between routes.

A Connection reads one answer after another and gives each to the Receiver that asked. It holds nothing back:
what comes in is given on at once, and whoever cannot take it pauses the connection.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict, deque
from collections.abc import Hashable, Sequence
from typing import Protocol, cast

from gateway.answer import CHUNKED, HEAD_MAX, UNTIL_CLOSE, Chunks, Head, read_head
from gateway.bounds import mind_peer
from gateway.headers import BadAnswer

CONNECTIONS_MAX = 128  # per route; the next request waits until one is free
KEEP_ALIVE = 4.0
"""Seconds of rest. Below the 5 s after which Node closes an idle connection: none is picked while it closes."""
HIGH_WATER = 65536
"""Bytes waiting to be written to one side above which the other side is not read."""


class Lost(ConnectionError):
    """The connection broke before the answer was whole. fresh: it had carried no answer before."""


class Refused(ConnectionError):
    """Nobody listens there."""


class Receiver(Protocol):
    """Whoever asked. After `ended` or `lost` it hears no more."""

    def answered(self, head: Head, follows: bool) -> None:
        """follows: some of the body, or its end, is told in the same moment."""

    def body(self, data: bytes) -> None: ...

    def chunks(self, pieces: list[bytes]) -> None:
        """Of a body that came in chunks."""

    def ended(self) -> None: ...

    def lost(self, error: Exception) -> None:
        """BadAnswer, or Lost."""

    def full(self, full: bool) -> None:
        """More than HIGH_WATER waits to be written to the workspace, or no longer."""


class Connection(asyncio.Protocol):
    """One request at a time: `ask`, then the receiver hears of the answer."""

    __slots__ = (
        "_bodyless", "_chunks", "_dropped", "_head", "_left", "_received", "_route", "answers",
        "receiver", "rested_at", "transport",
    )  # fmt: skip

    def __init__(self, route: Route) -> None:
        self._route = route
        self.transport: asyncio.Transport | None = None
        self.receiver: Receiver | None = None
        self.answers = 0
        """Read to their ends so far."""
        self.rested_at = 0.0
        self._received = b""
        self._head: Head | None = None
        self._chunks: Chunks | None = None
        self._left = 0
        self._bodyless = False
        self._dropped = ""

    def ask(self, receiver: Receiver, request: bytes, bodyless: bool) -> None:
        """Send a request's head, with as much of its body as is there. bodyless: HEAD is asked."""
        assert self.transport is not None
        self.receiver, self._bodyless, self._head = receiver, bodyless, None
        self.transport.write(request)

    def release(self) -> None:
        """The answer is whole and so was the request: it rests, or it is closed if that cannot be."""
        head, transport = self._head, self.transport
        if head is not None and head.reusable and not self._received and transport is not None:
            if not transport.is_closing():
                transport.resume_reading()  # it may have been held back up to its last byte
            self._route.rest(self)
        else:
            self.close()

    def close(self, why: str = "") -> None:
        """At once. A receiver that still waits hears that it is lost."""
        self._dropped = self._dropped or why
        if self.transport is not None:
            self.transport.abort()

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=HIGH_WATER)

    def connection_lost(self, exc: Exception | None) -> None:
        self._route.gone(self)
        receiver, self.receiver = self.receiver, None
        if receiver is None:
            return
        head = self._head
        if head is not None and head.length == UNTIL_CLOSE and exc is None and not self._dropped:
            receiver.ended()
            return
        receiver.lost(Lost(self._dropped or str(exc or "it closed the connection too early")))

    def pause_writing(self) -> None:
        if self.receiver is not None:
            self.receiver.full(True)

    def resume_writing(self) -> None:
        if self.receiver is not None:
            self.receiver.full(False)

    def data_received(self, data: bytes) -> None:
        receiver = self.receiver
        if receiver is None:
            self.close()  # nobody asked: what comes now could be taken for the next answer
            return
        try:
            while data and self.receiver is receiver:
                data = self._read(data, receiver)
        except BadAnswer as error:
            self.receiver = None
            self.close()
            receiver.lost(error)
            return

    def _read(self, data: bytes, receiver: Receiver) -> bytes:
        """Give on what this is; what is left is looked at again."""
        head = self._head
        if head is None:
            return self._read_head(data, receiver)
        if self._chunks is not None:
            pieces, data = self._chunks.feed(data)
            if pieces:
                receiver.chunks(pieces)
            if self._chunks.done:
                self._end(receiver, data)
            return b""
        if head.length == UNTIL_CLOSE:
            receiver.body(data)
            return b""
        body, rest = (data, b"") if len(data) <= self._left else self._split(data)
        self._left -= len(body)
        receiver.body(body)
        if not self._left:
            self._end(receiver, rest)
        return b""

    def _split(self, data: bytes) -> tuple[bytes, bytes]:
        return data[: self._left], data[self._left :]

    def _read_head(self, data: bytes, receiver: Receiver) -> bytes:
        start = max(0, len(self._received) - 3)  # its end may straddle two reads
        data = self._received + data if self._received else data
        end = data.find(b"\r\n\r\n", start) + 4
        if (end if end >= 4 else len(data)) > HEAD_MAX:
            raise BadAnswer(f"its answer's head has more than {HEAD_MAX} bytes")
        if end < 4:
            self._received = data
            return b""
        self._received = b""
        head = read_head(data[:end], self._bodyless)
        rest = data[end:]
        if head.interim:
            return rest
        self._head, self._left = head, head.length
        self._chunks = Chunks() if head.length == CHUNKED else None
        receiver.answered(head, not head.length or (bool(rest) and head.length > 0))
        if not head.length:
            self._end(receiver, rest)
            return b""
        return rest

    def _end(self, receiver: Receiver, rest: bytes) -> None:
        """rest: more than was announced, so that this connection is not used again."""
        self._chunks = None
        self._received = rest
        self.answers += 1
        if self.receiver is receiver:
            self.receiver = None
            receiver.ended()


class Route:
    """The connections to one workspace in one epoch."""

    def __init__(
        self, host: str, port: int, connect_timeout: float, peer_timeout: float = 0
    ) -> None:
        self._peer_timeout = peer_timeout
        self.host, self.port = host, port
        self.busy = 0
        """Requests in flight."""
        self.closed = False
        self._connect_timeout = connect_timeout
        self._loop = asyncio.get_running_loop()
        self._open: set[Connection] = set()
        self._resting: deque[Connection] = deque()
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._opening = 0

    def rested(self) -> Connection | None:
        """A connection that has served before; None when none rests."""
        while self._resting:
            connection = self._resting.pop()
            transport = connection.transport
            if (
                transport is not None
                and not transport.is_closing()
                and self._loop.time() - connection.rested_at < KEEP_ALIVE
            ):
                return connection
            connection.close()
        return None

    async def connection(self, *, fresh: bool = False) -> Connection:
        """One to ask with. Give it back: it rests, or is closed. Raises Refused, TimeoutError, OSError."""
        while len(self._open) + self._opening >= CONNECTIONS_MAX and not self._resting:
            await self._turn()
        if self.closed:
            raise Lost("the workspace has just been stopped")
        found = None if fresh else self.rested()
        return found or await self._connect()

    async def _turn(self) -> None:
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._waiting.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done():
                self._wake()  # it was for us; somebody else can have it
            raise
        finally:
            with contextlib.suppress(ValueError):
                self._waiting.remove(waiter)

    async def _connect(self) -> Connection:
        self._opening += 1
        try:
            async with asyncio.timeout(self._connect_timeout):
                transport, connection = await self._loop.create_connection(
                    lambda: Connection(self), self.host, self.port
                )
            if self._peer_timeout and not transport.is_closing():
                mind_peer(transport, self._peer_timeout)
        except ConnectionRefusedError as error:
            raise Refused(str(error)) from None
        finally:
            self._opening -= 1
            self._wake()
        self._open.add(connection)
        if self.closed:
            connection.close()
            raise Lost("the workspace has just been stopped")
        return connection

    def rest(self, connection: Connection) -> None:
        if self.closed:
            connection.close()
            return
        connection.rested_at = self._loop.time()
        self._resting.append(connection)
        if self._waiting:
            self._wake()

    def gone(self, connection: Connection) -> None:
        self._open.discard(connection)
        with contextlib.suppress(ValueError):
            self._resting.remove(connection)
        self._wake()

    def _wake(self) -> None:
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def tidy(self) -> None:
        """Close what has rested for too long."""
        oldest = self._loop.time() - KEEP_ALIVE
        while self._resting and self._resting[0].rested_at < oldest:
            self._resting.popleft().close()

    def drop(self) -> None:
        self.closed = True
        for connection in list(self._open):
            connection.close("the workspace has just been stopped")
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)


class Upstreams:
    """Routes by their keys: (workspace, epoch). No other user's request travels on their connections."""

    def __init__(self, *, connect_timeout: float, max_routes: int, peer_timeout: float = 0) -> None:
        """max_routes: above it the longest unused routes without a request in flight are closed.
        peer_timeout: seconds (bounds.py); 0 leaves it to the system."""
        self.peer_timeout = peer_timeout
        self._connect_timeout, self._max_routes = connect_timeout, max_routes
        self._routes: OrderedDict[tuple[Hashable, str, int], Route] = OrderedDict()
        self._tidying: asyncio.TimerHandle | None = None

    def route(self, key: Hashable, host: str, port: int) -> Route:
        """Count it as busy while a request is in flight."""
        where = key, host, port
        route = self._routes.get(where)
        if route is None:
            route = self._routes[where] = Route(
                host, port, self._connect_timeout, self.peer_timeout
            )
            self._make_room()
        self._routes.move_to_end(where)
        if self._tidying is None:
            self._tidying = asyncio.get_running_loop().call_later(KEEP_ALIVE, self._tidy)
        return route

    def _make_room(self) -> None:
        excess = len(self._routes) - self._max_routes
        if excess > 0:
            newest = next(reversed(self._routes))
            unused = [k for k, r in self._routes.items() if not r.busy and k != newest]
            for old in unused[:excess]:
                self._routes.pop(old).drop()

    def _tidy(self) -> None:
        self._tidying = None
        for route in self._routes.values():
            route.tidy()
        if self._routes:
            self._tidying = asyncio.get_running_loop().call_later(KEEP_ALIVE, self._tidy)

    def drop(self, key: Hashable) -> None:
        """Close the connections under this key at once, those in use too. An unknown key is success."""
        for where in [where for where in self._routes if where[0] == key]:
            self._routes.pop(where).drop()

    def close(self) -> None:
        while self._routes:
            self._routes.popitem()[1].drop()
        if self._tidying is not None:
            self._tidying.cancel()
            self._tidying = None


def request_head(method: str, target: bytes, headers: Sequence[tuple[bytes, bytes]]) -> bytes:
    """The bytes of a request's head. Raises ValueError for what must not be sent."""
    if b"\n" in target or b" " in target:
        raise ValueError(f"not a request target: {target!r}")
    return b"%b %b HTTP/1.1\r\n%b" % (method.encode("ascii"), target, header_block(headers))


def header_block(headers: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Header lines and the empty line. Raises ValueError for what must not be sent."""
    block = b"\r\n".join([*(b"%b: %b" % header for header in headers), b"", b""])
    if block.count(b"\n") != len(headers) + 1 or block.count(b"\r") != len(headers) + 1:
        raise ValueError("a line break in a header")
    return block
