"""Why is this workspace alive, and what happens to it when? Answered from its record alone; pure.

The rule: a running workspace is stopped once nothing that counts as activity was seen for
`idle_timeout` and no extension is left. An unknown last activity is never idleness: without one
there is no time to stop at. Times are milliseconds, timeouts seconds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from lifecycle import schedule
from lifecycle.model import Workspace, WorkspaceStatus
from lifecycle.plans import KINDS, Policy

COUNTING = frozenset({"boot", "frames", "api", "input", "job"})
"""Kinds of signal that keep a workspace alive; any other is shown and keeps nothing."""

_W = WorkspaceStatus


@dataclass(frozen=True, slots=True)
class Bound:
    """When a running workspace stops, and what keeps it until then.

    at_ms: None while there is no time to stop at. hard: activity does not move it. kind: the signal that keeps
    it, "extended", "pinned", "unknown", or what bounds it: "lifetime", "stop_by". because: the same in words.
    """

    at_ms: int | None
    because: str
    hard: bool
    kind: str


def bound(
    workspace: Workspace, policy: Policy, now_ms: int, trusted_since_ms: int | None = None
) -> Bound:
    """The bound of a running workspace; it is stopped once now_ms is at_ms.

    Signals that its policy counts keep it for the idle timeout; a job does for max_job_hours at most; an extension
    outlasts them; no activity moves its maximum lifetime or stop_by; pinned, it has no bound.
    trusted_since_ms: heartbeats came without a gap since then; what was before is unknown, and
    unknown is never idle.
    """
    if workspace.status is not _W.RUNNING:
        return Bound(None, f"it is {workspace.status}", False, str(workspace.status))
    if workspace.pinned:
        return Bound(None, "pinned: it is never stopped by itself", False, "pinned")
    kept = _kept(workspace, policy, now_ms, trusted_since_ms)
    hard = _hard(workspace, policy)
    if hard is None or (kept.at_ms is not None and kept.at_ms <= (hard.at_ms or 0)):
        return kept
    return hard


def _kept(workspace: Workspace, policy: Policy, now_ms: int, trusted_since_ms: int | None) -> Bound:
    """What activity and extensions make of it."""
    found = [
        Bound(idle_at(at, policy, now_ms), f"{kind}, {_ago(at, now_ms)}", False, kind)
        for at, kind in [_newest(workspace, policy)]
        if at
    ]
    if workspace.seen.get("job") and "job" in policy.signals:
        found.append(_by_job(workspace, policy, now_ms))
    if not found:
        return Bound(
            None,
            "nothing is known of its activity yet, and unknown is never idle",
            False,
            "unknown",
        )
    if trusted_since_ms:
        said = f"heartbeats, heard without a gap since {_ago(trusted_since_ms, now_ms)}"
        found.append(Bound(idle_at(trusted_since_ms, policy, now_ms), said, False, "unknown"))
    if workspace.extend_until_ms:
        until = workspace.extend_until_ms
        left = f"{span((until - now_ms) / 1000)} left"
        found.append(Bound(until, f"extended, {left}", False, "extended"))
    return max(found, key=lambda one: one.at_ms or 0)


def _newest(workspace: Workspace, policy: Policy) -> tuple[int, str]:
    """The newest signal that counts, other than a job. What was seen last may be of no known kind: it counts."""
    seen = workspace.seen
    kinds = ["boot", *(kind for kind in KINDS if kind in policy.signals and kind != "job")]
    at, kind = max([(workspace.running_since_ms, "boot"), *((seen.get(k, 0), k) for k in kinds)])
    if workspace.last_active_at_ms > max(at, *seen.values(), 0):
        return workspace.last_active_at_ms, "activity"
    return at, kind


def _by_job(workspace: Workspace, policy: Policy, now_ms: int) -> Bound:
    """A job that has ended has no bound of its own: from then on it is one more signal."""
    seen = workspace.seen["job"]
    words = f"job ({workspace.job})" if workspace.job else "job"
    said, until = f"{words}, {_ago(seen, now_ms)}", idle_at(seen, policy, now_ms)
    if workspace.job_since_ms:
        longest = workspace.job_since_ms + math.ceil(policy.max_job_hours * 3_600_000)
        if longest < until:
            hours = span(policy.max_job_hours * 3600)
            return Bound(longest, f"{said}, which counts for {hours} at most", False, "job")
    return Bound(until, said, False, "job")


def idle_at(last_ms: int, policy: Policy, now_ms: int) -> int:
    """When it has been idle for long enough: the idle timeout after last_ms, or in quiet hours theirs."""
    usual = last_ms + math.ceil(policy.idle_timeout * 1000)
    early = last_ms + math.ceil(policy.quiet_idle_timeout * 1000)
    if not policy.quiet_hours or early >= usual:
        return usual
    if schedule.matches(policy.quiet_hours, policy.time_zone, max(early, now_ms)):
        return early
    quiet = schedule.next_change(policy.quiet_hours, policy.time_zone, max(early, now_ms))
    return usual if quiet is None else min(usual, quiet)


def _hard(workspace: Workspace, policy: Policy) -> Bound | None:
    found = []
    if policy.max_lifetime and workspace.running_since_ms:
        at = workspace.running_since_ms + math.ceil(policy.max_lifetime * 1000)
        found.append(
            Bound(at, f"it runs for {span(policy.max_lifetime)} at most", True, "lifetime")
        )
    if workspace.stop_by_ms:
        said = workspace.stop_by or "it has to stop"
        found.append(Bound(workspace.stop_by_ms, said, True, "stop_by"))
    return min(found, key=lambda one: one.at_ms or 0, default=None)


def alive_because(
    workspace: Workspace, now_ms: int, idle_timeout: float
) -> tuple[str | None, int | None]:
    """("frames, 12 s ago", when it stops) while it runs; the reason is None once it is idle.

    The reason is the one its stop waits for: an extension that outlasts the last activity wins.
    """
    if workspace.status is _W.STARTING:
        return f"boot, {_ago(workspace.status_since_ms, now_ms)}", None
    if workspace.status is not _W.RUNNING:
        return None, None
    kind, last_ms = _last_activity(workspace)
    if not last_ms:
        return "nothing is known of its activity yet, and unknown is never idle", None
    idle_at = last_ms + math.ceil(idle_timeout * 1000)
    if workspace.extend_until_ms > idle_at:
        left = workspace.extend_until_ms - now_ms
        reason = f"extended, {span(left / 1000)} left" if left > 0 else None
        return reason, workspace.extend_until_ms
    return (f"{kind}, {_ago(last_ms, now_ms)}" if now_ms < idle_at else None), idle_at


def explain(
    workspace: Workspace, now_ms: int, idle_timeout: float, retention: float
) -> dict[str, Any]:
    """{aliveBecause, stopsAt, signals: [{kind, lastAt, secondsAgo, counts}], next: [{what, at, unless}], text}.

    signals: newest first. next: in the order in which it would happen; at is None where no clock decides.
    """
    because, stops_at_ms = alive_because(workspace, now_ms, idle_timeout)
    steps = _next_steps(workspace, now_ms, stops_at_ms, retention)
    return {
        "aliveBecause": because,
        "stopsAt": stops_at_ms,
        "signals": [_signal(kind, at, now_ms) for kind, at in _newest_first(workspace)],
        "next": steps,
        "text": _sentence(workspace, now_ms, because, steps),
    }


def span(seconds: float) -> str:
    """A length of time as a person says it: "12 s", "4 min", "2 h 5 min", "3 d"."""
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min"
    large, small, names = (
        (whole // 3600, whole % 3600 // 60, ("h", "min"))
        if whole < 86400
        else (whole // 86400, whole % 86400 // 3600, ("d", "h"))
    )
    return f"{large} {names[0]}" + (f" {small} {names[1]}" if small else "")


def _last_activity(workspace: Workspace) -> tuple[str, int]:
    """The newest signal that counts. last_active_at_ms may be ahead of the kinds: then its kind is unknown."""
    counting = [(at, kind) for kind, at in workspace.seen.items() if kind in COUNTING]
    at, kind = max([*counting, (workspace.running_since_ms, "boot")])
    if workspace.last_active_at_ms > at:
        return "activity", workspace.last_active_at_ms
    return kind, at


def _newest_first(workspace: Workspace) -> list[tuple[str, int]]:
    return sorted(workspace.seen.items(), key=lambda item: (-item[1], item[0]))


def _signal(kind: str, at_ms: int, now_ms: int) -> dict[str, Any]:
    return {
        "kind": kind,
        "lastAt": at_ms,
        "secondsAgo": max(0, (now_ms - at_ms) // 1000),
        "counts": kind in COUNTING,
    }


def _step(what: str, at_ms: int | None, unless: str | None) -> dict[str, Any]:
    return {"what": what, "at": at_ms, "unless": unless}


def _next_steps(
    workspace: Workspace, now_ms: int, stops_at_ms: int | None, retention: float
) -> list[dict[str, Any]]:
    """What follows, and what would prevent it. Ends with the termination that keeps a snapshot."""
    keep_ms = math.ceil(retention * 1000)
    terminate = "somebody opens or starts it before"
    match workspace.status:
        case _W.QUEUED:
            return [_step("start", None, "it is stopped while it waits")]
        case _W.STARTING:
            return [_step("run", None, "the boot fails or it is stopped")]
        case _W.RUNNING:
            stop = _step("stop", stops_at_ms, "there is activity before, or it is extended")
            if stops_at_ms is None:
                return [stop]
            # An overdue stop happens at the next sweep, so the retention counts from now at the earliest.
            return [stop, _step("terminate", max(stops_at_ms, now_ms) + keep_ms, terminate)]
        case _W.STOPPING | _W.TERMINATING if workspace.next == "start":
            return [_step("start", None, "it is stopped again before")]
        case _W.STOPPING if workspace.next == "terminate":
            return [_step("terminate", None, "somebody opens or starts it before")]
        case _W.STOPPING:
            return [_step("terminate", now_ms + keep_ms, terminate)]
        case _W.STOPPED | _W.FAILED:
            return [_step("terminate", workspace.status_since_ms + keep_ms, terminate)]
        case _:
            return []


def _sentence(
    workspace: Workspace, now_ms: int, because: str | None, steps: list[dict[str, Any]]
) -> str:
    said = (
        f"{workspace.status.capitalize()} for {span((now_ms - workspace.status_since_ms) / 1000)}"
    )
    said += f" ({workspace.reason})" if workspace.reason else ""
    match workspace.status:
        case _W.RUNNING if because is None:
            return f"{said}; idle. It is stopped at the next sweep; files are kept."
        case _W.RUNNING if steps[0]["at"] is None:
            return f"{said}; {because}."
        case _W.RUNNING:
            left = span((steps[0]["at"] - now_ms) / 1000)
            return f"{said}; alive because of {because}. It stops in {left} unless {steps[0]['unless']}."
        case _W.TERMINATED:
            kept = "its files are in a snapshot" if workspace.snapshot_id else "it keeps no files"
            return f"{said}; {kept}. Opening it brings it back."
        case _W.TERMINATING if not steps:
            return f"{said}; a snapshot is written and verified before anything is deleted."
        case _ if steps[0]["at"] is None:
            return f"{said}; next: {steps[0]['what']}, unless {steps[0]['unless']}."
        case _:
            left = span((steps[0]["at"] - now_ms) / 1000)
            return f"{said}. Snapshot and termination in {left} unless {steps[0]['unless']}."


def _ago(at_ms: int, now_ms: int) -> str:
    return f"{span((now_ms - at_ms) / 1000)} ago"
