"""serve from its first line to its last, with a small application inside: real processes, real Valkey, real signals."""

from __future__ import annotations

import contextlib
import os
import queue
import re
import signal
import stat
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import redis

from gateway.announce import ide
from gateway.shared import shared_signing_key
from gateway.workers import pause
from lifecycle.stores.keys import SIGNING_KEY

DEADLINE = 20.0

APPLICATION = """
import asyncio, os, sys, types

class Application:
    def __init__(self, settings, report):
        self.settings, self.report = settings, report

    async def asgi(self, scope, receive, send):
        body = str(os.getpid()).encode()
        length = str(len(body)).encode()
        if scope["path"] == "/slow":
            note("slow")
            await asyncio.sleep(60)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
        await send({"type": "http.response.body", "body": body})

    async def start(self):
        note("start")
        if os.environ.get("FAKE") == "broken":
            raise RuntimeError("no machine to be had")
        if os.environ.get("FAKE") == "stuck":
            await asyncio.sleep(60)
        self.report("\\u2713", "Pool", "local: 1 machine, 5 slots")

    async def home_url(self):
        return self.settings.public_url + "/enter?code=abc"

    async def drain(self):
        note("drain")

    async def stop(self, stop_machines):
        note(f"stop {stop_machines}")

def note(text):
    with open(os.environ["FAKE_NOTES"], "a") as file:
        file.write(f"{os.getpid()} {text}\\n")

async def create(settings, redis_url, api_key, signing_key, report):
    secrets = [redis_url, api_key, signing_key]
    note(f"secrets {all(secrets)} {'IDE_GATEWAY_API_KEY' in os.environ}")
    return Application(settings, report)

module = types.ModuleType("gateway.app")
module.create = create
sys.modules["gateway.app"] = module
"""


class Served:
    """One running `ide-gateway serve`; lines: what it has said on standard output."""

    def __init__(self, cwd: Path, arguments: tuple[str, ...], environ: dict[str, str]) -> None:
        self.cwd, self.notes_file = cwd, cwd / "notes"
        site = cwd / "site"
        site.mkdir(exist_ok=True)
        (site / "sitecustomize.py").write_text(APPLICATION)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gateway", "serve", "--port", "0", *arguments],
            cwd=cwd,
            env={
                "PATH": "/usr/bin:/bin",
                "PYTHONPATH": f"{site}{os.pathsep}{os.getcwd()}",
                "FAKE_NOTES": str(self.notes_file),
                **environ,
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # A shell starts the background jobs of a script so; they are to end all the same.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
        )
        self.lines: list[str] = []
        self._queue: queue.Queue[str | None] = queue.Queue()
        self._errors: list[str] = []
        self._threads = [
            threading.Thread(target=self._read_output),
            threading.Thread(target=self._read_errors),
        ]
        for thread in self._threads:
            thread.start()

    def _read_output(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._queue.put(line.rstrip("\n"))
        self._queue.put(None)

    def _read_errors(self) -> None:
        assert self.process.stderr is not None
        self._errors.extend(self.process.stderr)

    def line(self, beginning: str) -> str:
        """The next line with this beginning; fails if there is none in time."""
        deadline = time.monotonic() + DEADLINE
        while (left := deadline - time.monotonic()) > 0:
            with contextlib.suppress(queue.Empty):
                line = self._queue.get(timeout=left)
                if line is None:
                    break
                self.lines.append(line)
                if line.startswith(beginning):
                    return line
        raise AssertionError(f"no line {beginning!r} in {self.lines}, stderr {self._errors}")

    @property
    def url(self) -> str:
        return (self.cwd / ".ide-gateway" / "url").read_text().strip()

    def get(self, path: str = "/") -> str:
        with urllib.request.urlopen(self.url.replace("localhost", "127.0.0.1") + path) as answer:
            return str(answer.read().decode())

    def notes(self) -> list[str]:
        """What the application inside has gone through, "pid what"."""
        return self.notes_file.read_text().splitlines() if self.notes_file.exists() else []

    def done(self) -> list[str]:
        return [note.partition(" ")[2] for note in self.notes()]

    def end(self) -> tuple[int, str]:
        """Exit code and standard error, once it has ended."""
        code = self.process.wait(DEADLINE)
        for thread in self._threads:
            thread.join(DEADLINE)
        while (line := self._queue.get(timeout=1)) is not None:
            self.lines.append(line)
        return code, "".join(self._errors)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for stream in (self.process.stdout, self.process.stderr):
            for thread in self._threads:
                thread.join(DEADLINE)
            assert stream is not None
            stream.close()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Served]]:
    running: list[Served] = []

    def begin(*arguments: str, **environ: str) -> Served:
        running.append(Served(tmp_path, arguments, environ))
        return running[-1]

    yield begin
    for served in running:
        served.close()
    wait_for(lambda: not valkeys(tmp_path), "Valkey to be gone")


def wait_for(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.02)


def valkeys(directory: Path) -> list[int]:
    """Servers that run in this directory. Killed ones that nobody has buried do not count."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.name() == "valkey-server" and process.cwd().startswith(str(directory)):
                found.append(process.pid)
    return found


def client(directory: Path) -> redis.Redis:
    password = (directory / ".ide-gateway/redis/password").read_text().strip()
    path = str(directory / ".ide-gateway/redis/valkey.sock")
    return redis.Redis(unix_socket_path=path, password=password, decode_responses=True)


def test_what_is_told_from_start_to_stop(serve: Callable[..., Served], tmp_path: Path) -> None:
    served = serve("--idle-timeout", "5")
    opened = served.line("Open ")
    served.line("API /api")
    port = served.url.rpartition(":")[2]
    assert opened == f"Open http://localhost:{port}/enter?code=abc   (one use, good for 10 minutes)"
    assert re.sub(r"Valkey [\d.]+", "Valkey 9", "\n".join(served.lines[:4])) == (
        "ide-gateway 0.1.0   settings: port, idle_timeout (see them: ide-gateway settings)\n"
        "✓ Redis   embedded Valkey 9, data in .ide-gateway/\n"
        "          look inside: redis-cli -s .ide-gateway/redis/valkey.sock"
        " (password: .ide-gateway/redis/password)\n"
        "✓ Pool    local: 1 machine, 5 slots"
    )
    assert served.lines[4][:10] in ("✓ IDE     ", "! IDE     ")
    assert served.get() == str(served.process.pid)
    served.process.send_signal(signal.SIGINT)
    code, errors = served.end()
    assert (code, errors) == (0, "")
    assert served.lines[7:] == [
        "Stopping: /readyz answers 503 (Ctrl-C again to stop at once)",
        "Closing sessions",
        "Stopping machines, files are kept",
        "Stopping Valkey",
    ]
    assert served.done() == ["secrets True False", "start", "drain", "stop True"]
    assert not valkeys(tmp_path)
    assert not (tmp_path / ".ide-gateway/url").exists()


def test_secrets_are_made_once_and_are_private(
    serve: Callable[..., Served], tmp_path: Path
) -> None:
    kept = []
    for _ in range(2):
        served = serve()
        served.line("Open ")
        data_dir = tmp_path / ".ide-gateway"
        assert stat.S_IMODE(data_dir.stat().st_mode) == 0o700
        for name in ("api-key", "signing-key", "redis/password"):
            assert stat.S_IMODE((data_dir / name).stat().st_mode) == 0o600
            kept.append((data_dir / name).read_text())
        served.process.terminate()
        assert served.end()[0] == 0
    assert kept[:3] == kept[3:]
    assert len(set(kept)) == 3


def test_a_given_key_is_not_passed_on_nor_written(
    serve: Callable[..., Served], tmp_path: Path
) -> None:
    served = serve(IDE_GATEWAY_API_KEY="given-key")
    served.line("Open ")
    assert served.done()[0] == "secrets True False"
    assert not (tmp_path / ".ide-gateway/api-key").exists()


def test_a_second_one_on_the_same_data_is_refused(
    serve: Callable[..., Served], tmp_path: Path
) -> None:
    first = serve()
    first.line("Open ")
    code, errors = serve().end()
    assert code == 75
    assert errors == (
        f"error: another gateway serves .ide-gateway (pid {first.process.pid})\n"
        "  stop it first, or try: ide-gateway serve --data-dir DIRECTORY\n"
    )
    assert first.get() == str(first.process.pid)


def test_killed_and_started_again_it_has_its_data(
    serve: Callable[..., Served], tmp_path: Path
) -> None:
    first = serve()
    first.line("Open ")
    with client(tmp_path) as one:
        one.set("workspace", "kept")
    first.process.kill()
    again = serve()
    again.line("Open ")
    assert len(valkeys(tmp_path)) == 1
    with client(tmp_path) as two:
        assert two.get("workspace") == "kept"


def test_killed_it_leaves_no_valkey_behind(serve: Callable[..., Served], tmp_path: Path) -> None:
    served = serve()
    served.line("Open ")
    assert len(valkeys(tmp_path)) == 1
    served.process.kill()
    wait_for(lambda: not valkeys(tmp_path), "Valkey to follow its gateway")


def test_a_valkey_that_dies_is_started_again(serve: Callable[..., Served], tmp_path: Path) -> None:
    served = serve()
    served.line("Open ")
    with client(tmp_path) as one:
        one.set("workspace", "kept")
    (pid,) = valkeys(tmp_path)
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: valkeys(tmp_path) not in ([], [pid]), "another Valkey")
    with client(tmp_path) as two:
        wait_for(lambda: answers(two), "its answer")
        assert two.get("workspace") == "kept"
    served.process.terminate()
    code, errors = served.end()
    assert code == 0
    assert "the embedded Valkey had ended; started it again" in errors


def answers(server: redis.Redis) -> bool:
    with contextlib.suppress(redis.RedisError):
        return bool(server.ping())
    return False


def test_the_second_signal_forces(serve: Callable[..., Served], tmp_path: Path) -> None:
    served = serve()
    served.line("Open ")
    with subprocess.Popen(
        [sys.executable, "-c", f"import urllib.request as u; u.urlopen({served.url!r} + '/slow')"],
        stderr=subprocess.DEVNULL,
    ) as visitor:
        wait_for(lambda: "slow" in served.done(), "a request under way")
        served.process.send_signal(signal.SIGINT)
        served.line("Closing sessions")
        assert served.process.poll() is None
        served.process.send_signal(signal.SIGINT)
        code, _ = served.end()
        visitor.wait(DEADLINE)
    assert code == 130
    assert "Forced: machines may go on; the next start finds them" in served.lines
    assert "stop True" not in served.done()
    assert not valkeys(tmp_path)


def test_a_signal_while_starting_ends_it(serve: Callable[..., Served], tmp_path: Path) -> None:
    served = serve(FAKE="stuck")
    wait_for(lambda: "start" in served.done(), "the start")
    served.process.terminate()
    code, errors = served.end()
    assert (code, errors) == (0, "")
    assert served.done()[-1] == "stop True"


def test_a_start_that_fails_is_told_in_one_line(serve: Callable[..., Served]) -> None:
    served = serve(FAKE="broken")
    code, errors = served.end()
    assert code == 70
    assert errors == (
        "error: RuntimeError: no machine to be had\n  this is unexpected; -v shows the traceback\n"
    )
    assert served.done()[-1] == "stop True"


def test_no_colours_in_a_pipe(serve: Callable[..., Served]) -> None:
    served = serve(TERM="xterm")
    served.line("Open ")
    assert "\x1b" not in "".join(served.lines)


def test_an_external_redis_is_left_alone(
    serve: Callable[..., Served], tmp_path: Path, valkey: str
) -> None:
    served = serve(IDE_GATEWAY_REDIS_URL=valkey)
    line = served.line("✓ Redis")
    assert re.fullmatch(r"✓ Redis   Valkey [\d.]+ at unix:///.*valkey\.sock", line)
    served.line("Open ")
    assert not (tmp_path / ".ide-gateway/redis").exists()
    other = serve("--data-dir", "other", IDE_GATEWAY_REDIS_URL=valkey)
    other.line("Open ")
    keys = [(tmp_path / place / "signing-key").read_text() for place in (".ide-gateway", "other")]
    assert keys[0] == keys[1]
    served.process.terminate()
    assert served.end()[0] == 0
    with redis.Redis.from_url(valkey) as server:
        assert server.ping()


def test_workers_share_the_port_and_a_crashed_one_comes_back(
    serve: Callable[..., Served], tmp_path: Path
) -> None:
    served = serve("--workers", "2")
    served.line("✓ Pool")
    served.line("Open ")

    def started() -> list[int]:
        return [int(note.split()[0]) for note in served.notes() if note.endswith(" start")]

    wait_for(lambda: len(started()) == 2, "both workers")
    first = started()
    assert served.process.pid not in first
    assert int(served.get()) in first
    os.kill(first[0], signal.SIGKILL)
    wait_for(lambda: len(started()) == 3, "a new worker")
    served.process.send_signal(signal.SIGINT)
    code, errors = served.end()
    assert code == 0
    assert "a worker ended; it is started again" in errors
    assert served.done().count("stop True") == 2
    assert served.done().count("drain") == 2
    assert not any(psutil.pid_exists(pid) for pid in started())
    assert not valkeys(tmp_path)


def test_workers_die_with_their_parent(serve: Callable[..., Served]) -> None:
    served = serve("--workers", "2")
    served.line("Open ")
    pids = [child.pid for child in psutil.Process(served.process.pid).children()]
    assert len(pids) == 3  # and Valkey
    served.process.kill()
    wait_for(lambda: not any(alive(pid) for pid in pids), "all of them to be gone")


def alive(pid: int) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def test_the_pause_before_another_start_grows() -> None:
    assert [pause(crashes) for crashes in (1, 2, 3, 4, 5, 6, 99)] == [1, 2, 4, 8, 16, 30, 30]


def test_the_signing_key_of_redis_wins_and_the_file_restores_it(
    tmp_path: Path, valkey: str
) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    with redis.Redis.from_url(valkey, decode_responses=True) as server:
        server.delete(SIGNING_KEY)
        key = shared_signing_key(valkey, ours)
        assert shared_signing_key(valkey, theirs) == key
        assert theirs.read_text().strip() == key
        server.delete(SIGNING_KEY)
        assert shared_signing_key(valkey, theirs) == key
        assert server.get(SIGNING_KEY) == key
        given = "kept-by-an-operator-somewhere-else-0"
        assert shared_signing_key(valkey, theirs, given) == given == server.get(SIGNING_KEY)
        assert theirs.read_text().strip() == key, "it is written nowhere"
        assert shared_signing_key(valkey, ours) == given, "those without it take it from Redis"


def test_the_line_about_the_ide(tmp_path: Path) -> None:
    program = tmp_path / "my-ide"
    program.touch(mode=0o755)
    assert ide("A=1 my-ide {port}", str(tmp_path)) == ("✓", "IDE", str(program))
    assert ide("my-ide {port}", "/nowhere") == (
        "!",
        "IDE",
        'the IDE command "my-ide" was not found; try: set --workspace-command',
    )
    assert "pip install jupyterlab, or" in ide("jupyter-lab {port}", "/nowhere")[2]
