"""Redis goes away, comes back, or comes back empty, while people work."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import psutil
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


async def pid_of(client: Client, workspace: dict[str, Any], token: str) -> int:
    status, answer = await client.ide(workspace, "GET", "/echo", token=token)
    assert status == 200, answer
    return int(json.loads(answer)["pid"])


def ides(gateway: Gateway) -> list[int]:
    """Processes of IDEs on this gateway's machines."""
    found = []
    for agent in gateway.machines():
        for process in agent.children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if "ide.py" in " ".join(process.cmdline()[1:3]):
                    found.append(process.pid)
    return found


async def with_a_file(client: Client, user: str) -> dict[str, Any]:
    """A running workspace in which that user has written a file."""
    workspace = await client.running(user)
    token = str((await client.enter(workspace))["token"])
    put = await client.ide(workspace, "PUT", "/files/a.txt", token=token, data=f"{user}'s")
    assert put[0] == 201
    return workspace


async def file_of(client: Client, user: str) -> tuple[dict[str, Any], bytes]:
    """What is in that file when the user comes back, whatever has become of the workspace."""
    workspace = await client.running(user)
    token = str((await client.enter(workspace))["token"])
    return workspace, (await client.ide(workspace, "GET", "/files/a.txt", token=token))[1]


async def ends(client: Client, workspace: dict[str, Any], how: str, status: str) -> None:
    path = f"/api/workspaces/{workspace['workspaceId']}"
    method, _, call = how.partition(" ")
    answer = await client.api(method, f"{path}{call}")
    assert answer[0] < 300, answer
    await client.becomes(workspace, status)


REBUILT = 15.0


async def test_redis_loses_everything(
    server: Server, serve: Start, client_of: Any, state: Redis, until: Any
) -> None:
    gateway = await serve("--redis-url", server.url, *NEVER_IDLE)
    client = client_of(gateway)
    stopped, terminated = await with_a_file(client, "bob"), await with_a_file(client, "carl")
    await ends(client, stopped, "POST /stop", "stopped")
    await ends(client, terminated, "DELETE", "terminated")
    workspace, token = await entered(gateway, client)
    pid = await pid_of(client, workspace, token)
    signing_key = await state.get("gateway:signing-key")
    async with client.websocket(workspace, token=token) as ws:
        await state.flushall()
        lost = time.monotonic()
        # Somebody comes back before anything is rebuilt.
        status, again = await client.api("POST", "/api/workspaces", {"userId": "ada"})
        assert status in (200, 202), again
        while (await client.status(again))["status"] != "running":
            assert await echoes(ws, "nobody told me")
            assert await ready(client) == 200
            assert time.monotonic() < lost + REBUILT
            await asyncio.sleep(0.1)
        record = await client.status(workspace)
        assert (record["epoch"], record["instanceId"]) == (1, workspace["instanceId"])
        assert await pid_of(client, workspace, token) == pid
        assert ides(gateway) == [pid], "one IDE, nothing was started a second time"

        async def sessions_known() -> bool:
            return await state.zcard("heartbeat:sessions") == 1

        await until(sessions_known, timeout=20, what="the open session told again")
        woken, content = await file_of(client, "bob")
        assert (content, woken["epoch"]) == (b"bob's", stopped["epoch"] + 1)
        restored, content = await file_of(client, "carl")
        assert (content, restored["epoch"]) == (b"carl's", terminated["epoch"] + 1)
        assert time.monotonic() < lost + REBUILT
        assert len(gateway.machines()) == 1
        assert len(ides(gateway)) == 3
        assert await echoes(ws, "still here")
        # What gateways share is put back, so that the next one that starts takes part.
        await until(lambda: state.get("pool:directory"), timeout=12, what="shared again")
        assert await state.get("gateway:signing-key") == signing_key
        assert await pid_of(client, workspace, token) == pid
    told = await client.events()
    assert {"machine.adopted", "workspace.adopted"} <= set(told)
    ends_of = {"session.evicted", "workspace.stopping", "workspace.failed", "machine.lost"}
    assert not ends_of & set(told), told
    await ends(client, workspace, "POST /stop", "stopped")
    assert (await client.running())["epoch"] == 2
    assert gateway.stop() == 0
    assert gateway.machines() == []


async def test_an_empty_redis_at_the_start(
    server: Server, serve: Start, client_of: Any, state: Redis
) -> None:
    """Machines are down and only their disks know of anything."""
    gateway = await serve("--redis-url", server.url, *NEVER_IDLE)
    client = client_of(gateway)
    workspace = await with_a_file(client, "ada")
    assert gateway.stop() == 0
    await state.flushall()
    again = client_of(await serve("--redis-url", server.url, *NEVER_IDLE))
    woken, content = await file_of(again, "ada")
    assert (content, woken["epoch"]) == (b"ada's", 2)
    assert woken["instanceId"] == workspace["instanceId"]
