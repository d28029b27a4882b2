"""Which figures an operator sees of the fleet. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from lifecycle.model import Machine, MachineStatus, Workspace
from lifecycle.telemetry import Datum

COUNT, SECONDS = "Count", "Seconds"


@dataclass(frozen=True, slots=True)
class Happened:
    """What came to pass since the last figures. boots: seconds each took."""

    boots: tuple[float, ...] = ()
    failed_boots: int = 0
    idle_stops: int = 0
    lost_machines: int = 0


@dataclass(frozen=True, slots=True)
class Facts:
    """connections: workspace → open sessions, over all gateways. users: of running workspaces."""

    workspaces: Mapping[str, int]
    queued: Collection[Workspace]
    connections: Mapping[str, int]
    users: int
    machines: Collection[Machine]
    max_machines: int
    happened: Happened


def measure(facts: Facts, now_ms: int) -> list[Datum]:
    """Every figure, zeros too: an alarm tells "none" from "nobody is there to say" by them."""

    def one(name: str, value: float, unit: str = COUNT, status: str = "") -> Datum:
        return Datum(name, unit, (float(value),), now_ms, status)

    waits = [max(0, now_ms - workspace.status_since_ms) / 1000 for workspace in facts.queued]
    statuses = Counter(machine.status for machine in facts.machines)
    shown = [status for status in MachineStatus if status != MachineStatus.TERMINATED]
    happened = facts.happened
    data = [
        one("Leader", 1),
        one("Sessions", sum(facts.connections.values())),
        one("Users", facts.users),
        one("RunningWorkspaces", facts.workspaces.get("running", 0)),
        one("QueueLength", len(facts.queued)),
        one("QueueWait", max(waits, default=0), SECONDS),
        *(one("Machines", statuses[status], COUNT, str(status)) for status in shown),
        one("MachinesUsed", _used_percent(facts), "Percent"),
        one("FailedBoots", happened.failed_boots),
        one("LostMachines", happened.lost_machines),
        one("IdleStops", happened.idle_stops),
    ]
    if happened.boots:
        data.append(Datum("BootTime", SECONDS, happened.boots, now_ms))
    return data


def _used_percent(facts: Facts) -> float:
    """Machines of those that there may be: at 100 nobody gets another one."""
    alive = [m for m in facts.machines if m.status not in (MachineStatus.LOST, MachineStatus.STOPPED)]  # fmt: skip
    return 100 * len(alive) / facts.max_machines
