"""What is measured through the gateway and through each peer, in turns: names → proxies → a sample a round."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import redis

from bench.stage import Figures, Proxy, Stage, pss_kib

Samples = dict[str, dict[str, list[Figures]]]

MESSAGES = {"64 B": 64, "1 KiB": 1024, "16 KiB": 16384, "256 KiB": 262144}
BODIES = {"1 KiB": "/1k", "100 KiB": "/100k"}
IDLE = 3000  # sessions
SETTLE = 1.5  # seconds, longer than a flush of the heartbeats
STREAM = "/stream?10000000"  # bytes a second


@dataclass(frozen=True)
class Scale:
    """seconds: of one sample. rounds: over all proxies."""

    rounds: int = 3
    seconds: float = 0.8
    idle: int = IDLE


def steady(scale: Scale) -> Scale:
    """For what happens seldom, as a p99 does: one bad moment of the machine must not decide a median."""
    return replace(scale, rounds=max(scale.rounds, 6 * scale.rounds - 5))


def in_turns(stage: Stage, scale: Scale, cases: dict[str, Callable[[Proxy], Figures]]) -> Samples:
    """Each round asks every proxy about every case, so that what disturbs the machine meets all of them.

    One round before them does not count: interpreters and JIT compilers are then as fast as they get."""
    samples: Samples = {name: defaultdict(list) for name in cases}
    for number in range(1 + scale.rounds):
        for name, ask in cases.items():
            for proxy in stage.proxies:
                found = ask(proxy)
                if number:
                    samples[name][proxy.name].append(found)
    return samples


def relay(stage: Stage, scale: Scale) -> Samples:
    def echo(size: int) -> Callable[[Proxy], Figures]:
        return lambda proxy: stage.load(
            proxy, "echo", sessions=64, size=size, seconds=scale.seconds
        )

    return in_turns(stage, scale, {name: echo(size) for name, size in MESSAGES.items()})


def http(stage: Stage, scale: Scale) -> Samples:
    def get(path: str) -> Callable[[Proxy], Figures]:
        return lambda proxy: stage.http(proxy, path, 32, scale.seconds)

    return in_turns(stage, scale, {name: get(path) for name, path in BODIES.items()})


def setup(stage: Stage, scale: Scale) -> Samples:
    def sessions(proxy: Proxy) -> Figures:
        return stage.load(proxy, "setup", together=32, seconds=scale.seconds)

    return in_turns(stage, scale, {"sessions": sessions})


def latency(stage: Stage, scale: Scale) -> Samples:
    def at_a_fixed_rate(proxy: Proxy) -> Figures:
        load = {"sessions": 500, "rate": 20, "size": 128, "warm": SETTLE}
        return stage.load(proxy, "open", seconds=4 * scale.seconds, **load)

    return in_turns(stage, steady(scale), {"500 × 20 a second": at_a_fixed_rate})


def fair(stage: Stage, scale: Scale) -> Samples:
    load = {"sessions": 50, "rate": 20, "size": 128, "warm": 0.5, "seconds": 2 * scale.seconds}
    return in_turns(
        stage,
        steady(scale),
        {
            "alone": lambda proxy: stage.load(proxy, "open", **load),
            "beside 10 MB/s": lambda proxy: stage.load(proxy, "open", stream=STREAM, **load),
        },
    )


def memory(stage: Stage, scale: Scale) -> Samples:
    """Once, on proxies that have just begun: memory that was used before would hide what sessions take."""

    def idle(proxy: Proxy) -> Figures:
        stage.load(proxy, "echo", sessions=16, size=1024, seconds=0.2)
        kib, beside = [], []
        with stage.loading(proxy, "hold", sessions=scale.idle) as load:
            for count in (1, scale.idle):
                load.open(count)
                time.sleep(SETTLE)
                kib.append(pss_kib(proxy.pids()))
                beside.append(pss_kib(proxy.beside))
        more = scale.idle - 1
        return {"kib": (kib[1] - kib[0]) / more, "beside_kib": (beside[1] - beside[0]) / more}

    return {f"{scale.idle:,} sessions": {proxy.name: [idle(proxy)] for proxy in stage.proxies}}


def redis_commands(stage: Stage, scale: Scale) -> Samples:
    """Of all parts of the gateway, its lifecycle loops among them: at rest, and with sessions that talk."""
    ours, directory = stage.proxies[0], stage.gateway.data / "redis"
    socket, password = directory / "valkey.sock", (directory / "password").read_text().strip()
    seconds = max(10.0, 4 * scale.seconds)  # some loops come once in ten seconds
    state: Any = redis.Redis(unix_socket_path=str(socket), password=password)
    with state:
        state.ping()  # connects, before anybody counts
        at_rest = _commands(state, lambda: time.sleep(seconds))
        load = {"sessions": scale.idle, "rate": 10, "size": 64, "warm": SETTLE, "seconds": seconds}
        with stage.loading(ours, "open", **load) as running:
            running.until("counting")
            done: Figures = {}
            found = _commands(state, lambda: done.update(running.until("done")))
    found |= {"frames_per_second": done["per_second"], "busy": done["busy"]}
    # The loops go by the clock: where they send less beside sessions than at rest, they were starved.
    found["sent_per_session"] = max(found["sent"], at_rest["sent"]) / scale.idle
    return {
        "at rest": {"gateway": [at_rest]},
        f"{scale.idle:,} × 10 a second": {"gateway": [found]},
    }


def _commands(state: Any, meanwhile: Callable[[], object]) -> Figures:
    """A second: sent by the gateway (MONITOR), and executed with what its scripts call (commandstats)."""
    with state.monitor() as monitor:
        before, started = _calls(state), time.perf_counter()
        meanwhile()
        executed, seconds = _calls(state) - before, time.perf_counter() - started
        state.echo("the end")
        kinds = [each["client_type"] for each in iter(lambda: _told(monitor), None)]
    sent = len(kinds) - kinds.count("lua") - 2  # our own INFO, asked twice
    return {"sent": sent / seconds, "executed": (executed - 1) / seconds}


def _calls(state: Any) -> int:
    """Commands executed so far, those that scripts call among them."""
    return sum(of["calls"] for of in state.info("commandstats").values())


def _told(monitor: Any) -> Any:
    """The next command that Redis saw; None when that is our farewell."""
    command = monitor.next_command()
    return None if command["command"] == "ECHO the end" else command


PARTS: dict[str, Callable[[Stage, Scale], Samples]] = {
    "memory": memory,  # first: see there
    "relay": relay,
    "http": http,
    "setup": setup,
    "latency": latency,
    "fair": fair,
    "redis": redis_commands,
}
