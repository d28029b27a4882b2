"""Where people are active, and that who comes goes there: over a real Valkey."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from lifecycle import presence
from lifecycle.idleness import idle_ms
from lifecycle.model import MachineStatus, WorkspaceStatus
from lifecycle.presence import Presence
from lifecycle.stores import keys
from tests.lifecycle.fakes import machine
from tests.lifecycle.world import World

W = WorkspaceStatus


@pytest.fixture
async def world(redis: Redis) -> AsyncIterator[World]:
    world = World(redis)
    yield world
    await world.close()


def test_the_newest_sign_of_life_counts_and_a_recent_one_is_use() -> None:
    assert idle_ms([100_000, 300_000], 400_000) == 100_000
    assert idle_ms([100_000, 340_000], 400_000) == 0
    assert idle_ms([], 400_000) == 0, "of a machine nothing is known"


async def test_only_machines_with_people_and_room_are_looked_up(world: World) -> None:
    now = await world.store.now_ms()
    on = {"m-1": ["a", "b"], "m-2": ["c"], "m-3": ["gone"], "m-4": ["d"]}
    seen = {"a": now - 700_000, "b": now - 200_000, "c": now - 1_000, "d": now - 900_000}
    await world.redis.zadd(keys.WORKSPACES, seen)
    asked: list[str] = []

    def reported(machine_id: str) -> list[str]:
        asked.append(machine_id)
        return on[machine_id]

    shared = [machine(each, occupied=2) for each in ("m-1", "m-2", "m-3")]
    others = [
        machine("m-4", occupied=5),
        machine("m-5"),
        machine("m-6", MachineStatus.DRAINING, occupied=1),
    ]
    idle = await Presence(world.store, reported).idle_ms([*shared, *others])
    assert asked == ["m-1", "m-2", "m-3"]
    assert (idle["m-2"], idle["m-3"]) == (0, 0)
    assert 200_000 <= idle["m-1"] < 230_000


async def test_what_is_known_is_asked_again_after_a_moment_only(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = await world.store.now_ms()
    await world.redis.zadd(keys.WORKSPACES, {"a": now - 200_000, "b": now - 300_000})
    found = Presence(world.store, lambda each: {"m-1": ["a"], "m-2": ["b"]}[each])
    two = [machine("m-1", occupied=1), machine("m-2", occupied=1)]
    monkeypatch.setattr(presence, "LOOK_EVERY", 3600.0)
    before = await found.idle_ms(two)
    await world.redis.zadd(keys.WORKSPACES, {"a": now})
    assert await found.idle_ms(two) == before
    found.placed("m-2")
    assert await found.idle_ms(two) == before | {"m-2": 0}
    monkeypatch.setattr(presence, "LOOK_EVERY", 0.0)
    assert (await found.idle_ms(two))["m-1"] == 0


async def test_with_one_machine_to_choose_nothing_is_asked(world: World) -> None:
    def unasked(machine_id: str) -> list[str]:
        raise AssertionError(f"{machine_id} was looked up")

    one = [machine("m-1", occupied=1), machine("m-2")]
    assert await Presence(world.store, unasked).idle_ms(one) == {}


@pytest.mark.parametrize(("active", "taken"), [(0, "m-1"), (1, "m-2")])
async def test_who_comes_goes_where_somebody_is_active(
    world: World, active: int, taken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presence, "LOOK_EVERY", 0.0)  # time passes in Redis alone
    leader = world.leader(slots=3, scale_in_delay=1000.0, idle_timeout=1000.0)
    two = await world.two_half_empty(leader)
    await world.later(200)
    await world.store.touch(two[active].id, "input")
    found = await world.gets(leader, await world.wake("new"), W.RUNNING)
    assert found.machine_id == taken


async def test_nothing_is_kept_of_machines_that_are_not_shared(world: World) -> None:
    found = Presence(world.store, lambda each: ["a"])
    for number in range(5):
        found.placed(f"m-{number}")
        await found.idle_ms([machine(f"m-{number}", slots=1, occupied=1)])
    assert found._known == {}
