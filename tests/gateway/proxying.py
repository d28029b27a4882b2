"""A gateway that only proxies, raw upstreams that do as they are told, raw clients."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.types import Receive, Scope, Send

from gateway.answer import CHUNKED
from gateway.auth import OWN_COOKIE_NAMES, Keys, authorization_is_ours
from gateway.headers import Header, refuse, upstream_headers
from gateway.http import GatewayHttpProtocol
from gateway.passing import Key, Way, Ways, header_lines
from gateway.proxy import HttpProxy, UpstreamDown, framed
from gateway.proxy_client import Outcome, Patience
from gateway.relay import GatewayWebSocketProtocol
from gateway.upstreams import header_block
from lifecycle.model import Workspace
from lifecycle.model import WorkspaceStatus as W
from tests import prompt

KEYS = Keys("signing-key-of-the-gateway", "api-key-of-the-gateway")

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class DecidingWays(Ways):
    """Decides by itself, so that the first request of a kind passes below the application, too."""

    def __init__(self, app: Gateway, patience: Patience | None) -> None:
        super().__init__(AlwaysKnown(), app.proxy.upstreams, app.counted.append, patience)
        self._app = app

    def find(self, key: Key) -> Way | None:
        method, block, _ = key
        said = header_lines(block)
        if not WHOLE.fullmatch(block) or refuse(said, method.decode()) or dict(said).get(b"expect"):
            return None
        if dict(said).get(b"connection", b"keep-alive").lower() != b"keep-alive":
            return None
        in_chunks = b"transfer-encoding" in dict(said)
        length = CHUNKED if in_chunks else int(dict(said).get(b"content-length", 0))
        sent = header_block(framed(method.decode(), self._app.headers(said), in_chunks))
        name, epoch = self._app.route_key
        workspace = Workspace(name, "ada", W.RUNNING, 0, 0, epoch=epoch)
        return Way(workspace, "127.0.0.1", self._app.target, sent, length)


class AlwaysKnown:
    def known(self, workspace_id: str) -> Workspace | None:
        raise AssertionError("it decides by itself")


WHOLE = re.compile(rb"(?:[\w!#$%&'*+.^`|~-]+:[\t\x20-\x7e\x80-\xff]*\r\n)*")


class Upstream:
    """Runs handler on every connection; remembers every byte that came."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.received: list[bytearray] = []
        """One per connection, in order of arrival."""
        self.closed = asyncio.Event()
        """Some connection has been closed by the gateway."""
        self.port = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        seen = bytearray()
        self.received.append(seen)
        _remember(reader, seen, self.closed)
        with contextlib.suppress(ConnectionError, EOFError, asyncio.CancelledError):
            await self.handler(reader, writer)
        writer.close()

    @property
    def idle(self) -> bool:
        """Every connection is over."""
        return all(task.done() for task in self._tasks)

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _remember(reader: asyncio.StreamReader, seen: bytearray, closed: asyncio.Event) -> None:
    feed_data, feed_eof, set_exception = reader.feed_data, reader.feed_eof, reader.set_exception

    def remember(data: bytes) -> None:
        if len(seen) < 2**20:
            seen.extend(data)
        feed_data(data)

    def eof() -> None:
        closed.set()
        feed_eof()

    def broken(error: Exception) -> None:
        closed.set()
        set_exception(error)

    reader.feed_data, reader.feed_eof, reader.set_exception = remember, eof, broken  # type: ignore[method-assign]


@contextlib.asynccontextmanager
async def upstream(handler: Handler, **options: Any) -> AsyncIterator[Upstream]:
    up = Upstream(handler)
    server = await asyncio.start_server(up.accept, "127.0.0.1", 0, **options)
    up.port = server.sockets[0].getsockname()[1]
    try:
        yield up
    finally:
        server.close()
        await up.stop()


@dataclass
class Gateway:
    """Every request goes to `target`. `outcomes` and `down` tell how each ended."""

    proxy: HttpProxy
    port: int = 0
    target: int = 0
    route_key: Any = ("w1", 1)
    outcomes: list[Outcome] = field(default_factory=list)
    down: list[str] = field(default_factory=list)
    connections: set[Any] = field(default_factory=set)
    """Open connections of clients."""
    ways: Ways | None = None
    """Below the application, where it has one."""
    counted: list[int] = field(default_factory=list)
    """Statuses of what passed below."""

    @property
    def over(self) -> bool:
        """Something was asked, and nothing is under way."""
        return bool(self.outcomes) if self.ways is None else not self.ways.active

    def headers(self, said: list[Header], scheme: str = "http") -> list[Header]:
        return upstream_headers(
            said,
            host="w1.localhost",
            client_ip="127.0.0.1",
            scheme=scheme,
            trusted=False,
            own_cookie_names=OWN_COOKIE_NAMES,
            drop_authorization=authorization_is_ours(said, KEYS),
            extra=("X-Secret", "of-the-ide"),
            websocket=False,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        reason = refuse(scope["headers"], scope["method"], scope["raw_path"])
        if reason:
            return await _say(send, 400, reason, (b"connection", b"close"))
        headers = self.headers(scope["headers"], scope["scheme"])
        try:
            outcome = await self.proxy.forward(
                scope,
                receive,
                send,
                route_key=self.route_key,
                host="127.0.0.1",
                port=self.target,
                headers=headers,
            )
        except UpstreamDown as error:
            self.down.append(error.kind)
            return await _say(send, 502, error.kind)
        self.outcomes.append(outcome)


async def _say(send: Send, status: int, text: str, *more: Header) -> None:
    headers = [(b"content-length", str(len(text)).encode()), *more]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})


@contextlib.asynccontextmanager
async def gateway(
    target: int = 0,
    patience: Patience | None = None,
    max_routes: int = 1000,
    below: bool = False,
    kind: type[Gateway] = Gateway,
) -> AsyncIterator[Gateway]:
    """below: requests pass below the application where they may. kind: of application."""
    proxy = HttpProxy(own_cookie_names=OWN_COOKIE_NAMES, patience=patience, max_routes=max_routes)
    app = kind(proxy, target=target)
    if below:
        app.ways = DecidingWays(app, patience)
    config = uvicorn.Config(
        app,
        http=GatewayHttpProtocol,
        ws=GatewayWebSocketProtocol,
        lifespan="off",
        log_config=None,
        server_header=False,
        date_header=False,
        proxy_headers=False,  # its middleware would stand before the application
        timeout_graceful_shutdown=1,
    )
    config.load()
    server = prompt.Server(config)
    # serve() without its signal handlers and its tick of 0.1 s
    server.lifespan = config.lifespan_class(config)
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    app.port = sock.getsockname()[1]
    app.connections = server.server_state.connections
    await server.startup(sockets=[sock])
    try:
        yield app
    finally:
        server.force_exit = True
        await server.shutdown(sockets=[sock])
        if app.ways is not None:
            app.ways.close()
        await proxy.close()


@dataclass
class Answer:
    status: int
    headers: list[tuple[str, str]]
    body: bytes
    whole: bool
    """False: the connection ended before the body did."""

    def values(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name]


class RawClient:
    """Writes bytes, reads HTTP. Nothing is normalised on the way."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def get(self, target: str = "/", *lines: str, method: str = "GET") -> Answer:
        await self.send(request(method, target, *lines))
        return await self.answer(method)

    async def head(self) -> tuple[int, list[tuple[str, str]]]:
        async with asyncio.timeout(20):
            head = await self.reader.readuntil(b"\r\n\r\n")
        status_line, *lines = head.decode("latin-1").strip().split("\r\n")
        return int(status_line.split()[1]), [
            (name.lower(), value) for name, _, value in (line.partition(": ") for line in lines)
        ]

    async def chunk(self) -> bytes:
        """The next chunk; b"" at the end."""
        async with asyncio.timeout(20):
            size = int(await self.reader.readuntil(b"\r\n"), 16)
            return (await self.reader.readexactly(size + 2))[:-2]

    async def answer(self, method: str = "GET") -> Answer:
        status, headers = await self.head()
        fields = dict(headers)
        body, whole = b"", True
        try:
            if method == "HEAD" or status in (204, 304):
                pass
            elif fields.get("transfer-encoding") == "chunked":
                while chunk := await self.chunk():
                    body += chunk
            else:
                body = await self.reader.readexactly(int(fields["content-length"]))
        except (asyncio.IncompleteReadError, ConnectionError):
            whole = False
        return Answer(status, headers, body, whole)


@contextlib.asynccontextmanager
async def client(port: int, **options: Any) -> AsyncIterator[RawClient]:
    where = {} if "sock" in options else {"host": "127.0.0.1", "port": port}
    reader, writer = await asyncio.open_connection(**where, **options)
    try:
        yield RawClient(reader, writer)
    finally:
        writer.transport.abort()


def request(method: str, target: str, *lines: str) -> bytes:
    head = "\r\n".join([f"{method} {target} HTTP/1.1", "Host: w1.localhost", *lines])
    return f"{head}\r\n\r\n".encode("latin-1")


def answering(*answers: bytes) -> Handler:
    """Answers requests without body: one after another, the last one for ever."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for i in range(10_000):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answers[min(i, len(answers) - 1)])
            await writer.drain()

    return handler


def ok(body: bytes = b"ok", *lines: str) -> bytes:
    return answer_bytes("200 OK", f"Content-Length: {len(body)}", *lines) + body


def answer_bytes(status: str, *lines: str) -> bytes:
    return ("\r\n".join([f"HTTP/1.1 {status}", *lines]) + "\r\n\r\n").encode("latin-1")
