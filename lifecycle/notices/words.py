"""What notices say to a person. Pure."""

from __future__ import annotations

from lifecycle.model import Workspace

_WHY = {
    "idle": "nothing was done in it",
    "job limit": "its job has run for as long as jobs may",
    "max lifetime": "it has run for as long as it may",
    "quota": "the running hours of its plan are used up",
}


def stopping_soon(workspace: Workspace, reason: str, lead: float) -> str:
    """lead: seconds until then."""
    why = _WHY.get(reason, reason)
    stay = "" if reason not in ("idle", "job limit") else " Open it and press Stay, or just type."
    return f"{_name(workspace)} stops in {span(lead)}: {why}. Its files are kept.{stay}"


def stays(workspace: Workspace) -> str:
    return f"{_name(workspace)} goes on running."


def terminating_soon(workspace: Workspace, lead: float) -> str:
    """lead: seconds until then."""
    return (
        f"{_name(workspace)} is put away in {span(lead)}: its files go into a snapshot, and come back"
        " when it is opened. Keep it, or download its files, from your home page."
    )


def span(seconds: float) -> str:
    """As in "in 5 minutes"."""
    for size, name in ((86_400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= size:
            count = round(seconds / size)
            return f"{count} {name}" + ("s" if count > 1 else "")
    count = max(1, round(seconds))
    return f"{count} second" + ("s" if count > 1 else "")


def _name(workspace: Workspace) -> str:
    return f"“{workspace.name or workspace.id}”"
