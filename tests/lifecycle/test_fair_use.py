"""Hours as they are used up, over a real Redis: told once, then stopped, and free again."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from redis.asyncio import Redis

from lifecycle.fair_use import FairUse
from lifecycle.model import Workspace, WorkspaceStatus
from lifecycle.plans import Plan, Plans, Quota
from lifecycle.quota import HOUR_MS
from lifecycle.stores import keys
from lifecycle.stores.fleet import RedisFleet
from lifecycle.stores.quotas import RedisQuotas
from lifecycle.stores.redis import RedisStore

W = WorkspaceStatus
TRIAL = Plan("trial", quota=Quota(hours_a_day=1))


class Told(list[tuple[str, str]]):
    """A Teller: (workspace, threshold)."""

    async def tell(
        self, workspace: Workspace, type: str, key: str, text: str, data: Mapping[str, str]
    ) -> int:
        assert type == "quota.alert"
        self.append((workspace.name, data["percent"]))
        return len(self)


class World:
    """The leader's looks, and one user whose hours are what a test says."""

    def __init__(self, redis: Redis, *plans: Plan) -> None:
        self.redis, self.told = redis, Told()
        self.store, self.quotas = RedisStore(redis), RedisQuotas(redis)
        plans_ = Plans(Plan("default"), {plan.name: plan for plan in plans})
        self.fair_use = FairUse(self.store, self.quotas, self.told, plans_)

    async def run(self, name: str, plan: str = "trial") -> Workspace:
        fleet = RedisFleet(self.redis)
        [machine_id] = await fleet.intend("fake", 5, 1, bound=10)
        machine = await fleet.machine(machine_id)
        assert machine is not None
        await fleet.change(machine, machine.status.READY, address="10.0.0.1:7000")
        one, _ = await self.store.ensure("ada", name, plan=plan)
        one = await self.store.change(await self.store.wake(one.id), W.STARTING, place=machine_id)
        return await self.store.change(one, W.RUNNING, fields={"address": "10.0.0.1:9000"})

    async def used(self, hours: float) -> None:
        """So many hours of today, by runs that are over; time passes until the next look."""
        taken = await self.quotas.taken("ada")
        await self.redis.hset(keys.hours("ada"), taken.periods[0], int(hours * HOUR_MS))
        if await self.redis.zscore(keys.QUOTA_DUE, "ada") is not None:
            await self.redis.zadd(keys.QUOTA_DUE, {"ada": taken.now_ms})

    async def look(self) -> float | None:
        """One turn of the leader's; seconds until the next look."""
        await self.fair_use.tick()
        at = await self.redis.zscore(keys.QUOTA_DUE, "ada")
        return None if at is None else (at - await self.store.now_ms()) / 1000


@pytest.fixture
def world(redis: Redis) -> World:
    return World(redis, TRIAL)


async def test_a_day_of_a_trial(world: World) -> None:
    one = await world.run("one")
    midnight = (await world.quotas.taken("ada")).day_ends_ms
    left = (midnight - await world.store.now_ms()) / 1000
    assert await world.look() == pytest.approx(min(2700, left), abs=5)  # 75 % at this rate
    assert world.told == []
    await world.used(0.8)
    assert await world.look() == pytest.approx(min(360, left), abs=5)
    await world.used(0.8)
    await world.look()
    assert world.told == [("one", "75")]

    await world.used(1.0)
    two = await world.run("two")
    assert await world.look() == pytest.approx(left, abs=5)
    assert world.told[1:] == [("two", "100")]
    for each in (one, two):
        found = await world.store.get(each.id)
        assert found is not None
        assert found.stop_by == "quota"
        assert found.stop_by_ms - await world.store.now_ms() == pytest.approx(300_000, abs=5000)
        assert await world.redis.zscore(keys.DUE, each.id) <= await world.store.now_ms()
    by_ms = (await world.store.list("ada"))[0].stop_by_ms
    await world.used(1.1)
    await world.look()
    assert (await world.store.list("ada"))[0].stop_by_ms == by_ms  # not put off by another look
    assert len(world.told) == 2

    await world.used(0.1)  # midnight: nothing has to stop any more
    await world.look()
    assert [each.stop_by_ms for each in await world.store.list("ada")] == [0, 0]


async def test_who_runs_nothing_or_has_no_bound_is_looked_at_no_more(world: World) -> None:
    one = await world.run("one", plan="default")
    assert await world.redis.zscore(keys.QUOTA_DUE, "ada") is not None
    assert await world.look() is None
    await world.store.stop(one.id, "requested")
    assert await world.look() is None


async def test_who_begins_to_lead_looks_at_everybody_who_runs_something(world: World) -> None:
    await world.run("one")
    await world.redis.delete(keys.QUOTA_DUE)
    await world.used(0.76)
    assert await world.look() is not None
    assert world.told == [("one", "75")]


async def test_a_stop_that_comes_sooner_anyway_stays(world: World) -> None:
    one = await world.run("one")
    soon = await world.store.now_ms() + 1000
    fields = {"stopBy": soon, "stopByReason": "maintenance"}
    await world.redis.hset(keys.workspace(one.id), mapping=fields)
    await world.used(2)
    await world.look()
    found = await world.store.get(one.id)
    assert found is not None
    assert (found.stop_by_ms, found.stop_by) == (soon, "maintenance")
