"""nginx, HAProxy and configurable-http-proxy in front of the same workspace, each on a core it is given.

Equal for all: one process that works, upstream connections kept alive, nothing logged, defaults for the rest.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import psutil

from bench import build
from bench.serving import TIMEOUT, wait
from gateway.valkey import die_with_parent

HERE = Path(__file__).parent
NAMES = ("nginx", "HAProxy", "configurable-http-proxy")


def start(name: str, stack: ExitStack, upstream: int, core: int) -> tuple[int, psutil.Process]:
    """(its port, its first process). Ended with the stack. Raises build.Missing."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ide-gateway-peer-")))
    folder.chmod(0o755)  # nginx's worker is another user's
    port = free_port()
    command = _COMMANDS[name](folder, port, upstream)
    dies = die_with_parent()

    def prepare() -> None:
        if dies:
            dies()
        os.sched_setaffinity(0, {core})

    log = folder / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(command, cwd=folder, stdout=out, stderr=out, preexec_fn=prepare)
    stack.callback(_end, process)
    wait(lambda: process.poll() is not None or accepts(port), name)
    if process.poll() is not None:
        raise RuntimeError(f"{name} did not start:\n{log.read_text()}")
    return port, psutil.Process(process.pid)


def version(name: str) -> str:
    """As it tells it; "" when it is not there."""
    if name == "configurable-http-proxy":
        return build.CHP_VERSION
    try:
        asked = [build.debian(name.lower()), "-v"]
    except build.Missing:
        return ""
    told = subprocess.run(asked, capture_output=True, text=True)
    found = re.search(r"(\d+\.\d+\.\d+)", told.stdout + told.stderr)
    return found[1] if found else "?"


def _nginx(folder: Path, port: int, upstream: int) -> list[str]:
    config = _write(folder, "nginx.conf", port, upstream)
    return [build.debian("nginx"), "-p", str(folder), "-c", config]


def _haproxy(folder: Path, port: int, upstream: int) -> list[str]:
    return [build.debian("haproxy"), "-db", "-f", _write(folder, "haproxy.cfg", port, upstream)]


def _configurable_http_proxy(folder: Path, port: int, upstream: int) -> list[str]:
    where = ["--ip", "127.0.0.1", "--port", str(port), "--api-ip", "127.0.0.1"]
    where += ["--api-port", str(free_port()), "--default-target", f"http://127.0.0.1:{upstream}"]
    return [*build.configurable_http_proxy(), *where, "--log-level", "error"]


_COMMANDS: dict[str, Callable[[Path, int, int], list[str]]] = {
    "nginx": _nginx,
    "HAProxy": _haproxy,
    "configurable-http-proxy": _configurable_http_proxy,
}


def _write(folder: Path, template: str, port: int, upstream: int) -> str:
    text = (HERE / template).read_text()
    for name, value in (("directory", folder), ("port", port), ("upstream", upstream)):
        text = text.replace(f"{{{{{name}}}}}", str(value))
    path = folder / template
    path.write_text(text)
    return str(path)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def accepts(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


def _end(process: subprocess.Popen[bytes]) -> None:
    children = (
        psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    )
    process.terminate()
    try:
        process.wait(TIMEOUT / 10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for each in children:  # a master that was killed leaves its workers
        if each.is_running():
            each.kill()
