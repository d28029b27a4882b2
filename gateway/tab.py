"""One client of the control channel: what waits to be sent to it, and how much it may say.

A tab at rest has no task of its own: one writes as long as there is something to write. What cannot be
bounded by waiting is bounded by going: a client that takes nothing is closed, and then cut off.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from starlette.types import Message, Send

from gateway import closing
from gateway.control_messages import packed

WAITING_MAX = 64  # messages; one more, and the client is too slow for this channel
STALL = 10.0  # seconds that a client may take nothing of what is due to it


class Pace:
    """So many a second, and that many at once."""

    __slots__ = ("_at", "_left", "_rate")

    def __init__(self, rate: float, now: float) -> None:
        self._rate, self._left, self._at = rate, rate, now

    def take(self, now: float) -> bool:
        """One more; False: that is too many."""
        self._left = min(self._rate, self._left + (now - self._at) * self._rate)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Tab:
    __slots__ = (
        "_abort", "_closing", "_send", "_task", "_waiting",
        "client", "greeted", "pace", "seen_at", "seq", "told",
    )  # fmt: skip

    def __init__(self, send: Send, abort: Callable[[], None], pace: Pace) -> None:
        """abort: drops the connection with what is buffered for it."""
        self._send, self._abort = send, abort
        self._waiting: deque[Message] = deque()
        self._task: asyncio.Task[None] | None = None
        self._closing = False
        self.pace = pace
        self.greeted = False
        self.client = ""
        self.seq = 0
        """Of the newest notice it has."""
        self.told: Mapping[str, Any] = {}
        """The state it was told last."""
        self.seen_at = float("-inf")
        """When a sighting of it was last believed; loop time."""

    def push(self, message: Mapping[str, Any]) -> None:
        """Send it, behind what waits already."""
        if self._closing:
            return
        if len(self._waiting) >= WAITING_MAX:
            self._waiting.clear()
            self.close(closing.OVERLOADED)
            return
        self._put({"type": "websocket.send", "bytes": packed(message)})

    def close(self, close: closing.Close, reason: str = "") -> None:
        """The last thing it hears, behind what waits already. reason: instead of the table's."""
        if not self._closing:
            self._closing = True
            said = reason or close.reason
            self._put({"type": "websocket.close", "code": close.code, "reason": said})

    def gone(self) -> None:
        """The connection is over."""
        self._closing = True
        self._waiting.clear()
        if self._task is not None:
            self._task.cancel()

    def _put(self, message: Message) -> None:
        self._waiting.append(message)
        if self._task is None:
            self._task = asyncio.create_task(self._write())

    async def _write(self) -> None:
        try:
            while self._waiting:
                async with asyncio.timeout(STALL):
                    await self._send(self._waiting.popleft())
        except TimeoutError:
            self._abort()
        except (OSError, RuntimeError):
            pass  # the server has closed it meanwhile; its reader hears of that
        finally:
            self._task = None
