"""Which machine a queued workspace boots on. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lifecycle.model import Machine, MachineStatus, Workspace


@dataclass(frozen=True, slots=True)
class Place:
    """Boot it there: take a slot, count the epoch up, call the agent."""

    workspace: Workspace
    machine: Machine


@dataclass(frozen=True, slots=True)
class Detach:
    """Its machine cannot take it: snapshot the files there, verify, then let go of that machine."""

    workspace: Workspace
    machine: Machine


@dataclass(frozen=True, slots=True)
class Revive:
    """Its files are on the disk of a machine that is stopped: start that machine again."""

    machine: Machine


def place(queue: Sequence[Workspace], machines: Sequence[Machine]) -> list[Place | Detach | Revive]:
    """Commands for the queue, next first. Nothing is said of a workspace that has to wait.

    Files are where a workspace ran last; it goes back there when a slot is free, else they move by a
    snapshot. Without files on a machine it takes the best fit: the fullest ready machine with a free
    slot, then the oldest. Packing keeps machines empty that can then be given back.
    """
    commands: list[Place | Detach | Revive] = []
    free = {
        machine.id: machine.slots - machine.occupied
        for machine in machines
        if machine.status is MachineStatus.READY
    }
    by_id = {machine.id: machine for machine in machines}
    revived: set[str] = set()
    for workspace in queue:
        home = by_id.get(workspace.machine_id)
        fits = [by_id[machine_id] for machine_id, slots in free.items() if slots > 0]
        if home is None:
            if not fits:
                continue
            chosen = min(fits, key=lambda m: (free[m.id], m.created_at_ms, m.id))
        elif home.status is MachineStatus.STOPPED:
            if home.id not in revived:
                revived.add(home.id)
                commands.append(Revive(home))
            continue
        elif free.get(home.id, 0) > 0:
            chosen = home
        elif home.status is MachineStatus.READY and fits:
            commands.append(Detach(workspace, home))
            # Its place elsewhere is kept for it, or the next in the queue would take it meanwhile.
            free[min(fits, key=lambda m: (free[m.id], m.created_at_ms)).id] -= 1
            continue
        else:
            continue  # launching, draining (which detaches it) or lost: wait
        free[chosen.id] -= 1
        commands.append(Place(workspace, chosen))
    return commands
