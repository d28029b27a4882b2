"""Autobahn's testsuite in an environment of its own: it is written for Python 2.7 and its versions of 2019."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from bench import build

VERSION = "25.10.1"


def wstest(python: str = "") -> Path:
    """Its command, installed with the first call. python: a Python 2.7 or PyPy 2.7; found unless given.
    Raises build.Missing."""
    home = build.directory() / f"autobahn-{VERSION}"
    command = home / "env" / "bin" / "wstest"
    if command.exists():
        return command
    python = python or _python()
    print(
        f"Installing autobahntestsuite {VERSION} into {home}, a minute the first time", flush=True
    )
    shutil.rmtree(home, ignore_errors=True)
    pip = [python, "-m", "pip", "--disable-pip-version-check", "-q", "install"]
    _run([*pip, "--target", str(home / "tool"), "virtualenv<20.16"])
    path = {"PYTHONPATH": str(home / "tool")}
    _run([python, "-m", "virtualenv", "-q", str(home / "env")], path)
    _run([str(home / "env" / "bin" / "pip"), "-q", "install", f"autobahntestsuite=={VERSION}"])
    return command


def _python() -> str:
    found = [shutil.which(name) for name in ("python2.7", "pypy", "pypy2")]
    found += [str(path) for path in Path.home().glob(".pyenv/versions/2.7.*/bin/python")]
    for each in found:
        if each and _tells_27(each):
            return each
    raise build.Missing(
        f"autobahntestsuite {VERSION} runs on Python 2.7 (or PyPy 2.7) only, and there is none: install one"
        ' and say where it is: make conformance ARGS="--python PATH"'
    )


def _tells_27(python: str) -> bool:
    """A version manager's shim may stand there without it."""
    asked = [python, "-c", "import sys; assert sys.version_info[:2] == (2, 7)"]
    return subprocess.run(asked, capture_output=True).returncode == 0


def _run(command: list[str], more: dict[str, str] | None = None) -> None:
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | (more or {}))
    if done.returncode:
        raise build.Missing(f"{' '.join(command)} failed: {done.stderr.strip()[-400:]}")
