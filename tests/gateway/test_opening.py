"""WebSocket handshakes below the application: the same sessions, and the application where anything is amiss."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway import closing
from gateway.opening import handshake
from gateway.passing import Ways
from gateway.upgrade import accept_key
from tests.gateway.proxying import RawClient, client, gateway, upstream
from tests.gateway.relaying import KEYS, Relaying, opening


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
