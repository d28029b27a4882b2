"""Which machine a queued workspace boots on, and where there is none for it. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from lifecycle.model import Machine, MachineStatus, Workspace

_M = MachineStatus


@dataclass(frozen=True, slots=True)
class Place:
    """Boot it there: take a slot, count the epoch up, call the agent."""

    workspace: Workspace
    machine: Machine


@dataclass(frozen=True, slots=True)
class Detach:
    """Its machine cannot take it: snapshot the files there, verify, then let go of that machine.
    A volume of its own is only unplugged."""

    workspace: Workspace
    machine: Machine


@dataclass(frozen=True, slots=True)
class Revive:
    """Its files are on the disk of a machine that is stopped: start that machine again."""

    machine: Machine


def place(queue: Sequence[Workspace], machines: Sequence[Machine]) -> list[Place | Detach | Revive]:
    """Commands for the queue, next first. Nothing is said of a workspace that has to wait.

    Files are where a workspace ran last; it goes back there when a slot is free, else they move by a
    snapshot. Without files on a machine it takes the best fit (see best_fit).
    """
    commands: list[Place | Detach | Revive] = []
    free = {m.id: m.slots - m.occupied for m in machines if takes_work(m)}
    by_id = {machine.id: machine for machine in machines}
    for workspace in queue:
        home = by_id.get(workspace.machine_id)
        if home is not None and free.get(home.id, 0) > 0:
            chosen: Machine | None = home
        else:
            chosen = best_fit(workspace, machines, free)
        command = _command(workspace, home, chosen)
        if command is not None and command not in commands:
            commands.append(command)
        if chosen is not None and isinstance(command, Place | Detach):
            # For a Detach, its place elsewhere is kept, or the next in the queue would take it meanwhile.
            free[chosen.id] -= 1
    return commands


def without_room(
    queue: Sequence[Workspace],
    machines: Sequence[Machine],
    commands: Sequence[Place | Detach | Revive],
) -> frozenset[str]:
    """Ids of those in the queue that wait because no slot is free. Who waits for a machine that holds their
    files, or for its turn to boot, has one. commands: of place()."""
    served = {c.workspace.id for c in commands if not isinstance(c, Revive)}
    away = {m.id for m in machines if not takes_work(m)}
    waiting = (w for w in queue if w.id not in served and w.machine_id not in away)
    return frozenset(w.id for w in waiting)


def at_once(
    commands: Sequence[Place | Detach | Revive], room: int
) -> list[Place | Detach | Revive]:
    """The commands without boots beyond the first `room`; nobody behind overtakes them."""
    boots = 0
    chosen = []
    for command in commands:
        boots += isinstance(command, Place)
        if boots <= room or not isinstance(command, Place):
            chosen.append(command)
    return chosen


@dataclass(frozen=True, slots=True)
class Shortage:
    """zones: where machines have to be added, named once for each. idle: empty machines that are of no use
    to anybody who waits."""

    zones: tuple[str, ...] = ()
    idle: tuple[Machine, ...] = ()


def shortage(queue: Sequence[Workspace], machines: Sequence[Machine], slots: int) -> Shortage:
    """Zones in which volumes wait and no machine has room, or is coming and will have. Machines elsewhere
    are no help, however many there are. slots: of a machine that is added."""
    room = {m.id: m.slots - m.occupied for m in machines if takes_work(m) or _comes(m)}
    zones: list[str] = []
    waiting: Counter[str] = Counter()
    used: set[str] = set()
    for workspace in queue:
        fits = [m for m in machines if room.get(m.id, 0) > 0 and _may_serve(workspace, m)]
        if fits:
            chosen = min(fits, key=lambda m: _sooner(workspace, m, room[m.id]))
            room[chosen.id] -= 1
            used.add(chosen.id)
        elif workspace.volume and workspace.zone:
            waiting[workspace.zone] += 1
            if waiting[workspace.zone] > zones.count(workspace.zone) * slots:
                zones.append(workspace.zone)
    empty = (m for m in machines if takes_work(m) and not m.occupied and not m.holds_files)
    return Shortage(tuple(zones), tuple(m for m in empty if m.id not in used))


def _comes(machine: Machine) -> bool:
    """Launched, and will take work. An adopted one that is silent may never answer."""
    return machine.status is _M.LAUNCHING and not machine.unheard and not machine.doomed_at_ms


def _may_serve(workspace: Workspace, machine: Machine) -> bool:
    """One that is coming, nobody knows yet where, may come up in any zone: a turn later it is known."""
    if workspace.machine_id == machine.id or _suits(workspace, machine):
        return True
    return machine.status is _M.LAUNCHING and not machine.zone


def _sooner(
    workspace: Workspace, machine: Machine, room: int
) -> tuple[bool, bool, bool, int, int, str]:
    """In the order of place(): home, then the fullest; what is coming comes after what is there."""
    return (
        machine.id != workspace.machine_id, machine.status is not _M.READY, not machine.zone, room,
        machine.created_at_ms, machine.id,
    )  # fmt: skip


def takes_work(machine: Machine) -> bool:
    """Ready, and not about to be taken back by its pool."""
    return machine.status is _M.READY and not machine.doomed_at_ms


def best_fit(
    workspace: Workspace, machines: Sequence[Machine], free: dict[str, int]
) -> Machine | None:
    """The fullest machine with a free slot that may take it, then the oldest: packing keeps machines
    empty that can then be given back. free: machine → slots to give away."""
    fits = [m for m in machines if free.get(m.id, 0) > 0 and _suits(workspace, m)]
    return min(fits, key=lambda m: (free[m.id], m.created_at_ms, m.id), default=None)


def _suits(workspace: Workspace, machine: Machine) -> bool:
    """Not its home. A machine of one slot belongs to whose files it holds: it would have to be emptied
    before its owner could come back. A volume can only be attached in its own zone."""
    dedicated_to_another = machine.slots == 1 and machine.holds_files > 0
    return not dedicated_to_another and workspace.zone in ("", machine.zone)


def _command(
    workspace: Workspace, home: Machine | None, chosen: Machine | None
) -> Place | Detach | Revive | None:
    """home: the machine its files are on. chosen: the one that has room for it, home before others."""
    if chosen is not None and home in (None, chosen):
        return Place(workspace, chosen)
    if home is None or home.doomed_at_ms:
        return None  # no room; or it is emptied before it goes, whatever the queue says
    if workspace.volume and home.status in (_M.STOPPED, _M.LOST):
        return Detach(workspace, home)  # what lies on a volume need not wait for the machine
    if home.status is _M.STOPPED:
        return Revive(home)
    if home.status is _M.READY and chosen is not None:
        return Detach(workspace, home)
    return None  # launching, draining (which detaches it), lost, or nowhere else to go: wait
