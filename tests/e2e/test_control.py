"""The control channel and the shell of a real gateway: what a person does is known, and they hear of a stop."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import msgpack
from websockets.exceptions import ConnectionClosed

from tests.e2e.harness import IDE_FLAGS

TAB = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document", "Sec-Fetch-User": "?1"}


async def test_a_person_is_seen_and_hears_of_the_stop(
    serve: Any, client_of: Any, until: Any
) -> None:
    client = client_of(await serve(*IDE_FLAGS))
    workspace = await client.running()
    where = f"/api/workspaces/{workspace['workspaceId']}"
    token = (await client.enter(workspace))["token"]
    status, page = await client.ide(workspace, "GET", "/", token=token, headers=TAB)
    assert (status, b"shell.js" in page) == (200, True)

    async def seen() -> dict[str, Any]:
        _, said = await client.api("GET", f"{where}/activity")
        return {one["kind"]: one for one in said["signals"]}

    await until(lambda: _in(seen(), "input"))
    path = "/_gateway/control"
    async with client.websocket(
        workspace, path, token=token, subprotocols=["ide-gateway.v1"]
    ) as ws:
        await ws.send(msgpack.packb({"t": "hello", "seq": 0, "client": "shell"}))
        first = msgpack.unpackb(await ws.recv())
        assert (first["status"], first["canStay"]) == ("running", True)
        await ws.send(msgpack.packb({"t": "stay"}))
        stays = await _extended(ws)
        assert stays["stopsAt"] >= first["now"] + 3_600_000
        assert (await client.api("POST", f"{where}/stop"))[0] in (200, 202)
        told = []
        with contextlib.suppress(ConnectionClosed):
            while True:
                told.append(msgpack.unpackb(await ws.recv()))
    assert [one["status"] for one in told if one["t"] == "state"][-1] == "stopped"
    assert ws.close_code == 4410


async def _extended(ws: Any) -> dict[str, Any]:
    """The first state that the stay led to: one that its input alone led to may come before."""
    async with asyncio.timeout(20):
        while True:
            told: dict[str, Any] = msgpack.unpackb(await ws.recv())
            if told["t"] == "state" and told["because"].startswith("extended"):
                return told


async def _in(found: Any, kind: str) -> bool:
    return kind in await found
