"""Manifests as JSON documents, and the names that snapshots are stored under."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, fields

from lifecycle.agent.contract import Manifest
from lifecycle.snapshots import SnapshotError

# Starts with no dot: names with one are temporary files.
_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def check_id(id: str) -> str:
    """The id of a workspace or snapshot, if it can be part of a path. Raises SnapshotError("not_found")."""
    if not _ID.fullmatch(id):
        raise SnapshotError(
            "not_found",
            f"{id[:200]!r} names no workspace or snapshot: up to 128 letters, digits, '_', '.', '-'",
        )
    return id


def archive_name(snapshot_id: str) -> str:
    return f"{check_id(snapshot_id)}.tar.zst"


def manifest_name(snapshot_id: str) -> str:
    return f"{check_id(snapshot_id)}.json"


def dump(manifest: Manifest) -> bytes:
    return json.dumps(asdict(manifest), indent=1).encode() + b"\n"


def load(data: bytes, workspace_id: str, snapshot_id: str) -> Manifest:
    """The manifest of that snapshot and no other. Raises SnapshotError("corrupt")."""
    try:
        values = json.loads(data)
        manifest = Manifest(**values)
    except (ValueError, TypeError, RecursionError) as error:
        raise _corrupt(workspace_id, snapshot_id, str(error)) from error
    for field in fields(Manifest):
        value = getattr(manifest, field.name)
        if type(value).__name__ != field.type or (isinstance(value, int) and value < 0):
            raise _corrupt(workspace_id, snapshot_id, f"{field.name} is {value!r:.80}")
    if (manifest.workspace_id, manifest.snapshot_id) != (workspace_id, snapshot_id):
        raise _corrupt(workspace_id, snapshot_id, "it is another snapshot's")
    if manifest.archive != archive_name(snapshot_id) or not _SHA256.fullmatch(manifest.sha256):
        raise _corrupt(workspace_id, snapshot_id, "its archive or sha256 is none of ours")
    return manifest


def _corrupt(workspace_id: str, snapshot_id: str, why: str) -> SnapshotError:
    return SnapshotError(
        "corrupt",
        f"the manifest of snapshot {snapshot_id} of {workspace_id} cannot be trusted ({why});"
        " restore an earlier snapshot",
    )
