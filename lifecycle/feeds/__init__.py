"""Feeds: where a cloud says what happens to machines. One file per technology behind the Protocol below."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol


class FeedError(Exception):
    """A feed could not be read. str(error) says what, and what to do next."""


@dataclass(frozen=True, slots=True)
class Message:
    """id: the feed's own. receives: how often it was handed out, this time included. handle: what to
    say that it is done with. sent_at_ms: when the feed took it; 0 when that is not known."""

    id: str
    body: str
    receives: int = 1
    sent_at_ms: int = 0
    handle: str = field(default="", repr=False)


class Feed(Protocol):
    """What is received comes again unless it is done, to somebody else or in any order, maybe twice."""

    async def check(self) -> None:
        """Whether it can be read. Raises FeedError, with what to do."""

    async def receive(self, wait: float) -> list[Message]:
        """The next messages, waiting up to `wait` seconds for the first. Raises FeedError."""

    async def done(self, messages: Sequence[Message]) -> None:
        """These do not come again. One that is gone already is success. Raises FeedError."""

    async def close(self) -> None:
        """Let go of it."""
