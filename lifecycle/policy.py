"""When a session is evicted, a workspace stopped, a workspace terminated. Pure; times in milliseconds."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from lifecycle.model import Workspace, WorkspaceStatus


@dataclass(frozen=True, slots=True)
class Stop:
    """Stop this boot, unless it was active since."""

    workspace: Workspace
    reason: str
    unless_active_since_ms: int


@dataclass(frozen=True, slots=True)
class Terminate:
    """Snapshot, verify, then terminate."""

    workspace: Workspace
    reason: str


@dataclass(frozen=True, slots=True)
class Evict:
    """End a session that nobody answers on, unless it was seen since."""

    member: str
    reason: str
    unless_seen_since_ms: int


def idle_since_ms(workspace: Workspace, trusted_since_ms: int) -> int:
    """Since when nothing is known to have happened in it. What was heard before the heartbeats could
    be trusted says nothing, so a workspace is never idle for longer than they have been."""
    return max(workspace.last_active_at_ms, workspace.running_since_ms, trusted_since_ms)


def stop_idle(
    workspaces: Iterable[Workspace],
    now_ms: int,
    idle_timeout: float,
    trusted_since_ms: int | None,
    unheard_ms: Mapping[str, int] | None = None,
    silent_machines: Collection[str] = (),
) -> list[Stop]:
    """Stops for running workspaces without activity for idle_timeout seconds.

    trusted_since_ms: heartbeats have come without a gap since then; None: never, so nothing is idle.
    unheard_ms: workspace → last word of a silent gateway that holds sessions of it. What happens
    there is unknown, and unknown is never idle: it counts as active until then.
    silent_machines: those whose agents do not answer; what runs there waits until they do.
    """
    if trusted_since_ms is None:
        return []
    unheard = unheard_ms or {}
    return [
        Stop(workspace, "idle", workspace.last_active_at_ms)
        for workspace in workspaces
        if workspace.status is WorkspaceStatus.RUNNING
        and workspace.machine_id not in silent_machines
        and workspace.extend_until_ms <= now_ms
        and now_ms - max(idle_since_ms(workspace, trusted_since_ms), unheard.get(workspace.id, 0))
        >= idle_timeout * 1000
    ]


def terminate_stale(
    workspaces: Iterable[Workspace], now_ms: int, retention: float
) -> list[Terminate]:
    """Terminations for workspaces stopped or failed for longer than retention seconds."""
    return [
        Terminate(workspace, "retention")
        for workspace in workspaces
        if workspace.status in (WorkspaceStatus.STOPPED, WorkspaceStatus.FAILED)
        and now_ms - workspace.status_since_ms >= retention * 1000
    ]


def overdue_boots(
    workspaces: Iterable[Workspace],
    now_ms: int,
    boot_timeout: float,
    trusted_since_ms: int | None,
) -> list[Workspace]:
    """Boots whose agent should have said ready or failed long ago. boot_timeout: seconds the agent
    itself waits; as long again is given for restoring files. While every gateway or Redis was away
    nobody could hear it: that time does not count."""
    if trusted_since_ms is None:
        return []
    return [
        workspace
        for workspace in workspaces
        if workspace.status is WorkspaceStatus.STARTING
        and now_ms - max(workspace.status_since_ms, trusted_since_ms) >= 2 * boot_timeout * 1000
    ]


def evict_sessions(
    sessions: Iterable[tuple[str, int]],
    now_ms: int,
    session_timeout: float,
    trusted_since_ms: int | None,
) -> list[Evict]:
    """Evictions of sessions without a heartbeat for session_timeout seconds."""
    if trusted_since_ms is None:
        return []
    return [
        Evict(member, "no heartbeat", seen_ms)
        for member, seen_ms in sessions
        if now_ms - max(seen_ms, trusted_since_ms) >= session_timeout * 1000
    ]
