"""A TOML file that a flag names: what it says, or one sentence on why it says nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

_T = TypeVar("_T")


def read_named(path: str, flag: str, meant: Callable[[str], _T], error: type[Exception]) -> _T:
    """What `meant` makes of the file's text, which may raise `error` or what tomllib does. flag: as in "--plans".
    Raises `error`, which names the file."""
    try:
        return meant(Path(path).read_text("utf-8"))
    except OSError as problem:
        why = (problem.strerror or str(problem)).lower()
        raise error(
            f"{path}: it cannot be read ({why}); correct the path, or leave {flag} out"
        ) from problem
    except UnicodeDecodeError as problem:
        raise error(f"{path}: it is no text in UTF-8 (byte {problem.start})") from problem
    except error as problem:
        raise error(f"{path}: {problem}") from problem
    except (ValueError, RecursionError) as problem:
        raise error(f"{path}: it is no TOML: {problem}") from problem
