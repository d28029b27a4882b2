"""The composition root: names the parts that face people and puts them together with the lifecycle's
(assembly.py)."""

from __future__ import annotations

import asyncio
import getpass
import os
import re
import secrets
import socket
from collections.abc import Callable, Coroutine, Sequence

import psutil
import structlog
from starlette.applications import Starlette
from starlette.routing import Mount, Route
from starlette.types import ASGIApp

from gateway import __version__, api, auth, closing, pages, visits
from gateway.admission import Admission
from gateway.api.idempotency import RedisIdempotencyKeys
from gateway.api.limits import Limits
from gateway.api.parts import Parts
from gateway.assembly import Manager, sound, target_group
from gateway.balancer import BalancerError
from gateway.bounds import Bounds
from gateway.control import Control
from gateway.dashboard import SAMPLE, Dashboard
from gateway.entrance import Entrance
from gateway.entry import Codes
from gateway.fair_use import prices_of
from gateway.front import Front, not_found
from gateway.gauges import INTERVAL, Gauges
from gateway.heartbeats import Heartbeats
from gateway.hosts import PublicUrl, WorkspaceHost, origin_of
from gateway.inquiry import Inquiry
from gateway.metrics import Metrics
from gateway.openapi import document
from gateway.operators import Operators
from gateway.passing import Ways
from gateway.progress import Progress
from gateway.proxy import HttpProxy
from gateway.proxy_client import Patience
from gateway.routes import Routes
from gateway.settings import Settings
from gateway.shared import put_back
from gateway.workspace import WorkspaceApp
from lifecycle.actions import NotNow
from lifecycle.agent.contract import Manifest
from lifecycle.model import Event, MachineStatus, WorkspaceStatus
from lifecycle.snapshots.downloads import Downloads
from lifecycle.stores import Conflict, StoreError
from lifecycle.stores.metered import RedisUsage
from lifecycle.ticks import every

log = structlog.get_logger(__name__)

Report = Callable[[str, str, str], None]

REDIS_AWAY_MAX = 10.0  # seconds without a flush after which this gateway asks for no more traffic
LEAVE_WITHIN = 5.0  # seconds an absent Redis may hold up our end; machines then go on
REGISTER = 10.0  # seconds between two looks whether the load balancer knows us
PUT_BACK = 10.0  # seconds until a Redis that lost its data holds again what gateways share
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
        manager = Manager(settings, redis_url, keys.signing_key, self.gateway)
        self._manager, self._pool = manager, manager.pool
        self._redis, self._store, self._fleet = manager.redis, manager.store, manager.fleet
        self._signals, self._news, self._agents = manager.signals, manager.news, manager.agents
        self._actions, self._lease = manager.actions, manager.lease
        self._balancer = target_group(settings, manager.clients)
        self._codes = Codes(self._redis)
        self._entrance = Entrance(
            self._codes,
            keys,
            self._public,
            entry_ttl=settings.entry_ttl,
            code_ttl=settings.code_ttl,
        )
        self._metrics = Metrics(__version__)
        self._prices = prices_of(settings)
        self._inquiry = Inquiry(
            self._store, self._fleet, self._agents, manager.pace.look, manager.bounds(),
            self._signals.last_notice,
        )  # fmt: skip
        self._heartbeats = Heartbeats(
            self.gateway,
            self._signals,
            self._metrics,
            ping_interval=settings.ping_interval,
            max_sessions=settings.max_sessions,
            max_sessions_per_user=settings.max_sessions_per_user,
            stall_timeout=settings.stall_timeout,
        )
        self._control = Control(
            self._store,
            manager.notices,
            self._heartbeats,
            manager.policy_of,
            self._signals.trusted_since_ms,
            max_tabs=settings.max_sessions,
        )
        self._usage = RedisUsage(self._redis)
        self._dashboard = Dashboard(
            self._store, self._fleet, self._signals, self._usage, self._inquiry.eta, self._prices
        )
        self._gauges = Gauges(
            self._metrics, self._store, self._fleet, self._signals, manager.leads, self._prices
        )
        self._routes = Routes(self._store)
        patience = Patience(stall=settings.stall_timeout)
        self._proxy = HttpProxy(
            own_cookie_names=auth.OWN_COOKIE_NAMES,
            patience=patience,
            peer_timeout=settings.peer_timeout,
        )
        self._ways = Ways(self._routes, self._proxy.upstreams, self._metrics.proxied, patience)
        self._bounds = Bounds(
            settings.max_connections,
            settings.max_connections_per_address,
            settings.head_timeout,
            lambda reason: self._metrics.connections_refused.labels(reason).inc(),
        )
        self._downloads = Downloads(self._actions.fetch)
        self._tasks: set[asyncio.Task[None]] = set()
        self._draining = False
        self.asgi: ASGIApp = Front(
            settings.domain, self._public, self._base_app(), self._workspace_app(), self._ways,
            self._bounds,
        )  # fmt: skip

    # Life

    async def start(self) -> None:
        """Listen to the news, take heartbeats, stand by for the loops; tell what there is. Raises
        ConfigurationError when a part is set up wrongly."""
        await self._manager.open()
        if self._balancer is not None:
            await sound("target-group", self._balancer.check())
        for listener in (
            self._routes.on_event,
            self._heartbeats.on_event,
            self._gauges.on_event,
            self._control.on_event,
            self._drop_connections,
            self._log_event,
        ):
            self._news.listen(listener)
        await self._news.start()
        await self._heartbeats.flush()
        self._spawn(self._news.run())
        self._spawn(self._heartbeats.run())
        self._spawn(every(INTERVAL, self._gauges.refresh))
        self._spawn(every(SAMPLE, self._dashboard.sample))
        self._spawn(every(PUT_BACK, self._put_back))
        if self._settings.lifecycle == "on":
            self._spawn(self._manager.run())
        if self._balancer is not None:
            self._spawn(every(REGISTER, self._register))
        self._report("✓", "Pool", await self._pool_line())

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _put_back(self) -> None:
        local = self._settings.pool == "local"
        directory = self._settings.data_dir if local else None
        await put_back(self._redis, self._keys.signing_key, directory)

    async def _register(self) -> None:
        """With the load balancer, as soon as we can be of use, and again should it have lost us."""
        ready, _ = await self.ready()
        if ready and self._balancer is not None:
            try:
                await self._balancer.register()
            except BalancerError as error:
                log.warning("balancer.unregistered", why=str(error), next_try_s=REGISTER)

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
        return await self._entrance.home_url(_owner())

    async def drain(self) -> None:
        """Say 503 at /readyz from now on; everything else goes on. A load balancer that we registered
        with is told, and has its deregistration delay."""
        self._draining = True
        if self._balancer is not None:
            await self._balancer.leave()

    async def stop(self, stop_machines: bool) -> None:
        """Give the lease back and stop. With stop_machines, and as the last gateway on this Redis,
        stop what runs, in order; files stay where they are."""
        self._heartbeats.end_all(closing.RESTARTING)
        self._control.end_all(closing.RESTARTING)
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
            # Machines elsewhere go on: the next gateway finds them, with the people's work on them.
            mine = self._settings.pool == "local" and self._settings.lifecycle == "on"
            if last and stop_machines and mine:
                await self._stop_everything()
            else:
                await self._pool.close(stop_machines=False)
        except (StoreError, TimeoutError) as error:
            log.warning("stop.machines_left", why=str(error) or "Redis did not answer")
            await self._pool.close(stop_machines=False)
        self._ways.close()
        await self._proxy.close()
        await self._manager.close()

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

    # What answers where

    def _base_app(self) -> Starlette:
        entrance, operators = self._entrance, Operators(self._entrance)
        opened = visits.open_workspace(
            self._store,
            entrance.person,
            entrance.mint,
            lambda place: origin_of(place, self._public),
        )
        return Starlette(
            routes=[
                *api.routes(self._parts()),
                Route("/", visits.home(entrance.person)),
                Route("/enter", visits.enter(self._codes.redeem, entrance.home_cookie)),
                Route("/open/{id}", opened),
                Route("/dashboard", operators.page),
                Route("/dashboard/enter", operators.enter, methods=["POST"]),
                Route("/dashboard/leave", operators.leave, methods=["POST"]),
                Mount(pages.BASE_ASSETS, pages.Assets()),
            ],
            exception_handlers={404: not_found},
        )

    def _workspace_app(self) -> WorkspaceApp:
        store, entrance = self._store, self._entrance
        progress = Progress(
            store, self._news, self._inquiry.place, self._inquiry.ide_log, self._inquiry.notice
        )
        enter = visits.workspace_enter(self._codes.redeem, entrance.workspace_cookie, entrance.home)
        return WorkspaceApp(
            routes=self._routes,
            keys=self._keys,
            public=self._public,
            entry_ttl=self._settings.entry_ttl,
            upstream_header=self._settings.workspace_upstream_header,
            proxy=self._proxy,
            heartbeats=self._heartbeats,
            admission=Admission(
                self._manager.quotas,
                lambda plan: self._manager.plans.of(plan).quota,
                self._settings.max_sessions_per_user,
            ),
            metrics=self._metrics,
            visit=visits.visit(store, progress, entrance.home),
            unanswered=visits.visit(store, progress, entrance.home, unanswered=True),
            ours={
                ("GET", "progress"): progress.respond,
                ("POST", "start"): visits.start(store, progress, entrance.home),
                ("POST", "input"): self._control.input,
            },
            enter=enter,
            assets=pages.Assets(),
            ports=self._inquiry.ports,
            control=self._control.serve,
            shell=self._settings.shell == "on",
        )

    def _parts(self) -> Parts:
        settings = self._settings
        cookie = auth.cookie_name(auth.HOME_COOKIE, self._public.https)
        return Parts(
            store=self._store,
            fleet=self._fleet,
            history=self._signals.history,
            subscription=self._news.subscription,
            usage=self._usage,
            health=self,
            keys=RedisIdempotencyKeys(self._redis),
            identify=self._entrance.identify,
            origin_allowed=self._entrance.origin_allowed,
            url_of=lambda workspace: origin_of(WorkspaceHost(workspace), self._public) + "/",
            eta=self._inquiry.eta,
            enter=self._entrance.enter,
            snapshot=self._snapshot,
            download=self._downloads,
            purge=self._purge,
            joining=self._manager.joining,
            noticed=self._manager.noticed,
            metrics=self._metrics.render,
            openapi=document(api.operations(), __version__, cookie),
            dashboard=self._dashboard,
            notices=self._manager.notices,
            deliveries=self._manager.deliveries,
            metrics_token=settings.metrics_token,
            prices=self._prices,
            limits=Limits(settings.api_rate),
            plans=self._manager.plans,
            taken=self._manager.quotas.taken,
            peaks=self._manager.peaks,
            reach=self._manager.reach(),
        )

    async def ready(self) -> tuple[bool, Sequence[str]]:
        """Take traffic? Not while draining, nor when Redis has been away for too long."""
        reasons = ["draining"] if self._draining else []
        away = asyncio.get_running_loop().time() - self._heartbeats.flushed_at
        if away > REDIS_AWAY_MAX:
            reasons.append(f"Redis has been away for {away:.0f} s")
        return not reasons, reasons

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
