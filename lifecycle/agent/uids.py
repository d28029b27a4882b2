"""Linux uids for workspaces, unique on the whole host: two installations there may not share one.

A claim is a symlink CLAIMS/{uid} to the workspace's directory. It is void once that directory is
gone or says that it has another uid. A workspace that is given a warm IDE takes that one's uid and leaves its own,
so a uid is of one person after another: what one left where everybody may write goes before the next comes.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pwd
from collections.abc import Iterator
from pathlib import Path

from lifecycle.agent.refusal import BootFailed
from lifecycle.snapshots import tree

CLAIMS = Path("/run/ide-gateway/uids")
PER_MACHINE = 1000
OPEN = (Path("/tmp"), Path("/var/tmp"), Path("/dev/shm"))
"""Directories that everybody may write in, and that every workspace sees."""


def claim(directory: Path, held: int, base: int) -> int:
    """The uid of the workspace in `directory`. held: the one it had, 0 if none. Blocks briefly.

    Raises BootFailed("isolation_impossible") when all of base … base + 999 are taken.
    """
    with _locked():
        uid, is_new = _choose(directory, held, base)
    if is_new:
        _clear_open(uid)
    return uid


def _choose(directory: Path, held: int, base: int) -> tuple[int, bool]:
    """The uid, and whether somebody else may have had it before."""
    candidates: list[int] = [*([held] if held else []), *range(base, base + PER_MACHINE)]
    for uid in candidates:
        if holds(directory, uid):
            return uid, False
        path = CLAIMS / str(uid)
        if _is_void(path, uid) and not _is_known(uid):
            path.unlink(missing_ok=True)
            path.symlink_to(directory)
            return uid, True
    message = f"all {PER_MACHINE} uids from {base} are taken; delete workspaces of this machine"
    raise BootFailed("isolation_impossible", message)


def _is_known(uid: int) -> bool:
    """Whether it is the uid of somebody on this host: their processes and files are not ours to end and remove."""
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


def _clear_open(uid: int) -> None:
    """Nothing runs as that user yet, and these directories are sticky: no entry is swapped under us."""
    for directory in OPEN:
        with contextlib.suppress(OSError), os.scandir(directory) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    if entry.stat(follow_symlinks=False).st_uid == uid:
                        _remove(entry)


def _remove(entry: os.DirEntry[str]) -> None:
    if entry.is_dir(follow_symlinks=False):
        tree.remove(Path(entry.path))
    else:
        os.unlink(entry.path)


def holds(directory: Path, uid: int) -> bool:
    try:
        return uid != 0 and os.readlink(CLAIMS / str(uid)) == str(directory)
    except OSError:
        return False


def release(directory: Path, uid: int) -> None:
    if holds(directory, uid):
        with contextlib.suppress(OSError):
            (CLAIMS / str(uid)).unlink()


def give(uid: int, giver: Path, taker: Path) -> None:
    """From one directory to another. Nothing, unless the giver holds it. Blocks briefly."""
    with _locked():
        if holds(giver, uid):
            (CLAIMS / str(uid)).unlink()
            (CLAIMS / str(uid)).symlink_to(taker)


def _is_void(path: Path, uid: int) -> bool:
    if not path.is_symlink():
        return True
    holder = Path(os.readlink(path))
    if not holder.is_dir():
        return True
    try:
        says = json.loads((holder / "state.json").read_text()).get("uid", 0)
    except (OSError, ValueError, AttributeError):
        return False  # it may be about to write it
    return bool(says) and says != uid


@contextlib.contextmanager
def _locked() -> Iterator[None]:
    CLAIMS.mkdir(mode=0o711, parents=True, exist_ok=True)
    with (CLAIMS / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
