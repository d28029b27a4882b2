"""Makes notices of what happened to workspaces without their people's asking, from the events.

The leader reads on from a cursor that is kept with the events. It moves after the notices are written,
and each event gives one notice at most: a leader that is killed in between loses none and tells none twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import structlog

from lifecycle.model import Event, Workspace, WorkspaceStatus
from lifecycle.moving import MOVING
from lifecycle.notices import FAILED, STOPPED, TERMINATED, Teller, words
from lifecycle.plans import Policy
from lifecycle.policy import ends_at
from lifecycle.stores import StoreError, StoreUnavailable

log = structlog.get_logger(__name__)

INTERVAL = 1.0  # seconds between two looks
AT_ONCE = 500  # events of one read

ASKED_FOR = frozenset({"requested", "gateway stopped", "deleted", "adopted"})
"""Reasons of somebody's own doing."""

CALLED_OFF = frozenset({"retention", "snapshot failed"})
"""Reasons of a workspace that is stopped because its termination was not to be: it was stopped before."""


class History(Protocol):
    async def history(self, after_id: str, limit: int) -> Sequence[Event]: ...

    async def last_event_id(self) -> str: ...


class Records(Protocol):
    async def get(self, workspace_id: str) -> Workspace | None: ...


class Cursor(Teller, Protocol):
    async def followed(self) -> str:
        """The newest event that notices were made from; "" before the first."""

    async def follow_from(self, event_id: str) -> None:
        """It is that one now."""


class Following:
    def __init__(
        self,
        signals: History,
        store: Records,
        notices: Cursor,
        policy_of: Callable[[Workspace], Policy],
        newest: Callable[[], str] = lambda: "",
    ) -> None:
        """newest: id of the newest event that this process has read anyway; "" where that is not known."""
        self._newest = newest
        self._signals, self._store, self._notices = signals, store, notices
        self._policy_of = policy_of
        self._after = ""

    async def tick(self) -> None:
        """Tell of what happened since the last turn of any leader."""
        if self._after and self._newest() == self._after:
            return  # as in most seconds
        if self._after and not await self._signals.history(self._after, 1):
            return
        after = await self._notices.followed()
        if not after:
            await self._notices.follow_from(await self._signals.last_event_id())
            return
        while events := await self._signals.history(after, AT_ONCE):
            for event in events:
                if is_told(event):
                    await self._tell(event)
            after = events[-1].id
            await self._notices.follow_from(after)
        self._after = after

    async def _tell(self, event: Event) -> None:
        workspace = await self._store.get(event.data.get("workspace", ""))
        if workspace is None:
            return
        reason, epoch = event.data.get("reason", ""), event.data.get("epoch", "0")
        # A boot ends once; what never got a machine may fail often, each time anew.
        key = f"{event.type}/{event.id if event.type == FAILED else epoch}"
        text = told(event, workspace, self._policy_of(workspace))
        data = {name: value for name, value in (("reason", reason), ("epoch", epoch)) if value}
        try:
            await self._notices.tell(workspace, event.type, key, text, data)
        except StoreUnavailable:
            raise
        except StoreError as error:  # the same would be refused again, and what follows would wait
            log.error("notice.refused", workspace=workspace.id, event_id=event.id, why=str(error))


def is_told(event: Event) -> bool:
    """Whether a person is to hear of it who did not ask for it."""
    reason = event.data.get("reason", "")
    if event.type == STOPPED:
        return reason not in ASKED_FOR | CALLED_OFF and not reason.startswith(MOVING)
    return event.type == FAILED or (event.type == TERMINATED and reason not in ASKED_FOR)


def told(event: Event, workspace: Workspace, policy: Policy) -> str:
    """In words. The record may be ahead of the event."""
    reason = event.data.get("reason", "")
    if event.type == TERMINATED:
        return words.terminated(workspace)
    if event.type == STOPPED:
        stopped = workspace.status is WorkspaceStatus.STOPPED
        return words.stopped(workspace, reason, ends_at(workspace, policy) if stopped else None)
    same = workspace.status is WorkspaceStatus.FAILED and workspace.error_code == reason
    return words.failed(workspace, workspace.error if same else reason)
