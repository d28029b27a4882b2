"""A real `ide-gateway serve`, asked over its API, and its end."""

from __future__ import annotations

import http.client
import json
import re
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil

from bench import build
from gateway.valkey import die_with_parent

TIMEOUT = 60.0  # seconds for a start, a boot, an end
POLL = 0.05  # seconds between two questions: each costs whoever is asked some of the CPU that a boot needs


def echo_ide() -> tuple[str, ...]:
    """Flags that make bench/echo.c the IDE, behind all that a workspace has. Raises build.Missing."""
    command = f"{build.program('echo')} {{port}}"
    return (
        "--workspace-command", command, "--workspace-ready-path", "/",
        "--workspace-upstream-header", "X-IDE-Secret: {secret}", "--workspace-user", "shared",
        "--max-sessions", "9000", "--max-sessions-per-user", "9000", "--warm-workspaces", "0",
    )  # fmt: skip


class Gateway:
    """Ended with the stack, its machines too; also by the kernel's signal should we be killed."""

    def __init__(self, stack: ExitStack, *flags: str) -> None:
        directory = tempfile.TemporaryDirectory(prefix="ide-gateway-bench-")
        self.data = Path(stack.enter_context(directory))
        self.data.chmod(0o711)  # workspaces' own users pass through
        command = [sys.executable, "-m", "gateway", "serve", "--port", "0"]
        command += ["--data-dir", str(self.data), *flags]
        self.log = self.data / "log"
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(
                command,
                stdout=out,
                stderr=out,
                start_new_session=True,
                preexec_fn=die_with_parent(),
            )
        stack.callback(self.stop)
        wait(lambda: self.process.poll() is not None or self.started(), "serve")
        found = self.started()
        if not found:
            raise RuntimeError(f"serve did not start:\n{self.log.read_text()}")
        self.port, self.key = int(found[1]), (self.data / "api-key").read_text().strip()
        wait(lambda: any(m["status"] == "ready" for m in self.api("GET", "machines")), "a machine")

    def started(self) -> re.Match[str] | None:
        return re.search(r"Open http://[^/\s]+:(\d+)/", self.log.read_text())

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            us = psutil.Process(self.process.pid)
            for each in (*us.children(recursive=True), us):
                each.kill()
            self.process.wait()

    def call(self, method: str, path: str, headers: dict[str, str], body: Any = None) -> Any:
        """(Set-Cookie, text)"""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT)
        connection.request(method, path, json.dumps(body) if body else None, headers)
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        if answer.status >= 400:
            raise RuntimeError(f"{method} {path} was answered {answer.status}: {text[:300]}")
        return answer.getheader("Set-Cookie", "").split(";")[0], text

    def api(self, method: str, path: str, body: Any = None) -> Any:
        headers = {"Authorization": f"Bearer {self.key}"}
        return json.loads(self.call(method, f"/api/{path}", headers, body)[1])

    def boot(self, user: str) -> tuple[str, float]:
        """(workspace, seconds from asking for it to running)"""
        started = time.perf_counter()
        workspace = self.api("POST", "workspaces", {"userId": user})["workspaceId"]
        self.becomes(workspace, "running")
        return workspace, time.perf_counter() - started

    def becomes(self, workspace: str, status: str) -> None:
        path = f"workspaces/{workspace}"
        wait(lambda: self.api("GET", path)["status"] == status, f"{workspace} {status}")

    def enter(self, workspace: str) -> dict[str, Any]:
        """What a browser has once it has entered: {port, host, cookie}."""
        url = self.api("POST", f"workspaces/{workspace}/enter")["url"]
        _, _, host, path = url.split("/", 3)
        cookie, _ = self.call("GET", f"/{path}", {"Host": host})
        return {"port": self.port, "host": host, "cookie": cookie}


def wait(condition: Any, what: str) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {TIMEOUT:g} s")
        time.sleep(POLL)
