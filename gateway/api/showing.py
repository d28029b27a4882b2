"""Records as callers see them."""

from __future__ import annotations

from typing import Any

from gateway.api.answers import (
    EventAnswer,
    Failure,
    MachineAnswer,
    ManifestAnswer,
    Queue,
    WorkspaceAnswer,
)
from lifecycle.agent.contract import Manifest
from lifecycle.model import Event, Machine, Workspace

HIDDEN = frozenset({"secret", "token", "address", "key", "password", "cookie", "env"})
"""Fields of an event that no caller sees, whoever put them there."""

EVENT_NAMES = {
    "workspace": "workspaceId",
    "user": "userId",
    "machine": "instanceId",
    "session": "sessionId",
    "gateway": "gateway",
    "epoch": "epoch",
    "reason": "reason",
}


def workspace_answer(
    workspace: Workspace,
    *,
    url: str,
    alive: tuple[str | None, int | None],
    kept_until_ms: int | None,
    queue: Queue | None,
) -> WorkspaceAnswer:
    w = workspace
    return WorkspaceAnswer(
        workspace_id=w.id,
        user_id=w.user_id,
        name=w.name,
        instance_id=w.machine_id or None,
        status=w.status,
        step=w.step or None,
        created_at=w.created_at_ms,
        last_active_at=w.last_active_at_ms or None,
        status_since=w.status_since_ms,
        region=w.region,
        plan=w.plan,
        priority=w.priority,
        url=url,
        epoch=w.epoch,
        alive_because=alive[0],
        stops_at=alive[1],
        kept_until=kept_until_ms,
        pinned=w.pinned,
        queue=queue,
        snapshot_id=w.snapshot_id or None,
        error=Failure(code=w.error_code or "failed", message=w.error) if w.error else None,
        reason=w.reason or None,
    )


def manifest_answer(manifest: Manifest) -> ManifestAnswer:
    return ManifestAnswer(
        workspace_id=manifest.workspace_id,
        snapshot_id=manifest.snapshot_id,
        epoch=manifest.epoch,
        created_at=manifest.created_at_ms,
        files=manifest.files,
        bytes=manifest.bytes,
        archive_bytes=manifest.archive_bytes,
        sha256=manifest.sha256,
        format=manifest.format,
    )


def machine_answer(machine: Machine) -> MachineAnswer:
    return MachineAnswer(
        instance_id=machine.id,
        pool=machine.pool,
        status=machine.status,
        status_since=machine.status_since_ms,
        created_at=machine.created_at_ms,
        last_report_at=machine.last_report_ms or None,
        slots=machine.slots,
        occupied=machine.occupied,
        holds_files=machine.holds_files,
        cpu_percent=machine.cpu_percent,
        memory_bytes=machine.memory_bytes,
        memory_total_bytes=machine.memory_total_bytes,
        disk_free_bytes=machine.disk_free_bytes,
        warm=machine.warm,
        reason=machine.reason or None,
    )


def event_answer(event: Event) -> EventAnswer:
    named: dict[str, Any] = {
        EVENT_NAMES[name]: value for name, value in event.data.items() if name in EVENT_NAMES
    }
    rest = {
        name: value
        for name, value in event.data.items()
        if name not in EVENT_NAMES and name not in HIDDEN and name != "type"
    }
    return EventAnswer(id=event.id, type=event.type, at=event.at_ms, data=rest, **named)
