"""The scaler's decision, live: what it is told, what it remembers, and what becomes of it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import asdict, replace
from typing import Any

import pytest
from redis.asyncio import Redis

from lifecycle import sizing
from lifecycle.model import STANDBY, Machine, MachineStatus, WorkspaceStatus
from lifecycle.pools import Throttled
from lifecycle.scaling.demand import Demand
from lifecycle.scaling.memory import SHRINK_LEAST
from lifecycle.scaling.records import Memory
from lifecycle.stores import StoreUnavailable, keys
from tests.lifecycle.world import Leader, World

W, M = WorkspaceStatus, MachineStatus


@pytest.fixture
async def world(redis: Redis) -> AsyncIterator[World]:
    world = World(redis)
    yield world
    await world.close()


def memory_of(leader: Leader) -> Memory:
    memory = leader.loops.machines._sizing._memory
    assert memory is not None
    return memory


async def status_of(world: World, machine_id: str, status: MachineStatus) -> bool:
    machine = await world.fleet.machine(machine_id)
    return machine is not None and machine.status is status


async def test_who_came_left_and_waited_is_told_in_the_same_step(world: World) -> None:
    leader = world.leader(slots=1, max_machines=1)
    first = await world.gets(leader, await world.wake("ada"), W.RUNNING)
    second = await world.wake("bob")
    await world.rounds(leader, 3)
    assert (await world.read(second)).status is W.QUEUED
    assert memory_of(leader).demand.arrivals == 1, "what was counted before it led is not known"
    await world.redis.hset(
        keys.workspace(second.id), "statusSince", await world.store.now_ms() - 5000
    )
    await world.store.stop(first.id, "asked")
    await world.gets(leader, first, W.STOPPED)
    await world.gets(leader, second, W.RUNNING)
    flow = (await world.store.census()).flow
    assert (flow.arrivals, flow.departures, flow.waits) == (2, 1, 1)


async def test_a_turn_that_could_not_count_decides_nothing(world: World) -> None:
    leader = world.leader(scale_in_delay=0.0, warm_slots=1)
    await world.until(leader, lambda: status_of(world, "m-1", M.READY))
    before = await world.fleet.pool_decision()
    leader = world.leader(scale_in_delay=0.0)  # for whom that machine is one too many

    async def away(durations: bool = False) -> Any:
        raise StoreUnavailable("Redis did not answer")

    counted, world.store.census = world.store.census, away  # type: ignore[method-assign]
    with pytest.raises(StoreUnavailable):
        await leader.loops.machines.tend()
    assert await world.fleet.pool_decision() == before
    assert (await world.machine()).status is M.READY
    world.store.census = counted  # type: ignore[method-assign]
    await leader.loops.machines.tend()
    assert (await world.machine()).status is M.DRAINING


async def test_counters_that_went_backwards_say_nothing(world: World) -> None:
    leader = world.leader()
    await leader.tick()
    for user in ("ada", "bob"):
        await world.wake(user)
    await leader.loops.machines.tend()
    assert memory_of(leader).demand.arrivals == 2
    await world.redis.delete(keys.FLOW)
    await world.wake("eve")
    await leader.loops.machines.tend()
    assert memory_of(leader).demand.arrivals == 2
    await world.wake("joe")
    await leader.loops.machines.tend()
    assert memory_of(leader).demand.arrivals == 3


async def test_the_next_leader_goes_on_with_what_was_remembered(world: World) -> None:
    leader = world.leader(wait_probability=0.01)
    await leader.tick()
    await world.wake("ada")
    await leader.loops.machines.tend()
    old = memory_of(leader)
    assert old.demand.arrivals == 1
    await world.wake("bob")  # while nobody leads
    other = world.leader(wait_probability=0.01)
    await other.loops.machines.tend()
    new = memory_of(other)
    assert (new.demand.arrivals, new.demand.since) == (2, old.demand.since)
    assert new.since > old.since, "it has just begun to lead"


@pytest.mark.parametrize("odd", ["[]", "no JSON", '{"memory": 7}', '{"memory": {"at": 1}}'])
async def test_of_an_odd_memory_nothing_is_believed(world: World, odd: str) -> None:
    await world.redis.set(keys.DECISION, odd)
    leader = world.leader(warm_slots=1)
    await leader.tick()
    assert memory_of(leader).since == memory_of(leader).demand.since
    assert json.loads(await world.redis.get(keys.DECISION))["want"] == 1


async def test_nothing_is_given_back_right_after_a_change_of_leader(world: World) -> None:
    first = world.leader(warm_slots=1, scale_in_delay=0.0)
    await world.until(first, lambda: status_of(world, "m-1", M.READY))
    settling = world.leader(scale_in_delay=0.0, settle=1000.0)
    await world.rounds(settling, 5)
    assert (await world.machine()).status is M.READY
    assert (await world.fleet.pool_decision())["spare"] == 1


async def test_whoever_comes_by_a_schedule_settles_once(world: World) -> None:
    first = world.leader(warm_slots=1, scale_in_delay=0.0)
    await world.until(first, lambda: status_of(world, "m-1", M.READY))
    turn = {"scale_in_delay": 0.0, "settle": 60.0}
    await world.leader(**turn).loops.once()
    written = json.loads(await world.redis.get(keys.DECISION))
    written["memory"]["since"] -= 100.0
    await world.redis.set(keys.DECISION, json.dumps(written))
    await world.leader(**turn).loops.once()
    assert not await status_of(world, "m-1", M.READY)


async def steady(world: World, rate: float, boot: float) -> None:
    """As if so many had come in a second for an hour, and machines took so many seconds."""
    now = await world.store.now_ms() / 1000
    demand = Demand(now - 3600, now, fast=rate, slow=rate, long=rate)
    memory = Memory(now - 3600, now, demand, given=SHRINK_LEAST, given_at=now)
    written = {"memory": asdict(memory), "flow": asdict((await world.store.census()).flow)}
    await world.redis.set(keys.DECISION, json.dumps(written))
    await world.redis.rpush(keys.LAUNCHES, *[int(boot * 1000)] * 99)


async def test_a_machine_on_standby_is_stopped_and_starts_again(world: World) -> None:
    """Three come in ten minutes: 9 slots are to be free for a machine's 600 s, 6 for the 300 s of a start."""
    await steady(world, 0.005, 600.0)
    leader = world.leader(
        max_machines=5, wait_probability=0.01, scale_in_delay=0.0, standby_machines=2
    )

    async def asleep() -> list[Machine]:
        found = [m for m in await world.fleet.machines() if m.status is M.STOPPED]
        return found if len(found) == 2 else []

    kept = await world.until(leader, asleep)
    await world.rounds(leader, 5)
    assert await asleep(), "they hold nothing, and stay"
    assert {(m.reason, m.holds_files) for m in kept} == {(STANDBY, 0)}
    assert len(world.pool.agents) == 3
    for user in ("ada", "bob", "eve"):
        await world.gets(leader, await world.wake(user), W.RUNNING)
    await world.until(leader, lambda: world.redis.llen(keys.STARTS))
    assert len(await world.fleet.machines()) == 5


async def test_a_throttled_pool_is_asked_less(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    leader = world.leader(slots=1, max_machines=9, launch_burst=8, launch_rate=0.001)
    world.pool.refuses = Throttled("RequestLimitExceeded")
    monkeypatch.setattr(sizing, "REPEAT_PAUSE", 0.0)
    for user in ("ada", "bob", "eve"):
        await world.wake(user)
    await leader.loops.machines.tend()
    assert 4.9 < memory_of(leader).tokens < 5.1
    await leader.loops._errands.finished()
    await leader.loops.machines.tend()
    assert memory_of(leader).burst == 4.0
    await leader.loops.machines.tend()
    assert memory_of(leader).burst < 4.1, "once for each refusal"
    world.pool.refuses = None


async def test_launches_that_were_not_asked_for_are_still_granted(world: World) -> None:
    leader = world.leader(slots=1, max_machines=9, launch_burst=8, launch_rate=0.001)
    leader.loops.machines._sizing._not_before = float("inf")  # the pool has nothing to give
    await world.wake("ada")
    for _ in range(3):
        await leader.loops.machines.tend()
    assert (await world.fleet.pool_decision())["launch"] == 1
    assert memory_of(leader).tokens == 8.0


async def test_launches_for_volumes_take_what_is_granted_and_give_nothing_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    leader = world.leader(slots=1, max_machines=9, launch_burst=8, launch_rate=0.001)
    looks = leader.loops.machines._sizing
    await leader.loops.machines.tend()
    monkeypatch.setattr(sizing, "where_volumes_wait", lambda d, *_: replace(d, launch=3))
    looks._memory, looks._not_before = replace(memory_of(leader), tokens=4.0), float("inf")
    for _ in range(3):
        await leader.loops.machines.tend()
    assert memory_of(leader).tokens == pytest.approx(4.0, abs=0.1), "the pool had nothing to give"
    looks._not_before = float("-inf")
    await leader.loops.machines.tend()
    assert memory_of(leader).tokens == pytest.approx(1.0, abs=0.1)
