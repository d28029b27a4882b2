"""Redis goes back, goes empty, or its records' keeper is away: nothing that was kept is lost, and nothing is
started twice. What somebody dies between is tried one step after the other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest
from redis.asyncio import Redis

from lifecycle.agent.contract import WorkspaceReport
from lifecycle.model import OCCUPYING, Machine, MachineStatus, Workspace, WorkspaceStatus
from lifecycle.stores import Conflict, StoreUnavailable, keys, recorded
from lifecycle.stores.connection import Scripts
from lifecycle.stores.fleet import RedisFleet
from lifecycle.stores.recorded import RecordedStore, Restored
from lifecycle.stores.records import DELETED
from lifecycle.stores.redis import RedisStore
from tests.lifecycle.agreement import Agreement
from tests.lifecycle.stores.conftest import Open
from tests.lifecycle.stores.keeping import Failover, MemoryRecords, agree

W, M = WorkspaceStatus, MachineStatus
ADDRESS = "10.0.0.1:9000"


@pytest.fixture
def kept() -> MemoryRecords:
    return MemoryRecords()


@pytest.fixture
async def store(redis: Redis, kept: MemoryRecords) -> RecordedStore:
    store = RecordedStore(redis, kept)
    await store.open()
    await store.rebuild()
    return store


@pytest.fixture
async def failover(redis: Redis) -> AsyncIterator[Failover]:
    failover = Failover(redis)
    yield failover
    await failover.close()


async def machine(redis: Redis, machine_id: str = "") -> Machine:
    """A ready one; a machine whose record was lost is there again."""
    fleet = RedisFleet(redis)
    if machine_id:
        await fleet.adopt("fake", machine_id, 5, "token")
    else:
        [machine_id] = await fleet.intend("fake", 5, 1, bound=10)
    found = await fleet.machine(machine_id)
    assert found is not None
    if found.status is M.LAUNCHING:
        await fleet.change(found, M.READY, address="10.0.0.1:7000")
        found = await fleet.machine(machine_id)
        assert found is not None
    return found


async def starting(store: RedisStore, user: str = "ada") -> Workspace:
    one, _ = await store.ensure(user)
    one = await store.wake(one.id)
    home = (await machine(store.redis)).id
    return await store.change(one, W.STARTING, fields={"secret": "s"}, place=home)


async def running(store: RedisStore, user: str = "ada") -> Workspace:
    one = await starting(store, user)
    return await store.change(one, W.RUNNING, fields={"address": ADDRESS})


async def deleted(store: RedisStore, user: str = "ada") -> Workspace:
    one = await store.terminate((await running(store, user)).id, "deleted")
    one = await store.change(one, W.STOPPED)
    one = await store.change(one, W.TERMINATED, fields={"machineId": ""})
    await store.delete(one.id)
    return one


def away(*calls: str) -> Callable[[str, str], Any]:
    async def gate(when: str, call: str) -> None:
        if call in calls and when == "before":
            raise StoreUnavailable("the records are away")

    return gate


async def events(redis: Redis, *kinds: str) -> list[str]:
    rows = await redis.xrange("events")
    return [row["type"] for _, row in rows if row["type"].startswith(kinds)]


# Every change is kept


async def test_a_change_is_kept_before_the_verb_returns(
    store: RecordedStore, kept: MemoryRecords, redis: Redis
) -> None:
    one = await running(store)
    theirs = kept.kept[one.id]
    assert (theirs.status, theirs.epoch, theirs.user_id) == ("running", 1, "ada")
    assert theirs.fields["machineId"] == one.machine_id
    for verb in (
        store.extend(one.id, 60),
        store.stop(one.id, "asked"),
        store.wake(one.id),
        store.wake(one.id, "vip"),
        store.note(one, "workspace.progress", {"step": "x"}),
    ):
        before = kept.kept[one.id].stamp
        await verb
        assert kept.kept[one.id].stamp > before
        await agree(redis, kept)


async def test_what_changes_nothing_and_sightings_are_not_written(
    store: RecordedStore, kept: MemoryRecords, redis: Redis
) -> None:
    one = await running(store)
    calls: list[str] = []

    async def count(when: str, call: str) -> None:
        calls.append(call)

    kept.gate = count
    assert await store.touch(one.id, "api")
    await store.wake(one.id)
    await store.ensure("ada")
    assert await store.get(one.id)
    await store.stop(one.id, "asked")
    calls.clear()
    await store.stop(one.id, "asked")
    assert calls == []
    await agree(redis, kept)


async def test_stamps_grow_even_if_the_clock_goes_back(
    store: RecordedStore, redis: Redis, kept: MemoryRecords
) -> None:
    one = await running(store)
    ahead = (await store.now_ms() + 3_600_000) * 1000
    await redis.hset(keys.workspace(one.id), mapping={"stamp": ahead, "trail": ahead})
    kept.kept[one.id] = replace(kept.kept[one.id], stamp=ahead)
    await store.extend(one.id, 60)
    assert kept.kept[one.id].stamp == ahead + 1


async def test_a_trail_is_bounded(store: RecordedStore, redis: Redis, kept: MemoryRecords) -> None:
    one = await running(store)
    for n in range(40):
        await store.extend(one.id, n)
    trail = [int(stamp) for stamp in (await redis.hget(keys.workspace(one.id), "trail")).split()]
    assert len(trail) == 32
    assert trail == sorted(set(trail))
    assert trail[-1] == kept.kept[one.id].stamp


async def test_a_machine_that_goes_takes_files_with_it_and_that_is_kept(
    store: RecordedStore, redis: Redis, kept: MemoryRecords
) -> None:
    one = await store.change(await running(store), W.STOPPED, chain=(W.STOPPING,))
    fleet, there = RedisFleet(redis), await machine(redis, one.machine_id)
    for to in (M.DRAINING, M.TERMINATED):
        await fleet.change(there, to)
        there = replace(there, status=to)
    assert kept.kept[one.id].fields["machineId"] == one.machine_id
    assert await store.settle() == 0
    assert kept.kept[one.id].fields["machineId"] == ""
    await agree(redis, kept)


async def test_records_from_before_are_written_up(redis: Redis, kept: MemoryRecords) -> None:
    """The operator goes from --store redis to another one."""
    plain = RedisStore(redis)
    one, two = await running(plain), (await plain.ensure("bob"))[0]
    await redis.hdel(keys.workspace(two.id), "stamp", "trail")  # as older versions wrote them
    store = RecordedStore(redis, kept)
    await store.open()
    assert await store.rebuild() == 0
    assert await store.settle() == 0
    assert kept.kept.keys() == {one.id, two.id}
    await agree(redis, kept)
    assert await store.rebuild() == 0
    assert await events(redis, "store.") == []


async def test_other_records_are_filled_anew(
    store: RecordedStore, redis: Redis, kept: MemoryRecords
) -> None:
    one = await running(store)
    other = MemoryRecords()
    other.name = "another table"
    moved = RecordedStore(redis, other)
    await moved.rebuild()
    await moved.settle()
    assert other.kept == {one.id: kept.kept[one.id]}


# The records are away


async def test_an_outage_leaves_a_change_pending_until_it_is_over(
    store: RecordedStore, redis: Redis, kept: MemoryRecords
) -> None:
    one = await running(store)
    kept.gate = away("get", "put")
    with pytest.raises(StoreUnavailable):
        await store.stop(one.id, "asked")
    assert (await store.get(one.id)).status is W.STOPPING  # type: ignore[union-attr]
    assert kept.kept[one.id].status == "running"
    for _ in range(2):
        assert await store.settle() == 1
    assert await redis.smembers(keys.PENDING) == {one.id}
    with pytest.raises(StoreUnavailable):
        await store.secure(one)
    kept.gate = None
    assert await store.settle() == 0
    assert kept.kept[one.id].status == "stopping"
    await agree(redis, kept)


async def test_people_who_ask_again_after_an_outage_get_what_they_asked_for(
    store: RecordedStore, redis: Redis, kept: MemoryRecords
) -> None:
    kept.gate = away("put")
    with pytest.raises(StoreUnavailable):
        await store.ensure("ada")
    kept.gate = None
    one, made = await store.ensure("ada")
    assert not made
    await store.wake(one.id)
    await store.settle()
    await agree(redis, kept)


async def test_more_changes_than_a_trail_holds_are_settled_too(
    store: RecordedStore, redis: Redis, kept: MemoryRecords
) -> None:
    one = await running(store)
    kept.gate = away("put")
    for n in range(40):
        with pytest.raises(StoreUnavailable):
            await store.extend(one.id, n)
    kept.gate = None
    assert await store.settle() == 0
    await agree(redis, kept)


async def test_nothing_is_asked_of_an_agent_before_it_is_kept(
    store: RecordedStore, kept: MemoryRecords
) -> None:
    one = await starting(store)
    await store.secure(one)
    kept.gate = away("get")
    with pytest.raises(StoreUnavailable):
        await store.secure(one)


async def test_a_bug_in_settling_is_not_taken_for_an_outage(
    store: RecordedStore, kept: MemoryRecords
) -> None:
    one = await running(store)

    async def broken(when: str, call: str) -> None:
        raise RuntimeError("a bug")

    await store.redis.sadd(keys.PENDING, one.id)
    kept.gate = broken
    with pytest.raises(RuntimeError):
        await store.settle()


async def test_a_turn_settles_many_at_once_and_not_all(
    store: RecordedStore, redis: Redis, kept: MemoryRecords, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorded, "A_TURN", 6)
    monkeypatch.setattr(recorded, "AT_ONCE", 4)
    plain = RedisStore(redis)
    for n in range(9):
        await plain.ensure(f"user{n}")
    assert [await store.settle() for _ in range(3)] == [3, 0, 0]
    await agree(redis, kept)


# Two at once


async def test_of_two_who_keep_at_once_none_is_taken_for_lost(
    store: RecordedStore, redis: Redis, kept: MemoryRecords
) -> None:
    one = await running(store)

    async def slow(when: str, call: str) -> None:
        await asyncio.sleep(0)

    kept.gate = slow
    other = RecordedStore(redis, kept)
    await asyncio.gather(
        *(side.extend(one.id, n) for n in range(8) for side in (store, other)),
        other.stop(one.id, "asked"),
        store.settle(),
    )
    await agree(redis, kept)
    assert kept.kept[one.id].status == "stopping"


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("call", ["get", "put"])
async def test_a_change_that_comes_and_is_kept_meanwhile_is_no_loss(
    store: RecordedStore, redis: Redis, kept: MemoryRecords, when: str, call: str
) -> None:
    one = await running(store)

    async def other_is_faster(at: str, what: str) -> None:
        if (at, what) == (when, call):
            kept.gate = None
            await RecordedStore(redis, kept).extend(one.id, 60)

    kept.gate = other_is_faster
    assert await store.note(one, "workspace.progress", {"step": "x"})
    assert kept.gate is None
    await agree(redis, kept)


async def test_a_lost_answer_of_a_write_is_no_lost_race(
    store: RecordedStore, redis: Redis, kept: MemoryRecords
) -> None:
    """The technology asks again by itself, and finds its own first try there."""
    one = await running(store)
    put = kept.put

    async def twice(*args: Any) -> bool:
        await put(*args)
        return await put(*args)

    kept.put = twice  # type: ignore[method-assign]
    assert (await store.extend(one.id, 60)).extend_until_ms > 0
    await agree(redis, kept)


async def test_endless_races_end(store: RecordedStore, kept: MemoryRecords) -> None:
    one = await running(store)

    async def never(*args: Any) -> bool:
        return False

    kept.put = never  # type: ignore[method-assign]
    with pytest.raises(StoreUnavailable, match="takes no change"):
        await store.extend(one.id, 60)


# Redis goes back: a failover that lost its last writes


async def test_a_boot_that_redis_lost_is_not_made_again_elsewhere(
    store: RecordedStore, redis: Redis, kept: MemoryRecords, failover: Failover
) -> None:
    one, _ = await store.ensure("ada")
    one = await store.wake(one.id)
    first, second = (await machine(redis)).id, (await machine(redis)).id
    await failover.remember()
    booted = await store.change(one, W.STARTING, fields={"secret": "s"}, place=first)
    booted = await store.change(booted, W.RUNNING, fields={"address": ADDRESS})
    await failover.happen()
    [again] = await store.queued()
    with pytest.raises(Restored) as lost:
        await store.change(again, W.STARTING, place=second)
    assert lost.value.actual == "running"
    back = await store.get(one.id)
    assert back is not None
    assert (back.status, back.epoch, back.machine_id) == (W.RUNNING, 1, first)
    assert (back.address, back.secret) == (ADDRESS, "s")
    assert await store.queued() == []
    assert await redis.scard(keys.machine_slots(second)) == 0
    await Agreement(redis).check()
    await agree(redis, kept)
    assert (await events(redis, "workspace."))[-2:] == ["workspace.restored", "workspace.running"]


async def test_a_boot_that_the_loops_repeat_is_held_against_what_is_kept(
    store: RecordedStore, failover: Failover
) -> None:
    old = await starting(store)
    await failover.remember()
    one = await store.change(old, W.STOPPED, chain=(W.STOPPING,))
    one = await store.wake(one.id)
    await store.change(one, W.STARTING, place=(await machine(store.redis)).id)
    await failover.happen()
    with pytest.raises(Restored):
        await store.secure(old)
    assert (await store.get(old.id)).epoch == 2  # type: ignore[union-attr]


async def test_a_change_that_is_lost_before_it_is_kept_is_refused(
    store: RecordedStore, kept: MemoryRecords, failover: Failover
) -> None:
    """Redis said that it was done, and then it had not happened."""
    one = await store.wake((await store.ensure("ada"))[0].id)
    home = (await machine(store.redis)).id
    await failover.remember()

    async def fail_over(when: str, call: str) -> None:
        kept.gate = None
        await failover.happen()

    kept.gate = fail_over
    with pytest.raises(Restored):
        await store.change(one, W.STARTING, place=home)
    assert (await store.get(one.id)) == one
    assert kept.kept[one.id].status == "queued"
    booted = await store.change(one, W.STARTING, place=home)
    await failover.happen()
    kept.kept[one.id] = replace(
        kept.kept[one.id], **{"status": "queued", "epoch": 0, "stamp": await _stamp(store, one)}
    )
    with pytest.raises(Conflict, match="has lost boot 1"):
        await store.secure(booted)


async def _stamp(store: RecordedStore, one: Workspace) -> int:
    return int(await store.redis.hget(keys.workspace(one.id), "stamp"))


async def test_what_people_ask_for_is_asked_of_the_restored_record(
    store: RecordedStore, redis: Redis, kept: MemoryRecords, failover: Failover
) -> None:
    one, _ = await store.ensure("ada")
    await failover.remember()
    await running(store)
    for ask, expected in (
        (lambda: store.extend(one.id, 60), W.RUNNING),
        (lambda: store.wake(one.id, "vip"), W.RUNNING),
        (lambda: store.stop(one.id, "asked"), W.STOPPING),
    ):
        await failover.happen()
        if (await store.get(one.id)).status is W.STOPPED and expected is W.STOPPING:  # type: ignore[union-attr]
            await store.extend(
                one.id, 1
            )  # stopping what sleeps changes nothing: it is not looked at
        back = await ask()
        assert back.status is expected
        await agree(redis, kept)


async def test_one_who_comes_anew_finds_the_record_that_redis_lost(
    store: RecordedStore, redis: Redis, kept: MemoryRecords, failover: Failover
) -> None:
    await machine(redis)
    await failover.remember()
    await running(store)
    await failover.happen()
    back, made = await store.ensure("ada")
    assert (made, back.status, back.epoch, back.address) == (False, W.RUNNING, 1, ADDRESS)
    await agree(redis, kept)


async def test_the_loops_look_again_at_what_was_restored(
    store: RecordedStore, redis: Redis, failover: Failover
) -> None:
    one = await store.change(await running(store), W.STOPPED, chain=(W.STOPPING,))
    await failover.remember()
    await store.note(one, "workspace.snapshotted", {"snapshotId": "s-1"})
    await failover.happen()
    assert not await store.note(one, "workspace.snapshotted", {"snapshotId": "s-2"})
    assert (await store.get(one.id)).snapshot_id == "s-1"  # type: ignore[union-attr]
    await failover.happen()
    row = WorkspaceReport(one.id, 7, "running", user_id="ada")
    assert await store.adopt(one.machine_id, row, ADDRESS) == "restored"
    assert await store.adopt(one.machine_id, row, ADDRESS) == "ok"
    assert (await store.get(one.id)).epoch == 7  # type: ignore[union-attr]


async def test_a_deletion_that_redis_lost_holds(
    store: RecordedStore, redis: Redis, kept: MemoryRecords, failover: Failover
) -> None:
    one = await store.terminate((await running(store)).id, "deleted")
    one = await store.change(one, W.STOPPED)
    one = await store.change(one, W.TERMINATED, fields={"machineId": ""})
    await failover.remember()
    await store.delete(one.id)
    await failover.happen()
    with pytest.raises(Conflict):
        await store.wake(one.id)
    assert await store.get(one.id) is None
    again, made = await store.ensure("ada")
    assert (made, again.epoch) == (True, 1)
    await agree(redis, kept)


# Redis goes empty


async def test_everything_is_there_again_and_nobody_was_stopped(
    redis: Redis, open_records: Open
) -> None:
    for technology in ("memory", "dynamodb", "postgresql"):
        await redis.flushall()
        async with open_records(technology) as records:
            store = RecordedStore(redis, records)
            await store.open()
            await store.rebuild()
            before = await _a_day_of_work(store)
            await redis.flushall()
            assert await store.rebuild() == len(before)
            after = {one.id: one for one in await store.list()}
            assert after.keys() == before.keys()
            for one, was in ((after[id], before[id]) for id in before):
                assert _lasting(one) == _lasting(was)
                if one.status in OCCUPYING:
                    assert one.last_active_at_ms >= was.last_active_at_ms, "it is active now"
            assert [one.user_id for one in await store.queued()] == ["vip", "early", "late"]
            assert await events(redis, "workspace.") == ["workspace.restored"] * len(before)
            assert await events(redis, "store.") == ["store.rebuilt"]
            for machine_id in {one.machine_id for one in before.values()} - {""}:
                await machine(redis, machine_id)
            await Agreement(redis).check()
            assert await store.settle() == 0
            await agree(redis, records)
            assert await store.rebuild() == 0


async def _a_day_of_work(store: RecordedStore) -> dict[str, Workspace]:
    await running(store, "runs")
    await starting(store, "starts")
    await store.stop((await running(store, "stops")).id, "asked")
    await store.change(await running(store, "sleeps"), W.STOPPED, chain=(W.STOPPING,))
    await store.change(await running(store, "failed"), W.FAILED, fields={"errorCode": "x"})
    for user, priority in (("early", ""), ("late", ""), ("vip", "vip")):
        one, _ = await store.ensure(user)
        await store.wake(one.id, priority)
    await store.ensure("new", "with a ☂ name")
    await deleted(store, "gone")
    return {one.id: one for one in await store.list()}


def _lasting(one: Workspace) -> Workspace:
    """Without what is told again by heartbeats."""
    return replace(one, last_active_at_ms=0, seen={})


async def test_one_who_comes_before_it_is_rebuilt_finds_theirs(
    store: RecordedStore, redis: Redis, kept: MemoryRecords
) -> None:
    one, other = await running(store, "ada"), await running(store, "bob")
    for come in (
        lambda: store.ensure("ada"),
        lambda: store.get(one.id),
        lambda: store.wake(one.id),
        lambda: store.stop(one.id, "asked"),
    ):
        await redis.flushall()
        await come()
        assert [w.id for w in await store.list()] == [one.id]
    assert (await store.get(one.id)).epoch == 1  # type: ignore[union-attr]
    assert kept.kept[one.id].status == "stopping"
    assert await store.rebuild() == 1
    assert (await store.get(other.id)).status is W.RUNNING  # type: ignore[union-attr]
    assert await store.settle() == 0
    await agree(redis, kept)


async def test_an_unknown_name_is_looked_up_only_until_it_is_rebuilt(
    store: RecordedStore, redis: Redis, kept: MemoryRecords
) -> None:
    kept.gate = away("get")
    assert await store.get("nothing") is None
    await redis.flushall()
    with pytest.raises(StoreUnavailable):
        await store.get("nothing")
    await store.rebuild()
    assert await store.get("nothing") is None


async def test_a_deleted_epoch_outlasts_redis(
    store: RecordedStore, redis: Redis, kept: MemoryRecords
) -> None:
    one = await deleted(store)
    theirs = kept.kept[one.id]
    now = await store.now_ms() // 1000
    assert (theirs.status, theirs.epoch, theirs.user_id) == (DELETED, 1, "")
    assert 89 * 86_400 < theirs.expires_at - now <= 90 * 86_400
    assert "secret" not in theirs.fields
    for rebuild in (False, True):
        await redis.flushall()
        if rebuild:
            assert await store.rebuild() == 0
            assert 0 < await redis.ttl(keys.last_epoch(one.id)) <= 90 * 86_400
            row = WorkspaceReport(one.id, 1, "stopped", user_id="ada")
            home = (await machine(redis)).id
            assert await store.adopt(home, row, "") == "deleted"
        assert await store.get(one.id) is None
    again, made = await store.ensure("ada")
    assert (made, again.epoch) == (True, 1)
    await agree(redis, kept)


async def test_made_again_before_its_deletion_was_kept(
    store: RecordedStore, redis: Redis, kept: MemoryRecords
) -> None:
    one = await running(store)
    one = await store.change(one, W.STOPPED, chain=(W.STOPPING,))
    one = await store.terminate(one.id, "deleted")
    one = await store.change(one, W.TERMINATED, fields={"machineId": ""})
    kept.gate = away("put")
    for ask in (lambda: store.delete(one.id), lambda: store.ensure("ada")):
        with pytest.raises(StoreUnavailable):
            await ask()
    kept.gate = None
    assert await store.settle() == 0
    assert (kept.kept[one.id].status, kept.kept[one.id].epoch) == ("stopped", 1)
    await agree(redis, kept)


async def test_what_a_machine_said_first_gives_way_to_what_was_kept(
    store: RecordedStore, redis: Redis, kept: MemoryRecords
) -> None:
    """Its report comes before the rebuilding: but it does not know that the person wants it stopped."""
    one = await store.stop((await running(store)).id, "asked")
    await redis.flushall()
    home = await machine(redis, one.machine_id)
    row = WorkspaceReport(one.id, 1, "running", user_id="ada")
    assert await store.adopt(home.id, row, ADDRESS) == "restored"
    assert (await store.get(one.id)).status is W.STOPPING  # type: ignore[union-attr]
    await store.rebuild()
    assert await store.settle() == 0
    await agree(redis, kept)


async def test_an_adopted_machine_with_restored_workspaces_is_not_empty(
    store: RecordedStore, redis: Redis
) -> None:
    one = await running(store)
    await redis.flushall()
    await store.rebuild()
    fleet = RedisFleet(redis)
    assert await fleet.adopt("fake", one.machine_id, 5, "token")
    there = await fleet.machine(one.machine_id)
    assert there is not None
    assert (there.occupied, there.holds_files, there.empty_since_ms) == (1, 1, 0)


async def test_records_that_are_away_hold_the_rebuilding_up(
    store: RecordedStore, redis: Redis, kept: MemoryRecords
) -> None:
    for n in range(3):
        await store.ensure(f"user{n}")
    await redis.flushall()
    kept.gate = away("scan")
    with pytest.raises(StoreUnavailable):
        await store.rebuild()
    assert not await redis.exists(keys.REBUILT)
    kept.gate = None
    assert await store.rebuild() == 3


async def test_a_second_loss_in_the_middle_of_rebuilding_starts_it_again(
    store: RecordedStore, redis: Redis, kept: MemoryRecords, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorded, "AT_ONCE", 1)
    for n in range(3):
        await store.ensure(f"user{n}")
    await redis.flushall()
    looks = 0

    async def lost(when: str, call: str) -> None:
        nonlocal looks
        looks += 1
        if looks == 3:
            await redis.flushall()

    kept.gate = lost
    with pytest.raises(StoreUnavailable, match="once more"):
        await store.rebuild()
    assert not await redis.exists(keys.REBUILT)
    await store.rebuild()
    assert len(await store.list()) == 3


async def test_two_who_rebuild_at_once_restore_each_record_once(
    store: RecordedStore, redis: Redis, kept: MemoryRecords
) -> None:
    one = await running(store)
    for n in range(5):
        await store.ensure(f"user{n}")
    await redis.flushall()
    counts = await asyncio.gather(*(RecordedStore(redis, kept).rebuild() for _ in range(3)))
    assert sum(counts) == 6
    assert (await events(redis, "workspace.")) == ["workspace.restored"] * 6
    await store.settle()
    assert (await store.get(one.id)).status is W.RUNNING  # type: ignore[union-attr]
    await agree(redis, kept)


# Somebody dies between Redis and the records, at every step


class Died(BaseException):
    """kill -9"""


class Agents:
    """The machines of a walk, and the boots that were asked of them."""

    def __init__(self) -> None:
        self.boots: list[tuple[int, str]] = []

    def ask(self, one: Workspace) -> None:
        if (one.epoch, one.machine_id) not in self.boots:
            self.boots.append((one.epoch, one.machine_id))
        epochs = [epoch for epoch, _ in self.boots]
        assert len(set(epochs)) == len(epochs), f"one boot on two machines: {self.boots}"
        assert epochs == sorted(epochs), "an older boot after a newer one"


async def turn(store: RecordedStore, agents: Agents, machines: list[str]) -> Workspace | None:
    """What whoever leads does next for ada, by what the records say. None once she is deleted."""
    one = next(iter(await store.list("ada")), None)
    if one is None:
        return None
    home = machines[one.epoch % 2]
    if one.status is W.QUEUED:
        one = await store.change(one, W.STARTING, place=home)
        await store.secure(one)
        agents.ask(one)
    elif one.status is W.STARTING:
        await store.secure(one)
        agents.ask(one)
        await store.change(one, W.RUNNING, fields={"address": ADDRESS})
    elif one.status is W.RUNNING:
        await store.stop(one.id, "asked", "terminate" if one.epoch > 1 else "")
    elif one.status is W.STOPPING:
        await store.change(one, W.STOPPED)
    elif one.status is W.STOPPED and one.epoch < 2:
        await store.wake(one.id)
    elif one.status is W.STOPPED:
        await store.terminate(one.id, "deleted")
    elif one.status is W.TERMINATING:
        await store.note(one, "workspace.snapshotted", {"snapshotId": "s"})
        await store.change(one, W.TERMINATED, fields={"machineId": ""})
    else:
        await store.delete(one.id)
    return one


async def walk(store: RecordedStore, agents: Agents, machines: list[str]) -> None:
    for _ in range(60):
        try:
            if await turn(store, agents, machines) is None:
                return
        except Conflict:
            continue
    raise AssertionError("never came to its end")


@pytest.mark.parametrize("loss", ["none", "everything"])
async def test_a_leader_that_dies_at_any_step_leaves_what_the_next_one_can_go_on_with(
    redis: Redis, monkeypatch: pytest.MonkeyPatch, loss: str
) -> None:
    run, deaths = Scripts.run, 0
    for at in range(1, 200):
        kept, agents = MemoryRecords(), Agents()
        await redis.flushall()
        store = RecordedStore(redis, kept)
        await store.open()
        await store.rebuild()
        machines = [(await machine(redis)).id for _ in range(2)]
        steps = 0

        async def step(when: str = "before", call: str = "", at: int = at) -> None:
            nonlocal steps
            steps += when == "before"  # after one step is before the next
            if steps == at:
                raise Died

        async def stepped(self: Scripts, script: str, *args: Any) -> Any:
            await step()
            return await run(self, script, *args)

        with monkeypatch.context() as patch:
            patch.setattr(Scripts, "run", stepped)
            kept.gate = step
            try:
                await store.ensure("ada")
                await walk(store, agents, machines)
            except Died:
                deaths += 1
            else:
                break
        kept.gate = None
        if loss == "everything":
            await redis.flushall()
            for name in machines:
                await machine(redis, name)
        heir = RecordedStore(redis, kept)
        await heir.rebuild()
        assert await heir.settle() == 0
        await agree(redis, kept)
        await Agreement(redis).check()
        if not agents.boots or await heir.list("ada"):
            await heir.ensure("ada")
        await walk(heir, agents, machines)
        assert await heir.settle() == 0
        await agree(redis, kept)
    assert deaths > 50, "the walk has that many steps"
