"""Workspace → its record, cached while it runs. Events drop what has changed.

While Redis is away the last known route of a running workspace is used: what was open goes on, and what
was reachable stays reachable.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict

from lifecycle.model import Event, Workspace, WorkspaceStatus
from lifecycle.stores import StoreUnavailable, WorkspaceStore

ROUTES_MAX = 10_000  # the least recently used goes first; it is read again when needed
FRESH = 30.0  # seconds a route is used without asking again, should an event ever be missed


class Routes:
    def __init__(self, store: WorkspaceStore) -> None:
        self._store = store
        self._loop = asyncio.get_running_loop()
        self._known: OrderedDict[str, tuple[Workspace, float]] = OrderedDict()
        self._changes = 0
        """Events so far: a record read while one came in may already be old and is not kept."""

    def on_event(self, event: Event) -> None:
        if event.type.startswith("session.") or event.type == "workspace.extended":
            return  # changes nothing of a record that a route needs
        self._changes += 1
        if event.type == "events.reset":
            self._known.clear()
        else:
            self._known.pop(event.data.get("workspace", ""), None)

    def known(self, workspace_id: str) -> Workspace | None:
        """The record of a running workspace as it was last read, if it need not be read again yet."""
        known = self._known.get(workspace_id)
        if known is None or self._loop.time() >= known[1]:
            return None
        return known[0]

    async def find(self, workspace_id: str) -> Workspace | None:
        """The record; None when there is none. Raises StoreUnavailable when nothing is known."""
        now = self._loop.time()
        known = self._known.get(workspace_id)
        if known is not None and now < known[1]:
            self._known.move_to_end(workspace_id)
            return known[0]
        before = self._changes
        try:
            record = await self._store.get(workspace_id)
        except StoreUnavailable:
            if known is None:
                raise
            # The next one does not wait for Redis again. What changes meanwhile is told when it is back.
            self._known[workspace_id] = (known[0], self._loop.time() + FRESH)
            return known[0]
        if record is None or record.status is not WorkspaceStatus.RUNNING:
            self._known.pop(workspace_id, None)
        elif before == self._changes:
            self._known[workspace_id] = (record, now + FRESH)
            self._known.move_to_end(workspace_id)
            while len(self._known) > ROUTES_MAX:
                self._known.popitem(last=False)
        return record
