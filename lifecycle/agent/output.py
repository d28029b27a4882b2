"""An IDE's output: ide.log, capped, with the previous boot's beside it as ide.log.1."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

CAP = 4 * 2**20  # bytes; above it the log is moved to ide.log.1 and starts anew
TAIL_BYTES = 256 * 1024  # read at most this much from the end


def previous(log: Path) -> Path:
    return log.with_name(log.name + ".1")


def begin(log: Path) -> int:
    """A file descriptor for a new boot's output. The caller closes it."""
    with contextlib.suppress(FileNotFoundError):
        os.replace(log, previous(log))
    # O_APPEND: the IDE goes on writing at the end after cap() has emptied the file.
    return os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


def hand_on(log: Path, to: Path) -> None:
    """What is written into it by a process that runs becomes the newest of `to`."""
    with contextlib.suppress(FileNotFoundError):
        os.replace(to, previous(to))
    os.replace(log, to)


def cap(log: Path) -> None:
    """Keep a chatty IDE from filling the disk. What it writes during the copy may be lost."""
    with contextlib.suppress(FileNotFoundError):
        if log.stat().st_size > CAP:
            shutil.copyfile(log, previous(log))
            os.truncate(log, 0)


def tail(log: Path, lines: int, hide: str = "") -> str:
    """The last lines. hide: a secret to blot out."""
    try:
        with log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - TAIL_BYTES))
            text = file.read(TAIL_BYTES).decode(errors="replace")
    except FileNotFoundError:
        return ""
    text = text.replace(hide, "[secret]") if hide else text
    return "\n".join(text.splitlines()[-lines:]) if lines > 0 else ""
