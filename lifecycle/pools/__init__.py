"""Pools: what adds and removes machines. One file per technology behind the Protocol below."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol


class PoolError(Exception):
    """A pool could not do what it was asked. str(error) says what, to what, and what to do next."""


class NoCapacity(PoolError):
    """The technology has no more machines to give just now; try again later.

    machine_ids: those that certainly do not exist; of any other of that launch nothing is said.
    """

    def __init__(self, message: str, machine_ids: Collection[str] = ()) -> None:
        super().__init__(message)
        self.machine_ids = tuple(machine_ids)


class Throttled(PoolError):
    """The technology's API takes no more calls just now: ask it less, and again later."""


@dataclass(frozen=True, slots=True)
class Launch:
    """One machine to add. Written down in the store before the pool hears of it.

    zone: where it has to be, for a volume that waits there; "" is anywhere. Only a pool that chooses zones
    itself can honour it: whoever asks looks again where the machine has come up.
    """

    machine_id: str
    token: str = field(repr=False)
    slots: int
    zone: str = ""


State = Literal["launching", "running", "stopping", "stopped"]


@dataclass(frozen=True, slots=True)
class Observed:
    """What the pool itself sees of a machine.

    state: "stopping": it cannot be started before it is stopped; "stopped": it does not run, its disk
    is still there. address: "host:port" of its agent; "" as long as only the agent can say it.
    token, slots: what it was launched with, as far as the pool knows. instance: the technology's own
    name for it. zone: where its disks can be attached; "" when that is everywhere. leaving: why the
    technology is about to take it away; "" while it is not. machine_class: its kind ("m7i.large"), where
    the technology has kinds.
    """

    machine_id: str
    state: State
    address: str = ""
    token: str = field(default="", repr=False)
    slots: int = 0
    instance: str = ""
    zone: str = ""
    leaving: str = ""
    machine_class: str = ""


@dataclass(frozen=True, slots=True)
class Traits:
    """What the technology is like.

    lag: seconds that describe() may be behind what is true; what it does not show for that long is gone.
    keeps_disks: a stopped machine keeps its disk and can be started again.
    joins: machines join by themselves and say their addresses; describe() need not know them.
    """

    lag: float = 0.0
    keeps_disks: bool = True
    joins: bool = False


class Pool(Protocol):
    """Asked by the lifecycle loops. Every verb is safe to repeat: an answer may have been lost."""

    name: str
    traits: Traits

    async def launch(self, launches: Sequence[Launch]) -> list[str]:
        """Add these machines. One that exists already is left alone. Returns notices in words: what
        went otherwise than asked for ("no capacity for m7i.large in eu-1a: took eu-1b").
        Raises NoCapacity when some could not be had anywhere, Throttled when it was asked too often, else
        PoolError."""

    async def describe(self) -> list[Observed]:
        """Every machine of this pool that exists, stopped ones too. Terminated ones are not listed."""

    async def start(self, launch: Launch) -> None:
        """Start a stopped machine on the disk it had. Starting a running one is success."""

    async def stop(self, machine_id: str) -> None:
        """Stop it and keep its disk (hibernate it, where the pool is set so). Returns once that is under
        way; describe() tells when it is done. Stopping a stopped one is success."""

    async def terminate(self, machine_id: str) -> None:
        """Remove it and its disk. Removing one that is gone is success."""

    async def protect(self, machine_ids: Collection[str]) -> None:
        """These hold workspaces: whatever the technology does by itself, it must not remove them. Given
        anew with every turn of the loops; any other loses its protection."""

    async def close(self, stop_machines: bool) -> None:
        """Let go of the pool; with stop_machines, stop every machine in order and keep its disk."""
