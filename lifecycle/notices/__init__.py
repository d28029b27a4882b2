"""Notices: what a person is told of their workspaces. Each is written down once and then delivered by every
channel that is set up: in the IDE, by webhook, by e-mail."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from lifecycle.model import Workspace

STOPPING_SOON = "workspace.stopping_soon"
STAYS = "workspace.stays"
STOPPED = "workspace.stopped"
FAILED = "workspace.failed"
TERMINATING_SOON = "workspace.terminating_soon"
TERMINATED = "workspace.terminated"
QUOTA = "quota.alert"

TYPES = (STOPPING_SOON, STAYS, STOPPED, FAILED, TERMINATING_SOON, TERMINATED, QUOTA)


@dataclass(frozen=True, slots=True)
class Notice:
    """seq: counts up within its workspace, from 1. at_ms: when it was written. text: for a person.
    data: at (ms, of what is announced), reason, … as far as they apply; all of it text."""

    seq: int
    type: str
    workspace_id: str
    user_id: str
    at_ms: int
    text: str
    data: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Preferences:
    """What a person wants to hear of, and where. email: "" for no mail. opt_out: type → channels ("ide",
    "webhook", "email") that it does not come by."""

    email: str = ""
    opt_out: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


class Teller(Protocol):
    async def tell(
        self, workspace: Workspace, type: str, key: str, text: str, data: Mapping[str, str]
    ) -> int:
        """Write a notice down and hand it to every channel, in one step; its seq. key: names what it is
        about, such as "stop/3/1700000000000/300": told of that before, nothing is told again and 0
        is answered. Raises StoreUnavailable."""


class Notices(Teller, Protocol):
    async def since(self, workspace_id: str, seq: int, limit: int = 50) -> list[Notice]:
        """Those after that number, oldest first. The newest 50 of a workspace are kept."""
