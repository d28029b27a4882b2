"""Records, statuses, transitions and commands: the words every other module speaks.

Imports nothing of ours. All times are milliseconds by Redis's clock unless a name says otherwise.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class IllegalTransition(Exception):
    """A status change that the tables below do not allow: a bug in the caller, never a race."""


class WorkspaceStatus(StrEnum):
    QUEUED = "queued"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    TERMINATING = "terminating"
    TERMINATED = "terminated"
    FAILED = "failed"


class MachineStatus(StrEnum):
    LAUNCHING = "launching"
    READY = "ready"
    DRAINING = "draining"
    STOPPED = "stopped"
    TERMINATED = "terminated"
    LOST = "lost"


_W = WorkspaceStatus
_M = MachineStatus

WORKSPACE_TRANSITIONS: dict[WorkspaceStatus, frozenset[WorkspaceStatus]] = {
    # A queued workspace that is no longer wanted goes back to stopped: it never had a machine.
    _W.QUEUED: frozenset({_W.STARTING, _W.STOPPED, _W.FAILED}),
    _W.STARTING: frozenset({_W.RUNNING, _W.STOPPING, _W.FAILED}),
    _W.RUNNING: frozenset({_W.STOPPING, _W.FAILED}),
    _W.STOPPING: frozenset({_W.STOPPED, _W.FAILED}),
    _W.STOPPED: frozenset({_W.QUEUED, _W.TERMINATING}),
    # A snapshot that could not be written or verified leads back to stopped: nothing is deleted.
    _W.TERMINATING: frozenset({_W.TERMINATED, _W.STOPPED}),
    _W.TERMINATED: frozenset({_W.QUEUED}),
    _W.FAILED: frozenset({_W.QUEUED, _W.TERMINATING}),
}

MACHINE_TRANSITIONS: dict[MachineStatus, frozenset[MachineStatus]] = {
    # One that was started again and is found down all the same is stopped.
    _M.LAUNCHING: frozenset({_M.READY, _M.STOPPED, _M.LOST, _M.TERMINATED}),
    _M.READY: frozenset({_M.DRAINING, _M.STOPPED, _M.LOST}),
    # A drain is called off when the seats are needed again.
    _M.DRAINING: frozenset({_M.READY, _M.STOPPED, _M.TERMINATED, _M.LOST}),
    _M.STOPPED: frozenset({_M.LAUNCHING, _M.TERMINATED}),
    # A lost machine whose disk is still there is launched again under its own name.
    _M.LOST: frozenset({_M.LAUNCHING, _M.READY, _M.TERMINATED}),
    _M.TERMINATED: frozenset(),
}

OCCUPYING = frozenset({_W.STARTING, _W.RUNNING, _W.STOPPING})
"""Statuses in which a workspace holds a slot of its machine."""

ASLEEP = frozenset({_W.STOPPED, _W.FAILED, _W.TERMINATED})
"""Statuses from which a person's visit wakes a workspace."""


def check_transition(
    old: WorkspaceStatus | MachineStatus, new: WorkspaceStatus | MachineStatus
) -> None:
    """Raise IllegalTransition unless the tables allow old → new."""
    table: (
        dict[WorkspaceStatus, frozenset[WorkspaceStatus]]
        | dict[MachineStatus, frozenset[MachineStatus]]
    )
    table = WORKSPACE_TRANSITIONS if isinstance(old, WorkspaceStatus) else MACHINE_TRANSITIONS
    if new not in table[old]:  # type: ignore[index]
        raise IllegalTransition(f"{type(old).__name__} {old} → {new}")


def diagram() -> str:
    """Both tables as mermaid diagrams; docs/architecture.md shows them as they are made here."""
    return "\n".join(
        _state_diagram(table, first, "terminated")
        for table, first in ((WORKSPACE_TRANSITIONS, "stopped"), (MACHINE_TRANSITIONS, "launching"))
    )


def _state_diagram(table: Mapping[Any, Collection[Any]], first: str, last: str) -> str:
    rows = [(old, new) for old in table for new in table if new in table[old]]
    arrows = [("[*]", first), *rows, (last, "[*]")]
    lines = [f"    {old} --> {new}" for old, new in arrows]
    return "\n".join(["```mermaid", "stateDiagram-v2", *lines, "```", ""])


@dataclass(frozen=True, slots=True)
class Workspace:
    """One user's IDE and files, as `workspace:{id}` holds it.

    epoch: boots so far. machine_id: where its files are ("" when only a snapshot has them).
    address: "host:port" of the IDE while running. secret: opens the IDE upstream.
    restore: the snapshot this boot starts from, until it runs; "" when the files are on the machine.
    volume: its own disk, where it has one (an EBS volume's id). zone: where that disk is.
    next: what follows once it is stopped or terminated: "start" (somebody came back meanwhile),
    "terminate" (it was deleted while it ran) or "".
    seen: kind of signal ("boot", "input", "frames", "job", "api") → when last seen; sources: → from what.
    left_at_ms: when a gateway's last session of it closed.
    moved: the lifecycle moved it and nobody has asked for it since: this boot is no sign of life.
    job: what works in it now, in words; job_since_ms: since when something has, without a pause.
    own_policy: what it says otherwise than its plan does, as JSON (plans.py). pinned: never stopped by itself.
    keep_until_ms: not terminated before. warned_ms: the stop that its person was warned of; 0 after none.
    stop_by_ms, stop_by: a stop that no activity prevents, and why; 0 while there is none.
    files_bytes: size of its files, as its last snapshot found them.
    running_class: what its machine was billed as when it began to run. stored_since_ms: since when it does not
    run, and its files are stored; 0 while it runs. stored_bytes: their size since then.
    """

    id: str
    user_id: str
    status: WorkspaceStatus
    created_at_ms: int
    status_since_ms: int
    name: str = ""
    epoch: int = 0
    machine_id: str = ""
    address: str = ""
    secret: str = ""
    restore: str = ""
    plan: str = "default"
    priority: str = "normal"
    region: str = "local"
    step: str = ""
    reason: str = ""
    error_code: str = ""
    error: str = ""
    snapshot_id: str = ""
    volume: str = ""
    zone: str = ""
    next: str = ""
    last_active_at_ms: int = 0
    left_at_ms: int = 0
    running_since_ms: int = 0
    moved: bool = False
    extend_until_ms: int = 0
    seen: dict[str, int] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    job: str = ""
    job_since_ms: int = 0
    own_policy: str = ""
    pinned: bool = False
    keep_until_ms: int = 0
    warned_ms: int = 0
    stop_by_ms: int = 0
    stop_by: str = ""
    files_bytes: int = 0
    running_class: str = ""
    stored_since_ms: int = 0
    stored_bytes: int = 0


STANDBY = "standby"
"""Reason of a machine that is stopped, or is being emptied for that, because it starts faster than a new one."""


@dataclass(frozen=True, slots=True)
class Machine:
    """A host with an agent, as `machine:{id}` holds it.

    address: "host:port" of its agent. token: opens the agent. slots: workspaces it takes.
    warm: IDEs that are started there and nobody's yet; they hold no slot.
    empty_since_ms: since when it holds no workspace in a slot (0 while it holds one).
    unheard: its record was lost and written anew; what lies on it is known with its first report.
    joined: its agent came with the join code, or was launched with its token.
    instance: the pool's own name for it. zone: where disks can be attached to it; "" is everywhere.
    machine_class: what it is billed as: the pool's word for its kind, or --machine-class.
    doomed_at_ms: the pool takes it back then (a spot notice); 0 while nothing was said.
    held_by: "operator" while a person drains it: nothing but a person ends that.
    """

    id: str
    pool: str
    status: MachineStatus
    status_since_ms: int
    slots: int
    address: str = ""
    token: str = ""
    created_at_ms: int = 0
    empty_since_ms: int = 0
    last_report_ms: int = 0
    cpu_percent: float = 0.0
    memory_bytes: int = 0
    memory_total_bytes: int = 0
    disk_free_bytes: int = 0
    warm: int = 0
    occupied: int = 0
    holds_files: int = 0
    reason: str = ""
    unheard: bool = False
    joined: bool = False
    instance: str = ""
    zone: str = ""
    machine_class: str = ""
    doomed_at_ms: int = 0
    held_by: str = ""


@dataclass(frozen=True, slots=True)
class Event:
    """One entry of the `events` stream. id: the stream's own, "ms-n". type: "workspace.running", …"""

    id: str
    type: str
    data: dict[str, str]
    """workspace, user, machine, session, gateway, epoch, reason, … as far as they apply."""

    @property
    def at_ms(self) -> int:
        return int(self.id.partition("-")[0])
