"""Channels: who else hears of the life of workspaces and machines. One file per technology behind the Protocol below."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from lifecycle.model import Event


class ChannelError(Exception):
    """It could not be told. str(error) says what to do next."""


class Channel(Protocol):
    async def check(self) -> None:
        """Raise ChannelError with what to do, if nothing can be told like this."""

    async def tell(self, events: Sequence[Event]) -> int:
        """Tell these, in order; how many were refused for good. Raises ChannelError when none could
        be told: they may be told again, and nobody hears one twice who looks at its id."""
