"""The whole life of a workspace, over real processes: gateway, Valkey, agent, IDE."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from tests.e2e.harness import IDE_FLAGS

QUICK = (
    *IDE_FLAGS,
    "--idle-timeout", "3", "--idle-sweep-interval", "0.3",
    "--retention", "2", "--terminate-sweep-interval", "0.3",
    "--scale-interval", "0.3", "--scale-in-delay", "1",
)  # fmt: skip


async def test_a_workspace_lives_stops_wakes_terminates_and_comes_back(
    serve: Any, client_of: Any, until: Any
) -> None:
    gateway = await serve(*QUICK)
    client = client_of(gateway)
    workspace = await client.running()
    assert workspace["instanceId"] == "m-1"
    assert workspace["epoch"] == 1
    entry = await client.enter(workspace)

    # Work: a file by HTTP, a conversation by WebSocket.
    token = entry["token"]
    assert (await client.ide(workspace, "PUT", "/files/a.txt", token=token, data=b"mine"))[0] == 201
    async with client.websocket(workspace, token=token) as ws:
        await ws.send("hello")
        assert await ws.recv() == "hello"
        # Nobody types any more: the stop comes with a code that says not to come back.
        with pytest.raises(ConnectionClosed) as closed:
            await asyncio.wait_for(ws.recv(), 15)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 4410
    stopped = await client.becomes(workspace, "stopped")
    assert stopped["reason"] == "idle"

    # A visit wakes it; the file is there.
    status, page = await client.ide(
        workspace, "GET", "/", token=token, headers={"Accept": "text/html"}
    )
    assert status == 202
    assert b"Waking" in page
    woken = await client.becomes(workspace, "running")
    assert woken["epoch"] == 2
    assert await client.ide(workspace, "GET", "/files/a.txt", token=token) == (200, b"mine")

    # Away past the retention: snapshot, verified, terminated; a visit restores it.
    terminated = await client.becomes(workspace, "terminated")
    assert terminated["snapshotId"]
    assert terminated["instanceId"] is None
    await until(
        lambda: not list(gateway.data_dir.glob("machines/*/workspaces/*/home/a.txt")),
        what="its files are removed from the machine",
    )
    await client.ide(workspace, "GET", "/", token=token, headers={"Accept": "text/html"})
    await client.becomes(workspace, "running")
    assert await client.ide(workspace, "GET", "/files/a.txt", token=token) == (200, b"mine")

    told = await client.events()
    order = [
        "workspace.created", "workspace.queued", "workspace.starting", "workspace.running",
        "workspace.stopping", "workspace.stopped", "workspace.queued", "workspace.running",
        "workspace.terminating", "workspace.snapshotted", "workspace.terminated",
    ]  # fmt: skip
    at = iter(told)
    assert all(kind in at for kind in order), told

    assert gateway.stop() == 0
    assert gateway.machines() == []


async def test_the_pool_grows_and_shrinks_with_the_people(serve: Any, client_of: Any) -> None:
    law = ("--slots", "2", "--wait-probability", "0")
    gateway = await serve(*QUICK, *law, "--idle-timeout", "4")
    client = client_of(gateway)
    await asyncio.gather(*(client.running(user) for user in ("ada", "bob", "eve")))
    _, machines = await client.api("GET", "/api/machines")
    assert len([m for m in machines if m["status"] == "ready"]) == 2
    _, pool = await client.api("GET", "/api/pool")
    assert pool["want"] == 2

    async def one_machine() -> bool:
        _, now = await client.api("GET", "/api/machines")
        return [m["status"] for m in now] == ["ready"]

    deadline = asyncio.get_running_loop().time() + 30
    while not await one_machine():
        assert asyncio.get_running_loop().time() < deadline, "the pool never shrank"
        await asyncio.sleep(0.1)
    assert {"machine.draining", "machine.terminated"} <= set(await client.events())


async def test_a_killed_gateway_loses_nothing_and_boots_nothing_twice(
    serve: Any, client_of: Any
) -> None:
    gateway = await serve(*IDE_FLAGS)
    client = client_of(gateway)
    workspace = await client.running()
    token = (await client.enter(workspace))["token"]
    _, before = await client.ide(workspace, "GET", "/echo", token=token)
    gateway.kill()
    assert len(gateway.machines()) == 1, "machines outlive a killed gateway"

    again = await serve(*IDE_FLAGS)
    client = client_of(again)
    record = await client.status(workspace)
    assert (record["status"], record["epoch"]) == ("running", 1)
    workspace["url"] = record["url"]
    _, after = await client.ide(workspace, "GET", "/echo", token=token)
    assert json.loads(after)["pid"] == json.loads(before)["pid"], "the same IDE process"
    assert (await client.events()).count("workspace.starting") == 1
    assert again.stop() == 0
    assert again.machines() == []
    third = await serve(*IDE_FLAGS)
    client = client_of(third)
    assert (await client.status(workspace))["status"] == "stopped"
    await client.running()
