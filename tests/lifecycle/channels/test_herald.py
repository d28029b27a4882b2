from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from lifecycle.channels import ChannelError
from lifecycle.channels.herald import Herald
from lifecycle.model import Event


class Channel:
    def __init__(self) -> None:
        self.told: list[str] = []
        self.away = self.slow = False

    async def check(self) -> None: ...

    async def tell(self, events: Sequence[Event]) -> int:
        if self.slow:
            await asyncio.Event().wait()
        if self.away:
            raise ChannelError("SNS does not answer")
        self.told += [event.id for event in events]
        return 0


class World:
    def __init__(self, bound: int = 100) -> None:
        self.channel, self.leads = Channel(), True
        self.herald = Herald(self.channel, lambda: self.leads, bound)

    def hear(self, *numbers: int, kind: str = "workspace.running") -> None:
        for n in numbers:
            self.herald.on_event(Event(f"{n}-0", kind, {"workspace": "w"}))

    @property
    def told(self) -> list[int]:
        return [int(each.partition("-")[0]) for each in self.channel.told]


async def test_everything_is_told_in_order_once() -> None:
    world = World()
    world.hear(*range(25))
    await world.herald.tick()
    await world.herald.tick()
    assert world.told == list(range(25))


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("workspace.stopped", True),
        ("workspace.created", True),
        ("machine.lost", True),
        ("workspace.progress", False),
        ("session.opened", False),
        ("lease.acquired", False),
        ("events.reset", False),
    ],
)
async def test_which_are_told(kind: str, told: bool) -> None:
    world = World()
    world.hear(1, kind=kind)
    await world.herald.tick()
    assert world.told == [1] * told


async def test_only_the_leader_tells() -> None:
    world = World()
    world.leads = False
    world.hear(1)
    world.leads = True
    world.hear(2)
    await world.herald.tick()
    assert world.told == [2]


async def test_while_it_is_away_events_wait_and_the_oldest_are_dropped_at_the_bound() -> None:
    world = World(bound=5)
    world.channel.away = True
    world.hear(1, 2, 3)
    await world.herald.tick()
    world.hear(4, 5, 6, 7)
    await world.herald.tick()
    world.channel.away = False
    await world.herald.tick()
    assert world.told == [3, 4, 5, 6, 7]


async def test_what_comes_while_it_tells_is_told_next() -> None:
    world = World(bound=3)
    tell = world.channel.tell

    async def meanwhile(events: Sequence[Event]) -> int:
        if not world.told:
            world.hear(4, 5)  # drops 1 and 2, which are being told
        return await tell(events)

    world.channel.tell = meanwhile  # type: ignore[method-assign]
    world.hear(1, 2, 3)
    await world.herald.tick()
    assert world.told == [1, 2, 3, 4, 5]


async def test_at_the_end_what_waits_is_told_and_nobody_is_held_up() -> None:
    world = World()
    world.hear(1)
    await world.herald.close()
    assert world.told == [1]
    world.hear(2)
    world.channel.slow = True
    async with asyncio.timeout(5):
        await world.herald.close(within=0.05)
