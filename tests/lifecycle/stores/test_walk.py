"""Two actors, one of them always behind, do whatever they like to workspaces and machines for a while.

After every verb the store must agree with itself: records, indexes by status, slots, files, the boot queue,
heartbeats, metered usage and events all tell the same story. Seeds are fixed, so a failure repeats.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Awaitable, Callable

import pytest
from redis.asyncio import Redis

from lifecycle.model import (
    MACHINE_TRANSITIONS,
    OCCUPYING,
    WORKSPACE_TRANSITIONS,
    Machine,
    MachineStatus,
    Workspace,
    WorkspaceStatus,
)
from lifecycle.stores import Conflict, LimitReached
from lifecycle.stores.fleet import RedisFleet
from lifecycle.stores.signals import Flush, RedisSignals
from tests.lifecycle.agreement import Agreement
from tests.lifecycle.stores.conftest import MakeStore

W, M = WorkspaceStatus, MachineStatus
USERS = ("ada", "bob")
NAMES = ("", "two")


class World:
    """The store under test, and what two actors believe of it."""

    def __init__(self, redis: Redis, make_store: MakeStore, seed: int) -> None:
        self.redis, self.dice = redis, random.Random(seed)
        self.store = make_store(max_workspaces_per_user=2, max_queue=3)
        self.fleet, self.signals = RedisFleet(redis), RedisSignals(redis)
        self.workspaces: dict[str, Workspace] = {}  # what the slower actor last saw
        self.machines: dict[str, Machine] = {}
        self.agreement = Agreement(redis)
        self.verbs: list[Callable[[], Awaitable[object]]] = [
            self.ensure, self.wake, self.wake, self.stop, self.terminate, self.delete, self.touch,
            self.place, self.place, self.place, self.settle, self.settle, self.settle, self.settle,
            self.detach, self.snapshot, self.extend, self.flush, self.add, self.turn, self.turn, self.turn,
        ]  # fmt: skip

    async def step(self) -> str:
        if self.dice.random() < 0.5:
            await self.look()
        verb = self.dice.choice(self.verbs)
        with contextlib.suppress(Conflict, LimitReached):
            await verb()
        return verb.__name__

    async def look(self) -> None:
        self.workspaces = {w.id: w for w in await self.store.list()}
        self.machines = {m.id: m for m in await self.fleet.machines()}

    def one(self, *status: WorkspaceStatus) -> Workspace:
        found = [w for w in self.workspaces.values() if not status or w.status in status]
        if not found:
            raise Conflict("nothing to do it to")
        return self.dice.choice(sorted(found, key=lambda w: w.id))

    async def ensure(self) -> None:
        await self.store.ensure(self.dice.choice(USERS), self.dice.choice(NAMES))

    async def wake(self) -> None:
        await self.store.wake(self.one().id, self.dice.choice(("", "vip", "batch")))

    async def stop(self) -> None:
        await self.store.stop(self.one().id, "asked", self.dice.choice(("", "terminate")))

    async def terminate(self) -> None:
        await self.store.terminate(self.one().id, "deleted")

    async def delete(self) -> None:
        await self.store.delete(self.one(W.TERMINATED).id)

    async def touch(self) -> None:
        await self.store.touch(self.one().id, "api")

    async def extend(self) -> None:
        await self.store.extend(self.one().id, 0.01)

    async def place(self) -> None:
        workspace = self.one(W.QUEUED)
        ready = [m.id for m in self.machines.values() if m.status is M.READY]
        machine = self.dice.choice(sorted(ready) or ["m-none"])
        known = self.dice.choice((0, 0, workspace.epoch + 2))
        await self.store.change(workspace, W.STARTING, place=machine, known_epoch=known)

    async def settle(self) -> None:
        """What the loops find out of a workspace that holds a slot or is being terminated."""
        workspace = self.one(*OCCUPYING, W.TERMINATING, W.STOPPED, W.FAILED)
        to = self.dice.choice(sorted(WORKSPACE_TRANSITIONS[workspace.status] - {W.QUEUED}))
        if workspace.status in (W.STARTING, W.RUNNING) and self.dice.random() < 0.3:
            await self.store.change(workspace, W.STOPPED, chain=(W.STOPPING,))
        elif to is W.TERMINATED:
            await self.store.change(workspace, to, fields={"machineId": ""})
        elif to is W.STOPPING:
            seen = workspace.last_active_at_ms
            await self.store.change(workspace, to, unless_seen={"boot": seen, "api": seen})
        else:
            await self.store.change(workspace, to)

    async def detach(self) -> None:
        await self.store.note(self.one(), "workspace.detached", {"machineId": ""})

    async def snapshot(self) -> None:
        await self.store.note(self.one(), "workspace.snapshotted", {"snapshotId": "s"})

    async def flush(self) -> None:
        workspace = self.one().id
        active = {workspace: {"frames": [self.dice.choice((0, 5)), "frames of session g-1"]}}
        seen = Flush(sessions={f"{workspace}/g-1": 0}, active=active)
        await self.signals.flush("g", seen)

    async def add(self) -> None:
        await self.fleet.intend("fake", self.dice.choice((1, 2)), 1, bound=4)

    async def turn(self) -> None:
        machine = self.dice.choice(sorted(self.machines.values(), key=lambda m: m.id) or [None])
        if machine is None or not MACHINE_TRANSITIONS[machine.status]:
            return
        to = self.dice.choice(sorted(MACHINE_TRANSITIONS[machine.status]))
        await self.fleet.change(machine, to, only_empty=to in (M.TERMINATED, M.DRAINING))


@pytest.mark.parametrize(
    ("make_store", "seed"),
    [
        *(("redis", seed) for seed in range(6)),
        ("dynamodb", 6),
        ("postgresql", 7),
        ("postgresql", 8),
    ],
    indirect=["make_store"],
)
async def test_the_store_agrees_with_itself_after_every_verb(
    redis: Redis, make_store: MakeStore, seed: int
) -> None:
    world = World(redis, make_store, seed)
    verbs: list[str] = []
    for _ in range(200):
        verbs.append(await world.step())
        try:
            await world.agreement.check()
        except AssertionError as error:
            raise AssertionError(f"after {verbs[-12:]}: {error}") from error
    await world.agreement.check_story()
    await world.store.settle()  # machines that went took files with them; the loops settle that


@pytest.mark.parametrize("make_store", ["redis"], indirect=True)
async def test_the_walk_goes_everywhere(redis: Redis, make_store: MakeStore) -> None:
    """A walk that never left its first room would prove nothing."""
    seen: set[str] = set()
    for seed in range(8):
        await redis.flushall()
        world = World(redis, make_store, seed)
        for _ in range(200):
            await world.step()
        seen |= {event.type for event in await world.signals.history("0-0", 100_000)}
    assert {f"workspace.{status}" for status in W} <= seen
    assert {f"machine.{status}" for status in M} <= seen
    assert {"workspace.created", "workspace.deleted", "workspace.detached"} <= seen
