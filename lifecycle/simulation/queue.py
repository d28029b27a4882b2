"""Who waits for a slot, since when, and who is next. Pure."""

from __future__ import annotations

from heapq import heappop, heappush
from math import inf

from lifecycle.model import Workspace
from lifecycle.queueing import boost_ms
from lifecycle.simulation.clock import Clock
from lifecycle.simulation.ledger import Ledger


class Queue:
    """Of workspaces. For those that somebody waits for it is known since when, and for how long they will stay; they may
    be on the move still, and in the queue only later. Others are started by their schedule, or again after a move."""

    def __init__(self, clock: Clock, ledger: Ledger) -> None:
        self._clock, self._ledger = clock, ledger
        self._asked: dict[str, tuple[float, float]] = {}  # workspace → since when, stay
        self._heap: list[tuple[float, int, Workspace]] = []

    def __len__(self) -> int:
        return len(self._heap)

    def awaited(self, workspace: Workspace) -> bool:
        """Whether somebody waits for it."""
        return workspace.id in self._asked

    def ask(self, workspace: Workspace, stay: float) -> None:
        """Somebody waits for it from now on, and then stays for so many seconds."""
        self._asked[workspace.id] = self._clock.now, stay
        self._ledger.arrived()

    def ask_again(self, workspace: Workspace, stay: float) -> None:
        """Whoever waits for it has come once more: they stay for the longest of their visits."""
        since, before = self._asked[workspace.id]
        self._asked[workspace.id] = since, max(before, stay)

    def keep(self, workspace: Workspace, stay: float) -> None:
        """Who was there when it had to go stays on, and is no new arrival."""
        self._asked[workspace.id] = inf, stay

    def answer(self, workspace: Workspace) -> float | None:
        """It is there. How long whoever waited for it stays; None: nobody did."""
        asked = self._asked.pop(workspace.id, None)
        if asked is None:
            return None
        since, stay = asked
        self._ledger.waited(since, workspace.priority)
        return stay

    def join(self, workspace: Workspace) -> None:
        score = self._clock.now - boost_ms(workspace.priority) / 1000
        heappush(self._heap, (score, self._clock.number(), workspace))
        self._ledger.more_waiting(1)

    @property
    def first(self) -> Workspace:
        return self._heap[0][2]

    def leave(self) -> None:
        """The first one has a slot."""
        heappop(self._heap)
        self._ledger.more_waiting(-1)
