"""The workspace command: a template in, environment and argument list out. Pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass

from lifecycle.agent.refusal import BootFailed

PLACEHOLDERS = ("host", "port", "workspace", "dir", "base_url", "secret")
_PLACEHOLDER = re.compile(r"\{([A-Za-z_]+)\}")
_ASSIGNMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Command:
    """environment: from the leading NAME=value words. Secrets belong there: argv is public to all users."""

    environment: dict[str, str]
    argv: tuple[str, ...]


def fill(template: str, values: Mapping[str, str]) -> Command:
    """Split like a shell, then fill each word, so that a value with spaces stays one word.

    values: one for each of PLACEHOLDERS. Raises BootFailed("bad_command").
    """
    try:
        words = shlex.split(template)
    except ValueError as error:
        raise _bad(f"it cannot be split into words ({error})") from None
    filled = [_PLACEHOLDER.sub(lambda match: _value(match[1], values), word) for word in words]
    environment: dict[str, str] = {}
    while filled and (assignment := _ASSIGNMENT.fullmatch(filled[0])):
        environment[assignment[1]] = assignment[2]
        del filled[0]
    if not filled:
        raise _bad("it names no program")
    if any("\0" in word for word in [*filled, *environment.values()]):
        raise _bad("it contains a NUL byte")
    return Command(environment, tuple(filled))


def _value(name: str, values: Mapping[str, str]) -> str:
    if name not in values:
        known = " ".join(f"{{{each}}}" for each in PLACEHOLDERS)
        raise _bad(f"{{{name}}} is not known; known are {known}")
    return values[name]


def _bad(why: str) -> BootFailed:
    return BootFailed(
        "bad_command", f"the workspace command is wrong: {why}. Set --workspace-command"
    )
