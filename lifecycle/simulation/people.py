"""People and their workspaces: who comes, who gets a slot, and what time does to what runs. Pure.

When a workspace stops, warns or starts by itself is lifecycle.policy's decision, where it boots is placement's, who has
hours left is quota's.
"""

from __future__ import annotations

from lifecycle import policy
from lifecycle.model import Workspace, WorkspaceStatus
from lifecycle.placement import Place, place
from lifecycle.plans import Policy
from lifecycle.simulation.clock import Clock
from lifecycle.simulation.hours import Hours
from lifecycle.simulation.in_place import put, turn
from lifecycle.simulation.ledger import Ledger
from lifecycle.simulation.queue import Queue
from lifecycle.simulation.records import Visit
from lifecycle.simulation.seats import Seats

_W = WorkspaceStatus

MOVE_TAKES = 5.0  # seconds that a workspace is away while it moves: stop, snapshot, restore, start
STAYS_ON = 600.0  # seconds that who was there when it moved stays on
TRUSTED = policy.Facts(trusted_since_ms=1)  # sessions here report without a gap


class People:
    """bounds: how long what runs may live. queue: those that have no slot yet."""

    def __init__(
        self, clock: Clock, seats: Seats, hours: Hours, ledger: Ledger, bounds: Policy
    ) -> None:
        self._clock, self._seats, self._hours, self._ledger = clock, seats, hours, ledger
        self._bounds = bounds
        self.queue = Queue(clock, ledger)
        self._workspaces: dict[int, Workspace] = {}  # by user
        self._arrived = self._departed = self._waited = 0

    def visit(self, visit: Visit) -> None:
        workspace = self._of(visit.user)
        self._ledger.visited()
        if workspace.status is _W.RUNNING:
            self._seats.connect(workspace, visit.seconds)
        elif self.queue.awaited(workspace):  # they are in the queue, or on the move
            self.queue.ask_again(workspace, visit.seconds)
        elif self._hours.used_up(workspace.user_id):
            self._ledger.tally("refused by quota")
        else:
            self._arrive(workspace, visit)

    def _of(self, user: int) -> Workspace:
        workspace = self._workspaces.get(user)
        if workspace is None:
            now_ms = self._clock.now_ms
            workspace = Workspace(f"ws-{user}", f"u-{user}", _W.STOPPED, now_ms, now_ms)
            self._workspaces[user] = workspace
        return workspace

    def _arrive(self, workspace: Workspace, visit: Visit) -> None:
        self.queue.ask(workspace, visit.seconds)
        if workspace.status in (_W.STOPPING, _W.QUEUED):
            return  # it moves, and starts again by itself
        self._arrived += 1
        if visit.priority != workspace.priority:
            put(workspace, priority=visit.priority)
        self._enqueue(workspace)

    # To a slot

    def _enqueue(self, workspace: Workspace) -> None:
        self._turn(workspace, _W.QUEUED)
        self._ledger.more_users(1)
        if not self.queue and self._seats.choice and self._boot_at_once(workspace):
            return
        self._waited += self.queue.awaited(workspace)
        self.queue.join(workspace)

    def serve_queue(self) -> None:
        """Whoever is next takes what has come free."""
        while self.queue and self._seats.choice and self._boot_at_once(self.queue.first):
            self.queue.leave()

    def _boot_at_once(self, workspace: Workspace) -> bool:
        machine = self._seats.choice.best()
        for command in place([workspace], [machine]) if machine else ():
            if isinstance(command, Place):
                self._boot(command)
                return True
        return False

    def _boot(self, command: Place) -> None:
        """Takes no time here."""
        workspace, now_ms = command.workspace, self._clock.now_ms
        self._seats.take(command.machine, workspace)
        self._turn(workspace, _W.STARTING)
        self._turn(workspace, _W.RUNNING)
        moved = workspace.next == "start" and not self.queue.awaited(workspace)
        seen = workspace.seen if moved else {"boot": now_ms}
        put(workspace, seen=seen, next="", running_since_ms=now_ms, moved=moved, warned_ms=0)
        stay = self.queue.answer(workspace)
        if stay is not None:
            self._seats.connect(workspace, stay)
        if moved:  # its time may be over: it stops once whoever is being placed is
            self._look_at(self._clock.now, workspace)
        else:
            self._look(workspace)

    def since_last(self) -> tuple[int, int, int]:
        """How many came for a slot, gave one back, and did not find one free, since this was asked last."""
        found = self._arrived, self._departed, self._waited
        self._arrived = self._departed = self._waited = 0
        return found

    def wait_on(self) -> None:
        """The day ends: whoever waits has waited until now."""
        for workspace in self._workspaces.values():
            self.queue.answer(workspace)

    # What time does

    def _look_at(self, when: float, workspace: Workspace) -> None:
        self._clock.call(when, self._due, workspace, workspace.epoch)

    def _due(self, workspace: Workspace, epoch: int) -> None:
        if workspace.epoch == epoch:
            self._look(workspace)

    def _look(self, workspace: Workspace) -> None:
        """What the policy says of it now, and when it is to be asked again."""
        if self._seats.sessions[workspace.id]:
            workspace.seen["input"] = self._clock.now_ms
        found = policy.look(workspace, self._bounds, TRUSTED, self._clock.now_ms)
        next_ms = found.next_ms
        for command in found.commands:
            if isinstance(command, policy.Stop):
                self._stop(workspace, at_any_rate=command.unless_extended_ms is None)
                return
            if isinstance(command, policy.Start) and not self._hours.used_up(workspace.user_id):
                self._arrived += 1
                self._enqueue(workspace)
                return
            if isinstance(command, policy.Terminate):
                self._terminate(workspace)
                return
            if isinstance(command, policy.Warn | policy.WarnEnd):
                # Nobody is there to be told, and nothing else changes until then.
                next_ms = command.at_ms
                if isinstance(command, policy.Warn) and command.bound.hard:
                    put(workspace, warned_ms=command.at_ms)
        if next_ms is not None:
            self._look_at(max(self._clock.at(next_ms), self._clock.now + 0.001), workspace)

    def _stop(self, workspace: Workspace, at_any_rate: bool) -> None:
        if self._seats.sessions[workspace.id] and not at_any_rate:
            self._ledger.broken(f"{workspace.id} was stopped with a session open")
        self._turn(workspace, _W.STOPPING)
        self._leave_slot(workspace)
        self._turn(workspace, _W.STOPPED)
        self._departed += 1
        self._look(workspace)
        self.serve_queue()

    def _terminate(self, workspace: Workspace) -> None:
        self._turn(workspace, _W.TERMINATING)
        self._turn(workspace, _W.TERMINATED)
        self._workspaces.pop(int(workspace.id[3:]), None)

    # What happens to its machine

    def lose(self, workspace: Workspace) -> None:
        """Its machine is gone. Live, nobody may ever see this; here it is told, and the day goes on."""
        self._turn(workspace, _W.FAILED)
        self._leave_slot(workspace)
        self._departed += 1
        self._look(workspace)

    def relocate(self, workspace: Workspace) -> None:
        """It is stopped, saved, and wants a slot again; whoever is connected comes back to it by themselves."""
        connected = self._seats.sessions[workspace.id]
        put(workspace, next="start")
        self._turn(workspace, _W.STOPPING)
        self._leave_slot(workspace)
        if connected:
            self.queue.keep(workspace, STAYS_ON)
        self._clock.call(self._clock.now + MOVE_TAKES, self._start_again, workspace)

    def _start_again(self, workspace: Workspace) -> None:
        self._turn(workspace, _W.STOPPED)
        self._enqueue(workspace)

    def _leave_slot(self, workspace: Workspace) -> None:
        machine = self._seats.give_up(workspace)
        self._hours.ran(workspace, machine)
        self._ledger.more_users(-1)

    def _turn(self, workspace: Workspace, to: WorkspaceStatus) -> None:
        turn(workspace, to, self._clock.now_ms)
