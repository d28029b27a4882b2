"""A leader may die between any two steps, and two may lead at once. People notice neither.

A step is a script in Redis, a call of the pool or a call of an agent. A leader that is killed takes no
further step; of the one it dies at, either nothing happens or everything but its answer. Three people go
through their days meanwhile; at no moment may a workspace run on two machines, and in the end everybody
has what they asked for, with their files.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextvars import ContextVar
from typing import Any

import pytest
from redis.asyncio import Redis

from lifecycle import errands, watching
from lifecycle.model import Workspace, WorkspaceStatus
from lifecycle.stores.connection import Scripts
from tests.lifecycle.agreement import Agreement
from tests.lifecycle.world import World, ended

W = WorkspaceStatus
LEADING: ContextVar[str] = ContextVar("LEADING", default="")


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errands, "FIRST_PAUSE", 0.02)
    monkeypatch.setattr(watching, "UNREACHABLE_RETRY", 0.02)
    monkeypatch.setattr(watching, "STATUS_WAIT", 0.1)


@pytest.fixture
async def world(redis: Redis) -> AsyncIterator[World]:
    world = World(redis)
    yield world
    await world.close()


class Mortal:
    """Ends the leader called "first" at its step number `at`; odd: before the step, even: after it."""

    def __init__(self, at: int) -> None:
        self.at, self.steps = at, 0
        self.dead = asyncio.Event()

    async def step(self, do: Callable[[], Awaitable[Any]]) -> Any:
        if LEADING.get() != "first":
            return await do()
        if not self.dead.is_set():
            self.steps += 1
            if self.steps != self.at:
                return await do()
            self.dead.set()
            if self.at % 2 == 0:
                await do()
        await asyncio.Event().wait()  # until the test buries it
        raise AssertionError("unreachable")

    def watch(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        run = Scripts.run

        async def stepped(self_: Scripts, script: str, *args: Any) -> Any:
            return await self.step(lambda: run(self_, script, *args))

        async def gate(when: str, call: tuple[str, str, str]) -> None:
            await self.step(lambda: asyncio.sleep(0))

        monkeypatch.setattr(Scripts, "run", stepped)
        world.pool.gate = gate


class Person:
    def __init__(self, world: World, user: str) -> None:
        self.world, self.user = world, user
        self.one: Workspace

    async def sees(self, *status: WorkspaceStatus, epoch: int = 0) -> Workspace:
        for _ in range(1500):
            self.one = await self.world.read(self.one)
            if self.one.status in status and self.one.epoch >= epoch:
                return self.one
            await asyncio.sleep(0.01)
        machines = await self.world.fleet.machines()
        raise AssertionError(f"{self.user} waits for {status}: {self.one}, {machines}")

    async def visits(self) -> Workspace:
        self.one = await self.world.wake(self.user)
        return await self.sees(W.RUNNING)

    @property
    def files(self) -> dict[str, str]:
        return self.world.pool.disks[self.one.machine_id].of[self.one.id]


async def ada(world: World) -> Person:
    """Works, goes home, is away past the retention, comes back to her files."""
    me = Person(world, "ada")
    await me.visits()
    me.files["a.txt"] = "mine"
    await world.store.stop(me.one.id, "asked")
    await me.sees(W.STOPPED)
    await world.store.terminate(me.one.id, "retention")
    await me.sees(W.TERMINATED)
    await me.visits()
    assert me.files == {"a.txt": "mine"}
    return me


async def bob(world: World) -> Person:
    """Cannot decide."""
    me = Person(world, "bob")
    await me.visits()
    me.files["b.txt"] = "mine"
    await world.store.stop(me.one.id, "asked")
    me.one = await world.wake("bob")
    await me.sees(W.RUNNING, epoch=2)
    assert me.files == {"b.txt": "mine"}
    return me


async def carl(world: World) -> Person:
    """Comes, goes at once, and deletes everything."""
    me = Person(world, "carl")
    me.one = await world.wake("carl")
    await world.store.stop(me.one.id, "asked")
    await me.sees(W.STOPPED)
    await world.wake("carl")
    await me.sees(W.STARTING, W.RUNNING)
    await world.store.terminate(me.one.id, "deleted")
    await me.sees(W.TERMINATED)
    return me


async def beat(world: World) -> None:
    while True:
        await world.flush()
        await asyncio.sleep(0.2)


@contextlib.asynccontextmanager
async def leads(world: World, name: str) -> AsyncIterator[None]:
    # A launch that is written down and never made is given up after launch_timeout.
    leader = world.leader(scale_interval=0.03, launch_timeout=0.3)
    token = LEADING.set(name)
    async with leader.leading():
        LEADING.reset(token)
        yield


async def days(world: World) -> None:
    everybody = await asyncio.gather(ada(world), bob(world), carl(world))
    assert max(world.pool.most_running.values()) == 1, "a workspace ran on two machines"
    for me in everybody:
        me.one = await world.read(me.one)
        running = [me.one.machine_id] if me.one.status is W.RUNNING else []
        assert world.pool.where(me.one.id) == running
    agreement = Agreement(world.redis)
    await agreement.check()
    await agreement.check_story()


@pytest.mark.parametrize("at", range(1, 51))
async def test_a_leader_dies_at_any_step(
    world: World, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    mortal = Mortal(at)
    mortal.watch(world, monkeypatch)
    beating = asyncio.create_task(beat(world))
    try:
        people = asyncio.create_task(days(world))
        async with leads(world, "first"):
            dead = asyncio.create_task(mortal.dead.wait())
            await asyncio.wait([dead, people], return_when=asyncio.FIRST_COMPLETED)
            await ended(dead)  # type: ignore[arg-type]
        assert mortal.dead.is_set(), f"it only took {mortal.steps} steps"
        async with leads(world, "second"):
            await people
    finally:
        await ended(people)
        await ended(beating)


@pytest.mark.parametrize("turn", range(4))
async def test_two_lead_at_once(world: World, turn: int) -> None:
    beating = asyncio.create_task(beat(world))
    try:
        async with leads(world, "one"), leads(world, "other"):
            for _ in range(turn):
                await asyncio.sleep(0)
            await days(world)
    finally:
        await ended(beating)


async def test_a_paused_leader_goes_on_beside_the_next(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It holds a decision of long ago and carries it out: every effect of it is refused."""
    awake = asyncio.Event()
    paused: list[str] = []

    async def gate(when: str, call: tuple[str, str, str]) -> None:
        if LEADING.get() == "first" and when == "before" and call[0] in ("start", "stop"):
            paused.append(call[0])
            await awake.wait()

    world.pool.gate = gate
    beating = asyncio.create_task(beat(world))
    try:
        async with leads(world, "first"):
            me = Person(world, "ada")
            me.one = await world.wake("ada")
            await me.sees(W.STARTING)
            async with leads(world, "second"):
                await me.sees(W.RUNNING)
                await world.store.stop(me.one.id, "asked")
                await me.sees(W.STOPPED)
                newer = await me.visits()
                assert paused
                awake.set()
                for _ in range(50):
                    await asyncio.sleep(0.01)
                    assert await world.read(newer) == newer
                assert world.pool.where(newer.id) == [newer.machine_id]
        assert world.pool.most_running[me.one.id] == 1
    finally:
        await ended(beating)
