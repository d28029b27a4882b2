"""When is a workspace stopped, its person warned, a workspace terminated or started, a session evicted? Pure;
times in milliseconds."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from lifecycle import schedule
from lifecycle.activity import Bound, bound, idle_at
from lifecycle.model import Workspace, WorkspaceStatus
from lifecycle.plans import KINDS, Policy

_W = WorkspaceStatus


@dataclass(frozen=True, slots=True)
class Stop:
    """Stop this boot, unless one of these signals came later, or it is extended beyond that."""

    workspace: Workspace
    reason: str
    unless_seen: dict[str, int]
    unless_extended_ms: int | None


@dataclass(frozen=True, slots=True)
class Warn:
    """Tell its person that it stops at that time; lead: seconds before. canStay: activity prevents it."""

    workspace: Workspace
    at_ms: int
    lead: float
    bound: Bound


@dataclass(frozen=True, slots=True)
class Stays:
    """The stop that its person was warned of is off."""

    workspace: Workspace


@dataclass(frozen=True, slots=True)
class Terminate:
    """Snapshot, verify, then terminate."""

    workspace: Workspace
    reason: str


@dataclass(frozen=True, slots=True)
class WarnEnd:
    """Tell its person that it is terminated at that time; lead: seconds before."""

    workspace: Workspace
    at_ms: int
    lead: float


@dataclass(frozen=True, slots=True)
class Start:
    """Its schedule says that it is to run."""

    workspace: Workspace


Command = Stop | Warn | Stays | Terminate | WarnEnd | Start


@dataclass(frozen=True, slots=True)
class Evict:
    """End a session that nobody answers on, unless it was seen since."""

    member: str
    reason: str
    unless_seen_since_ms: int


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known beside a running workspace's record.

    trusted_since_ms: heartbeats have come without a gap since then; None: never, so nothing is idle.
    unheard_ms: last word of a silent gateway that holds sessions of it; what happens there is unknown, and
    unknown is never idle: it counts as active until then. silent: its machine's agent does not answer;
    late: a gateway has yet to tell what it saw. Both wait.
    """

    trusted_since_ms: int | None
    unheard_ms: int = 0
    silent: bool = False
    late: bool = False


@dataclass(frozen=True, slots=True)
class Look:
    """What to do now, and when to look again; None: not before its status or its policy changes."""

    commands: tuple[Command, ...] = ()
    next_ms: int | None = None


AGAIN_MS = 2000
"""Until the next look at what cannot be told yet, and at what its person was warned of."""

DAILY_MS = 86_400_000
"""Until the next look at what time does not change as far as is known."""

RESTART_GRACE_MS = 600_000
"""A start that nobody led at its time is made up for until then."""


def look(w: Workspace, policy: Policy, facts: Facts, now_ms: int) -> Look:
    """What time does to a workspace. Called when it is due, and after every change of its status."""
    if w.status is _W.RUNNING:
        return _running(w, policy, facts, now_ms)
    if w.status in (_W.STOPPED, _W.FAILED, _W.TERMINATED):
        return _asleep(w, policy, now_ms)
    return Look()


def _running(w: Workspace, policy: Policy, facts: Facts, now_ms: int) -> Look:
    if facts.trusted_since_ms is None or facts.silent or facts.late:
        return Look(next_ms=now_ms + AGAIN_MS)
    found = bound(w, policy, now_ms, facts.trusted_since_ms)
    if found.at_ms is None:
        return Look((Stays(w),) if w.warned_ms else (), now_ms + DAILY_MS)
    at_ms = found.at_ms
    leads = countdown(policy, w, found, now_ms)
    if found.hard:
        # It has nothing to do with being away: whoever works in it is warned first, however late that is.
        at_ms = w.warned_ms or max(at_ms, now_ms + int(min(leads) * 1000))
    elif facts.unheard_ms:
        at_ms = max(at_ms, idle_at(facts.unheard_ms, policy, now_ms))
    if now_ms >= at_ms:
        return Look((_stop(w, found, policy, now_ms),), now_ms + AGAIN_MS)
    begun = [lead for lead in leads if at_ms - lead * 1000 <= now_ms]
    commands: tuple[Command, ...] = ()
    if begun:
        commands = (Warn(w, at_ms, min(begun), found),)
    elif w.warned_ms:
        commands = (Stays(w),)
    times = [int(at_ms - lead * 1000) for lead in leads if lead not in begun]
    times += [now_ms + AGAIN_MS] if begun or w.warned_ms else []
    return Look(commands, min([at_ms, *times]))


def countdown(policy: Policy, w: Workspace, found: Bound, now_ms: int) -> tuple[float, ...]:
    """How many seconds before this stop its person is told, longest first. A short idle timeout has room
    for short ones only: half of it if for none."""
    if found.hard:
        return policy.countdown or (60.0,)
    timeout = (idle_at(now_ms, policy, now_ms) - now_ms) / 1000
    return tuple(lead for lead in policy.countdown if lead < timeout) or (timeout / 2,)


def reason_of(w: Workspace, policy: Policy, found: Bound) -> str:
    """The word that the record, the events and the notices give as the reason of a stop."""
    if found.kind == "lifetime":
        return "max lifetime"
    if found.kind == "stop_by":
        return found.because
    return "job limit" if found.kind == "job" and found.at_ms == job_ends_at(w, policy) else "idle"


def job_ends_at(w: Workspace, policy: Policy) -> int | None:
    """Until when its job counts; None while there is none."""
    return w.job_since_ms + math.ceil(policy.max_job_hours * 3_600_000) if w.job_since_ms else None


def _stop(w: Workspace, found: Bound, policy: Policy, now_ms: int) -> Stop:
    if found.hard:
        return Stop(w, reason_of(w, policy, found), {}, None)
    kinds = {kind for kind in KINDS if kind in policy.signals}
    over = job_ends_at(w, policy)
    if over is not None and now_ms >= over:
        kinds -= {"job"}  # it may go on for ever: its time is over
    return Stop(
        w,
        reason_of(w, policy, found),
        {kind: w.seen.get(kind, 0) for kind in {*kinds, "boot"}},
        w.extend_until_ms,
    )


def _asleep(w: Workspace, policy: Policy, now_ms: int) -> Look:
    starts_ms = _next_start(w, policy, now_ms)
    if starts_ms is not None and starts_ms <= now_ms:
        return Look((Start(w),), now_ms + AGAIN_MS)
    ends_ms = ends_at(w, policy)
    if ends_ms is None:
        never = None if w.status is _W.TERMINATED else now_ms + DAILY_MS
        return Look(next_ms=never if starts_ms is None else starts_ms)
    if now_ms >= ends_ms:
        return Look((Terminate(w, "retention"),), now_ms + AGAIN_MS)
    # At the stop itself its notice says until when it is kept.
    leads = [lead for lead in policy.ending_notice if lead < policy.retention]
    begun = [lead for lead in leads if ends_ms - lead * 1000 <= now_ms]
    commands = (WarnEnd(w, ends_ms, min(begun)),) if begun else ()
    times = [int(ends_ms - lead * 1000) for lead in leads if lead not in begun]
    times += [starts_ms] if starts_ms is not None else []
    return Look(commands, min([ends_ms, *times]))


def ends_at(w: Workspace, policy: Policy) -> int | None:
    """When a stopped or failed workspace is terminated; None: never, or it is."""
    if policy.keep or w.status not in (_W.STOPPED, _W.FAILED):
        return None
    return max(w.status_since_ms + int(policy.retention * 1000), w.keep_until_ms)


def _next_start(w: Workspace, policy: Policy, now_ms: int) -> int | None:
    if not policy.autostart or w.status is _W.FAILED:
        return None
    after_ms = max(w.status_since_ms, now_ms - RESTART_GRACE_MS)
    return schedule.next_time(policy.autostart, policy.time_zone, after_ms)


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
