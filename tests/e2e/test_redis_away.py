"""Redis goes away, comes back, or comes back empty, while people work."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from websockets.exceptions import ConnectionClosed

from tests.e2e.harness import IDE_FLAGS, Client, Gateway, Server

IDLE = 2.0
FLAGS = (
    *IDE_FLAGS,
    "--lease-ttl", "2", "--scale-interval", "0.3",
    "--idle-timeout", str(IDLE), "--idle-sweep-interval", "0.2",
    "--retention", "1", "--terminate-sweep-interval", "0.2",
    "--session-timeout", "2", "--ping-interval", "0.5",
)  # fmt: skip
NEVER_IDLE = (*FLAGS, "--idle-timeout", "600", "--retention", "600")
REDIS_AWAY_MAX = 10.0
BEATS_AGAIN = 5.0

Start = Callable[..., Any]


async def echoes(ws: Any, text: str) -> bool:
    await ws.send(text)
    return bool(await asyncio.wait_for(ws.recv(), 5) == text)


async def ready(client: Client) -> int:
    async with client.http.get(client.at("/readyz")) as answer:
        return int(answer.status)


async def entered(gateway: Gateway, client: Client) -> tuple[dict[str, Any], str]:
    """A running workspace and the token that opens it; its route is known to the gateway."""
    workspace = await client.running()
    token = str((await client.enter(workspace))["token"])
    assert (await client.ide(workspace, "GET", "/", token=token))[0] == 200
    return workspace, token


async def stopped_at(state: Redis, workspace: dict[str, Any]) -> int:
    """When it was stopped for idleness, 0 while it was not; by Redis's clock."""
    for event, row in await state.xrange("events"):
        if row["type"] == "workspace.stopping" and row["workspace"] == workspace["workspaceId"]:
            assert row["reason"] == "idle"
            return int(event.partition("-")[0])
    return 0


async def test_redis_away_for_long(
    server: Server, serve: Start, client_of: Any, state: Redis, until: Any
) -> None:
    gateway = await serve("--redis-url", server.url, *FLAGS)
    client = client_of(gateway)
    workspace, token = await entered(gateway, client)
    assert await ready(client) == 200
    async with client.websocket(workspace, token=token) as ws:
        server.freeze()
        frozen = time.monotonic()
        while await ready(client) == 200:
            assert time.monotonic() < frozen + REDIS_AWAY_MAX + 2
            # What was open goes on, what was reachable stays reachable; neither waits for Redis.
            assert await echoes(ws, "still here")
            async with client.websocket(workspace, token=token) as another:
                assert await echoes(another, "new")
            assert (await client.ide(workspace, "GET", "/", token=token))[0] == 200
            await asyncio.sleep(0.5)
        assert time.monotonic() > frozen + REDIS_AWAY_MAX - 2
        async with client.http.get(client.at("/healthz")) as answer:
            assert answer.status == 200
        server.thaw()
        thawed = time.monotonic()
        back_ms = await now_ms(state)

        async def ready_again() -> bool:
            return await ready(client) == 200

        await until(ready_again, timeout=BEATS_AGAIN, what="ready again")

        async def beats() -> bool:
            (beat,) = await state.zrange("heartbeat:gateways", 0, -1, withscores=True)
            return bool(beat[1] > back_ms)

        left = thawed + BEATS_AGAIN - time.monotonic()
        await until(beats, timeout=left, what="heartbeats after Redis is back")
        # Idle for five windows, and yet it is stopped only after a whole one of fresh heartbeats.
        await until(lambda: stopped_at(state, workspace), timeout=IDLE + 4, what="the idle stop")
        assert await stopped_at(state, workspace) >= back_ms + IDLE * 1000
        closed = await close_of(ws)
        assert closed == 4410, "not evicted"
    told = await client.events()
    assert not {"session.evicted", "machine.lost", "workspace.failed"} & set(told), told


async def now_ms(state: Redis) -> int:
    seconds, micros = await state.time()
    return int(seconds) * 1000 + int(micros) // 1000


async def close_of(ws: Any) -> int:
    with pytest.raises(ConnectionClosed) as closed:
        await asyncio.wait_for(ws.recv(), 10)
    assert closed.value.rcvd is not None
    return closed.value.rcvd.code


async def test_redis_away_for_a_moment_stops_nobody_at_work(
    server: Server, serve: Start, tmp_path: Path, client_of: Any, state: Redis
) -> None:
    """Shorter than the gap after which heartbeats are distrusted, longer than every timeout. What
    was typed meanwhile is told only after somebody leads again and looks."""
    env = {"IDE_GATEWAY_API_KEY": "the-key"}
    await serve("--redis-url", server.url, *FLAGS, data_dir=tmp_path / "a", env=env)
    b = await serve("--redis-url", server.url, *FLAGS, data_dir=tmp_path / "b", env=env)
    client = client_of(b)
    workspace, token = await entered(b, client)
    async with client.websocket(workspace, token=token) as ws:
        server.kill()
        until = time.monotonic() + 2 * IDLE + 0.5
        while time.monotonic() < until:
            assert await echoes(ws, "typing")
            await asyncio.sleep(0.2)
        server.start()
        until = time.monotonic() + 2
        while time.monotonic() < until:
            assert await echoes(ws, "typing")
            await asyncio.sleep(0.2)
        assert (await client.status(workspace))["status"] == "running"
    assert "session.evicted" not in await client.events()


async def test_redis_restarts(
    server: Server, serve: Start, client_of: Any, state: Redis, until: Any
) -> None:
    gateway = await serve("--redis-url", server.url, *NEVER_IDLE)
    client = client_of(gateway)
    workspace, token = await entered(gateway, client)
    async with AsyncExitStack() as stack:
        opened = [
            await stack.enter_async_context(client.websocket(workspace, token=token))
            for _ in range(20)
        ]
        server.kill()
        for ws in opened:
            assert await echoes(ws, "without Redis")
        async with client.websocket(workspace, token=token) as another:
            assert await echoes(another, "new")
        status, answer = await client.api("GET", "/api/workspaces")
        assert (status, answer["error"]["code"]) == (503, "redis_unavailable"), answer
        server.start()
        back_ms = await now_ms(state)

        async def beats() -> bool:
            rows = await state.zrange("heartbeat:gateways", 0, -1, withscores=True)
            sessions = await state.zcount("heartbeat:sessions", back_ms, "+inf")
            return all(at > back_ms for _, at in rows) and sessions == len(opened)

        await until(beats, timeout=BEATS_AGAIN, what="heartbeats of gateway and sessions")
        for ws in opened:
            assert await echoes(ws, "and with it")
    record = await client.status(workspace)
    assert (record["status"], record["epoch"]) == ("running", 1)
    # News comes again, and work is done again.
    await client.api("POST", f"/api/workspaces/{workspace['workspaceId']}/stop")
    await client.becomes(workspace, "stopped")
    assert (await client.running())["epoch"] == 2
    told = await client.events()
    assert not {"session.evicted", "machine.lost", "workspace.failed"} & set(told), told
    assert gateway.stop() == 0
    assert gateway.machines() == []


@pytest.mark.parametrize("how", ["kill", "freeze"])
async def test_ending_without_redis_leaves_the_machines_for_the_next_start(
    how: str, server: Server, serve: Start, tmp_path: Path, client_of: Any
) -> None:
    gateway = await serve("--redis-url", server.url, *NEVER_IDLE)
    client = client_of(gateway)
    workspace, token = await entered(gateway, client)
    before = await client.ide(workspace, "GET", "/echo", token=token)
    getattr(server, how)()
    asked = time.monotonic()
    assert gateway.stop() == 0
    assert time.monotonic() < asked + 10
    assert len(gateway.machines()) == 1, "nobody knows whether another gateway needs them"
    (server.start if how == "kill" else server.thaw)()
    again = client_of(await serve("--redis-url", server.url, *NEVER_IDLE))
    record = await again.status(workspace)
    assert (record["status"], record["epoch"]) == ("running", 1)
    after = await again.ide(record, "GET", "/echo", token=token)
    assert json.loads(after[1])["pid"] == json.loads(before[1])["pid"]


async def test_redis_loses_everything(
    server: Server, serve: Start, client_of: Any, state: Redis, until: Any
) -> None:
    gateway = await serve("--redis-url", server.url, *FLAGS)
    client = client_of(gateway)
    workspace, token = await entered(gateway, client)
    signing_key = await state.get("gateway:signing-key")
    async with client.websocket(workspace, token=token) as ws:
        await state.flushall()
        lost = time.monotonic()
        while time.monotonic() < lost + 1.5 * IDLE:
            assert await echoes(ws, "nobody told me")
            assert await ready(client) == 200
            await asyncio.sleep(0.2)
        assert "session.evicted" not in await client.events()
        # The loops go on, with what is there now: nothing of what was.
        await until(lambda: state.get("lease:lifecycle"), what="somebody leads")
        fresh = await client.running("bob")
        assert fresh["instanceId"] == "m-2", "a machine that no record speaks of is left alone"
        assert len(gateway.machines()) == 2
        assert await echoes(ws, "still here")
        # What gateways share is put back, so that the next one that starts takes part.
        await until(lambda: state.get("pool:directory"), timeout=12, what="shared again")
        assert await state.get("gateway:signing-key") == signing_key
    assert gateway.stop() == 0
    assert gateway.machines() == [], "strangers in the pool's directory are stopped as well"
