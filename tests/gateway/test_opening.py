"""WebSocket handshakes below the application: the same sessions, and the application where anything is amiss."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import AsyncIterator
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from gateway import closing
from gateway.headers import Header, upstream_headers
from gateway.heartbeats import TooManySessions
from gateway.opening import handshake, without_key
from gateway.passing import REMEMBER, Way, Ways
from gateway.proxy import target_of
from gateway.relay import UpstreamError, hand_over, open_upstream
from gateway.tunnel import Session
from gateway.upgrade import accept_key
from lifecycle.model import Workspace
from lifecycle.model import WorkspaceStatus as W
from tests.gateway.proxying import Gateway, RawClient, client, gateway, upstream

KEYS = [b64encode(bytes([n]) * 16).decode() for n in range(8)]


class Relaying(Gateway):
    """Relays every WebSocket, lets others like it open below, and counts what it looked at."""

    workspace = Workspace("w1", "ada", W.RUNNING, 0, 0, epoch=1)
    looked = 0
    full = False

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.sessions = self
        self.open: list[Session] = []
        self.codes: list[int] = []

    def known(self, workspace_id: str) -> Workspace | None:
        return self.workspace

    def admit(self, workspace: Workspace) -> Session:
        if self.full:
            raise TooManySessions(closing.TOO_MANY_SESSIONS)
        return Session(workspace=workspace.id, user="ada", id="s", epoch=workspace.epoch)

    def opened(self, session: Session) -> None:
        self.open.append(session)

    def ended(self, session: Session, code: int) -> None:
        self.codes.append(code)

    def back(self, answered: list[Header]) -> list[Header]:
        return [header for header in answered if header[0] == b"set-cookie"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.looked += 1
        if self.full:
            return await self._refuse(send, 429)
        offer = upstream_headers(
            scope["headers"], host="w1.localhost", client_ip="127.0.0.1", scheme="ws", trusted=False,
            own_cookie_names=(), drop_authorization=False, extra=None, websocket=True,
        )  # fmt: skip
        if REMEMBER in scope["extensions"]:
            way = Way(
                self.workspace, "127.0.0.1", self.target, b"", 0, "", tuple(without_key(offer))
            )
            scope["extensions"][REMEMBER](way, without_key(scope["headers"]))
        session = self.admit(self.workspace)
        try:
            up = await open_upstream("127.0.0.1", self.target, target_of(scope), offer)
        except UpstreamError:
            return await self._refuse(send, 502)
        back = self.back(up.headers)
        hand_over(scope, up, session, response_headers=back, on_end=self.ended)
        self.opened(session)

    async def _refuse(self, send: Send, status: int) -> None:
        await send({"type": "websocket.http.response.start", "status": status, "headers": []})
        await send({"type": "websocket.http.response.body", "body": b"", "more_body": False})


@pytest.fixture
async def gate() -> AsyncIterator[Relaying]:
    async with gateway(kind=Relaying) as app:
        assert isinstance(app, Relaying)
        app.ways = Ways(app, app.proxy.upstreams, app.counted.append)
        yield app


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    key = head.split(b"sec-websocket-key: ")[1].split(b"\r\n")[0]
    accept = accept_key(key).decode()
    answer = f"HTTP/1.1 101 S\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSet-Cookie: a=1\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    writer.write(answer.encode() + b"\x81\x02hi")
    while data := await reader.read(1000):
        writer.write(data)


def opening(key: str, *lines: str, path: str = "/ws") -> bytes:
    head = [
        f"GET {path} HTTP/1.1", "Host: w1.localhost", *lines, "Connection: Upgrade", "Upgrade: websocket",
        "Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {key}",
    ]  # fmt: skip
    return "\r\n".join([*head, "", ""]).encode()


async def opens(c: RawClient, request: bytes, key: str) -> list[tuple[str, str]]:
    """Its 101's headers, once it has been greeted and has had its echo."""
    frame = b"\x81\x82\0\0\0\0yo"
    await c.send(request)
    status, headers = await c.head()
    await c.send(frame)
    assert (status, dict(headers)["sec-websocket-accept"]) == (
        101,
        accept_key(key.encode()).decode(),
    )
    async with asyncio.timeout(10):
        assert await c.reader.readexactly(4 + len(frame)) == b"\x81\x02hi" + frame
    return headers


async def test_the_second_of_a_kind_opens_below_and_is_the_same(gate: Relaying, until: Any) -> None:
    async with upstream(echo) as up:
        gate.target = up.port
        for number, (looked, lines) in enumerate(
            [(1, "Cookie: a=1"), (1, "Cookie: a=1"), (2, "Cookie: a=2"), (2, "Cookie: a=1")]
        ):
            async with client(gate.port) as c:
                key = KEYS[number]
                headers = await opens(c, opening(key, lines, path=f"/ws?{number}"), key)
                assert dict(headers)["set-cookie"] == "a=1"
                assert gate.looked == looked
                assert len(gate.open) == number + 1
                assert gate.connections == {gate.open[-1]}, "a session and nothing else"
            await until(lambda number=number: len(gate.codes) == number + 1)
            await until(lambda: not gate.connections)
        sent = [bytes(each).split(b"\r\n\r\n")[0].split(b"\r\n") for each in up.received]
        assert [head[0] for head in sent] == [b"GET /ws?%d HTTP/1.1" % n for n in range(4)]
        for n, head in enumerate(sent):
            assert b"sec-websocket-key: " + KEYS[n].encode() in head
        assert sorted(sent[0][2:-1]) != sorted(sent[2][2:-1])
        same = {b"sec-websocket-key: " + key.encode() for key in KEYS}
        assert {*sent[0][1:]} - same == {*sent[1][1:]} - same
    assert gate.codes == [1006] * 4


async def test_what_goes_wrong_is_for_the_application_to_say(gate: Relaying, until: Any) -> None:
    async with upstream(echo) as up:
        gate.target = up.port
        async with client(gate.port) as c:
            await opens(c, opening(KEYS[0]), KEYS[0])
        gate.full = True
        async with client(gate.port) as c:
            await c.send(opening(KEYS[1]))
            assert (await c.head())[0] == 429
        assert gate.looked == 2
        gate.full = False
    async with client(gate.port) as c:
        await c.send(opening(KEYS[2]))
        assert (await c.head())[0] == 502
    assert gate.looked == 3
    await until(lambda: gate.codes == [1006, 0])
    await until(lambda: not gate.connections)


async def test_a_client_that_leaves_meanwhile_leaves_nothing(gate: Relaying, until: Any) -> None:
    go = asyncio.Event()

    async def first_then_never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if go.is_set():
            await reader.read()
        go.set()
        await echo(reader, writer)

    async with upstream(first_then_never) as up:
        gate.target = up.port
        async with client(gate.port) as c:
            await opens(c, opening(KEYS[0]), KEYS[0])
        async with client(gate.port) as c:
            await c.send(opening(KEYS[1]))
            await until(lambda: len(up.received) == 2 and up.received[1])
        await until(lambda: gate.codes == [1006, 0])
        await until(lambda: not gate.connections)
        assert gate.looked == 1


async def test_one_that_opens_at_the_end_is_ended(gate: Relaying, until: Any) -> None:
    go, waits = asyncio.Event(), asyncio.Event()
    go.set()

    async def when_asked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not go.is_set():
            waits.set()
        await go.wait()
        await echo(reader, writer)

    async with upstream(when_asked) as up:
        gate.target = up.port
        async with client(gate.port) as c:
            await opens(c, opening(KEYS[0]), KEYS[0])
        await until(lambda: not gate.connections)
        go.clear()
        async with client(gate.port) as c, asyncio.timeout(10):
            await c.send(opening(KEYS[1]))
            await waits.wait()
            for protocol in list(gate.connections):
                protocol.shutdown()
            go.set()
            assert (await c.head())[0] == 101
            rest = await c.reader.readuntil(closing.RESTARTING.code.to_bytes(2, "big"))
            assert rest.startswith(b"\x81\x02hi")


@pytest.mark.parametrize(
    "line",
    [
        "Sec-WebSocket-Key: short==",
        "X-Sec-WebSocket-Key: " + KEYS[0],
        "Cookie: Sec-WebSocket-Key: " + KEYS[0],
        "SEC-WEBSOCKET-KEY: " + KEYS[0],
        "Sec-WebSocket-Key:" + KEYS[0],
    ],
)
def test_other_spellings_are_for_the_application(line: str) -> None:
    assert handshake(f"Host: a\r\n{line}\r\n".encode(), "1.2.3.4") is None


def test_the_key_is_no_part_of_what_is_remembered() -> None:
    found = [handshake(opening(key).partition(b"\r\n")[2][:-2], "1.2.3.4") for key in KEYS]
    assert len({each[0] for each in found if each}) == 1
    assert [each[1].decode() for each in found if each] == KEYS
