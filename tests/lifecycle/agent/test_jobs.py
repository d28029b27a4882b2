"""What works in a workspace although nobody is there: told as timelines, then with real processes."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lifecycle.agent.jobs import Jobs
from lifecycle.agent.kernels import busy_kernel
from lifecycle.agent.processes import Owner, Running, running, script_of, started_at

IDE = 10


def uses(*cpu: float) -> list[Running]:
    """Processes from pid 10 on, the IDE's server first, and the CPU seconds that each has used so far."""
    return [Running(IDE + n, 1.0, f"p{n}", used, 0) for n, used in enumerate(cpu)]


def test_a_process_is_a_job_once_it_was_busy_for_two_looks() -> None:
    jobs = Jobs(IDE, 20)
    assert jobs.look(uses(0, 0), "", 0) == ""
    assert jobs.look(uses(0, 5), "", 5) == "", "a moment of work is none"
    assert jobs.look(uses(0, 10), "", 10) == "p1 (pid 11)"
    assert jobs.look(uses(0, 10), "", 15) == "p1 (pid 11)", "it waits for its disk"
    assert jobs.look(uses(0, 15), "", 20) == "p1 (pid 11)"
    assert jobs.look(uses(0, 15), "", 24.9) == "p1 (pid 11)"
    assert jobs.look(uses(0, 15), "", 25) == "", "15 s after it last counted as work"


def test_many_small_ones_count_together_and_the_ides_server_never() -> None:
    jobs = Jobs(IDE, 20)
    for n in range(10):
        assert jobs.look(uses(5.0 * n, 0.1 * n), "", 5.0 * n) == "", "it serves who looks at it"
    jobs = Jobs(IDE, 20)
    found = [jobs.look(uses(0, *[0.5 * n] * 3), "", 5.0 * n) for n in range(4)]
    assert found[:2] == ["", ""]
    assert found[2].startswith("p")


def test_a_pid_that_is_used_again_has_used_nothing_yet() -> None:
    jobs = Jobs(IDE, 20)
    for n in range(5):
        rows = [Running(11, float(n), "sh", 3.0, 0)]  # a new one each time
        assert jobs.look(rows, "", 5.0 * n) == ""


def test_a_busy_kernel_is_a_job_at_once_and_ends_like_one() -> None:
    jobs = Jobs(IDE, 20)
    assert jobs.look([], "python3", 0) == "kernel python3 is busy"
    assert jobs.look([], "", 5) == "kernel python3 is busy"
    assert jobs.look([], "", 15) == ""


def test_real_processes_are_told_apart_and_named(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text("import time\nwhile True: pass\n")
    spin = subprocess.Popen([sys.executable, str(script), "--token=secret"])
    rest = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        owner = Owner("w1", tmp_path, 0, os.getpid(), started_at(os.getpid()))
        first = {each.pid: each for each in running([owner])["w1"]}
        assert {spin.pid, rest.pid} <= first.keys()
        until = time.monotonic() + 10
        while True:
            now = {each.pid: each for each in running([owner])["w1"]}
            if now[spin.pid].cpu_seconds - first[spin.pid].cpu_seconds >= 0.2:
                break
            assert time.monotonic() < until
        assert now[rest.pid].cpu_seconds - first[rest.pid].cpu_seconds < 0.2
        assert script_of(spin.pid) == "train.py"
    finally:
        for process in (spin, rest):
            process.kill()
            process.communicate()


@pytest.mark.parametrize(
    ("answer", "kernel"),
    [
        (b'HTTP/1.1 200 OK\r\n\r\n[{"name":"python3","execution_state":"busy"}]', "python3"),
        (b'HTTP/1.1 200 OK\r\n\r\n[{"name":"python3","execution_state":"idle"}]', ""),
        (b"HTTP/1.1 404 Not Found\r\n\r\n[]", ""),
        (b"HTTP/1.1 200 OK\r\n\r\n{", ""),
        (b'HTTP/1.1 200 OK\r\n\r\n[1, {"execution_state":"busy"}]', "of Jupyter"),
        (b"", ""),
    ],
)
async def test_the_servers_list_of_kernels_is_asked(answer: bytes, kernel: str) -> None:
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(answer)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        said = await busy_kernel("127.0.0.1", port, "/api/kernels", "Authorization: token s")
    assert said == kernel
    assert asked[0].startswith(b"GET /api/kernels HTTP/1.0\r\n")
    assert b"Authorization: token s\r\n" in asked[0]


async def test_a_server_that_is_not_there_says_nothing() -> None:
    assert await busy_kernel("127.0.0.1", 1, "/api/kernels", "") == ""
