"""Machines' records."""

from __future__ import annotations

import asyncio

import pytest
from redis.asyncio import Redis

from lifecycle.agent.contract import Report
from lifecycle.model import IllegalTransition, Machine, MachineStatus, WorkspaceStatus
from lifecycle.stores import Conflict, keys
from lifecycle.stores.fleet import RedisFleet
from lifecycle.stores.redis import RedisStore

W, M = WorkspaceStatus, MachineStatus


@pytest.fixture
def fleet(redis: Redis) -> RedisFleet:
    return RedisFleet(redis)


async def made(fleet: RedisFleet, *turns: MachineStatus, slots: int = 5) -> Machine:
    machine_id = await fleet.intend("fake", slots, "token", bound=10)
    for turn in turns:
        await fleet.change(await read(fleet, machine_id), turn, address="10.0.0.1:7000")
    return await read(fleet, machine_id)


async def read(fleet: RedisFleet, machine_id: str) -> Machine:
    machine = await fleet.machine(machine_id)
    assert machine is not None
    return machine


async def seat(redis: Redis, machine: Machine) -> RedisStore:
    """A workspace of ada starts on it."""
    store = RedisStore(redis)
    one, _ = await store.ensure("ada")
    await store.change(await store.wake(one.id), W.STARTING, place=machine.id)
    return store


async def test_an_intent_is_written_down_with_its_token(fleet: RedisFleet) -> None:
    one = await made(fleet, slots=3)
    assert (one.id, one.status, one.slots, one.token) == ("m-1", M.LAUNCHING, 3, "token")
    assert one.empty_since_ms == one.created_at_ms > 0
    assert await fleet.machines() == [one]


async def test_the_bound_holds_among_many_at_once(fleet: RedisFleet) -> None:
    ids = await asyncio.gather(*(fleet.intend("fake", 5, "t", bound=3) for _ in range(8)))
    assert sorted(ids) == ["", "", "", "", "", "m-1", "m-2", "m-3"]


async def test_a_number_is_new_to_the_pool_too(fleet: RedisFleet, redis: Redis) -> None:
    """A flushed Redis must not take over a machine, and the files on it, that it knows nothing of."""
    assert await fleet.intend("fake", 5, "t", bound=10, beyond=7) == "m-8"
    assert await fleet.intend("fake", 5, "t", bound=10, beyond=7) == "m-9"
    assert await fleet.intend("fake", 5, "t", bound=10) == "m-10"


async def test_a_change_is_made_on_the_status_it_was_decided_on(fleet: RedisFleet) -> None:
    one = await made(fleet)
    await fleet.change(one, M.READY, address="10.0.0.1:7000")
    with pytest.raises(Conflict, match="m-1") as refused:
        await fleet.change(one, M.LOST)
    assert refused.value.actual == "ready"
    with pytest.raises(IllegalTransition):
        await fleet.change(await read(fleet, one.id), M.LAUNCHING)


async def test_a_drain_that_comes_together_with_a_boot_is_refused(
    fleet: RedisFleet, redis: Redis
) -> None:
    one = await made(fleet, M.READY)
    await seat(redis, one)
    with pytest.raises(Conflict, match="occupied"):
        await fleet.change(one, M.DRAINING, only_empty=True)
    assert (await read(fleet, one.id)).empty_since_ms == 0


async def test_files_hold_a_removal_that_was_decided_on_none(
    fleet: RedisFleet, redis: Redis
) -> None:
    one = await made(fleet, M.READY)
    store = await seat(redis, one)
    [workspace] = await store.list()
    await store.change(workspace, W.FAILED)
    drained = await read(fleet, one.id)
    assert (drained.occupied, drained.holds_files) == (0, 1)
    assert drained.empty_since_ms > 0
    await fleet.change(drained, M.DRAINING, only_empty=True)
    drained = await read(fleet, one.id)
    with pytest.raises(Conflict, match="files"):
        await fleet.change(drained, M.TERMINATED, bare=True)
    await fleet.change(drained, M.TERMINATED, only_empty=True)
    assert (await store.list())[0].machine_id == "", "nobody waits for files that are gone"


async def test_a_terminated_machine_leaves_only_its_record_for_a_day(
    fleet: RedisFleet, redis: Redis
) -> None:
    one = await made(fleet, M.READY, M.DRAINING)
    await fleet.report(Report(one.id, "boot", 1, 5))
    await fleet.change(one, M.TERMINATED, reason="drained")
    assert await fleet.machines() == []
    assert await redis.zrange(keys.MACHINES, 0, -1) == []
    gone = await read(fleet, one.id)
    assert (gone.status, gone.reason, gone.token) == (M.TERMINATED, "drained", "")
    assert 0 < await redis.ttl(keys.machine(one.id)) <= 86_400


async def test_readiness_starts_the_clock_of_emptiness(fleet: RedisFleet, redis: Redis) -> None:
    one = await made(fleet)
    await redis.hset(keys.machine(one.id), "emptySince", "5")
    await fleet.change(one, M.READY)
    assert (await read(fleet, one.id)).empty_since_ms > 5


async def test_a_report_is_a_heartbeat_with_figures(fleet: RedisFleet) -> None:
    one = await made(fleet, M.READY)
    assert one.last_report_ms == 0
    await fleet.report(Report(one.id, "boot", 1, 5, 12.34, 100, 1000, 7))
    told = await read(fleet, one.id)
    assert told.last_report_ms > 0
    assert (told.cpu_percent, told.memory_bytes, told.disk_free_bytes) == (12.3, 100, 7)


async def test_a_report_of_an_unknown_machine_makes_no_record(
    fleet: RedisFleet, redis: Redis
) -> None:
    await fleet.report(Report("m-99", "boot", 1, 5))
    assert await redis.keys("*") == []
    assert await fleet.machine("m-99") is None
    assert await fleet.machine("") is None


async def test_the_last_decision_is_kept(fleet: RedisFleet) -> None:
    assert await fleet.pool_decision() == {}
    await fleet.decided({"want": 2})
    assert await fleet.pool_decision() == {"want": 2}
