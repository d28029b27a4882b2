"""What is answered of the pool and the queue."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from gateway.inquiry import Inquiry
from lifecycle.pace import Pace
from lifecycle.stores import StoreUnavailable
from lifecycle.waiting import Bounds
from tests.lifecycle.fakes import workspace


@dataclass
class World:
    """Store, fleet and the pool's notice, as far as an inquiry asks."""

    said: str = ""
    away: bool = False
    asked: int = 0
    machines_: list[Any] = field(default_factory=list)

    async def notice(self) -> str:
        self.asked += 1
        if self.away:
            raise StoreUnavailable("Redis did not answer")
        return self.said

    async def queue_position(self, workspace_id: str) -> int | None:
        return 2

    async def machines(self) -> list[Any]:
        return self.machines_

    async def pace(self) -> Pace:
        return Pace(1_000_000, users=2, boots=[3.0])

    def inquiry(self, launch: float = 2.0) -> Inquiry:
        bounds = Bounds(launch_guess=launch)
        return Inquiry(self, self, None, self.pace, bounds, self.notice)  # type: ignore[arg-type]


async def test_without_machines_to_be_had_nobody_is_promised_a_time() -> None:
    world = World(said="no machines to be had just now")
    assert await world.inquiry().place(workspace()) == (2, None)
    world.said = ""
    position, eta = await world.inquiry().place(workspace())
    assert position == 2
    assert eta is not None


async def test_a_machine_elsewhere_takes_its_time() -> None:
    slow = await World().inquiry(90.0).eta(1)
    assert slow - await World().inquiry(2.0).eta(1) == 88.0


async def test_a_notice_is_asked_for_once_a_second_and_a_store_away_says_none() -> None:
    world = World(said="none left")
    look = world.inquiry()
    assert [await look.notice() for _ in range(3)] == ["none left"] * 3
    assert world.asked == 1
    world.away = True
    assert await world.inquiry().notice() == ""
