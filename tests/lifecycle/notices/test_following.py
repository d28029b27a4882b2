"""Notices of what happened to workspaces: each once, over leaders that are killed or lead at once."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest
from redis.asyncio import Redis

from lifecycle.model import Workspace, WorkspaceStatus
from lifecycle.notices import FAILED, STOPPED, TERMINATED
from lifecycle.notices.following import Following
from lifecycle.plans import Policy
from lifecycle.stores import StoreUnavailable
from lifecycle.stores.notices import RedisNotices
from lifecycle.stores.redis import RedisStore
from lifecycle.stores.signals import RedisSignals

W = WorkspaceStatus
BOOT = (W.QUEUED, W.STARTING, W.RUNNING)


class World:
    def __init__(self, redis: Redis) -> None:
        self.redis, self.store = redis, RedisStore(redis)
        self.notices, self.signals = RedisNotices(redis, ["webhook"]), RedisSignals(redis)

    def leader(self, notices: RedisNotices | None = None) -> Following:
        return Following(
            self.signals, self.store, notices or self.notices, lambda workspace: Policy()
        )

    async def goes(self, workspace: Workspace, *way: W, **fields: str) -> Workspace:
        for step in way:
            if step is W.QUEUED:
                workspace = await self.store.wake(workspace.id)
                continue
            place = {"place": "m-1"} if step is W.STARTING else {}
            last = fields if step is way[-1] else {}
            workspace = await self.store.change(workspace, step, fields=last, **place)  # type: ignore[arg-type]
        return workspace

    async def told(self, workspace: Workspace) -> list[tuple[str, str]]:
        return [(n.type, n.text) for n in await self.notices.since(workspace.id, 0)]


@pytest.fixture
async def world(redis: Redis) -> World:
    world = World(redis)
    await redis.hset("machine:m-1", mapping={"machineId": "m-1", "slots": "500", "status": "ready"})
    await world.leader().tick()  # the first tick ever: nothing from before it is told
    return world


async def test_what_nobody_asked_for_is_told_in_words(world: World) -> None:
    one, _ = await world.store.ensure("ada", "demo")
    one = await world.goes(one, *BOOT, W.STOPPING, W.STOPPED, reason="idle")
    await world.leader().tick()
    [(type, text)] = await world.told(one)
    assert type == STOPPED
    assert text.startswith(
        "“demo” was stopped: nothing was done in it. Its files are kept until 20"
    )

    why = {"reason": "boot_failed", "errorCode": "boot_failed", "error": "the IDE exited at once"}
    one = await world.goes(one, W.QUEUED, W.STARTING, W.FAILED, **why)
    await world.leader().tick()
    assert (await world.told(one))[-1] == (
        FAILED,
        "“demo” failed: the IDE exited at once. Open its page to read more, or to start it again.",
    )
    gone = {"reason": "retention", "snapshotId": "snap-1", "machineId": ""}
    one = await world.goes(one, W.TERMINATING, reason="retention")
    one = await world.goes(one, W.TERMINATED, **gone)
    await world.leader().tick()
    await world.leader().tick()
    types = [type for type, _ in await world.told(one)]
    assert types == [STOPPED, FAILED, TERMINATED]
    assert "its files are in a snapshot" in (await world.told(one))[-1][1]


@pytest.mark.parametrize(
    "reason", ["requested", "gateway stopped", "deleted", "moving: its machine goes at 12:00"]
)
async def test_what_was_asked_for_or_goes_on_elsewhere_is_not_told(
    world: World, reason: str
) -> None:
    one, _ = await world.store.ensure("ada", "demo")
    one = await world.goes(one, *BOOT, W.STOPPING, W.STOPPED, reason=reason)
    await world.leader().tick()
    assert await world.told(one) == []


async def test_a_termination_that_was_called_off_was_no_stop(world: World) -> None:
    one, _ = await world.store.ensure("ada", "demo")
    one = await world.goes(one, *BOOT, W.STOPPING, W.STOPPED, reason="requested")
    one = await world.goes(one, W.TERMINATING, reason="retention")
    await world.goes(one, W.STOPPED, reason="snapshot failed")
    await world.leader().tick()
    assert await world.told(one) == []


class Killed(RedisNotices):
    """Of a leader that ends after so many notices were written, before it could note how far it came."""

    left = 0

    async def tell(
        self, workspace: Workspace, type: str, key: str, text: str, data: Mapping[str, str]
    ) -> int:
        seq = await super().tell(workspace, type, key, text, data)
        self.left -= 1
        if self.left <= 0:
            raise StoreUnavailable("killed")
        return seq


async def test_200_events_over_killed_leaders_and_two_at_once_are_told_once_each(
    world: World,
) -> None:
    people = [(await world.store.ensure(f"person-{n}"))[0] for n in range(50)]
    for _ in range(4):
        for n, one in enumerate(people):
            people[n] = await world.goes(one, *BOOT, W.STOPPING, W.STOPPED, reason="idle")
    for left in (1, 30, 7):
        killed = Killed(world.redis, ["webhook"])
        killed.left = left
        with pytest.raises(StoreUnavailable):
            await world.leader(killed).tick()
    await asyncio.gather(world.leader().tick(), world.leader().tick())
    await world.leader().tick()
    for one in people:
        assert [n.data["epoch"] for n in await world.notices.since(one.id, 0)] == list("1234")
    assert await world.redis.zcard("deliveries") == 200
