"""Several gateway processes on one listening socket: start them, start a crashed one again, end them in order."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType

import structlog

from gateway.announce import announce
from gateway.exits import ConfigurationError, DependencyMissing, TryAgain
from gateway.logs import configure
from gateway.process import FORCED, Boot, run
from gateway.terminal import report, say
from gateway.valkey import die_with_parent

log = structlog.get_logger(__name__)

LONG_LIFE = 60.0
"""Seconds: a worker that lived this long was all right; its next crash counts as its first."""

FINAL = frozenset({ConfigurationError.code, DependencyMissing.code, TryAgain.code})
"""Exit codes of a worker that another start would not change: it has said why."""

_LOOK_SECONDS = 0.2
_KILL_AFTER = 5.0


@dataclass(slots=True)
class Worker:
    """process: None while it waits for `next_start` (monotonic seconds)."""

    number: int
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    crashes: int = 0
    next_start: float = 0.0


def pause(crashes: int) -> float:
    """Seconds before a worker that crashed this often in a row is started again: 1, 2, 4 … 30."""
    return float(min(30, 2 ** min(crashes - 1, 5)))


def supervise(
    boot: Boot, sock: socket.socket, every_second: Callable[[], None] | None = None
) -> int:
    """Run boot.settings.workers processes until told to stop; the exit code."""
    asked: list[int] = []

    def remember(number: int, _frame: FrameType | None) -> None:
        asked.append(number)

    numbers = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
    before = {number: signal.getsignal(number) for number in numbers}
    for number in numbers:
        if number != signal.SIGHUP or before[number] is not signal.SIG_IGN:  # nohup
            signal.signal(number, remember)
    workers = [Worker(number) for number in range(boot.settings.workers)]
    try:
        return _watch(workers, boot, sock, asked, every_second)
    finally:
        for worker in workers:
            if worker.process and worker.process.poll() is None:
                worker.process.kill()
                worker.process.wait()
        for number in numbers:
            signal.signal(number, before[number])


def _watch(
    workers: list[Worker],
    boot: Boot,
    sock: socket.socket,
    asked: list[int],
    every_second: Callable[[], None] | None,
) -> int:
    next_beat = 0.0
    while not asked:
        now = time.monotonic()
        for worker in workers:
            if worker.process is None and now >= worker.next_start:
                worker.started = now
                worker.process = spawn(boot, sock, first=worker.number == 0 and not worker.crashes)
            code = _look(worker, now)
            if code in FINAL:
                _end(workers, [signal.SIGTERM])
                return code
        if every_second and now >= next_beat:
            every_second()
            next_beat = now + 1
        time.sleep(_LOOK_SECONDS)
    say("Stopping: closing sessions, then machines; files are kept (Ctrl-C again to stop at once)")
    return _end(workers, asked)


def _look(worker: Worker, now: float) -> int | None:
    """The exit code of a worker that has ended since the last look; its next start is set."""
    if worker.process is None or (code := worker.process.poll()) is None:
        return None
    worker.process = None
    if code in FINAL:
        return code
    worker.crashes = 1 if now - worker.started >= LONG_LIFE else worker.crashes + 1
    worker.next_start = now + pause(worker.crashes)
    log.error(
        "a worker ended; it is started again",
        worker=worker.number,
        exit_code=code,
        seconds=pause(worker.crashes),
    )
    return code


def _end(workers: list[Worker], asked: list[int]) -> int:
    """Hand on the signals, one by one, until all are gone; the second one forces."""
    sent, forced_at = 0, 0.0
    while running := [w.process for w in workers if w.process and w.process.poll() is None]:
        if sent < min(len(asked), 2):
            sent += 1
            forced_at = time.monotonic() if sent == 2 else 0.0
            for process in running:
                process.send_signal(signal.SIGTERM)
        if forced_at and time.monotonic() - forced_at > _KILL_AFTER:
            for process in running:
                process.kill()
        time.sleep(0.05)
    return FORCED if sent == 2 else 0


def spawn(boot: Boot, sock: socket.socket, first: bool) -> subprocess.Popen[bytes]:
    """Start one. first: it tells the terminal when it is ready."""
    process = subprocess.Popen(
        [sys.executable, "-m", "gateway", "worker"],
        stdin=subprocess.PIPE,
        pass_fds=[sock.fileno()],
        start_new_session=True,  # Ctrl-C comes from us, once
        # Not SIGTERM: without us, and so without the embedded Valkey, there is no order to end in.
        preexec_fn=die_with_parent(signal.SIGKILL),
    )
    assert process.stdin is not None
    with process.stdin as pipe:
        pipe.write(
            json.dumps({"boot": boot.to_json(), "fd": sock.fileno(), "first": first}).encode()
        )
    return process


def work() -> int:
    """A worker's whole life: its orders come on standard input."""
    orders = json.load(sys.stdin)
    boot = Boot.from_json(orders["boot"])
    settings = boot.settings
    configure(settings.log_level, settings.log_format)
    sock = socket.socket(fileno=orders["fd"])
    if not orders["first"]:
        return run(boot, sock, lambda *_: None, lambda _: None, lambda _: None)
    return run(boot, sock, report, lambda url: announce(settings, url), lambda _: None)
