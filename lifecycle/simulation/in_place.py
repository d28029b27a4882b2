"""The live records, changed in place: a day has a hundred thousand changes, and nobody else holds one of its records."""

from __future__ import annotations

from typing import Any

from lifecycle.model import (
    Machine,
    MachineStatus,
    Workspace,
    WorkspaceStatus,
    check_transition,
)


def put(record: Machine | Workspace, **changes: Any) -> None:
    for name, value in changes.items():
        object.__setattr__(record, name, value)


def turn(record: Machine | Workspace, to: MachineStatus | WorkspaceStatus, now_ms: int) -> None:
    """Raises IllegalTransition."""
    check_transition(record.status, to)
    put(record, status=to, status_since_ms=now_ms)
