from __future__ import annotations

from dataclasses import replace
from typing import Any

from lifecycle.model import Machine, MachineStatus, Workspace, WorkspaceStatus
from lifecycle.telemetry import Datum
from lifecycle.telemetry.figures import Facts, Happened, measure

NOTHING = Facts({}, (), {}, 0, (), 4, Happened())


def figures(facts: Facts, now_ms: int = 60_000) -> dict[Any, tuple[float, ...]]:
    data = measure(facts, now_ms)
    assert {datum.at_ms for datum in data} == {now_ms}
    found = {(d.name, d.status) if d.status else d.name: d.values for d in data}
    assert len(found) == len(data), "a figure is told twice"
    return found


def waiting(name: str, since_ms: int) -> Workspace:
    return Workspace(name, "u", WorkspaceStatus.QUEUED, 0, since_ms)


def machine(name: str, status: MachineStatus) -> Machine:
    return Machine(name, "ecs", status, 0, 5)


def test_nothing_is_told_as_zero() -> None:
    told = figures(NOTHING)
    assert told.pop("Leader") == (1,)
    assert set(told.values()) == {(0,)}
    assert ("Machines", "ready") in told
    assert ("Machines", "terminated") not in told
    assert "BootTime" not in told


def test_sessions_and_users_and_workspaces() -> None:
    facts = replace(NOTHING, connections={"w1": 3, "w2": 1}, users=2, workspaces={"running": 7})
    told = figures(facts)
    assert (told["Sessions"], told["Users"], told["RunningWorkspaces"]) == ((4,), (2,), (7,))


def test_the_queue_is_as_long_as_it_is_and_its_wait_is_the_oldest_ones() -> None:
    facts = replace(NOTHING, queued=[waiting("a", 59_000), waiting("b", 15_000)])
    assert figures(facts, 60_000)["QueueLength"] == (2,)
    assert figures(facts, 60_000)["QueueWait"] == (45,)
    assert figures(facts, 90_000)["QueueWait"] == (75,)
    assert figures(facts, 10_000)["QueueWait"] == (0,)


def test_machines_by_status_and_of_those_there_may_be() -> None:
    status = MachineStatus
    kinds = [status.READY, status.READY, status.LAUNCHING, status.STOPPED, status.LOST]
    facts = replace(NOTHING, machines=[machine(f"m-{n}", kind) for n, kind in enumerate(kinds)])
    told = figures(facts)
    assert told["Machines", "ready"] == (2,)
    assert told["Machines", "lost"] == (1,)
    assert told["Machines", "draining"] == (0,)
    assert told["MachinesUsed"] == (75,)


def test_what_happened_since_the_last_time() -> None:
    happened = Happened(boots=(2.0, 9.5), failed_boots=1, idle_stops=3, lost_machines=2)
    told = figures(replace(NOTHING, happened=happened))
    assert told["BootTime"] == (2.0, 9.5)
    assert (told["FailedBoots"], told["IdleStops"], told["LostMachines"]) == ((1,), (3,), (2,))


def test_units() -> None:
    units = {datum.name: datum.unit for datum in measure(NOTHING, 0)}
    assert units["QueueWait"] == "Seconds"
    assert units["MachinesUsed"] == "Percent"
    assert units["Sessions"] == "Count"
    boots = measure(replace(NOTHING, happened=Happened(boots=(1.0,))), 0)[-1]
    assert boots == Datum("BootTime", "Seconds", (1.0,), 0)
