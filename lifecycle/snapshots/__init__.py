"""Snapshots: a workspace's files in an object store. One file per technology behind the Protocol below."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from lifecycle.agent.contract import Manifest


class SnapshotError(Exception):
    """A snapshot could not be written, read or trusted. code: disk_full, not_found, corrupt, too_large, unreachable,
    unreadable (a file that the agent may not read: nothing was stored)."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class SnapshotTarget(Protocol):
    """Where archives and manifests live. Methods block; agents call them in a thread."""

    def put(self, manifest: Manifest, archive: Path) -> None:
        """Store the archive, verify what was stored against the manifest, and only then commit the manifest."""

    def manifest(self, workspace_id: str, snapshot_id: str) -> Manifest:
        """The committed manifest. Raises SnapshotError("not_found")."""

    def fetch(self, manifest: Manifest, into: Path) -> None:
        """Write the archive to `into`, checked against size and hash. Raises SnapshotError("corrupt")."""

    def list(self, workspace_id: str) -> list[str]:
        """Committed snapshots' ids, oldest first."""

    def delete(self, workspace_id: str, snapshot_id: str) -> None:
        """Remove manifest first, then archive. Removing one that is gone is success."""
