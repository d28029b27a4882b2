"""What works in a workspace although nobody is there: told as timelines, then with real processes."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
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


def test_a_pid_that_is_used_again_is_another_process() -> None:
    jobs = Jobs(IDE, 20)
    jobs.look([Running(11, 0.0, "sh", 900.0, 0)], "", 0)
    for n in range(1, 5):
        rows = [Running(11, float(n), "sh", 0.1, 0)]  # a new one each time
        assert jobs.look(rows, "", 5.0 * n) == ""


def build(used: float, *compilers: Running) -> list[Running]:
    """make, whose compilers that have ended used so much."""
    return [Running(20, 1.0, "make", 0.0, 0, parent=IDE, ended_seconds=used), *compilers]


def test_a_build_is_a_job_although_no_compiler_lives_from_one_look_to_the_next() -> None:
    jobs = Jobs(IDE, 20)
    found = [jobs.look(build(4.0 * n), "", 5.0 * n) for n in range(3)]
    assert found == ["", "", "make (pid 20)"]

    jobs = Jobs(IDE, 20)
    for n in range(3):
        one = Running(30 + n, float(n), "cc", 4.0, 0, parent=20)
        jobs.look(build(4.0 * n, one), "", 5.0 * n)
    assert jobs.job == "cc (pid 32)"


def test_what_ended_has_not_worked_all_its_life_since_the_last_look() -> None:
    """A shell waits for something that took ten seconds in an hour, through something in between."""
    jobs = Jobs(IDE, 20)
    shell = Running(20, 1.0, "bash", 0.0, 0, parent=IDE)
    env = Running(21, 2.0, "env", 1.0, 0, parent=20)
    server = Running(22, 3.0, "server", 9.0, 0, parent=21)
    assert jobs.look([shell, env, server], "", 0) == ""
    for n in range(1, 3):
        bash = Running(20, 1.0, "bash", 0.0, 0, parent=IDE, ended_seconds=10.2 + n / 10)
        jobs.look([bash], "", 5.0 * n)
        assert jobs._busy == 0, n


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


def test_what_left_the_tree_is_known_by_its_mark_and_children_that_ended_are_told(
    tmp_path: Path,
) -> None:
    """Without a user of its own: `nohup … &` in a terminal that was closed."""
    burn = "import time; t = time.process_time()\nwhile time.process_time() < t + 0.2: pass"
    mark = {"IDE_GATEWAY_BOOT": "w1/3", "IDE_GATEWAY_HOME": str(tmp_path)}
    shell = '"$0" -c "$1"; echo; read x'
    away = subprocess.Popen(
        ["sh", "-c", shell, sys.executable, burn],
        env=os.environ | mark, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert away.stdout is not None
        away.stdout.readline()
        owner = Owner("w1", tmp_path)  # its IDE is none of that one's ancestors
        for _ in range(2):  # the second time from memory
            (found,) = running([owner, Owner("w2", tmp_path)])["w1"]
            assert (found.pid, found.parent, found.name) == (away.pid, os.getpid(), "sh")
            assert found.ended_seconds >= 0.15
        assert running([Owner("w1", tmp_path / "other")])["w1"] == []
    finally:
        away.communicate(b"\n")


@pytest.mark.parametrize(
    ("words", "script"),
    [
        (["train.py", "--key=abc"], "train.py"),
        (["-u", "/x/a b/train.py"], "train.py"),
        (["-c", "curl -H token=abc x.sh"], ""),
        (["-m", "pytest"], ""),
    ],
)
def test_nothing_but_a_scripts_name_is_told(
    words: list[str], script: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(psutil.Process, "cmdline", lambda self: ["python3", *words])
    assert script_of(os.getpid()) == script


@pytest.mark.parametrize(
    ("answer", "kernel"),
    [
        (b'HTTP/1.1 200 OK\r\n\r\n[{"name":"python3","execution_state":"busy"}]', "python3"),
        (b'HTTP/1.1 200 OK\r\n\r\n[{"name":"python3","execution_state":"idle"}]', ""),
        (b"HTTP/1.1 404 Not Found\r\n\r\n[]", ""),
        (b"HTTP/1.1 200 OK\r\n\r\n{", ""),
        (b'HTTP/1.1 200 OK\r\n\r\n[1, {"execution_state":"busy"}]', "of Jupyter"),
        (b"", ""),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"[" * 200_000, ""),
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
