"""Who is where: machines, the workspaces that hold their slots, and the sessions that are open in them. Pure."""

from __future__ import annotations

from collections import Counter

from lifecycle.idleness import idle_ms
from lifecycle.model import Machine, MachineStatus, Workspace
from lifecycle.simulation.choice import Choice
from lifecycle.simulation.clock import Clock
from lifecycle.simulation.in_place import put
from lifecycle.simulation.ledger import Ledger

_M = MachineStatus


class Seats:
    """machines: all that are known. listed: those about which something may have to be done, so not those that are ready
    and in use. sessions: workspace → how many are open. choice: of machines with a free slot."""

    def __init__(self, clock: Clock, ledger: Ledger) -> None:
        self._clock, self._ledger = clock, ledger
        self.machines: dict[str, Machine] = {}
        self.listed: dict[str, Machine] = {}
        self.sessions: Counter[str] = Counter()
        self.choice = Choice(clock, self._idle)
        self._on: dict[str, dict[str, Workspace]] = {}  # machine → what holds a slot of it

    def on(self, machine_id: str) -> list[Workspace]:
        """What holds a slot of it."""
        return list(self._on[machine_id].values())

    def at(self, machine_id: str, workspace_id: str) -> Workspace:
        return self._on[machine_id][workspace_id]

    def in_use(self, machine_id: str) -> bool:
        """Whether a session is open there."""
        return any(map(self.sessions.get, self._on[machine_id]))

    def _idle(self, machine: Machine) -> int:
        now, sessions = self._clock.now_ms, self.sessions
        return idle_ms(
            (
                now if sessions[w.id] else max(w.left_at_ms, 0, *w.seen.values())
                for w in self._on[machine.id].values()
            ),
            now,
        )

    # Machines

    def add(self, machine: Machine) -> None:
        self.machines[machine.id] = self.listed[machine.id] = machine
        self._on[machine.id] = {}

    def remove(self, machine: Machine) -> None:
        """Nothing may be on it."""
        del self._on[machine.id], self.machines[machine.id]
        self.listed.pop(machine.id, None)
        self.choice.forget(machine.id)

    def changed(self, machine: Machine, taken: bool = False) -> None:
        """Its status, or who is on it. taken: somebody has just come."""
        if machine.status is _M.READY and machine.occupied:
            self.listed.pop(machine.id, None)
        else:
            self.listed[machine.id] = machine
        self.choice.see(machine, taken)

    # Slots

    def take(self, machine: Machine, workspace: Workspace) -> None:
        """A slot. The workspace is put there and boots anew."""
        if workspace.machine_id:
            self._ledger.broken(f"{workspace.id} boots while it is on {workspace.machine_id}")
        put(machine, occupied=machine.occupied + 1, empty_since_ms=0)
        if machine.occupied > machine.slots:
            self._ledger.broken(f"{machine.id} holds {machine.occupied} of {machine.slots} slots")
        self._on[machine.id][workspace.id] = workspace
        put(workspace, machine_id=machine.id, epoch=workspace.epoch + 1)
        self.changed(machine, taken=True)

    def give_up(self, workspace: Workspace) -> Machine:
        """Its slot; its files leave with it, for machines come and go, and its sessions end. The machine it was on."""
        machine = self.machines[workspace.machine_id]
        del self._on[machine.id][workspace.id]
        put(machine, occupied=machine.occupied - 1)
        if not machine.occupied:
            put(machine, empty_since_ms=self._clock.now_ms)
        self.changed(machine)
        put(workspace, machine_id="", epoch=workspace.epoch + 1)
        self.sessions.pop(workspace.id, None)
        return machine

    # Sessions

    def connect(self, workspace: Workspace, seconds: float) -> None:
        """Somebody does, and stays for so long."""
        self.sessions[workspace.id] += 1
        clock = self._clock
        clock.call(clock.now + seconds, self._disconnect, workspace, workspace.epoch)

    def _disconnect(self, workspace: Workspace, epoch: int) -> None:
        if workspace.epoch != epoch:
            return  # that boot is over, and its sessions with it
        self.sessions[workspace.id] -= 1
        workspace.seen["input"] = self._clock.now_ms
        put(workspace, left_at_ms=self._clock.now_ms)
