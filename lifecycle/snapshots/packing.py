"""Write a directory into an archive. See `archive` for what is kept and what is not."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn, Protocol

import zstandard

from lifecycle.agent.contract import Manifest
from lifecycle.snapshots import SnapshotError
from lifecycle.snapshots.files import CHUNK, HashingWriter, new_file, translate
from lifecycle.snapshots.manifests import archive_name, check_id
from lifecycle.snapshots.tarstream import BLOCK, END
from lifecycle.snapshots.tree import DIRECTORY, MAX_PATH, Descent, join

log = logging.getLogger(__name__)

EXCLUDED = frozenset({".cache"})
"""Directories at the top of a workspace that programs make again when they miss them (XDG's cache)."""

# Not blocking: between the look and the opening, a file may become a FIFO that nobody writes to.
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_GONE = frozenset({errno.ENOENT, errno.ELOOP, errno.ENOTDIR, errno.ENXIO})
_ZEROS = bytes(CHUNK)


class _Vanished(Exception):
    """It was there a moment ago: removed, or something else by now."""


class _Sink(Protocol):
    def write(self, data: bytes, /) -> int: ...


def pack(
    root: Path,
    into: Path,
    *,
    workspace_id: str,
    snapshot_id: str,
    epoch: int,
    created_at_ms: int,
    max_bytes: int,
    max_files: int,
) -> Manifest:
    """Archive what is below `root` as the new file `into`, on disk (fsync) when this returns.

    max_bytes: sum of the files' sizes. max_files: entries of every kind. A file left at `into` by
    an earlier try is replaced. Raises SnapshotError with code too_large, disk_full, unreadable
    (something below `root`) or unreachable (`into`); then `into` does not exist.
    """
    check_id(workspace_id), check_id(snapshot_id)
    if into.resolve().is_relative_to(root.resolve()):
        raise ValueError(f"{into} is inside {root}: the archive would contain itself")
    walk = _Walk(root, max_bytes, max_files)
    try:
        with new_file(into) as file:
            sink = HashingWriter(file)
            compressor = zstandard.ZstdCompressor(level=3, write_checksum=True)
            out = compressor.stream_writer(sink, closefd=False)  # type: ignore[arg-type]
            walk.run(out)
            out.flush(zstandard.FLUSH_FRAME)
    except OSError as error:
        raise translate(error, f"cannot write a snapshot of {workspace_id} to {into}") from error
    return Manifest(
        workspace_id=workspace_id,
        snapshot_id=snapshot_id,
        epoch=epoch,
        created_at_ms=created_at_ms,
        files=walk.files,
        bytes=walk.bytes,
        archive=archive_name(snapshot_id),
        archive_bytes=sink.size,
        sha256=sink.sha256,
    )


class _Walk:
    """Directory by directory; the entries of one stand together, somewhere after itself."""

    def __init__(self, root: Path, max_bytes: int, max_files: int) -> None:
        self._root = root
        self._prefixes = {f"{root.absolute()}/", f"{root.resolve()}/"}
        self._max_bytes = max_bytes
        self._max_files = max_files
        self._stored_as: dict[tuple[int, ...], str] = {}  # files that have several names
        self.files = 0
        self.bytes = 0

    def run(self, out: _Sink) -> None:
        self._out = out
        try:
            with self._reading(""):
                root = os.open(self._root, DIRECTORY)
        except _Vanished:
            raise SnapshotError(
                "unreadable", f"cannot take a snapshot of {self._root}: it is no directory"
            ) from None
        try:
            self._owner = os.fstat(root).st_uid
            with Descent(root) as descent:
                pending = [""]
                while pending:
                    pending.extend(self._directory(descent, pending.pop()))
        finally:
            os.close(root)
        out.write(END)

    def _directory(self, descent: Descent, path: str) -> list[str]:
        """Store what is in it; returns the directories among that."""
        try:
            with self._reading(path):
                fd = descent.enter(path)
        except _Vanished:
            return []
        names = self._names(fd, path)
        return [join(path, name) for name in names if self._entry(fd, name, join(path, name))]

    def _names(self, fd: int, path: str) -> list[str]:
        names = []
        with self._reading(path), os.scandir(fd) as entries:
            for entry in entries:
                names.append(entry.name)
                if len(names) > self._max_files:
                    self._too_many_files()
        return sorted(names)

    def _entry(self, directory: int, name: str, path: str) -> bool:
        """Store one entry; True if it is a directory. Sockets, FIFOs and devices are passed over."""
        try:
            with self._reading(path):
                info = os.stat(name, dir_fd=directory, follow_symlinks=False)
            if stat.S_ISDIR(info.st_mode) and path not in EXCLUDED:
                self._add(path, info, tarfile.DIRTYPE)
                return True
            if stat.S_ISLNK(info.st_mode):
                with self._reading(path):
                    target = os.readlink(name, dir_fd=directory)
                self._add(path, info, tarfile.SYMTYPE, target=self._inside(path, target))
            if stat.S_ISREG(info.st_mode):
                with self._reading(path):
                    file = os.open(name, _READ, dir_fd=directory)
                try:
                    self._file(file, path)
                finally:
                    os.close(file)
        except _Vanished:
            log.info("%s vanished while a snapshot was taken of %s", path, self._root)
        return False

    def _file(self, file: int, path: str) -> None:
        info = os.fstat(file)
        if not stat.S_ISREG(info.st_mode):
            raise _Vanished
        if info.st_nlink > 1:
            if info.st_uid != self._owner:
                # Where fs.protected_hardlinks is off, anybody can link anybody's file into their
                # tree; as root we would hand them its content.
                log.warning("%s is a hard link to another user's file: left out", path)
                return
            # Size and time too: an inode's number is used again, the content then is another.
            identity = (info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns)
            first = self._stored_as.setdefault(identity, path)
            if first != path:
                return self._add(path, info, tarfile.LNKTYPE, target=first)
        self.bytes += info.st_size
        if self.bytes > self._max_bytes:
            raise SnapshotError(
                "too_large",
                f"{self._root} holds more than {self._max_bytes} bytes, the most a snapshot may;"
                " remove some files or raise --snapshot-max-bytes",
            )
        self._add(path, info, tarfile.REGTYPE, size=info.st_size)
        self._content(file, path, info.st_size)
        self._out.write(bytes(-info.st_size % BLOCK))

    def _content(self, file: int, path: str, size: int) -> None:
        """Exactly `size` bytes, whatever happens to the file meanwhile."""
        left = size
        while left:
            with self._reading(path):
                chunk = os.read(file, min(left, CHUNK))
            if not chunk:
                log.warning("%s lost %d bytes while it was read: zeros stand there", path, left)
                while left:
                    left -= self._out.write(_ZEROS[: min(left, CHUNK)])
                return
            self._out.write(chunk)
            left -= len(chunk)

    def _add(
        self, path: str, info: os.stat_result, kind: bytes, *, size: int = 0, target: str = ""
    ) -> None:
        self.files += 1
        if self.files > self._max_files:
            self._too_many_files()
        if len(os.fsencode(path)) > MAX_PATH:
            raise SnapshotError(
                "too_large",
                f"{path[:200]}… is nested too deep: its path is longer than {MAX_PATH} bytes;"
                " move or remove it",
            )
        self._out.write(_header(path, info, kind, size, target))

    def _inside(self, path: str, target: str) -> str:
        """The link's target, relative if it points into the workspace: its path may be another next time."""
        for prefix in self._prefixes:
            if f"{target}/".startswith(prefix):
                return "../" * path.count("/") + (target[len(prefix) :].lstrip("/") or ".")
        return target

    def _too_many_files(self) -> NoReturn:
        raise SnapshotError(
            "too_large",
            f"{self._root} holds more than {self._max_files} files, the most a snapshot may;"
            " remove some or raise --snapshot-max-files",
        )

    @contextlib.contextmanager
    def _reading(self, path: str) -> Iterator[None]:
        """Tells errors of the tree from errors of the archive that is written."""
        try:
            yield
        except OSError as error:
            if error.errno in _GONE:
                raise _Vanished from error
            raise SnapshotError(
                "unreadable",
                f"cannot read {self._root / path}: {error.strerror}; nothing was stored:"
                " make it readable (chmod u+rX) or remove it",
            ) from error


def _header(path: str, info: os.stat_result, kind: bytes, size: int, target: str) -> bytes:
    """uid and gid stay 0: who owns the files is decided where they are restored."""
    member = tarfile.TarInfo(path)
    member.type, member.size, member.linkname = kind, size, target
    member.mode = stat.S_IMODE(info.st_mode)
    seconds, ns = divmod(abs(info.st_mtime_ns), 10**9)
    if ns or info.st_mtime_ns < 0:
        sign = "-" if info.st_mtime_ns < 0 else ""
        member.pax_headers = {"mtime": f"{sign}{seconds}.{ns:09d}"}
    else:
        member.mtime = seconds
    return member.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
