"""The events stream, read once per process and handed to everybody there who wants to know.

A subscriber that does not keep up loses its oldest events, never anybody else's, and never memory:
what it shows is read from the records anyway, an event only says that it is time to look.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator

import structlog

from lifecycle.model import Event
from lifecycle.stores import StoreError
from lifecycle.stores.signals import RedisSignals

log = structlog.get_logger(__name__)

PENDING_MAX = 256  # events a slow subscriber may be behind; the oldest go first
RETRY = 0.5  # seconds between tries while Redis is away
BLOCK = 3.0  # seconds one read waits; well below the client's socket timeout of 5


class News:
    def __init__(self, signals: RedisSignals) -> None:
        self._signals = signals
        self._subscribers: dict[asyncio.Queue[Event], str | None] = {}
        self._listeners: list[Callable[[Event], None]] = []
        self._last = ""
        self.away = False

    @property
    def newest(self) -> str:
        """Id of the newest event that was read; "" while Redis is away, and nothing is known."""
        return "" if self.away else self._last

    def listen(self, listener: Callable[[Event], None]) -> None:
        """Call it with every event, in order, from the reading task. It must not block or raise."""
        self._listeners.append(listener)

    async def follow(self, workspace: str | None = None) -> AsyncIterator[Event]:
        """Events from now on, of one workspace or of all. Endless; close it when done."""
        with self.subscription(workspace) as queue:
            while True:
                yield await queue.get()

    @contextlib.contextmanager
    def subscription(self, workspace: str | None = None) -> Iterator[asyncio.Queue[Event]]:
        """A queue that fills from this moment on: subscribe first, then read the record."""
        queue: asyncio.Queue[Event] = asyncio.Queue(PENDING_MAX)
        self._subscribers[queue] = workspace
        try:
            yield queue
        finally:
            del self._subscribers[queue]

    async def start(self) -> None:
        """Find the end of the stream, so that run() misses nothing that comes after this call."""
        self._last = await self._signals.last_event_id()

    async def run(self) -> None:
        """Read for ever; survives Redis being away, and goes on where it was."""
        while True:
            try:
                events = await self._signals.tail(self._last, BLOCK)
                if not events:
                    await self._notice_reset()
            except StoreError as error:
                if not self.away:
                    log.warning("events.unreadable", error=str(error))
                self.away = True
                await asyncio.sleep(RETRY)
                continue
            if self.away:
                self.away = False
                log.info("events.readable")
            for event in events:
                self._last = event.id
                self._publish(event)

    async def _notice_reset(self) -> None:
        """A stream that lost its tail (FLUSHALL, a lost second of the append-only file) numbers anew:
        waiting for ids beyond the lost ones could take for ever."""
        last = await self._signals.last_event_id()
        if _order(last) < _order(self._last):
            log.warning("events.reset", was=self._last, now=last)
            self._last = last
            self._publish(Event(id=last, type="events.reset", data={}))

    def _publish(self, event: Event) -> None:
        for listener in self._listeners:
            try:
                listener(event)
            except Exception:
                log.exception("events.listener_failed", event_type=event.type)
        for queue, workspace in self._subscribers.items():
            if workspace is None or event.data.get("workspace") == workspace:
                if queue.full():
                    queue.get_nowait()
                queue.put_nowait(event)


def _order(event_id: str) -> tuple[int, int]:
    ms, _, n = event_id.partition("-")
    return int(ms), int(n or 0)
