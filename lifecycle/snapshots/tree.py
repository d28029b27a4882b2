"""Directories below a root, reached component by component and never through a link.

A workspace's own processes may rename and relink its tree while we walk it, and the agent may be
root: a path checked first and opened later would lead anywhere. Every step here is an openat with
O_NOFOLLOW from a descriptor that is already known to be inside.
"""

from __future__ import annotations

import contextlib
import os
from itertools import takewhile
from pathlib import Path
from types import TracebackType

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
MAX_PATH = 4096
"""Bytes of a path below the root: PATH_MAX, past which programs cannot name a file either."""


def parent(path: str) -> str:
    return path.rpartition("/")[0]


def leaf(path: str) -> str:
    return path.rpartition("/")[2]


def join(directory: str, name: str) -> str:
    return f"{directory}/{name}" if directory else name


class Descent:
    """One open directory below a root, moved from neighbour to neighbour.

    It takes the shorter way, over what both paths share or from the root, so that a walk in order
    costs a step or two per directory at any depth, and two descriptors.
    """

    def __init__(self, root: int) -> None:
        self._root = root
        self._fd = os.dup(root)
        self._names: list[str] = []
        self._above: list[tuple[int, int]] = []  # (device, inode) of each directory passed

    def __enter__(self) -> Descent:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._fd)

    def enter(self, path: str) -> int:
        """A descriptor of the directory at `path` ("" = root), good until the next call.

        Raises OSError: not there, not a directory, or a link on the way.
        """
        names = path.split("/") if path else []
        same = takewhile(lambda pair: pair[0] == pair[1], zip(names, self._names, strict=False))
        shared = len(list(same))
        if shared < len(self._names) - shared or not self._climb_to(shared):
            self._move(os.dup(self._root))
            self._names, self._above = [], []
        for name in names[len(self._names) :]:
            info = os.fstat(self._fd)
            self._move(os.open(name, DIRECTORY, dir_fd=self._fd))
            self._names.append(name)
            self._above.append((info.st_dev, info.st_ino))
        return self._fd

    def _climb_to(self, depth: int) -> bool:
        """False if there is no way up, or a directory was moved and ".." is not where we came from."""
        while len(self._names) > depth:
            try:
                self._move(os.open("..", DIRECTORY, dir_fd=self._fd))
            except OSError:
                return False
            self._names.pop()
            info = os.fstat(self._fd)
            if self._above.pop() != (info.st_dev, info.st_ino):
                return False
        return True

    def _move(self, fd: int) -> None:
        os.close(self._fd)
        self._fd = fd


def clear(root: Path) -> None:
    """Remove everything below `root`, following no link, at any depth (shutil.rmtree recurses)."""
    fd = os.open(root, DIRECTORY)
    try:
        with Descent(fd) as descent:
            for directory in reversed(_unlink_files(descent)):
                os.rmdir(leaf(directory), dir_fd=descent.enter(parent(directory)))
    finally:
        os.close(fd)


def remove(root: Path) -> None:
    """Remove `root` and everything below it. Removing what is gone is success. Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        clear(root)
        os.rmdir(root)


def _unlink_files(descent: Descent) -> list[str]:
    """Remove all that is no directory; returns the directories, parents before children."""
    found, pending = [], [""]
    while pending:
        here = pending.pop()
        found.append(here)
        fd = descent.enter(here)
        with os.scandir(fd) as entries:
            for entry in list(entries):
                if not entry.is_dir(follow_symlinks=False):
                    os.unlink(entry.name, dir_fd=fd)
                    continue
                if os.geteuid() != 0:  # root needs no permission, and must not chmod by name
                    os.chmod(entry.name, 0o700, dir_fd=fd)
                pending.append(join(here, entry.name))
    return found[1:]
