"""Directories below a root, reached component by component and never through a link.

A workspace's own processes may rename and relink its tree while we walk it, and the agent may be
root: a path checked first and opened later would lead anywhere. Every step here is an openat with
O_NOFOLLOW from a descriptor that is already known to be inside.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
MAX_PATH = 4096
"""Bytes of a path below the root: PATH_MAX, past which programs cannot name a file either."""


def split(path: str) -> list[str]:
    """Components of a path below the root; "" is the root itself."""
    return path.split("/") if path else []


def parent(path: str) -> str:
    return path.rpartition("/")[0]


def join(directory: str, name: str) -> str:
    return f"{directory}/{name}" if directory else name


@contextlib.contextmanager
def opened(root: int, path: str) -> Iterator[int]:
    """A descriptor of the directory at `path` below `root`. Raises OSError, also when a link is on the way.

    One descriptor is open at a time, so depth costs time and never descriptors.
    """
    fd = descend(root, split(path))
    try:
        yield fd
    finally:
        os.close(fd)


def descend(root: int, names: Sequence[str]) -> int:
    fd = os.dup(root)
    for name in names:
        try:
            deeper = os.open(name, DIRECTORY, dir_fd=fd)
        finally:
            os.close(fd)
        fd = deeper
    return fd


def clear(root: Path) -> None:
    """Remove everything below `root`, at any depth (shutil.rmtree recurses), following no link."""
    fd = os.open(root, DIRECTORY)
    try:
        for directory in reversed(_unlink_files(fd)):
            with opened(fd, parent(directory)) as above:
                os.rmdir(directory.rpartition("/")[2], dir_fd=above)
    finally:
        os.close(fd)


def _unlink_files(root: int) -> list[str]:
    """Remove all that is no directory; returns the directories, parents before children."""
    found, pending = [], [""]
    while pending:
        here = pending.pop()
        with opened(root, here) as fd, os.scandir(fd) as entries:
            for entry in list(entries):
                if not entry.is_dir(follow_symlinks=False):
                    os.unlink(entry.name, dir_fd=fd)
                    continue
                if os.geteuid() != 0:  # root needs no permission, and must not chmod by name
                    os.chmod(entry.name, 0o700, dir_fd=fd)
                pending.append(join(here, entry.name))
        found.append(here)
    return found[1:]
