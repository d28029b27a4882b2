"""The client of an agent: what it makes of answers, refusals and silence."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Any

import pytest
from aiohttp import web

from lifecycle import agents as module
from lifecycle.agent.contract import (
    Manifest,
    Report,
    Restore,
    SnapshotSpec,
    StartSpec,
    WorkspaceReport,
)
from lifecycle.agents import AgentError, AgentRefused, Agents, AgentUnreachable
from lifecycle.model import Machine, MachineStatus

ROW = WorkspaceReport("demo", 3, "running", port=4321, pid=99)
MANIFEST = Manifest("demo", "s1", 3, 1, 2, 3, "s1.tar.zst", 4, "abc")


def machine(address: str) -> Machine:
    return Machine("m-1", "test", MachineStatus.READY, 0, 5, address=address, token="tok")


@asynccontextmanager
async def answering(
    answer: Callable[[web.Request], Awaitable[web.StreamResponse]],
) -> AsyncIterator[Machine]:
    """A server that gives every call to `answer`."""
    runner = web.AppRunner(web.Application(middlewares=[]))
    runner.app.router.add_route("*", "/{path:.*}", answer)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    try:
        yield machine(f"127.0.0.1:{port}")
    finally:
        await runner.cleanup()


@pytest.fixture
async def agents() -> AsyncIterator[Agents]:
    async with Agents() as client:
        yield client


async def test_each_call_as_the_contract_has_it(agents: Agents) -> None:
    seen: list[tuple[str, str, Any]] = []
    report = Report("m-1", "b", 7, 5, workspaces=(ROW,))
    answers: dict[str, Any] = {
        "/status": report.to_json(),
        "/workspaces/demo/snapshot": asdict(MANIFEST),
        "/workspaces/demo/ports": {"ports": [80, 8080]},
        "/shutdown": {},
    }

    async def answer(request: web.Request) -> web.Response:
        assert request.headers["Authorization"] == "Bearer tok"
        body = await request.read()
        seen.append((request.method, request.path_qs, json.loads(body) if body else None))
        if request.path.endswith("/log"):
            return web.Response(text="one\ntwo")
        return web.json_response(answers.get(request.path, asdict(ROW)))

    start = StartSpec(3, "ide {port}", "s", restore=Restore("/snapshots", "s1"))
    snapshot = SnapshotSpec(3, "/snapshots", "s1")
    async with answering(answer) as m:
        assert await agents.status(m, since=6, wait=0.5) == report
        assert await agents.start(m, "demo", start) == ROW
        assert await agents.stop(m, "demo", 3, grace=2) == ROW
        assert await agents.snapshot(m, "demo", snapshot) == MANIFEST
        await agents.remove(m, "demo", 3)
        assert await agents.ports(m, "demo") == [80, 8080]
        assert await agents.log(m, "demo", tail=9) == "one\ntwo"
        await agents.shutdown(m)
    assert StartSpec.from_json(seen[1][2]) == start
    assert seen == [
        ("GET", "/status?since=6&wait=0.5", None),
        ("PUT", "/workspaces/demo", start.to_json()),
        ("POST", "/workspaces/demo/stop", {"epoch": 3, "grace": 2}),
        ("POST", "/workspaces/demo/snapshot", asdict(snapshot)),
        ("DELETE", "/workspaces/demo", {"epoch": 3}),
        ("GET", "/workspaces/demo/ports", None),
        ("GET", "/workspaces/demo/log?tail=9", None),
        ("POST", "/shutdown", None),
    ]


async def test_a_refusal_carries_its_code_and_what_to_do(agents: Agents) -> None:
    async def answer(request: web.Request) -> web.Response:
        error = {"code": "no_slot", "message": "all taken", "hint": "use another machine"}
        return web.json_response({"error": error}, status=409)

    async with answering(answer) as m:
        with pytest.raises(AgentRefused) as refused:
            await agents.ports(m, "demo")
    assert refused.value.code == "no_slot"
    assert str(refused.value) == "all taken; use another machine"


async def _shutting_down(request: web.Request) -> web.Response:
    return web.json_response({"error": {"code": "shutting_down", "message": "bye"}}, status=503)


async def _not_an_agent(request: web.Request) -> web.Response:
    return web.Response(text="<h1>It works!</h1>")


async def _a_fault(request: web.Request) -> web.Response:
    return web.Response(text="oops", status=500)


async def _another_version(request: web.Request) -> web.Response:
    return web.json_response({"machine_id": "m-1", "mood": "good"})


async def _elsewhere(request: web.Request) -> web.Response:
    return web.Response(status=302, headers={"Location": "http://192.0.2.1/status"})


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (_shutting_down, "bye"),
        (_not_an_agent, "is not an agent"),
        (_a_fault, "HTTP 500"),
        (_another_version, "another version of the contract"),
        (_elsewhere, "is not an agent"),
    ],
)
async def test_what_is_no_answer_is_unreachable(agents: Agents, answer: Any, says: str) -> None:
    async with answering(answer) as m:
        with pytest.raises(AgentUnreachable, match=says) as unreachable:
            await agents.status(m)
    assert "machine m-1" in str(unreachable.value)


async def test_nobody_listens(agents: Agents, unused_address: str) -> None:
    for address in (unused_address, "", "no such host"):
        with pytest.raises(AgentUnreachable, match="machine m-1"):
            await agents.status(machine(address))


async def test_silence_ends(agents: Agents, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ANSWER_TIMEOUT", 0.1)

    over = asyncio.Event()

    async def answer(request: web.Request) -> web.Response:
        await over.wait()
        return web.Response()

    async with answering(answer) as m:
        with pytest.raises(AgentUnreachable, match="does not answer"):
            await agents.status(m, wait=0.1)
        over.set()


async def test_half_an_answer(agents: Agents) -> None:
    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
        writer.close()

    server = await asyncio.start_server(cut, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(AgentUnreachable):
            await agents.status(machine(f"127.0.0.1:{port}"))


async def test_closing_twice_is_success() -> None:
    agents = Agents()
    await agents.close()
    with pytest.raises(AgentError):
        await agents.status(machine("127.0.0.1:9"))
    await agents.close()
    await agents.close()


@pytest.fixture
def unused_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


async def test_an_answer_without_an_end_is_not_taken(
    agents: Agents, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ANSWER_MAX", 1000)

    async def answer(request: web.Request) -> web.Response:
        return web.Response(text="x" * 1001)

    async with answering(answer) as place:
        with pytest.raises(AgentUnreachable, match="larger than 1000 bytes"):
            await agents.log(place, "w1")
