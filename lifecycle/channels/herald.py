"""Hands lifecycle events on to a channel: each once, by the gateway that leads, within about a second."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

import structlog

from lifecycle.channels import Channel, ChannelError
from lifecycle.model import Event

log = structlog.get_logger(__name__)

PENDING_MAX = (
    10_000  # events that wait for the channel; the oldest are dropped, and their number said
)
AT_ONCE = 10  # told by one call: were it more, a call that fails would repeat those before it
INTERVAL = 0.5  # seconds between two turns


def is_told(event_type: str) -> bool:
    """Steps of a boot are for the page that shows them, sessions for /metrics."""
    return event_type.startswith(("workspace.", "machine.")) and event_type != "workspace.progress"


class Herald:
    def __init__(self, channel: Channel, leads: Callable[[], bool], bound: int = PENDING_MAX) -> None:  # fmt: skip
        """leads: whether this process runs the loops."""
        self._channel, self._leads = channel, leads
        self._pending: deque[Event] = deque()
        self._bound, self._dropped = bound, 0

    def on_event(self, event: Event) -> None:
        """For News.listen."""
        if not self._leads() or not is_told(event.type):
            return
        if len(self._pending) == self._bound:
            self._pending.popleft()
            self._dropped += 1
        self._pending.append(event)

    async def tick(self) -> None:
        """One turn, for `every(INTERVAL, …)`: tell all that waits. What cannot be told waits on."""
        self._say_dropped()
        while self._pending:
            batch = [self._pending[n] for n in range(min(AT_ONCE, len(self._pending)))]
            try:
                refused = await self._channel.tell(batch)
            except ChannelError as error:
                log.warning("channel.away", why=str(error), waiting=len(self._pending))
                return
            if refused:
                log.warning("channel.lost", events=refused)
            told = {event.id for event in batch}
            while (
                self._pending and self._pending[0].id in told
            ):  # newer ones may have come meanwhile
                self._pending.popleft()

    async def close(self, within: float = 2.0) -> None:
        """Tell what still waits, for at most that many seconds."""
        try:
            async with asyncio.timeout(within):
                await self.tick()
        except TimeoutError:
            pass
        if self._pending:
            log.warning("channel.unsaid", events=len(self._pending))

    def _say_dropped(self) -> None:
        if self._dropped:
            log.warning("channel.dropped", events=self._dropped, bound=self._bound)
            self._dropped = 0
