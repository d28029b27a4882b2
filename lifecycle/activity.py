"""Why is this workspace alive, and what happens to it when? Answered from its record alone; pure.

The rule: a running workspace is stopped once nothing that its policy counts as activity was seen for
the idle timeout and no extension is left. An unknown last activity is never idleness: without one
there is no time to stop at. Times are milliseconds, timeouts seconds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from lifecycle import schedule
from lifecycle.model import Workspace, WorkspaceStatus
from lifecycle.plans import KINDS, Policy

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
    """The bound of a running workspace; it is stopped once now_ms is at_ms. None of any other status runs out."""
    if workspace.status is not _W.RUNNING:
        return Bound(None, f"it is {workspace.status}", False, str(workspace.status))
    return bound_once_running(workspace, policy, now_ms, trusted_since_ms)


def bound_once_running(
    workspace: Workspace, policy: Policy, now_ms: int, trusted_since_ms: int | None = None
) -> Bound:
    """The bound that it has while it runs, whatever its status is now: on the move it keeps the clock that it had.

    Signals that its policy counts keep it for the idle timeout; a job does for max_job_hours at most; an extension
    outlasts them; no activity moves its maximum lifetime or stop_by; pinned, it has no bound.
    trusted_since_ms: heartbeats came without a gap since then; what was before is unknown, and
    unknown is never idle.
    """
    if workspace.pinned:
        return Bound(None, "pinned: it is never stopped by itself", False, "pinned")
    kept = _kept(workspace, policy, now_ms, trusted_since_ms)
    hard = _hard(workspace, policy)
    if hard is None or (kept.at_ms is not None and kept.at_ms <= (hard.at_ms or 0)):
        return kept
    return hard


def _kept(workspace: Workspace, policy: Policy, now_ms: int, trusted_since_ms: int | None) -> Bound:
    """What activity and extensions make of it."""
    at, kind = _newest(workspace, policy)
    said = f"{_named(workspace, kind)}, {_ago(at, now_ms)}"
    found = [Bound(idle_at(at, policy, now_ms), said, False, kind)] if at else []
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
    longest = max(found, key=lambda one: one.at_ms or 0)
    until = workspace.extend_until_ms
    if not until or until < (longest.at_ms or 0):
        return longest
    # As long as a sighting does is enough: who asks it to stay is seen and extends it in one millisecond.
    left = f"{span((until - now_ms) / 1000)} left"
    return Bound(until, f"extended, {left}", False, "extended")


def _newest(workspace: Workspace, policy: Policy) -> tuple[int, str]:
    """The newest signal that counts, other than a job. What was seen last may be of no known kind: it counts.
    A boot counts that somebody asked for: not the one after a move."""
    booted_ms = 0 if workspace.moved else workspace.running_since_ms
    seen = workspace.seen
    kinds = ["boot", *(kind for kind in KINDS if kind in policy.signals and kind != "job")]
    at, kind = max([(booted_ms, "boot"), *((seen.get(k, 0), k) for k in kinds)])
    if workspace.last_active_at_ms > max(at, *seen.values(), 0):
        return workspace.last_active_at_ms, "activity"
    return at, kind


def _named(workspace: Workspace, kind: str) -> str:
    return "boot before its move" if kind == "boot" and workspace.moved else kind


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
    workspace: Workspace, now_ms: int, policy: Policy, trusted_since_ms: int | None = None
) -> tuple[str | None, int | None]:
    """("frames, 12 s ago", when it stops) while it runs; the reason is None once it is to be stopped."""
    if workspace.status is _W.STARTING:
        return f"boot, {_ago(workspace.status_since_ms, now_ms)}", None
    if workspace.status is not _W.RUNNING:
        return None, None
    found = bound(workspace, policy, now_ms, trusted_since_ms)
    over = found.at_ms is not None and now_ms >= found.at_ms
    return None if over else found.because, found.at_ms


def explain(
    workspace: Workspace, now_ms: int, policy: Policy, trusted_since_ms: int | None = None
) -> dict[str, Any]:
    """{aliveBecause, stopsAt, signals: [{kind, lastAt, secondsAgo, source, counts}], next: [{what, at, unless}],
    text}.

    signals: newest first. next: in the order in which it would happen; at is None where no clock decides.
    """
    because, stops_at_ms = alive_because(workspace, now_ms, policy, trusted_since_ms)
    steps = _next_steps(workspace, now_ms, policy, trusted_since_ms)
    return {
        "aliveBecause": because,
        "stopsAt": stops_at_ms,
        "signals": [
            _signal(workspace, kind, at, now_ms, policy) for kind, at in _newest_first(workspace)
        ],
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


def _newest_first(workspace: Workspace) -> list[tuple[str, int]]:
    return sorted(workspace.seen.items(), key=lambda item: (-item[1], item[0]))


def _signal(
    workspace: Workspace, kind: str, at_ms: int, now_ms: int, policy: Policy
) -> dict[str, Any]:
    return {
        "kind": kind,
        "lastAt": at_ms,
        "secondsAgo": max(0, (now_ms - at_ms) // 1000),
        "source": workspace.sources.get(kind),
        "counts": kind == "boot" or kind in policy.signals,
    }


def _step(what: str, at_ms: int | None, unless: str | None) -> dict[str, Any]:
    return {"what": what, "at": at_ms, "unless": unless}


def _next_steps(
    workspace: Workspace, now_ms: int, policy: Policy, trusted_since_ms: int | None
) -> list[dict[str, Any]]:
    """What follows, and what would prevent it. Ends with the termination that keeps a snapshot."""
    match workspace.status:
        case _W.QUEUED:
            return [_step("start", None, "it is stopped while it waits")]
        case _W.STARTING:
            return [_step("run", None, "the boot fails or it is stopped")]
        case _W.RUNNING:
            return _steps_of_running(workspace, now_ms, policy, trusted_since_ms)
        case _W.STOPPING | _W.TERMINATING if workspace.next == "start":
            return [_step("start", None, "it is stopped again before")]
        case _W.STOPPING if workspace.next == "terminate":
            return [_step("terminate", None, _OPENED)]
        case _W.STOPPING:
            return _end(now_ms, policy)
        case _W.STOPPED | _W.FAILED:
            start = _autostart(workspace, now_ms, policy)
            return start + _end(workspace.status_since_ms, policy, workspace.keep_until_ms)
        case _W.TERMINATED:
            return _autostart(workspace, now_ms, policy)
        case _:
            return []


_OPENED = "somebody opens or starts it before"


def _steps_of_running(
    workspace: Workspace, now_ms: int, policy: Policy, trusted_since_ms: int | None
) -> list[dict[str, Any]]:
    found = bound(workspace, policy, now_ms, trusted_since_ms)
    unless = None if found.hard else "there is activity before, or it is extended"
    stop = _step("stop", found.at_ms, unless)
    if found.at_ms is None:
        return [stop]
    # An overdue stop happens at the next look, so the retention counts from now at the earliest.
    return [stop, *_end(max(found.at_ms, now_ms), policy)]


def _end(asleep_since_ms: int, policy: Policy, keep_until_ms: int = 0) -> list[dict[str, Any]]:
    if policy.keep:
        return []
    at_ms = max(asleep_since_ms + math.ceil(policy.retention * 1000), keep_until_ms)
    return [_step("terminate", at_ms, _OPENED)]


def _autostart(workspace: Workspace, now_ms: int, policy: Policy) -> list[dict[str, Any]]:
    if not policy.autostart or workspace.status is _W.FAILED:
        return []
    at_ms = schedule.next_time(policy.autostart, policy.time_zone, now_ms)
    return [] if at_ms is None else [_step("start", at_ms, None)]


def _sentence(
    workspace: Workspace, now_ms: int, because: str | None, steps: list[dict[str, Any]]
) -> str:
    said = (
        f"{workspace.status.capitalize()} for {span((now_ms - workspace.status_since_ms) / 1000)}"
    )
    said += f" ({workspace.reason})" if workspace.reason else ""
    match workspace.status:
        case _W.RUNNING if because is None:
            return f"{said}; its time is over. It is stopped within moments; files are kept."
        case _W.RUNNING if steps[0]["at"] is None:
            return f"{said}; {because}."
        case _W.RUNNING:
            left = span((steps[0]["at"] - now_ms) / 1000)
            unless = (
                f" unless {steps[0]['unless']}"
                if steps[0]["unless"]
                else ", whatever is done in it"
            )
            return f"{said}; alive because of {because}. It stops in {left}{unless}."
        case _W.STOPPED | _W.FAILED if not steps:
            return f"{said}. It is kept for ever."
        case _ if steps and steps[0]["what"] == "start" and steps[0]["at"]:
            return f"{said}. It starts by its schedule in {span((steps[0]['at'] - now_ms) / 1000)}."
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
