"""The tabs of one workspace: one look at its record tells them all.

When is the next look? With the next event of the workspace; when the countdown before its stop begins,
for activity moves the stop without an event; and every few seconds from there on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

import structlog

from gateway import closing
from gateway.control_messages import notice, state
from gateway.tab import Tab
from lifecycle.activity import bound
from lifecycle.model import Workspace, WorkspaceStatus
from lifecycle.notices import FAILED, STOPPED, TERMINATED, Notice
from lifecycle.notices.following import ASKED_FOR
from lifecycle.plans import Policy
from lifecycle.stores import StoreError

log = structlog.get_logger(__name__)

_W = WorkspaceStatus

COUNTDOWN_LOOK = 5.0  # seconds between two looks while a stop is near
LOOK_MAX = 600.0  # seconds between two looks without any news
RETRY = 1.0  # seconds until the next try while Redis is away
LINGER = (
    3.0  # seconds that an end waits for the notice that explains it; it is made within about one
)

_ENDINGS: Mapping[WorkspaceStatus, closing.Close] = {
    _W.STOPPED: closing.STOPPED,
    _W.FAILED: closing.CRASHED,
    _W.TERMINATING: closing.TERMINATED,
    _W.TERMINATED: closing.TERMINATED,
}
_EXPLAINS = frozenset({STOPPED, FAILED, TERMINATED})


class Records(Protocol):
    """The store, as far as a look reads it."""

    async def now_ms(self) -> int: ...

    async def get(self, workspace_id: str) -> Workspace | None: ...


class NoticesSince(Protocol):
    async def since(self, workspace_id: str, seq: int, limit: int = 50) -> list[Notice]:
        """Those after that number, oldest first."""


class Look:
    """Reads what the tabs of a workspace are told; so many at once."""

    def __init__(
        self,
        store: Records,
        notices: NoticesSince,
        policy_of: Callable[[Workspace], Policy],
        trusted_since: Callable[[], Awaitable[int | None]],
        at_once: int,
    ) -> None:
        self._store, self._notices, self.policy_of = store, notices, policy_of
        self._trusted_since = trusted_since
        self._turns = asyncio.Semaphore(at_once)

    async def __call__(
        self, workspace_id: str, seq: int
    ) -> tuple[Workspace | None, int, int | None, list[Notice]]:
        """(record, now by the store's clock, since when heartbeats are trusted, notices after seq).
        The notices are read last: what the record's state led to is among them, or comes with an event."""
        async with self._turns:
            workspace = await self._store.get(workspace_id)
            now_ms, trusted = await self._store.now_ms(), await self._trusted_since()
            return workspace, now_ms, trusted, await self._notices.since(workspace_id, seq)


class Room:
    def __init__(self, workspace_id: str, read: Look) -> None:
        self.id, self._read = workspace_id, read
        self.tabs: set[Tab] = set()
        self.counting_down = False
        """Its person has been told of a stop, or is about to be."""
        self._due = False
        self._looking: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._seq = 0
        """Of the newest notice that every greeted tab has."""
        self._anew = True
        self._newest: Notice | None = None

    def look(self) -> None:
        """Now, or once more after the look that is on."""
        self._due = True
        if self._looking is None:
            self._looking = asyncio.create_task(self._look())

    def look_anew(self) -> None:
        """From the first notice on: somebody is new, or the store lost its data and numbers anew."""
        self._anew = True
        self.look()

    def close(self) -> None:
        """Its last tab has gone."""
        self._stop_timer()
        if self._looking is not None:
            self._looking.cancel()

    async def _look(self) -> None:
        try:
            while self._due:
                self._due = False
                anew, self._anew = self._anew, False
                try:
                    found = await self._read(self.id, 0 if anew else self._seq)
                except StoreError as error:
                    log.warning("control.look_failed", workspace=self.id, why=str(error))
                    self._due, self._anew = True, self._anew or anew
                    await asyncio.sleep(RETRY)
                    continue
                self._tell(*found, anew)
        finally:
            self._looking = None

    def _tell(
        self,
        workspace: Workspace | None,
        now_ms: int,
        trusted: int | None,
        notices: list[Notice],
        anew: bool,
    ) -> None:
        greeted = [tab for tab in self.tabs if tab.greeted]
        if workspace is None:
            for tab in greeted:
                tab.close(closing.NO_SUCH_WORKSPACE)
            return
        policy = self._read.policy_of(workspace)
        stops = bound(workspace, policy, now_ms, trusted)
        said = state(workspace, stops)
        newest = notices[-1].seq if notices else 0
        for tab in greeted:
            if anew and tab.seq > newest:
                tab.seq = 0  # numbered before the store lost its data
            _tell_tab(tab, said, now_ms, notices)
        if notices or anew:
            self._seq, self._newest = newest, notices[-1] if notices else None
        self.counting_down = stops.at_ms is not None and (
            now_ms >= stops.at_ms - 1000 * max(policy.countdown, default=0.0)
        )
        close = _ENDINGS.get(workspace.status)
        if close is None or workspace.next == "start":
            self._again(_next_look(stops.at_ms, now_ms, policy))
        elif self._is_explained(workspace) or now_ms - workspace.status_since_ms >= LINGER * 1000:
            for tab in greeted:
                tab.close(close)
        else:
            self._again(LINGER)

    def _is_explained(self, workspace: Workspace) -> bool:
        """Whether the newest notice is of this end, not of one before; somebody's own wish has none."""
        if workspace.reason in ASKED_FOR:
            return True
        newest = self._newest
        return (
            newest is not None
            and newest.type in _EXPLAINS
            and newest.at_ms >= workspace.running_since_ms
        )

    def _again(self, delay: float) -> None:
        self._stop_timer()
        self._timer = asyncio.get_running_loop().call_later(delay, self.look)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _tell_tab(tab: Tab, said: dict[str, Any], now_ms: int, notices: list[Notice]) -> None:
    if tab.told != said:
        tab.told = said
        tab.push({**said, "now": now_ms})
    for one in notices:
        if one.seq > tab.seq:
            tab.seq = one.seq
            tab.push(notice(one))


def _next_look(stops_at_ms: int | None, now_ms: int, policy: Policy) -> float:
    """Seconds. As the countdown begins, with a little on top: then the stop is near, or has moved."""
    if stops_at_ms is None:
        return LOOK_MAX
    begins = (stops_at_ms - now_ms) / 1000 - max(policy.countdown, default=0.0)
    return min(LOOK_MAX, begins + 0.1) if begins > 0 else COUNTDOWN_LOOK
