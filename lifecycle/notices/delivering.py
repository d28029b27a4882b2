"""Deliveries are made: what is due is claimed, tried, and noted. By whoever leads; two that do at once make no
attempt twice, because a claim is one step in the outbox."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import structlog

from lifecycle.notices.deliveries import (
    Answer,
    Channel,
    Delivery,
    Outbox,
    Outcome,
    Status,
    lost,
    next_attempt,
)
from lifecycle.stores import StoreError
from lifecycle.ticks import every

log = structlog.get_logger(__name__)

INTERVAL = 1.0  # seconds between two looks at what is due
AT_ONCE = 8  # attempts; what else is due waits for one of them to end
ATTEMPT_MAX = 40.0  # seconds; channels have shorter limits of their own
CLAIM = (
    90.0  # seconds: longer than any attempt, so that one that is not noted by then was interrupted
)
TURN = 20.0  # seconds in which a turn begins attempts
GRACE = 2.0  # seconds for what has begun, when somebody else is to lead


class Delivering:
    def __init__(
        self,
        outbox: Outbox,
        channels: Sequence[Channel],
        claim: float = CLAIM,
    ) -> None:
        """claim: seconds after which an attempt that nobody noted was interrupted."""
        self._outbox, self._claim = outbox, claim
        self._channels = {channel.name: channel for channel in channels}
        self._gone: set[str] = set()
        self._running: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """For ever, while this process leads."""
        try:
            await every(INTERVAL, self.tick)
        finally:
            await self._end()

    async def tick(self) -> None:
        """Begin what is due, as far as there is room."""
        await self._begin()

    async def turn(self, within: float = TURN) -> None:
        """What is due, to its end; nothing new is begun after so many seconds. For whoever does not stay."""
        until = time.monotonic() + within
        try:
            while (time.monotonic() < until and await self._begin()) or self._running:
                await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await self._end()

    async def close(self) -> None:
        await self._end()
        for channel in self._channels.values():
            await channel.close()

    async def _begin(self) -> int:
        room = AT_ONCE - len(self._running)
        if room <= 0:
            return 0
        claimed = await self._outbox.claim(room, self._claim)
        for delivery in claimed:
            task = asyncio.create_task(self._deliver(delivery))
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        return len(claimed)

    async def _end(self) -> None:
        if not self._running:
            return
        _, late = await asyncio.wait(self._running, timeout=GRACE)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late)

    async def _deliver(self, delivery: Delivery) -> None:
        began = time.monotonic()
        answer = await self._answer(delivery)
        took_ms = round((time.monotonic() - began) * 1000)
        ended_ms = delivery.attempted_at_ms + took_ms  # by the outbox's clock
        then = next_attempt(delivery.id, delivery.attempts, answer, ended_ms)
        _log(delivery, answer, took_ms, then.status)
        try:
            await self._outbox.note(delivery, answer, took_ms, then)
        except StoreError as error:
            # The claim runs out, and what came of the attempt counts as unknown.
            log.warning("delivery.not_noted", delivery=delivery.id, why=str(error))

    async def _answer(self, delivery: Delivery) -> Answer:
        channel = self._channels.get(delivery.channel)
        if channel is None:
            return Answer(Outcome.REFUSED, f"no {delivery.channel} is set up any more")
        if delivery.interrupted:
            return lost(channel.repeatable)
        if delivery.channel in self._gone and not delivery.retried:
            said = "not sent: the receiver answered 410 Gone. Send a delivery again to try it anew"
            return Answer(Outcome.REFUSED, said)
        answer = await self._try(channel, delivery)
        if answer.outcome is Outcome.GONE:
            self._gone.add(delivery.channel)
        elif answer.outcome is Outcome.SENT:
            self._gone.discard(delivery.channel)
        return answer

    async def _try(self, channel: Channel, delivery: Delivery) -> Answer:
        try:
            async with asyncio.timeout(ATTEMPT_MAX):
                return await channel.send(delivery)
        except TimeoutError:
            said = f"no answer in {ATTEMPT_MAX:g} s"
        except Exception as error:
            log.exception("delivery.broken", delivery=delivery.id, channel=channel.name)
            said = f"{type(error).__name__}: the gateway's log says more"
        return Answer(Outcome.FAILED if channel.repeatable else Outcome.UNKNOWN, said)


def _log(delivery: Delivery, answer: Answer, took_ms: int, status: Status) -> None:
    said = {
        "delivery": delivery.id, "channel": delivery.channel, "notice": delivery.notice.type,
        "workspace": delivery.notice.workspace_id, "attempt": delivery.attempts, "took_ms": took_ms,
    }  # fmt: skip
    if status is Status.SENT:
        log.info("delivery.sent", **said)
    else:
        log.warning("delivery.failed", **said, why=answer.said[:200], code=answer.code, now=status)
