"""Stores: where records live. One file per technology behind the Protocols below.

StoreError
├── StoreUnavailable   the store did not answer; nothing is known, so nothing may be decided
├── Conflict           the record is not in the state the change was decided on; look again
└── LimitReached       a bound refused it; .limit names the quota or setting, .used what is taken
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from lifecycle.model import Workspace, WorkspaceStatus


class StoreError(Exception):
    """Root of what a store raises."""


class StoreUnavailable(StoreError):
    """The store did not answer."""


class Conflict(StoreError):
    """The record has changed since the decision. actual: the status it is in now, "" if it is gone."""

    def __init__(self, message: str, actual: str = "") -> None:
        super().__init__(message)
        self.actual = actual


class LimitReached(StoreError):
    """A bound refused the change. limit: the quota's or the setting's name. allowed, used: how many (or
    hours). frees_at_ms: when it frees by itself; None: nobody knows, or not by waiting. retry_after:
    seconds until then, by the store's clock."""

    def __init__(
        self,
        limit: str,
        allowed: float,
        used: float,
        frees_at_ms: int | None = None,
        retry_after: float = 0,
    ) -> None:
        super().__init__(f"{limit}: {used:g} of {allowed:g} are used")
        self.limit, self.allowed, self.used = limit, allowed, used
        self.frees_at_ms, self.retry_after = frees_at_ms, retry_after


class WorkspaceStore(Protocol):
    """Workspaces' records as the edge sees them. Times are the store's own clock, milliseconds."""

    async def now_ms(self) -> int:
        """The store's clock."""

    async def ensure(
        self,
        user_id: str,
        name: str = "",
        *,
        plan: str = "default",
        priority: str = "normal",
        region: str = "local",
    ) -> tuple[Workspace, bool]:
        """The user's workspace of that name, made (status stopped, epoch 0) if there was none; True if made.
        Raises LimitReached("workspaces")."""

    async def get(self, workspace_id: str) -> Workspace | None: ...

    async def list(
        self, user_id: str | None = None, status: Collection[WorkspaceStatus] | None = None
    ) -> list[Workspace]:
        """Newest first."""

    async def wake(self, workspace_id: str, priority: str = "") -> Workspace:
        """Ask for it to run. Asleep → queued; stopping or terminating → next = "start"; else its status is unchanged.
        What was moved is theirs who ask, and no longer `moved`: it runs for a whole idle timeout from now, or its next boot.
        Raises LimitReached("running", "hours_a_day", "hours_a_month", "start_rate", "max_queue"), Conflict
        when there is no such workspace."""

    async def stop(self, workspace_id: str, reason: str, then: str = "") -> Workspace:
        """Ask for it to stop. Queued → stopped; starting or running → stopping; else unchanged (then is noted)."""

    async def terminate(self, workspace_id: str, reason: str) -> Workspace:
        """Ask for snapshot and termination: asleep → terminating; running → stop(then="terminate")."""

    async def delete(self, workspace_id: str) -> None:
        """Forget a terminated workspace's record. Raises Conflict in any other status."""

    async def touch(self, workspace_id: str, kind: str, source: str = "api") -> bool:
        """Explicit activity, now. source: where it was seen, in words. False when it neither runs nor starts, nor is on
        its way to another machine."""

    async def extend(self, workspace_id: str, seconds: float) -> Workspace:
        """Not to be stopped for idleness before now + seconds."""

    async def set_policy(self, workspace_id: str, text: str) -> Workspace:
        """What it says otherwise than its plan, as JSON; "" for nothing."""

    async def keep(self, workspace_id: str, seconds: float) -> Workspace:
        """Not to be terminated before now + seconds."""

    async def pin(self, workspace_id: str, pinned: bool) -> Workspace:
        """Never to be stopped by itself, or no longer so."""

    async def queue_position(self, workspace_id: str) -> int | None:
        """Place in the boot queue, 1 is next; None when it is not queued."""
