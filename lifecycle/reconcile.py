"""What a machine's own report, and the pool's, say against the records. Pure.

Level-triggered: the same comparison mends a lost answer, a killed leader and a crash. Records are read
before the report is asked for, so the report is the newer one; every command is a compare-and-set on
the record it was decided on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

from lifecycle.agent.contract import Report, WorkspaceReport
from lifecycle.model import OCCUPYING, STANDBY, Machine, MachineStatus, Workspace, WorkspaceStatus
from lifecycle.pools import Observed

_W = WorkspaceStatus


@dataclass(frozen=True, slots=True)
class Boot:
    """The agent does not know of this boot: ask it (again) to start it."""

    workspace: Workspace


@dataclass(frozen=True, slots=True)
class Halt:
    """It runs there and should not: ask the agent to stop it."""

    workspace_id: str
    epoch: int


@dataclass(frozen=True, slots=True)
class Running:
    """secret: what opens it there, which only the machine knows of a warm IDE; "" of an older agent's."""

    workspace: Workspace
    address: str
    secret: str = field(default="", repr=False)
    warm: bool = False


@dataclass(frozen=True, slots=True)
class Stopped:
    workspace: Workspace
    reason: str


@dataclass(frozen=True, slots=True)
class Failed:
    workspace: Workspace
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Progress:
    workspace: Workspace
    step: str


Change = Boot | Halt | Running | Stopped | Failed | Progress


def converge(machine: Machine, records: Sequence[Workspace], report: Report) -> list[Change]:
    """Commands that bring records and machine together. records: those with machine.id as machine_id."""
    rows = {row.workspace_id: row for row in report.workspaces}
    host = machine.address.rpartition(":")[0]
    found = (_converge_one(record, rows.get(record.id), host) for record in records)
    return [change for change in found if change is not None]


def _converge_one(w: Workspace, row: WorkspaceReport | None, host: str) -> Change | None:
    if row is not None and row.epoch > w.epoch:
        return None  # the machine knows a boot that the record does not: wait for a newer record
    current = row if row is not None and row.epoch == w.epoch else None
    if w.status is _W.STARTING:
        return _starting(w, current, host)
    if w.status is _W.RUNNING:
        return _running(w, current)
    if w.status is _W.STOPPING:
        over = current is None or current.status in ("stopped", "failed")
        return Stopped(w, w.reason) if over else None
    # Nothing of it should run here any more.
    if row is not None and row.status in ("starting", "running"):
        return Halt(w.id, row.epoch)
    return None


def _starting(w: Workspace, row: WorkspaceReport | None, host: str) -> Change | None:
    if row is None:
        return Boot(w)
    if row.status == "running":
        return Running(w, f"{host}:{row.port}", row.secret, row.warm)
    if row.status == "failed":
        return Failed(w, row.error_code, row.error)
    if row.status == "stopped":
        return Failed(w, "stopped", f"its machine {w.machine_id} stopped it while it was starting")
    return Progress(w, row.step) if row.step and row.step != w.step else None


def _running(w: Workspace, row: WorkspaceReport | None) -> Change | None:
    if row is None:
        return Failed(w, "machine_lost_it", f"machine {w.machine_id} no longer knows of it")
    if row.status == "failed":
        return Failed(w, row.error_code, row.error)
    return Stopped(w, "machine stopped") if row.status == "stopped" else None


def jobs(records: Sequence[Workspace], report: Report) -> list[tuple[Workspace, str]]:
    """What works in the boots that run: those with a job now, and those whose record still has one."""
    rows = {row.workspace_id: row for row in report.workspaces if row.status == "running"}
    return [
        (w, rows[w.id].job)
        for w in records
        if w.status is _W.RUNNING
        and w.id in rows
        and rows[w.id].epoch == w.epoch
        and (rows[w.id].job or w.job)
    ]


def strangers(machine_id: str, report: Report, records: Mapping[str, Workspace]) -> list[Halt]:
    """Stops for what runs on a machine although its record says it runs elsewhere, or is over.

    records: the current ones of what the report names. A workspace without any record is left alone:
    unknown is never a reason to stop.
    """
    return [
        Halt(row.workspace_id, row.epoch)
        for row in report.workspaces
        if row.status in ("starting", "running")
        and (record := records.get(row.workspace_id)) is not None
        and record.machine_id != machine_id
        and record.epoch >= row.epoch
    ]


@dataclass(frozen=True, slots=True)
class Adopt:
    """Its record was lost, or is older than what its machine knows: write it as the machine says."""

    row: WorkspaceReport
    address: str


def adoptions(machine: Machine, report: Report, records: Mapping[str, Workspace]) -> list[Adopt]:
    """What a report tells that the records have lost. records: those of what the report names, as new
    as the report; a boot is written down before its machine hears of it, so one that only the machine
    knows was lost. What holds a slot elsewhere is left alone, and so is what does not say whose it is."""
    host = machine.address.rpartition(":")[0]
    return [
        Adopt(row, f"{host}:{row.port}" if row.status == "running" else "")
        for row in report.workspaces
        if row.user_id
        and row.epoch > 0
        and row.status in _SAID
        and _lost(records.get(row.workspace_id), row)
    ]


_SAID = frozenset({"starting", "running", "stopping", "stopped", "failed"})


def _lost(record: Workspace | None, row: WorkspaceReport) -> bool:
    if record is None:
        return True
    if record.status in OCCUPYING or record.status is _W.TERMINATING:
        return False
    return record.epoch < row.epoch


@dataclass(frozen=True, slots=True)
class Watch:
    """It runs: take its agent's reports."""

    machine: Machine


@dataclass(frozen=True, slots=True)
class Lost:
    """It went down: what ran on it has failed."""

    machine: Machine
    reason: str


@dataclass(frozen=True, slots=True)
class Revive:
    """It is down and its disk holds files: start it again."""

    machine: Machine


@dataclass(frozen=True, slots=True)
class Remove:
    """It is of no more use: remove it and its disk."""

    machine: Machine
    reason: str


@dataclass(frozen=True, slots=True)
class Park:
    """A dedicated machine whose workspace is stopped: stop it and keep its disk."""

    machine: Machine


@dataclass(frozen=True, slots=True)
class Await:
    """Somebody waits for its files, and it has yet to finish stopping before it can be started."""

    machine: Machine


@dataclass(frozen=True, slots=True)
class Down:
    """It was started again and is down all the same: it was still stopping, or could not be started."""

    machine: Machine


@dataclass(frozen=True, slots=True)
class Repeat:
    """Nothing was seen of its launch: ask for it again, the pool leaves alone what exists."""

    machine: Machine


@dataclass(frozen=True, slots=True)
class Doom:
    """The pool is about to take it away: move what is on it."""

    machine: Machine
    reason: str


MachineChange = Watch | Lost | Revive | Remove | Park | Await | Down | Repeat | Doom

STARTS = 10.0
"""Seconds after a start in which a pool that is behind may still show the machine down."""

GONE = "it is gone and its disk with it"

SILENT = 20.0
"""Seconds without a report after which what the pool does not show is gone. A pool may be behind what is
true; a machine that still reports is there, whatever the pool says."""


@dataclass(frozen=True, slots=True)
class Outlook:
    """What converge_machines() needs to know beside the machines.

    launch_timeout: seconds until one that never came up is given up. lag, keeps_disks, joins: the pool's
    traits. needed: machines whose files somebody waits for. files_known: the records of what lies on
    every machine cannot have been lost. shown_lately: machines that the pool showed within its lag.
    standby: stopped machines that are kept although they hold nothing.
    """

    launch_timeout: float
    lag: float = 0.0
    keeps_disks: bool = True
    joins: bool = False
    needed: frozenset[str] = frozenset()
    files_known: bool = False
    shown_lately: frozenset[str] = frozenset()
    standby: frozenset[str] = frozenset()


def converge_machines(
    machines: Iterable[Machine], observed: Iterable[Observed], now_ms: int, outlook: Outlook
) -> list[MachineChange]:
    """Commands for machines whose record and pool disagree."""
    seen = {row.machine_id: row for row in observed}
    found = (_converge_machine(m, seen.get(m.id), now_ms, outlook) for m in machines)
    return [change for change in found if change is not None]


def _converge_machine(
    m: Machine, seen: Observed | None, now_ms: int, o: Outlook
) -> MachineChange | None:
    age = (now_ms - m.status_since_ms) / 1000
    if seen is not None and seen.leaving and not m.doomed_at_ms and m.status in _TAKEN:
        return Doom(m, seen.leaving)
    if seen is not None and seen.state == "running":
        if m.status is MachineStatus.LAUNCHING and o.joins and not _heard(m):
            return _never_came_up(m, seen, age, o)
        if m.status is MachineStatus.STOPPED:
            if m.id in o.needed:
                return Revive(m)  # started, though it was not told so
            # Whoever was to stop it never did, or the pool's word is older than the stop.
            return Park(m) if o.lag and age >= o.lag else None
        if m.status is MachineStatus.LAUNCHING and _unanswering(m, age, o):
            return Remove(
                m, f"its agent joined and does not answer at {m.address}: let us in there"
            )
        return _running_machine(m, seen, age, o)
    if m.status is MachineStatus.LAUNCHING:
        down = seen is not None and seen.state in ("stopping", "stopped")
        if down and o.joins and m.holds_files and age >= STARTS:
            return Down(m)
        return _never_came_up(m, seen, age, o)
    if seen is not None and seen.state == "launching":
        return None
    if m.status in (MachineStatus.READY, MachineStatus.DRAINING):
        silent = (now_ms - max(m.last_report_ms, m.status_since_ms)) / 1000
        if o.lag and silent < SILENT:
            return None  # it still reports: what the pool says is old
        return Lost(m, "its agent is down" if seen else "it is gone")
    if m.status is MachineStatus.LOST:
        return _lost_machine(m, seen, age, o)
    if m.status is MachineStatus.STOPPED:
        return _stopped_machine(m, seen, age, o)
    return None


_TAKEN = frozenset({MachineStatus.LAUNCHING, MachineStatus.READY, MachineStatus.DRAINING})


def _heard(m: Machine) -> bool:
    """Its agent has said where it is since it was launched, or started again."""
    return bool(m.address) and m.last_report_ms >= m.status_since_ms


def _unanswering(m: Machine, age: float, o: Outlook) -> bool:
    """It says that it is there, for long, and nobody can ask it anything: a port that is closed."""
    empty = not (m.holds_files or m.occupied or m.unheard)
    return o.joins and empty and age >= 2 * o.launch_timeout


def _running_machine(m: Machine, seen: Observed, age: float, o: Outlook) -> MachineChange | None:
    # What the agent says of its own address is true; only pools that launch agents know it themselves.
    address = (m.address if o.joins else "") or seen.address
    if address:
        if _parked(m, o):
            return Park(replace(m, address=address))
        return Watch(replace(m, address=address))
    if m.unheard and o.files_known and not m.holds_files and age >= o.launch_timeout:
        return Remove(m, "no record speaks of it, and it does not say what it is")
    return None


def _parked(m: Machine, o: Outlook) -> bool:
    return (
        m.status is MachineStatus.READY
        and m.slots == 1
        and o.keeps_disks
        and m.occupied == 0
        and m.holds_files > 0
        and not m.doomed_at_ms
        and m.id not in o.needed
    )


def _never_came_up(
    m: Machine, seen: Observed | None, age: float, o: Outlook
) -> MachineChange | None:
    if age < o.launch_timeout:
        unseen = seen is None and not m.joined and not m.unheard
        return Repeat(m) if unseen and age >= max(o.lag, o.launch_timeout / 4) else None
    if seen is None:
        why = "never came up"
    else:
        why = "did not join" if seen.state == "running" else f"is still {seen.state}"
    why = f"{why} after {o.launch_timeout:g} s"
    if m.holds_files or (m.unheard and seen is not None and not o.files_known):
        return Lost(m, why)
    return Remove(m, why)


def _lost_machine(
    m: Machine, seen: Observed | None, age: float, o: Outlook
) -> MachineChange | None:
    if m.occupied:
        return Lost(m, m.reason)  # who found it lost did not come to fail its workspaces
    if seen is None:
        return _gone(m, age, o)
    if seen.state == "stopping":
        return None
    if m.holds_files or (m.unheard and not o.files_known):
        return Revive(m)
    return Remove(m, "it went down and holds nothing")


def _stopped_machine(
    m: Machine, seen: Observed | None, age: float, o: Outlook
) -> MachineChange | None:
    if seen is None:
        return _gone(m, age, o)
    if m.id in o.needed:
        return Await(m) if seen.state == "stopping" else Revive(m)
    if m.holds_files or m.id in o.standby:
        return None
    return Remove(m, "it is stopped and holds nothing")


def standby(machines: Iterable[Machine], most: int) -> frozenset[str]:
    """Machines that were stopped to start faster than new ones, as many as are wanted; the oldest first."""
    found = (m for m in machines if m.status is MachineStatus.STOPPED and m.reason == STANDBY)
    return frozenset(m.id for m in islice(found, most))


def _gone(m: Machine, age: float, o: Outlook) -> MachineChange | None:
    if age < o.lag or m.id in o.shown_lately:
        return None
    return Remove(m, GONE)


def reporting(machines: Iterable[Machine], now_ms: int) -> list[Machine]:
    """Those that are there whatever the pool says: they have just reported."""
    return [m for m in machines if m.status in _TAKEN and _heard(m) and _lately(m, now_ms)]


def _lately(m: Machine, now_ms: int) -> bool:
    return now_ms - m.last_report_ms < SILENT * 1000


def without_record(machines: Iterable[Machine], observed: Iterable[Observed]) -> list[str]:
    """Machines that the pool has and the records have not: removed ones whose removal was cut short,
    or somebody else's."""
    known = {machine.id for machine in machines}
    return [row.machine_id for row in observed if row.machine_id not in known]


def adoptable(
    machines: Iterable[Machine], observed: Iterable[Observed], *, joins: bool = False
) -> list[Observed]:
    """Those of without_record() that can be spoken to: the pool knows what they were launched with, or
    they join by themselves, with tokens that can be made again."""
    known = {machine.id for machine in machines}
    return [
        row
        for row in observed
        if row.machine_id not in known and (row.token or joins) and row.slots > 0
    ]


def unheard(machines: Iterable[Machine], now_ms: int, launch_timeout: float) -> list[Machine]:
    """Adopted machines that have yet to tell what lies on them. Until then a boot elsewhere may be a
    second one. launch_timeout: seconds that they get to."""
    return [
        machine
        for machine in machines
        if machine.unheard and now_ms - machine.created_at_ms < launch_timeout * 1000
    ]


def homeless(
    workspaces: Iterable[Workspace], machines: Iterable[Machine], observed: Iterable[Observed]
) -> list[Workspace]:
    """Workspaces whose records say they hold a slot of a machine that neither the records nor the pool
    have: both were lost together."""
    known = {machine.id for machine in machines} | {row.machine_id for row in observed}
    return [
        w
        for w in workspaces
        if w.status in OCCUPYING and w.machine_id and w.machine_id not in known
    ]


def failures(machine: Machine, records: Iterable[Workspace], reason: str) -> list[Failed]:
    """What a lost machine means for the workspaces that held a slot on it."""
    return [
        Failed(w, "machine_lost", f"its machine {machine.id} went down: {reason}. Start it again.")
        for w in records
        if w.status in OCCUPYING and w.machine_id == machine.id
    ]
