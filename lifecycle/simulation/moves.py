"""Which workspaces move to other machines: off a doomed one, and together so that machines come empty. Pure.

Both are decided by what decides live: lifecycle.moving and lifecycle.defragment.
"""

from __future__ import annotations

from math import inf

from lifecycle import defragment, moving
from lifecycle.model import Machine
from lifecycle.simulation.clock import Clock
from lifecycle.simulation.ledger import Ledger
from lifecycle.simulation.people import People
from lifecycle.simulation.seats import Seats

MOVE_EVERY = 10.0  # seconds between two looks for what can move


class Moves:
    """after: seconds without a session after which a workspace may move; 0: none does but off a doomed machine."""

    def __init__(
        self, clock: Clock, seats: Seats, people: People, ledger: Ledger, after: float
    ) -> None:
        self._clock, self._seats, self._people, self._ledger = clock, seats, people, ledger
        self._after, self._moved_at = after, -inf

    def evacuate(self, machine: Machine) -> None:
        here = self._seats.on(machine.id)
        for step in moving.steps(machine, here, self._seats.sessions, self._clock.now_ms):
            if isinstance(step, moving.Move):
                self._people.relocate(step.workspace)
                self._ledger.tally("moved off doomed machines")

    def together(self, spare: int) -> None:
        """So that so many machines come empty, those that are so already among them."""
        if not spare or not self._after or self._clock.now < self._moved_at + MOVE_EVERY:
            return
        self._moved_at = self._clock.now
        used = [m for m in self._seats.machines.values() if m.occupied]
        movable = {m.id: self._movable(m) for m in used if not self._seats.in_use(m.id)}
        spare -= self._seats.choice.empty  # they are given back anyway
        for move in defragment.moves(max(0, spare), used, movable):
            self._people.relocate(self._seats.at(move.machine_id, move.workspace_id))
            self._ledger.tally("moved")

    def _movable(self, machine: Machine) -> list[str]:
        """Those there that may move."""
        now_ms = self._clock.now_ms
        before_ms = now_ms - int(self._after * 1000)
        return [
            one.id
            for one in self._seats.on(machine.id)
            if defragment.movable(one, 0, before_ms, now_ms)
        ]
