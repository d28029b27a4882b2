"""A workspace's host on a real uvicorn: the gateway's own application, over records that a test writes."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import msgpack
import uvicorn
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import Receive, Scope, Send
from websockets.asyncio.client import ClientConnection, connect

from gateway import accepting, auth, pages
from gateway.admission import Admission
from gateway.control import Control
from gateway.front import Front
from gateway.heartbeats import Heartbeats
from gateway.hosts import PublicUrl, place_of
from gateway.http import GatewayHttpProtocol
from gateway.metrics import Metrics
from gateway.passing import Ways
from gateway.process import config
from gateway.proxy import HttpProxy
from gateway.routes import Routes
from gateway.workspace import WorkspaceApp
from lifecycle.model import Event, Workspace, WorkspaceStatus
from lifecycle.notices import Notice
from lifecycle.plans import Policy, Quota
from lifecycle.stores import StoreUnavailable

KEYS = auth.Keys("signing-key-of-the-gateway", "api-key-of-the-gateway")
HOST = "w1.localhost:8000"
ORIGIN = f"http://{HOST}"
NOW_MS = 1_700_000_000_000
W = WorkspaceStatus


def cookie(workspace: str = "w1", user: str = "ada") -> str:
    # Ahead of time: tables of tests are made minutes before the last of them runs.
    value = auth.make_workspace_cookie(workspace, user, KEYS, now=time.time() + 3600)
    return f"{auth.cookie_name(auth.WORKSPACE_COOKIE, False)}={value}"


class World:
    """One workspace's record, its notices, and what was seen in it. Its time stands still."""

    def __init__(self, ide: int = 9) -> None:
        self.record: Workspace | None = Workspace(
            "w1", "ada", W.RUNNING, 1, NOW_MS - 1000, name="thesis", epoch=3,
            address=f"127.0.0.1:{ide}", running_since_ms=NOW_MS, seen={"boot": NOW_MS},
        )  # fmt: skip
        self.now = NOW_MS
        self.away = False
        self.written: list[Notice] = []
        self.sightings: list[tuple[str, str, str]] = []
        self.touches: list[tuple[str, str, str]] = []
        self.extensions: list[float] = []
        self.visits: list[str] = []
        self.reads = 0
        self.policy = Policy(idle_timeout=3600, countdown=(300.0, 60.0))
        self.control = Control(self, self, self, lambda _: self.policy, self.trusted, max_tabs=60)
        self.port = 0
        self.server: uvicorn.Server

    # The store

    async def get(self, workspace_id: str) -> Workspace | None:
        self.reads += 1
        if self.away:
            raise StoreUnavailable("Redis did not answer")
        return self.record if workspace_id == "w1" else None

    async def now_ms(self) -> int:
        return self.now

    async def trusted(self) -> int | None:
        return None

    async def touch(self, workspace_id: str, kind: str, source: str = "api") -> bool:
        if self.away:
            raise StoreUnavailable("Redis did not answer")
        self.touches.append((workspace_id, kind, source))
        assert self.record is not None
        self.record = replace(self.record, seen=self.record.seen | {kind: self.now})
        return True

    async def extend(self, workspace_id: str, seconds: float) -> Workspace:
        assert self.record is not None
        self.extensions.append(seconds)
        self.record = replace(self.record, extend_until_ms=self.now + int(seconds * 1000))
        return self.record

    # Notices and heartbeats

    async def since(self, workspace_id: str, seq: int, limit: int = 50) -> list[Notice]:
        return [one for one in self.written if one.seq > seq][:limit]

    def saw(self, workspace: str, kind: str, source: str) -> None:
        self.sightings.append((workspace, kind, source))

    # What the test does

    def becomes(self, status: WorkspaceStatus, **fields: Any) -> None:
        assert self.record is not None
        self.record = replace(self.record, status=status, status_since_ms=self.now, **fields)
        self.hear(f"workspace.{status}")

    def hear(self, kind: str, **data: str) -> None:
        self.control.on_event(Event("1-0", kind, {"workspace": "w1", **data}))

    def write(self, kind: str, text: str = "", seq: int = 0) -> None:
        """Write a notice down, and let its event go round."""
        seq = seq or len(self.written) + 1
        self.written.append(Notice(seq, kind, "w1", "ada", self.now, text, {"at": "5"}))
        self.hear("workspace.notice", seq=str(seq), notice=kind)

    async def visit(self, request: Request, workspace_id: str) -> Response:
        self.visits.append(request.url.path)
        return PlainTextResponse("woken", 202)

    # Its clients

    @contextlib.asynccontextmanager
    async def tab(
        self, seq: int = 0, client: str = "shell", **options: Any
    ) -> AsyncIterator[Channel]:
        async with self.socket(**options) as ws:
            channel = Channel(ws)
            await channel.say(t="hello", seq=seq, client=client)
            yield channel

    def socket(self, headers: dict[str, str] | None = None, **options: Any) -> connect:
        given = {"origin": ORIGIN, "subprotocols": ["ide-gateway.v1"]} | options
        path = given.pop("path", "/_gateway/control")
        return connect(
            f"ws://{HOST}{path}", host="127.0.0.1", port=self.port, proxy=None,
            additional_headers={"Cookie": cookie()} if headers is None else headers, **given,
        )  # fmt: skip


class Channel:
    """What a client says and hears."""

    def __init__(self, ws: ClientConnection) -> None:
        self.ws = ws

    async def say(self, **message: Any) -> None:
        await self.ws.send(msgpack.packb(message))

    async def hear(self) -> dict[str, Any]:
        data = await self.ws.recv()
        assert isinstance(data, bytes)
        return dict(msgpack.unpackb(data))


@contextlib.asynccontextmanager
async def served(
    ide: int = 9, shell: bool = True, heartbeats: Heartbeats | None = None
) -> AsyncIterator[World]:
    """ide: port of what stands for the IDE. heartbeats: sessions can be opened, and what is asked for again
    passes below the application."""
    world, proxy = World(ide), HttpProxy(own_cookie_names=auth.OWN_COOKIE_NAMES)
    routes, metrics = Routes(world), Metrics("0")  # type: ignore[arg-type]
    app = WorkspaceApp(
        routes=routes,
        keys=KEYS,
        public=PublicUrl.parse("http://localhost:8000"),
        entry_ttl=60,
        upstream_header="X-Secret: s",
        proxy=proxy,
        heartbeats=world if heartbeats is None else heartbeats,  # type: ignore[arg-type]
        admission=Admission(world, lambda plan: Quota(), 1),  # type: ignore[arg-type]
        metrics=metrics,
        visit=world.visit,
        unanswered=world.visit,
        ours={("POST", "input"): world.control.input},
        enter=world.visit,
        assets=pages.Assets(),
        ports=no_ports,
        control=world.control.serve,
        shell=shell,
    )
    ways = Ways(routes, proxy.upstreams, metrics.proxied)
    whole = Front("localhost", PublicUrl.parse("http://localhost:8000"), nothing_else, app, ways)

    async def front(scope: Scope, receive: Receive, send: Send) -> None:
        host = dict(scope["headers"])[b"host"]
        place = place_of(host, "localhost")
        await app(scope, receive, send, place)  # type: ignore[arg-type]

    try:
        async with serving(config(front if heartbeats is None else whole)) as (
            world.server,
            world.port,
        ):
            yield world
    finally:
        ways.close()
        await proxy.close()


nothing_else = PlainTextResponse("nothing else is served here", 404)


async def no_ports(workspace: Workspace) -> frozenset[int]:
    return frozenset()


@contextlib.asynccontextmanager
async def serving(settings: uvicorn.Config) -> AsyncIterator[tuple[uvicorn.Server, int]]:
    """As the gateway runs it, in this loop, on a free port."""
    assert settings.http is GatewayHttpProtocol
    settings.load()
    server = accepting.Server(settings)
    # serve() without its signal handlers and its tick of 0.1 s
    server.lifespan = settings.lifespan_class(settings)
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    await server.startup(sockets=[sock])
    try:
        yield server, sock.getsockname()[1]
    finally:
        # shutdown() without its tick of 0.1 s
        for one in (*server.servers, sock):
            one.close()
        for connection in list(server.server_state.connections):
            connection.transport.abort()  # type: ignore[union-attr]
        tasks = server.server_state.tasks
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=5)
            assert not late
