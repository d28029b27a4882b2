"""Write an archive's files below a new root. See `archive` for the rules."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NoReturn

from lifecycle.snapshots import SnapshotError
from lifecycle.snapshots.files import translate
from lifecycle.snapshots.links import SOFTWARE, stays
from lifecycle.snapshots.tarstream import Inflated, Member, corrupt, members
from lifecycle.snapshots.tree import DIRECTORY, Descent, clear, leaf, parent

log = logging.getLogger(__name__)

_WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_MODE = 0o1777  # setuid and setgid are dropped
_NAMED_IN_LOG = 20

# What the system says when an archive names a thing twice, or below something that is no directory,
# or links to what is not there: none of it comes from a whole archive of ours.
_REFUSED = frozenset(
    {
        errno.EEXIST,
        errno.ENOENT,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.ELOOP,
        errno.ENAMETOOLONG,
    }
)


def unpack(
    archive: Path,
    root: Path,
    *,
    max_bytes: int,
    max_files: int,
    owner: tuple[int, int] | None,
) -> None:
    """Restore the archive below `root`, which must be missing or empty.

    max_bytes: of content as it comes out, whatever headers say. max_files: members of every kind.
    owner: uid and gid for `root` and everything in it; None leaves them to the system.
    Raises SnapshotError with code corrupt, too_large, disk_full, not_found (`archive`) or
    unreachable (`root`); then whatever was restored so far is removed again. A killed process leaves
    half of it: restore beside the place and rename.
    """
    doing = f"cannot restore {archive} to {root}"
    try:
        with archive.open("rb") as file:
            made = _claim(root)
            try:
                _Restore(root, file, max_bytes, max_files, owner).run()
            except BaseException:
                clear(root)
                if made:
                    root.rmdir()
                raise
    except FileNotFoundError as error:
        raise SnapshotError("not_found", f"{doing}: {error.filename} is not there") from error
    except OSError as error:
        raise translate(error, doing) from error


def _claim(root: Path) -> bool:
    """Make `root`, private to us until all is there; False if it was there, empty."""
    try:
        root.mkdir(mode=0o700, parents=True)
    except FileExistsError:
        if root.is_symlink() or any(root.iterdir()):
            raise SnapshotError(
                "unreachable", f"cannot restore to {root}: it must be new or an empty directory"
            ) from None
        return False
    return True


def _software(root: Path) -> list[str]:
    """Directories of this machine that links may lead to: none that workspaces are kept in.

    The Python we run on is among them, for it is the one that a person's environments link to.
    """
    here = f"{root.resolve()}/"
    return [each for each in (*SOFTWARE, sys.base_prefix) if not here.startswith(f"{each}/")]


@contextlib.contextmanager
def _refusing(member: Member) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _REFUSED:
            corrupt(f"{member.path[:200]!r}: {error.strerror}")
        raise


class _Restore:
    """Files and directories first, while no link exists that one could be written through.

    Links come when all of them are known; owner, mode and time of directories last.
    """

    def __init__(
        self,
        root: Path,
        archive: BinaryIO,
        max_bytes: int,
        max_files: int,
        owner: tuple[int, int] | None,
    ) -> None:
        self._root = root
        self._archive = archive
        self._max_bytes = max_bytes
        self._max_files = max_files
        self._owner = owner
        self._bytes = 0
        self._directories: list[Member] = []
        self._links: dict[str, Member] = {}

    def run(self) -> None:
        root = os.open(self._root, DIRECTORY)
        try:
            with Descent(root) as descent, Descent(root) as self._sources:
                self._extract_all(descent)
                self._make_links(descent)
                for directory in reversed(self._directories):
                    self._finish(descent.enter(directory.path), directory)
            if self._owner:
                os.fchown(root, *self._owner)
        finally:
            os.close(root)

    def _extract_all(self, descent: Descent) -> None:
        for count, (member, content) in enumerate(members(Inflated(self._archive)), start=1):
            if count > self._max_files:
                self._too_large(f"{self._max_files} files", "--snapshot-max-files")
            with _refusing(member):
                self._extract(descent.enter(parent(member.path)), member, content)

    def _extract(self, directory: int, member: Member, content: Iterator[bytes]) -> None:
        name = leaf(member.path)
        if member.kind == "file":
            self._file(directory, name, member, content)
        elif member.kind == "directory":
            os.mkdir(name, 0o700, dir_fd=directory)
            self._directories.append(member)
        elif member.kind == "hardlink":
            self._hard_link(directory, name, member)
        elif self._links.setdefault(member.path, member) is not member:
            corrupt(f"{member.path[:200]!r} is there twice")

    def _file(self, directory: int, name: str, member: Member, content: Iterator[bytes]) -> None:
        with os.fdopen(os.open(name, _WRITE, 0o600, dir_fd=directory), "wb", 0) as file:
            for chunk in content:
                self._bytes += len(chunk)
                if self._bytes > self._max_bytes:
                    self._too_large(f"{self._max_bytes} bytes", "--snapshot-max-bytes")
                while chunk:
                    chunk = chunk[file.write(chunk) :]
            self._finish(file.fileno(), member)

    def _hard_link(self, directory: int, name: str, member: Member) -> None:
        source, above = leaf(member.target), self._sources.enter(parent(member.target))
        info = os.stat(source, dir_fd=above, follow_symlinks=False)
        if not stat.S_ISREG(info.st_mode):
            corrupt(f"{member.path[:200]!r} is a hard link to something that is no file")
        os.link(source, name, src_dir_fd=above, dst_dir_fd=directory, follow_symlinks=False)

    def _make_links(self, descent: Descent) -> None:
        targets = {path: member.target for path, member in self._links.items()}
        software = _software(self._root)
        left_out = 0
        for path, member in self._links.items():
            with _refusing(member):
                directory, name = descent.enter(parent(path)), leaf(path)
                # Made even if it may not stay: a name that is taken already is found out.
                self._symbolic_link(directory, name, member)
                if stays(path, targets, software):
                    continue
                os.unlink(name, dir_fd=directory)
            left_out += 1
            if left_out <= _NAMED_IN_LOG:
                log.warning(
                    "link left out: %s → %s leads out of the workspace", path, member.target
                )
        if left_out > _NAMED_IN_LOG:
            log.warning("%d links left out in all, restoring %s", left_out, self._root)

    def _symbolic_link(self, directory: int, name: str, member: Member) -> None:
        os.symlink(member.target, name, dir_fd=directory)
        if self._owner:
            os.chown(name, *self._owner, dir_fd=directory, follow_symlinks=False)
        times = (member.mtime_ns, member.mtime_ns)
        os.utime(name, ns=times, dir_fd=directory, follow_symlinks=False)

    def _finish(self, fd: int, member: Member) -> None:
        if self._owner:
            os.fchown(fd, *self._owner)
        os.fchmod(fd, member.mode & _MODE)
        os.utime(fd, ns=(member.mtime_ns, member.mtime_ns))

    def _too_large(self, what: str, setting: str) -> NoReturn:
        raise SnapshotError(
            "too_large",
            f"the archive holds more than {what}, the most that is restored to {self._root};"
            f" raise {setting}",
        )
