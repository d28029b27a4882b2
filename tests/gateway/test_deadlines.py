"""Many timeouts, one timer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from gateway.deadlines import Deadlines


class Loop:
    """An event loop's clock and timers, without waiting."""

    def __init__(self) -> None:
        self.now, self.timers = 100.0, list[tuple[float, Callable[[], None]]]()

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, callback: Callable[[], None]) -> asyncio.TimerHandle:
        timer = (self.now + delay, callback)
        self.timers.append(timer)
        handle: asyncio.TimerHandle = type("Handle", (), {"cancel": lambda _: self.timers.remove(timer)})()  # fmt: skip
        return handle

    def pass_time(self, seconds: float) -> None:
        until = self.now + seconds
        while due := sorted(timer for timer in self.timers if timer[0] <= until):
            self.timers.remove(due[0])
            self.now = due[0][0]
            due[0][1]()
        self.now = until


def test_each_is_told_once_and_in_time_with_one_timer() -> None:
    loop, late = Loop(), list[tuple[float, str]]()
    deadlines: Deadlines[str] = Deadlines(loop, 10, lambda key: late.append((loop.now, key)))  # type: ignore[arg-type]
    for key in "abc":
        deadlines.set(key)
        loop.pass_time(1)
    assert len(loop.timers) == 1
    deadlines.drop("b")
    deadlines.drop("never set")
    loop.pass_time(20)
    assert late == [(110, "a"), (112, "c")]
    assert not loop.timers
    assert not len(deadlines)


def test_set_again_it_counts_from_then() -> None:
    loop, late = Loop(), list[str]()
    deadlines: Deadlines[str] = Deadlines(loop, 10, late.append)  # type: ignore[arg-type]
    deadlines.set("a")
    loop.pass_time(9)
    deadlines.set("a")
    loop.pass_time(9)
    assert late == []
    loop.pass_time(1)
    assert late == ["a"]


def test_who_is_told_may_set_and_drop_others_and_closing_ends_all() -> None:
    loop, late = Loop(), list[str]()

    def tell(key: str) -> None:
        late.append(key)
        if key == "a":
            deadlines.set("a")
            deadlines.set("c")

    deadlines: Deadlines[str] = Deadlines(loop, 10, tell)  # type: ignore[arg-type]
    deadlines.set("a")
    deadlines.set("b")
    loop.pass_time(10)
    assert late == ["a", "b"]
    loop.pass_time(5)
    deadlines.close()
    loop.pass_time(50)
    assert late == ["a", "b"]
    assert not loop.timers
