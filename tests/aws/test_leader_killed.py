"""A leader of a fleet on EC2 dies before or after any call that changes something; the next one goes on.

EC2 is moto's, over the network, with the real pool. What runs on each instance is a fake agent that joins,
reports and goes down with it. Reading changes nothing: to die after a look is to die before the next call.
One person has a dedicated machine, with everything that happens to it: launched, booted, stopped, parked,
started again, snapshot, terminated, launched anew.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextvars import ContextVar
from typing import Any

import pytest
from redis.asyncio import Redis

from lifecycle import errands, watching
from lifecycle.model import MachineStatus, Workspace, WorkspaceStatus
from lifecycle.pools.ec2_calls import Ec2Calls
from lifecycle.stores.connection import Scripts
from tests.aws.world import Cloud
from tests.conftest import until
from tests.lifecycle.agreement import Agreement
from tests.lifecycle.world import ended

W, M = WorkspaceStatus, MachineStatus
LEADING: ContextVar[str] = ContextVar("LEADING", default="")


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errands, "FIRST_PAUSE", 0.02)
    monkeypatch.setattr(watching, "UNREACHABLE_RETRY", 0.02)
    monkeypatch.setattr(watching, "STATUS_WAIT", 0.1)


class Mortal:
    """Ends the leader called "first" at its step number `at`; odd: before a call, even: after it."""

    def __init__(self, at: int) -> None:
        self.at, self.steps = at, 0
        self.dead = asyncio.Event()
        self.story: list[str] = []

    async def step(self, what: str) -> None:
        if LEADING.get() != "first":
            return
        if not self.dead.is_set():
            self.steps += 1
            self.story.append(what)
            if self.steps != self.at:
                return
            self.dead.set()
        await asyncio.Event().wait()  # until the test buries it

    def watch(self, world: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
        run, ask = Scripts.run, Ec2Calls.ask

        async def dead_or(self_: Scripts, script: str, *args: Any) -> Any:
            if LEADING.get() == "first" and self.dead.is_set():
                await asyncio.Event().wait()
            return await run(self_, script, *args)

        async def stepped(self_: Ec2Calls, doing: str, verb: str, **asked: Any) -> Any:
            if verb.startswith("describe"):
                return await ask(self_, doing, verb, **asked)
            await self.step(f"before {verb}")
            answer = await ask(self_, doing, verb, **asked)
            await self.step(f"after {verb}")
            return answer

        async def gate(when: str, call: tuple[str, str, str]) -> None:
            if call[2]:  # an agent's
                await self.step(f"{when} {call[0]}")

        monkeypatch.setattr(Scripts, "run", dead_or)
        monkeypatch.setattr(Ec2Calls, "ask", stepped)
        world.pool.gate = gate


async def day(world: Cloud) -> None:
    """Ada works, goes home, comes back, is away past the retention, and comes back to her files."""

    async def gets(status: W) -> Workspace:
        async def there() -> Workspace | None:
            found = await world.read(one)
            return found if found.status is status else None

        found = await until(there, 15, f"it is {status}")
        assert isinstance(found, Workspace)
        return found

    async def only(state: str) -> bool:
        return {s for _, s in (await world.instances()).values()} == ({state} if state else set())

    async def parked() -> bool:
        machines = await world.fleet.machines()
        return await only("stopped") and [m.status for m in machines] == [M.STOPPED]

    one = await world.wake()
    home = await gets(W.RUNNING)
    world.pool.disks[home.machine_id].of[one.id]["a.txt"] = "mine"
    await world.store.stop(one.id, "asked")
    await gets(W.STOPPED)
    await until(parked, 15, "its machine is stopped")
    await world.wake()
    back = await gets(W.RUNNING)
    assert (back.machine_id, world.pool.files(one.id)) == (home.machine_id, [{"a.txt": "mine"}])
    await world.store.terminate(one.id, "retention")
    await gets(W.TERMINATED)
    await until(lambda: only(""), 15, "its machine is terminated")
    await world.wake()
    again = await gets(W.RUNNING)
    assert again.machine_id != home.machine_id
    assert world.pool.files(one.id) == [{"a.txt": "mine"}]
    assert max(world.pool.most_running.values()) == 1, "it ran on two machines"


@contextlib.asynccontextmanager
async def leads(world: Cloud, name: str) -> AsyncIterator[None]:
    token = LEADING.set(name)
    async with world.leader().leading():
        LEADING.reset(token)
        yield


@pytest.fixture
async def world(redis: Redis, aws: Any) -> AsyncIterator[Cloud]:
    world = Cloud(redis, aws)
    living = asyncio.create_task(world.live())
    yield world
    await ended(living)
    await world.close()


async def the_end(world: Cloud, people: asyncio.Task[None]) -> None:
    await people
    await world.check_no_orphan()
    agreement = Agreement(world.redis)
    await agreement.check()
    await agreement.check_story()


STEPS = 24
"""Calls of the day that change something, times two: test_the_day_takes_as_many_steps holds it."""


async def test_the_day_takes_as_many_steps(world: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    mortal = Mortal(0)
    mortal.watch(world, monkeypatch)
    people = asyncio.create_task(day(world))
    async with leads(world, "first"):
        await the_end(world, people)
    assert mortal.steps >= STEPS, mortal.story  # a stop may be told twice
    for call in ("run_instances", "start", "stop", "stop_instances", "start_instances"):
        assert {f"before {call}", f"after {call}"} <= set(mortal.story)
    for call in ("snapshot", "remove", "terminate_instances"):
        assert {f"before {call}", f"after {call}"} <= set(mortal.story)


@pytest.mark.parametrize("at", range(1, STEPS + 1))
async def test_a_leader_dies_between_any_two_calls(
    world: Cloud, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    mortal = Mortal(at)
    mortal.watch(world, monkeypatch)
    people = asyncio.create_task(day(world))
    try:
        async with leads(world, "first"):
            dead = asyncio.create_task(mortal.dead.wait())
            await asyncio.wait([dead, people], return_when=asyncio.FIRST_COMPLETED)
            await ended(dead)  # type: ignore[arg-type]
        assert mortal.dead.is_set(), f"it only took {mortal.steps} steps: {mortal.story}"
        second = world.leader()
        for _ in range(2):
            await second.loops.once()
        await world.check_no_orphan()
        await second.rest()
        async with leads(world, "second"):
            await the_end(world, people)
    finally:
        await ended(people)
