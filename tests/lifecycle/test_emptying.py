"""Two half-empty machines become one, and nobody who is there notices."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from lifecycle import emptying, loops
from lifecycle.actions import Actions
from lifecycle.defragment import cannot_leave, movable, went_back
from lifecycle.emptying import EMPTIED
from lifecycle.model import MachineStatus, Workspace, WorkspaceStatus
from lifecycle.snapshots import SnapshotError
from lifecycle.stores import keys
from tests.lifecycle.fakes import workspace
from tests.lifecycle.world import Leader, World

W, M = WorkspaceStatus, MachineStatus

SPREAD = {"slots": 3, "scale_in_delay": 0.0, "move_after": 60.0}


@pytest.fixture
async def world(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(emptying, "EVERY", 0.0)
    world = World(redis)
    yield world
    await world.close()


async def spread(world: World) -> tuple[Leader, Workspace, Workspace]:
    """Two machines with one workspace each, both left long ago. The younger machine is the one to go: who stays,
    who moves."""
    busy = world.leader(slots=3, scale_in_delay=1000.0)
    first, last = await world.two_half_empty(busy)
    for each in (first, last):
        await world.store.touch(each.id, "input")
    await world.flush()
    await world.later(200)
    return world.leader(**SPREAD), first, last


async def alone(world: World) -> bool:
    await world.flush()
    return [m.id for m in await world.fleet.machines()] == ["m-1"]


async def test_two_half_empty_machines_become_one(world: World) -> None:
    leader, stays, moves = await spread(world)
    world.pool.agents["m-2"].disk.of[moves.id]["a.txt"] = "mine"
    came = (await world.store.census()).flow
    await world.until(leader, lambda: alone(world))
    moved = await world.gets(leader, moves, W.RUNNING)
    assert (moved.machine_id, moved.epoch) == ("m-1", moves.epoch + 1)
    assert world.pool.files(moves.id) == [{"a.txt": "mine"}]
    assert (await world.read(stays)).epoch == stays.epoch, "who stays is not disturbed"
    assert "workspace.moving" in await world.events()
    since = (await world.store.census()).flow.since(came)
    assert (since.arrivals, since.departures) == (0, 0), "nobody came and nobody left"


async def arrived(world: World) -> tuple[Leader, Workspace]:
    """One that was moved, seen last 200 s ago, of the 1000 s that it may be idle."""
    _, _, moves = await spread(world)
    leader = world.leader(**SPREAD, idle_timeout=1000.0)
    await world.until(leader, lambda: alone(world))
    moved = await world.gets(leader, moves, W.RUNNING)
    assert (moved.machine_id, moved.moved) == ("m-1", True)
    return leader, moved


async def may_move(world: World, leader: Leader) -> list[str]:
    """Who was seen longest ago first."""
    now_ms, looks = await world.flush(), leader.loops.machines._emptying
    sessions = await looks._sessions(now_ms)
    assert sessions is not None
    return list(await looks._quiet(sessions, now_ms))


async def stops_after(world: World, leader: Leader, one: Workspace, seconds: float) -> bool:
    await world.later(seconds)
    await world.rounds(leader, 1)
    await world.look(leader)
    return (await world.read(one)).status is not W.RUNNING


async def test_what_moved_stops_when_it_would_have_without(world: World) -> None:
    leader, moved = await arrived(world)
    assert not await stops_after(world, leader, moved, 700), "900 s"
    assert await stops_after(world, leader, moved, 100), "1000 s"
    assert (await world.read(moved)).reason == "idle"


async def test_who_comes_back_to_what_moved_has_all_their_time(world: World) -> None:
    leader, moved = await arrived(world)
    await world.flush(active={moved.id: {"input": [0, "browser"]}})
    assert not await stops_after(world, leader, moved, 900)
    assert await stops_after(world, leader, moved, 100)


async def test_what_moved_may_move_again_after_as_long(world: World) -> None:
    leader, moved = await arrived(world)
    await world.later(50)
    assert moved.id not in await may_move(world, leader), "it moved less than 60 s ago"
    await world.later(50)
    assert moved.id in await may_move(world, leader)


@pytest.mark.parametrize("at_most", [1, 1000])
async def test_who_moved_does_not_keep_the_others_from_it(
    world: World, monkeypatch: pytest.MonkeyPatch, at_most: int
) -> None:
    """They were seen longest ago of all."""
    leader, moved = await arrived(world)
    [other] = [w for w in await world.store.list(status={W.RUNNING}) if w.id != moved.id]
    await world.redis.zincrby(keys.WORKSPACES, 1000, other.id)
    monkeypatch.setattr(emptying, "QUIET_MAX", at_most)
    assert await world.store.not_seen_since(await world.store.now_ms(), 9) == [moved.id, other.id]
    assert await may_move(world, leader) == [other.id]


async def test_what_was_begun_goes_on_however_many_may_move(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    leader, stays, moves = await spread(world)
    await world.redis.zincrby(keys.WORKSPACES, -1, stays.id)
    monkeypatch.setattr(emptying, "QUIET_MAX", 1)
    assert await may_move(world, leader) == [stays.id]
    came_up = await world.events("machine.ready")
    await world.fleet.change(await world.machine("m-2"), M.DRAINING, reason=EMPTIED)
    await world.until(leader, lambda: alone(world))
    assert (await world.gets(leader, moves, W.RUNNING)).machine_id == "m-1"
    assert await world.events("machine.ready") == came_up, "it was not called back"


async def test_who_is_connected_stays_where_they_are(world: World) -> None:
    leader, first, last = await spread(world)
    await world.flush(connections={first.id: 1, last.id: 1})
    await world.rounds(leader)
    assert {(await world.read(each)).epoch for each in (first, last)} == {1}
    await world.flush(connections={last.id: 1})
    await world.rounds(leader)
    assert (await world.read(first)).epoch == 1, "they left a moment ago"
    assert (await world.read(first)).left_at_ms


async def test_a_job_stays_where_it_works(world: World) -> None:
    leader, first, last = await spread(world)
    for each in (first, last):
        await world.store.job(each, "python train.py")
    await world.rounds(leader)
    assert {(await world.read(each)).epoch for each in (first, last)} == {1}


async def test_who_comes_back_just_before_it_moves_stays(world: World) -> None:
    leader, _, back = await spread(world)
    change = world.fleet.change

    async def comes_back(machine, to, **more):  # type: ignore[no-untyped-def]
        await change(machine, to, **more)
        if to is M.DRAINING:
            await world.flush(connections={back.id: 1})

    world.fleet.change = comes_back  # type: ignore[method-assign]
    machines = await world.fleet.machines()
    await leader.loops.machines._emptying.tick(1, machines, await world.store.now_ms())
    one, machine = await world.read(back), await world.machine("m-2")
    assert (one.status, one.epoch, machine.status) == (W.RUNNING, 1, M.READY)
    assert machine.reason == "somebody came back to it"


async def test_the_next_leader_goes_on_with_what_was_begun(world: World) -> None:
    leader, _, moves = await spread(world)
    await world.fleet.change(await world.machine("m-2"), M.DRAINING, reason=EMPTIED)
    await world.until(leader, lambda: alone(world))
    assert (await world.gets(leader, moves, W.RUNNING)).machine_id == "m-1"


async def test_files_that_cannot_leave_are_gone_back_to(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, _, moves = await spread(world)
    leader = world.leader(**(SPREAD | {"scale_in_delay": 30.0}))

    async def fails(*_: object) -> None:
        raise SnapshotError("too_large", "its files are more than --snapshot-max-bytes")

    monkeypatch.setattr(Actions, "snapshot", fails)

    async def waits() -> bool:
        await world.flush()
        return (await world.read(moves)).status is W.QUEUED

    await world.until(leader, waits)
    await world.rounds(leader)
    assert (await world.machine("m-2")).status is M.DRAINING
    monkeypatch.setattr(loops, "STUCK", -1.0)
    back = await world.gets(leader, moves, W.RUNNING)
    assert (back.machine_id, back.epoch) == ("m-2", moves.epoch + 1)
    assert (await world.machine("m-2")).reason == f"the files of {moves.id} cannot leave it"
    await world.later(200)
    await world.rounds(leader)
    assert (await world.read(moves)).epoch == back.epoch, "not again before somebody was there"


async def test_files_of_a_sleeper_that_cannot_leave_do_not_keep_others_from_moving(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who ran on m-3 has left it, what sleeps there cannot; then m-2 is to go as well."""
    busy = world.leader(slots=4, scale_in_delay=1000.0)
    people = [await world.gets(busy, await world.wake(f"user{n}"), W.RUNNING) for n in range(12)]
    awake = people[::4]
    assert [each.machine_id for each in awake] == ["m-1", "m-2", "m-3"]
    for each in people:
        if each not in awake:
            await world.store.stop(each.id, "asked")
            await world.gets(busy, each, W.STOPPED)
    failing = people[11].id
    detach = Actions.detach

    async def fails(self: Actions, one: Workspace) -> None:
        if one.id == failing:
            raise SnapshotError("too_large", "more than fits")
        await detach(self, one)

    monkeypatch.setattr(Actions, "detach", fails)
    for each in awake:
        await world.store.touch(each.id, "input")
    await world.flush()
    await world.later(200)
    for each in awake[:2]:
        await world.store.touch(each.id, "input")
    leader = world.leader(slots=4, scale_in_delay=0.0, move_after=60.0)

    async def left(**occupied: int) -> bool:
        await world.flush()
        found = {m.id.replace("-", ""): m.occupied for m in await world.fleet.machines()}
        return found == occupied

    await world.until(leader, lambda: left(m1=2, m2=1, m3=0))
    await world.later(200)
    await world.until(leader, lambda: left(m1=3, m3=0))


async def test_nothing_moves_while_nobody_knows_who_is_there(world: World) -> None:
    leader, first, _ = await spread(world)
    await world.redis.set(keys.SINCE, await world.store.now_ms())
    await world.rounds(leader)
    assert (await world.read(first)).epoch == 1


def test_who_went_back_to_their_files() -> None:
    one, reason = workspace("ws-1", moved=True), cannot_leave("ws-1")
    assert went_back(one, reason)
    assert not went_back(one, ""), "it moved"
    assert not went_back(one, cannot_leave("ws-2")), "others did"
    assert not went_back(workspace("ws-1", moved=False), reason), "somebody was there since"


def test_what_may_move() -> None:
    at = {"before_ms": 1000, "now_ms": 2000}
    quiet = workspace(running_since_ms=10, seen={"boot": 10, "input": 900}, left_at_ms=950)
    assert movable(quiet, 0, **at)
    assert not movable(quiet, 1, **at)
    moved = workspace(running_since_ms=990, seen={"boot": 10, "input": 5}, left_at_ms=5, moved=True)
    assert movable(moved, 0, **at), "nobody has come back to it"
    for fields in (
        {"seen": {"boot": 10, "input": 1001}},
        {"seen": {"boot": 10, "frames": 900, "job": 1500}},
        {"left_at_ms": 1001},
        {"last_active_at_ms": 1500},
        {"job": "make"},
        {"pinned": True},
        {"extend_until_ms": 2001},
        {"status": W.STARTING},
        {"seen": {"boot": 5, "input": 5}, "running_since_ms": 1001},
    ):
        other = workspace(**({"running_since_ms": 10, "seen": {"boot": 10, "input": 900}} | fields))
        assert not movable(other, 0, **at), fields
