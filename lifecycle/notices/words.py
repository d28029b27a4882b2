"""What notices say to a person. Pure."""

from __future__ import annotations

from datetime import UTC, datetime

from lifecycle.model import Workspace
from lifecycle.notices import (
    FAILED,
    QUOTA,
    STAYS,
    STOPPED,
    STOPPING_SOON,
    TERMINATED,
    TERMINATING_SOON,
)

_WHY = {
    "idle": "nothing was done in it",
    "job limit": "its job has run for as long as jobs may",
    "max lifetime": "it has run for as long as it may",
    "quota": "the running hours of its plan are used up",
    "machine stopped": "its machine stopped it",
}

_SUBJECTS = {
    STOPPING_SOON: "{name} stops soon",
    STAYS: "{name} goes on running",
    STOPPED: "{name} was stopped",
    FAILED: "{name} failed",
    TERMINATING_SOON: "{name} is put away soon",
    TERMINATED: "{name} was put away",
    QUOTA: "What you have used of your plan",
}


def stopping_soon(workspace: Workspace, reason: str, lead: float, quiet: float = 0) -> str:
    """lead: seconds until then. quiet: for how many seconds nothing was done in it; 0: not told."""
    can_stay = reason in ("idle", "job limit")
    stay = " Open it and press Stay, or just type." if can_stay else ""
    why = _why(reason, quiet)
    return f"{_called(workspace)} stops in {span(lead)}: {why}. Its files are kept.{stay}"


def stays(workspace: Workspace) -> str:
    return f"{_called(workspace)} goes on running."


def stopped(workspace: Workspace, reason: str, ends_at_ms: int | None = None) -> str:
    """ends_at_ms: when its files leave its machine for a snapshot; None where no clock decides."""
    until = f" until {clock(ends_at_ms)}, and in a snapshot afterwards" if ends_at_ms else ""
    return (
        f"{_called(workspace)} was stopped: {_why(reason)}. Its files are kept{until}."
        " Open it, and it starts again."
    )


def failed(workspace: Workspace, error: str) -> str:
    said = error.strip().rstrip(".") or "its log says why"
    return f"{_called(workspace)} failed: {said}. Open its page to read more, or to start it again."


def terminating_soon(workspace: Workspace, lead: float) -> str:
    """lead: seconds until then."""
    return (
        f"{_called(workspace)} is put away in {span(lead)}: its files go into a snapshot, and come back"
        " when it is opened. Keep it, or download its files, from your home page."
    )


def terminated(workspace: Workspace) -> str:
    files = (
        "its files are in a snapshot, and come back when it is opened"
        if workspace.snapshot_id
        else "it had no files to keep"
    )
    return f"{_called(workspace)} was put away after it had been stopped for long: {files}."


def subject(type: str, name: str) -> str:
    """Of an e-mail. name: the workspace's own, or its id."""
    return _SUBJECTS.get(type, "{name}: news").format(name=f"“{name}”")


def span(seconds: float) -> str:
    """As in "in 5 minutes"."""
    for size, name in ((86_400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= size:
            count = round(seconds / size)
            return f"{count} {name}" + ("s" if count > 1 else "")
    count = max(1, round(seconds))
    return f"{count} second" + ("s" if count > 1 else "")


def clock(at_ms: int) -> str:
    return f"{datetime.fromtimestamp(at_ms / 1000, UTC):%Y-%m-%d %H:%M} UTC"


def _why(reason: str, quiet: float = 0) -> str:
    said = _WHY.get(reason, reason or "the operator's rules say so")
    return f"{said} for {span(quiet)}" if quiet >= 1 and reason == "idle" else said


def _called(workspace: Workspace) -> str:
    return f"“{workspace.name or workspace.id}”"
