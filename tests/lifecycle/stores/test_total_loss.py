"""The whole lifecycle on records that outlast Redis: it loses everything, and nobody is stopped."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from lifecycle import errands, watching
from lifecycle.model import Workspace, WorkspaceStatus
from lifecycle.stores import StoreError, StoreUnavailable, keys
from lifecycle.stores.recorded import RecordedStore
from tests.lifecycle.agreement import Agreement
from tests.lifecycle.stores.keeping import Failover, MemoryRecords, agree
from tests.lifecycle.world import Leader, World

W = WorkspaceStatus


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errands, "FIRST_PAUSE", 0.02)
    monkeypatch.setattr(watching, "UNREACHABLE_RETRY", 0.02)
    monkeypatch.setattr(watching, "STATUS_WAIT", 0.1)


@pytest.fixture
def kept() -> MemoryRecords:
    return MemoryRecords()


@pytest.fixture
async def world(redis: Redis, kept: MemoryRecords) -> AsyncIterator[World]:
    store = RecordedStore(redis, kept)
    await store.open()
    world = World(redis, store)
    yield world
    await world.close()


async def runs(world: World, leader: Leader, user: str) -> Workspace:
    return await world.gets(leader, await world.wake(user), W.RUNNING)


async def sleeps(world: World, leader: Leader, user: str) -> Workspace:
    one = await runs(world, leader, user)
    world.pool.agents[one.machine_id].disk.of[one.id]["a.txt"] = f"{user}'s"
    await world.store.stop(one.id, "asked")
    return await world.gets(leader, one, W.STOPPED)


def asked(world: World, *verbs: str) -> list[tuple[str, str, str]]:
    return [call for call in world.pool.calls if call[0] in verbs]


async def settled(world: World, leader: Leader, kept: MemoryRecords) -> None:
    async def nothing_pending() -> bool:
        return not await world.redis.exists(keys.PENDING)

    await world.until(leader, nothing_pending)
    await agree(world.redis, kept)
    await Agreement(world.redis).check()
    await Agreement(world.redis).check_sums()


async def test_everything_comes_back_and_nobody_is_stopped(
    world: World, kept: MemoryRecords
) -> None:
    leader = world.leader()
    ada, bob = await runs(world, leader, "ada"), await sleeps(world, leader, "bob")
    carl = await sleeps(world, leader, "carl")
    await world.store.terminate(carl.id, "asked")
    carl = await world.gets(leader, carl, W.TERMINATED)
    await world.store.extend(ada.id, 3600)
    ada = await world.read(ada)
    before = asked(world, "start", "stop", "remove", "snapshot")
    await world.redis.flushall()
    back = await world.wake("ada")
    assert (back.status, back.epoch) == (W.RUNNING, 1), "not in a queue for what runs already"
    await world.rounds(leader)
    again = await world.read(ada)
    assert (again.epoch, again.machine_id, again.address) == (1, ada.machine_id, ada.address)
    assert (again.secret, again.running_since_ms) == (ada.secret, ada.running_since_ms)
    assert again.extend_until_ms == ada.extend_until_ms, "only the records knew that"
    assert [(await world.read(one)).status for one in (bob, carl)] == [W.STOPPED, W.TERMINATED]
    assert asked(world, "start", "stop", "remove", "snapshot") == before
    await settled(world, leader, kept)
    for user in ("bob", "carl"):
        woken = await runs(world, leader, user)
        assert (woken.epoch, world.pool.files(woken.id)) == (2, [{"a.txt": f"{user}'s"}])
    await settled(world, leader, kept)


async def test_what_was_moved_counts_from_the_loss_on(world: World, kept: MemoryRecords) -> None:
    leader = world.leader()
    one = await runs(world, leader, "ada")
    await world.later(30)
    fields = {"reason": "moving: its machine goes", "next": "start"}
    await world.store.change(await world.read(one), W.STOPPING, fields=fields)
    moved = await world.gets(leader, one, W.RUNNING)
    assert moved.moved
    await world.redis.flushall()
    lost_ms = await world.store.now_ms()
    await world.rounds(leader, 3)
    again = await world.read(one)
    assert (again.moved, again.running_since_ms) == (True, moved.running_since_ms)
    assert min(again.seen["boot"], again.last_active_at_ms) >= lost_ms
    await settled(world, leader, kept)


async def test_who_waited_waits_on_at_their_place(world: World, kept: MemoryRecords) -> None:
    leader = world.leader(max_machines=0)
    people = ("ada", "bob", "carl")
    waiting = [await world.wake(user) for user in people]
    await world.rounds(leader, 3)
    await world.redis.flushall()
    await world.rounds(leader, 3)
    assert [one.user_id for one in await world.store.queued()] == list(people)
    heir = world.leader()
    for one in waiting:
        await world.gets(heir, one, W.RUNNING)
    assert sorted(one for _, _, one in asked(world, "start")) == sorted(w.id for w in waiting)
    await settled(world, heir, kept)


async def test_a_loss_in_the_middle_of_a_boot_boots_once(world: World, kept: MemoryRecords) -> None:
    """Its start was on its way when the records were lost: the machine knows it, Redis does not."""
    leader = world.leader()
    lost = False

    async def gate(when: str, call: tuple[str, str, str]) -> None:
        nonlocal lost
        if call[0] == "start" and when == "before" and not lost:
            lost = True
            await world.redis.flushall()

    world.pool.gate = gate
    one = await runs(world, leader, "ada")
    assert lost
    assert (one.epoch, world.pool.where(one.id)) == (1, [one.machine_id])
    assert world.pool.most_running[one.id] == 1
    await settled(world, leader, kept)


async def test_while_the_records_are_away_nothing_is_booted_and_all_goes_on(
    world: World, kept: MemoryRecords
) -> None:
    leader = world.leader()
    ada = await runs(world, leader, "ada")
    before = asked(world, "start", "stop")

    async def away(when: str, call: str) -> None:
        raise StoreUnavailable("the table does not answer")

    kept.gate = away
    with pytest.raises(StoreUnavailable):
        await world.wake("bob")
    with pytest.raises(StoreUnavailable):
        await world.wake("bob")  # made by now, and queued with that
    assert [one.user_id for one in await world.store.queued()] == ["bob"]
    await world.rounds(leader, 40)
    [bob] = await world.store.list("bob")
    assert bob.status is W.STARTING, "written down in Redis, and asked of nobody"
    assert asked(world, "start", "stop") == before
    assert world.pool.where(ada.id) == [ada.machine_id]
    kept.gate = None
    await world.gets(leader, bob, W.RUNNING)
    assert len(asked(world, "start")) == 2
    await settled(world, leader, kept)


async def test_a_failover_that_lost_a_boot_does_not_repeat_it(
    world: World, kept: MemoryRecords
) -> None:
    leader, failover = world.leader(), Failover(world.redis)
    await sleeps(world, leader, "ada")
    await world.wake("ada")
    await failover.remember()
    one = (await world.store.list("ada"))[0]
    ran = await world.gets(leader, one, W.RUNNING)
    calls = asked(world, "start")
    await failover.happen()
    await failover.close()
    again = await world.gets(leader, one, W.RUNNING)
    assert (again.epoch, again.machine_id, again.secret) == (2, ran.machine_id, ran.secret)
    assert asked(world, "start") == calls
    await settled(world, leader, kept)


async def test_away_and_empty_at_once_decides_nothing(world: World, kept: MemoryRecords) -> None:
    leader = world.leader()
    one = await runs(world, leader, "ada")
    calls = list(world.pool.calls)

    async def away(when: str, call: str) -> None:
        raise StoreUnavailable("the table does not answer")

    kept.gate = away
    await world.redis.flushall()
    for _ in range(5):
        await world.flush()
        with pytest.raises(StoreError):
            await leader.tick()
    assert await world.fleet.machines() == []
    assert world.pool.calls == calls
    kept.gate = None
    await world.gets(leader, one, W.RUNNING)
    await settled(world, leader, kept)
