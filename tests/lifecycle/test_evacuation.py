"""Machines that are taken away: what lies there moves in time, or it is said that it did not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from redis.asyncio import Redis

from lifecycle import errands, moving, watching
from lifecycle.cloud_events import Kind
from lifecycle.evacuation import Evacuation
from lifecycle.model import Event, MachineStatus, Workspace, WorkspaceStatus
from lifecycle.snapshots import SnapshotError
from tests.lifecycle.agreement import Agreement
from tests.lifecycle.world import Leader, World

W, M = WorkspaceStatus, MachineStatus


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errands, "FIRST_PAUSE", 0.02)
    monkeypatch.setattr(errands, "LONGEST_PAUSE", 0.02)
    monkeypatch.setattr(watching, "UNREACHABLE_RETRY", 0.02)
    monkeypatch.setattr(watching, "STATUS_WAIT", 0.1)


@pytest.fixture
async def world(redis: Redis) -> AsyncIterator[World]:
    world = World(redis)
    yield world
    agreement = Agreement(redis)
    await agreement.check()
    await agreement.check_story()
    await world.close()


def hears(world: World, hurried: list[str] | None = None) -> Evacuation:
    """A gateway that hears of machines, whoever leads."""
    calls = hurried if hurried is not None else []
    return Evacuation(world.store, world.fleet, world.signals, lambda: calls.append("hurry"))


async def runs(world: World, leader: Leader, user: str = "ada") -> Workspace:
    one = await world.gets(leader, await world.wake(user), W.RUNNING)
    world.pool.disks[one.machine_id].of[one.id]["a.txt"] = f"{user}'s"
    return one


async def in_seconds(world: World, seconds: float) -> int:
    return await world.store.now_ms() + int(seconds * 1000)


async def told(world: World, kind: str) -> list[Event]:
    found = await world.signals.history("0-0", 100_000)
    return [event for event in found if event.type == kind]


async def deadline_passes(world: World, machine_id: str = "m-1") -> None:
    """As if the notice had come that much earlier."""
    now = await world.store.now_ms()
    await world.redis.hset(
        f"machine:{machine_id}", mapping={"doomedAt": now - 1, "statusSince": now - 120_000}
    )


def unreachable(world: World, failing: bool = True) -> None:
    error = SnapshotError("unreachable", "the bucket does not answer")
    world.pool.target.failing = error if failing else None


# In time


async def test_a_spot_notice_moves_what_runs_there_with_its_files(world: World) -> None:
    leader = world.leader()
    one = await runs(world, leader)
    until = await in_seconds(world, 120)
    await hears(world).notice(Kind.SPOT, "m-1", until, "spot interruption, to terminate it")
    assert (await world.machine()).status is M.DRAINING

    async def elsewhere() -> Workspace | None:
        found = await world.read(one)
        return found if found.status is W.RUNNING and found.machine_id == "m-2" else None

    moved = await world.until(leader, elsewhere)
    assert world.pool.files(one.id) == [{"a.txt": "ada's"}]
    assert (moved.epoch, moved.reason, moved.error) == (2, "", "")
    assert world.pool.most_running[one.id] == 1
    [moving_] = await told(world, "workspace.moving")
    assert moving_.data["workspace"] == one.id
    assert (moving_.data["machine"], moving_.data["until"]) == ("m-1", str(until))
    assert moving_.data["reason"].startswith("moving: its machine is taken away at ")

    async def removed() -> bool:
        return [m.id for m in await world.fleet.machines()] == ["m-2"]

    await world.until(leader, removed)
    await world.rounds(leader, 3)
    [evacuated] = await told(world, "machine.evacuated")
    assert evacuated.data["machine"] == "m-1"
    assert 0 <= float(evacuated.data["seconds"]) < 120
    assert await told(world, "workspace.move_failed") == []


async def test_its_time_can_be_over_when_it_is_up_again(world: World) -> None:
    leader = world.leader(idle_timeout=1000)
    one = await runs(world, leader)
    await world.later(500)
    unreachable(world)
    await hears(world).notice(Kind.SPOT, "m-1", await in_seconds(world, 120), "spot")
    await world.gets(leader, one, W.QUEUED)
    await world.later(500)
    unreachable(world, failing=False)
    moved = await world.gets(leader, one, W.RUNNING)
    assert moved.seen["boot"] < moved.running_since_ms - 900_000
    await world.look(leader)
    found = await world.read(one)
    assert (found.status, found.reason) == (W.STOPPING, "idle")


async def test_who_is_there_as_it_moves_is_not_stopped_as_it_is_up_again(world: World) -> None:
    leader = world.leader(idle_timeout=1000)
    one = await runs(world, leader)
    await world.later(690)
    await world.flush(connections={one.id: 1})
    unreachable(world)
    await hears(world).notice(Kind.SPOT, "m-1", await in_seconds(world, 120), "spot")
    await world.gets(leader, one, W.QUEUED)
    await world.later(320)
    unreachable(world, failing=False)
    moved = await world.gets(leader, one, W.RUNNING)
    assert not moved.moved
    await world.look(leader)
    assert (await world.read(one)).status is W.RUNNING, "nobody was warned of a stop"


async def test_the_page_is_told_why_from_the_stop_to_the_boot(world: World) -> None:
    leader = world.leader()
    one = await runs(world, leader)
    unreachable(world)  # so that it stays in the queue for a while
    await hears(world).notice(Kind.SPOT, "m-1", await in_seconds(world, 120), "spot")

    async def explained() -> bool:
        found = await world.read(one)
        return found.status is W.QUEUED and found.reason.startswith(moving.MOVING)

    await world.until(leader, explained)
    assert "terminate" not in [verb for verb, *_ in world.pool.calls]
    unreachable(world, failing=False)
    moved = await world.gets(leader, one, W.RUNNING)
    assert (moved.machine_id, moved.reason) == ("m-2", "")


async def test_one_that_starts_and_one_that_sleeps_move_as_well(world: World) -> None:
    leader = world.leader()
    asleep = await runs(world, leader, "bob")
    await world.store.stop(asleep.id, "asked")
    await world.gets(leader, asleep, W.STOPPED)
    world.pool.agents["m-1"].boots_by_themselves = False
    starting = await world.gets(leader, await world.wake("ada"), W.STARTING)
    await hears(world).notice(Kind.SPOT, "m-1", await in_seconds(world, 120), "spot")
    moved = await world.gets(leader, starting, W.RUNNING)
    assert moved.machine_id == "m-2"

    async def put_away() -> bool:
        return (await world.read(asleep)).machine_id == ""

    await world.until(leader, put_away)
    slept = await world.read(asleep)
    assert (slept.status, bool(slept.snapshot_id)) == (W.STOPPED, True)


async def test_those_with_open_sessions_are_stopped_first(world: World) -> None:
    leader = world.leader(slots=3)
    users = [await runs(world, leader, user) for user in ("ada", "bob", "carl")]
    await hears(world).notice(Kind.SPOT, "m-1", await in_seconds(world, 120), "spot")
    last = max(users, key=lambda w: w.id)
    await world.redis.hset("connections:g", last.id, 3)
    await world.flush()
    await leader.loops.work()
    order = [event.data["workspace"] for event in await told(world, "workspace.moving")]
    assert order[0] == last.id
    assert sorted(order) == sorted(w.id for w in users)


async def test_a_stop_that_was_asked_for_meanwhile_stays_one(world: World) -> None:
    leader = world.leader()
    one = await runs(world, leader)
    await hears(world).notice(Kind.SPOT, "m-1", await in_seconds(world, 120), "spot")
    world.pool.agents["m-1"].hung = True
    await leader.loops.work()
    assert (await world.read(one)).next == "start"
    await world.store.stop(one.id, "asked")
    world.pool.agents["m-1"].hung = False

    async def put_away() -> bool:
        found = await world.read(one)
        return found.status is W.STOPPED and found.machine_id == ""

    await world.until(leader, put_away)
    await world.rounds(leader, 5)
    assert (await world.read(one)).status is W.STOPPED


# Notices of other kinds


async def test_a_rebalance_recommendation_lets_people_work_on(world: World) -> None:
    leader = world.leader()
    one = await runs(world, leader)
    await hears(world).notice(Kind.REBALANCE, "m-1", 0, "rebalance recommendation")
    await world.rounds(leader)
    assert (await world.read(one)).status is W.RUNNING
    other = await runs(world, leader, "bob")
    assert other.machine_id == "m-2", "nothing new goes there"
    await world.store.stop(one.id, "asked")

    async def removed() -> bool:
        return (await world.machine("m-1")).status is M.TERMINATED

    await world.until(leader, removed)
    assert (await world.read(one)).snapshot_id


async def test_before_maintenance_it_moves_ten_minutes_ahead(world: World) -> None:
    leader = world.leader()
    one = await runs(world, leader)
    await hears(world).notice(Kind.MAINTENANCE, "m-1", await in_seconds(world, 1200), "reboot")
    await world.rounds(leader, 5)
    assert (await world.read(one)).status is W.RUNNING
    await world.redis.hset("machine:m-1", "doomedAt", await in_seconds(world, 599))
    moved = await world.gets(leader, one, W.STOPPING, W.QUEUED, W.STARTING)
    assert moved.epoch >= 1
    assert (await world.gets(leader, one, W.RUNNING)).machine_id == "m-2"


async def test_a_spot_notice_after_a_recommendation_counts(world: World) -> None:
    leader = world.leader()
    one = await runs(world, leader)
    gateway = hears(world)
    await gateway.notice(Kind.REBALANCE, "m-1", 0, "rebalance recommendation")
    until = await in_seconds(world, 120)
    await gateway.notice(Kind.SPOT, "m-1", until, "spot")
    await gateway.notice(Kind.REBALANCE, "m-1", 0, "rebalance recommendation")  # it came late
    await gateway.notice(Kind.SPOT, "m-1", until, "spot")  # and this one twice
    assert (await world.machine()).doomed_at_ms == until
    assert len(await told(world, "machine.draining")) == 1
    assert (await world.gets(leader, one, W.QUEUED)).id == one.id


async def test_what_the_pool_takes_by_itself_is_moved_at_once(world: World) -> None:
    leader = world.leader()
    one = await runs(world, leader)
    await hears(world).leaving(await world.machine(), "Terminating:Wait")
    assert (await world.machine()).reason == "Terminating:Wait"
    await world.gets(leader, one, W.STOPPING, W.QUEUED)
    assert (await world.gets(leader, one, W.RUNNING)).machine_id == "m-2"


@pytest.mark.parametrize(
    ("kind", "instance", "hurries"),
    [
        (Kind.CHANGED, "i-0a1b", True),
        (Kind.CHANGED, "i-else", False),
        (Kind.SCALED, "", True),
        (Kind.SCALED, "i-else", True),
        (Kind.SPOT, "i-else", False),
    ],
)
async def test_changes_wake_the_loops_and_do_nothing_else(
    world: World, kind: Kind, instance: str, hurries: bool
) -> None:
    leader = world.leader()
    await runs(world, leader)
    await world.fleet.observe("m-1", "i-0a1b", "")
    before, hurried = await world.events(), list[str]()
    await hears(world, hurried).notice(kind, instance, 1, "is terminated")
    assert bool(hurried) is hurries
    assert await world.events() == before
    assert (await world.machine()).doomed_at_ms == 0


async def test_a_machine_is_known_by_the_pools_name_for_it(world: World) -> None:
    await runs(world, world.leader())
    await world.fleet.observe("m-1", "arn:aws:ecs:eu-central-1:1:task/ides/0a1b", "")
    until = await in_seconds(world, 120)
    await hears(world).notice(Kind.SPOT, "0a1b", until, "spot")
    assert (await world.machine()).doomed_at_ms == until


async def test_one_doomed_before_it_was_ready_takes_nothing_and_goes(world: World) -> None:
    leader = world.leader()
    world.pool.slow_machines = True
    one = await world.wake()

    async def launching() -> bool:
        return bool(world.pool.disks)

    await world.until(leader, launching)
    await hears(world).notice(Kind.SPOT, "m-1", await in_seconds(world, 120), "spot")
    assert (await world.machine()).status is M.LAUNCHING
    world.pool.slow_machines = False
    world.pool.power_on(world.pool.launched["m-1"])
    assert (await world.gets(leader, one, W.RUNNING)).machine_id == "m-2"

    async def removed() -> bool:
        return (await world.machine("m-1")).status is M.TERMINATED

    await world.until(leader, removed)


# Not in time


async def test_files_that_did_not_get_away_are_said_to_be_lost(world: World) -> None:
    leader = world.leader()
    one = await runs(world, leader)
    unreachable(world)
    await hears(world).notice(Kind.SPOT, "m-1", await in_seconds(world, 120), "spot")
    await world.gets(leader, one, W.QUEUED)
    await deadline_passes(world)
    failed = await world.gets(leader, one, W.FAILED)
    assert failed.error_code == moving.LOST
    assert "There is no snapshot of it: its files are lost with that machine" in failed.error
    assert (await world.machine()).status is M.DRAINING, "nothing was removed"
    assert world.pool.files(one.id) == [{"a.txt": "ada's"}]
    await world.rounds(leader)
    [said] = await told(world, "workspace.move_failed")
    assert (said.data["workspace"], said.data["machine"]) == (one.id, "m-1")
    assert said.data["reason"] == failed.error
    assert await told(world, "machine.evacuated") == []

    # It stays longer than was said, and the bucket is back.
    unreachable(world, failing=False)

    async def saved() -> bool:
        return "all its files were saved" in (await world.read(one)).error

    await world.until(leader, saved)
    await world.wake()
    again = await world.gets(leader, one, W.RUNNING)
    assert (again.machine_id, world.pool.files(one.id)) == ("m-2", [{"a.txt": "ada's"}])


@pytest.mark.parametrize("asleep", [False, True])
async def test_a_machine_that_goes_before_its_time_takes_nothing_silently(
    world: World, asleep: bool
) -> None:
    leader = world.leader()
    one = await runs(world, leader)
    snapshot = await leader.loops._actions.snapshot(await world.read(one))
    world.pool.disks["m-1"].of[one.id]["a.txt"] = "newer than the snapshot"
    if asleep:
        await world.store.stop(one.id, "asked")
        await world.gets(leader, one, W.STOPPED)
    unreachable(world)
    await hears(world).notice(Kind.SPOT, "m-1", await in_seconds(world, 120), "spot")
    await world.rounds(leader, 3)
    world.pool.kill("m-1")
    del world.pool.disks["m-1"]

    async def explained() -> bool:
        return (await world.read(one)).error_code == moving.LOST

    await world.until(leader, explained)
    failed = await world.read(one)
    at = moving.clock(moving.snapshot_at(snapshot.snapshot_id))
    assert f"What was changed since its snapshot of {at} is lost" in failed.error
    assert len(await told(world, "workspace.move_failed")) == 1

    # Whoever starts it then knows what they get.
    unreachable(world, failing=False)
    await world.wake()
    again = await world.gets(leader, one, W.RUNNING)
    assert (again.machine_id, world.pool.files(one.id)) == ("m-2", [{"a.txt": "ada's"}])
    assert again.error == ""


async def test_the_next_leader_goes_on_and_tells_nothing_twice(world: World) -> None:
    first = world.leader()
    one = await runs(world, first)
    unreachable(world)
    await hears(world).notice(Kind.SPOT, "m-1", await in_seconds(world, 120), "spot")
    await world.gets(first, one, W.QUEUED)
    await first.rest()
    second = world.leader()
    await deadline_passes(world)
    await world.gets(second, one, W.FAILED)
    await second.rest()
    third = world.leader()
    await world.rounds(third, 5)
    assert len(await told(world, "workspace.move_failed")) == 1


async def test_a_leader_that_died_before_it_told_is_made_up_for(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = world.leader()
    one = await runs(world, first)
    unreachable(world)
    await hears(world).notice(Kind.SPOT, "m-1", await in_seconds(world, 120), "spot")
    await world.gets(first, one, W.QUEUED)
    await deadline_passes(world)
    note = type(world.store).note

    async def dies(*args: Any) -> bool:
        if args[2] == "workspace.move_failed":
            raise RuntimeError("killed")
        return await note(*args)

    with monkeypatch.context() as patch:
        patch.setattr(type(world.store), "note", dies)
        with pytest.raises(RuntimeError):
            await first.loops.work()
    assert (await world.read(one)).status is W.FAILED
    await first.rest()
    await world.rounds(world.leader(), 5)
    assert len(await told(world, "workspace.move_failed")) == 1
    assert (await world.read(one)).error_code == moving.LOST


async def test_nothing_is_given_up_that_is_only_late_to_be_heard_of(world: World) -> None:
    """The queue was held up: the notice comes after the deadline, and the machine is still there."""
    leader = world.leader()
    one = await runs(world, leader)
    await world.later(600)
    await hears(world).notice(Kind.SPOT, "m-1", await in_seconds(world, -60), "spot")
    assert (await world.gets(leader, one, W.QUEUED)).error == ""
    moved = await world.gets(leader, one, W.RUNNING)
    assert (moved.machine_id, world.pool.files(one.id)) == ("m-2", [{"a.txt": "ada's"}])
    assert await told(world, "workspace.move_failed") == []


async def test_the_grace_of_a_stop_is_short_when_time_is(world: World) -> None:
    leader = world.leader()
    one = await runs(world, leader)
    graces: list[float] = []
    stop = leader.loops._actions._agents.stop

    async def counted(machine: Any, workspace_id: str, epoch: int, grace: float) -> Any:
        graces.append(grace)
        return await stop(machine, workspace_id, epoch, grace)

    leader.loops._actions._agents.stop = counted  # type: ignore[method-assign]
    leader.loops._actions._plan = replace(leader.loops._actions._plan, stop_grace=10)
    await hears(world).notice(Kind.SPOT, "m-1", await in_seconds(world, 60), "spot")
    await world.gets(leader, one, W.RUNNING, W.QUEUED)
    await world.until(leader, lambda: _true(graces))
    assert 0 < graces[0] <= 6
    assert (await world.gets(leader, one, W.RUNNING)).machine_id == "m-2"


async def _true(value: object) -> object:
    return value
