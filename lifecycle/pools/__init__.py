"""Pools: what adds and removes machines. One file per technology behind the Protocol below."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol


class PoolError(Exception):
    """A pool could not do what it was asked. str(error) says what, to what, and what to do next."""


class NoCapacity(PoolError):
    """The technology has no more machines to give just now; try again later."""


@dataclass(frozen=True, slots=True)
class Launch:
    """One machine to add. Written down in the store before the pool hears of it."""

    machine_id: str
    token: str = field(repr=False)
    slots: int


@dataclass(frozen=True, slots=True)
class Observed:
    """What the pool itself sees of a machine. "stopped": it does not run, its disk is still there.
    token, slots: what it was launched with, as far as the pool knows."""

    machine_id: str
    state: Literal["launching", "running", "stopped"]
    address: str = ""
    token: str = field(default="", repr=False)
    slots: int = 0


class Pool(Protocol):
    """Asked by the lifecycle loops. Every verb is safe to repeat: an answer may have been lost."""

    name: str

    async def launch(self, launches: Sequence[Launch]) -> None:
        """Add these machines. One that exists already is left alone. Raises PoolError."""

    async def describe(self) -> list[Observed]:
        """Every machine of this pool that exists, stopped ones too. Terminated ones are not listed."""

    async def start(self, launch: Launch) -> None:
        """Start a stopped machine on the disk it had. Starting a running one is success."""

    async def terminate(self, machine_id: str) -> None:
        """Remove it and its disk. Removing one that is gone is success."""

    async def close(self, stop_machines: bool) -> None:
        """Let go of the pool; with stop_machines, stop every machine in order and keep its disk."""
