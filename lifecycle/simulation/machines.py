"""The life of machines: launched, come up, parked, given back, taken away, given up. Pure.

What is wanted of them is decided elsewhere; the cloud (cloud.py) answers, late or never. What its answers mean for the
records is lifecycle.reconcile's decision, and lifecycle.moving's where it takes a machine away.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

from lifecycle import moving, reconcile
from lifecycle.model import STANDBY, Machine, MachineStatus
from lifecycle.scaling.records import Rule
from lifecycle.simulation.clock import Clock
from lifecycle.simulation.cloud import CloudModel
from lifecycle.simulation.in_place import put, turn
from lifecycle.simulation.ledger import Ledger
from lifecycle.simulation.moves import Moves
from lifecycle.simulation.people import People
from lifecycle.simulation.seats import Seats

_M = MachineStatus

NO_CAPACITY_PAUSE = 10.0  # seconds until a cloud without capacity is asked again, as the loops do
RECENT = 100  # boots that are remembered, as the store does


class Machines:
    """boots, starts: seconds that new and stopped ones took lately, the last first."""

    def __init__(
        self, clock: Clock, cloud: CloudModel, seats: Seats, people: People, moves: Moves, ledger: Ledger,
        rule: Rule, launch_timeout: float,
    ) -> None:  # fmt: skip
        self._clock, self._cloud, self._seats = clock, cloud, seats
        self._people, self._moves, self._ledger = people, moves, ledger
        self._rule, self._launch_timeout = rule, launch_timeout
        self._refused_until = -inf
        self._goes: dict[str, float] = {}  # machine → when it is taken back
        self.boots: list[float] = []
        self.starts: list[float] = []
        self._throttled = False

    def throttled(self) -> bool:
        """Whether the API granted less than was asked for, since this was asked last."""
        found, self._throttled = self._throttled, False
        return found

    # What is decided

    def launch(self, count: int) -> None:
        if not count or self._clock.now < self._refused_until:
            return
        self._ledger.time_passed()
        ids = [self._new() for _ in range(count)]
        self._ledger.tally("launched", count)
        self._ask(ids)

    def _new(self) -> str:
        now_ms = self._clock.now_ms
        machine = Machine(
            f"m-{self._clock.number()}", "simulated", _M.LAUNCHING, now_ms, self._rule.slots,
            created_at_ms=now_ms,
        )  # fmt: skip
        self._seats.add(machine)
        return machine.id

    def _ask(self, ids: Sequence[str]) -> None:
        answer = self._cloud.launch(ids, self._clock.now)
        for machine_id, when in answer.up:
            self._clock.call(when, self._come_up, self._seats.machines[machine_id])
        for machine_id in answer.refused:
            self._become(self._seats.machines[machine_id], _M.TERMINATED)
        self._throttled |= answer.throttled
        self._ledger.tally("refused", len(answer.refused))
        if answer.no_capacity:
            self._refused_until = self._clock.now + NO_CAPACITY_PAUSE

    def start(self, machine_id: str) -> None:
        machine = self._seats.machines[machine_id]
        self._ledger.time_passed()
        when = self._cloud.start(machine.id, self._clock.now)
        if when is None:  # asked again with the next decision that wants it
            self._ledger.tally("refused")
            return
        put(machine, reason="")
        self._become(machine, _M.LAUNCHING)
        self._ledger.tally("started")
        self._clock.call(when, self._come_up, machine)

    def undrain(self, machine_id: str) -> None:
        self._become(self._seats.machines[machine_id], _M.READY)

    def give_back(self, machine_id: str) -> None:
        machine = self._seats.machines[machine_id]
        if machine.occupied:
            self._ledger.broken(f"{machine.id} was drained with workspaces on it")
        self._become(machine, _M.DRAINING)
        self._become(machine, _M.TERMINATED)
        self._ledger.tally("given back")

    def park(self, machine_id: str) -> None:
        machine = self._seats.machines[machine_id]
        if machine.occupied:
            self._ledger.broken(f"{machine.id} was stopped with workspaces on it")
        put(machine, reason=STANDBY)
        self._goes.pop(machine.id, None)
        self._become(machine, _M.STOPPED)
        self._ledger.time_passed()
        self._cloud.stop(machine.id)

    # What happens to them

    def _come_up(self, machine: Machine) -> None:
        if machine.status is not _M.LAUNCHING or machine.id not in self._cloud.instances:
            return  # given up meanwhile
        recent = self.boots if machine.status_since_ms == machine.created_at_ms else self.starts
        recent.insert(0, self._clock.now - self._clock.at(machine.status_since_ms))
        del recent[RECENT:]
        put(machine, empty_since_ms=self._clock.now_ms)
        self._become(machine, _M.READY)
        goes = self._cloud.taken_back_at(machine.id, self._clock.now)
        if goes is not None:
            self._goes[machine.id] = goes
            self._clock.call(goes - self._cloud.notice, self._doom, machine, goes)
        self._people.serve_queue()

    def _stays(self, machine: Machine, goes: float) -> bool:
        """Whether it was stopped since, or is gone: what was to take it back ended with that life."""
        return self._goes.get(machine.id) != goes

    def _doom(self, machine: Machine, goes: float) -> None:
        """Notice that it will be taken away."""
        if self._stays(machine, goes):
            return
        doomed = moving.deadline(machine, self._clock.ms(goes), self._clock.now_ms)
        if doomed is None:
            return
        put(machine, doomed_at_ms=doomed)
        if machine.status is _M.READY:
            self._become(machine, _M.DRAINING)
        self._moves.evacuate(machine)
        self._clock.call(goes, self._take_away, machine, goes)

    def _take_away(self, machine: Machine, goes: float) -> None:
        if self._stays(machine, goes):
            return
        if self._seats.in_use(machine.id):
            self._ledger.broken(f"{machine.id} was taken away with sessions on it")
        self._ledger.tally("taken back")
        self._become(machine, _M.TERMINATED)

    def reconcile(self) -> None:
        """Records against what the cloud shows, by the code that does so live."""
        suspects = [m for m in self._seats.listed.values() if m.status is not _M.READY]
        if not suspects:
            return
        shown = self._cloud.describe(suspects)
        standby = reconcile.standby(suspects, self._rule.standby)
        outlook = reconcile.Outlook(self._launch_timeout, joins=True, standby=standby)
        repeats = []
        for change in reconcile.converge_machines(suspects, shown, self._clock.now_ms, outlook):
            if isinstance(change, reconcile.Repeat):
                repeats.append(change.machine.id)
            elif isinstance(change, reconcile.Remove):
                self._become(change.machine, _M.TERMINATED)
                self._ledger.tally("given up")
        if repeats:
            self._ask(repeats)

    def _become(self, machine: Machine, to: MachineStatus) -> None:
        turn(machine, to, self._clock.now_ms)
        if to is _M.TERMINATED:
            self._end(machine)
        else:
            self._seats.changed(machine)

    def _end(self, machine: Machine) -> None:
        for workspace in self._seats.on(machine.id):
            self._ledger.broken(f"{machine.id} was removed with {workspace.id} on it")
            self._people.lose(workspace)
        self._seats.remove(machine)
        self._goes.pop(machine.id, None)
        self._ledger.time_passed()
        self._cloud.terminate(machine.id)
