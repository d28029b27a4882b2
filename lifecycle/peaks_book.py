"""The peaks that are declared, by file and by API, at hand without asking anybody.

Whoever leads looks again when one is declared or removed (the event `pool.peak`), and every REFRESH seconds: for a file
that has changed, and for those that repeat.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from lifecycle.model import Event
from lifecycle.notices.words import clock
from lifecycle.peaks import Peak
from lifecycle.peaks_declared import ENTRIES_MAX, Entry, PeaksError
from lifecycle.peaks_file import PeaksFile
from lifecycle.stores.peaks import Declared, RedisPeaks
from lifecycle.ticks import every

log = structlog.get_logger(__name__)

REFRESH = 60.0  # seconds


@dataclass(frozen=True, slots=True)
class Ahead:
    """One that is ahead or open. entry: as the file declares it; None where the API did."""

    peak: Peak
    entry: Entry | None = None


@dataclass(frozen=True, slots=True)
class Book:
    """What is declared, the first first. now_ms: by Redis's clock."""

    now_ms: int
    peaks: Sequence[Ahead]


class PeaksBook:
    def __init__(self, store: RedisPeaks, file: PeaksFile) -> None:
        self._store, self._file = store, file
        self._known: tuple[Peak, ...] = ()
        self._entries: Sequence[Entry] = ()
        self._trouble = ""
        self._hurry = asyncio.Event()

    def now(self) -> Sequence[Peak]:
        """Those that are ahead or open, as of the last refresh: for the scaler, with every turn."""
        return self._known

    def on_event(self, event: Event) -> None:
        if event.type in ("pool.peak", "events.reset"):
            self._hurry.set()

    async def run(self) -> None:
        """Keep what is at hand fresh. For ever."""
        await every(REFRESH, self.refresh, self._hurry)

    async def refresh(self) -> None:
        """Raises StoreError; what was known stays."""
        self._known = tuple(each.peak for each in (await self.look()).peaks)

    async def look(self) -> Book:
        """What is declared now. Raises StoreError."""
        now_ms, told = await self._store.current()
        found = [Ahead(peak) for peak in told]
        for entry in await self._in_file():
            found += [Ahead(peak, entry) for peak in entry.peaks(now_ms)]
        return Book(now_ms, sorted(found, key=lambda each: (each.peak.at_ms, each.peak.name)))

    async def in_file(self, name: str) -> bool:
        """Whether the file declares one of that name: only there can it be changed."""
        return any(entry.name == name for entry in await self._in_file())

    async def declare(self, peak: Peak) -> tuple[Declared, int]:
        """Write it down in place of one of its name; and now. Raises StoreError."""
        reason = f"{peak.users:,} people at {clock(peak.at_ms)}"
        return await self._store.declare(peak, ENTRIES_MAX, reason)

    async def remove(self, name: str) -> Peak | None:
        """What was removed. Raises StoreError."""
        return await self._store.remove(name)

    async def _in_file(self) -> Sequence[Entry]:
        """A file that cannot be used (any more) is told of once, and what it declared before holds."""
        trouble = ""
        try:
            self._entries = await asyncio.to_thread(self._file.entries)
        except PeaksError as error:
            trouble = str(error)
            if trouble != self._trouble:
                log.warning("peaks.file_unusable", why=trouble, holds="what it said before")
        self._trouble = trouble
        return self._entries
