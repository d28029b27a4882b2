"""Which machine a queued workspace boots on, and where there is none for it. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

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


Order = tuple[int, int, int, int, str]


def best_fit(machine: Machine, free: int, idle_ms: int) -> Order:
    """The least is taken first: of a machine in use before an empty one, the machine where somebody was active most
    lately, then the fullest, then the oldest.

    Who comes keeps a machine for as long as they stay and an idle timeout. Where others are active it is kept for as
    long anyway; where nobody is, it would soon have come empty, and can be given back then."""
    return not machine.occupied, idle_ms, free, machine.created_at_ms, machine.id


def place(
    queue: Sequence[Workspace],
    machines: Sequence[Machine],
    idle_ms: Mapping[str, int] | None = None,
) -> list[Place | Detach | Revive]:
    """Commands for the queue, next first. Nothing is said of a workspace that has to wait. O(machines), and
    O(log n) for each in the queue. idle_ms: machine → for how long nobody has been active on it (idleness.py);
    those that are left out are in use.

    Files are where a workspace ran last; it goes back there when a slot is free, else they move by a
    snapshot. Without files on a machine it takes the best fit (best_fit).
    """
    commands: list[Place | Detach | Revive] = []
    if not queue:
        return commands
    idle = dict(idle_ms or {})
    room = _Room(
        [m for m in machines if takes_work(m)],
        _suits,
        lambda machine, free: best_fit(machine, free, idle.get(machine.id, 0)),
    )
    by_id = {machine.id: machine for machine in machines}
    revived: set[str] = set()
    for workspace in queue:
        home = by_id.get(workspace.machine_id)
        chosen = home if home is not None and room.at(home) > 0 else room.best(workspace.zone)
        command = _command(workspace, home, chosen)
        if command is None or (isinstance(command, Revive) and command.machine.id in revived):
            continue
        commands.append(command)
        if isinstance(command, Revive):
            revived.add(command.machine.id)
        elif chosen is not None:
            # For a Detach, its place elsewhere is kept, or the next in the queue would take it meanwhile.
            idle.pop(chosen.id, None)
            room.take(chosen)
    return commands


class _Room:
    """Free slots of machines, the best of those that serve a zone first."""

    def __init__(
        self,
        machines: Sequence[Machine],
        serves: Callable[[str, Machine], bool],
        order: Callable[[Machine, int], Order],
    ) -> None:
        """serves: whether who has to be in that zone ("": anywhere) can go there. order: the least is taken
        first; of a machine and its free slots."""
        self._serves, self._order = serves, order
        self._by_id = {m.id: m for m in machines}
        self._free = {m.id: m.slots - m.occupied for m in machines}
        self._heaps: dict[str, list[Order]] = {}

    def at(self, machine: Machine) -> int:
        return self._free.get(machine.id, 0)

    def best(self, zone: str) -> Machine | None:
        heap = self._heaps.get(zone)
        if heap is None:
            heap = self._heaps[zone] = self._heap(zone)
        while heap:
            *_, free, _, machine_id = heap[0]
            if free == self._free[machine_id]:
                return self._by_id[machine_id]
            heappop(heap)  # as it was before some of its slots were taken
        return None

    def take(self, machine: Machine) -> None:
        free = self._free[machine.id] = self._free[machine.id] - 1
        for zone, heap in self._heaps.items():
            if free > 0 and self._serves(zone, machine):
                heappush(heap, self._order(machine, free))

    def _heap(self, zone: str) -> list[Order]:
        found = [
            self._order(self._by_id[each], free)
            for each, free in self._free.items()
            if free > 0 and self._serves(zone, self._by_id[each])
        ]
        heapify(found)
        return found


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
    to anybody who waits, while there are such zones."""

    zones: tuple[str, ...] = ()
    idle: tuple[Machine, ...] = ()


def shortage(queue: Sequence[Workspace], machines: Sequence[Machine], slots: int) -> Shortage:
    """Zones in which volumes wait and no machine has room, or is coming and will have. Machines elsewhere
    are no help, however many there are. slots: of a machine that is added."""
    if not any(workspace.volume and workspace.zone for workspace in queue):
        return Shortage()
    room = _Room([m for m in machines if takes_work(m) or _comes(m)], _may_serve, _sooner)
    by_id = {machine.id: machine for machine in machines}
    zones: list[str] = []
    waiting: Counter[str] = Counter()
    used: set[str] = set()
    for workspace in queue:
        home = by_id.get(workspace.machine_id)
        chosen = home if home is not None and room.at(home) > 0 else room.best(workspace.zone)
        if chosen is not None:
            room.take(chosen)
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


def _may_serve(zone: str, machine: Machine) -> bool:
    """One that is coming, nobody knows yet where, may come up in any zone: a turn later it is known."""
    return _suits(zone, machine) or (machine.status is _M.LAUNCHING and not machine.zone)


def _sooner(machine: Machine, free: int) -> Order:
    """The fullest first; what is coming comes after what is there."""
    late, unknown = machine.status is not _M.READY, not machine.zone
    return late, unknown, free, machine.created_at_ms, machine.id


def takes_work(machine: Machine) -> bool:
    """Ready, and not about to be taken back by its pool."""
    return machine.status is _M.READY and not machine.doomed_at_ms


def _suits(zone: str, machine: Machine) -> bool:
    """Nobody's home. A machine of one slot belongs to whose files it holds: it would have to be emptied
    before its owner could come back. A volume can only be attached in its own zone."""
    dedicated_to_another = machine.slots == 1 and machine.holds_files > 0
    return not dedicated_to_another and zone in ("", machine.zone)


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
