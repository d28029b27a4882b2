"""What becomes of workspaces whose machine the pool is going to take back. Pure; times in milliseconds.

Level-triggered: a machine's record says when it goes (`doomed_at_ms`), everything else follows from that
and from what still lies on it, with every turn anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from lifecycle.model import OCCUPYING, Machine, MachineStatus, Workspace, WorkspaceStatus

_W = WorkspaceStatus

MOVE_BEFORE_MS = 600_000
"""What runs on a doomed machine is moved this long before it goes. A spot notice comes two minutes before,
so it is moved at once; maintenance is told days before, and people work on until ten minutes are left."""

LATE_MS = 30_000
"""A notice that came after its deadline, for a machine that is still there: this long is tried."""

LEAVING_MS = MOVE_BEFORE_MS
"""A pool that takes a machine away by itself waits for as long as its hook says, minutes to an hour: what
runs there is moved at once, and what is not away after ten minutes has failed."""

NO_DEADLINE_MS = 253_402_300_799_000
"""The end of the year 9999: it may be taken back, and nobody says when. Nothing new goes there."""

LOST = "move_failed"
"""Error code of a workspace whose files did not get off its machine in time."""

MOVING = "moving: "
"""What the reason of a workspace on its way begins with; its person's page tells by it."""


@dataclass(frozen=True, slots=True)
class Move:
    """Stop it here and start it elsewhere."""

    workspace: Workspace
    machine: Machine
    reason: str


@dataclass(frozen=True, slots=True)
class Explain:
    """It waits in the queue until its files are off that machine: let its page say why."""

    workspace: Workspace
    reason: str


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Its files did not get away in time: fail it, and say what is lost."""

    workspace: Workspace
    machine: Machine
    message: str


Step = Move | Explain | GiveUp


def deadline(machine: Machine, at_ms: int, now_ms: int) -> int | None:
    """The machine's doomed_at_ms after a notice that it goes at at_ms; None when that changes nothing.

    Notices come twice, late and out of order: the earliest deadline counts, one of a life before (a stopped
    spot machine that was started again) does not, and one that has passed leaves a moment to try."""
    if machine.status is MachineStatus.TERMINATED:
        return None
    up = machine.status in (MachineStatus.READY, MachineStatus.LAUNCHING)
    if up and machine.status_since_ms >= at_ms:
        return None
    until = max(at_ms, now_ms + LATE_MS)
    return None if machine.doomed_at_ms and machine.doomed_at_ms <= until else until


def steps(
    machine: Machine,
    workspaces: Sequence[Workspace],
    sessions: Mapping[str, int],
    now_ms: int,
) -> list[Step]:
    """Commands for what lies on a doomed machine, those with open sessions first.

    workspaces: whose files are there. sessions: workspace → open sessions."""
    over = _over(machine, now_ms)
    reason = why(machine)
    found: list[Step] = []
    for one in sorted(workspaces, key=lambda w: (-sessions.get(w.id, 0), w.id)):
        if over:
            if not _told(one) and not _safe_elsewhere(one):
                found.append(GiveUp(one, machine, loss(one, machine)))
        elif one.status in (_W.STARTING, _W.RUNNING):
            if now_ms >= machine.doomed_at_ms - MOVE_BEFORE_MS:
                found.append(Move(one, machine, reason))
        elif one.status is _W.QUEUED and one.reason != reason:
            found.append(Explain(one, reason))
    return found


def _over(machine: Machine, now_ms: int) -> bool:
    """Whether what lies there is as good as lost. One that came up again after its deadline (it was only
    stopped, its disk is still there) has a new life, in which it is emptied in peace."""
    if machine.status is MachineStatus.LOST:
        return True
    return machine.status_since_ms <= machine.doomed_at_ms <= now_ms


def why(machine: Machine) -> str:
    """The reason of a workspace that leaves it."""
    if machine.doomed_at_ms >= NO_DEADLINE_MS:
        return MOVING + "its machine may be taken away soon"
    return f"{MOVING}its machine is taken away at {clock(machine.doomed_at_ms)}"


def _told(one: Workspace) -> bool:
    return one.status is _W.FAILED and one.error_code == LOST


def _safe_elsewhere(one: Workspace) -> bool:
    """Whether the machine takes nothing with it: its files are on a disk of its own, or still as in the
    snapshot that it was to be restored from; or it is deleted anyway."""
    deleted = one.status is _W.TERMINATING and one.reason == "deleted"
    untouched = bool(one.restore) and one.status not in OCCUPYING
    return bool(one.volume) or untouched or deleted


def loss(one: Workspace, machine: Machine) -> str:
    """What is lost, since when, and what to do: for the person, in words."""
    gone = machine.status is MachineStatus.LOST
    when = f"went down ({machine.reason})" if gone else f"goes at {clock(machine.doomed_at_ms)}"
    saved_ms = snapshot_at(one.snapshot_id)
    if one.restore and saved_ms:
        lost = f"Nothing is lost: its snapshot of {clock(saved_ms)} holds all files."
        do = "Start it again to go on from there."
    elif saved_ms:
        lost = f"What was changed since its snapshot of {clock(saved_ms)} is lost with that machine"
        do = "Start it again to go on from its newest snapshot."
    else:
        lost = "There is no snapshot of it: its files are lost with that machine"
        do = "Start it again to begin anew."
    if not lost.endswith("."):
        lost += f", unless {'that comes back' if gone else 'it can still be saved from there'}."
    return f"its files could not be moved off machine {machine.id} in time: it {when}. {lost} {do}"


def saved_late(one: Workspace, snapshot_id: str) -> str:
    """What to say of one that was given up and whose files got away after all; "" when they did not.
    snapshot_id: its newest one when it was given up."""
    if not _told(one) or one.machine_id or not one.snapshot_id or one.snapshot_id == snapshot_id:
        return ""
    at = clock(snapshot_at(one.snapshot_id))
    return f"it had to be stopped, for its machine is gone; all its files were saved at {at}. Start it again."


def snapshot_at(snapshot_id: str) -> int:
    """When a snapshot was begun, as its id says ("00000003-1700000000000"); 0 when it does not."""
    at = snapshot_id.rpartition("-")[2]
    return int(at) if at.isdecimal() and len(at) <= 15 else 0


def stop_grace(usual: float, machine: Machine, now_ms: int) -> float:
    """Seconds an IDE gets to end by itself: no more than a tenth of what is left of its machine, so that
    the snapshot has the rest. 120 s are left: the usual 10 s; 30 s are left: 3 s; none: it is ended at once."""
    if not machine.doomed_at_ms:
        return usual
    return max(0.0, min(usual, (machine.doomed_at_ms - now_ms) / 10_000))


def emptied(machine: Machine) -> bool:
    """Whether nothing is left on it that could be lost."""
    return not machine.occupied and not machine.holds_files


def same_instance(known: str, named: str) -> bool:
    """Whether both name one instance: "i-0a…", or a task by its ARN or the last part of that."""
    last = named.rpartition("/")[2]
    return bool(last) and known.rpartition("/")[2] == last


def clock(at_ms: int) -> str:
    return f"{datetime.fromtimestamp(at_ms / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"
