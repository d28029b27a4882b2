"""Sessions that nobody answers on any more: closed, their descriptors given back, forgotten in Redis."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
from redis.asyncio import Redis

from tests.e2e.harness import IDE_FLAGS, Gateway, Server, host_of

SESSION_TIMEOUT = 3.0
FLAGS = (
    *IDE_FLAGS,
    "--session-timeout", str(SESSION_TIMEOUT), "--ping-interval", "1", "--lease-ttl", "2",
)  # fmt: skip
HALF_OPEN = 20

Start = Callable[..., Any]
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def dead_client(gateway: Gateway, workspace: dict[str, Any], token: str) -> Streams:
    """A WebSocket whose client took its 101 and has been silent since: no pong, no close."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    lines = [
        "GET /ws HTTP/1.1", f"Host: {host_of(workspace)}", f"Authorization: Bearer {token}",
        "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "", "",
    ]  # fmt: skip
    writer.write("\r\n".join(lines).encode())
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    assert head.startswith(b"HTTP/1.1 101 "), head
    return reader, writer


def frames(data: bytes) -> list[tuple[int, bytes]]:
    """(opcode, payload) of unmasked control frames."""
    found = []
    while data:
        end = 2 + data[1]
        found.append((data[0] & 0x0F, data[2:end]))
        data = data[end:]
    return found


def descriptors(gateway: Gateway) -> int:
    assert gateway.process is not None
    return int(psutil.Process(gateway.process.pid).num_fds())


async def test_a_client_that_answers_no_pings_is_evicted(
    server: Server, serve: Start, client_of: Any, state: Redis, until: Any
) -> None:
    gateway = await serve("--redis-url", server.url, *FLAGS)
    client = client_of(gateway)
    workspace = await client.running()
    token = (await client.enter(workspace))["token"]
    async with client.websocket(workspace, token=token) as alive:
        await alive.send("hello")
        assert await alive.recv() == "hello"
        await client.http.close()
        await until(lambda: _is_one(state), what="one session is written down")
        before = descriptors(gateway)

        opened = [await dead_client(gateway, workspace, token) for _ in range(HALF_OPEN)]
        last_heard = time.monotonic()
        assert descriptors(gateway) >= before + 2 * HALF_OPEN
        heard = await asyncio.gather(
            *(asyncio.wait_for(reader.read(), 4 * SESSION_TIMEOUT) for reader, _ in opened)
        )
        assert time.monotonic() >= last_heard + SESSION_TIMEOUT - 1.5
        for data in heard:
            *pings, last = frames(data)
            assert {opcode for opcode, _ in pings} == {9}, "it was asked for a sign of life"
            assert (last[0], int.from_bytes(last[1][:2])) == (8, 4408)
            assert last[1][2:], "a reason for people to read"
        for _, writer in opened:
            writer.close()

        await until(lambda: descriptors(gateway) <= before, what=f"back to {before} descriptors")
        # Whoever answers pings stays, and is the only one that Redis knows.
        await until(lambda: _is_one(state), what="the evicted ones are forgotten")
        (name,) = await state.keys("connections:*")
        connections = {workspace["workspaceId"]: "1"}

        async def counted() -> bool:
            return bool(await state.hgetall(name) == connections)

        await until(counted, what="open sessions are counted right")
        await alive.send("still here")
        assert await alive.recv() == "still here"
    told = [row async for row in _events(state, "session.evicted")]
    assert len(told) == HALF_OPEN
    assert len({row["session"] for row in told}) == HALF_OPEN
    assert {row["reason"] for row in told} == {"no heartbeat"}


async def _is_one(state: Redis) -> bool:
    return bool(await state.zcard("heartbeat:sessions") == 1)


async def _events(state: Redis, kind: str) -> Any:
    for _, row in await state.xrange("events"):
        if row["type"] == kind:
            yield row


async def test_sessions_of_a_killed_gateway_are_forgotten(
    server: Server, serve: Start, tmp_path: Path, client_of: Any, state: Redis, until: Any
) -> None:
    env = {"IDE_GATEWAY_API_KEY": "the-key"}
    flags = ("--redis-url", server.url, *FLAGS)
    a = await serve(*flags, data_dir=tmp_path / "a", env=env)
    b = await serve(*flags, data_dir=tmp_path / "b", env=env)
    client = client_of(a)
    workspace = await client.running()
    token = (await client.enter(workspace))["token"]
    async with client_of(b).websocket(workspace, token=token) as spared:
        async with client.websocket(workspace, token=token):

            async def both() -> bool:
                return bool(await state.zcard("heartbeat:sessions") == 2)

            await until(both, what="both sessions are written down")
            a.kill()
            # Until it is silent for long enough it may have something to tell.
            await until(lambda: _is_one(state), timeout=15, what="its session is forgotten")
        (left,) = await state.zrange("heartbeat:sessions", 0, -1)
        assert b.process is not None
        assert left.split("/")[1].split(".")[1] == str(b.process.pid)
        await spared.send("hello")
        assert await spared.recv() == "hello"
