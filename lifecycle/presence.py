"""Where people are active: looked up for machines between which there is a choice, and remembered for a moment."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence

from lifecycle.idleness import LOOK_EVERY, idle_ms
from lifecycle.model import Machine
from lifecycle.placement import takes_work
from lifecycle.stores.redis import RedisStore


class Presence:
    def __init__(self, store: RedisStore, on: Callable[[str], Collection[str]]) -> None:
        """on: machine id → ids of the workspaces that ran there by its last report."""
        self._store, self._on = store, on
        self._known: dict[str, tuple[float, int]] = {}  # machine → when it was looked up, idle ms

    async def idle_ms(self, machines: Sequence[Machine]) -> dict[str, int]:
        """Machine → milliseconds since the last activity there, of those with people and with a free slot. Nothing is
        asked where fewer than two of them are. Raises StoreError."""
        shared = [m.id for m in machines if takes_work(m) and 0 < m.occupied < m.slots]
        if len(shared) < 2:
            self._known.clear()
            return {}
        at = asyncio.get_running_loop().time()
        fresh = {each: row for each, row in self._known.items() if at < row[0] + LOOK_EVERY}
        self._known = {each: fresh[each] for each in shared if each in fresh}
        await self._look([each for each in shared if each not in self._known], at)
        return {each: idle for each, (_, idle) in self._known.items()}

    def placed(self, machine_id: str) -> None:
        """Somebody new comes there."""
        self._known[machine_id] = (asyncio.get_running_loop().time(), 0)

    async def _look(self, machine_ids: Sequence[str], at: float) -> None:
        here = {each: self._on(each) for each in machine_ids}
        names = [name for some in here.values() for name in some]
        if not names:
            return  # a new leader has heard of no machine yet: all of them count as in use
        now, last = await self._store.now_ms(), await self._store.last_active(names)
        for machine_id, some in here.items():
            known = [last[name] for name in some if name in last]
            self._known[machine_id] = (at, idle_ms(known, now))
