"""Many timeouts of one length, with one timer: setting and dropping one costs next to nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)


class Deadlines(Generic[Key]):
    def __init__(
        self, loop: asyncio.AbstractEventLoop, seconds: float, late: Callable[[Key], None]
    ) -> None:
        """late: called with each key `seconds` after it was set, unless it was dropped. By then it is dropped."""
        self._loop, self._seconds, self._late = loop, seconds, late
        self._due: dict[Key, float] = {}  # in the order in which they come due
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._due)

    def set(self, key: Key) -> None:
        """From now on, also if it was set before."""
        self._due.pop(key, None)
        self._due[key] = self._loop.time() + self._seconds
        if self._timer is None:
            self._timer = self._loop.call_later(self._seconds, self._look)

    def drop(self, key: Key) -> None:
        self._due.pop(key, None)

    def close(self) -> None:
        self._due.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        now = self._loop.time()
        late = []
        for key, due in self._due.items():
            if due > now:
                self._timer = self._loop.call_later(due - now, self._look)
                break
            late.append(key)
        for key in late:
            del self._due[key]
        for key in late:
            self._late(key)
