"""The API on a real server and port; each test runs on the store in memory and on the one in Redis."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import socket
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import aiohttp
import pytest
import uvicorn
from redis.asyncio import Redis
from starlette.applications import Starlette
from starlette.requests import Request

from gateway import api, auth, openapi
from gateway.api.idempotency import RedisIdempotencyKeys
from gateway.metrics import Metrics
from lifecycle import pricing
from lifecycle.agent.contract import Manifest
from lifecycle.joining import Joining
from lifecycle.model import Workspace, WorkspaceStatus
from lifecycle.plans import Plan, Plans
from lifecycle.snapshots.downloads import Archive
from lifecycle.stores.redis import RedisStore
from tests import prompt

KEYS = auth.Keys(signing_key="signing-key", api_key="api-key")
JOINING = Joining(KEYS.signing_key)
ORIGIN = "http://localhost:8000"
_W = WorkspaceStatus
WAY = {
    _W.STOPPED: (),
    _W.QUEUED: (_W.QUEUED,),
    _W.STARTING: (_W.QUEUED, _W.STARTING),
    _W.RUNNING: (_W.QUEUED, _W.STARTING, _W.RUNNING),
    _W.STOPPING: (_W.QUEUED, _W.STARTING, _W.RUNNING, _W.STOPPING),
    _W.FAILED: (_W.QUEUED, _W.STARTING, _W.FAILED),
    _W.TERMINATING: (_W.TERMINATING,),
    _W.TERMINATED: (_W.TERMINATING, _W.TERMINATED),
}


def _load(name: str) -> ModuleType:
    """A module beside this one: under importlib mode tests are no package that could be imported from."""
    spec = importlib.util.spec_from_file_location(
        f"api_{name}", Path(__file__).with_name(f"{name}.py")
    )
    assert spec
    assert spec.loader
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


fakes = _load("fakes")
DOCUMENT = openapi.document(api.operations(), "1.2.3", "ide-gateway-home")
FITTING = _load("fitting").Fitting(DOCUMENT)


@dataclass
class Answer:
    status: int
    headers: Any
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)

    @property
    def error(self) -> dict[str, Any]:
        """The error object, checked to be in its one shape."""
        body = self.json
        assert set(body) == {"error"}
        assert body["error"]["code"]
        assert body["error"]["message"]
        retry = body["error"].get("retryAfter")
        assert self.headers.get("Retry-After") == (None if retry is None else str(retry))
        error: dict[str, Any] = body["error"]
        return error

    @property
    def refusal(self) -> tuple[int, str]:
        return self.status, self.error["code"]


@dataclass
class World:
    """The server, what it was given, and what was asked of it."""

    store: Any
    keys: Any
    events: Any
    fleet: Any = field(default_factory=fakes.FakeFleet)
    usage: Any = field(default_factory=fakes.FakeUsage)
    health: Any = field(default_factory=fakes.FakeHealth)
    metrics: Metrics = field(default_factory=Metrics)
    purged: list[str] = field(default_factory=list)
    notices: list[tuple[str, str, int]] = field(default_factory=list)
    book: Any = field(default_factory=fakes.FakeBook)
    peaks: Any = field(default_factory=fakes.FakePeaks)
    fails: Exception | None = None
    """What snapshot, download and purge raise."""
    breaks: Exception | None = None
    """What a download raises in its middle."""
    plans: Plans = field(default_factory=lambda: Plans(Plan("default")))
    dashboard: Any = field(default_factory=fakes.FakeDashboard)
    prices: Any = field(
        default_factory=lambda: pricing.read(
            'currency = "EUR"\n[running]\ndefault = 0.6\nbig = 6\n[stored]\ngib-month = 7.3'
        )
    )
    url: str = ""
    http: aiohttp.ClientSession = None  # type: ignore[assignment]

    def parts(self) -> api.Parts:
        return api.Parts(
            store=self.store,
            fleet=self.fleet,
            history=lambda after, limit: self.events.history(after, limit),
            subscription=self.events.subscription,
            usage=self.usage,
            health=self.health,
            keys=self.keys,
            identify=_identify,
            origin_allowed=_origin_allowed,
            url_of=lambda workspace_id: f"http://{workspace_id}.localhost:8000/",
            eta=self._eta,
            enter=self._enter,
            snapshot=self._snapshot,
            download=self._download,
            purge=self._purge,
            joining=JOINING,
            metrics=self.metrics.render,
            openapi=DOCUMENT,
            noticed=self._noticed,
            prices=self.prices,
            dashboard=self.dashboard,
            notices=self.book,
            plans=self.plans,
            deliveries=self.book,
            peaks=self.peaks,
        )

    async def bring(
        self, user: str, status: WorkspaceStatus = _W.RUNNING, name: str = "", machine: str = "m-1"
    ) -> Workspace:
        """A workspace of that user in that status, by the way that statuses allow."""
        workspace, _ = await self.store.ensure(user, name)
        for step in WAY[status]:
            if step is _W.QUEUED:
                workspace = await self.store.wake(workspace.id)
            else:
                fields = {"machineId": machine} if step is _W.STARTING else {}
                if step is _W.TERMINATED:
                    fields = {"machineId": "", "snapshotId": "snap-1"}
                if step is _W.FAILED:
                    fields = {"errorCode": "boot_failed", "error": "the IDE exited at once"}
                workspace = await self.store.change(workspace, step, fields=fields)
        return workspace

    async def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        user: str | None = "admin",
        raw: bytes | None = None,
        **headers: str,
    ) -> Answer:
        """user: "admin" with the API key, a person by cookie and Origin, or None."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        sent = {**credentials(user), **sent}
        data = raw if body is None else json.dumps(body).encode()
        async with self.http.request(method, self.url + path, data=data, headers=sent) as response:
            answer = Answer(response.status, response.headers, await response.text())
            asked = response.url.raw_path
        if answer.headers.get("Content-Type") == "application/json" and method != "HEAD":
            FITTING.check(method, asked, answer.status, answer.json)
        return answer

    async def _eta(self, position: int, workspace: Workspace | None = None) -> float:
        return 4.2 + position

    async def _enter(self, workspace: Workspace, next: str) -> api.Entry:
        url = f"http://{workspace.id}.localhost:8000/_gateway/enter?code=c&next={next}"
        return api.Entry(url, "igw_token", 5000)

    async def _noticed(self, machine_id: str, kind: str, at_ms: int) -> None:
        self.notices.append((machine_id, kind, at_ms))

    async def _snapshot(self, workspace_id: str) -> Manifest:
        if self.fails:
            raise self.fails
        return Manifest(workspace_id, "snap-2", 1, 2000, 3, 4096, "a.tar.zst", 512, "0" * 64)

    async def _download(self, workspace: Workspace) -> Archive:
        if self.fails:
            raise self.fails

        async def pieces() -> AsyncGenerator[bytes, None]:
            yield b"one "
            if self.breaks:
                raise self.breaks
            yield b"two"

        return Archive(1_700_000_000_000, pieces())

    async def _purge(self, workspace_id: str) -> None:
        if self.fails:
            raise self.fails
        self.purged.append(workspace_id)
        await self.store.delete(workspace_id)


def credentials(user: str | None) -> dict[str, str]:
    if user is None:
        return {}
    if user == "admin":
        return {"Authorization": f"Bearer {KEYS.api_key}"}
    cookie = auth.make_home_cookie(user, KEYS, now=time.time())
    return {"Cookie": f"ide-gateway-home={cookie}", "Origin": ORIGIN}


def _identify(request: Request) -> auth.Admin | auth.Person | auth.Nobody:
    return auth.identify_base(request.headers.raw, KEYS, https=False, max_age=60, now=time.time())


def _origin_allowed(request: Request, cookie_used: bool) -> bool:
    origin = auth.origin_header(request.headers.raw)
    return auth.check_origin(origin, ORIGIN, cookie_used=cookie_used)


@asynccontextmanager
async def serving(world: World, parts: api.Parts | None = None) -> AsyncIterator[World]:
    """The API of that world on a free port of loopback."""
    app = Starlette(routes=api.routes(parts or world.parts()))
    config = uvicorn.Config(app, lifespan="off", ws="none", log_config=None, timeout_keep_alive=1)
    server = prompt.Server(config)
    listening = socket.create_server(("127.0.0.1", 0))
    world.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    running = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(20)) as world.http:
            yield world
    finally:
        server.should_exit = True
        await running
        listening.close()


@pytest.fixture(params=["memory", "redis"])
async def world(request: pytest.FixtureRequest, redis: Redis) -> AsyncIterator[World]:
    """Bounds are small: 3 workspaces a user, 4 places in the queue."""
    if request.param == "memory":
        store: Any = fakes.FakeStore(3, 4)
        keys: Any = fakes.FakeKeys()
    else:
        store = RedisStore(redis, max_workspaces_per_user=3, max_queue=4)
        keys = RedisIdempotencyKeys(redis)
    async with serving(World(store, keys, fakes.FakeEvents())) as running:
        yield running


@pytest.fixture
async def alone() -> AsyncIterator[World]:
    """A world in memory, for what does not depend on the store."""
    world = World(fakes.FakeStore(3, 4), fakes.FakeKeys(), fakes.FakeEvents())
    async with serving(world) as running:
        yield running


@pytest.fixture
def served() -> Callable[..., Any]:
    """For a test that changes the parts: `async with served(metrics_token="t") as world`."""

    @asynccontextmanager
    async def serve(events: Any = None, **changes: Any) -> AsyncIterator[World]:
        world = World(fakes.FakeStore(3, 4), fakes.FakeKeys(), events or fakes.FakeEvents())
        async with serving(world, replace(world.parts(), **changes)) as running:
            yield running

    return serve


@pytest.fixture(name="fakes")
def fakes_fixture() -> ModuleType:
    return fakes


@pytest.fixture
def fitting() -> Any:
    return FITTING
