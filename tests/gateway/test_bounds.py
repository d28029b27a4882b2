"""Bounds of connections: floods, slow heads, slow readers, peers that vanished, workspaces that are dead."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from starlette.types import Receive, Scope, Send
from structlog.testing import capture_logs

from gateway import closing
from gateway.bounds import RESERVE, Beyond, Bounds, is_near_address, mind_death
from gateway.frames import close_frame
from gateway.passing import Ways
from gateway.threshold import House
from gateway.tunnel import HIGH_WATER, Session
from gateway.upgrade import accept_key
from lifecycle.model import Workspace
from tests.gateway.proxying import RawClient, client, gateway, upstream
from tests.gateway.relaying import KEYS, Relaying, opening
from tests.gateway.test_opening import echo

Until = Callable[..., Awaitable[object]]


class Bounded(Relaying):
    """Answers what is no WebSocket itself."""

    bounds = Bounds(0, 0)
    stall = 60.0

    def admit(self, workspace: Workspace) -> Session:
        return Session(workspace="w1", user="ada", id="s", epoch=1, stall_timeout=self.stall)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await super().__call__(scope, receive, send)
            return
        headers = [(b"content-length", b"2")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"ok"})


@contextlib.asynccontextmanager
async def bounded(bounds: Bounds | None = None, stall: float = 60.0) -> AsyncIterator[Bounded]:
    async with gateway(kind=Bounded) as app:
        assert isinstance(app, Bounded)
        app.bounds, app.stall = bounds or Bounds(0, 0), stall
        app.ways = Ways(app, app.proxy.upstreams, app.counted.append)
        yield app


def near(address: str) -> bool:
    return False


# Floods


async def test_above_the_bound_a_request_is_told_so_and_probes_are_answered(until: Until) -> None:
    refused: list[str] = []
    bounds = Bounds(3, 0, refused=refused.append)
    async with bounded(bounds) as app, contextlib.AsyncExitStack() as stack:
        for _ in range(3):
            c = await stack.enter_async_context(client(app.port))
            assert (await c.get("/")).status == 200
        with capture_logs() as logs:
            for _ in range(2):
                async with client(app.port) as late:
                    answer = await late.get("/")
                    assert (answer.status, dict(answer.headers)["retry-after"]) == (503, "5")
                    assert b'"overloaded"' in answer.body
                    assert await late.reader.read() == b"", "and it is closed"
            async with client(app.port) as late:
                await late.send(opening(KEYS[0]))
                assert (await late.head())[0] == 503
            for probe in ("/readyz", "/healthz"):
                async with client(app.port) as late:
                    assert (await late.get(probe)).status == 200
        assert [(row["event"], row["why"]) for row in logs] == [
            ("connections.refused", "overloaded")
        ]
        assert refused == ["overloaded"] * 5
        await until(lambda: bounds.open == 3)
        await stack.aclose()
        await until(lambda: not bounds.open)
        async with client(app.port) as c:
            assert (await c.get("/")).status == 200


async def test_far_above_it_a_connection_is_closed_as_it_comes() -> None:
    async with bounded(Bounds(1, 0)) as app, contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(client(app.port)) for _ in range(RESERVE + 2)]
        with contextlib.suppress(ConnectionError):
            assert await clients[-1].reader.read() == b""
        assert (await clients[0].get("/")).status == 200
        assert (await clients[1].get("/")).status == 503


async def test_one_address_does_not_take_the_places_of_all(until: Until) -> None:
    bounds = Bounds(0, 2, is_near=near)
    async with bounded(bounds) as app, contextlib.AsyncExitStack() as stack:
        first = [await stack.enter_async_context(client(app.port)) for _ in range(2)]
        for c in first:
            assert (await c.get("/")).status == 200
        async with client(app.port) as late:
            answer = await late.get("/")
            assert answer.status == 429
            assert b"too_many_connections" in answer.body
        first[0].writer.transport.abort()
        await until(lambda: bounds.open == 1)
        async with client(app.port) as again:
            assert (await again.get("/")).status == 200


@pytest.mark.parametrize("below", [False, True], ids=["application", "below"])
async def test_a_session_is_no_connection_of_its_address(until: Until, below: bool) -> None:
    """Sessions are their users', and bounded there: a campus behind one address has many."""
    bounds = Bounds(0, 1, is_near=near)
    async with upstream(echo) as up, bounded(bounds) as app, contextlib.AsyncExitStack() as stack:
        app.target = up.port
        for n in range(3 if below else 1):
            c = await stack.enter_async_context(client(app.port))
            await c.send(opening(KEYS[n]))
            assert (await c.head())[0] == 101
            await until(lambda: not bounds.open)
        assert app.looked == 1


async def test_private_addresses_are_load_balancers_and_campuses() -> None:
    assert all(
        map(is_near_address, ["127.0.0.1", "10.1.2.3", "192.168.0.1", "::1", "fd00::1", "", "x"])
    )
    assert not any(map(is_near_address, ["8.8.8.8", "2001:4860:4860::8888"]))
    bounds = Bounds(0, 1)
    assert [bounds.arrived("10.1.2.3", 1) for _ in range(5)] == [None] * 5
    assert bounds.arrived("8.8.8.8", 1) is None
    assert [bounds.arrived("8.8.8.8", 1) is not None for _ in range(RESERVE)] == [True] * RESERVE
    with pytest.raises(Beyond):
        bounds.arrived("8.8.8.8", 1)
    for _ in range(RESERVE + 2):
        bounds.left("8.8.8.8")
    assert bounds.arrived("8.8.8.8", 1) is None


# Slow heads


def test_silence_before_a_head_counts_as_part_of_it() -> None:
    now = 100.0
    loop = SimpleNamespace(time=lambda: now, call_later=lambda *_: None)
    http, transport = Mock(), Mock()
    transport.getpeername.return_value = ("127.0.0.1", 1)
    house = House(loop, Mock(loop=loop), Mock(), Bounds(0, 0), set(), lambda: http)  # type: ignore[arg-type]
    threshold = house.threshold()
    threshold.connection_made(transport)
    now += 7
    threshold.data_received(b"GET / HT")
    assert http.waited == 7, "what it has waited does not count anew"
    http.connection_made.assert_called_once_with(transport)


async def test_two_thousand_slow_heads_are_cut_and_good_traffic_goes_on(until: Until) -> None:
    """Each sends a byte now and then; the deadline is for the head as a whole."""
    slow: list[socket.socket] = []
    async with bounded(Bounds(0, 0, head_timeout=1.0)) as app:
        loop = asyncio.get_running_loop()
        try:
            for _ in range(2000):
                sock = socket.create_connection(("127.0.0.1", app.port))
                sock.setblocking(False)
                sock.send(b"GET / HTTP/1.1\r\n")
                slow.append(sock)
                if len(slow) % 100 == 0:
                    await asyncio.sleep(0)
            started, good = loop.time(), 0
            async with client(app.port) as c:
                while app.connections and len(app.connections) > 1:
                    assert loop.time() - started < 12
                    assert (await c.get("/")).status == 200
                    good += 1
                    for sock in slow[good % 20 :: 20]:
                        with contextlib.suppress(OSError):
                            sock.send(b"X")
            assert good > 20
        finally:
            for sock in slow:
                sock.close()


# Slow readers


async def floods(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Opens, and then sends frames as fast as they are taken."""
    await echo_head(reader, writer)
    frame = b"\x82\x7f" + (65536).to_bytes(8, "big") + bytes(65536)
    while True:
        writer.write(frame)
        await writer.drain()


async def echo_head(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    asked = await reader.readuntil(b"\r\n\r\n")
    key = asked.split(b"sec-websocket-key: ")[1].split(b"\r\n")[0]
    writer.write(
        b"HTTP/1.1 101 S\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
        + accept_key(key) + b"\r\n\r\n"
    )  # fmt: skip


async def slow_reader(app: Bounded, stack: contextlib.AsyncExitStack, key: str) -> RawClient:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", app.port))
    c = await stack.enter_async_context(client(app.port, sock=sock, limit=1024))
    await c.send(opening(key))
    assert (await c.head())[0] == 101
    return c


async def test_slow_readers_hold_a_bounded_part_of_memory(until: Until) -> None:
    async with upstream(floods) as up, bounded() as app, contextlib.AsyncExitStack() as stack:
        app.target = up.port
        for n in range(50):
            await slow_reader(app, stack, KEYS[n % len(KEYS)])
        sessions = list(app.open)

        def waiting() -> list[int]:
            return [s._client.transport.get_write_buffer_size() for s in sessions if s._client]

        await until(lambda: len(waiting()) == 50 and min(waiting()) > HIGH_WATER)
        assert max(waiting()) <= 256 * 1024 + HIGH_WATER
        assert sum(waiting()) <= 50 * 256 * 1024


async def test_a_client_that_takes_nothing_is_cut_off_and_one_that_takes_little_is_not(
    until: Until,
) -> None:
    async with (
        upstream(floods) as up, bounded(stall=0.4) as app, contextlib.AsyncExitStack() as stack,
    ):  # fmt: skip
        app.target = up.port
        little = await slow_reader(app, stack, KEYS[0])
        nothing = await slow_reader(app, stack, KEYS[1])
        nothing.writer.transport.pause_reading()  # type: ignore[attr-defined]
        loop = asyncio.get_running_loop()
        started = loop.time()
        while not app.codes or loop.time() - started < 1.3:
            assert await little.reader.read(30_000)
            await asyncio.sleep(0.02)  # it is slow
        assert app.codes == [1006]
        assert len(app.open) == 2


async def test_a_workspace_that_takes_nothing_is_upstream_lost(until: Until) -> None:
    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await echo_head(reader, writer)
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.Event().wait()

    async with upstream(deaf, limit=1024) as up, bounded(stall=0.3) as app, client(app.port) as c:
        app.target = up.port
        await c.send(opening(KEYS[0]))
        assert (await c.head())[0] == 101
        with contextlib.suppress(ConnectionError):
            for _ in range(200):
                c.writer.write(b"\x82\xff" + (65536).to_bytes(8, "big") + bytes(65540))
        lost = closing.UPSTREAM_LOST
        async with asyncio.timeout(20):
            assert await c.reader.readuntil(lost.reason.encode()) == close_frame(
                lost.code, lost.reason
            )
        assert app.codes == [] or app.codes == [lost.code]


# Peers that have vanished


def test_the_kernel_is_told_when_a_silent_peer_is_dead() -> None:
    """What a listening socket is told holds for what it accepts, at no cost for each of them."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        mind_death(listening, 45)
        with socket.create_connection(listening.getsockname()), listening.accept()[0] as accepted:
            tcp = {
                name: accepted.getsockopt(socket.IPPROTO_TCP, getattr(socket, name))
                for name in ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT")
            }
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    assert tcp == {
        "TCP_KEEPIDLE": 22,
        "TCP_KEEPINTVL": 7,
        "TCP_KEEPCNT": 3,
        "TCP_USER_TIMEOUT": 45_000,
    }
    assert tcp["TCP_KEEPIDLE"] + tcp["TCP_KEEPCNT"] * tcp["TCP_KEEPINTVL"] <= 90


@pytest.mark.parametrize("below", [False, True], ids=["application", "below"])
async def test_connections_to_workspaces_are_minded_as_well(until: Until, below: bool) -> None:
    async with upstream(echo) as up, bounded() as app, contextlib.AsyncExitStack() as stack:
        app.target = up.port
        app.proxy.upstreams.peer_timeout = 45
        for n in range(2 if below else 1):
            c = await stack.enter_async_context(client(app.port))
            await c.send(opening(KEYS[n]))
            assert (await c.head())[0] == 101
        await until(lambda: len(app.open) == (2 if below else 1))
        side: Any = app.open[-1]._upstream
        sock = socket.socket(fileno=os.dup(side.transport.get_extra_info("socket").fileno()))
        with sock:
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 45_000


# Workspaces that are dead


async def test_thousands_of_failed_upgrades_keep_no_descriptor(until: Until) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and does not listen
        async with bounded() as app:
            app.target = nobody.getsockname()[1]
            before = len(os.listdir("/proc/self/fd"))

            async def fail(times: int) -> None:
                for _ in range(times):
                    async with client(app.port) as c:
                        await c.send(opening(KEYS[0]))
                        assert (await c.head())[0] == 502

            async with asyncio.TaskGroup() as group:
                for _ in range(50):
                    group.create_task(fail(40))
            await until(lambda: len(os.listdir("/proc/self/fd")) <= before)
            assert app.looked == 2000
