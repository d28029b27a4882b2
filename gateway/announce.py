"""What serve tells once it serves: the IDE it offers, the address to open, where the rest is."""

from __future__ import annotations

import os
import shutil
import sys
from importlib import metadata
from pathlib import Path

from gateway.settings import Settings, executable
from gateway.terminal import DONE, DOUBT, report, say


def announce(settings: Settings, home_url: str) -> None:
    report(*ide(settings.workspace_command, os.environ.get("PATH", "")))
    say(f"Open {home_url}   (one use, good for 10 minutes)")
    ends = "stops everything" if settings.pool == "local" else "ends the gateway, machines go on"
    say(f"API /api · metrics /metrics · Ctrl-C {ends}, files are kept")


def ide(command: str, path: str) -> tuple[str, str, str]:
    """Progress line about the program of a command template, looked up in this PATH."""
    program = executable(command)
    found = shutil.which(program, path=path)
    if found is None:
        hint = "pip install jupyterlab, or " if program.startswith("jupyter") else ""
        text = f'the IDE command "{program}" was not found; try: {hint}set --workspace-command'
        return DOUBT, "IDE", text
    if program == "jupyter-lab" and Path(found).parent == bin_dir():
        return DONE, "IDE", f"jupyterlab {metadata.version('jupyterlab')}"
    return DONE, "IDE", found


def bin_dir() -> Path:
    """Where this Python's programs are: the virtual environment's bin, active or not."""
    return Path(sys.executable).parent
