"""A whole lifecycle on one Redis: store, fake pool with fake agents, and as many leaders as a test wants."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

from redis.asyncio import Redis

from lifecycle.actions import Actions, Plan
from lifecycle.evacuation import Evacuation
from lifecycle.loops import Loops
from lifecycle.model import Machine, Workspace, WorkspaceStatus
from lifecycle.news import News
from lifecycle.stores import keys
from lifecycle.stores.fleet import RedisFleet
from lifecycle.stores.redis import RedisStore
from lifecycle.stores.signals import Flush, RedisSignals
from lifecycle.ticks import Times
from tests.lifecycle.fakes import FakeAgents, FakePool

W = WorkspaceStatus

TIMES = Times(
    idle_timeout=60, retention=600, idle_sweep_interval=0.1, terminate_sweep_interval=0.1,
    session_timeout=30, boot_timeout=120, scale_interval=0.05, scale_in_delay=120,
    launch_timeout=60, slots=2, warm_slots=0, max_machines=3,
)  # fmt: skip

PLAN = Plan(
    command="ide --port {port}", ready_path="", upstream_header="Authorization: token {secret}",
    boot_timeout=120, stop_grace=1, snapshots="/snapshots", snapshots_kept=2,
    max_bytes=1000, max_files=10,
)  # fmt: skip


def token_of(machine_id: str) -> str:
    return f"token of {machine_id}"


@dataclass
class Leader:
    loops: Loops
    news: News

    async def tick(self) -> None:
        """One turn of every loop but the sweeps."""
        await self.loops.machines.tend()
        await self.loops.work()

    async def rest(self) -> None:
        """What lead() does when it is cancelled, for tests that turn the loops by hand."""
        task = asyncio.create_task(self.loops.lead())
        await asyncio.sleep(0)
        await ended(task)

    @contextlib.asynccontextmanager
    async def leading(self) -> AsyncIterator[asyncio.Task[None]]:
        await self.news.start()
        reading = asyncio.create_task(self.news.run())
        task = asyncio.create_task(self.loops.lead())
        try:
            yield task
        finally:
            await ended(task)
            await ended(reading)


async def ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])


class World:
    def __init__(
        self, redis: Redis, store: RedisStore | None = None, pool: FakePool | None = None
    ) -> None:
        self.redis = redis
        self.store = store or RedisStore(redis)
        self.fleet, self.signals = RedisFleet(redis, token_of), RedisSignals(redis)
        self.pool = pool or FakePool()
        self.leaders: list[Leader] = []

    def leader(self, **times: Any) -> Leader:
        agents, news = FakeAgents(self.pool), News(self.signals)
        actions = Actions(self.store, self.fleet, agents, PLAN, self.pool.target.open)
        loops = Loops(
            self.store, self.fleet, self.signals, news, self.pool, agents, actions,
            replace(TIMES, **times), token_of, Evacuation(self.store, self.fleet, self.signals),
        )  # fmt: skip
        self.leaders.append(Leader(loops, news))
        return self.leaders[-1]

    async def close(self) -> None:
        self.pool.gate = None
        for leader in self.leaders:
            await leader.rest()

    # What people do

    async def wake(self, user: str = "ada") -> Workspace:
        one, _ = await self.store.ensure(user)
        return await self.store.wake(one.id)

    async def two_half_empty(self, leader: Leader) -> tuple[Workspace, Workspace]:
        """Of a leader with three slots a machine: m-1 and m-2, and the one workspace on each."""
        people = [f"user{n}" for n in range(4)]
        for one in people:
            await self.gets(leader, await self.wake(one), W.RUNNING)
        first, *gone, last = [(await self.store.list(user_id=each))[0] for each in people]
        for each in gone:
            await self.store.stop(each.id, "asked")
            await self.gets(leader, each, W.STOPPED)
        assert (first.machine_id, last.machine_id) == ("m-1", "m-2")
        return first, last

    async def flush(self, **seen: Any) -> int:
        """A gateway's second passes."""
        return (await self.signals.flush("g", Flush(**seen))).now_ms

    async def look(self, leader: Leader) -> None:
        """As if everything were due."""
        for member in await self.redis.zrange(keys.DUE, 0, -1):
            await self.redis.zadd(keys.DUE, {member: 0})
        await leader.loops.sweeps.look()

    # What a test looks at

    async def read(self, workspace: Workspace) -> Workspace:
        found = await self.store.get(workspace.id)
        assert found is not None
        return found

    async def machine(self, machine_id: str = "m-1") -> Machine:
        found = await self.fleet.machine(machine_id)
        assert found is not None
        return found

    async def until(
        self, leader: Leader, condition: Callable[[], Awaitable[Any]], timeout: float = 30
    ) -> Any:
        """Turn the loops until it is so."""
        deadline = asyncio.get_running_loop().time() + timeout
        while True:
            await self.flush()
            await leader.tick()
            if value := await condition():
                return value
            if asyncio.get_running_loop().time() > deadline:
                records = await self.store.list(), await self.fleet.machines()
                raise AssertionError(f"never came: {records}")
            await asyncio.sleep(0.01)

    async def gets(
        self, leader: Leader, workspace: Workspace, *status: WorkspaceStatus
    ) -> Workspace:
        async def there() -> Workspace | None:
            found = await self.read(workspace)
            return found if found.status in status else None

        return await self.until(leader, there)

    async def rounds(self, leader: Leader, count: int = 15) -> None:
        """Enough turns for anything to happen that is going to."""
        for _ in range(count):
            await self.flush()
            await leader.tick()
            await asyncio.sleep(0.01)

    async def events(self, *kinds: str) -> list[str]:
        found = await self.signals.history("0-0", 100_000)
        return [event.type for event in found if event.type.startswith(kinds or ("",))]

    async def later(self, seconds: float) -> None:
        """Time passes, with a gateway flushing all the while: everything in Redis is that much older. What
        the scaler remembers is of no use any more."""
        await self.redis.delete(keys.DECISION)
        for leader in self.leaders:
            leader.loops.machines._sizing.forget()
        ms = int(seconds * 1000)
        for key in [
            keys.WORKSPACES,
            keys.SESSIONS,
            keys.DUE,
            *(keys.by_status(status) for status in W),
        ]:
            for member in await self.redis.zrange(key, 0, -1):
                await self.redis.zincrby(key, -ms, member)
        for pattern in ("workspace:*", "machine:*"):
            async for key in self.redis.scan_iter(pattern, _type="HASH"):
                for name, value in (await self.redis.hgetall(key)).items():
                    if name.startswith(TIMED) and int(float(value or 0)) > 0:
                        await self.redis.hset(key, name, str(int(float(value)) - ms))
        async for key in self.redis.scan_iter("usage:*"):
            await self._meter_earlier(key, ms)
        since = await self.redis.get(keys.SINCE)
        if since is not None:
            await self.redis.set(keys.SINCE, int(since) - ms)

    async def _meter_earlier(self, key: str, ms: int) -> None:
        for member, end in await self.redis.zrange(key, 0, -1, withscores=True):
            *told, start, _ = member.split("/")
            earlier = [*told, str(int(start) - ms), str(int(end) - ms)]
            await self.redis.zrem(key, member)
            await self.redis.zadd(key, {"/".join(earlier): end - ms})


TIMED = (
    "createdAt", "statusSince", "asleepSince", "runningSince", "lastActiveAt", "extendUntil",
    "storedSince", "emptySince", "seen:", "warned", "stopBy", "keepUntil", "jobSince", "left",
)  # fmt: skip
