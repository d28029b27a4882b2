"""Several gateways on one Redis: two of them, one without the loops, several processes on one port."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from redis.asyncio import Redis
from websockets.exceptions import ConnectionClosed

from gateway.exits import ConfigurationError
from gateway.shared import POOL_DIRECTORY, shared_directory
from tests.e2e.harness import IDE_FLAGS, Client, Gateway, Server, host_of

KEY = {"IDE_GATEWAY_API_KEY": "the-key-of-all"}
LEASE_TTL = 2.0
FLAGS = (*IDE_FLAGS, "--lease-ttl", str(LEASE_TTL), "--scale-interval", "0.3")

Start = Callable[..., Any]


@pytest.fixture
async def two(
    server: Server, serve: Start, tmp_path: Path, state: Redis, until: Any
) -> Callable[..., Any]:
    """two(*flags) → (the one that leads, the other): data directories of their own, one Redis."""

    async def start(*flags: str) -> tuple[Gateway, Gateway]:
        given = ("--redis-url", server.url, *FLAGS, *flags)
        first = await serve(*given, data_dir=tmp_path / "a", env=KEY)
        await until(lambda: leads(state, first), what="the first one leads")
        return first, await serve(*given, data_dir=tmp_path / "b", env=KEY)

    return start


async def holder(state: Redis) -> int:
    """Pid of the gateway that holds the lease, 0 while nobody does."""
    value = str(await state.get("lease:lifecycle") or "")
    return int(value.split(".")[1]) if value else 0


async def leads(state: Redis, gateway: Gateway) -> bool:
    return await holder(state) == pid(gateway)


def pid(gateway: Gateway) -> int:
    assert gateway.process is not None
    return gateway.process.pid


def workspace_at(gateway: Gateway, workspace: dict[str, Any]) -> str:
    return f"http://{workspace['workspaceId']}.localhost:{gateway.port}"


async def cookie_from(client: Client, address: str, host: str) -> str:
    async with client.http.get(
        client.at("/" + address.split("/", 3)[3]), headers={"Host": host}, allow_redirects=False
    ) as answer:
        assert answer.status == 303, await answer.text()
        return str(answer.headers["Set-Cookie"]).partition(";")[0]


async def echoes(ws: Any, text: str) -> bool:
    await ws.send(text)
    return bool(await asyncio.wait_for(ws.recv(), 5) == text)


async def ide_pid(client: Client, workspace: dict[str, Any], token: str) -> int:
    status, body = await client.ide(workspace, "GET", "/echo", token=token)
    assert status == 200, body
    return int(json.loads(body)["pid"])


# Two gateways


async def test_a_client_may_come_in_on_either(two: Any, client_of: Any, state: Redis) -> None:
    gateways = a, b = await two()
    at_a, at_b = clients = client_of(a), client_of(b)
    assert await holder(state) == pid(a)
    assert len(await state.zrange("heartbeat:gateways", 0, -1)) == 2

    # A person signs in on one and is known to the other, with what they may change there.
    home = await cookie_from(at_b, a.entry, f"localhost:{b.port}")
    person = {"Cookie": home, "Origin": a.url}
    status, made = await at_a.api("POST", "/api/workspaces", {"name": "x"}, headers=person)
    assert status == 202
    workspace = await at_b.becomes(made, "running")
    status, mine = await at_b.api("GET", "/api/workspaces", headers={"Cookie": home})
    assert (status, [row["workspaceId"] for row in mine]) == (200, [workspace["workspaceId"]])

    # A code of either opens the workspace on the other; its cookie and token do on both.
    entry = await at_a.enter(workspace)
    cookie = await cookie_from(at_b, entry["url"], host_of(workspace))
    for gateway, client in zip(gateways, clients, strict=True):
        status, _ = await client.ide(workspace, "GET", "/files/none", headers={"Cookie": cookie})
        assert status == 404
        origin = workspace_at(gateway, workspace)
        async with client.websocket(workspace, origin=origin, headers={"Cookie": cookie}) as ws:
            assert await echoes(ws, "by cookie")
        async with client.websocket(workspace, token=entry["token"]) as ws:
            assert await echoes(ws, "by token")
    assert len({await ide_pid(client, workspace, entry["token"]) for client in clients}) == 1

    # The used code is used up, on both.
    for client in clients:
        async with client.http.get(
            client.at("/" + entry["url"].split("/", 3)[3]), headers={"Host": host_of(workspace)}
        ) as answer:
            assert answer.status >= 400


async def test_the_other_takes_over_from_a_killed_leader(
    two: Any, client_of: Any, state: Redis, until: Any
) -> None:
    a, b = await two(
        "--slots", "1", "--warm-slots", "0", "--wait-probability", "0", "--max-machines", "2"
    )
    client = client_of(b)
    workspace = await client.running()
    token = (await client.enter(workspace))["token"]
    before = await ide_pid(client, workspace, token)
    async with client.websocket(workspace, token=token) as ws:
        assert await holder(state) == pid(a)
        a.kill()
        killed = time.monotonic()
        await until(
            lambda: leads(state, b), timeout=LEASE_TTL + 2, what="the other holds the lease"
        )
        assert time.monotonic() - killed <= LEASE_TTL + 2
        # Work that only the leader does: a machine beside the dead leader's, and a boot on it.
        await client.running("bob")
        assert await echoes(ws, "still here")
    assert await ide_pid(client, workspace, token) == before
    record = await client.status(workspace)
    assert (record["status"], record["epoch"], record["instanceId"]) == ("running", 1, "m-1")
    told = await client.events()
    assert told.count("workspace.starting") == 2
    assert not {"machine.lost", "workspace.failed"} & set(told), told

    # It looks after the machine that the dead one launched, down to a crash of that machine.
    first = min(b.machines(), key=lambda process: process.create_time())
    first.kill()
    await client.becomes(workspace, "failed")

    async def back() -> bool:
        _, machines = await client.api("GET", "/api/machines")
        return {m["instanceId"]: m["status"] for m in machines} == {"m-1": "ready", "m-2": "ready"}

    await until(back, what="the crashed machine is started again")
    woken = await client.running()
    assert (woken["epoch"], woken["instanceId"]) == (2, "m-1")
    assert b.stop() == 0
    assert b.machines() == []


async def test_a_session_on_the_other_gateway_keeps_a_workspace_alive(
    two: Any, client_of: Any, state: Redis
) -> None:
    idle = 7.0  # longer than it takes to tell typing from a timer
    a, b = await two("--idle-timeout", str(idle), "--idle-sweep-interval", "0.2")
    client = client_of(b)
    workspace = await client.running()
    token = (await client.enter(workspace))["token"]
    async with client.websocket(workspace, token=token) as ws:
        typed_until = time.monotonic() + 1.5 * idle
        while time.monotonic() < typed_until:
            assert await echoes(ws, "typing")
            await asyncio.sleep(0.3)
        assert await holder(state) == pid(a)
        (name,) = await state.keys("connections:*")
        assert name.split(".")[1] == str(pid(b))
        assert await state.hgetall(name) == {workspace["workspaceId"]: "1"}
        assert (await client_of(a).status(workspace))["status"] == "running"
        with pytest.raises(ConnectionClosed) as closed:
            await asyncio.wait_for(ws.recv(), idle + 4)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 4410
    assert (await client.becomes(workspace, "stopped"))["reason"] == "idle"


async def test_the_leader_ends_and_the_other_goes_on(
    two: Any, client_of: Any, state: Redis, until: Any
) -> None:
    a, b = await two()
    client = client_of(b)
    workspace = await client.running()
    assert a.stop() == 0
    assert len(b.machines()) == 1, "only the last gateway stops the machines"
    await until(lambda: leads(state, b), timeout=LEASE_TTL, what="the lease was given back")
    assert (await client.status(workspace))["status"] == "running"
    assert b.stop() == 0
    assert b.machines() == []


async def test_two_on_one_data_directory(
    server: Server, serve: Start, tmp_path: Path, client_of: Any, state: Redis, until: Any
) -> None:
    flags = ("--redis-url", server.url, *FLAGS)
    a, b = await asyncio.gather(*(serve(*flags, data_dir=tmp_path / "one") for _ in range(2)))
    assert a.machines_in == b.machines_in == tmp_path / "one"
    await until(lambda: holder(state), what="one of them leads")
    if await leads(state, b):
        a, b = b, a
    # They were started at once on an empty directory, and have one API key all the same.
    workspace = await client_of(a).running()
    client = client_of(b)
    assert (await client.status(workspace))["status"] == "running"
    a.kill()
    await until(lambda: leads(state, b), timeout=LEASE_TTL + 2, what="the other holds the lease")
    status, _ = await client.api("POST", f"/api/workspaces/{workspace['workspaceId']}/stop")
    assert status in (200, 202)
    await client.becomes(workspace, "stopped")
    assert (await client.running())["epoch"] == 2
    assert b.stop() == 0
    assert b.machines() == []


async def test_snapshots_are_found_whoever_leads(two: Any, client_of: Any, until: Any) -> None:
    a, b = await two("--retention", "0.5", "--terminate-sweep-interval", "0.2")
    client = client_of(b)
    workspace = await client.running()
    token = (await client.enter(workspace))["token"]
    await client.ide(workspace, "PUT", "/files/a.txt", token=token, data=b"mine")
    await client.api("POST", f"/api/workspaces/{workspace['workspaceId']}/stop")
    await client.becomes(workspace, "terminated")
    a.kill()
    await client.running()
    assert await client.ide(workspace, "GET", "/files/a.txt", token=token) == (200, b"mine")


def test_machines_of_another_host_are_an_error(server: Server, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    assert shared_directory(server.url, there, embedded=False) == there
    assert shared_directory(server.url, here, embedded=False) == there
    # On another host there may well be a directory of that name.
    (there / "pool-id").write_text("another\n")
    with pytest.raises(ConfigurationError, match=str(there)) as refused:
        shared_directory(server.url, here, embedded=False)
    assert POOL_DIRECTORY in str(refused.value.hint)


def test_a_data_directory_may_be_moved(server: Server, tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    shared_directory(server.url, tmp_path / "old", embedded=False)
    (tmp_path / "old").rename(tmp_path / "new")
    for _ in range(2):
        assert shared_directory(server.url, tmp_path / "new", embedded=False) == tmp_path / "new"


# Without the loops


async def test_a_gateway_without_loops_serves_and_leads_nothing(
    server: Server, serve: Start, tmp_path: Path, client_of: Any, state: Redis, until: Any
) -> None:
    flags = ("--redis-url", server.url, *FLAGS)
    edge = await serve(*flags, "--lifecycle", "off", data_dir=tmp_path / "edge", env=KEY)
    client = client_of(edge)
    _, workspace = await client.api("POST", "/api/workspaces", {"userId": "ada"})
    assert workspace["status"] == "queued"
    leader = await serve(*flags, data_dir=tmp_path / "leader", env=KEY)
    await until(lambda: leads(state, leader), what="the one with the loops leads")
    workspace = await client.becomes(workspace, "running")
    token = (await client.enter(workspace))["token"]
    async with client.websocket(workspace, token=token) as ws:
        assert await echoes(ws, "through the edge")
        assert leader.stop() == 0
        # Only who runs the loops ends machines: the edge goes on with what runs.
        assert await echoes(ws, "still")
        assert await state.get("lease:lifecycle") is None
    assert edge.stop() == 0
    assert len(edge.machines()) == 1
    again = await serve(*flags, data_dir=tmp_path / "leader", env=KEY)
    assert (await client_of(again).status(workspace))["status"] == "running"


# Workers


async def test_workers_share_a_port(serve: Start, client_of: Any, until: Any) -> None:
    gateway = await serve(*FLAGS, "--workers", "2")
    socket = gateway.data_dir / "redis" / "valkey.sock"
    password = (gateway.data_dir / "redis" / "password").read_text().strip()
    client = client_of(gateway)
    workspace = await client.running()
    name, token = workspace["workspaceId"], (await client.enter(workspace))["token"]
    assert gateway.process is not None
    family = psutil.Process(pid(gateway)).children(recursive=True)
    async with Redis(unix_socket_path=str(socket), password=password, decode_responses=True) as db:

        async def shares() -> dict[str, int]:
            """Worker's pid → its sessions."""
            rows = {key: await db.hgetall(key) for key in await db.keys("connections:*")}
            return {int(key.split(".")[1]): int(row[name]) for key, row in rows.items() if row}

        opened: list[Any] = []
        while len(await shares()) < 2:
            assert len(opened) < 200, "one worker takes every connection"
            opened += [await client.websocket(workspace, token=token) for _ in range(4)]
            count = len(opened)

            async def written(count: int = count) -> bool:
                return sum((await shares()).values()) == count

            await until(written, what="every session is written down")
        for ws in opened:
            assert await echoes(ws, "hello")

        # One is killed: its sessions break, the other's go on, and another takes its place.
        by_worker = await shares()
        doomed, spared = sorted(by_worker, key=lambda worker: by_worker[worker])
        os.kill(doomed, signal.SIGKILL)
        alive = []
        for ws in opened:
            try:
                assert await echoes(ws, "after")
                alive.append(ws)
            except ConnectionClosed:
                continue
        assert len(alive) == by_worker[spared]

        async def replaced() -> bool:
            gateways = await db.zrange("heartbeat:gateways", 0, -1)
            return len({int(each.split(".")[1]) for each in gateways} - {doomed, spared}) == 1

        await until(replaced, timeout=15, what="the killed worker is replaced")
        assert await ide_pid(client, workspace, token)

        # News reaches all of them.
        await client.api("POST", f"/api/workspaces/{name}/stop")
        for ws in alive:
            with pytest.raises(ConnectionClosed) as closed:
                await asyncio.wait_for(ws.recv(), 10)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 4410
        await client.becomes(workspace, "stopped")
        await client.running()
    family += psutil.Process(pid(gateway)).children(recursive=True)
    assert gateway.stop() == 0
    assert gateway.machines() == []
    left = [p for p in family if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
    assert left == []
    assert not socket.exists()
