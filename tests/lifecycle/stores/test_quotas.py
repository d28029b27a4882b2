"""Quotas and rates where they are held: in the step that would go beyond them."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from redis.asyncio import Redis

from lifecycle.model import Workspace, WorkspaceStatus
from lifecycle.plans import Quota
from lifecycle.quota import HOUR_MS
from lifecycle.stores import LimitReached, keys
from lifecycle.stores.fleet import RedisFleet
from lifecycle.stores.pace import RedisPace
from lifecycle.stores.quotas import RedisQuotas
from lifecycle.stores.redis import RedisStore
from lifecycle.stores.scripts.prelude import PRELUDE
from lifecycle.stores.signals import Flush, RedisSignals

W = WorkspaceStatus
DAY_MS = 24 * HOUR_MS


def holding(redis: Redis, quota: Quota | None = None, **bounds: Any) -> RedisStore:
    return RedisStore(redis, quota_of=lambda plan: quota or Quota(), **bounds)


async def made(store: RedisStore, *names: str, user: str = "ada") -> list[Workspace]:
    return [(await store.ensure(user, name))[0] for name in names or ("",)]


async def run(store: RedisStore, one: Workspace) -> Workspace:
    fleet = RedisFleet(store.redis)
    [machine_id] = await fleet.intend("fake", 5, 1, bound=10)
    machine = await fleet.machine(machine_id)
    assert machine is not None
    await fleet.change(machine, machine.status.READY, address="10.0.0.1:7000")
    one = await store.change(await store.wake(one.id), W.STARTING, place=machine_id)
    return await store.change(one, W.RUNNING, fields={"address": "10.0.0.1:9000"})


async def count(redis: Redis, now: datetime, begin: datetime, end: datetime) -> dict[str, int]:
    """What the hours' hash holds after an interval that was closed at `now`."""
    await redis.delete(keys.hours("ada"))
    script = PRELUDE + "\nnow = tonumber(ARGV[1])\ncount_hours('ada', ARGV[2] + 0, ARGV[3] + 0)"
    times = [round(each.timestamp() * 1000) for each in (now, begin, end)]
    await redis.eval(script, 0, *times)
    return {name: int(ms) for name, ms in (await redis.hgetall(keys.hours("ada"))).items()}


async def test_hours_are_split_at_midnight_utc_and_at_the_first(redis: Redis) -> None:
    first = datetime(2028, 3, 1, tzinfo=UTC)  # after a 29 February
    now = first + timedelta(hours=2)
    found = await count(redis, now, first - timedelta(hours=30), now)
    day = int(first.timestamp()) // 86_400
    assert found == {
        f"d{day}": 2 * HOUR_MS, f"d{day - 1}": 24 * HOUR_MS,
        "m2028-03": 2 * HOUR_MS, "m2028-02": 30 * HOUR_MS,
    }  # fmt: skip
    dice = random.Random(4)
    for _ in range(60):
        now = datetime(2024, 1, 1, tzinfo=UTC) + timedelta(milliseconds=dice.randrange(10**12))
        begin = now - timedelta(milliseconds=dice.randrange(40 * DAY_MS))
        found = await count(redis, now, begin, now)
        midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
        today = now - max(begin, midnight)
        month = now - max(begin, midnight.replace(day=1))
        assert found[f"d{int(midnight.timestamp()) // 86_400}"] == today // timedelta(
            milliseconds=1
        )
        assert found[f"m{now:%Y-%m}"] == month // timedelta(milliseconds=1)


async def test_old_days_are_forgotten(redis: Redis) -> None:
    await redis.hset(keys.hours("ada"), mapping={"d1": 5, "told:hours_a_day": "d1 75"})
    script = PRELUDE + "\ncount_hours('ada', now - 5, now)"
    await redis.eval(script, 0)
    found = await redis.hgetall(keys.hours("ada"))
    assert "d1" not in found
    assert "told:hours_a_day" in found
    assert await redis.ttl(keys.hours("ada")) > 0


async def test_of_many_starts_at_once_so_many_are_taken_as_the_plan_allows(redis: Redis) -> None:
    store = holding(redis, Quota(running=2))
    six = await made(store, *"abcdef")
    answers = await asyncio.gather(*(store.wake(one.id) for one in six), return_exceptions=True)
    refused = [answer for answer in answers if isinstance(answer, LimitReached)]
    assert len(refused) == 4
    assert {(each.limit, each.used, each.allowed) for each in refused} == {("running", 2, 2)}
    waiting = await store.list("ada", {W.QUEUED})
    await store.wake(waiting[0].id)  # asked for again it is refused nothing
    await store.stop(waiting[0].id, "requested")
    others = {one.id for one in six} - {one.id for one in waiting}
    await store.wake(others.pop())
    await store.wake((await made(store, user="bob"))[0].id)


async def test_what_is_to_start_once_it_is_stopped_counts_as_well(redis: Redis) -> None:
    store = holding(redis, Quota(running=1))
    one, other = await made(store, "one", "other")
    one = await run(store, one)
    await store.stop(one.id, "requested")
    await store.wake(one.id)
    with pytest.raises(LimitReached, match="running: 1 of 1"):
        await store.wake(other.id)
    await store.stop(one.id, "requested")
    await store.wake(other.id)
    with pytest.raises(LimitReached, match="running: 1 of 1"):  # nor the other way round
        await store.wake(one.id)


async def test_workspaces_without_a_bound(redis: Redis) -> None:
    store = holding(redis, Quota(workspaces=0))
    assert len(await made(store, *map(str, range(25)))) == 25


async def test_hours_count_what_ended_and_what_runs_side_by_side(redis: Redis) -> None:
    store, quotas = holding(redis, Quota(hours_a_day=8, hours_a_month=100)), RedisQuotas(redis)
    one, two, three = await made(store, "1", "2", "3")
    one, two = await run(store, one), await run(store, two)
    before = await quotas.taken("ada")
    month = before.periods[1]
    await redis.hset(keys.hours("ada"), month, 98 * HOUR_MS)
    since = before.now_ms - 2 * HOUR_MS
    for each in (one, two):
        await redis.hset(keys.workspace(each.id), "runningSince", since)
    now = await quotas.taken("ada")
    assert (now.workspaces, now.running, now.counting) == (3, 2, 2)
    in_month = now.now_ms - max(since, now.month_ends_ms - _days_of(now.month_ends_ms) * DAY_MS)
    in_day = now.now_ms - max(since, now.day_ends_ms - DAY_MS)
    assert (now.day_ms, now.month_ms) == (2 * in_day, 98 * HOUR_MS + 2 * in_month)
    await redis.hset(keys.hours("ada"), month, 100 * HOUR_MS)
    with pytest.raises(LimitReached) as refused:
        await store.wake(three.id)
    assert refused.value.limit == "hours_a_month"
    assert refused.value.allowed == 100
    assert refused.value.used >= 100
    assert refused.value.frees_at_ms == now.month_ends_ms
    assert 0 < refused.value.retry_after <= 31 * 86_400
    await store.wake((await made(store, user="bob"))[0].id)


def _days_of(month_ends_ms: int) -> int:
    return (datetime.fromtimestamp(month_ends_ms / 1000, UTC) - timedelta(days=1)).day


async def test_a_user_starts_so_often_in_a_minute_on_whichever_gateway(redis: Redis) -> None:
    gateways = [holding(redis, start_rate=3) for _ in range(2)]
    one, *_ = await made(gateways[0], "one")
    for turn in range(3):
        await gateways[turn % 2].wake(one.id)
        await gateways[0].wake(one.id)  # already on its way: no start
        await gateways[0].stop(one.id, "requested")
    with pytest.raises(LimitReached, match="start_rate: 3 of 3") as refused:
        await gateways[1].wake(one.id)
    assert 50 < refused.value.retry_after <= 60
    assert await redis.pttl(keys.starts("ada")) <= 60_000
    await redis.lset(keys.starts("ada"), 2, await gateways[0].now_ms() - 60_001)
    await gateways[1].wake(one.id)


async def test_without_a_queue_so_many_start_at_once_and_no_more(redis: Redis) -> None:
    store = holding(redis, max_starting=3, max_queue=0)
    starting = [await store.wake((await made(store, user=user))[0].id) for user in "abc"]
    fleet = RedisFleet(redis)
    [machine_id] = await fleet.intend("fake", 5, 1, bound=10)
    machine = await fleet.machine(machine_id)
    assert machine is not None
    await fleet.change(machine, machine.status.READY, address="10.0.0.1:7000")
    first = await store.change(starting[0], W.STARTING, place=machine_id)
    late = (await made(store, user="late"))[0]
    with pytest.raises(LimitReached, match="max_queue: 3 of 3"):
        await store.wake(late.id)
    await store.change(first, W.RUNNING, fields={"address": "10.0.0.1:9000"})
    await store.wake(late.id)


async def test_sessions_are_counted_over_all_gateways(redis: Redis) -> None:
    quotas, signals = RedisQuotas(redis), RedisSignals(redis)
    members = [f"w/{gateway}-{n}" for gateway in "ab" for n in range(3)]
    answers = await asyncio.gather(*(quotas.admit("ada", each, 4) for each in members))
    assert sorted(answers) == [False, False, True, True, True, True]
    open_ = [each for each, admitted in zip(members, answers, strict=True) if admitted]
    await signals.flush("a", Flush(sessions={open_[0]: 0}))
    await quotas.release("ada", open_[3])
    assert await quotas.admit("ada", "w/new", 4)
    assert not await quotas.admit("ada", "w/newer", 4)
    # A while later those of a gateway that was killed are no more: nobody tells of them.
    for each in (*open_[:3], "w/new"):
        await redis.zadd(keys.sessions("ada"), {each: await signals_now(redis) - 16_000})
    assert [await quotas.admit("ada", f"w/{n}", 4) for n in range(4)] == [True, True, True, False]
    assert await redis.zscore(keys.sessions("ada"), open_[0]) is not None


async def signals_now(redis: Redis) -> int:
    return await RedisStore(redis).now_ms()


async def test_the_pace_is_what_happened(redis: Redis) -> None:
    store, pace = holding(redis), RedisPace(redis)
    one, two, three = await made(store, "1", "2", "3")
    one, two = await run(store, one), await run(store, two)
    await store.wake(three.id, "vip")
    await store.change(two, W.STOPPED, chain=(W.STOPPING,))
    await redis.zadd(keys.by_status("running"), {one.id: await store.now_ms() - 3_600_000})
    found = await pace.look()
    assert (found.users, len(found.boots), len(found.launches), len(found.runs)) == (2, 2, 2, 1)
    [(age, many)] = found.running
    assert many == 1
    assert 0.8 * 3600 < age < 1.2 * 3600
    assert [boost for _, boost in found.arrivals] == [600.0, 0.0, 0.0]
