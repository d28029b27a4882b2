"""What a person sees of a command: progress, warnings, errors. NO_COLOR, TERM=dumb and pipes are honoured."""

from __future__ import annotations

import os
import re
import sys
from typing import TextIO

from gateway.exits import Exit

DONE, DOUBT = "✓", "!"
"""Marks of a progress line."""

_COLOURS = {DONE: "32", DOUBT: "33", "error:": "31", "warning:": "33"}
# C0 and C1 controls, line and paragraph separators, and what turns the reading direction around.
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def colourful(stream: TextIO) -> bool:
    """Whether to send colours: only to a terminal that has them and whose owner wants them (no-color.org)."""
    wanted = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return wanted and stream.isatty()


def one_line(text: str) -> str:
    """Text that stays in its line: control characters become \\n, \\x1b and so on."""
    return _UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def report(mark: str, name: str, text: str) -> None:
    """One step of start-up: "✓ Redis   embedded Valkey 9.1.2"."""
    say(f"{_painted(mark, sys.stdout)} {name:<7} {text}")


def say(text: str) -> None:
    _write(sys.stdout, text)


def warn(text: str) -> None:
    _write(sys.stderr, f"{_painted('warning:', sys.stderr)} {text}")


def fail(error: Exit) -> None:
    """What happened, and on a line of its own what to do next."""
    _write(sys.stderr, f"{_painted('error:', sys.stderr)} {error}")
    for line in error.hint.splitlines():
        _write(sys.stderr, f"  {line}")


def _painted(word: str, stream: TextIO) -> str:
    return f"\x1b[{_COLOURS[word]}m{word}\x1b[0m" if colourful(stream) else word


def _write(stream: TextIO, text: str) -> None:
    encoding = stream.encoding or "ascii"
    try:
        # A terminal without UTF-8 gets "?" for a tick, not an exception.
        stream.write(text.encode(encoding, "replace").decode(encoding) + "\n")
        stream.flush()
    except (
        OSError
    ):  # the reader has gone (`| head`, a closed terminal): that must not stop the work
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
