"""What the API needs from the rest, as it is handed in. Everything may raise StoreUnavailable."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from starlette.requests import Request

from gateway.api.answers import DashboardAnswer
from gateway.api.limits import Limits
from gateway.auth import Admin, Nobody, Person
from lifecycle.agent.contract import Manifest, Report
from lifecycle.joining import Joining
from lifecycle.model import Event, Machine, Workspace
from lifecycle.notices import Notice, Preferences
from lifecycle.notices.deliveries import Delivery, Status
from lifecycle.peaks import Peak
from lifecycle.peaks_book import Book
from lifecycle.peaks_declared import Reach
from lifecycle.plans import Plan, Plans
from lifecycle.pricing import Prices
from lifecycle.quota import Taken
from lifecycle.snapshots.downloads import Archive
from lifecycle.stores import WorkspaceStore
from lifecycle.stores.peaks import Declared

Principal = Admin | Person | Nobody
"""Whoever can call on the base host."""


class Fleet(Protocol):
    async def machines(self) -> list[Machine]:
        """Every machine that is not terminated."""

    async def machine(self, machine_id: str) -> Machine | None: ...

    async def join(
        self, machine_id: str, nonce: str, address: str, instance: str
    ) -> Literal["ok", "used", "gone"]:
        """An agent comes with the code of its launch."""

    async def heard(self, machine_id: str, address: str) -> bool:
        """An agent says where it is; False when no record names the machine."""

    async def report(self, report: Report) -> None:
        """An agent's figures."""

    async def observe(self, machine_id: str, instance: str, zone: str) -> None:
        """What its cloud calls it, and its place; "" is no news."""

    async def hold(self, machine_id: str, held: bool) -> None:
        """An operator drains it, or lets it work again. Raises Conflict."""

    async def pool_decision(self) -> Mapping[str, Any]:
        """The scaler's last decision with its inputs; empty before the first."""


class UsageReader(Protocol):
    async def usage(
        self, user_id: str, since_ms: int = 0
    ) -> Sequence[tuple[str, int, int, int, str, str, int]]:
        """Closed metered intervals (workspace, epoch, start ms, end ms, kind, class, bytes) that end after
        since_ms; none for an unknown user."""

    async def users(self, since_ms: int) -> Sequence[str]:
        """Users with intervals that end after since_ms, or are open, by name."""


class Eta(Protocol):
    async def __call__(self, position: int, workspace: Workspace | None = None) -> float:
        """Seconds until that workspace, in that place of the queue, runs; place 0 is one that boots now."""


class Looks(Protocol):
    async def account(self) -> DashboardAnswer:
        """As of a moment ago."""

    def follow(self) -> AsyncGenerator[DashboardAnswer, None]:
        """One now, and the next as they come."""


class NoticeBook(Protocol):
    async def since(self, workspace_id: str, seq: int, limit: int = 50) -> list[Notice]:
        """Notices after that number, oldest first."""

    async def preferences(self, user_id: str) -> Preferences: ...

    async def prefer(
        self,
        user_id: str,
        email: str | None = None,
        opt_out: Mapping[str, Sequence[str]] | None = None,
    ) -> Preferences:
        """Write down what is given."""


class DeliveryLog(Protocol):
    async def list(
        self, user_id: str | None = None, status: Status | None = None, limit: int = 100
    ) -> Sequence[Delivery]:
        """Newest first."""

    async def retry(self, delivery_id: str) -> Delivery:
        """Begin anew with one that failed. Raises Conflict, with no status when there is none."""


class PeakBook(Protocol):
    async def look(self) -> Book:
        """What is declared and not over."""

    async def in_file(self, name: str) -> bool:
        """Whether the operator's file declares one of that name."""

    async def declare(self, peak: Peak) -> tuple[Declared, int]:
        """Write it down in place of one of its name; and now, in milliseconds."""

    async def remove(self, name: str) -> Peak | None:
        """What was removed; None when there was none."""


class Health(Protocol):
    async def ready(self) -> tuple[bool, Sequence[str]]:
        """Take traffic? If not, why, in words for an operator."""


class IdempotencyKeys(Protocol):
    async def claim(self, key: str, fingerprint: str) -> str:
        """Remember key → fingerprint for a day; answers the fingerprint that holds it, an older one first."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A way into a workspace. url: one use, until expires_at_ms. token: for clients that are no browser."""

    url: str
    token: str
    expires_at_ms: int


async def _nothing_taken(user_id: str) -> Taken:
    """Nothing is counted."""
    return Taken(0)


async def _unnoticed(machine_id: str, kind: str, at_ms: int) -> None:
    """Nobody listens to notices."""


@dataclass(frozen=True, slots=True)
class Parts:
    store: WorkspaceStore
    fleet: Fleet
    history: Callable[[str, int], Awaitable[Sequence[Event]]]
    """Events after that id, oldest first, at most so many; with id "" the newest."""
    subscription: Callable[[str | None], AbstractContextManager[asyncio.Queue[Event]]]
    """A bounded queue that fills with events (of one workspace, or all) from now on; full, the oldest go."""
    usage: UsageReader
    health: Health
    keys: IdempotencyKeys
    identify: Callable[[Request], Principal]
    """Who calls. Raises gateway.auth.BadCookies."""
    origin_allowed: Callable[[Request, bool], bool]
    """May a page of this Origin change something? The second: whether a cookie says who calls."""
    url_of: Callable[[str], str]
    """Workspace id → address of its page."""
    eta: Eta
    enter: Callable[[Workspace, str], Awaitable[Entry]]
    """Mint an entry that leads to this path of the workspace."""
    snapshot: Callable[[str], Awaitable[Manifest]]
    """Snapshot now. Raises SnapshotError, Conflict."""
    download: Callable[[Workspace], Awaitable[Archive]]
    """Its newest snapshot, for its person. Raises SnapshotError."""
    purge: Callable[[str], Awaitable[None]]
    """Forget a terminated workspace: its snapshots first, then its record. Raises Conflict, SnapshotError."""
    joining: Joining
    """Machines' credentials."""
    metrics: Callable[[], bytes]
    openapi: Mapping[str, Any]
    dashboard: Looks
    """Everything at a glance."""
    notices: NoticeBook
    deliveries: DeliveryLog
    peaks: PeakBook
    reach: Reach = field(default_factory=lambda: Reach(5, 10, 2.0))
    """What the pool can do for peaks, before it was measured."""
    noticed: Callable[[str, str, int], Awaitable[None]] = _unnoticed
    """A machine's cloud told it ("spot", "rebalance") that it will be taken away, at that time."""
    prices: Prices | None = None
    """What usage costs; None: nobody said."""
    limits: Limits = field(default_factory=lambda: Limits(50.0))
    """How often each caller may call."""
    plans: Plans = field(default_factory=lambda: Plans(Plan("default")))
    taken: Callable[[str], Awaitable[Taken]] = _nothing_taken
    """User → what they have of their quotas."""
    metrics_token: str = ""
    keep_alive: float = 15
    """Seconds between comments on a silent event stream."""
