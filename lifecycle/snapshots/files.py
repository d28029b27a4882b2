"""Files that are written whole or not at all, and the operating system's errors in our words."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

from lifecycle.snapshots import SnapshotError

CHUNK = 256 * 1024

# EFBIG: the process's or the file system's limit for one file; to its owner it is the same news.
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


class HashingWriter:
    """Passes bytes on to `file`, counting and hashing what was accepted."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._sha256 = hashlib.sha256()
        self.size = 0

    @property
    def sha256(self) -> str:
        return self._sha256.hexdigest()

    def write(self, data: bytes) -> int:
        self._file.write(data)
        self._sha256.update(data)
        self.size += len(data)
        return len(data)


def translate(error: OSError, doing: str) -> SnapshotError:
    """The SnapshotError for an operating system's error met while `doing` something."""
    reason = f"{doing}: {error.strerror or error}"
    if error.errno in NO_ROOM:
        return SnapshotError("disk_full", f"{reason}; free some space there and try again")
    return SnapshotError("unreachable", f"{reason}; check that path, its disk and its permissions")


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """A file of mode 0600: on disk (fsync) when the block ends, gone when the block fails.

    A regular file left there by an earlier try is replaced; anything else there is an error.
    """
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISREG(path.lstat().st_mode):
            raise FileExistsError(errno.EEXIST, "there is something that is not a file", str(path))
        path.unlink()
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    file = os.fdopen(os.open(path, flags, 0o600), "wb")
    try:
        yield file
        file.flush()
        os.fsync(file.fileno())
        file.close()
    except BaseException:
        with contextlib.suppress(OSError):
            file.close()  # flushes once more, and on a full disk fails once more
        path.unlink(missing_ok=True)
        raise


def copy(source: Readable, sink: BinaryIO, limit: int) -> tuple[int, str]:
    """Copy up to `limit` bytes. Returns their number and SHA-256."""
    out = HashingWriter(sink)
    while chunk := source.read(min(CHUNK, limit - out.size)):
        out.write(chunk)
    return out.size, out.sha256


def digest(path: Path) -> tuple[int, str]:
    """Size and SHA-256 of a file as the disk has it, as far as we can make the disk say."""
    sha256, size = hashlib.sha256(), 0
    with path.open("rb", buffering=0) as file:
        if hasattr(os, "posix_fadvise"):
            # After an fsync the pages are clean: drop them, so that the disk is read and not memory.
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        while chunk := file.read(CHUNK):
            sha256.update(chunk)
            size += len(chunk)
    return size, sha256.hexdigest()


def sync_directory(path: Path) -> None:
    """Make renames in that directory survive a power cut."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
