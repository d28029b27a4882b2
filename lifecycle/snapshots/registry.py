"""From the `--snapshots` setting to the target it names."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from lifecycle.snapshots import SnapshotError, SnapshotTarget


def open_target(url: str) -> SnapshotTarget:
    """A directory's path, or file:///path. Nothing is touched yet. Raises SnapshotError("unreachable")."""
    scheme, separator, _ = url.partition("://")
    if not url or "\0" in url:
        raise _unsupported(url)
    if not separator:
        return _local(url)
    if scheme.lower() == "file":
        parts = urlsplit(url)
        if parts.netloc in ("", "localhost") and parts.path and not parts.query + parts.fragment:
            return _local(unquote(parts.path))
    raise _unsupported(url)


def _local(path: str) -> SnapshotTarget:
    from lifecycle.snapshots.local import LocalTarget

    return LocalTarget(Path(path).absolute())


def _unsupported(url: str) -> SnapshotError:
    return SnapshotError(
        "unreachable",
        f"snapshots cannot be kept in {url[:200]!r}: supported are a directory's path"
        " and file:///path; set --snapshots to one of these",
    )
