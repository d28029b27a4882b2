"""Snapshots in a directory: {directory}/{workspace}/{snapshot}.tar.zst and {snapshot}.json beside it."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from lifecycle.agent.contract import Manifest
from lifecycle.snapshots import SnapshotError
from lifecycle.snapshots.files import copy, digest, new_file, sync_directory, translate
from lifecycle.snapshots.manifests import archive_name, check_id, dump, load, manifest_name

log = logging.getLogger(__name__)

_TEMPORARY = ".tmp"
_ARCHIVE = archive_name("x").removeprefix("x")
_MANIFEST = manifest_name("x").removeprefix("x")


class LocalTarget:
    """A SnapshotTarget. Directories are 0700, files 0600; a manifest's rename is the commit."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def put(self, manifest: Manifest, archive: Path) -> None:
        where = self._workspace(manifest.workspace_id)
        stored = where / archive_name(manifest.snapshot_id)
        committed = where / manifest_name(manifest.snapshot_id)
        copied, written = _beside(stored), _beside(committed)
        with _errors(f"cannot store snapshot {manifest.snapshot_id} in {where}"):
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            where.mkdir(mode=0o700, exist_ok=True)
            sync_directory(self._directory)
            with _alone(where):
                try:
                    _copy_archive(manifest, archive, copied)
                    with new_file(written) as file:
                        file.write(dump(manifest))
                    # A snapshot stored again under its id: from here to the commit there is none.
                    committed.unlink(missing_ok=True)
                    copied.rename(stored)
                    sync_directory(where)
                    written.rename(committed)
                    sync_directory(where)
                finally:
                    copied.unlink(missing_ok=True)
                    written.unlink(missing_ok=True)

    def manifest(self, workspace_id: str, snapshot_id: str) -> Manifest:
        path = self._workspace(workspace_id) / manifest_name(snapshot_id)
        with _errors(f"cannot read {path}"):
            try:
                data = path.read_bytes()
            except (FileNotFoundError, NotADirectoryError):
                raise SnapshotError(
                    "not_found",
                    f"there is no snapshot {snapshot_id} of {workspace_id} in {self._directory}",
                ) from None
        return load(data, workspace_id, snapshot_id)

    def fetch(self, manifest: Manifest, into: Path) -> None:
        path = self._workspace(manifest.workspace_id) / archive_name(manifest.snapshot_id)
        with _errors(f"cannot copy {path} to {into}"):
            try:
                source = path.open("rb", buffering=0)
            except FileNotFoundError:
                self.manifest(manifest.workspace_id, manifest.snapshot_id)
                raise SnapshotError("corrupt", f"{path} is gone; restore another one") from None
            with source, new_file(into) as sink:
                # One byte more than promised is enough to know.
                found = copy(source, sink, manifest.archive_bytes + 1)
                _verify(manifest, found, path)

    def list(self, workspace_id: str) -> list[str]:
        where = self._workspace(workspace_id)
        found = []
        with _errors(f"cannot list {where}"):
            for snapshot_id in _ids(where, _MANIFEST):
                try:
                    manifest = self.manifest(workspace_id, snapshot_id)
                except SnapshotError as error:
                    log.warning("not listed: %s", error)
                else:
                    found.append((manifest.created_at_ms, snapshot_id))
        return [snapshot_id for _, snapshot_id in sorted(found)]

    def delete(self, workspace_id: str, snapshot_id: str) -> None:
        where = self._workspace(workspace_id)
        manifest, archive = where / manifest_name(snapshot_id), where / archive_name(snapshot_id)
        with _errors(f"cannot delete snapshot {snapshot_id} in {where}"):
            if not where.is_dir():
                return
            with _alone(where):
                manifest.unlink(missing_ok=True)
                sync_directory(where)
                archive.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                where.rmdir()  # the last one is gone

    def _workspace(self, workspace_id: str) -> Path:
        return self._directory / check_id(workspace_id)


def _copy_archive(manifest: Manifest, archive: Path, into: Path) -> None:
    with archive.open("rb", buffering=0) as source, new_file(into) as sink:
        copy(source, sink, manifest.archive_bytes + 1)
    _verify(manifest, digest(into), into)


def _verify(manifest: Manifest, found: tuple[int, str], path: Path) -> None:
    if found != (manifest.archive_bytes, manifest.sha256):
        raise SnapshotError(
            "corrupt",
            f"{path} is not what its manifest promises ({found[0]} bytes, sha256 {found[1][:12]}…,"
            f" instead of {manifest.archive_bytes} bytes, {manifest.sha256[:12]}…);"
            " the other snapshots are untouched",
        )


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}{_TEMPORARY}")


def _ids(where: Path, suffix: str) -> list[str]:
    try:
        names = os.listdir(where)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [n.removesuffix(suffix) for n in names if n.endswith(suffix) and not n.startswith(".")]


@contextlib.contextmanager
def _alone(where: Path) -> Iterator[None]:
    """One writer at a time in a workspace's directory; the rubbish of killed ones is swept first."""
    fd = os.open(where, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
        except OSError as error:  # some network file systems: then nothing tells rubbish from work
            log.warning("no lock on %s (%s): temporary files stay", where, error.strerror)
        else:
            _sweep(where)
        yield
    finally:
        os.close(fd)


def _sweep(where: Path) -> None:
    """Remove temporary files, and archives that were never committed."""
    for name in os.listdir(where):
        if name.startswith(".") and name.endswith(_TEMPORARY):
            (where / name).unlink(missing_ok=True)
    committed = set(_ids(where, _MANIFEST))
    for snapshot_id in _ids(where, _ARCHIVE):
        if snapshot_id not in committed:
            (where / f"{snapshot_id}{_ARCHIVE}").unlink(missing_ok=True)


@contextlib.contextmanager
def _errors(doing: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise translate(error, doing) from error
