"""Work in flight: one piece for each key, and a growing pause after a failure."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from lifecycle import errands as module
from lifecycle.errands import Errands
from lifecycle.stores import StoreUnavailable


class Clock:
    """The running loop's time, which a test may put forward."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.ahead, self._real = 0.0, loop.time

    def time(self) -> float:
        return self._real() + self.ahead


@pytest.fixture
async def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    loop = asyncio.get_running_loop()
    clock = Clock(loop)
    monkeypatch.setattr(loop, "time", clock.time)
    return clock


@pytest.fixture
async def errands() -> AsyncIterator[Errands]:
    errands = Errands()
    yield errands
    await errands.cancel()


async def done(errands: Errands, key: str) -> None:
    await asyncio.gather(*(task for one, task in errands._tasks.items() if one == key))


def failing(error: Exception) -> Callable[[], Any]:
    async def work() -> None:
        raise error

    return work


async def fine() -> None:
    return None


async def test_one_piece_at_a_time_for_each_key(errands: Errands) -> None:
    begun, go = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        begun.set()
        await go.wait()

    assert errands.run("a", work)
    assert not errands.run("a", work)
    assert errands.run("b", work)
    await begun.wait()
    assert errands.busy("a")
    assert not errands.busy("c")
    go.set()
    await done(errands, "a")
    assert errands.run("a", fine)


async def test_the_pause_doubles_up_to_a_minute(errands: Errands, clock: Clock) -> None:
    for pause in (1, 2, 4, 8, 16, 32, 60, 60):
        assert errands.run("a", failing(ValueError()))
        await done(errands, "a")
        clock.ahead += pause - 0.5
        assert not errands.run("a", fine), f"a pause of {pause} s was cut short"
        clock.ahead += 0.5
    assert errands.run("a", fine)


async def test_success_forgets_the_failures(errands: Errands, clock: Clock) -> None:
    for _ in range(5):
        errands.run("a", failing(ValueError()))
        await done(errands, "a")
        clock.ahead += 60
    assert errands.run("a", fine)
    await done(errands, "a")
    assert errands.run("a", failing(ValueError()))
    await done(errands, "a")
    clock.ahead += 1
    assert errands.run("a", fine)


async def test_a_store_that_is_away_is_not_held_against_the_work(
    errands: Errands, clock: Clock
) -> None:
    for _ in range(5):
        assert errands.run("a", failing(StoreUnavailable("away")))
        await done(errands, "a")
        clock.ahead += 1


async def test_a_snapshot_that_keeps_failing_does_not_hold_a_boot_back(
    errands: Errands, clock: Clock
) -> None:
    errands.run("w1", failing(ValueError()), "detach")
    await done(errands, "w1")
    assert not errands.run("w1", fine, "detach")
    assert errands.run("w1", fine, "boot")
    assert not errands.run("w1", fine, "boot"), "one piece of work for a key at a time, of any kind"
    await done(errands, "w1")
    assert not errands.run("w1", fine, "detach"), "another's success is not its own"


async def test_failures_remembered_are_bounded(
    errands: Errands, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FAILURES_MAX", 2)
    for key in ("a", "b", "c"):
        errands.run(key, failing(ValueError()))
        await done(errands, key)
    assert errands.run("a", fine), "the oldest was forgotten"
    assert not errands.run("b", fine)
    assert not errands.run("c", fine)


async def test_cancel_ends_what_runs_and_what_has_not_begun(errands: Errands) -> None:
    begun = asyncio.Event()

    async def work() -> None:
        begun.set()
        await asyncio.Event().wait()

    errands.run("runs", work)
    await begun.wait()
    errands.run("not begun", work)
    await errands.cancel()
    assert not errands.busy("runs")
    assert not errands.busy("not begun"), "its key would be taken for ever"
    assert errands.run("runs", fine)
    assert errands.run("not begun", fine)
