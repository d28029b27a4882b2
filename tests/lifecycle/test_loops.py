"""The loops over a real Valkey and fake machines. Time is put forward in Redis; nothing sleeps to wait."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from redis.asyncio import Redis

from lifecycle import errands, loops, machines, sizing, watching
from lifecycle.agent.contract import WorkspaceReport
from lifecycle.model import MachineStatus, Workspace, WorkspaceStatus
from lifecycle.pace import Census
from lifecycle.pools import Launch, NoCapacity, Observed, PoolError, Traits
from lifecycle.snapshots import SnapshotError
from lifecycle.stores import StoreUnavailable, keys
from lifecycle.stores.connection import connect
from lifecycle.stores.metered import RedisUsage
from lifecycle.stores.signals import Flush
from tests.conftest import start_valkey
from tests.lifecycle.world import Leader, World

W, M = WorkspaceStatus, MachineStatus
Until = Callable[..., Awaitable[object]]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errands, "FIRST_PAUSE", 0.05)
    monkeypatch.setattr(watching, "UNREACHABLE_RETRY", 0.02)
    monkeypatch.setattr(watching, "STATUS_WAIT", 0.1)


@pytest.fixture
async def world(redis: Redis) -> AsyncIterator[World]:
    world = World(redis)
    yield world
    await world.close()


async def runs(world: World, leader: Leader, user: str = "ada") -> Workspace:
    return await world.gets(leader, await world.wake(user), W.RUNNING)


async def sleeps(world: World, leader: Leader, user: str = "ada") -> Workspace:
    one = await runs(world, leader, user)
    world.pool.disks[one.machine_id].of[one.id]["a.txt"] = f"{user}'s"
    await world.store.stop(one.id, "asked")
    return await world.gets(leader, one, W.STOPPED)


# A life


async def test_a_whole_life(world: World) -> None:
    leader = world.leader()
    one = await world.wake()
    assert one.status is W.QUEUED

    one = await world.gets(leader, one, W.RUNNING)
    assert (one.machine_id, one.epoch, one.address) == ("m-1", 1, "10.0.0.1:9001")
    world.pool.disks["m-1"].of[one.id]["a.txt"] = "mine"

    await world.later(59.5)
    await leader.loops.sweeps.look()
    assert (await world.read(one)).status is W.RUNNING
    await world.later(1)
    await leader.loops.sweeps.look()
    one = await world.gets(leader, one, W.STOPPED)
    assert (one.reason, world.pool.where(one.id)) == ("idle", [])

    await world.wake()
    one = await world.gets(leader, one, W.RUNNING)
    assert (one.epoch, world.pool.files(one.id)) == (2, [{"a.txt": "mine"}])
    await world.store.stop(one.id, "asked")
    one = await world.gets(leader, one, W.STOPPED)

    await world.later(599)
    await leader.loops.sweeps.look()
    assert (await world.read(one)).status is W.STOPPED
    await world.later(2)
    await leader.loops.sweeps.look()
    one = await world.gets(leader, one, W.TERMINATED)
    assert one.machine_id == ""
    await world.until(leader, lambda: _true(world.pool.files(one.id) == []))

    await world.wake()
    one = await world.gets(leader, one, W.RUNNING)
    assert (one.epoch, world.pool.files(one.id)) == (3, [{"a.txt": "mine"}])
    metered = await RedisUsage(world.redis).usage("ada")
    assert [row[1] for row in metered if row[4] == "running"] == [1, 2]
    run = ["queued", "starting", "running"]
    stop = ["stopping", "stopped"]
    story = ["created", *run, *stop, *run, *stop, "terminating", "snapshotted", "terminated", *run]
    assert await world.events("workspace.") == [f"workspace.{word}" for word in story]


async def test_activity_keeps_it_alive(world: World) -> None:
    leader = world.leader()
    one = await runs(world, leader)
    for _ in range(3):
        await world.later(50)
        await world.flush(active={one.id: {"input": [0, "browser"]}})
        await leader.loops.sweeps.look()
    assert (await world.read(one)).status is W.RUNNING


async def test_led_by_the_news_the_same_life_goes_by_itself(world: World, until: Until) -> None:
    leader = world.leader(idle_timeout=0.3, retention=0.3)
    await world.flush()
    one = await world.wake()
    async with leader.leading():
        await until(lambda: world.pool.where(one.id))
        world.pool.agents["m-1"].disk.of[one.id]["a.txt"] = "mine"

        async def terminated() -> bool:
            await world.flush()
            return (await world.read(one)).status is W.TERMINATED

        await until(terminated)
        await world.wake()
        await until(lambda: world.pool.where(one.id))
        assert world.pool.files(one.id) == [{"a.txt": "mine"}]


# What people do in between


async def test_a_stop_while_it_starts(world: World) -> None:
    leader = world.leader()
    world.pool.on_boot = lambda agent: setattr(agent, "boots_by_themselves", False)
    one = await world.gets(leader, await world.wake(), W.STARTING)
    await world.until(leader, lambda: _true(world.pool.calls))
    await world.store.stop(one.id, "asked")
    one = await world.gets(leader, one, W.STOPPED)
    assert world.pool.agents["m-1"].rows[one.id].status == "stopped"
    assert "workspace.running" not in await world.events()


async def _true(value: object) -> object:
    return value


async def test_a_stop_before_the_start_reached_the_machine(world: World) -> None:
    """The start comes late and finds itself over."""
    leader, late, go = world.leader(), asyncio.Event(), asyncio.Event()

    async def slow_start(when: str, call: tuple[str, str, str]) -> None:
        if (when, call[0]) == ("before", "start"):
            late.set()
            await go.wait()

    world.pool.gate = slow_start
    one = await world.gets(leader, await world.wake(), W.STARTING)
    await late.wait()
    await world.store.stop(one.id, "asked")
    await world.rounds(leader, 5)
    go.set()
    await world.gets(leader, one, W.STOPPED)
    await world.rounds(leader)
    assert world.pool.where(one.id) == []
    assert (await world.read(one)).status is W.STOPPED


async def test_a_visit_while_it_stops(world: World) -> None:
    leader = world.leader()
    one = await runs(world, leader)
    await world.store.stop(one.id, "asked")
    await world.wake()
    one = await world.gets(leader, one, W.RUNNING)
    assert (one.epoch, one.next) == (2, "")


async def test_deleting_what_runs(world: World) -> None:
    leader = world.leader()
    one = await runs(world, leader)
    world.pool.disks["m-1"].of[one.id]["a.txt"] = "mine"
    await world.store.terminate(one.id, "deleted")
    one = await world.gets(leader, one, W.TERMINATED)
    assert world.pool.target.kept[one.id, one.snapshot_id][1] == {"a.txt": "mine"}
    assert world.pool.files(one.id) == []


async def test_a_visit_while_it_is_terminated(world: World) -> None:
    leader = world.leader()
    one = await sleeps(world, leader)
    await world.store.terminate(one.id, "deleted")
    await world.wake()
    one = await world.gets(leader, one, W.RUNNING)
    assert world.pool.files(one.id) == [{"a.txt": "ada's"}]


# What goes wrong


async def test_a_snapshot_that_fails_ends_nothing_and_is_tried_at_the_next_sweep(
    world: World,
) -> None:
    leader = world.leader()
    one = await sleeps(world, leader)
    await world.later(700)
    since = (await world.read(one)).status_since_ms
    world.pool.target.failing = SnapshotError("disk_full", "no room left on device")
    await leader.loops.sweeps.look()
    one = await world.gets(leader, one, W.STOPPED)
    assert (one.error_code, one.status_since_ms) == ("snapshot_disk_full", since)
    assert world.pool.files(one.id) == [{"a.txt": "ada's"}]
    world.pool.target.failing = None
    await leader.loops.sweeps.look()
    one = await world.gets(leader, one, W.TERMINATED)
    assert one.error_code == ""


async def test_a_boot_that_fails_says_why_and_can_be_tried_again(world: World) -> None:
    leader = world.leader()
    world.pool.on_boot = lambda agent: setattr(agent, "boots_by_themselves", False)
    one = await world.gets(leader, await world.wake(), W.STARTING)
    await world.until(leader, lambda: _true(one.id in world.pool.agents["m-1"].rows))
    world.pool.agents["m-1"].fail(one.id, "command_not_found")
    one = await world.gets(leader, one, W.FAILED)
    assert (one.error_code, one.machine_id) == ("command_not_found", "m-1")
    world.pool.agents["m-1"].boots_by_themselves = True
    assert (await runs(world, leader)).epoch == 2


async def test_a_crash_is_shown(world: World) -> None:
    leader = world.leader()
    one = await runs(world, leader)
    world.pool.agents["m-1"].fail(one.id)
    assert (await world.gets(leader, one, W.FAILED)).error_code == "crashed"
    assert await world.redis.smembers(keys.machine_slots("m-1")) == set()


async def test_a_lost_machine_fails_its_workspaces_and_comes_back_with_their_files(
    world: World,
) -> None:
    leader = world.leader()
    one = await runs(world, leader)
    other = await sleeps(world, leader, "bob")
    world.pool.disks["m-1"].of[one.id]["a.txt"] = "mine"
    world.pool.kill("m-1")
    one = await world.gets(leader, one, W.FAILED)
    assert one.error_code == "machine_lost"
    assert (await world.read(other)).status is W.STOPPED
    await world.wake("ada")
    one = await world.gets(leader, one, W.RUNNING)
    assert (one.machine_id, world.pool.files(one.id)) == ("m-1", [{"a.txt": "mine"}])
    await world.wake("bob")
    other = await world.gets(leader, other, W.RUNNING)
    assert world.pool.files(other.id) == [{"a.txt": "bob's"}]
    assert "machine.lost" in await world.events()


async def test_a_machine_whose_disk_went_too_gives_back_the_last_snapshot(world: World) -> None:
    leader = world.leader()
    one = await sleeps(world, leader)
    await leader.loops._actions.snapshot(one)
    await runs(world, leader)
    await world.pool.terminate("m-1")
    await world.gets(leader, one, W.FAILED)
    one = await runs(world, leader)
    assert (one.machine_id, world.pool.files(one.id)) == ("m-2", [{"a.txt": "ada's"}])
    assert [m.id for m in await world.fleet.machines()] == ["m-2"]


async def test_a_leader_that_died_between_losing_a_machine_and_failing_its_workspaces(
    world: World,
) -> None:
    leader = world.leader()
    one = await runs(world, leader)
    await world.pool.terminate("m-1")
    await world.fleet.change(await world.machine(), M.LOST, reason="it is gone")
    assert (await world.gets(world.leader(), one, W.FAILED)).error_code == "machine_lost"

    async def gone() -> bool:
        return await world.fleet.machines() == []

    await world.until(world.leader(), gone)
    assert (await world.read(one)).machine_id == ""


async def test_an_agent_that_does_not_answer_stops_and_fails_nothing(world: World) -> None:
    leader = world.leader()
    one = await runs(world, leader)
    world.pool.agents["m-1"].hung = True
    await world.rounds(leader)
    assert (await world.read(one)).status is W.RUNNING
    await world.later(3600)
    await _unheard_for(world, "m-1", 3600)
    await world.flush()
    await world.look(leader)
    assert (await world.read(one)).status is W.RUNNING, "unknown is never idle"
    assert (await world.machine()).status is M.READY

    world.pool.agents["m-1"].hung = False
    await world.rounds(leader)
    await world.look(leader)
    await world.gets(leader, one, W.STOPPED)


async def _unheard_for(world: World, machine: str, seconds: float) -> None:
    await world.redis.zincrby(keys.MACHINES, -seconds * 1000, machine)


async def test_a_boot_that_nobody_hears_of_fails_in_the_end(world: World) -> None:
    leader = world.leader()
    world.pool.on_boot = lambda agent: setattr(agent, "boots_by_themselves", False)
    one = await world.gets(leader, await world.wake(), W.STARTING)
    await world.rounds(leader)
    await world.later(239)
    await world.rounds(leader, 3)
    assert (await world.read(one)).status is W.STARTING
    await world.later(2)
    assert (await world.gets(leader, one, W.FAILED)).error_code == "boot_timeout"
    agent = world.pool.agents["m-1"]
    await world.until(leader, lambda: _true(agent.rows[one.id].status == "stopped"))


async def test_after_a_night_without_gateways_boots_are_heard_before_they_are_judged(
    world: World,
) -> None:
    first = world.leader()
    world.pool.on_boot = lambda agent: setattr(agent, "boots_by_themselves", False)
    one = await world.gets(first, await world.wake(), W.STARTING)
    await world.until(first, lambda: _true(one.id in world.pool.agents["m-1"].rows))
    await first.rest()
    world.pool.agents["m-1"].ready(one.id)
    await world.later(8 * 3600)
    await world.redis.incrby(keys.LAST, -8 * 3600 * 1000)
    world.pool.agents["m-1"].hung = True  # it is slow to answer the new leader
    second = world.leader()
    await second.tick()
    world.pool.agents["m-1"].hung = False
    await world.gets(second, one, W.RUNNING)
    assert "workspace.failed" not in await world.events()


async def test_while_redis_is_away_nothing_happens_and_then_it_goes_on(
    tmp_path: Path, until: Until
) -> None:
    process, url = await asyncio.to_thread(start_valkey, tmp_path)
    redis = connect(url)
    world = World(redis)
    leader = world.leader()
    try:
        one = await runs(world, leader)
        await redis.save()
        calls = list(world.pool.calls)
        async with leader.leading() as task:
            process.terminate()
            await asyncio.to_thread(process.wait, 10)
            for tick in (
                leader.loops.machines.tend, leader.loops.work, leader.loops.sweeps.look,
                leader.loops.sweeps.sessions,
            ):  # fmt: skip
                with pytest.raises(StoreUnavailable):
                    await tick()
            assert not task.done()
            assert world.pool.calls == calls
            assert world.pool.where(one.id) == ["m-1"]
            process, _ = await asyncio.to_thread(start_valkey, tmp_path)
            assert (await world.read(one)).status is W.RUNNING
            await world.wake("bob")
            await until(lambda: len(world.pool.everywhere()) == 2)
    finally:
        await world.close()
        await redis.aclose()
        process.terminate()
        await asyncio.to_thread(process.wait, 10)


async def test_the_first_sweep_after_an_outage_waits_for_a_whole_window(world: World) -> None:
    leader = world.leader()
    one = await runs(world, leader)
    await world.flush(sessions={f"{one.id}/g-1": 0})
    # Redis was away for two minutes. Its first visitor is the sweep.
    await world.later(120)
    await world.redis.incrby(keys.LAST, -120_000)
    await leader.loops.sweeps.look()
    await leader.loops.sweeps.sessions()
    await world.flush()
    await leader.loops.sweeps.look()
    await leader.loops.sweeps.sessions()
    assert (await world.read(one)).status is W.RUNNING
    assert await world.redis.zcard(keys.SESSIONS) == 1
    # Thirty seconds of heartbeats later the session is known to be dead, in sixty the rest.
    await world.later(31)
    await leader.loops.sweeps.sessions()
    assert await world.redis.zcard(keys.SESSIONS) == 0
    await leader.loops.sweeps.look()
    assert (await world.read(one)).status is W.RUNNING
    await world.later(30)
    await world.rounds(leader)  # its machine reports
    await leader.loops.sweeps.look()
    assert (await world.read(one)).status is not W.RUNNING


async def test_a_silent_gateways_sessions_count_until_its_last_word(world: World) -> None:
    leader = world.leader()
    one = await runs(world, leader)
    await world.signals.flush("other", Flush(connections={one.id: 1}))
    await world.later(100)
    await world.redis.zincrby(keys.GATEWAYS, -50_000, "other")
    await world.look(leader)
    assert (await world.read(one)).status is W.RUNNING
    await world.redis.zincrby(keys.GATEWAYS, -11_000, "other")
    await world.look(leader)
    assert (await world.read(one)).status is W.STOPPING


async def test_a_gateway_that_never_came_back_is_forgotten(world: World) -> None:
    leader = world.leader()
    await world.signals.flush("gone", Flush(connections={"w1": 1}))
    await world.redis.zincrby(keys.GATEWAYS, -3_590_000, "gone")
    await leader.loops.sweeps.sessions()
    assert "gone" in await world.signals.gateways()
    await world.redis.zincrby(keys.GATEWAYS, -11_000, "gone")
    await leader.loops.sweeps.sessions()
    assert "gone" not in await world.signals.gateways()


async def test_a_clock_that_jumps_is_noticed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    leader = world.leader()
    await world.flush()
    before = await world.signals.trusted_since_ms()
    await leader.loops.sweeps.clock()
    await leader.loops.sweeps.clock()
    assert await world.signals.trusted_since_ms() == before
    real = world.store.now_ms
    for jump in (3_600_000, 0):  # forward, and back again

        async def jumped(by: int = jump) -> int:
            return await real() + by

        await world.redis.set(keys.SINCE, 5)
        monkeypatch.setattr(world.store, "now_ms", jumped)
        await leader.loops.sweeps.clock()
        assert (await world.signals.trusted_since_ms() or 0) > 5


# Machines


async def test_machines_come_with_the_users_and_go_after_them(world: World) -> None:
    leader = world.leader()
    people = [await runs(world, leader, user) for user in ("a", "b", "c")]
    assert [m.id for m in await world.fleet.machines()] == ["m-1", "m-2"]
    await world.store.stop(people[2].id, "asked")
    await world.gets(leader, people[2], W.STOPPED)
    await world.later(119)
    await world.rounds(leader, 3)
    assert len(await world.fleet.machines()) == 2
    await world.later(2)

    async def one_left() -> bool:
        # Its record goes a moment before the pool is done with it.
        left = [m.id for m in await world.fleet.machines()]
        return left == sorted(world.pool.disks) == ["m-1"]

    await world.until(leader, one_left)
    assert [(await world.read(w)).status for w in people] == [W.RUNNING, W.RUNNING, W.STOPPED]
    decision = await world.fleet.pool_decision()
    assert (decision["users"], decision["want"], decision["have"]) == (2, 1, 1)


async def test_a_drain_moves_the_files_before_the_machine_goes(world: World) -> None:
    leader = world.leader()
    one = await sleeps(world, leader)
    await world.later(121)

    async def gone() -> bool:
        # Its record may go a moment before the pool is done with it.
        return await world.fleet.machines() == [] and world.pool.disks == {}

    await world.until(leader, gone)
    order = [verb for verb, *_ in world.pool.calls if verb in ("snapshot", "remove")]
    assert order == ["snapshot", "remove"]
    one = await world.read(one)
    assert (one.status, one.machine_id) == (W.STOPPED, "")
    await world.wake()
    one = await world.gets(leader, one, W.RUNNING)
    assert world.pool.files(one.id) == [{"a.txt": "ada's"}]


async def test_a_machine_whose_files_cannot_be_saved_is_not_given_back(world: World) -> None:
    leader = world.leader()
    one = await sleeps(world, leader)
    world.pool.target.failing = SnapshotError("too_large", "more than fits")
    await world.later(121)
    await world.rounds(leader, 30)
    assert (await world.machine()).status is M.DRAINING
    assert world.pool.files(one.id) == [{"a.txt": "ada's"}]
    # and whoever comes back meanwhile does not wait for that snapshot's next try
    assert (await runs(world, leader)).machine_id == "m-1"


async def sleeps_where_files_cannot_leave(world: World, leader: Leader) -> Workspace:
    """On m-2, while m-1 has room for it."""
    stays, goes = [await runs(world, leader, user) for user in ("a", "b")]
    one = await sleeps(world, leader)
    await world.store.stop(goes.id, "asked")
    await world.gets(leader, goes, W.STOPPED)
    assert (stays.machine_id, one.machine_id) == ("m-1", "m-2")
    world.pool.target.failing = SnapshotError("too_large", "more than fits")
    return one


async def test_who_comes_back_to_files_that_cannot_leave_goes_where_they_are(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    leader = world.leader()
    one = await sleeps_where_files_cannot_leave(world, leader)
    await world.fleet.change(await world.machine("m-2"), M.DRAINING)
    await world.wake()
    await world.rounds(leader, 5)
    assert (await world.read(one)).status is W.QUEUED, "its files may still come"
    monkeypatch.setattr(loops, "STUCK", -1.0)
    assert (await world.gets(leader, one, W.RUNNING)).machine_id == "m-2"
    assert (await world.machine("m-2")).reason == f"the files of {one.id} cannot leave it"


async def test_what_an_operator_drains_does_not_work_on_for_files_that_cannot_leave(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    leader = world.leader()
    one = await sleeps_where_files_cannot_leave(world, leader)
    await world.fleet.hold("m-2", True)
    await world.wake()
    monkeypatch.setattr(loops, "STUCK", -1.0)
    await world.rounds(leader, 10)
    assert (await world.machine("m-2")).status is M.DRAINING
    assert (await world.read(one)).status is W.QUEUED


async def test_a_machine_with_a_running_workspace_is_never_drained(world: World) -> None:
    leader = world.leader()
    people = [await runs(world, leader, user) for user in ("a", "b", "c", "d")]
    for one in (people[0], people[2]):  # one of each machine
        await world.store.stop(one.id, "asked")
        await world.gets(leader, one, W.STOPPED)
    await world.later(3600)
    await world.flush(active={people[n].id: {"input": [0, "browser"]} for n in (1, 3)})
    await world.rounds(leader)
    decision = await world.fleet.pool_decision()
    assert (decision["want"], decision["have"], decision["drain"]) == (1, 2, [])
    assert [m.status for m in await world.fleet.machines()] == [M.READY, M.READY]


async def test_a_drain_is_called_off_for_the_next_user(world: World) -> None:
    leader = world.leader()
    await sleeps(world, leader)
    await world.fleet.change(await world.machine(), M.DRAINING)
    await runs(world, leader, "bob")
    assert [m.id for m in await world.fleet.machines()] == ["m-1"]


async def test_a_removal_under_way_cannot_be_called_off_under_the_next_user(world: World) -> None:
    """Invariant: a machine with a live session is never removed. The pool takes its time."""
    leader, begun, go = world.leader(), asyncio.Event(), asyncio.Event()

    async def slow(when: str, call: tuple[str, str, str]) -> None:
        if (when, call[0]) == ("before", "terminate"):
            begun.set()
            await go.wait()

    one = await sleeps(world, leader)
    world.pool.gate = slow
    await world.later(121)
    await world.until(leader, lambda: _true(begun.is_set()))
    one = await runs(world, leader)
    assert one.machine_id != "m-1"
    go.set()
    await world.until(leader, lambda: _true(sorted(world.pool.disks) == [one.machine_id]))
    assert world.pool.where(one.id) == [one.machine_id]


async def test_a_removal_that_was_cut_short_is_finished_by_the_next_leader(world: World) -> None:
    first = world.leader()
    one = await sleeps(world, first)
    await world.store.terminate(one.id, "deleted")
    await world.gets(first, one, W.TERMINATED)
    await first.rest()
    machine = await world.machine()
    await world.fleet.change(machine, M.DRAINING)
    await world.fleet.change(await world.machine(), M.TERMINATED)
    assert list(world.pool.disks) == ["m-1"]
    await world.until(world.leader(), lambda: _true(not world.pool.disks))


async def test_what_was_given_up_as_gone_and_is_not_keeps_its_disk(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a start with another fleet's name, or in another region."""
    leader = world.leader()
    one = await sleeps(world, leader)

    async def elsewhere() -> list[Observed]:
        return []

    async def given_up() -> bool:
        return (await world.machine()).status is M.TERMINATED

    with monkeypatch.context() as patched:
        patched.setattr(world.pool, "describe", elsewhere)
        await world.until(leader, given_up)
    await world.rounds(leader, 5)
    assert one.id in world.pool.disks["m-1"].of


async def test_a_machine_that_cannot_be_spoken_to_is_left_alone(world: World) -> None:
    first = world.leader()
    one = await sleeps(world, first)
    await first.rest()
    await world.redis.flushall()
    del world.pool.launched["m-1"]  # nobody knows its token any more
    again = await world.wake()
    assert again.id == one.id
    leader = world.leader()
    again = await world.gets(leader, again, W.RUNNING)
    assert again.machine_id == "m-2", "a number of its own, not the unknown machine's"
    assert world.pool.disks["m-1"].of[one.id] == {"a.txt": "ada's"}
    await world.store.stop(again.id, "asked")
    await world.gets(leader, again, W.STOPPED)
    await world.later(121)
    await world.until(leader, lambda: _true(list(world.pool.disks) == ["m-1"]))


async def test_a_full_home_sends_the_files_to_another_machine(world: World) -> None:
    leader = world.leader()
    one = await sleeps(world, leader, "ada")
    for user in ("bob", "carl"):
        assert (await runs(world, leader, user)).machine_id == "m-1"
    one = await runs(world, leader, "ada")
    assert one.machine_id == "m-2"
    assert world.pool.files(one.id) == [{"a.txt": "ada's"}]


async def test_a_stopped_machine_is_started_for_the_files_on_it(world: World) -> None:
    """The gateway was stopped in order and started again."""
    first = world.leader()
    one = await sleeps(world, first)
    await first.rest()
    world.pool.kill("m-1")
    await world.fleet.change(await world.machine(), M.STOPPED, reason="gateway stopped")
    leader = world.leader()
    await world.rounds(leader, 5)
    assert (await world.machine()).status is M.STOPPED, "nobody needs it"
    one = await runs(world, leader)
    assert (one.machine_id, world.pool.files(one.id)) == ("m-1", [{"a.txt": "ada's"}])
    assert (await world.machine()).address == world.pool.agents["m-1"].address


async def test_a_launch_that_never_comes_up_is_replaced(world: World) -> None:
    leader = world.leader()
    world.pool.slow_machines = True
    one = await world.wake()
    await world.rounds(leader, 3)
    assert [m.id for m in await world.fleet.machines()] == ["m-1"]
    await world.later(61)
    world.pool.slow_machines = False
    del world.pool.disks["m-1"]
    assert (await world.gets(leader, one, W.RUNNING)).machine_id == "m-2"


async def test_a_launch_whose_answer_was_lost_is_found_not_repeated(world: World) -> None:
    leader = world.leader()
    one = await world.wake()

    async def lost(when: str, call: tuple[str, str, str]) -> None:
        if (when, call[0]) == ("after", "launch"):
            world.pool.gate = None
            raise ConnectionResetError("the answer was lost")

    world.pool.gate = lost
    await world.flush()
    assert (await world.gets(leader, one, W.RUNNING)).machine_id == "m-1"
    assert list(world.pool.disks) == ["m-1"]


async def test_no_capacity_leaves_people_in_the_queue(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sizing, "NO_CAPACITY_PAUSE", 0.1)
    leader = world.leader()
    world.pool.refuses = NoCapacity("none left in this zone")
    one = await world.wake()
    await world.rounds(leader)
    assert (await world.read(one)).status is W.QUEUED
    world.pool.refuses = None
    await world.later(61)
    await world.gets(leader, one, W.RUNNING)


async def test_a_dedicated_machine_stops_with_its_workspace_and_resumes_in_place(
    world: World,
) -> None:
    leader = world.leader(slots=1)
    one = await world.wake()
    first = await world.gets(leader, one, W.RUNNING)
    world.pool.disks["m-1"].of[one.id]["notes"] = "mine"
    world.pool.slow_stops = True
    await world.store.stop(one.id, "idle")
    await world.gets(leader, one, W.STOPPED)

    async def parked() -> bool:
        return (await world.machine()).status is M.STOPPED and "m-1" in world.pool.stopping

    await world.until(leader, parked)
    await world.store.wake(one.id)

    async def told() -> bool:
        return (await world.read(one)).step == "machine-stopping"

    await world.until(leader, told)
    assert (await world.read(one)).status is W.QUEUED
    other = await world.wake("ben")
    elsewhere = await world.gets(leader, other, W.RUNNING)
    assert elsewhere.machine_id == "m-2", "a dedicated machine takes nobody else"
    world.pool.stopping.clear()
    again = await world.gets(leader, one, W.RUNNING)
    assert (again.machine_id, again.epoch) == ("m-1", first.epoch + 1)
    assert world.pool.disks["m-1"].of[one.id]["notes"] == "mine"
    assert not world.pool.target.kept, "no snapshot was needed"


async def test_a_stop_that_snapshots_frees_the_machine_of_the_files(world: World) -> None:
    leader = world.leader(snapshot_on_stop=True)
    one = await world.wake()
    await world.gets(leader, one, W.RUNNING)
    world.pool.disks["m-1"].of[one.id]["notes"] = "mine"
    await world.store.stop(one.id, "idle")

    async def freed() -> bool:
        found = await world.read(one)
        return found.status is W.STOPPED and not found.machine_id

    await world.until(leader, freed)
    assert one.id not in world.pool.disks["m-1"].of
    await world.store.wake(one.id)
    back = await world.gets(leader, one, W.RUNNING)
    assert world.pool.disks[back.machine_id].of[one.id]["notes"] == "mine"


async def test_machines_that_hold_workspaces_are_protected(world: World) -> None:
    leader = world.leader()
    one = await world.wake()
    await world.gets(leader, one, W.RUNNING)
    await world.rounds(leader)
    assert world.pool.protected == {"m-1"}
    await world.store.stop(one.id, "idle")
    await world.gets(leader, one, W.STOPPED)
    await world.rounds(leader)
    assert world.pool.protected == {"m-1"}, "its files are there, and nowhere else"


async def test_what_was_certainly_not_launched_frees_its_place_and_is_told(world: World) -> None:
    leader = world.leader(max_machines=1)
    world.pool.refuses = NoCapacity("no capacity for m7i.large in eu-1a", ["m-1"])
    await world.wake()

    async def told() -> bool:
        gone = (await world.machine()).status is M.TERMINATED
        return gone and "m7i.large" in await world.signals.last_notice()

    await world.until(leader, told)


async def test_a_record_whose_machine_was_lost_with_it_fails(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machines, "HOMELESS", 0.0)
    leader = world.leader()
    one = await world.wake()
    await world.gets(leader, one, W.RUNNING)
    await world.pool.terminate("m-1")
    await world.redis.srem("machines", "m-1")
    await world.redis.delete("machine:m-1")
    failed = await world.gets(leader, one, W.FAILED)
    assert failed.error_code == "machine_lost"


async def test_one_turn_of_every_loop_is_enough_to_boot(world: World) -> None:
    """As a scheduled function does: nothing goes on between two turns."""
    one = await world.wake()
    for _ in range(3):
        leader = world.leader()
        await world.flush()
        await leader.loops.once()
    assert (await world.read(one)).status is W.RUNNING


# Reports


async def test_a_stale_report_never_fails_a_newer_boot(world: World) -> None:
    leader = world.leader()
    old = await runs(world, leader)
    await world.store.stop(old.id, "asked")
    await world.gets(leader, old, W.STOPPED)
    new = await runs(world, leader)
    machine = await world.machine()
    agent = world.pool.agents["m-1"]
    for rows in (
        (),
        (WorkspaceReport(old.id, 1, "failed"),),
        (WorkspaceReport(old.id, 1, "stopped"),),
    ):
        stale = replace(agent.report(), workspaces=rows)
        await leader.loops.machines._watching._take(machine, [old], stale)
    assert await world.read(new) == new
    assert world.pool.where(new.id) == ["m-1"]


async def test_a_workspace_that_runs_where_it_should_not_is_stopped_there(world: World) -> None:
    leader = world.leader()
    one = await runs(world, leader)
    await runs(world, leader, "bob")
    await runs(world, leader, "carl")
    other = world.pool.agents["m-2"]
    other.change(WorkspaceReport(one.id, 1, "running"))
    other.disk.newest[one.id] = 1
    await world.until(leader, lambda: _true(world.pool.where(one.id) == ["m-1"]))
    assert (await world.read(one)).status is W.RUNNING


async def test_a_workspace_of_which_redis_knows_nothing_goes_on(world: World) -> None:
    leader = world.leader()
    await runs(world, leader)
    world.pool.agents["m-1"].change(WorkspaceReport("unknown", 4, "running"))
    await world.rounds(leader)
    assert world.pool.where("unknown") == ["m-1"]


async def test_a_machine_that_knows_more_than_redis_boots_beyond_that(world: World) -> None:
    """Redis lost its last second: the machine has seen epoch 5, the record says 1."""
    leader = world.leader()
    one = await sleeps(world, leader)
    agent = world.pool.agents["m-1"]
    agent.disk.newest[one.id] = 5
    agent.change(WorkspaceReport(one.id, 5, "stopped"))
    await world.rounds(leader)
    assert (await runs(world, leader)).epoch == 6


async def test_a_boot_that_is_newer_than_the_records_is_noticed_without_waiting(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The report that tells of it comes while the loop still holds the records from before it; nothing
    changes on the machine after that, so the next report would be long in coming."""
    leader = world.leader()
    await runs(world, leader)
    await leader.rest()
    monkeypatch.setattr(watching, "STATUS_WAIT", 60)
    leader = world.leader()
    await world.rounds(leader)  # it is in its long poll now, with records that do not know bob
    await world.wake("bob")
    await world.rounds(leader)
    assert [w.status for w in await world.store.list("bob")] == [W.RUNNING]


# Redis loses everything


async def test_running_workspaces_go_on_after_redis_lost_everything(world: World) -> None:
    leader = world.leader()
    one, sleeper = await runs(world, leader), await sleeps(world, leader, "bob")
    ran = world.pool.agents["m-1"].rows[one.id]
    before = [call for call in world.pool.calls if call[0] in ("start", "stop")]
    await world.redis.flushall()
    back = await world.wake()  # somebody comes back before anybody noticed
    assert (back.status, back.epoch) == (W.QUEUED, 0)
    back = await world.gets(leader, back, W.RUNNING)
    assert (back.epoch, back.machine_id, back.address) == (1, "m-1", one.address)
    assert back.secret == one.secret
    await world.rounds(leader)
    assert [call for call in world.pool.calls if call[0] in ("start", "stop")] == before
    assert world.pool.agents["m-1"].rows[one.id] == ran
    assert (await world.read(sleeper)).status is W.STOPPED
    woken = await runs(world, leader, "bob")
    assert (woken.epoch, world.pool.files(woken.id)) == (2, [{"a.txt": "bob's"}])
    assert list(world.pool.disks) == ["m-1"]
    assert (await world.events("machine."))[:2] == ["machine.adopted", "machine.ready"]


async def test_two_leaders_rebuild_as_one(world: World) -> None:
    first, second = world.leader(), world.leader()
    one = await runs(world, first)
    await world.redis.flushall()
    await world.wake()
    for _ in range(15):
        await asyncio.gather(first.tick(), second.tick())
        await asyncio.sleep(0.01)
    assert (await world.read(one)).epoch == 1
    assert world.pool.most_running[one.id] == 1
    told = await world.events("machine.", "workspace.adopted")
    assert told == ["machine.adopted", "workspace.adopted", "machine.ready"]


async def test_machines_that_are_down_are_asked_what_lies_on_them(world: World) -> None:
    leader = world.leader()
    one = await sleeps(world, leader)
    world.pool.kill("m-1")
    await world.redis.flushall()
    again = world.leader()
    await world.wake()
    one = await world.gets(again, one, W.RUNNING)
    assert (one.epoch, one.machine_id) == (2, "m-1")
    assert world.pool.files(one.id) == [{"a.txt": "ada's"}]


async def test_nothing_boots_before_every_machine_was_heard(world: World) -> None:
    leader = world.leader()
    ada = await runs(world, leader)
    for user in ("bob", "carl"):  # two slots a machine: the last one is on the second
        other = await runs(world, leader, user)
    assert (ada.machine_id, other.machine_id) == ("m-1", "m-2")
    world.pool.agents["m-1"].hung = True
    await world.redis.flushall()
    back = await world.wake()
    await world.rounds(leader)
    assert (await world.machine("m-2")).status is M.READY
    assert (await world.read(back)).status is W.QUEUED, "it may run where nobody answers"
    world.pool.agents["m-1"].hung = False
    back = await world.gets(leader, back, W.RUNNING)
    assert (back.epoch, back.machine_id) == (1, "m-1")
    assert world.pool.most_running[back.id] == 1


async def test_a_machine_that_stays_silent_does_not_hold_the_queue_for_ever(world: World) -> None:
    leader = world.leader()
    await runs(world, leader)
    world.pool.agents["m-1"].hung = True
    await world.redis.flushall()
    dora = await world.wake("dora")
    await world.rounds(leader)
    assert (await world.read(dora)).status is W.QUEUED
    assert list(world.pool.disks) == ["m-1"]
    await world.later(61)
    assert (await world.gets(leader, dora, W.RUNNING)).machine_id == "m-2"


async def test_a_terminated_one_comes_back_from_its_snapshot(world: World) -> None:
    leader = world.leader()
    one = await sleeps(world, leader)
    await world.store.terminate(one.id, "retention")
    await world.gets(leader, one, W.TERMINATED)
    await world.redis.flushall()
    back = await runs(world, leader)
    assert (back.epoch, world.pool.files(back.id)) == (2, [{"a.txt": "ada's"}])


async def test_without_knowing_of_snapshots_nothing_is_booted(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    leader = world.leader()

    def away(workspace_id: str) -> list[str]:
        raise SnapshotError("unreachable", "the bucket does not answer")

    with monkeypatch.context() as patch:
        patch.setattr(world.pool.target, "list", away)
        one = await world.gets(leader, await world.wake(), W.FAILED)
        assert (one.error_code, one.epoch) == ("snapshot_unreachable", 0)
        assert "the bucket does not answer" in one.error
    assert (await runs(world, leader)).epoch == 1


async def test_records_lost_while_the_pool_is_looked_at_launch_nothing(world: World) -> None:
    leader = world.leader(warm_slots=1)
    one = await runs(world, leader)
    ask = world.store.census

    async def lost_just_then(durations: bool = False) -> Census:
        await world.redis.flushall()
        return await ask(durations)

    world.store.census = lost_just_then  # type: ignore[method-assign]
    await leader.loops.machines.tend()
    world.store.census = ask  # type: ignore[method-assign]
    assert await world.fleet.machines() == []
    back = await world.gets(leader, await world.wake(), W.RUNNING)
    assert (back.epoch, back.machine_id) == (1, one.machine_id)
    assert list(world.pool.disks) == ["m-1"]


async def test_what_nobody_has_heard_of_yet_stays_protected(world: World) -> None:
    """Redis lost its data: whoever is on its machines is not known before they have told."""
    leader = world.leader()
    one = await world.wake()
    await world.gets(leader, one, W.RUNNING)
    world.pool.agents["m-1"].up = False  # it tells nothing for now
    await world.redis.flushall()
    await world.leader().loops.machines.tend()
    assert world.pool.protected == {"m-1"}


async def test_one_incomplete_list_takes_nobodys_disk(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.pool.traits = Traits(lag=120)
    leader = world.leader(slots=1)
    one = await world.wake()
    await world.gets(leader, one, W.RUNNING)
    await world.store.stop(one.id, "idle")
    await world.gets(leader, one, W.STOPPED)

    async def parked() -> bool:
        return (await world.machine()).status is M.STOPPED

    await world.until(leader, parked)
    await world.later(3600)
    real = world.pool.describe

    async def nothing() -> list[Observed]:
        return []

    for describe in (nothing, real, real, real):
        monkeypatch.setattr(world.pool, "describe", describe)
        await world.rounds(leader, 3)
    assert (await world.machine()).status is M.STOPPED
    assert one.id in world.pool.disks["m-1"].of


async def test_boots_go_on_under_a_new_leader_while_the_pool_does_not_answer(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = world.leader(warm_slots=1)
    one = await world.wake()
    await world.gets(first, one, W.RUNNING)
    await first.rest()

    async def away() -> list[Observed]:
        raise PoolError("cannot list the machines: nobody answers")

    monkeypatch.setattr(world.pool, "describe", away)
    second = world.leader(warm_slots=1)
    other = await world.wake("bob")

    async def runs() -> bool:
        return (await world.read(other)).status is W.RUNNING

    waiting = await world.wake("cy")  # m-1 has two slots
    deadline = asyncio.get_running_loop().time() + 10
    while not await runs() or not await world.signals.last_notice():
        assert asyncio.get_running_loop().time() < deadline
        with contextlib.suppress(PoolError):
            await second.loops.machines.tend()
        await second.loops.work()
        await asyncio.sleep(0.01)
    assert (await world.read(waiting)).status is W.QUEUED
    assert "does not answer" in await world.signals.last_notice()


async def test_launches_that_were_not_seen_are_told_again_in_one_call(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    async def launch(launches: Sequence[Launch]) -> list[str]:
        asked.append(len(launches))
        raise PoolError("RequestLimitExceeded")

    monkeypatch.setattr(world.pool, "launch", launch)
    await world.fleet.intend("fake", 2, 50, 50)
    await world.later(30)
    leader = world.leader(max_machines=50)
    await world.rounds(leader)
    assert asked == [50], "one call, and a pause after it"
    assert "no new machine yet" in await world.signals.last_notice()


async def test_so_many_boot_at_once_and_all_of_them_in_turn(world: World) -> None:
    leader = world.leader(max_starting=1)
    for user in ("ada", "bob", "cy"):
        await world.wake(user)
    most = 0

    async def all_run() -> bool:
        nonlocal most
        counts = await world.store.counts()
        most = max(most, counts["starting"])
        return counts["running"] == 3

    await world.until(leader, all_run)
    assert most == 1
