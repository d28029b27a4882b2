"""Which workspaces move, so that machines come free that nobody needs. Pure.

Machines are given back empty, and where sessions are long the last people keep many machines half empty. Only what
nobody is connected to moves; who is there is never disturbed. A machine is emptied whole or not at all, and only into
slots that are free on machines in use: never onto an empty one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lifecycle.model import Machine, Workspace, WorkspaceStatus
from lifecycle.placement import takes_work

KEPT = 1  # slot that stays free for whoever comes meanwhile


@dataclass(frozen=True, slots=True)
class Move:
    """Stop it there, and start it again on a machine in use; unless somebody has come back to it."""

    workspace_id: str
    machine_id: str


def movable(w: Workspace, sessions: int, before_ms: int, now_ms: int) -> bool:
    """Whether nobody is there who would be disturbed: no session, and none since before_ms; no activity since then,
    no job, and nobody asked for it to stay. It also runs since then: what has moved is left as long where it is."""
    if w.status is not WorkspaceStatus.RUNNING or sessions or w.job or w.pinned:
        return False
    if w.extend_until_ms > now_ms or max(w.left_at_ms, w.last_active_at_ms) > before_ms:
        return False
    return w.running_since_ms <= before_ms and all(at <= before_ms for at in w.seen.values())


def cannot_leave(workspace_id: str) -> str:
    """Reason of a machine that works on, since the files of that workspace do not leave it."""
    return f"the files of {workspace_id} cannot leave it"


def went_back(w: Workspace, reason: str) -> bool:
    """Whether it was to move, had to go back to its files, and nobody was there since: it would lose what runs there again
    and again, for nothing. reason: of its machine's status."""
    return w.moved and reason == cannot_leave(w.id)


def moves(
    spare: int, machines: Sequence[Machine], movable: Mapping[str, Sequence[str]]
) -> list[Move]:
    """Commands that empty up to `spare` machines, those with the least on them first, then the youngest.

    movable: machine → workspaces on it that nobody is connected to and nothing works in."""
    used = [m for m in machines if takes_work(m) and m.occupied and m.slots > 1]
    sources = [m for m in used if len(movable.get(m.id, ())) == m.occupied]
    sources.sort(key=lambda m: (m.occupied, -m.created_at_ms, m.id))
    room = sum(m.slots - m.occupied for m in used) - KEPT
    found: list[Move] = []
    for source in sources[:spare]:
        # What is emptied takes nobody in, and what moves takes a slot elsewhere.
        room -= source.slots
        if room < 0:
            break
        found += [Move(each, source.id) for each in movable[source.id]]
    return found
