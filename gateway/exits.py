"""Why a command ends without doing its work, and the exit code that says so (sysexits.h).

    Exit                  1   what was asked could not be done (an unknown workspace, a refusal)
    ├── ConfigurationError   78   a setting, a file or a directory has to be changed first
    ├── DependencyMissing    69   something this needs is not there: Redis, the gateway, a program
    └── TryAgain             75   busy just now: a taken port, a data directory in use

A wrong command line ends with 2: click sees to that. `simulate` ends with 3 where a promise of safety was broken.
"""

from __future__ import annotations


class Exit(Exception):
    """str(error): what happened, and to what. hint: what to do next ("" when there is nothing)."""

    code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class ConfigurationError(Exit):
    code = 78


class DependencyMissing(Exit):
    code = 69


class TryAgain(Exit):
    code = 75
