"""The right to run the lifecycle loops, held by one gateway at a time.

The lease saves work; it is not what keeps things right. A holder that was paused past its lease goes on
for a moment beside the next one, and every effect of both is a compare-and-set with an epoch.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import structlog

from lifecycle.stores import StoreError
from lifecycle.stores.signals import RedisSignals

log = structlog.get_logger(__name__)


class Lease:
    def __init__(self, signals: RedisSignals, holder: str, ttl: float) -> None:
        """ttl: seconds the lease outlives its holder."""
        self._signals, self.holder, self._ttl = signals, holder, ttl
        self.token = 0
        """The fencing token while held, else 0."""

    async def run(self, lead: Callable[[], Awaitable[None]]) -> None:
        """Run lead() whenever the lease is held; cancel it when the lease is lost. For ever."""
        while True:
            token = await self._take()
            if token:
                try:
                    await self._hold(token, lead)
                    continue  # lost it: ask again at once
                except Exception:
                    log.exception("lease.lead_failed", holder=self.holder, fence=token)
            await asyncio.sleep(self._ttl / 3)

    async def _hold(self, token: int, lead: Callable[[], Awaitable[None]]) -> None:
        loop = asyncio.get_running_loop()
        self.token = token
        log.info("lease.held", holder=self.holder, fence=token)
        task = asyncio.ensure_future(lead())
        good_until = loop.time() + self._ttl
        try:
            while not task.done() and loop.time() < good_until:
                await asyncio.wait([task], timeout=self._ttl / 3)
                asked_at = loop.time()
                answer = await self._take()
                if answer == token:
                    good_until = asked_at + self._ttl
                elif answer is not None:
                    break  # somebody else has it
        finally:
            self.token = 0
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            log.info("lease.let_go", holder=self.holder, fence=token)

    async def _take(self) -> int | None:
        """The token, 0 when somebody else holds it, None when Redis did not say."""
        try:
            return await self._signals.take_lease(self.holder, self._ttl)
        except StoreError:
            return None

    async def give(self) -> None:
        """Give it back, so that the next holder need not wait for it to run out."""
        with contextlib.suppress(StoreError):
            await self._signals.give_lease(self.holder)
