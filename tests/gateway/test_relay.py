"""The relay over real sockets: uvicorn with its protocol class between real clients and servers.

Every test runs on plain asyncio and on uvloop.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import inspect
import socket
import weakref
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvicorn
import uvloop
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Frame, Opcode

from gateway import closing, farewell, sides, tunnel
from gateway.frames import FrameScanner, close_frame
from gateway.relay import (
    EXTENSION,
    GatewayWebSocketProtocol,
    Session,
    UpstreamError,
    UpstreamRefused,
    hand_over,
    open_upstream,
    refuse,
)
from gateway.upgrade import accept_key
from gateway.wire import IS_COMPILED
from tests import prompt

Until = Callable[..., Awaitable[object]]
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]

KEY = b64encode(b"0123456789abcdef")
LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


def on_both_loops(test: Callable[..., Any]) -> Callable[..., None]:
    """Run an async test on each event loop, with a deadline."""

    @functools.wraps(test)
    def run(loop: str, **fixtures: Any) -> None:
        with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
            runner.run(asyncio.wait_for(test(**fixtures), 30))

    given = inspect.signature(test)
    loop = inspect.Parameter("loop", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    run.__signature__ = given.replace(parameters=[loop, *given.parameters.values()])  # type: ignore[attr-defined]
    return pytest.mark.parametrize("loop", LOOPS)(run)


@dataclass
class Gateway:
    """A running uvicorn whose one application relays every WebSocket to `upstream_port`."""

    upstream_port: int
    server: uvicorn.Server = field(init=False)
    port: int = 0
    sessions: list[Session] = field(default_factory=list)
    ended: list[int] = field(default_factory=list)
    before: Callable[[Session], Awaitable[None]] | None = None
    refuse_with: closing.Close | None = None
    protocols: list[weakref.ref[Any]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/some/path?q=1"

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if self.refuse_with is not None:
            await refuse(scope, receive, send, self.refuse_with)
            return
        self.protocols.append(weakref.ref(scope["extensions"][EXTENSION]))
        session = Session(workspace="demo", user="ada", id=f"g-{len(self.sessions)}", epoch=1)
        self.sessions.append(session)
        target = scope["raw_path"] + b"?" + scope["query_string"]
        try:
            upstream = await open_upstream(
                "127.0.0.1", self.upstream_port, target, scope["headers"], timeout=5
            )
        except UpstreamRefused as refused:
            start = {"type": "websocket.http.response.start", "status": refused.status}
            await send({**start, "headers": [(b"x-from", b"workspace")]})
            await send({"type": "websocket.http.response.body", "body": refused.body})
            return
        except UpstreamError:
            await refuse(scope, receive, send, closing.UPSTREAM_LOST)
            return
        if self.before is not None:
            await self.before(session)
        hand_over(scope, upstream, session, on_end=self.on_end, response_headers=upstream.headers)

    def on_end(self, session: Session, code: int) -> None:
        self.ended.append(code)


@contextlib.asynccontextmanager
async def gateway(upstream_port: int, **how: Any) -> AsyncIterator[Gateway]:
    app = Gateway(upstream_port, **how)
    config = uvicorn.Config(
        app,
        ws=GatewayWebSocketProtocol,
        http="httptools",
        lifespan="off",
        log_config=None,
        ws_per_message_deflate=False,
        timeout_graceful_shutdown=10,
    )
    config.load()
    app.server = prompt.Server(config)
    app.server.lifespan = config.lifespan_class(config)
    listener = socket.create_server(("127.0.0.1", 0))
    app.port = listener.getsockname()[1]
    await app.server.startup(sockets=[listener])
    try:
        yield app
    finally:
        await app.server.shutdown(sockets=[listener])
        assert not app.server.server_state.connections


@contextlib.asynccontextmanager
async def workspace(
    handler: Callable[[ServerConnection], Awaitable[None]], **how: Any
) -> AsyncIterator[Gateway]:
    """A gateway in front of a real WebSocket server."""
    how.setdefault("compression", None)
    async with serve(handler, "127.0.0.1", 0, **how) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        async with gateway(port) as running:
            yield running


async def echo(connection: ServerConnection) -> None:
    async for message in connection:
        await connection.send(message)


def client(running: Gateway, **how: Any) -> connect:
    how.setdefault("compression", None)
    return connect(running.url, proxy=None, max_size=None, **how)


# Below: both ends are plain sockets, for what a well-behaved library does not do.


@dataclass
class Raw:
    """A gateway between a bare upstream and a bare client, both past their handshake."""

    gateway: Gateway
    client: Streams
    upstream: Streams

    @property
    def session(self) -> Session:
        return self.gateway.sessions[0]

    async def to_client(self, data: bytes) -> None:
        self.upstream[1].write(data)
        await self.upstream[1].drain()

    async def to_upstream(self, data: bytes) -> None:
        self.client[1].write(data)
        await self.client[1].drain()


@contextlib.asynccontextmanager
async def bare_upstream(behind_101: bytes = b"") -> AsyncIterator[tuple[int, asyncio.Queue[Any]]]:
    """A server that accepts every upgrade; its connections come out of the queue."""
    accepted: asyncio.Queue[Streams] = asyncio.Queue()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(switching_protocols() + behind_101)
        accepted.put_nowait((reader, writer))

    server = await asyncio.start_server(connected, "127.0.0.1", 0, limit=2**30)
    async with server:
        yield server.sockets[0].getsockname()[1], accepted


@contextlib.asynccontextmanager
async def bare(behind_101: bytes = b"") -> AsyncIterator[Raw]:
    async with bare_upstream(behind_101) as (port, accepted), gateway(port) as running:
        ours = await open_bare_client(running)
        theirs = await accepted.get()
        try:
            yield Raw(running, ours, theirs)
        finally:
            for _, writer in (ours, theirs):
                await shut(writer)


async def open_bare_client(running: Gateway) -> Streams:
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port, limit=2**30)
    writer.write(upgrade_request())
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 ")
    return reader, writer


async def shut(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


def upgrade_request(version: bytes = b"13", more: bytes = b"") -> bytes:
    return (
        b"GET / HTTP/1.1\r\nHost: demo.localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Key: " + KEY + b"\r\nSec-WebSocket-Version: " + version + b"\r\n"
        b"" + more + b"\r\n"
    )


def switching_protocols() -> bytes:
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Accept: " + accept_key(KEY) + b"\r\nSet-Cookie: a=1\r\n"
        b"Set-Cookie: b=2\r\n\r\n"
    )


def wire(opcode: Opcode, payload: bytes = b"", *, fin: bool = True, mask: bool = False) -> bytes:
    return Frame(opcode, payload, fin=fin).serialize(mask=mask)


async def read_frame(reader: asyncio.StreamReader) -> bytes:
    """One whole frame as it is on the wire."""
    scanner, frame = FrameScanner(), b""
    while not frame or not scanner.at_boundary:
        byte = await reader.readexactly(1)
        frame += byte
        scanner.feed(byte)
    return frame


# Messages


@on_both_loops
async def test_messages_of_every_size_come_back() -> None:
    async with workspace(echo, max_size=None) as running, client(running) as ours:
        for message in ["grüß dich", b"", b"\x00\xff", "x" * 126, b"y" * 65536, b"z" * 2**20]:
            await ours.send(message)
            assert await ours.recv() == message
        session = running.sessions[0]
        assert session.data_frames_up == session.frames_up == 6
        assert session.bytes_up > session.bytes_down > 2**20


@on_both_loops
async def test_fragments_stay_fragments() -> None:
    async def relayed(connection: ServerConnection) -> None:
        got = [part async for part in connection.recv_streaming()]
        await connection.send([*got, "d"])

    async with workspace(relayed) as running, client(running) as ours:
        await ours.send(["a", "b", "c"])
        # websockets ends a fragmented message with an empty frame
        assert [part async for part in ours.recv_streaming()] == ["a", "b", "c", "", "d", ""]


@on_both_loops
async def test_subprotocol_and_compression_are_between_the_two_ends() -> None:
    async with (
        workspace(echo, subprotocols=["b"], compression="deflate") as running,
        client(running, subprotocols=["a", "b"], compression="deflate") as ours,
    ):
        assert ours.subprotocol == "b"
        assert [extension.name for extension in ours.protocol.extensions] == ["permessage-deflate"]
        await ours.send("x" * 100_000)
        assert await ours.recv() == "x" * 100_000
        assert running.sessions[0].bytes_up < 1000


@on_both_loops
async def test_the_request_arrives_as_it_was_sent() -> None:
    async def tell(connection: ServerConnection) -> None:
        assert connection.request is not None
        await connection.send([connection.request.path, connection.request.headers["X-Extra"]])

    async with (
        workspace(tell) as running,
        client(running, additional_headers={"X-Extra": "yes"}) as ours,
    ):
        assert await ours.recv() == "/some/path?q=1yes"


@on_both_loops
async def test_pings_pass_both_ways() -> None:
    answered = asyncio.Event()

    async def ping(connection: ServerConnection) -> None:
        await (await connection.ping(b"from the workspace"))
        answered.set()
        await connection.wait_closed()

    async with workspace(ping) as running, client(running) as ours:
        await (await ours.ping(b"from the client"))
        await answered.wait()
        session = running.sessions[0]
        assert (session.data_frames_up, session.frames_up) == (0, 2)


@on_both_loops
async def test_bytes_right_behind_the_101_reach_the_client() -> None:
    first = wire(Opcode.TEXT, b"first")
    async with bare(behind_101=first) as raw:
        assert await read_frame(raw.client[0]) == first
        assert raw.session.bytes_down == len(first)


@on_both_loops
async def test_the_client_gets_the_answers_own_headers() -> None:
    async with workspace(echo) as running, client(running) as ours:
        assert ours.response is not None
        assert len(ours.response.headers.get_all("Sec-WebSocket-Accept")) == 1
    async with bare_upstream() as (port, accepted), gateway(port) as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        writer.write(upgrade_request())
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        assert head.count(b"set-cookie: ") == 2
        assert head.count(b"upgrade: ") == 1
        await shut(writer)
        await shut((await accepted.get())[1])


@on_both_loops
async def test_bytes_sent_before_the_101_are_not_lost(until: Until) -> None:
    async with bare_upstream() as (port, accepted):
        early = wire(Opcode.TEXT, b"early", mask=True)
        sent = asyncio.Event()

        async def wait_for_it(session: Session) -> None:
            await sent.wait()

        async with gateway(port, before=wait_for_it) as running:
            _, writer = await asyncio.open_connection("127.0.0.1", running.port)
            writer.write(upgrade_request())
            theirs = await accepted.get()
            writer.write(early)
            await until(lambda: running.protocols[0]().early)
            sent.set()
            assert await read_frame(theirs[0]) == early
            assert running.sessions[0].data_frames_up == 1
            await shut(writer)
            await shut(theirs[1])


# Closing


CODES = [(1000, "bye"), (1001, ""), (3000, "grüß dich"), (4999, "x" * 123)]


@on_both_loops
@pytest.mark.parametrize(("code", "reason"), CODES)
async def test_a_workspace_close_reaches_the_client(code: int, reason: str, until: Until) -> None:
    async def close(connection: ServerConnection) -> None:
        await connection.close(code, reason)

    async with workspace(close) as running, client(running) as ours:
        with pytest.raises(ConnectionClosed):
            await ours.recv()
        assert (ours.close_code, ours.close_reason) == (code, reason)
        await until(lambda: running.ended == [code])


@on_both_loops
@pytest.mark.parametrize(("code", "reason"), CODES)
async def test_a_client_close_reaches_the_workspace(code: int, reason: str, until: Until) -> None:
    closed: asyncio.Queue[tuple[int | None, str | None]] = asyncio.Queue()

    async def listen(connection: ServerConnection) -> None:
        await connection.wait_closed()
        closed.put_nowait((connection.close_code, connection.close_reason))

    async with workspace(listen) as running:
        async with client(running) as ours:
            await ours.close(code, reason)
            assert ours.close_code == code  # the workspace's echo
        assert await closed.get() == (code, reason)
        await until(lambda: running.ended == [code])


@on_both_loops
async def test_a_close_without_a_code_stays_one(until: Until) -> None:
    async with bare() as raw:
        await raw.to_upstream(wire(Opcode.CLOSE, mask=True))
        assert (await read_frame(raw.upstream[0]))[:2] == b"\x88\x80"
        await raw.to_client(wire(Opcode.CLOSE))
        assert await raw.client[0].read() == wire(Opcode.CLOSE)
        await until(lambda: raw.gateway.ended == [1005])


@on_both_loops
async def test_a_close_frame_in_pieces(until: Until) -> None:
    close = wire(Opcode.CLOSE, b"\x0f\xa0reason", mask=True)
    async with bare() as raw:
        for i in range(len(close)):
            await raw.to_upstream(close[i : i + 1])
            assert await raw.upstream[0].readexactly(1) == close[i : i + 1]
        await raw.to_client(wire(Opcode.CLOSE, b"\x0f\xa0"))
        assert await raw.client[0].read() == wire(Opcode.CLOSE, b"\x0f\xa0")
        await until(lambda: raw.gateway.ended == [4000])


@on_both_loops
async def test_a_workspace_that_hangs_up_over_a_close_gives_its_code_back() -> None:
    async with bare() as raw:
        await raw.to_upstream(wire(Opcode.CLOSE, b"\x0f\xa0", mask=True))
        await read_frame(raw.upstream[0])
        raw.upstream[1].close()
        assert await raw.client[0].read() == close_frame(4000)
        assert raw.gateway.ended == [4000]


@on_both_loops
async def test_a_close_that_is_never_answered_ends_anyway(
    monkeypatch: pytest.MonkeyPatch, until: Until
) -> None:
    monkeypatch.setattr(tunnel, "CLOSING_TIMEOUT", 0.05)
    async with bare() as raw:
        await raw.to_client(close_frame(1000))
        assert await raw.client[0].read() == close_frame(1000)
        assert await raw.upstream[0].read() == b""
        await until(lambda: raw.gateway.ended == [1000])


@on_both_loops
async def test_a_workspace_killed_midway_is_upstream_lost(until: Until) -> None:
    async with bare() as raw:
        sent = wire(Opcode.TEXT, b"last words")
        await raw.to_client(sent)
        assert await read_frame(raw.client[0]) == sent
        await shut(raw.upstream[1])
        lost = closing.UPSTREAM_LOST
        assert await read_frame(raw.client[0]) == close_frame(lost.code, lost.reason)
        await raw.to_upstream(wire(Opcode.CLOSE, b"\x03\xf3", mask=True))
        assert await raw.client[0].read() == b""
        await until(lambda: raw.gateway.ended == [1011])


@on_both_loops
async def test_a_workspace_killed_within_a_frame_cuts_the_client_off(until: Until) -> None:
    async with bare() as raw:
        half = wire(Opcode.BINARY, bytes(1000))[:500]
        await raw.to_client(half)
        assert await raw.client[0].readexactly(500) == half
        await shut(raw.upstream[1])
        with contextlib.suppress(ConnectionError):
            assert await raw.client[0].read() == b""  # nothing that would pass for payload
        await until(lambda: raw.gateway.ended == [1011])


@on_both_loops
async def test_a_client_that_goes_away_is_reported_to_the_workspace(until: Until) -> None:
    async with bare() as raw:
        sent = wire(Opcode.TEXT, b"last words", mask=True)
        await raw.to_upstream(sent)
        await until(lambda: raw.session.data_frames_up)
        await shut(raw.client[1])
        assert await read_frame(raw.upstream[0]) == sent
        going = await read_frame(raw.upstream[0])
        assert (going[0], going[1]) == (0x88, 0x82)  # masked, as from every client
        assert bytes(a ^ b for a, b in zip(going[6:], going[2:4], strict=True)) == b"\x03\xe9"
        assert await raw.upstream[0].read() == b""
        await until(lambda: raw.gateway.ended == [tunnel.CLIENT_LOST])


@on_both_loops
async def test_a_client_that_goes_away_within_a_frame_leaves_no_forged_bytes(until: Until) -> None:
    async with bare() as raw:
        half = wire(Opcode.BINARY, bytes(1000), mask=True)[:500]
        await raw.to_upstream(half)
        await until(lambda: raw.session.bytes_up == 500)
        await shut(raw.client[1])
        assert await raw.upstream[0].read() == half


# The gateway ends a session


@on_both_loops
async def test_the_gateway_ends_an_idle_session(until: Until) -> None:
    async with workspace(echo) as running, client(running) as ours:
        running.sessions[0].end(closing.EVICTED)
        running.sessions[0].end(closing.STOPPED)  # the first one counts
        with pytest.raises(ConnectionClosed):
            await ours.recv()
        assert (ours.close_code, ours.close_reason) == (4408, closing.EVICTED.reason)
        await until(lambda: running.ended == [4408])


@on_both_loops
async def test_an_end_within_a_frame_waits_for_its_last_byte(until: Until) -> None:
    big, never = wire(Opcode.BINARY, bytes(300_000)), wire(Opcode.TEXT, b"too late")
    async with bare() as raw:
        await raw.to_client(big[:100_000])
        assert await raw.client[0].readexactly(100_000) == big[:100_000]
        raw.session.end(closing.STOPPED)
        await raw.to_client(big[100_000:] + never)
        assert await raw.client[0].readexactly(len(big) - 100_000) == big[100_000:]
        close = close_frame(4410, closing.STOPPED.reason)
        assert await read_frame(raw.client[0]) == close
        assert (await read_frame(raw.upstream[0]))[0] == 0x88
        assert await raw.upstream[0].read() == b""
        # What the client still says is for nobody; its echo ends the connection.
        await raw.to_upstream(
            wire(Opcode.TEXT, b"x", mask=True) + wire(Opcode.CLOSE, b"\x11\x3a", mask=True)
        )
        assert await raw.client[0].read() == b""
        await until(lambda: raw.gateway.ended == [4410])


@on_both_loops
async def test_an_end_lets_the_client_finish_its_frame(until: Until) -> None:
    frame, late = wire(Opcode.BINARY, bytes(1000), mask=True), wire(Opcode.TEXT, b"x", mask=True)
    async with bare() as raw:
        await raw.to_upstream(frame[:500])
        await until(lambda: raw.session.bytes_up == 500)
        raw.session.end(closing.STOPPED)
        assert (await read_frame(raw.client[0]))[0] == 0x88
        await raw.to_upstream(frame[500:] + late)
        assert await read_frame(raw.upstream[0]) == frame
        assert (await read_frame(raw.upstream[0]))[:2] == b"\x88\x82"
        assert await raw.upstream[0].read() == b""


@on_both_loops
async def test_an_end_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch, until: Until) -> None:
    monkeypatch.setattr(farewell, "ECHO_TIMEOUT", 0.05)
    monkeypatch.setattr(tunnel, "BOUNDARY_TIMEOUT", 0.05)
    async with bare() as raw:  # no echo
        raw.session.end(closing.STOPPED)
        assert await raw.client[0].read() == close_frame(4410, closing.STOPPED.reason)
        await until(lambda: raw.gateway.ended == [4410])
    async with bare() as raw:  # no boundary
        half = wire(Opcode.BINARY, bytes(1000))[:500]
        await raw.to_client(half)
        assert await raw.client[0].readexactly(500) == half
        raw.session.end(closing.STOPPED)
        with contextlib.suppress(ConnectionError):
            assert await raw.client[0].read() == b""
        await until(lambda: raw.gateway.ended == [4410])


@on_both_loops
async def test_an_end_before_the_hand_over_follows_it() -> None:
    async def end(session: Session) -> None:
        session.end(closing.STOPPED)

    async with serve(echo, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        async with gateway(port, before=end) as running, client(running) as ours:
            await ours.wait_closed()
            assert ours.close_code == 4410


@on_both_loops
async def test_uvicorns_shutdown_ends_every_session_with_1012() -> None:
    async with workspace(echo) as running:
        async with client(running) as one, client(running) as two:
            await running.server.shutdown()
            for ours in (one, two):
                await ours.wait_closed()
                assert ours.close_code == closing.RESTARTING.code
        assert running.ended == [1012, 1012]


# The gateway's own pings


@on_both_loops
async def test_the_gateways_ping_is_between_client_and_gateway(until: Until) -> None:
    got: list[Any] = []

    async def listen(connection: ServerConnection) -> None:
        async for message in connection:
            got.append(message)

    async with workspace(listen, ping_interval=None) as running, client(running) as ours:
        session = running.sessions[0]
        for beat in (1, 2, 3):
            session.ping(now=100.0 + beat)
            assert session.pinged_at == 100.0 + beat
            await until(lambda beat=beat: session.frames_up == beat)
            assert session.pinged_at == 0
        assert session.data_frames_up == session.bytes_up == 0
        await ours.send("hello")
        await until(lambda: got == ["hello"])


@on_both_loops
async def test_a_pong_split_over_reads_is_still_taken_out(until: Until) -> None:
    async with bare() as raw:
        raw.session.ping(now=1.0)
        raw.session.ping(now=2.0)  # one at a time
        ping = await read_frame(raw.client[0])
        before, after = wire(Opcode.TEXT, b"a", mask=True), wire(Opcode.PONG, b"b", mask=True)
        pong = wire(Opcode.PONG, ping[2:], mask=True)
        stream = before + pong + after

        def read_so_far() -> int:
            waiting = raw.session._pong
            return raw.session.bytes_up + (len(waiting._held) if waiting else len(pong))

        for at in range(len(stream)):
            await raw.to_upstream(stream[at : at + 1])
            await until(lambda at=at: read_so_far() == at + 1)
        assert await raw.upstream[0].readexactly(len(before + after)) == before + after
        assert raw.session.frames_up == 3
        assert raw.session.pinged_at == 0
        assert raw.client[0]._buffer == b""  # type: ignore[attr-defined]  # one ping only


@on_both_loops
async def test_a_ping_within_a_frame_waits_for_its_end() -> None:
    big, following = wire(Opcode.BINARY, bytes(1000)), wire(Opcode.TEXT, b"x")
    async with bare() as raw:
        await raw.to_client(big[:500])
        await raw.client[0].readexactly(500)
        raw.session.ping(now=1.0)
        await raw.to_client(big[500:] + following)
        assert await raw.client[0].readexactly(len(big) - 500) == big[500:]
        assert await read_frame(raw.client[0]) == b"\x89\x08" + tunnel.PING_PAYLOAD
        assert await read_frame(raw.client[0]) == following
        await raw.to_client(following)  # and copying goes on
        assert await read_frame(raw.client[0]) == following


@on_both_loops
async def test_an_end_while_part_of_a_pong_is_held_back(until: Until) -> None:
    async with bare() as raw:
        raw.session.ping(now=1.0)
        await read_frame(raw.client[0])
        pong = wire(Opcode.PONG, tunnel.PING_PAYLOAD, mask=True)
        await raw.to_upstream(pong[:10])
        await until(lambda: raw.session._pong is not None and raw.session._pong._held)
        raw.session.end(closing.STOPPED)
        assert (await read_frame(raw.client[0]))[0] == 0x88
        await raw.to_upstream(pong[10:] + wire(Opcode.CLOSE, b"\x11\x3a", mask=True))
        assert await raw.client[0].read() == b""
        assert raw.session.up.close_code == 4410  # the echo was understood
        assert (await read_frame(raw.upstream[0]))[:2] == b"\x88\x82"


# Backpressure


@on_both_loops
async def test_a_client_that_does_not_read_stops_the_workspace(until: Until) -> None:
    frame = wire(Opcode.BINARY, bytes(2**20))
    async with bare() as raw:
        # Reading paused, the client's socket buffers fill up, then the gateway's.
        raw.client[0]._transport.pause_reading()  # type: ignore[attr-defined]
        for _ in range(64):
            raw.upstream[1].write(frame)
        ours, theirs = raw.session._client, raw.session._upstream
        assert ours is not None
        assert theirs is not None
        await until(lambda: not theirs.transport.is_reading())
        assert 0 < ours.transport.get_write_buffer_size() <= tunnel.HIGH_WATER + 256 * 1024
        assert raw.upstream[1].transport.get_write_buffer_size() > 0
        raw.client[0]._transport.resume_reading()  # type: ignore[attr-defined]
        for _ in range(64):
            assert await raw.client[0].readexactly(len(frame)) == frame
        assert theirs.transport.is_reading()


@on_both_loops
async def test_a_workspace_that_does_not_read_stops_the_client(until: Until) -> None:
    frame = wire(Opcode.BINARY, bytes(2**20), mask=True)
    async with bare() as raw:
        raw.upstream[0]._transport.pause_reading()  # type: ignore[attr-defined]
        for _ in range(64):
            raw.client[1].write(frame)
        ours, theirs = raw.session._client, raw.session._upstream
        assert ours is not None
        assert theirs is not None
        await until(lambda: not ours.transport.is_reading())
        assert 0 < theirs.transport.get_write_buffer_size() <= tunnel.HIGH_WATER + 256 * 1024
        raw.upstream[0]._transport.resume_reading()  # type: ignore[attr-defined]
        for _ in range(64):
            assert await raw.upstream[0].readexactly(len(frame)) == frame
        assert raw.session.data_frames_up == 64


# Handshakes that do not lead to a session


@on_both_loops
async def test_a_refusal_of_the_workspace_reaches_the_client() -> None:
    async def refusing(connection: ServerConnection, request: Any) -> Any:
        return connection.respond(426, "upgrade something else")

    async with workspace(echo, process_request=refusing) as running:
        with pytest.raises(InvalidStatus) as refused:
            await client(running)
        response = refused.value.response
        assert (response.status_code, response.body) == (426, b"upgrade something else")
        assert response.headers["X-From"] == "workspace"


@on_both_loops
async def test_an_unreachable_workspace_is_a_close_code() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    async with gateway(port) as running, client(running) as ours:
        await ours.wait_closed()
        assert ours.close_code == closing.UPSTREAM_LOST.code


@on_both_loops
async def test_a_refused_handshake_tells_its_code() -> None:
    async with (
        gateway(1, refuse_with=closing.STOPPED) as running,
        client(running, subprotocols=["first", "second"]) as ours,
    ):
        await ours.wait_closed()
        assert (ours.close_code, ours.close_reason) == (4410, closing.STOPPED.reason)
        assert ours.subprotocol == "first"


@on_both_loops
@pytest.mark.parametrize("version", [b"12", b"13, 8", b"", b"13\r\nSec-WebSocket-Version: 13"])
async def test_a_wrong_version_is_refused_with_the_right_one(version: bytes) -> None:
    async with gateway(1) as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        writer.write(upgrade_request(version))
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 426 ")
        assert b"\r\nsec-websocket-version: 13\r\n" in answer.lower()
        assert not running.sessions
        await shut(writer)


@on_both_loops
async def test_a_client_gone_before_the_hand_over_leaves_nothing_behind(until: Until) -> None:
    async with bare_upstream() as (port, accepted):
        gone = asyncio.Event()

        async def wait_for_it(session: Session) -> None:
            await gone.wait()

        async with gateway(port, before=wait_for_it) as running:
            _, writer = await asyncio.open_connection("127.0.0.1", running.port)
            writer.write(upgrade_request())
            theirs = await accepted.get()
            await shut(writer)
            await until(lambda: not running.server.server_state.connections)
            gone.set()
            assert (await read_frame(theirs[0]))[0] == 0x88
            assert await theirs[0].read() == b""
            await until(lambda: running.ended == [tunnel.CLIENT_LOST])
            await shut(theirs[1])


@on_both_loops
async def test_a_workspace_gone_before_the_hand_over_is_upstream_lost() -> None:
    async with bare_upstream() as (port, accepted):

        async def kill(session: Session) -> None:
            await shut((await accepted.get())[1])

        async with gateway(port, before=kill) as running:
            reader, writer = await open_bare_client(running)
            lost = closing.UPSTREAM_LOST
            assert await read_frame(reader) == close_frame(lost.code, lost.reason)
            await shut(writer)


# Memory


@on_both_loops
async def test_the_handshakes_protocol_is_freed_by_the_hand_over(until: Until) -> None:
    async with workspace(echo) as running, client(running) as ours:
        await ours.send("hello")
        assert await ours.recv() == "hello"
        gc.collect()
        (protocol,) = running.protocols
        assert protocol() is None
        (held,) = running.server.server_state.connections
        assert held is running.sessions[0]
        assert not running.server.server_state.tasks


@on_both_loops
async def test_a_session_that_ended_is_freed_without_a_collection(until: Until) -> None:
    def left() -> list[object]:
        kinds = (Session, sides.Side, farewell.Farewell, FrameScanner)
        return [thing for thing in gc.get_objects() if issubclass(type(thing), kinds)]

    gc.collect()
    gc.disable()
    try:
        async with workspace(echo) as running, client(running) as ours:
            await ours.send("hello")
            await ours.recv()
            running.sessions[0].ping(now=1.0)
            assert len(left()) == (3 if IS_COMPILED else 5), "compiled scanners are not tracked"
            running.sessions[0].end(closing.STOPPED)
            await ours.wait_closed()
            await until(lambda: running.ended)
            running.sessions.clear()
            await until(lambda: not left(), what=f"freed: {left()}")
    finally:
        gc.enable()


@on_both_loops
async def test_what_was_handed_over_cannot_be_handed_over_again() -> None:
    with pytest.raises(RuntimeError, match="ws=GatewayWebSocketProtocol"):
        hand_over(
            {"extensions": {}},
            _Aborted(),
            Session(workspace="w", user="u", id="g-1", epoch=1),
            on_end=print,
        )  # type: ignore[arg-type]


class _Aborted:
    def abort(self) -> None: ...
