"""Workspaces' records: what each verb does, and who wins when two want the same."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from redis.asyncio import Redis

from lifecycle.model import IllegalTransition, MachineStatus, Workspace, WorkspaceStatus
from lifecycle.stores import Conflict, LimitReached, StoreError, StoreUnavailable, keys
from lifecycle.stores.connection import connect
from lifecycle.stores.fleet import RedisFleet
from lifecycle.stores.metered import RedisUsage
from lifecycle.stores.redis import RedisStore
from lifecycle.stores.signals import Flush, RedisSignals
from tests.lifecycle.stores.conftest import MakeStore

W = WorkspaceStatus


@pytest.fixture
def store(make_store: MakeStore) -> RedisStore:
    return make_store(max_workspaces_per_user=2, max_queue=3)


async def ready_machine(store: RedisStore, slots: int = 5) -> str:
    fleet = RedisFleet(store.redis)
    [machine_id] = await fleet.intend("fake", slots, 1, bound=10)
    machine = await fleet.machine(machine_id)
    assert machine is not None
    await fleet.change(machine, machine.status.READY, address="10.0.0.1:7000")
    return machine_id


async def queued(store: RedisStore, user: str = "ada", name: str = "") -> Workspace:
    workspace, _ = await store.ensure(user, name)
    return await store.wake(workspace.id)


async def running(store: RedisStore, user: str = "ada") -> Workspace:
    one = await queued(store, user)
    one = await store.change(one, W.STARTING, place=await ready_machine(store))
    return await store.change(one, W.RUNNING, fields={"address": "10.0.0.1:9000"})


async def sleeping(store: RedisStore, user: str = "ada") -> Workspace:
    one = await running(store, user)
    return await store.change(one, W.STOPPED, chain=(W.STOPPING,))


# Making and finding


async def test_a_workspace_is_made_once(store: RedisStore) -> None:
    one, made = await store.ensure("ada", "x", plan="gpu", priority="vip", region="eu")
    again, made_again = await store.ensure("ada", "x", plan="other")
    assert (made, made_again) == (True, False)
    assert again == one
    assert (one.status, one.epoch, one.plan, one.region) == (W.STOPPED, 0, "gpu", "eu")
    assert one.created_at_ms == one.status_since_ms > 0


async def test_ten_at_once_make_one(store: RedisStore) -> None:
    found = await asyncio.gather(*(store.ensure("ada") for _ in range(10)))
    assert sorted(made for _, made in found) == [False] * 9 + [True]


async def test_a_user_has_so_many_and_no_more(store: RedisStore) -> None:
    await store.ensure("ada", "1")
    await store.ensure("ada", "2")
    with pytest.raises(LimitReached, match="2 of 2") as refused:
        await store.ensure("ada", "3")
    assert refused.value.limit == "workspaces"
    await store.ensure("ada", "2")
    await store.ensure("bob", "3")


async def test_lists_are_newest_first_and_filtered(store: RedisStore) -> None:
    one, _ = await store.ensure("ada", "1")
    two = await queued(store, "ada", "2")
    other, _ = await store.ensure("bob")
    assert {w.id for w in await store.list()} == {one.id, two.id, other.id}
    assert {w.id for w in await store.list("ada")} == {one.id, two.id}
    assert [w.id for w in await store.list("ada", {W.QUEUED})] == [two.id]
    assert [w.id for w in await store.list(status={W.QUEUED})] == [two.id]
    assert await store.list("nobody") == []
    assert await store.get("nothing") is None
    assert (await store.counts())["stopped"] == 2


# Waking


async def test_the_queue_goes_by_arrival_and_priority(store: RedisStore) -> None:
    for user, priority in (("a", "batch"), ("b", ""), ("c", "vip")):
        one, _ = await store.ensure(user)
        await store.wake(one.id, priority)
    queue = await store.queued()
    assert [w.user_id for w in queue] == ["c", "b", "a"]
    assert [await store.queue_position(w.id) for w in queue] == [1, 2, 3]
    assert [w.priority for w in queue] == ["vip", "normal", "batch"]


async def test_first_come_first_served_within_a_millisecond(redis: Redis) -> None:
    store = RedisStore(redis)
    ids = [(await store.ensure(f"user-{n}"))[0].id for n in range(40)]
    for each in ids:  # several in each millisecond
        await store.wake(each)
    assert [w.id for w in await store.queued()] == ids


async def test_waking_twice_keeps_the_place(store: RedisStore, redis: Redis) -> None:
    one = await queued(store)
    place = await redis.zscore(keys.QUEUE, one.id)
    assert (await store.wake(one.id)).status is W.QUEUED
    assert await redis.zscore(keys.QUEUE, one.id) == place


async def test_a_full_queue_refuses(store: RedisStore) -> None:
    for user in "abc":
        await queued(store, user)
    with pytest.raises(LimitReached, match="3 of 3") as refused:
        await queued(store, "d")
    assert refused.value.limit == "max_queue"
    with pytest.raises(Conflict):
        await store.wake("nothing")


async def test_waking_clears_what_the_last_life_left(store: RedisStore) -> None:
    one = await running(store)
    one = await store.change(
        one, W.FAILED, fields={"errorCode": "x", "error": "y", "reason": "x", "step": "z"}
    )
    one = await store.wake(one.id)
    assert (one.error_code, one.error, one.reason, one.step) == ("", "", "", "")


async def test_a_visit_while_it_stops_follows_at_once(store: RedisStore) -> None:
    one = await running(store)
    one = await store.stop(one.id, "asked")
    assert (await store.wake(one.id)).next == "start"
    one = await store.change(one, W.STOPPED)
    assert (one.status, one.next) == (W.QUEUED, "")
    assert await store.queue_position(one.id) == 1


async def test_a_visit_while_it_terminates_follows_at_once_either_way(store: RedisStore) -> None:
    for user, outcome, fields in (
        ("ada", W.STOPPED, {}),
        ("bob", W.TERMINATED, {"machineId": ""}),
    ):
        one = await store.terminate((await sleeping(store, user)).id, "deleted")
        await store.wake(one.id)
        assert (await store.change(one, outcome, fields=fields)).status is W.QUEUED


async def test_a_stop_after_that_visit_takes_it_back(store: RedisStore) -> None:
    one = await store.stop((await running(store)).id, "asked")
    await store.wake(one.id)
    assert (await store.stop(one.id, "asked")).next == ""
    assert (await store.change(one, W.STOPPED)).status is W.STOPPED


# Stopping and ending


async def test_a_queued_workspace_that_is_stopped_leaves_the_queue(store: RedisStore) -> None:
    one = await queued(store)
    assert (await store.stop(one.id, "asked")).status is W.STOPPED
    assert await store.queue_position(one.id) is None


async def test_stopping_what_sleeps_changes_nothing(store: RedisStore) -> None:
    one = await sleeping(store)
    assert await store.stop(one.id, "asked") == one


async def test_deleting_what_runs_stops_it_first(store: RedisStore) -> None:
    one = await store.terminate((await running(store)).id, "deleted")
    assert (one.status, one.next) == (W.STOPPING, "terminate")
    one = await store.change(one, W.STOPPED)
    assert (one.status, one.next, one.reason) == (W.TERMINATING, "", "deleted")


async def test_a_stop_does_not_take_a_deletion_back_a_visit_does(store: RedisStore) -> None:
    one = await store.terminate((await running(store)).id, "deleted")
    assert (await store.stop(one.id, "asked")).next == "terminate"
    assert (await store.wake(one.id)).next == "start"


async def test_deleting_what_waits_or_failed_ends_it(store: RedisStore) -> None:
    assert (await store.terminate((await queued(store)).id, "deleted")).status is W.TERMINATING
    one = await store.change(await running(store, "bob"), W.FAILED)
    assert (await store.terminate(one.id, "deleted")).status is W.TERMINATING


async def test_what_was_asked_for_is_forgotten_when_it_fails(store: RedisStore) -> None:
    """A crash is shown; it does not restart by itself, and it is not deleted unseen."""
    one = await store.stop((await running(store)).id, "asked")
    await store.wake(one.id)
    one = await store.change(one, W.FAILED)
    assert (one.status, one.next) == (W.FAILED, "")


async def test_a_failed_stop_of_a_deleted_workspace_is_still_deleted(store: RedisStore) -> None:
    one = await store.terminate((await running(store)).id, "deleted")
    assert (await store.change(one, W.FAILED)).status is W.TERMINATING


async def test_a_termination_called_off_has_slept_all_along(store: RedisStore) -> None:
    one = await sleeping(store)
    since = one.status_since_ms
    await until_later(store, since)
    one = await store.terminate(one.id, "retention")
    assert one.status_since_ms > since
    one = await store.change(one, W.STOPPED)
    assert one.status_since_ms == since
    assert await store.redis.zscore("workspaces:stopped", one.id) == since


async def until_later(store: RedisStore, ms: int) -> None:
    """Redis's clock is beyond that millisecond: what happens next can be told from what was."""
    while await store.now_ms() <= ms + 1:  # each look is a round trip
        pass


async def test_only_a_terminated_workspace_can_be_forgotten(store: RedisStore) -> None:
    one = await sleeping(store)
    with pytest.raises(Conflict, match="only a terminated one") as refused:
        await store.delete(one.id)
    assert refused.value.actual == "stopped"
    one = await store.terminate(one.id, "deleted")
    one = await store.change(one, W.TERMINATED, fields={"machineId": ""})
    await store.delete(one.id)
    assert await store.get(one.id) is None
    with pytest.raises(Conflict):
        await store.delete(one.id)


async def test_a_workspace_made_again_goes_on_with_its_epochs(store: RedisStore) -> None:
    """Machines remember them: a boot 1 after a boot 1 would be refused as long over."""
    one = await store.terminate((await sleeping(store)).id, "deleted")
    one = await store.change(one, W.TERMINATED, fields={"machineId": ""})
    assert one.epoch == 1
    await store.delete(one.id)
    again, made = await store.ensure("ada")
    assert made
    assert (again.id, again.epoch) == (one.id, 1)
    again = await store.wake(again.id)
    assert (await store.change(again, W.STARTING, place=await ready_machine(store))).epoch == 2


# Compare and set


async def test_of_two_leaders_with_the_same_command_one_wins(store: RedisStore) -> None:
    one, machine = await queued(store), await ready_machine(store)
    boots = (store.change(one, W.STARTING, place=machine) for _ in range(5))
    results = await asyncio.gather(*boots, return_exceptions=True)
    assert sum(isinstance(result, Conflict) for result in results) == 4
    assert (await store.get(one.id)).epoch == 1  # type: ignore[union-attr]


async def test_the_last_slot_goes_to_one(store: RedisStore) -> None:
    machine = await ready_machine(store, slots=1)
    queue = [await queued(store, user) for user in "abc"]
    boots = (store.change(one, W.STARTING, place=machine) for one in queue)
    results = await asyncio.gather(*boots, return_exceptions=True)
    assert sum(isinstance(result, Workspace) for result in results) == 1
    assert await store.redis.scard(keys.machine_slots(machine)) == 1


async def test_a_command_from_an_older_boot_changes_nothing(store: RedisStore) -> None:
    old = await running(store)
    stopped = await store.change(old, W.STOPPED, chain=(W.STOPPING,))
    new = await store.wake(stopped.id)
    new = await store.change(new, W.STARTING, place=await ready_machine(store))
    new = await store.change(new, W.RUNNING)
    for to in (W.STOPPING, W.FAILED):
        with pytest.raises(Conflict, match="epoch") as refused:
            await store.change(old, to)
        assert refused.value.actual == "running"
    assert await store.get(new.id) == new
    assert not await store.note(old, "workspace.progress", {"step": "old"})


async def test_an_idle_stop_is_called_off_by_activity_or_an_extension(store: RedisStore) -> None:
    one = await running(store)
    seen = one.last_active_at_ms
    await until_later(store, seen)
    assert await store.touch(one.id, "api")
    with pytest.raises(Conflict, match="active"):
        await store.change(one, W.STOPPING, unless_seen={"boot": seen, "api": seen})
    before = one.extend_until_ms
    one = await store.extend(one.id, 60)
    with pytest.raises(Conflict, match="active"):
        await store.change(one, W.STOPPING, unless_extended_ms=before)
    assert (await store.change(one, W.STOPPING)).status is W.STOPPING


async def test_an_extension_is_never_shortened(store: RedisStore) -> None:
    one = await running(store)
    long = (await store.extend(one.id, 600)).extend_until_ms
    assert (await store.extend(one.id, 1)).extend_until_ms == long


async def test_epochs_go_beyond_what_the_machine_knows(store: RedisStore) -> None:
    """Redis lost its last second, the machine did not."""
    one, machine = await queued(store), await ready_machine(store)
    assert (await store.change(one, W.STARTING, place=machine, known_epoch=7)).epoch == 8


async def test_no_boot_on_a_machine_that_is_not_ready(store: RedisStore) -> None:
    one = await queued(store)
    [launching] = await RedisFleet(store.redis).intend("fake", 5, 1, bound=10)
    for machine in (launching, "m-none"):
        with pytest.raises(Conflict, match="machine"):
            await store.change(one, W.STARTING, place=machine)
    assert (await store.get(one.id)).machine_id == ""  # type: ignore[union-attr]


async def test_what_the_tables_forbid_is_a_bug_and_says_so(store: RedisStore) -> None:
    one, _ = await store.ensure("ada")
    with pytest.raises(IllegalTransition):
        await store.change(one, W.RUNNING)
    with pytest.raises(IllegalTransition):
        await store.change(one, W.STOPPED, chain=(W.STOPPING,))


# Notes


async def test_a_note_is_written_and_told(store: RedisStore) -> None:
    one = await sleeping(store)
    assert await store.note(one, "workspace.snapshotted", {"snapshotId": "s-1"})
    assert (await store.get(one.id)).snapshot_id == "s-1"  # type: ignore[union-attr]
    [event] = await RedisSignals(store.redis).history("", 1)
    assert (event.type, event.data["snapshotId"]) == ("workspace.snapshotted", "s-1")


async def test_a_snapshot_that_ends_after_the_files_are_gone_is_not_noted(
    store: RedisStore,
) -> None:
    """Two leaders terminate: the slower one's snapshot may have run into the faster one's removal."""
    slow = await store.terminate((await sleeping(store)).id, "retention")
    assert await store.note(slow, "workspace.snapshotted", {"snapshotId": "whole"})
    await store.change(slow, W.TERMINATED, fields={"machineId": ""})
    assert not await store.note(slow, "workspace.snapshotted", {"snapshotId": "torn"})
    assert (await store.get(slow.id)).snapshot_id == "whole"  # type: ignore[union-attr]


async def test_files_are_not_let_go_of_under_a_boot(store: RedisStore) -> None:
    one = await running(store)
    assert not await store.note(one, "workspace.detached", {"machineId": ""})
    assert (await store.get(one.id)).machine_id == one.machine_id  # type: ignore[union-attr]


# Activity and usage


async def test_only_what_boots_or_runs_can_be_touched(store: RedisStore) -> None:
    one = await queued(store)
    assert not await store.touch(one.id, "api")
    assert not await store.touch("nothing", "api")
    one = await store.change(one, W.STARTING, place=await ready_machine(store))
    assert await store.touch(one.id, "api")
    assert "api" in (await store.get(one.id)).seen  # type: ignore[union-attr]


async def test_the_last_activity_outlives_the_run(store: RedisStore) -> None:
    one = await running(store)
    await until_later(store, one.last_active_at_ms)
    await store.touch(one.id, "api")
    seen = (await store.get(one.id)).last_active_at_ms  # type: ignore[union-attr]
    assert seen > one.last_active_at_ms
    one = await store.change(one, W.STOPPED, chain=(W.STOPPING,))
    assert one.last_active_at_ms == seen
    assert await store.redis.zscore("heartbeat:workspaces", one.id) is None, "it holds no slot"


async def test_an_old_sighting_does_not_move_the_last_activity_back(store: RedisStore) -> None:
    one = await running(store)
    signals = RedisSignals(store.redis)
    await signals.flush("a", Flush(active={one.id: {"frames": [0, "a"]}}))
    newest = await store.get(one.id)
    await signals.flush("b", Flush(active={one.id: {"frames": [5000, "b"]}}))
    assert await store.get(one.id) == newest


async def test_every_run_is_metered_once(store: RedisStore) -> None:
    one = await running(store)
    since = one.running_since_ms
    one = await store.change(one, W.STOPPED, chain=(W.STOPPING,))
    [ran] = [row for row in await RedisUsage(store.redis).usage("ada") if row[4] == "running"]
    assert ran == (one.id, 1, since, one.status_since_ms, "running", "", 0)


# Redis itself


async def test_an_absent_redis_is_unavailable_and_a_refusal_is_not() -> None:
    store = RedisStore(connect("redis://127.0.0.1:1"))
    with pytest.raises(StoreUnavailable):
        await store.now_ms()
    await store.redis.aclose()


async def test_a_refused_command_is_an_error_of_the_store(store: RedisStore, redis: Redis) -> None:
    await redis.set(keys.QUEUE, "not a zset")
    with pytest.raises(StoreError, match="WRONGTYPE") as refused:
        await store.queued()
    assert not isinstance(refused.value, StoreUnavailable)


async def test_scripts_survive_a_redis_that_forgot_them(store: RedisStore, redis: Redis) -> None:
    await store.ensure("ada")
    await redis.script_flush()
    assert (await store.ensure("bob"))[1]


# Who came, who left, who waited


async def flow(store: RedisStore) -> tuple[int, int, int]:
    found = (await store.census()).flow
    return found.arrivals, found.departures, found.waits


async def test_whoever_comes_and_leaves_is_counted_once(store: RedisStore) -> None:
    assert await flow(store) == (0, 0, 0)
    one = await running(store)
    await store.wake(one.id)
    assert await flow(store) == (1, 0, 0), "asked for again it is there already"
    await store.stop(one.id, "asked")
    assert await flow(store) == (1, 0, 0), "it still has its slot"
    one = await store.change(await store._require(one.id), W.STOPPED)
    assert await flow(store) == (1, 1, 0)
    await store.terminate(one.id, "asked")
    assert await flow(store) == (1, 1, 0), "it had none"
    waits = await queued(store, "bob")
    await store.stop(waits.id, "asked")
    assert await flow(store) == (2, 2, 0)
    fails = await queued(store, "eve")
    await store.change(fails, W.FAILED)
    assert await flow(store) == (3, 3, 0)
    census = await store.census()
    assert census.counts == await store.counts()


async def test_what_moves_neither_comes_nor_leaves(store: RedisStore) -> None:
    one = await running(store)
    fields = {"reason": "moving: its machine goes", "next": "start"}
    one = await store.change(one, W.STOPPING, fields=fields)
    one = await store.change(one, W.STOPPED, fields={"reason": one.reason})
    assert one.status is W.QUEUED
    assert await flow(store) == (1, 0, 0)
    other = await store.change(
        one, W.STARTING, place=(await store.redis.smembers("machines")).pop()
    )
    await store.change(other, W.FAILED)
    assert await flow(store) == (1, 1, 0), "it did not get there"


MOVE = {"reason": "moving: its machine goes", "next": "start"}


async def minutes_ago(store: RedisStore, one: Workspace, minutes: int = 10) -> int:
    """It runs, and was seen last that long ago: when, in milliseconds."""
    at = await store.now_ms() - minutes * 60_000
    await store.redis.hset(keys.workspace(one.id), "seen:boot", at)
    await store.redis.zadd(keys.WORKSPACES, {one.id: at})
    return at


async def on_its_way(store: RedisStore, one: Workspace) -> Workspace:
    """It runs, and is moved: in the queue."""
    one = await store.change(one, W.STOPPING, fields=MOVE)
    return await store.change(one, W.STOPPED, fields={"reason": one.reason})


async def starts(store: RedisStore, one: Workspace) -> Workspace:
    return await store.change(one, W.STARTING, place=await ready_machine(store))


async def arrives(store: RedisStore, one: Workspace) -> Workspace:
    return await store.change(await starts(store, one), W.RUNNING)


async def test_a_move_is_no_sign_of_life(store: RedisStore) -> None:
    one = await running(store)
    at = await minutes_ago(store, one)
    one = await arrives(store, await on_its_way(store, one))
    assert (one.moved, one.seen, one.last_active_at_ms) == (True, {"boot": at}, at)
    assert one.running_since_ms > at
    assert await store.not_seen_since(at, 10) == [one.id]
    again = await arrives(store, await on_its_way(store, one))
    assert (again.moved, again.seen, again.last_active_at_ms) == (True, {"boot": at}, at)


@pytest.mark.parametrize("when", [W.STOPPING, W.QUEUED, W.STARTING])
async def test_who_comes_back_while_it_moves_is_a_sign_of_life(
    store: RedisStore, when: WorkspaceStatus
) -> None:
    one = await running(store)
    at = await minutes_ago(store, one)
    one = await store.change(one, W.STOPPING, fields=MOVE)
    if when is not W.STOPPING:
        one = await store.change(one, W.STOPPED, fields={"reason": one.reason})
    if when is W.STARTING:
        one = await starts(store, one)
    woken = await store.wake(one.id)
    assert (woken.status, woken.reason, woken.next) == (when, one.reason, one.next)
    if when is W.STOPPING:
        woken = await store.change(woken, W.STOPPED, fields={"reason": woken.reason})
    if when is not W.STARTING:
        woken = await starts(store, woken)
    one = await store.change(woken, W.RUNNING)
    assert not one.moved
    assert min(one.seen["boot"], one.last_active_at_ms) > at
    assert await flow(store) == (1, 0, 0), "they were there before"


async def test_who_comes_as_what_moved_is_just_up_is_a_sign_of_life(store: RedisStore) -> None:
    """They saw it in the queue, and it ran when they asked for it."""
    one = await running(store)
    at = await minutes_ago(store, one)
    one = await arrives(store, await on_its_way(store, one))
    woken = await store.wake(one.id)
    assert (woken.status, woken.epoch, woken.moved) == (W.RUNNING, one.epoch, False)
    assert woken.seen["boot"] == woken.last_active_at_ms > at
    assert await store.not_seen_since(at, 10) == []
    with pytest.raises(Conflict, match="active"):  # its time was over, and a stop was decided on
        await store.change(one, W.STOPPING, unless_seen={"boot": one.seen["boot"]})
    at = await minutes_ago(store, woken)
    again = await store.wake(one.id)
    assert (again.seen["boot"], again.last_active_at_ms) == (at, at), "it is asked for already"


async def test_who_is_connected_as_it_moves_is_a_sign_of_life(store: RedisStore) -> None:
    one, signals = await running(store), RedisSignals(store.redis)
    at = await minutes_ago(store, one)
    await signals.flush("g-1", Flush(connections={"other": 1}))
    await signals.flush("g-2", Flush(connections={one.id: 1}))
    one = await arrives(store, await on_its_way(store, one))
    assert not one.moved
    assert min(one.seen["boot"], one.last_active_at_ms) > at


async def test_what_is_seen_on_the_way_counts(store: RedisStore) -> None:
    one, signals = await running(store), RedisSignals(store.redis)
    await minutes_ago(store, one)
    stopping = await store.change(one, W.STOPPING, fields=MOVE)
    now = await signals.flush("g", Flush(active={one.id: {"input": [1000, "s-1"]}}))
    one = await store.change(stopping, W.STOPPED, fields={"reason": stopping.reason})
    one = await starts(store, one)
    assert one.last_active_at_ms == one.seen["input"] == now.now_ms - 1000
    await store.touch(one.id, "api")
    one = await store.change(one, W.RUNNING)
    assert one.last_active_at_ms == one.seen["api"] > one.seen["input"]


@pytest.mark.parametrize("when", [W.STOPPING, W.QUEUED])
@pytest.mark.parametrize("told", ["flushed", "touched"])
async def test_what_is_seen_before_it_starts_again_counts(
    store: RedisStore, when: WorkspaceStatus, told: str
) -> None:
    one, signals = await running(store), RedisSignals(store.redis)
    at = await minutes_ago(store, one)
    one = await store.change(one, W.STOPPING, fields=MOVE)
    if when is W.QUEUED:
        one = await store.change(one, W.STOPPED, fields={"reason": one.reason})
    if told == "touched":
        assert await store.touch(one.id, "input", "s-1")
    else:
        await signals.flush("g", Flush(active={one.id: {"input": [0, "s-1"]}}))
        await signals.flush("g-2", Flush(active={one.id: {"input": [60_000, "s-2"]}}))
    if when is W.STOPPING:
        one = await store.change(one, W.STOPPED, fields={"reason": one.reason})
    assert await store.redis.zscore(keys.WORKSPACES, one.id) is None, "it holds no slot"
    one = await arrives(store, one)
    assert (one.moved, one.seen["boot"], one.sources["input"]) == (True, at, "s-1")
    assert one.last_active_at_ms == one.seen["input"] > at + 60_000


async def test_nothing_seen_keeps_what_stops_for_good_or_was_asked_for(store: RedisStore) -> None:
    one = await running(store)
    one = await store.stop(one.id, "asked")
    assert not await store.touch(one.id, "api")
    one = await store.wake(one.id)
    assert await store.touch(one.id, "api"), "it starts again"
    one = await store.change(one, W.STOPPED, fields={"reason": "asked"})
    assert not await store.touch(one.id, "api"), "its boot will count"


async def test_a_boot_that_a_move_cut_short_is_still_who_asked_for_it(store: RedisStore) -> None:
    one = await on_its_way(store, await starts(store, await queued(store)))
    assert not one.moved
    one = await running(store, "bob")
    await minutes_ago(store, one)
    twice = await starts(store, await on_its_way(store, one))
    twice = await on_its_way(store, twice)
    assert twice.moved, "nobody asked for the boot that was cut short"


async def test_what_stops_on_its_way_is_woken_as_ever(store: RedisStore) -> None:
    one = await running(store)
    at = await minutes_ago(store, one)
    one = await store.change(one, W.STOPPING, fields=MOVE)
    await store.stop(one.id, "asked")
    await store.change(one, W.STOPPED, fields={"reason": "asked"})
    one = await arrives(store, await store.wake(one.id))
    assert not one.moved
    assert one.seen["boot"] > at
    moved = await arrives(store, await on_its_way(store, one))
    moved = await store.change(moved, W.STOPPED, chain=(W.STOPPING,), fields={"reason": "idle"})
    assert not moved.moved


async def test_who_visits_while_it_stops_has_left_and_come(store: RedisStore) -> None:
    one = await running(store)
    await store.stop(one.id, "idle")
    await store.wake(one.id)
    await store.change(await store._require(one.id), W.STOPPED, fields={"reason": "idle"})
    assert await flow(store) == (2, 1, 0)


@pytest.mark.parametrize(("ms", "waited", "counted"), [(999, True, 0), (1000, True, 1), (5000, False, 0)])  # fmt: skip
async def test_who_waited_for_a_slot_is_counted(
    store: RedisStore, ms: int, waited: bool, counted: int
) -> None:
    machine = await ready_machine(store)
    one = await queued(store)
    # 200 ms for this test to come to the next line
    since = await store.now_ms() - (ms - 200 if ms < 1000 else ms)
    await store.redis.hset(keys.workspace(one.id), "statusSince", since)
    await store.change(one, W.STARTING, place=machine, waited=waited)
    assert (await flow(store))[2] == counted


async def test_new_machines_and_those_started_again_are_timed_apart(store: RedisStore) -> None:
    machine_id, fleet = await ready_machine(store), RedisFleet(store.redis)
    machine = await fleet.machine(machine_id)
    assert machine is not None
    for status in (MachineStatus.STOPPED, MachineStatus.LAUNCHING, MachineStatus.READY):
        await store.redis.hincrby(keys.machine(machine_id), "createdAt", -1)
        await fleet.change(machine, status)
        machine = replace(machine, status=status)
    census = await store.census(durations=True)
    assert (len(census.launches or ()), len(census.starts or ())) == (1, 1)
    assert (await store.census()).launches is None


async def test_a_move_is_called_off_by_a_session(store: RedisStore) -> None:
    one, signals = await running(store), RedisSignals(store.redis)
    await signals.flush("g", Flush(connections={one.id: 1}))
    with pytest.raises(Conflict, match="active"):
        await store.change(one, W.STOPPING, unless_connected=True)
    await signals.flush("g", Flush(connections={}))
    assert (await store.change(one, W.STOPPING, unless_connected=True)).left_at_ms


async def test_when_the_last_session_closed(store: RedisStore) -> None:
    one, signals = await running(store), RedisSignals(store.redis)
    await signals.flush("g", Flush(connections={one.id: 2, "ws-gone": 1}))
    await signals.flush("g", Flush(connections={one.id: 1}))
    assert (await store._require(one.id)).left_at_ms == 0, "one is open"
    await signals.leave("g")
    assert (await store._require(one.id)).left_at_ms
    assert not await store.redis.exists("workspace:ws-gone")


async def test_who_was_not_seen_of_late(store: RedisStore) -> None:
    one = await running(store)
    now = await store.now_ms()
    assert await store.not_seen_since(now + 1, 10) == [one.id]
    assert await store.not_seen_since(now - 60_000, 10) == []
