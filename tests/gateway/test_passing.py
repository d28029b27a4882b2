"""What passes below the application: only what it has decided on, and only while that holds.

That what passes passes rightly is tried in test_proxy.py, for both ways at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from starlette.types import Receive, Scope, Send

from gateway import passing
from gateway.passing import REMEMBER, Way, Ways, asked
from gateway.proxy import framed
from gateway.upstreams import header_block
from lifecycle.model import Workspace
from lifecycle.model import WorkspaceStatus as W
from tests.gateway.proxying import Gateway, answering, client, gateway, ok, upstream


class Deciding(Gateway):
    """Looks at a request, lets others like it pass, and counts what it looked at."""

    workspace = Workspace("w1", "ada", W.RUNNING, 0, 0, epoch=1)
    looked: int = 0

    def known(self, workspace_id: str) -> Workspace | None:
        return self.workspace

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.looked += 1
        sent = header_block(framed(scope["method"], self.headers(scope["headers"]), False))
        remember = scope["extensions"].get(REMEMBER)
        if remember is not None:
            way = Way(self.workspace, "127.0.0.1", self.target, sent, 0)
            remember(way, scope["headers"])
        await super().__call__(scope, receive, send)


@pytest.fixture
async def gate() -> AsyncIterator[Deciding]:
    async with gateway(kind=Deciding) as app:
        assert isinstance(app, Deciding)
        app.ways = Ways(app, app.proxy.upstreams, app.counted.append)
        yield app


async def test_only_a_request_that_says_the_same_passes(gate: Deciding) -> None:
    async with upstream(answering(ok())) as up, client(gate.port) as c:
        gate.target = up.port
        for number, (target, *lines) in enumerate(
            [
                ("/a", "Cookie: a=1"),
                ("/b?c", "Cookie: a=1"),  # passes
                ("/a", "Cookie: a=2"),
                ("/a", "cookie: a=1"),
                ("/c", "Cookie: a=2"),  # passes
                ("/a", "Cookie: a=1", "X-More: 1"),
            ]
        ):
            assert (await c.get(target, *lines)).status == 200
            assert up.received[0].count(b"GET ") == number + 1
        assert (gate.looked, gate.counted) == (4, [200, 200])
        assert b"GET /b?c HTTP/1.1\r\nhost: w1.localhost\r\ncookie: a=1\r\n" in up.received[0]


async def test_a_request_behind_another_is_not_taken_for_it(gate: Deciding) -> None:
    """Two in one read: what is decided of the second must not be remembered of the first."""
    first, second = (
        f"GET /{n} HTTP/1.1\r\nHost: w1.localhost\r\nCookie: who={n}\r\n\r\n".encode() for n in "ab"
    )
    async with upstream(answering(ok())) as up, client(gate.port) as c:
        gate.target = up.port
        await c.send(first + second)
        assert [(await c.answer()).status for _ in range(2)] == [200, 200]
        await c.send(first + second + first)  # the first passes, and those behind it are held
        assert [(await c.answer()).status for _ in range(3)] == [200] * 3
        seen = b"".join(bytes(each) for each in up.received)
        for n, times in ((b"a", 3), (b"b", 2)):
            assert seen.count(b"GET /" + n + b" ") == times
            assert seen.count(b"cookie: who=" + n + b"\r\n") == times
        assert gate.looked == 4  # the second, and with it what came behind it


async def test_what_is_remembered_holds_as_long_as_the_record(gate: Deciding) -> None:
    async with upstream(answering(ok())) as up, client(gate.port) as c:
        gate.target = up.port
        for expected in (1, 1):
            await c.get()
            assert gate.looked == expected
        gate.workspace = replace(gate.workspace, epoch=2)
        for expected in (2, 2):
            await c.get()
            assert gate.looked == expected


async def test_after_a_while_it_is_looked_at_again(
    gate: Deciding, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passing, "FRESH", 0.0)
    async with upstream(answering(ok())) as up, client(gate.port) as c:
        gate.target = up.port
        for expected in (1, 2):
            await c.get()
            assert gate.looked == expected


async def test_what_cannot_be_had_is_for_the_application_to_say(gate: Deciding) -> None:
    async with client(gate.port) as c:
        async with upstream(answering(ok())) as up:
            gate.target = up.port
            assert (await c.get()).status == 200
            gate.proxy.upstreams.close()
        answer = await c.get()
        assert (answer.status, answer.body) == (502, b"refused")
        assert (gate.looked, gate.counted) == (2, [])


async def test_at_the_end_what_passes_is_finished_and_its_connection_closed(
    gate: Deciding,
) -> None:
    go, asked_twice = asyncio.Event(), asyncio.Event()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(2):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(ok(b"1"))
        await reader.readuntil(b"\r\n\r\n")
        asked_twice.set()
        await go.wait()
        writer.write(ok(b"2"))
        await reader.read()

    async with upstream(handler) as up, client(gate.port) as c:
        gate.target = up.port
        assert (await c.get()).body == (await c.get()).body == b"1"
        await c.send(b"GET / HTTP/1.1\r\nHost: w1.localhost\r\n\r\n")
        await asked_twice.wait()
        for protocol in list(gate.connections):
            protocol.shutdown()
        go.set()
        answer = await c.answer()
        assert (answer.body, answer.values("connection")) == (b"2", ["close"])
        assert await c.reader.read() == b""


async def test_a_connection_that_rests_is_closed_in_the_end(
    gate: Deciding, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with upstream(answering(ok())) as up, client(gate.port) as c:
        gate.target = up.port
        await c.get()
        (protocol,) = gate.connections
        protocol.timeout_keep_alive = 0.05
        await c.get()
        assert gate.counted == [200]
        async with asyncio.timeout(10):
            assert await c.reader.read() == b""


@pytest.mark.parametrize(
    ("line", "passes"),
    [
        (b"GET /lab/api/x?y=%20 HTTP/1.1", True),
        (b"GET /_static/x HTTP/1.1", True),
        (b"GET /a/%5Fgateway/x HTTP/1.1", True),
        (b"GET /_gateway/control HTTP/1.1", False),
        (b"GET /%5Fgateway/control HTTP/1.1", False),
        (b"GET /%5f%67%61%74%65%77%61%79/control HTTP/1.1", False),
        (b"GET /_gateway HTTP/1.1", False),
        (b"GET /x#y HTTP/1.1", False),
        (b"GET /x HTTP/1.0", False),
        (b"GET  /x HTTP/1.1", False),
        (b"GET /x  HTTP/1.1", False),
        (b"GET http://h/x HTTP/1.1", False),
        (b"GET * HTTP/1.1", False),
        (b"CONNECT /x HTTP/1.1", False),
        (b"get /x HTTP/1.1", False),
        (b"GET /\xc3\xa9 HTTP/1.1", False),
        (b"GET /x\x01 HTTP/1.1", False),
    ],
)
def test_which_requests_may_pass(line: bytes, passes: bool) -> None:
    request = line + b"\r\nHost: a\r\n\r\n"
    assert (asked(request) is not None) == passes
    assert asked(request[:-1]) is None, "not before its head is whole"
    if passes:
        found = asked(request + b"body")
        assert found is not None
        method, target, lines, body = found
        assert b"%b %b HTTP/1.1" % (method, target) == line
        assert (request + b"body")[lines:] == b"Host: a\r\n\r\nbody"
        assert (request + b"body")[body:] == b"body"
