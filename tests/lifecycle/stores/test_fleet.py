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
    return RedisFleet(redis, lambda machine_id: f"token of {machine_id}")


async def made(fleet: RedisFleet, *turns: MachineStatus, slots: int = 5) -> Machine:
    [machine_id] = await fleet.intend("fake", slots, 1, bound=10)
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


async def test_an_intent_is_written_down_without_its_token(fleet: RedisFleet, redis: Redis) -> None:
    one = await made(fleet, slots=3)
    assert (one.id, one.status, one.slots, one.token) == ("m-1", M.LAUNCHING, 3, "token of m-1")
    assert one.empty_since_ms == one.created_at_ms > 0
    assert await fleet.machines() == [one]
    assert "token" not in await redis.hgetall(keys.machine("m-1"))


async def test_a_record_with_a_token_of_its_own_keeps_it(fleet: RedisFleet) -> None:
    assert await fleet.adopt("fake", "m-4", 2, "its own")
    assert await fleet.adopt("fake", "m-5", 2, instance="i-5", zone="eu-1a")
    four, five = await read(fleet, "m-4"), await read(fleet, "m-5")
    assert (four.token, five.token) == ("its own", "token of m-5")
    assert (five.instance, five.zone) == ("i-5", "eu-1a")


async def test_the_machines_of_a_launch_have_consecutive_numbers(fleet: RedisFleet) -> None:
    found = await asyncio.gather(*(fleet.intend("fake", 5, 3, bound=100) for _ in range(5)))
    numbers = [[int(each.removeprefix("m-")) for each in ids] for ids in found]
    assert all(of == list(range(of[0], of[0] + 3)) for of in numbers)
    assert sorted(number for of in numbers for number in of) == list(range(1, 16))
    assert await fleet.intend("fake", 5, 3, bound=17) == ["m-16", "m-17"], "fewer at the bound"
    assert await fleet.intend("fake", 5, 3, bound=17) == []
    assert await fleet.intend("fake", 5, 3, bound=5) == [], "the bound was lowered"
    assert [m.id for m in await fleet.machines()].count("m-17") == 1


async def test_the_bound_holds_among_many_at_once(fleet: RedisFleet) -> None:
    found = await asyncio.gather(*(fleet.intend("fake", 5, 1, bound=3) for _ in range(8)))
    assert sorted(found) == [[], [], [], [], [], ["m-1"], ["m-2"], ["m-3"]]


async def test_a_number_is_new_to_the_pool_too(fleet: RedisFleet) -> None:
    """A flushed Redis must not take over a machine, and the files on it, that it knows nothing of."""
    assert await fleet.intend("fake", 5, 2, bound=10, beyond=7) == ["m-8", "m-9"]
    assert await fleet.intend("fake", 5, 1, bound=10, beyond=7) == ["m-10"]
    assert await fleet.intend("fake", 5, 1, bound=10) == ["m-11"]


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


# What the pool sees


async def test_what_the_pool_calls_it_is_noted_without_an_event(
    fleet: RedisFleet, redis: Redis
) -> None:
    one = await made(fleet)
    told = await redis.xlen(keys.EVENTS)
    await fleet.observe(one.id, "i-1", "eu-1a")
    await fleet.observe(one.id, "", "")
    one = await read(fleet, one.id)
    assert (one.instance, one.zone) == ("i-1", "eu-1a"), "what is not said is no change"
    await fleet.observe("m-99", "i-2", "eu-1a")
    assert await redis.xlen(keys.EVENTS) == told
    assert await fleet.machine("m-99") is None


# Joining


async def joins(redis: Redis) -> int:
    return [row[1]["type"] for row in await redis.xrange(keys.EVENTS)].count("machine.joined")


async def test_the_first_nonce_joins_and_may_ask_again(fleet: RedisFleet, redis: Redis) -> None:
    one = await made(fleet)
    answers = await asyncio.gather(
        *(fleet.join(one.id, "the-nonce", "10.0.0.7:7070", "i-1") for _ in range(5))
    )
    assert answers == ["ok"] * 5
    assert await joins(redis) == 1
    one = await read(fleet, one.id)
    assert (one.joined, one.address, one.instance) == (True, "10.0.0.7:7070", "i-1")
    assert one.last_report_ms >= one.status_since_ms > 0
    assert one.status is M.LAUNCHING, "it is ready once it was asked"


async def test_one_of_many_nonces_joins(fleet: RedisFleet) -> None:
    one = await made(fleet)
    calls = (fleet.join(one.id, f"nonce {n}", f"10.0.0.{n}:7070", "") for n in range(8))
    answers = await asyncio.gather(*calls)
    assert sorted(answers) == ["ok"] + ["used"] * 7
    assert (await read(fleet, one.id)).address == f"10.0.0.{answers.index('ok')}:7070"


async def test_a_code_opens_only_a_place_that_waits(fleet: RedisFleet) -> None:
    assert await fleet.join("m-99", "n", "10.0.0.7:7070", "") == "gone"
    ready = await made(fleet, M.READY)
    assert await fleet.join(ready.id, "n", "10.0.0.7:7070", "") == "used"
    lost = await made(fleet, M.LOST)
    assert await fleet.join(lost.id, "n", "10.0.0.7:7070", "") == "used"
    gone = await made(fleet, M.TERMINATED)
    assert await fleet.join(gone.id, "n", "10.0.0.7:7070", "") == "gone"
    await fleet.adopt("fake", "m-70", 5)
    assert await fleet.join("m-70", "n", "10.0.0.7:7070", "") == "used", "it may have joined before"
    assert not (await read(fleet, "m-70")).joined


async def test_an_answer_that_was_lost_is_given_again_later(fleet: RedisFleet) -> None:
    one = await made(fleet)
    assert await fleet.join(one.id, "n", "10.0.0.7:7070", "") == "ok"
    await fleet.change(await read(fleet, one.id), M.READY)
    assert await fleet.join(one.id, "n", "10.0.0.7:7070", "") == "ok"
    assert await fleet.join(one.id, "another", "10.0.0.8:7070", "") == "used"
    await fleet.change(await read(fleet, one.id), M.LOST)
    await fleet.change(await read(fleet, one.id), M.LAUNCHING)
    assert await fleet.join(one.id, "another", "10.0.0.8:7070", "") == "used", "started again"


async def test_an_agents_own_report_says_where_it_is(fleet: RedisFleet, redis: Redis) -> None:
    assert not await fleet.heard("m-99", "10.0.0.7:7070")
    assert await redis.keys("*") == []
    one = await made(fleet, M.READY)
    assert await fleet.heard(one.id, "10.0.0.9:7070")
    one = await read(fleet, one.id)
    assert one.address == "10.0.0.9:7070"
    assert one.last_report_ms > 0
    assert await joins(redis) == 0, "it is no news of a machine that is ready"
    gone = await made(fleet, M.TERMINATED)
    assert not await fleet.heard(gone.id, "10.0.0.9:7070")


async def test_the_first_report_after_a_start_is_news(fleet: RedisFleet, redis: Redis) -> None:
    await fleet.adopt("fake", "m-4", 5)
    for _ in range(3):
        assert await fleet.heard("m-4", "10.0.0.9:7070")
    assert await joins(redis) == 1
    four = await read(fleet, "m-4")
    assert (four.joined, four.unheard) == (True, True)
    for turn in (M.READY, M.STOPPED):
        await fleet.change(await read(fleet, "m-4"), turn)
    await asyncio.sleep(0.002)  # Redis counts in milliseconds
    await fleet.change(await read(fleet, "m-4"), M.LAUNCHING)
    await redis.zadd(keys.MACHINES, {"m-4": four.last_report_ms})
    assert await fleet.heard("m-4", "10.0.0.9:7070")
    assert await joins(redis) == 2


# Doom


async def dooms(redis: Redis) -> list[str]:
    rows = [row[1] for row in await redis.xrange(keys.EVENTS)]
    return [row["at"] for row in rows if row["type"] == "machine.doomed"]


async def test_a_doomed_machine_drains(fleet: RedisFleet, redis: Redis) -> None:
    one = await made(fleet, M.READY)
    for _ in range(3):
        assert await fleet.doom(one, 5000, "spot: taken away")
    one = await read(fleet, one.id)
    assert (one.status, one.doomed_at_ms, one.reason) == (M.DRAINING, 5000, "spot: taken away")
    assert await dooms(redis) == ["5000"]
    await fleet.doom(one, 9000, "maintenance")
    assert (await read(fleet, one.id)).doomed_at_ms == 5000, "an earlier end is not put off"
    await fleet.doom(one, 4000, "sooner")
    assert (await read(fleet, one.id)).doomed_at_ms == 4000
    assert await dooms(redis) == ["5000", "4000"]


async def test_a_drain_that_others_asked_for_meanwhile_is_not_called_off(fleet: RedisFleet) -> None:
    held, doomed = [await made(fleet, M.READY) for _ in range(2)]
    for each in (held, doomed):
        await fleet.change(each, M.DRAINING)
    decided = [await read(fleet, each.id) for each in (held, doomed)]
    await fleet.hold(held.id, True)
    await fleet.doom(decided[1], 5000, "spot")
    for each in decided:
        with pytest.raises(Conflict):
            await fleet.change(each, M.READY, reason="wanted again")
        assert (await read(fleet, each.id)).status is M.DRAINING
    await fleet.hold(held.id, False)
    assert (await read(fleet, held.id)).status is M.READY, "the person may"


async def test_a_machine_that_is_doomed_while_it_launches(fleet: RedisFleet) -> None:
    one = await made(fleet)
    assert await fleet.doom(one, 5000, "spot")
    assert (await read(fleet, one.id)).status is M.LAUNCHING
    await fleet.change(await read(fleet, one.id), M.READY)
    assert await fleet.doom(one, 5000, "spot")
    assert (await read(fleet, one.id)).status is M.DRAINING


async def test_a_start_on_its_disk_ends_the_doom(fleet: RedisFleet) -> None:
    one = await made(fleet, M.READY)
    await fleet.doom(one, 5000, "spot")
    await fleet.change(await read(fleet, one.id), M.STOPPED)
    await fleet.change(await read(fleet, one.id), M.LAUNCHING)
    assert (await read(fleet, one.id)).doomed_at_ms == 0
    gone = await made(fleet, M.TERMINATED)
    assert not await fleet.doom(gone, 5000, "spot")
    assert (await read(fleet, gone.id)).doomed_at_ms == 0
