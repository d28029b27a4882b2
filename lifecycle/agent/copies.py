"""A workspace's files into a snapshot and back. Everything here blocks: call it in a thread."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Iterator

from lifecycle.agent.contract import Manifest, SnapshotSpec, StartSpec
from lifecycle.agent.disk import WorkspaceDir
from lifecycle.agent.refusal import BootFailed, Refused
from lifecycle.snapshots import SnapshotError, tree

STATUS = {
    "disk_full": 507,
    "too_large": 413,
    "not_found": 404,
    "corrupt": 422,
    "unreachable": 502,
    "unreadable": 500,
}


def snapshot(where: WorkspaceDir, spec: SnapshotSpec) -> Manifest:
    """Write and commit it, or find it written: the answer to the first call may have been lost.

    Raises Refused with the SnapshotError's code; what was committed before is untouched then.
    """
    # Here, not above: an agent that never snapshots does not pay for loading zstd.
    from lifecycle.snapshots import archive
    from lifecycle.snapshots.registry import open_target

    packed = where.path / "snapshot.tmp"
    try:
        target = open_target(spec.target)
        with contextlib.suppress(SnapshotError):
            return target.manifest(where.id, spec.snapshot_id)
        manifest = archive.pack(
            where.home,
            packed,
            workspace_id=where.id,
            snapshot_id=spec.snapshot_id,
            epoch=spec.epoch,
            created_at_ms=time.time_ns() // 1_000_000,
            max_bytes=spec.max_bytes,
            max_files=spec.max_files,
        )
        target.put(manifest, packed)
        return manifest
    except SnapshotError as error:
        raise Refused(STATUS.get(error.code, 500), error.code, str(error)) from error
    except OSError as error:
        raise _refused(where, error) from error
    finally:
        packed.unlink(missing_ok=True)


def _refused(where: WorkspaceDir, error: OSError) -> Refused:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    status, code = (507, "disk_full") if full else (500, "unreadable")
    return Refused(status, code, f"cannot snapshot workspace {where.id}: {error}")


def restore(where: WorkspaceDir, spec: StartSpec, uid: int) -> None:
    """Make a snapshot the workspace's home. Raises BootFailed("restore_…"); home is untouched then."""
    from lifecycle.snapshots import archive
    from lifecycle.snapshots.registry import open_target

    if spec.restore is None:
        return
    fetched, restored = where.path / "restore.tmp", where.home.parent / "home.restored"
    owner = (uid, uid) if uid else None
    with _cleaned(where):
        try:
            target = open_target(spec.restore.target)
            manifest = target.manifest(where.id, spec.restore.snapshot_id)
            target.fetch(manifest, fetched)
            archive.unpack(
                fetched, restored, max_bytes=spec.max_bytes, max_files=spec.max_files, owner=owner
            )
            if where.home.exists():
                os.rename(where.home, where.home.parent / "home.replaced")
            os.rename(restored, where.home)
        except SnapshotError as error:
            raise BootFailed(f"restore_{error.code}", str(error)) from error
        except OSError as error:
            message = f"cannot restore workspace {where.id}: {error}"
            raise BootFailed("restore_unreadable", message) from error


@contextlib.contextmanager
def _cleaned(where: WorkspaceDir) -> Iterator[None]:
    """Away with what an earlier attempt left, before and after."""

    def clean() -> None:
        (where.path / "restore.tmp").unlink(missing_ok=True)
        for name in ("home.restored", "home.replaced"):
            with contextlib.suppress(OSError):
                tree.remove(where.home.parent / name)

    clean()
    try:
        yield
    finally:
        clean()
