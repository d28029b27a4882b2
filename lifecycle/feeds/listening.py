"""Takes what a feed says to whoever acts on it, and only then says that it is done."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from lifecycle.cloud_events import parse
from lifecycle.feeds import Feed, FeedError, Message
from lifecycle.stores import StoreError

log = structlog.get_logger(__name__)

RECEIVES_MAX = 5  # a message that failed this often never gets better: it goes, with an error log
WAIT = 20.0  # seconds of one receive
RETRY = 5.0  # seconds until a feed that failed is asked again, or the store that was away

Handle = Callable[[str, str, int, str], Awaitable[None]]
"""Takes kind, instance, at_ms and detail of a cloud_events.Notice."""


class Listening:
    def __init__(self, feed: Feed, handle: Handle) -> None:
        """handle: safe to repeat. It may raise; the message comes again then."""
        self._feed, self._handle = feed, handle

    async def run(self) -> None:
        """Listen for ever. A feed that fails is told once, until it is heard again."""
        silent = ""
        while True:
            try:
                await self.turn(WAIT)
                if silent:
                    log.info("feed.heard_again")
                silent = ""
                continue
            except (FeedError, StoreError) as error:
                if str(error) != silent:
                    silent = str(error)
                    log.warning("feed.silent", why=silent, next_try_s=RETRY)
            except Exception:
                log.exception("feed.failed", next_try_s=RETRY)
            await asyncio.sleep(RETRY)

    async def turn(self, wait: float) -> int:
        """Receive once, handle, say done: how many messages came. Raises FeedError; StoreError when the
        store was away: what was not handled comes again."""
        messages = await self._feed.receive(wait)
        done: list[Message] = []
        away: StoreError | None = None
        for message in messages:
            try:
                if await self._take(message):
                    done.append(message)
            except StoreError as error:
                away = error  # not the message's fault, however often it came
        if done:
            await self._feed.done(done)
        if away is not None:
            raise away
        return len(messages)

    async def _take(self, message: Message) -> bool:
        """Whether it is done with. Raises StoreError."""
        heard = parse(message.body, message.sent_at_ms)
        if heard.malformed:
            log.error("feed.unreadable", id=message.id, why=heard.why, body=message.body[:200])
            return True
        if heard.why:
            log.debug("feed.ignored", id=message.id, why=heard.why)
        try:
            for notice in heard.notices:
                await self._handle(notice.kind, notice.instance, notice.at_ms, notice.detail)
        except StoreError:
            raise
        except Exception as error:
            poison = message.receives >= RECEIVES_MAX
            log.error(
                "feed.poison" if poison else "feed.not_handled",
                id=message.id, receives=message.receives, why=repr(error), body=message.body[:200],
            )  # fmt: skip
            return poison
        return True
