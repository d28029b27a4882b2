"""JupyterHub in an environment of its own: one hub, its proxy, and its spawner of local processes."""

from __future__ import annotations

import http.client
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from bench import build
from bench.peers import free_port
from bench.serving import TIMEOUT, wait
from gateway.valkey import die_with_parent

VERSION = "6.1.1"

_CONFIG = """
c = get_config()
c.JupyterHub.bind_url = "http://127.0.0.1:{port}"
c.JupyterHub.hub_port = {hub_port}
c.JupyterHub.db_url = "sqlite:///{folder}/hub.sqlite"
c.JupyterHub.cookie_secret_file = "{folder}/cookie"
c.JupyterHub.authenticator_class = "dummy"
c.Authenticator.allow_all = True
c.JupyterHub.spawner_class = "simple"
c.SimpleLocalProcessSpawner.home_dir_template = "{folder}/{{username}}"
c.Spawner.args = ["--allow-root"]
c.Spawner.default_url = "/lab"
c.ConfigurableHTTPProxy.command = {proxy!r}
c.ConfigurableHTTPProxy.api_url = "http://127.0.0.1:{api_port}"
c.JupyterHub.services = [{{"name": "bench", "api_token": "{token}"}}]
c.JupyterHub.load_roles = [
    {{"name": "bench", "services": ["bench"],
     "scopes": ["admin:users", "admin:servers", "access:servers"]}}
]
"""


def command() -> Path:
    """Its program, installed with the first call beside the JupyterLab that the gateway runs. Raises
    build.Missing."""
    lab = version("jupyterlab")
    home = build.directory() / f"jupyterhub-{VERSION}-{lab}"
    program = home / "bin" / "jupyterhub"
    if program.exists():
        return program
    print(f"Installing JupyterHub {VERSION} into {home}, a minute the first time", flush=True)
    shutil.rmtree(home, ignore_errors=True)
    fresh = home.with_suffix(f".{os.getpid()}")
    _run([sys.executable, "-m", "venv", str(home)])
    try:
        packages = [f"jupyterhub=={VERSION}", f"jupyterlab=={lab}"]
        pip = ["-m", "pip", "--disable-pip-version-check", "-q", "install", *packages]
        _run([str(home / "bin" / "python"), *pip])
    except build.Missing:
        home.rename(fresh)  # half of it is none
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    return program


class Hub:
    """Ended with the stack, its servers too."""

    def __init__(self, stack: ExitStack) -> None:
        """Raises build.Missing."""
        program = command()
        proxy = build.configurable_http_proxy()
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ide-gateway-hub-")))
        self.port, self._token = free_port(), secrets.token_hex(16)
        told: dict[str, Any] = {"port": self.port, "hub_port": free_port(), "api_port": free_port()}
        told |= {"folder": folder, "proxy": proxy, "token": self._token}
        (folder / "config.py").write_text(_CONFIG.format(**told))
        log = folder / "log"
        path = f"{program.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        with log.open("wb") as out:
            self._process = subprocess.Popen(
                [str(program), "-f", str(folder / "config.py")],
                cwd=folder,
                env=os.environ | {"PATH": path},
                stdout=out,
                stderr=out,
                preexec_fn=die_with_parent(),
            )
        stack.callback(self._stop)
        wait(lambda: self._process.poll() is not None or self._answers("/hub/api/"), "JupyterHub")
        if self._process.poll() is not None:
            raise RuntimeError(f"JupyterHub did not start:\n{log.read_text()[-2000:]}")

    def boot(self, user: str) -> None:
        """Return once the JupyterLab of that new user answers through the proxy."""
        self._call("POST", f"/hub/api/users/{user}")
        self._call("POST", f"/hub/api/users/{user}/server")
        wait(lambda: self._answers(f"/user/{user}/lab"), f"{user}'s JupyterLab")

    def stop(self, user: str) -> None:
        self._call("DELETE", f"/hub/api/users/{user}/server")
        wait(lambda: not self._servers(user), f"{user}'s server stopped")

    def _servers(self, user: str) -> Any:
        return json.loads(self._call("GET", f"/hub/api/users/{user}")[1]).get("servers")

    def _answers(self, path: str) -> bool:
        try:
            return self._call("GET", path)[0] == 200
        except OSError:
            return False

    def _call(self, method: str, path: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT)
        connection.request(method, path, headers={"Authorization": f"token {self._token}"})
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        if method != "GET" and answer.status >= 400:
            raise RuntimeError(f"{method} {path} was answered {answer.status}: {text[:300]}")
        return answer.status, text

    def _stop(self) -> None:
        us = psutil.Process(self._process.pid)
        ours = us.children(recursive=True)
        self._process.terminate()
        try:
            self._process.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for each in ours:
            if each.is_running():
                each.kill()


def _run(asked: list[str]) -> None:
    done = subprocess.run(asked, capture_output=True, text=True)
    if done.returncode:
        raise build.Missing(
            f"JupyterHub is missing: {' '.join(asked)}: {done.stderr.strip()[-300:]}"
        )
