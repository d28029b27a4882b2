"""Which machine takes the next one: of a day's machines place() is shown the one alone that it would choose. Pure."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from math import inf

from lifecycle.idleness import LOOK_EVERY
from lifecycle.model import Machine
from lifecycle.placement import best_fit, takes_work
from lifecycle.simulation.clock import Clock


class Choice:
    """Of machines with a free slot. idle: for how many milliseconds nobody has been active on a machine."""

    def __init__(self, clock: Clock, idle: Callable[[Machine], int]) -> None:
        self._clock, self._idle = clock, idle
        self._roomy: dict[str, Machine] = {}
        self._shared: dict[str, Machine] = {}  # those of them that somebody is on
        self._empty: list[
            tuple[int, str]
        ] = []  # heap of those that nobody is on, and of some that were so
        self.idle_ms: dict[str, int] = {}  # of those that somebody is on, as last looked at
        self._looked_at = -inf

    def __bool__(self) -> bool:
        """Whether there is a free slot."""
        return bool(self._roomy)

    @property
    def empty(self) -> int:
        """Machines that nobody is on."""
        return len(self._roomy) - len(self._shared)

    def see(self, machine: Machine, taken: bool = False) -> None:
        """Its status or who is on it has changed. taken: somebody has just come, so that it is in use."""
        if not takes_work(machine) or machine.occupied >= machine.slots:
            self.forget(machine.id)
            return
        self._roomy[machine.id] = machine
        if machine.occupied:
            self._shared[machine.id] = machine
            self.idle_ms[machine.id] = 0 if taken else self._idle(machine)
        else:
            self._nobody_on(machine.id)
            heappush(self._empty, (machine.created_at_ms, machine.id))

    def forget(self, machine_id: str) -> None:
        self._roomy.pop(machine_id, None)
        self._nobody_on(machine_id)

    def _nobody_on(self, machine_id: str) -> None:
        if self._shared.pop(machine_id, None):
            del self.idle_ms[machine_id]

    def best(self) -> Machine | None:
        """The machine that place() would choose among all of them."""
        if not self._shared:
            return self._oldest_empty()
        self._look()
        idle = self.idle_ms
        return min(
            self._shared.values(), key=lambda m: best_fit(m, m.slots - m.occupied, idle[m.id])
        )

    def _look(self) -> None:
        now = self._clock.now
        if len(self._shared) > 1 and now >= self._looked_at + LOOK_EVERY:
            self._looked_at = now
            self.idle_ms = {m.id: self._idle(m) for m in self._shared.values()}

    def _oldest_empty(self) -> Machine | None:
        while self._empty:
            machine = self._roomy.get(self._empty[0][1])
            if machine is not None and not machine.occupied:
                return machine
            heappop(self._empty)
        return None
