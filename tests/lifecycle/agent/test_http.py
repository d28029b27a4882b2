"""The agent's HTTP edge: who may call, and what a malformed call is told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from lifecycle.agent.app import MAX_BODY

BEARER = {"Authorization": "Bearer token-of-the-machine"}


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Any]]:
    """One agent for all: none of these calls may leave a trace. (its directory, its process)"""
    directory = tmp_path_factory.mktemp("machine").resolve()
    words = ["--machine", "m-1", "--dir", str(directory), "--slots", "2"]
    with (directory / "agent.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "lifecycle.agent", *words],
            env=os.environ | {"IDE_GATEWAY_AGENT_TOKEN": "token-of-the-machine"},
            stdout=log, stderr=log,
        )  # fmt: skip
    yield directory, process
    process.terminate()
    process.wait(30)


@pytest.fixture
async def agent(
    live: Any, process: tuple[Path, Any], until: Callable[..., Any]
) -> AsyncIterator[Any]:
    live.directory, live.process = process
    here = await until(live._announced, timeout=30, what="agent.json")
    live.machine = replace(live.machine, address=f"127.0.0.1:{here['port']}")
    yield live
    assert live.process.poll() is None
    assert (await live.agents.status(live.machine)).workspaces == ()
    live.process = None  # the next test goes on with it


@pytest.fixture
async def call(agent) -> AsyncIterator[Any]:
    async with aiohttp.ClientSession() as session:

        async def once(method: str, path: str, **words: Any) -> tuple[int, Any]:
            url = f"http://{agent.machine.address}{path}"
            async with session.request(method, url, **words) as answer:
                return answer.status, (await answer.json())["error"]

        yield once


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "token-of-the-machine"},
        {"Authorization": "Basic token-of-the-machine"},
        [("Authorization", "Bearer wrong"), ("Authorization", "Bearer token-of-the-machine")],
        [("Authorization", "Bearer token-of-the-machine"), ("Authorization", "Bearer wrong")],
    ],
    ids=["none", "wrong", "bare", "basic", "two", "two more"],
)
@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/status"), ("PUT", "/workspaces/demo"), ("POST", "/shutdown"), ("GET", "/nothing")],
)
async def test_nothing_without_the_token(agent, call, method, path, headers) -> None:
    status, error = await call(method, path, headers=headers)
    assert (status, error["code"]) == (401, "unauthorized")
    assert agent.process.poll() is None


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"{", "the body is not JSON"),
        (b"[1]", "the body is not an object"),
        (b"\xff", "the body is not JSON"),
        (b'{"command": "x", "secret": "s"}', "epoch must be a whole number from 1, not None"),
        (b'{"epoch": "1"}', "epoch must be a whole number from 1, not '1'"),
        (b'{"epoch": 0}', "epoch must be"),
        (b'{"epoch": true}', "epoch must be"),
        (b'{"epoch": 1}', "missing 2 required positional arguments: 'command' and 'secret'"),
        (b'{"epoch": 1, "command": "x", "secret": "s", "uid": 0}', "'uid'"),
        (b'{"epoch": 1, "command": ["x"], "secret": "s"}', "command must be str, not ['x']"),
        (b'{"epoch": 1, "command": "x", "secret": "s", "ready_timeout": "1"}', "ready_timeout"),
        (b'{"epoch": 1, "command": "x", "secret": "s", "restore": {"x": 1}}', "'x'"),
        (b'{"epoch": 1, "command": "x", "secret": "s", "ready_path": "/\\r\\nA: b"}', "one line"),
    ],
)
async def test_a_malformed_start_is_refused(agent, call, body: bytes, says: str) -> None:
    status, error = await call("PUT", "/workspaces/demo", data=body, headers=BEARER)
    assert (status, error["code"]) == (400, "bad_request")
    assert says in error["message"]
    assert await agent.row() is None


@pytest.mark.parametrize("workspace", ["..", "A", "a.b", "a%2Fb", "-a", "a-", "a" * 41, "%00"])
async def test_only_ids_name_directories(agent, call, workspace: str) -> None:
    body = json.dumps({"epoch": 1, "command": "x", "secret": "s"})
    status, error = await call("PUT", f"/workspaces/{workspace}", data=body, headers=BEARER)
    assert (status, error["code"]) in [(400, "bad_request"), (404, "not_found")]
    assert (await agent.agents.status(agent.machine)).workspaces == ()


async def test_a_body_of_any_size(agent, call) -> None:
    body = b'{"epoch": 1, "command": "' + b"x" * MAX_BODY + b'", "secret": "s"}'
    status, error = await call("PUT", "/workspaces/demo", data=body, headers=BEARER)
    assert (status, error["code"]) == (413, "bad_request")


@pytest.mark.parametrize("query", ["since=x", "wait=-1", "wait=nan", "since=inf"])
async def test_a_malformed_query(call, query: str) -> None:
    status, error = await call("GET", f"/status?{query}", headers=BEARER)
    assert (status, error["code"]) == (400, "bad_request")


async def test_no_such_call(call) -> None:
    for method, path in [("GET", "/"), ("POST", "/workspaces/demo"), ("GET", "/docs")]:
        status, error = await call(method, path, headers=BEARER)
        assert (status, error["code"]) == (404, "not_found")
