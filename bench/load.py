"""The load generator: these functions run in a process of its own, its sessions stay open between them.

Raw asyncio protocols on uvloop: not much faster than what they load. So CPU is taken from the operating
system's account of the gateway's process, never derived from a rate.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import uvloop

WARM_UP = 0.3  # seconds of load before the account is opened
AT_ONCE = 32  # handshakes under way
DEADLINE = 20.0  # seconds for handshakes, and for what is still to come at the end of a run
_HANDSHAKE = (
    "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
_CLOSE = bytes((0x88, 0x82, 0, 0, 0, 0)) + (1000).to_bytes(2, "big")

Target = dict[str, Any]  # port, host, cookie ("" for straight to the IDE), pid of whose CPU counts
Figures = dict[str, float]


def cpu_seconds(pid: int) -> float:
    """User and system time of the process so far, all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def frame(size: int) -> bytes:
    """A client's binary frame of zeros, masked with the key 0. Its echo is 4 bytes shorter."""
    length, wide = (size, 0) if size < 126 else (126, 2) if size < 2**16 else (127, 8)
    return (
        bytes((0x82, 0x80 | length))
        + (size.to_bytes(wide, "big") if wide else b"")
        + bytes(4 + size)
    )


def head(target: Target, path: str, more: str = "") -> bytes:
    host, cookie = target["host"], target["cookie"]
    person = f"Cookie: {cookie}\r\nOrigin: http://{host}\r\n" if cookie else ""
    return f"GET {path} HTTP/1.1\r\nHost: {host}\r\n{more}{person}\r\n".encode()


class Client(asyncio.Protocol):
    """Asks once and awaits a whole answer; then every answer to `request` has `size` bytes."""

    def __init__(self) -> None:
        self.first, self.settled, self.lost = b"", asyncio.Event(), False
        self.request, self.size, self.left = b"", 0, 0
        self.on, self.sent_at = False, 0.0
        self.seconds: list[float] = []  # of each round trip

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = True
        self.settled.set()

    async def connect(self, port: int, request: bytes, expect: bytes) -> None:
        """Raises ConnectionError unless the answer starts with `expect`."""
        await asyncio.get_running_loop().create_connection(lambda: self, "127.0.0.1", port)
        self.transport.write(request)
        await asyncio.wait_for(self.settled.wait(), DEADLINE)
        if not self.first.startswith(expect):
            raise ConnectionError(f"{request[:60]!r} was answered {self.first[:200]!r}")
        self.use(request, len(self.first))

    def use(self, request: bytes, size: int) -> None:
        self.request, self.size = request, size

    def send(self) -> None:
        self.sent_at, self.left = time.perf_counter(), self.size
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        if self.settled.is_set():
            self.left -= len(data)
            if not self.left and self.on:
                self.seconds.append(time.perf_counter() - self.sent_at)
                self.send()
            return
        self.first += data
        start, end, body = self.first.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: *(\d+)", start, re.I)
        if end and len(body) == (int(length[1]) if length else 0):
            self.settled.set()


SESSIONS: list[Client] = []


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def closed_loop(clients: Sequence[Client], pid: int, seconds: float) -> Figures:
    """Every client sends as soon as it has its answer."""
    for client in clients:
        client.on = True
        client.send()
    await asyncio.sleep(WARM_UP)
    for client in clients:
        client.seconds.clear()
    cpu, own, started = cpu_seconds(pid), time.process_time(), time.perf_counter()
    await asyncio.sleep(seconds)
    elapsed, own = time.perf_counter() - started, time.process_time() - own
    cpu = cpu_seconds(pid) - cpu
    times = sorted(each for client in clients for each in client.seconds)
    for client in clients:
        client.on = False
    await until(lambda: not any(client.left for client in clients))
    figures = {"per_second": len(times) / elapsed, "cpu_us": cpu / len(times) * 1e6}
    figures |= {"busy": cpu / elapsed, "load_busy": own / elapsed}
    p50, p99 = times[len(times) // 2], times[len(times) * 99 // 100]
    return figures | {"p50_ms": p50 * 1e3, "p99_ms": p99 * 1e3}


async def open_sessions(target: Target, count: int) -> Figures:
    cpu, started, left = cpu_seconds(target["pid"]), time.perf_counter(), iter(range(count))

    async def some() -> None:
        for _ in left:
            SESSIONS.append(session := Client())
            await session.connect(target["port"], head(target, "/ws", _HANDSHAKE), b"HTTP/1.1 101 ")

    await asyncio.gather(*(some() for _ in range(AT_ONCE)))
    elapsed, cpu = time.perf_counter() - started, cpu_seconds(target["pid"]) - cpu
    return {"per_second": count / elapsed, "cpu_us": cpu / count * 1e6}


async def echo(target: Target, size: int, seconds: float) -> Figures:
    for session in SESSIONS:
        session.use(frame(size), len(frame(size)) - 4)
    return await closed_loop(SESSIONS, target["pid"], seconds)


async def steady(rate: float, seconds: float) -> Figures:
    """`rate` frames of 64 B a second on every session, evenly spread over the time."""
    started, sent, now = time.perf_counter(), 0, 0.0
    for session in SESSIONS:
        session.use(frame(64), 66)
    while now < seconds:
        while sent < now * rate * len(SESSIONS):
            SESSIONS[sent % len(SESSIONS)].send()
            sent += 1
        await asyncio.sleep(0.01)
        now = time.perf_counter() - started
    return {"per_second": sent / now}


async def close_sessions() -> Figures:
    """Raises ConnectionError if one was lost before."""
    lost = sum(session.lost for session in SESSIONS)
    for session in SESSIONS:
        session.transport.write(_CLOSE)
    await until(lambda: all(session.lost for session in SESSIONS))
    SESSIONS.clear()
    if lost:
        raise ConnectionError(f"{lost} sessions were lost under way")
    return {}


async def http(target: Target, size: int, count: int, seconds: float) -> Figures:
    clients = [Client() for _ in range(count)]
    for client in clients:
        await client.connect(target["port"], head(target, f"/{size}"), b"HTTP/1.1 200 ")
    figures = await closed_loop(clients, target["pid"], seconds)
    for client in clients:
        client.transport.close()
    return figures


def serve(pipe: Connection, core: int) -> None:
    """Run what is asked for, (name, arguments), on this core, until the pipe's other end is gone."""
    os.sched_setaffinity(0, {core})
    loop = uvloop.new_event_loop()
    with suppress(EOFError):
        while True:
            name, arguments = pipe.recv()
            try:
                pipe.send(loop.run_until_complete(globals()[name](**arguments)))
            except Exception as error:
                pipe.send(RuntimeError(f"load generator: {name}: {error!r}"))
