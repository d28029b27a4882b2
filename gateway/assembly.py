"""The lifecycle put together from settings: the one place that names its concrete parts.

A gateway runs it beside what faces people (app.py); a scheduled function runs one turn of it at a time
(function.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable
from typing import TypeVar
from urllib.parse import urlencode

import structlog
from redis.asyncio import Redis

from gateway.balancer import BalancerError, TargetGroup
from gateway.exits import ConfigurationError, DependencyMissing
from gateway.fair_use import peaks_of, plans_of, prices_of
from gateway.settings import JUPYTERLAB_COMMAND, JUPYTERLAB_READS, Settings
from lifecycle import fair_use
from lifecycle.actions import Actions, Plan
from lifecycle.agents import Agents
from lifecycle.aws import Clients
from lifecycle.channels import ChannelError
from lifecycle.channels import herald as heralds
from lifecycle.channels.sns import SnsTopic
from lifecycle.disks.ebs import EbsDisks
from lifecycle.evacuation import Evacuation
from lifecycle.feeds import FeedError
from lifecycle.feeds.listening import Listening
from lifecycle.feeds.sqs import SqsFeed
from lifecycle.joining import Joining
from lifecycle.lease import Lease
from lifecycle.loops import Loops
from lifecycle.model import Workspace
from lifecycle.news import News
from lifecycle.notices import following
from lifecycle.notices.deliveries import Channel
from lifecycle.notices.delivering import Delivering
from lifecycle.notices.email import Email
from lifecycle.notices.following import Following
from lifecycle.notices.webhook import Webhook
from lifecycle.peaks_book import PeaksBook
from lifecycle.peaks_declared import Reach
from lifecycle.plans import Policy, Quota
from lifecycle.pools import PoolError
from lifecycle.pools.asg import AsgConfig, AsgPool
from lifecycle.pools.bootstrap import Bootstrap
from lifecycle.pools.ec2 import Ec2Pool
from lifecycle.pools.ec2_launch import Ec2Config
from lifecycle.pools.ecs import EcsConfig, EcsPool
from lifecycle.pools.eks import EksConfig, EksPool
from lifecycle.pools.local import LocalPool
from lifecycle.snapshots import SnapshotError
from lifecycle.snapshots.registry import open_target
from lifecycle.stores import StoreError, StoreUnavailable
from lifecycle.stores.connection import asked, connect
from lifecycle.stores.deliveries import RedisDeliveries
from lifecycle.stores.dynamodb import DynamoDbRecords
from lifecycle.stores.fleet import RedisFleet
from lifecycle.stores.keys import TOLD
from lifecycle.stores.notices import RedisNotices
from lifecycle.stores.pace import RedisPace
from lifecycle.stores.peaks import RedisPeaks
from lifecycle.stores.postgresql import PostgresRecords
from lifecycle.stores.quotas import RedisQuotas
from lifecycle.stores.recorded import RecordedStore
from lifecycle.stores.redis import RedisStore, StoreBounds
from lifecycle.stores.signals import RedisSignals
from lifecycle.telemetry import SinkError
from lifecycle.telemetry import reporter as reporters
from lifecycle.telemetry.cloudwatch import CloudWatch
from lifecycle.ticks import Times, every
from lifecycle.waiting import Bounds

log = structlog.get_logger(__name__)

_T = TypeVar("_T")

LOCAL_LAUNCH = 2.0  # seconds until a local machine is ready, before any was measured
CAUGHT_UP = 5000  # events of one turn; more wait for the next

Remote = Ec2Pool | EcsPool | AsgPool | EksPool
"""Pools of machines that are somewhere else."""

_PROBLEMS = (
    PoolError,
    SnapshotError,
    StoreError,
    FeedError,
    ChannelError,
    SinkError,
    BalancerError,
)
"""What parts raise when they are set up wrongly: each says what to do."""


PATIENCE = 15.0
"""Seconds that each part may take to be found usable. Calls go on asking for longer, once we serve."""


class Manager:
    def __init__(self, settings: Settings, redis_url: str, signing_key: str, holder: str) -> None:
        """holder: this process's name in the lease. Raises ConfigurationError."""
        self._settings = settings
        if settings.aws_region:
            # Snapshot targets are made from URLs, in threads of their own: they find it here.
            os.environ["AWS_REGION"] = settings.aws_region
        self.clients = Clients(settings.aws_region)
        self.redis: Redis = connect(redis_url)
        self.joining = Joining(signing_key)
        self.plans = plans_of(settings)
        self.store = _store(
            settings, self.redis, self.clients, lambda name: self.plans.of(name).quota
        )
        self.quotas, self.pace = RedisQuotas(self.redis), RedisPace(self.redis)
        self.fleet = RedisFleet(self.redis, self.joining.token)
        self.signals = RedisSignals(self.redis)
        self.news = News(self.signals)
        self.peaks = PeaksBook(RedisPeaks(self.redis), peaks_of(settings))
        self.news.listen(self.peaks.on_event)
        self.agents = Agents()
        self.pool = _pool(settings, self.joining, self.clients)
        self.disks = _disks(settings, self.clients)
        self.actions = Actions(
            self.store, self.fleet, self.agents, _plan(settings), open_target, self.disks
        )
        self.evacuation = Evacuation(
            self.store, self.fleet, self.signals, lambda: self.loops.hurry()
        )
        channels = _channels(settings)
        self.notices = RedisNotices(self.redis, [channel.name for channel in channels])
        self.deliveries = RedisDeliveries(self.redis)
        self._delivering = Delivering(self.deliveries, channels)
        self._following = Following(
            self.signals, self.store, self.notices, self.policy_of, lambda: self.news.newest
        )
        self.loops = Loops(
            self.store, self.fleet, self.signals, self.news, self.pool, self.agents,
            self.actions, self._times(), self.joining.token, self.evacuation,
            self.policy_of, self.notices, self.peaks.now,
        )  # fmt: skip
        self.lease = Lease(self.signals, holder, settings.lease_ttl)
        self._feed = SqsFeed(settings.aws_queue, self.clients) if settings.aws_queue else None
        self._topic: SnsTopic | None = None
        self._herald: heralds.Herald | None = None
        if settings.aws_topic:
            self._topic = SnsTopic(settings.aws_topic, settings.fleet, self.clients)
            self._herald = heralds.Herald(self._topic, self.leads)
            self.news.listen(self._herald.on_event)
        self._sink: CloudWatch | None = None
        self._reporter: reporters.Reporter | None = None
        if settings.cloudwatch_namespace:
            self._sink = CloudWatch(settings.cloudwatch_namespace, settings.fleet, self.clients)
            self._reporter = reporters.Reporter(
                self._sink, self.store, self.fleet, self.signals, self.leads, settings.max_machines
            )
            self.news.listen(self._reporter.on_event)

    def policy_of(self, workspace: Workspace) -> Policy:
        """How long that workspace lives."""
        return self.plans.policy_of(workspace)

    def bounds(self) -> Bounds:
        """What the pool's are, for whoever asks how long it takes."""
        s = self._settings
        return Bounds(
            s.slots, s.warm_slots, s.max_machines, s.max_starting, s.scale_interval, _boot_guess(s)
        )

    def reach(self) -> Reach:
        """What the pool can do for peaks, before it was measured."""
        bounds = self.bounds()
        times = self._times()
        return Reach(
            bounds.slots, bounds.max_machines, bounds.launch_guess,
            float(times.launch_burst), times.launch_rate,
        )  # fmt: skip

    def _fair_use(self) -> fair_use.FairUse:
        return fair_use.FairUse(self.store, self.quotas, self.notices, self.plans)

    def leads(self) -> bool:
        """Whether this process runs the loops."""
        return self.lease.token > 0

    async def open(self) -> None:
        """Make sure that every part can be used. Raises ConfigurationError, or DependencyMissing when a
        database does not answer."""
        settings = self._settings
        if isinstance(self.store, RecordedStore):
            await sound("store", self.store.open())
        if settings.lifecycle == "on" and not isinstance(self.pool, LocalPool):
            await sound("pool", self.pool.check())
        if "://" in settings.snapshots:
            target = open_target(settings.snapshots)
            check: Callable[[], None] | None = getattr(target, "check", None)
            if check is not None:
                await sound("snapshots", asyncio.to_thread(check))
        for name, part in (
            ("aws-queue", self._feed),
            ("aws-topic", self._topic),
            ("cloudwatch-namespace", self._sink),
        ):
            if part is not None and settings.lifecycle == "on":  # only who leads uses them
                await sound(name, part.check())

    async def run(self) -> None:
        """Stand by for the lease, and lead while it is held. For ever."""
        await self.lease.run(self.lead)

    async def lead(self) -> None:
        """Everything that one process at a time does, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.loops.lead())
            group.create_task(self.peaks.run())
            group.create_task(every(fair_use.INTERVAL, self._fair_use().tick))
            group.create_task(every(following.INTERVAL, self._following.tick))
            group.create_task(self._delivering.run())
            if self._feed is not None:
                group.create_task(Listening(self._feed, self.evacuation.notice).run())
            if self._herald is not None:
                group.create_task(every(heralds.INTERVAL, self._herald.tick))
            if self._reporter is not None:
                group.create_task(every(reporters.INTERVAL, self._reporter.tick))

    async def turn(self) -> bool:
        """One turn of every loop under the lease; False when somebody else holds it. For whoever does
        not stay."""
        token = await self.signals.take_lease(self.lease.holder, self._settings.lease_ttl)
        if not token:
            return False
        self.lease.token = token
        renewing = asyncio.create_task(self._renew())
        try:
            before = await self.signals.last_event_id()
            if self._feed is not None:
                await _logged("feed", Listening(self._feed, self.evacuation.notice).turn(0))
            await _logged("peaks", self.peaks.refresh())
            await self.loops.once()
            await _logged("quotas", self._fair_use().tick())
            await _logged("notices", self._following.tick())
            await _logged("deliveries", self._delivering.turn())
            await self._catch_up(before)
            for part in (self._herald, self._reporter):
                if part is not None:
                    await _logged(type(part).__name__, part.tick())
        finally:
            renewing.cancel()
            await asyncio.gather(renewing, return_exceptions=True)
            self.lease.token = 0
            await self.lease.give()
        return True

    async def close(self) -> None:
        """Let go of everything; machines go on."""
        if self._herald is not None:
            await self._herald.close()
        await self._delivering.close()
        if isinstance(self.store, RecordedStore):
            await self.store.close()
        await self.agents.close()
        await self.clients.close()
        await self.redis.aclose()

    async def _catch_up(self, before: str) -> None:
        """Tell what happened since the last turn, as News does to whoever stays. before: where the events
        ended when the first turn of all began."""
        listeners = [part.on_event for part in (self._herald, self._reporter) if part is not None]
        if not listeners:
            return
        after = await asked(self.redis.get(TOLD)) or before
        for event in await self.signals.history(str(after), CAUGHT_UP):
            after = event.id
            for listen in listeners:
                listen(event)
        await asked(self.redis.set(TOLD, after))

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self._settings.lease_ttl / 3)
            with contextlib.suppress(StoreError):
                await self.signals.take_lease(self.lease.holder, self._settings.lease_ttl)

    async def noticed(self, machine_id: str, kind: str, at_ms: int) -> None:
        """What a machine's own agent was told."""
        await self.evacuation.notice(kind, machine_id, at_ms, "its agent was told")

    def _times(self) -> Times:
        settings = self._settings
        local = settings.pool == "local"
        derived = {
            "snapshot_on_stop", "durable", "countdown", "settle", "boot_guess", "machine_hour",
            "launch_burst", "launch_rate",
        }  # fmt: skip
        names = [name for name in Times.__dataclass_fields__ if name not in derived]
        wanted = settings.snapshot_on_stop
        if wanted == "auto":
            stays = settings.slots == 1 and self.pool.traits.keeps_disks
            away = self.disks is None and settings.pool != "local" and not stays
            wanted = "on" if away else "off"
        return Times(
            **{name: getattr(settings, name) for name in names},
            snapshot_on_stop=wanted == "on",
            durable=settings.store != "redis",
            countdown=self.plans.default.policy.countdown,
            # Who has just begun to lead knows nothing of how much was wanted before.
            settle=settings.scale_in_delay,
            boot_guess=_boot_guess(settings),
            machine_hour=_machine_hour(settings),
            launch_burst=0 if local else settings.launch_burst,
            launch_rate=0.0 if local else settings.launch_rate,
        )


def _boot_guess(settings: Settings) -> float:
    """Seconds until a machine is ready, before any was measured."""
    return LOCAL_LAUNCH if settings.pool == "local" else settings.launch_timeout / 4


def _machine_hour(settings: Settings) -> float:
    """As Prices.machine_hour; 0 without prices."""
    prices = prices_of(settings)
    if prices is None:
        return 0.0
    kind = _words(settings.instance_types)[:1] if settings.pool == "ec2" else ()
    return prices.machine_hour(kind[0] if kind else settings.machine_class, settings.slots)


def target_group(settings: Settings, clients: Clients) -> TargetGroup | None:
    """The load balancer's target group that this gateway registers in, if there is one."""
    if not settings.target_group:
        return None
    host = "" if settings.host in ("0.0.0.0", "::") else settings.host
    return TargetGroup(settings.target_group, clients, settings.port, host)


async def sound(part: str, check: Awaitable[_T]) -> None:
    """Make sure that a part can be used. Raises as Manager.open() does."""
    try:
        async with asyncio.timeout(PATIENCE):
            await check
    except TimeoutError:
        raise DependencyMissing(
            f"--{part}: no answer in {PATIENCE:g} s",
            "check --aws-region, AWS_ENDPOINT_URL and the network between here and AWS",
        ) from None
    except StoreUnavailable as error:
        raise DependencyMissing(f"--{part}: {error}") from error
    except _PROBLEMS as error:
        raise ConfigurationError(f"--{part}: {error}") from error


async def _logged(part: str, work: Awaitable[_T]) -> None:
    try:
        await work
    except (*_PROBLEMS, OSError) as error:
        log.warning("turn.incomplete", part=part, why=str(error))


def _store(
    settings: Settings, redis: Redis, clients: Clients, quota_of: Callable[[str], Quota]
) -> RedisStore:
    bounds = StoreBounds(
        max_queue=settings.max_queue,
        max_starting=settings.max_starting,
        start_rate=settings.start_rate,
        quota_of=quota_of,
    )
    kind, _, name = settings.store.partition(":")
    if kind == "redis":
        return RedisStore(redis, **bounds)
    if kind == "dynamodb":
        return RecordedStore(redis, DynamoDbRecords(name, clients), **bounds)
    return RecordedStore(redis, PostgresRecords(settings.store), **bounds)


def _pool(settings: Settings, joining: Joining, clients: Clients) -> LocalPool | Remote:
    bootstrap = Bootstrap(
        settings.join_url or settings.public_url, settings.agent_port, joining.code
    )
    s = settings
    if s.pool == "ec2":
        ec2 = Ec2Config(
            fleet=s.fleet,
            slots=s.slots,
            launch_template=s.launch_template,
            image=s.machine_image,
            instance_types=_words(s.instance_types),
            subnets=_words(s.subnets),
            security_groups=_words(s.security_groups),
            instance_profile=s.instance_profile,
            market=s.market,
            hibernate=s.hibernate == "on",
        )
        return Ec2Pool(ec2, bootstrap, clients)
    if s.pool == "ecs":
        ecs = EcsConfig(
            fleet=s.fleet,
            cluster=s.ecs_cluster,
            task_definition=s.ecs_task_definition,
            launch_type=s.ecs_launch_type,
            subnets=_words(s.subnets),
            security_groups=_words(s.security_groups),
        )
        return EcsPool(ecs, bootstrap, clients)
    if s.pool == "asg":
        asg = AsgConfig(s.fleet, s.slots, s.asg, s.warm_pool, s.warm_pool_state)
        return AsgPool(asg, bootstrap, clients)
    if s.pool == "eks":
        eks = EksConfig(s.fleet, s.slots, s.eks_cluster, s.eks_node_group)
        return EksPool(eks, bootstrap, clients)
    return LocalPool(s.data_dir, workspace_user=s.workspace_user, stop_grace=s.stop_grace)


def _disks(settings: Settings, clients: Clients) -> EbsDisks | None:
    if settings.workspace_disk == "machine":
        return None
    return EbsDisks(clients, settings.fleet, settings.volume_gib)


def _channels(settings: Settings) -> list[Channel]:
    found: list[Channel] = []
    if settings.webhook_url:
        found.append(Webhook(settings.webhook_url, settings.webhook_secret))
    if settings.smtp_url:
        found.append(Email(settings.smtp_url, settings.mail_from, settings.public_url))
    return found


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _plan(settings: Settings) -> Plan:
    snapshots = settings.snapshots
    if snapshots.startswith("s3://") and "?" not in snapshots:
        # Machines are told this: they have neither our settings nor, on EC2, a region.
        region = settings.aws_region or os.environ.get("AWS_REGION", "")
        told = {"kms": settings.snapshot_kms_key, "region": region}
        query = urlencode({name: value for name, value in told.items() if value})
        snapshots += f"?{query}" if query else ""
    return Plan(
        command=settings.workspace_command,
        ready_path=settings.workspace_ready_path,
        upstream_header=settings.workspace_upstream_header,
        boot_timeout=settings.boot_timeout,
        stop_grace=settings.stop_grace,
        snapshots=snapshots,
        snapshots_kept=settings.snapshots_kept,
        max_bytes=settings.snapshot_max_bytes,
        max_files=settings.snapshot_max_files,
        jobs_path=settings.workspace_jobs_path,
        job_cpu=settings.job_cpu,
        warm=settings.warm_workspaces,
        reads=JUPYTERLAB_READS if settings.workspace_command == JUPYTERLAB_COMMAND else None,
    )
