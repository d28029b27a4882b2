"""The composition root: the one place that names concrete parts and puts them together."""

from __future__ import annotations

import asyncio
import getpass
import os
import re
import secrets
import socket
import time
from collections.abc import Callable, Coroutine, Sequence

import psutil
import structlog
from redis.asyncio import Redis
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway import __version__, api, auth, closing, headers, pages, visits
from gateway.api.idempotency import RedisIdempotencyKeys
from gateway.api.parts import Entry, Parts, Principal
from gateway.entry import Codes, safe_next
from gateway.gauges import INTERVAL, Gauges
from gateway.heartbeats import Heartbeats
from gateway.hosts import Base, PortHost, PublicUrl, WorkspaceHost, host_of, origin_of, place_of
from gateway.metrics import Metrics
from gateway.openapi import document
from gateway.progress import Progress
from gateway.proxy import HttpProxy
from gateway.relay import refuse
from gateway.routes import Routes
from gateway.settings import Settings
from gateway.shared import put_back
from gateway.workspace import WorkspaceApp
from lifecycle.actions import Actions, NotNow, Plan
from lifecycle.agent.contract import Manifest
from lifecycle.agents import AgentError, Agents
from lifecycle.lease import Lease
from lifecycle.loops import Loops, Times, every
from lifecycle.model import Event, MachineStatus, Workspace, WorkspaceStatus
from lifecycle.news import News
from lifecycle.pools.local import LocalPool
from lifecycle.queueing import eta_seconds
from lifecycle.snapshots.registry import open_target
from lifecycle.stores import Conflict, StoreError
from lifecycle.stores.connection import connect
from lifecycle.stores.fleet import RedisFleet
from lifecycle.stores.redis import RedisStore
from lifecycle.stores.signals import RedisSignals

log = structlog.get_logger(__name__)

Report = Callable[[str, str, str], None]

HOME_CODE_TTL = 600.0  # seconds; only for the code that serve prints on the terminal
REDIS_AWAY_MAX = 10.0  # seconds without a flush after which this gateway asks for no more traffic
MACHINE_LEAD = 2.0  # seconds a local machine takes to be ready
LEAVE_WITHIN = 5.0  # seconds an absent Redis may hold up our end; machines then go on
PUT_BACK = 10.0  # seconds until a Redis that lost its data holds again what gateways share
PORTS_FRESH = 3.0  # seconds a machine's word on a workspace's ports is believed
LOG_LINES = 60

_PROBES = frozenset({"/healthz", "/readyz"})

_W = WorkspaceStatus
_M = MachineStatus


async def create(
    settings: Settings, redis_url: str, api_key: str, signing_key: str, report: Report
) -> Application:
    """One gateway process, not started yet."""
    return Application(settings, redis_url, auth.Keys(signing_key, api_key), report)


class Application:
    def __init__(self, settings: Settings, redis_url: str, keys: auth.Keys, report: Report) -> None:
        self._settings, self._keys, self._report = settings, keys, report
        self._public = PublicUrl.parse(settings.public_url)
        self.gateway = f"{_label(socket.gethostname())}.{os.getpid()}.{secrets.token_hex(2)}"
        self._redis: Redis = connect(redis_url)
        self._store = RedisStore(
            self._redis,
            max_workspaces_per_user=settings.max_workspaces_per_user,
            max_queue=settings.max_queue,
        )
        self._fleet = RedisFleet(self._redis)
        self._signals = RedisSignals(self._redis)
        self._news = News(self._signals)
        self._codes = Codes(self._redis)
        self._metrics = Metrics(__version__)
        self._agents = Agents()
        self._pool = LocalPool(
            settings.data_dir,
            workspace_user=settings.workspace_user,
            stop_grace=settings.stop_grace,
        )
        self._actions = Actions(
            self._store, self._fleet, self._agents, _plan(settings), open_target
        )
        self._loops = Loops(
            self._store, self._fleet, self._signals, self._news, self._pool, self._agents,
            self._actions, _times(settings),
        )  # fmt: skip
        self._lease = Lease(self._signals, self.gateway, settings.lease_ttl)
        self._heartbeats = Heartbeats(
            self.gateway,
            self._signals,
            self._metrics,
            ping_interval=settings.ping_interval,
            max_sessions=settings.max_sessions,
            max_sessions_per_user=settings.max_sessions_per_user,
        )
        self._gauges = Gauges(
            self._metrics, self._store, self._fleet, lambda: self._lease.token > 0
        )
        self._routes = Routes(self._store)
        self._proxy = HttpProxy(own_cookie_names=auth.OWN_COOKIE_NAMES)
        self._pace_known: tuple[float, int, list[float]] = (0.0, 0, [])
        self._ports_known: dict[tuple[str, int], tuple[float, frozenset[int]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._draining = False
        progress = Progress(self._store, self._news, self._place, self._ide_log)
        self._base = self._base_app()
        self.asgi: ASGIApp = self._dispatch
        self._workspaces = WorkspaceApp(
            routes=self._routes,
            keys=keys,
            public=self._public,
            entry_ttl=settings.entry_ttl,
            upstream_header=settings.workspace_upstream_header,
            proxy=self._proxy,
            heartbeats=self._heartbeats,
            metrics=self._metrics,
            visit=visits.visit(self._store, progress, self._home),
            unanswered=visits.visit(self._store, progress, self._home, unanswered=True),
            ours={
                ("GET", "progress"): progress.respond,
                ("POST", "start"): visits.start(self._store, progress, self._home),
            },
            enter=visits.workspace_enter(self._codes.redeem, self._workspace_cookie, self._home),
            assets=pages.Assets(),
            ports=self._ports,
        )

    # Life

    async def start(self) -> None:
        """Listen to the news, take heartbeats, stand by for the loops; tell what there is."""
        for listener in (
            self._routes.on_event,
            self._heartbeats.on_event,
            self._gauges.on_event,
            self._drop_connections,
            self._log_event,
        ):
            self._news.listen(listener)
        await self._news.start()
        await self._heartbeats.flush()
        self._spawn(self._news.run())
        self._spawn(self._heartbeats.run())
        self._spawn(every(INTERVAL, self._gauges.refresh))
        self._spawn(every(PUT_BACK, self._put_back))
        if self._settings.lifecycle == "on":
            self._spawn(self._lease.run(self._loops.lead))
        self._report("✓", "Pool", await self._pool_line())

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _put_back(self) -> None:
        await put_back(self._redis, self._keys.signing_key, self._settings.data_dir)

    async def _pool_line(self) -> str:
        machines = await self._fleet.machines()
        alive = [m for m in machines if m.status in (_M.READY, _M.LAUNCHING, _M.STOPPED)]
        settings = self._settings
        if settings.lifecycle == "off":
            return f"{settings.pool}: {len(alive)} machines; the loops run on another gateway"
        count = max(1, len(alive)) if settings.warm_slots or alive else 0
        machine = "machine" if count == 1 else "machines"
        return f"{settings.pool}: {count} {machine}, {count * settings.slots} slots"

    async def home_url(self) -> str:
        """A one-use address of the home page for whoever started the gateway."""
        code = await self._codes.mint("home", _owner(), ttl=HOME_CODE_TTL)
        return f"{origin_of(Base(), self._public)}/enter?code={code}"

    async def drain(self) -> None:
        """Say 503 at /readyz from now on; everything else goes on."""
        self._draining = True

    async def stop(self, stop_machines: bool) -> None:
        """Give the lease back and stop. With stop_machines, and as the last gateway on this Redis,
        stop what runs, in order; files stay where they are."""
        self._heartbeats.end_all(closing.RESTARTING)
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        try:
            async with asyncio.timeout(LEAVE_WITHIN):
                await self._lease.give()
                await self._heartbeats.flush()
                others = await self._signals.leave(self.gateway)
            last = all(_was_killed(other, self.gateway) for other in others)
            if last and stop_machines and self._settings.lifecycle == "on":
                await self._stop_everything()
            else:
                await self._pool.close(stop_machines=False)
        except (StoreError, TimeoutError) as error:
            log.warning("stop.machines_left", why=str(error) or "Redis did not answer")
            await self._pool.close(stop_machines=False)
        await self._proxy.close()
        await self._agents.close()
        await self._redis.aclose()

    async def _stop_everything(self) -> None:
        """Ask, stop, note: a start in the middle finds records that say what is true."""
        for workspace in await self._store.list(status=(_W.QUEUED, _W.STARTING, _W.RUNNING)):
            await self._store.stop(workspace.id, "gateway stopped")
        await self._pool.close(stop_machines=True)
        for workspace in await self._store.list(status=(_W.STOPPING,)):
            await self._actions.stopped(workspace, workspace.reason)
        for machine in await self._fleet.machines():
            if machine.status in (_M.READY, _M.DRAINING):
                try:
                    await self._fleet.change(machine, _M.STOPPED, reason="gateway stopped")
                except Conflict as conflict:
                    log.info("machine.overtaken", machine=machine.id, why=str(conflict))

    def _drop_connections(self, event: Event) -> None:
        """A boot that is over keeps no upstream connection, silent streams among them."""
        if event.type in ("workspace.stopping", "workspace.failed"):
            key = (event.data.get("workspace", ""), int(event.data.get("epoch", 0)))
            self._spawn(self._proxy.drop(key))

    def _log_event(self, event: Event) -> None:
        """Each thing is logged once: by the gateway it happened on, or else by the one that leads."""
        mine = event.data.get("gateway", self.gateway if self._lease.token else "")
        if mine == self.gateway:
            log.info(event.type, **{k: v for k, v in event.data.items() if k != "gateway"})

    # HTTP and WebSocket

    async def _dispatch(self, scope: Scope, receive: Receive, send: Send) -> None:
        raw = scope.get("raw_path") or scope["path"].encode()
        wrong = headers.refuse(scope["headers"], scope.get("method", "GET"), raw)
        if wrong is not None:
            await _answer(scope, receive, send, 400, "bad_request", wrong)
            return
        host = next((value for name, value in scope["headers"] if name == b"host"), None)
        place = place_of(host, self._settings.domain)
        if scope["path"] in _PROBES and not isinstance(place, WorkspaceHost | PortHost):
            place = Base()  # load balancers ask by address
        if place is None:
            text = f"this gateway serves {self._settings.domain} and *.{self._settings.domain}"
            await _answer(scope, receive, send, 421, "misdirected", text)
        elif not isinstance(place, Base):
            await self._workspaces(scope, receive, send, place)
        elif scope["type"] == "websocket":
            await refuse(scope, receive, send, closing.NO_SUCH_WORKSPACE)
        elif self._is_astray(scope, host):
            # By its address the page works, but what it changes would come from a foreign origin.
            target = raw + (b"?" + scope["query_string"] if scope["query_string"] else b"")
            link = self._home.rstrip("/") + safe_next(target.decode("latin-1"))
            await RedirectResponse(link, 307, {"cache-control": "no-store"})(scope, receive, send)
        else:
            await self._base(scope, receive, send)

    def _is_astray(self, scope: Scope, host: bytes | None) -> bool:
        """A person's visit of the base host under an address instead of its name."""
        by_name = host is not None and host.lower() == host_of(Base(), self._public).encode()
        return not by_name and visits.is_navigation(Headers(scope=scope), scope["method"])

    def _base_app(self) -> Starlette:
        opened = visits.open_workspace(
            self._store,
            self._person,
            self._mint,
            lambda place: origin_of(place, self._public),
        )
        return Starlette(
            routes=[
                *api.routes(self._parts()),
                Route("/", visits.home(self._person)),
                Route("/enter", visits.enter(self._codes.redeem, self._home_cookie)),
                Route("/open/{id}", opened),
                Mount(pages.BASE_ASSETS, pages.Assets()),
            ],
            exception_handlers={404: _not_found},
        )

    def _parts(self) -> Parts:
        settings = self._settings
        cookie = auth.cookie_name(auth.HOME_COOKIE, self._public.https)
        return Parts(
            store=self._store,
            fleet=self._fleet,
            history=self._signals.history,
            subscription=self._news.subscription,
            usage=self._signals,
            health=self,
            keys=RedisIdempotencyKeys(self._redis),
            identify=self._identify,
            origin_allowed=self._origin_allowed,
            url_of=lambda workspace: origin_of(WorkspaceHost(workspace), self._public) + "/",
            eta=self._eta,
            enter=self._enter,
            snapshot=self._snapshot,
            purge=self._purge,
            metrics=self._metrics.render,
            openapi=document(api.operations(), __version__, cookie),
            idle_timeout=settings.idle_timeout,
            retention=settings.retention,
            metrics_token=settings.metrics_token,
        )

    async def ready(self) -> tuple[bool, Sequence[str]]:
        """Take traffic? Not while draining, nor when Redis has been away for too long."""
        reasons = ["draining"] if self._draining else []
        away = asyncio.get_running_loop().time() - self._heartbeats.flushed_at
        if away > REDIS_AWAY_MAX:
            reasons.append(f"Redis has been away for {away:.0f} s")
        return not reasons, reasons

    # Who

    def _identify(self, request: Request) -> Principal:
        return auth.identify_base(
            request.scope["headers"],
            self._keys,
            https=self._public.https,
            max_age=self._settings.entry_ttl,
            now=time.time(),
        )

    def _person(self, request: Request) -> str | None:
        try:
            who = self._identify(request)
        except auth.BadCookies:
            return None
        return who.user if isinstance(who, auth.Person) else None

    def _origin_allowed(self, request: Request, cookie_used: bool) -> bool:
        return auth.check_origin(
            auth.origin_header(request.scope["headers"]),
            origin_of(Base(), self._public),
            cookie_used=cookie_used,
        )

    @property
    def _home(self) -> str:
        return origin_of(Base(), self._public) + "/"

    def _home_cookie(self, user: str) -> str:
        value = auth.make_home_cookie(user, self._keys, now=time.time())
        return self._set_cookie(auth.HOME_COOKIE, value)

    def _workspace_cookie(self, workspace: str, user: str) -> str:
        value = auth.make_workspace_cookie(workspace, user, self._keys, now=time.time())
        return self._set_cookie(auth.WORKSPACE_COOKIE, value)

    def _set_cookie(self, name: str, value: str) -> str:
        ttl = self._settings.entry_ttl
        return auth.set_cookie(name, value, https=self._public.https, max_age=ttl)

    async def _mint(self, user: str, workspace: str, next: str) -> str:
        ttl = self._settings.code_ttl
        return await self._codes.mint("workspace", user, workspace, ttl=ttl, next=next)

    async def _enter(self, workspace: Workspace, next: str) -> Entry:
        code = await self._mint(workspace.user_id, workspace.id, next)
        host = origin_of(WorkspaceHost(workspace.id), self._public)
        now = time.time()
        token = auth.make_workspace_token(workspace.id, workspace.user_id, self._keys, now=now)
        expires = int((now + self._settings.code_ttl) * 1000)
        return Entry(f"{host}/_gateway/enter?code={code}", token, expires)

    # What pages and the API ask

    async def _eta(self, position: int) -> float:
        free, boots = await self._pace()
        return eta_seconds(position, free, boots, MACHINE_LEAD, self._settings.slots)

    async def _pace(self) -> tuple[int, list[float]]:
        """Free slots and recent boots' durations, at most a second old: a list asks once per row."""
        now = asyncio.get_running_loop().time()
        if now >= self._pace_known[0]:
            machines = [m for m in await self._fleet.machines() if m.status is _M.READY]
            free = sum(max(0, m.slots - m.occupied) for m in machines)
            self._pace_known = (now + 1, free, await self._store.boot_seconds())
        return self._pace_known[1:]

    async def _place(self, workspace: Workspace) -> tuple[int | None, float | None]:
        position = await self._store.queue_position(workspace.id)
        return position, None if position is None else await self._eta(position)

    async def _ide_log(self, workspace: Workspace) -> str:
        machine = await self._fleet.machine(workspace.machine_id)
        if machine is None:
            return ""
        try:
            return await self._agents.log(machine, workspace.id, LOG_LINES)
        except AgentError:
            return ""

    async def _ports(self, workspace: Workspace) -> frozenset[int]:
        """What its own processes listen on, as its machine says: nobody else's port is dialled."""
        key = (workspace.id, workspace.epoch)
        now = asyncio.get_running_loop().time()
        known = self._ports_known.get(key)
        if known is not None and now < known[0]:
            return known[1]
        try:
            machine = await self._fleet.machine(workspace.machine_id)
            ports = frozenset(await self._agents.ports(machine, workspace.id) if machine else ())
        except (AgentError, StoreError) as error:
            log.warning("ports.unknown", workspace=workspace.id, why=str(error))
            return known[1] if known is not None else frozenset()
        if len(self._ports_known) > 1000:
            self._ports_known.clear()
        self._ports_known[key] = (now + PORTS_FRESH, ports)
        return ports

    async def _snapshot(self, workspace_id: str) -> Manifest:
        workspace = await self._store.get(workspace_id)
        if workspace is None:
            raise Conflict(f"there is no workspace {workspace_id}")
        try:
            return await self._actions.snapshot(workspace)
        except NotNow as error:
            raise Conflict(str(error), workspace.status) from error

    async def _purge(self, workspace_id: str) -> None:
        workspace = await self._store.get(workspace_id)
        if workspace is None:
            raise Conflict(f"there is no workspace {workspace_id}")
        await self._actions.purge(workspace)


def _plan(settings: Settings) -> Plan:
    return Plan(
        command=settings.workspace_command,
        ready_path=settings.workspace_ready_path,
        upstream_header=settings.workspace_upstream_header,
        boot_timeout=settings.boot_timeout,
        stop_grace=settings.stop_grace,
        snapshots=settings.snapshots,
        snapshots_kept=settings.snapshots_kept,
        max_bytes=settings.snapshot_max_bytes,
        max_files=settings.snapshot_max_files,
    )


def _times(settings: Settings) -> Times:
    names = Times.__dataclass_fields__
    return Times(**{name: getattr(settings, name) for name in names})


def _owner() -> str:
    """The person at the terminal: their login name, as far as it is a user id."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        name = ""
    return re.sub(r"[^A-Za-z0-9_]", "", name) or "owner"


def _label(hostname: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", hostname.lower()).strip("-")[:30] or "gateway"


def _was_killed(other: str, mine: str) -> bool:
    """Whether that gateway ran on this host and its process is gone, though it flushed of late."""
    host, pid, _ = other.split(".")
    return host == mine.split(".")[0] and not psutil.pid_exists(int(pid))


async def _not_found(request: Request, error: Exception) -> Response:
    del error
    if visits.is_navigation(request.headers, request.method):
        return pages.render(pages.not_found("/"), pages.BASE_ASSETS)
    body = {"error": {"code": "not_found", "message": f"there is nothing at {request.url.path}"}}
    return JSONResponse(body, 404)


async def _answer(
    scope: Scope, receive: Receive, send: Send, status: int, code: str, message: str
) -> None:
    """A plain refusal, to a request or to a WebSocket handshake."""
    response = JSONResponse(
        {"error": {"code": code, "message": message}}, status, {"connection": "close"}
    )
    await response(scope, receive, send)
