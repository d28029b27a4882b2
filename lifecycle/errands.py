"""Work in flight, one piece at a time for each key, with a growing pause after a failure."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from lifecycle.stores import StoreError

log = structlog.get_logger(__name__)

FIRST_PAUSE = 1.0
LONGEST_PAUSE = 60.0
FAILURES_MAX = (
    10_000  # keys with failures remembered; the oldest is forgotten (and may retry sooner)
)


class Errands:
    """Whoever finds the same work due again every tick may ask for it every tick."""

    def __init__(self) -> None:
        self._tasks: dict[str, asyncio.Task[None]] = {}
        # (key, kind) → (not before, length of the pause)
        self._pauses: dict[tuple[str, str], tuple[float, float]] = {}

    def busy(self, key: str) -> bool:
        return key in self._tasks

    def run(self, key: str, work: Callable[[], Awaitable[None]], kind: str = "") -> bool:
        """Start it, unless anything of that key is under way or this kind of it is pausing; whether it
        was started. A snapshot that keeps failing does not hold a boot back."""
        now = asyncio.get_running_loop().time()
        if key in self._tasks or now < self._pauses.get((key, kind), (0.0, 0.0))[0]:
            return False
        self._tasks[key] = asyncio.create_task(self._run(key, work, kind))
        return True

    async def _run(self, key: str, work: Callable[[], Awaitable[None]], kind: str) -> None:
        what = (key, kind)
        try:
            await work()
            self._pauses.pop(what, None)
        except Exception as error:
            pause = min(LONGEST_PAUSE, 2 * self._pauses.pop(what, (0.0, FIRST_PAUSE / 2))[1])
            if isinstance(error, StoreError):
                pause = FIRST_PAUSE  # the whole store is away: back at once when it is
            self._pauses[what] = (asyncio.get_running_loop().time() + pause, pause)
            while len(self._pauses) > FAILURES_MAX:
                del self._pauses[next(iter(self._pauses))]
            log.warning(
                "errand.failed",
                key=key,
                work=kind,
                why=str(error),
                kind=type(error).__name__,
                retry_s=pause,
            )
        finally:
            self._tasks.pop(key, None)

    async def finished(self) -> None:
        """Until nothing is under way any more, what begins meanwhile included."""
        while self._tasks:
            await asyncio.wait(list(self._tasks.values()))

    async def cancel(self) -> None:
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._tasks.clear()  # one cancelled before its first step never came to its own clean-up
