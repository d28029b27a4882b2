"""What the benchmarks make for themselves, in a cache: load generator and echo from C, a peer from npm."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

HERE = Path(__file__).parent
FLAGS = ("-O2", "-Wall", "-Wextra", "-std=gnu11")
CHP = "configurable-http-proxy"
CHP_VERSION = "5.3.0"


class Missing(Exception):
    """str(error) says what is not there, and how it comes there."""


@cache
def directory() -> Path:
    """bench/.cache, or one under the system's for temporary files where that cannot be written."""
    for path in (HERE / ".cache", Path(tempfile.gettempdir()) / f"ide-gateway-bench-{os.getuid()}"):
        try:
            path.mkdir(mode=0o755, exist_ok=True)
        except OSError:
            continue
        if os.access(path, os.W_OK):
            return path
    raise Missing(f"no directory for what is built: neither {HERE}/.cache nor {path}")


def program(name: str) -> Path:
    """bench/NAME.c, compiled unless that was done since it last changed. Raises Missing."""
    made, source = directory() / name, HERE / f"{name}.c"
    newest = max(each.stat().st_mtime for each in (source, *HERE.glob("*.h")))
    if made.exists() and made.stat().st_mtime > newest:
        return made
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if not compiler:
        raise Missing(
            "a C compiler is missing (Debian: apt-get install gcc): nothing can make load"
        )
    fresh = made.with_suffix(f".{os.getpid()}")
    subprocess.run([compiler, *FLAGS, "-o", fresh, source], check=True)
    fresh.replace(made)
    return made


def debian(name: str) -> str:
    """The path of a program that Debian has. Raises Missing."""
    path = shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
    if not path:
        raise Missing(f"{name} is missing (Debian: apt-get install {name})")
    return path


def configurable_http_proxy() -> list[str]:
    """Its command, installed by npm if it is not there. Raises Missing."""
    folder = directory() / CHP
    script = folder / "node_modules" / CHP / "bin" / CHP
    node, npm = shutil.which("node"), shutil.which("npm")
    if not node:
        raise Missing(f"{CHP} is missing, as it needs node (Debian: apt-get install nodejs npm)")
    if not script.exists():
        if not npm:
            raise Missing(f"{CHP} is missing, and so is npm (Debian: apt-get install npm)")
        print(f"Installing {CHP} {CHP_VERSION} into {folder}", flush=True)
        folder.mkdir(exist_ok=True)
        asked = [npm, "install", "--no-audit", "--no-fund", "--silent", f"{CHP}@{CHP_VERSION}"]
        done = subprocess.run(asked, cwd=folder, capture_output=True, text=True)
        if done.returncode or not script.exists():
            raise Missing(f"{CHP} is missing, and npm failed: {done.stderr.strip()[-300:]}")
    return [node, str(script)]
