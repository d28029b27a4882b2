"""The gateway and its peers before one workspace: each on the first core; load, workspace, Valkey and agent on the last."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, cast

import psutil

from bench import build, peers
from bench.serving import Gateway, echo_ide
from gateway.valkey import die_with_parent

Figures = dict[str, float]
CORES = sorted(os.sched_getaffinity(0))
TRIES = 3


@dataclass
class Proxy:
    """first: its first process; its others are found when they are counted. beside: what a proxy keeps
    state in, on the load's core, counted apart."""

    name: str
    port: int
    first: psutil.Process
    alone: bool = False  # without the processes that it started
    host: str = "127.0.0.1"
    cookie: str = ""
    origin: str = ""
    beside: tuple[int, ...] = ()

    def pids(self) -> list[int]:
        children = [] if self.alone else self.first.children(recursive=True)
        return [self.first.pid, *(each.pid for each in children)]


class Stage:
    """peers: names of those to start beside the gateway. missing: what is not there, in words."""

    def __init__(self, stack: ExitStack, wanted: Iterable[str]) -> None:
        self.generator = build.program("load")
        self.gateway = Gateway(stack, *echo_ide())
        workspace, _ = self.gateway.boot("ada")
        visit = self.gateway.enter(workspace)
        told = {"Host": visit["host"], "Cookie": visit["cookie"]}
        self.upstream = int(self.gateway.call("GET", "/", told)[1])
        us = psutil.Process(self.gateway.process.pid)
        others = us.children(recursive=True)
        self.echo = next(each.pid for each in others if each.cmdline()[-1] == str(self.upstream))
        _pin([us], CORES[0])
        _pin(others, CORES[-1])
        beside = tuple(each.pid for each in others if each.pid != self.echo)
        origin = f"http://{visit['host']}"
        ours = Proxy("gateway", visit["port"], us, alone=True, origin=origin, beside=beside)
        ours.host, ours.cookie = visit["host"], visit["cookie"]
        self.proxies, self.missing = [ours], list[str]()
        for name in wanted:
            try:
                port, first = peers.start(name, stack, self.upstream, CORES[0])
            except build.Missing as missing:
                self.missing.append(str(missing))
            else:
                self.proxies.append(Proxy(name, port, first))

    @contextmanager
    def loading(self, proxy: Proxy, mode: str, **options: Any) -> Iterator[Load]:
        told = dict(port=proxy.port, host=proxy.host, cookie=proxy.cookie, origin=proxy.origin)
        told |= {"path": "/ws", "pids": _listed(proxy.pids()), "upstream": self.echo}
        told |= {"beside": _listed(proxy.beside)} | options
        command = [str(self.generator), mode, *(f"{name}={value}" for name, value in told.items())]
        load = Load(_popen(command), f"{mode} through {proxy.name}")
        try:
            yield load
        finally:
            load.end()

    def load(self, proxy: Proxy, mode: str, **options: Any) -> Figures:
        """Once more where nothing at all came back: on a machine so busy that is no figure of the proxy."""
        for _ in range(TRIES):
            with self.loading(proxy, mode, **options) as load:
                found = load.until("done")
            if found["count"]:
                return found
        raise RuntimeError(f"{mode} through {proxy.name}: nothing came back in {TRIES} tries")

    def http(self, proxy: Proxy, path: str, sessions: int, seconds: float) -> Figures:
        """By wrk where it is, by our own generator elsewhere."""
        wrk = shutil.which("wrk")
        if not wrk:
            return self.load(proxy, "http", path=path, sessions=sessions, seconds=seconds)
        url = f"http://127.0.0.1:{proxy.port}{path}"
        command = [wrk, "-t1", f"-c{sessions}", f"-d{max(1, round(seconds))}s", "--latency"]
        command += ["-H", f"Host: {proxy.host}"]
        command += ["-H", f"Cookie: {proxy.cookie}"] if proxy.cookie else []
        before = _cpu_ns(proxy.pids()), _cpu_ns([self.echo])
        process = _popen([*command, url])
        text, error = process.communicate(timeout=60)
        used, used_there = _cpu_ns(proxy.pids()) - before[0], _cpu_ns([self.echo]) - before[1]
        if process.returncode or "Non-2xx" in text or "Socket errors" in text:
            raise RuntimeError(f"wrk through {proxy.name}: {error}{text}")
        count, rate = (
            int(_told(text, r"(\d+) requests in")),
            float(_told(text, r"Requests/sec: +(\S+)")),
        )
        found = {"count": count, "per_second": rate, "cpu_us": used / count / 1000}
        found |= {"upstream_us": used_there / count / 1000, "busy": used / 1e9 * rate / count}
        return found | {f"p{p}_ms": _ms(_told(text, rf" {p}% +(\S+)")) for p in (50, 99)}


class Load:
    """A running load generator, and what it tells."""

    def __init__(self, process: subprocess.Popen[str], what: str) -> None:
        self.process, self.what = process, what

    def until(self, event: str) -> Figures:
        for line in cast(Any, self.process.stdout):
            told = json.loads(line)
            if told.pop("event") == event:
                return cast(Figures, told)
        raise RuntimeError(f"{self.what}: {cast(Any, self.process.stderr).read().strip()}")

    def open(self, count: int) -> None:
        """In the mode `hold`: sessions until there are that many."""
        pipe = cast(Any, self.process.stdin)
        pipe.write(f"{count}\n")
        pipe.flush()
        self.until("open")

    def end(self) -> None:
        cast(Any, self.process.stdin).close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        cast(Any, self.process.stdout).close()
        cast(Any, self.process.stderr).close()


def pss_kib(pids: Iterable[int]) -> int:
    """Proportional set size of these processes together."""
    total = 0
    for pid in pids:
        with open(f"/proc/{pid}/smaps_rollup") as lines:
            total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total


def _popen(command: list[str]) -> subprocess.Popen[str]:
    dies: Callable[[], None] | None = die_with_parent()

    def prepare() -> None:
        os.sched_setaffinity(0, {CORES[-1]})
        if dies:
            dies()

    pipe = subprocess.PIPE
    return subprocess.Popen(
        command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, preexec_fn=prepare
    )


def _pin(processes: Iterable[psutil.Process], core: int) -> None:
    for thread in (thread for process in processes for thread in process.threads()):
        os.sched_setaffinity(thread.id, {core})


def _cpu_ns(pids: Iterable[int]) -> int:
    """CPU of all their threads so far: Linux's clock of another process (clock_getcpuclockid(3))."""
    return sum(time.clock_gettime_ns((~pid << 3) | 2) for pid in pids)


def _listed(pids: Iterable[int]) -> str:
    return ",".join(str(pid) for pid in pids)


def _told(text: str, pattern: str) -> str:
    found = re.search(pattern, text)
    if not found:
        raise RuntimeError(f"wrk told no {pattern}:\n{text}")
    return found[1]


def _ms(text: str) -> float:
    """wrk's 250.00us, 1.20ms or 1.10s."""
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s|m)", text).groups()  # type: ignore[union-attr]
    return float(number) * {"us": 0.001, "ms": 1, "s": 1000, "m": 60_000}[unit]
