"""HTTP below the application: what it has decided once for a kind of request is done again without it.

The application looks at a request as a whole: who asks, for whose workspace, what of it goes on. For the next
one that says the same, byte for byte, in all its headers, from the same address, the answer can only be the
same, as long as the workspace's record is. Then the request passes from the client's protocol straight to a
connection to the workspace, and the answer back: no task, no scope, bodies as they come, each side held back
when the other is slow.

    GatewayHttpProtocol ──take──▶ Ways ──▶ Passing ◀──Receiver── Connection (upstreams.py)

What is not that plain goes to the application: pages and shells, upgrades, waking, every refusal.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Protocol
from urllib.parse import unquote_to_bytes

from gateway import auth
from gateway.answer import CHUNKED, LAST_CHUNK, UNTIL_CLOSE, Chunks, Head, chunked
from gateway.deadlines import Deadlines
from gateway.headers import BadAnswer, Header, client_headers
from gateway.proxy import REPEATABLE
from gateway.proxy_client import Patience
from gateway.upgrade import TIMEOUT
from gateway.upstreams import HIGH_WATER, Connection, Lost, Refused, Route, Upstreams
from lifecycle.model import Workspace

REMEMBER = "ide_gateway.remember"
"""ASGI extension: a callable that takes the Way of this request, and its headers as they were looked at."""

FRESH = 30.0  # seconds until the application looks again: a cookie that has run out is seen by then
WAYS_MAX = 2048
BLOCK_MAX = 4096  # bytes of headers; longer ones are not remembered
_OURS = b"/_gateway"
_LINE = re.compile(
    rb"(GET|HEAD|POST|PUT|DELETE|OPTIONS|PATCH) (/[\x21\x22\x24-\x7e]*) HTTP/1\.1\r\n"
)
_BODYLESS = frozenset({204, 304})
_PLAIN_METHODS = frozenset(method.encode() for method in REPEATABLE)


@dataclass(frozen=True, slots=True)
class Way:
    """Where a request goes. headers: all that the workspace gets of it, line by line, and the empty line.
    length: of the request's body, or CHUNKED. vary: a Vary line for the answer, or nothing.
    offer: of a WebSocket handshake, all but its key; headers has the same, without the empty line.
    switches: answers to it that were looked at: what stands before and behind Sec-WebSocket-Accept, and
    the same of the client's 101."""

    workspace: Workspace
    host: str
    port: int
    headers: bytes
    length: int
    vary: bytes = b""
    offer: tuple[Header, ...] = ()
    switches: dict[tuple[bytes, bytes], tuple[bytes, bytes]] = field(
        default_factory=dict, compare=False
    )

    @property
    def key(self) -> tuple[str, int]:
        return self.workspace.id, self.workspace.epoch


Key = tuple[bytes, bytes, str]
"""Method, header lines, the client's address."""


class Known(Protocol):
    def known(self, workspace_id: str) -> Workspace | None:
        """The record of a running workspace as it was last read, if that still holds."""


class Below(Protocol):
    """The client's protocol, as a Passing needs it."""

    transport: asyncio.Transport

    @property
    def date_line(self) -> bytes: ...

    def passed(self, rest: bytes, close: bool) -> None:
        """The answer is whole. rest: what the client sent behind its request."""

    def look_again(self, request: bytes) -> None:
        """Nothing was answered and nothing has happened: this is for the application."""


class Late(Hashable, Protocol):
    def late(self) -> None: ...


class Ways:
    """What was decided, and what passes just now."""

    def __init__(
        self,
        routes: Known,
        upstreams: Upstreams,
        count: Callable[[int], None],
        patience: Patience | None = None,
    ) -> None:
        """count: called with the status of each answer that passed."""
        self.routes, self.upstreams, self.count = routes, upstreams, count
        self.patience = patience or Patience()
        self.loop = asyncio.get_running_loop()
        self.active: set[Passing] = set()
        self.tasks: set[asyncio.Task[None]] = set()
        self._ways: OrderedDict[Key, tuple[Way, float]] = OrderedDict()
        self._watch: asyncio.TimerHandle | None = None
        self.opening: Deadlines[Late] = Deadlines(self.loop, TIMEOUT, lambda late: late.late())

    def find(self, key: Key) -> Way | None:
        found = self._ways.get(key)
        if found is None:
            return None
        way, until = found
        if self.loop.time() < until and self.routes.known(way.workspace.id) is way.workspace:
            return way
        del self._ways[key]
        return None

    def remember(self, key: Key, way: Way, looked_at: Iterable[Header]) -> None:
        """looked_at: the headers that the application decided on. A key that does not say just these is
        none of that request's, and forgotten."""
        if header_lines(key[1]) != list(looked_at):
            return
        self._ways[key] = way, self.loop.time() + FRESH
        while len(self._ways) > WAYS_MAX:
            self._ways.popitem(last=False)

    def watch(self) -> None:
        """Look now and then after those that wait for somebody."""
        if self._watch is None:
            tick = min(self.patience.stall, self.patience.answer) / 4
            self._watch = self.loop.call_later(tick, self._look)

    def _look(self) -> None:
        self._watch = None
        now = self.loop.time()
        for passing in list(self.active):
            passing.look(now)
        if self.active:
            self.watch()

    def close(self) -> None:
        self.opening.close()
        for task in self.tasks:
            task.cancel()
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None


def asked(data: bytes) -> tuple[bytes, bytes, int, int] | None:
    """(method, target, where its header lines begin, where its body begins) of a request whose head is here
    and may pass; None: it is for the application."""
    line = _LINE.match(data)
    end = data.find(b"\r\n\r\n")
    if line is None or end < 0 or end - line.end() > BLOCK_MAX:
        return None
    target = line[2]
    if target.startswith(_OURS):
        return None
    # Spelled with %5f and the like it is ours, too.
    if b"%" in target[:31] and unquote_to_bytes(target[:31]).startswith(_OURS):
        return None
    return line[1], target, line.end(), end + 4


def header_lines(block: bytes) -> list[Header]:
    lines = (line.partition(b":") for line in block.split(b"\r\n") if line)
    return [(name.lower(), value.strip(b" \t")) for name, _, value in lines]


class Passing:
    """One request on its way, and its answer. A Receiver."""

    __slots__ = (
        "_below", "_block", "_chunks", "_close", "_connection", "_early", "_fresh", "_full", "_head",
        "_left", "_method", "_out", "_over", "_paused", "_repeatable", "_rest", "_route", "_since", "_target",
        "_uploaded", "_waiting_for", "_way", "_ways",
    )  # fmt: skip

    def __init__(self, ways: Ways, below: Below, way: Way, method: bytes, target: bytes) -> None:
        self._ways, self._below, self._way = ways, below, way
        self._method, self._target = method, target
        self._block = b""
        self._route: Route = ways.upstreams.route(way.key, way.host, way.port)
        self._connection: Connection | None = None
        self._head: Head | None = None
        self._rest = b""  # what came behind the request
        self._early = b""  # of its body, before there is a connection
        self._out = b""  # the answer's head, while its body follows at once
        self._left = max(0, way.length)
        self._chunks = Chunks() if way.length == CHUNKED else None
        self._uploaded = not way.length
        self._repeatable = self._uploaded and method in _PLAIN_METHODS
        self._fresh = False
        self._full = self._paused = self._close = False
        self._over = False  # the answer is whole, and the rest of the request goes nowhere
        self._waiting_for = "answer"
        self._since = ways.loop.time()

    def start(self, block: bytes, body: bytes) -> None:
        """block: the header lines as the client sent them. body: what came with the head."""
        self._block = block
        self._ways.active.add(self)
        self._ways.watch()
        self._route.busy += 1
        if not self._uploaded:
            self._waiting_for = "client"
        connection = self._route.rested()
        if connection is not None:
            self._ask(connection)
        else:
            self._connect()
        if body:
            self.more(body)

    def more(self, data: bytes) -> None:
        """What the client sends: of this request's body, or of the next request."""
        if self._uploaded:
            self._rest += data
            if len(self._rest) > HIGH_WATER:
                self._below.transport.pause_reading()
            return
        self._since = self._ways.loop.time()
        if self._chunks is not None:
            try:
                pieces, rest = self._chunks.feed(data)
            except BadAnswer as error:  # of the client's, this time
                self._fail(400, "bad_request", f"the request's body cannot be read: {error}")
                return
            out, done = chunked(pieces), self._chunks.done
            out += LAST_CHUNK if done else b""
        else:
            out, rest = data[: self._left], data[self._left :]
            self._left -= len(out)
            done = not self._left
        self._uploaded = done
        if done:
            self._waiting_for = "answer" if self._head is None else ""
        if not self._over:
            self._send(out)
        if rest:
            self.more(rest)
        if done and self._over:
            self._finish()

    def client_full(self, full: bool) -> None:
        """The client does not take what is written to it, or takes it again."""
        if self._connection is None or self._connection.transport is None:
            return
        if full:
            self._since, self._waiting_for = self._ways.loop.time(), "taking"
            self._connection.transport.pause_reading()
        elif not self._connection.transport.is_closing():
            self._waiting_for = "" if self._uploaded else "client"
            self._connection.transport.resume_reading()

    def client_gone(self) -> None:
        self._let_go()

    def close_after(self) -> None:
        """The client's connection ends with this answer."""
        self._close = True

    def look(self, now: float) -> None:
        """End what has waited for too long."""
        patience, waited = self._ways.patience, now - self._since
        if not self._waiting_for:
            return
        if waited <= (patience.answer if self._waiting_for == "answer" else patience.stall):
            return
        if self._head is not None:
            self._cut()
        elif self._waiting_for == "client" and not self._full:
            self._fail(408, "request_timeout", "the request's body did not come")
        else:
            self._fail(502, "upstream_down", "the workspace did not answer; reload its page")

    # To the workspace

    def _ask(self, connection: Connection) -> None:
        self._connection = connection
        request = b"%b %b HTTP/1.1\r\n%b" % (self._method, self._target, self._way.headers)
        early, self._early = self._early, b""
        connection.ask(self, request + early if early else request, self._method == b"HEAD")

    def _connect(self) -> None:
        task = self._ways.loop.create_task(self._connected())
        self._ways.tasks.add(task)
        task.add_done_callback(self._ways.tasks.discard)

    async def _connected(self) -> None:
        try:
            connection = await self._route.connection(fresh=self._fresh)
        except (OSError, TimeoutError) as error:
            if self in self._ways.active:
                self._unreachable(error)
            return
        if self not in self._ways.active:  # the client has left meanwhile
            connection.close()
            return
        self._ask(connection)
        if self._paused:
            self._hold_client(False)

    def _send(self, data: bytes) -> None:
        if self._connection is None:
            self._early += data
            if len(self._early) > HIGH_WATER:
                self._hold_client(True)
        elif self._connection.transport is not None:
            self._connection.transport.write(data)

    def _hold_client(self, hold: bool) -> None:
        self._paused = hold
        transport = self._below.transport
        if not transport.is_closing():
            (transport.pause_reading if hold else transport.resume_reading)()

    # From the workspace: a Receiver

    def answered(self, head: Head, follows: bool) -> None:
        if head.to_client is None:
            head.to_client = _to_client(head)
        self._head = head
        self._waiting_for = "" if self._uploaded else "client"
        self._ways.count(head.status)
        more = self._way.vary + b"connection: close\r\n" if self._close else self._way.vary
        out = b"%b%b%b\r\n" % (head.to_client, self._below.date_line, more)
        if follows:
            self._out = out  # one write for both: each costs more than all that Python does here
        else:
            self._below.transport.write(out)

    def body(self, data: bytes) -> None:
        if self._head is not None and self._head.length == UNTIL_CLOSE:
            data = chunked([data])
        if self._out:
            self._below.transport.writelines((self._out, data))
            self._out = b""
        else:
            self._below.transport.write(data)

    def chunks(self, pieces: list[bytes]) -> None:
        self._below.transport.write(chunked(pieces))

    def ended(self) -> None:
        head, connection = self._head, self._connection
        assert head is not None
        assert connection is not None
        if head.length < 0:
            self._below.transport.write(LAST_CHUNK)
        elif self._out:
            self._below.transport.write(self._out)
        self._connection = None
        if self._uploaded:
            connection.release()
            self._finish()
        else:
            connection.close()
            self._over = True
            self._hold_client(False)

    def lost(self, error: Exception) -> None:
        connection, self._connection = self._connection, None
        if self._head is not None:
            self._cut()
        elif isinstance(error, Lost) and self._repeatable and connection and connection.answers:
            self._fresh, self._repeatable = True, False
            self._connect()
        else:
            self._unreachable(error)

    def full(self, full: bool) -> None:
        self._full = full
        self._since = self._ways.loop.time()
        self._hold_client(full)

    # Ends

    def _finish(self) -> None:
        self._let_go()
        self._below.passed(self._rest, self._close)

    def _unreachable(self, error: Exception) -> None:
        if not self._way.length and (isinstance(error, Refused) or self._method in _PLAIN_METHODS):
            self._let_go()
            request = b"%b %b HTTP/1.1\r\n%b" % (self._method, self._target, self._block)
            self._below.look_again(request + b"\r\n" + self._rest)
        else:
            self._fail(502, "upstream_down", "the workspace did not answer; reload its page")

    def _fail(self, status: int, code: str, message: str) -> None:
        self._let_go()
        self._ways.count(status)
        self._below.transport.write(_problem(status, code, message))
        self._below.passed(b"", True)

    def _cut(self) -> None:
        """What is truncated has to look truncated."""
        self._let_go()
        self._below.transport.abort()

    def _let_go(self) -> None:
        if self not in self._ways.active:
            return
        self._ways.active.discard(self)
        self._route.busy -= 1
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.receiver = None
            connection.close()


def _to_client(head: Head) -> bytes:
    """Status line and headers for the client. Raises BadAnswer."""
    headers = client_headers(
        head.headers, own_cookie_names=auth.OWN_COOKIE_NAMES, bodyless=head.status in _BODYLESS
    )
    lines = [b"HTTP/1.1 %d %b" % (head.status, _REASONS.get(head.status, b""))]
    lines += [b"%b: %b" % header for header in headers]
    if head.length < 0:
        lines.append(b"transfer-encoding: chunked")
    return b"\r\n".join([*lines, b""])


def _problem(status: int, code: str, message: str) -> bytes:
    body = json.dumps({"error": {"code": code, "message": message}}).encode()
    lines = (
        b"HTTP/1.1 %d %b" % (status, _REASONS.get(status, b"")),
        b"content-type: application/json",
        b"cache-control: no-store",
        b"content-length: %d" % len(body),
        b"connection: close",
    )
    return b"\r\n".join([*lines, b"", body])


_REASONS = {status.value: status.phrase.encode() for status in HTTPStatus}


def ways_of(application: Any) -> Ways | None:
    """The Ways that an ASGI application offers, if it does."""
    found = getattr(application, "ways", None)
    return found if isinstance(found, Ways) else None
