"""Show a directory to a process that runs already and has its own view of the disk.

    python -I -S show.py PID SOURCE TARGET [TARGET ...]

Stands alone (standard library only), like confine.py. SOURCE appears at each TARGET in that process's mount
namespace and nowhere else. Only Linux from 5.2 on can carry a mount from one namespace into another.
Fails with exit code 125; the reason is on stderr.
"""

from __future__ import annotations

import ctypes
import os
import sys

CLONE_NEWNS = 0x00020000
AT_FDCWD = -100
OPEN_TREE, MOVE_MOUNT = 428, 429  # of every architecture
OPEN_TREE_CLONE, OPEN_TREE_CLOEXEC, AT_RECURSIVE = 1, os.O_CLOEXEC, 0x8000
MOVE_MOUNT_F_EMPTY_PATH = 4


def main(pid: int, source: str, targets: list[str]) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    os.umask(0o022)
    flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE
    path = os.fsencode(source)
    trees = [
        check(libc.syscall(OPEN_TREE, AT_FDCWD, path, flags), f"open_tree of {source}")
        for _ in targets
    ]
    view = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY)
    check(libc.setns(view, CLONE_NEWNS), "setns")
    for tree, target in zip(trees, targets, strict=True):
        os.makedirs(target, exist_ok=True)
        there = os.fsencode(target)
        moved = libc.syscall(MOVE_MOUNT, tree, b"", AT_FDCWD, there, MOVE_MOUNT_F_EMPTY_PATH)
        check(moved, f"move_mount to {target}")


def check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


if __name__ == "__main__":
    try:
        main(int(sys.argv[1]), sys.argv[2], sys.argv[3:])
    except OSError as failed:
        print(failed, file=sys.stderr)
        sys.exit(125)
