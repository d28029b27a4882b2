"""The local pool: agent processes that outlive a gateway, on directories that outlive an agent."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from lifecycle.agent.contract import StartSpec
from lifecycle.agent.processes import started_at
from lifecycle.agents import Agents
from lifecycle.model import Machine, MachineStatus
from lifecycle.pools import Launch, PoolError
from lifecycle.pools.local import LocalPool, uid_base

ONE = Launch("m-1", "the-machines-token", 2)
IDE = f"{shlex.quote(sys.executable)} -m http.server --bind 127.0.0.1 {{port}}"
STUBBORN = (
    "import signal, sys, http.server as s; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    "s.test(s.SimpleHTTPRequestHandler, port=int(sys.argv[1]), bind='127.0.0.1')"
)


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path.resolve() / "data"


@pytest.fixture
async def pool(data_dir: Path) -> AsyncIterator[LocalPool]:
    pool = LocalPool(data_dir, stop_grace=2)
    try:
        yield pool
    finally:
        await pool.close(stop_machines=True)


@pytest.fixture
def up(pool: LocalPool, until: Callable[..., Any]) -> Callable[..., Any]:
    """Wait until the only machine runs; it, as the loops know it."""

    async def reach() -> Machine:
        async def running() -> str:
            (row,) = await pool.describe()
            return row.address if row.state == "running" else ""

        address = await until(running, timeout=15, what="m-1 running")
        return Machine("m-1", "local", MachineStatus.READY, 0, 2, address=address, token=ONE.token)

    return reach


def agent_pid(data_dir: Path) -> int:
    return json.loads((data_dir / "machines" / "m-1" / "agent.json").read_text())["pid"]


def agents_of(data_dir: Path) -> list[int]:
    """Agents that run in this data directory."""
    rows = psutil.process_iter(["cmdline"])
    return [
        row.pid
        for row in rows
        if "lifecycle.agent" in (row.info["cmdline"] or [])
        and str(data_dir / "machines" / "m-1") in row.info["cmdline"]
        and started_at(row.pid)
    ]


async def start_ide(machine: Machine, until, command: str = IDE, epoch: int = 1) -> int:
    """Pid of an IDE of workspace demo that runs on the machine."""
    async with Agents() as agents:
        await agents.start(machine, "demo", StartSpec(epoch, command, "secret"))

        async def running() -> int:
            (row,) = (await agents.status(machine)).workspaces
            assert row.status != "failed", row.error
            return row.pid if row.status == "running" else 0

        return await until(running, timeout=20, what="demo running")


async def test_two_pools_launch_one_agent(pool: LocalPool, data_dir: Path, up, until) -> None:
    other = LocalPool(data_dir)
    await asyncio.gather(pool.launch([ONE]), other.launch([ONE]))
    await up()
    # The one that came second finds the directory taken.
    await until(lambda: len(agents_of(data_dir)) == 1, what="one agent")
    assert agents_of(data_dir) == [agent_pid(data_dir)]
    await other.close(stop_machines=False)


async def test_a_killed_gateway_leaves_its_machines_to_the_next(
    pool: LocalPool, data_dir: Path, up, until
) -> None:
    program = f"""
import asyncio, os, pathlib, sys, time
from lifecycle.pools import Launch
from lifecycle.pools.local import LocalPool
pool = LocalPool(pathlib.Path({str(data_dir)!r}))
asyncio.run(pool.launch([Launch("m-1", {ONE.token!r}, 2)]))
print("launched", flush=True)
time.sleep(600)
"""
    gateway = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE
    )
    assert await gateway.stdout.readline() == b"launched\n"
    machine = await up()
    ide = await start_ide(machine, until)
    pid = agent_pid(data_dir)
    gateway.kill()
    await gateway.wait()

    assert await up() == machine
    assert started_at(ide)
    await pool.launch([ONE])
    await pool.start(ONE)
    assert agents_of(data_dir) == [pid]
    async with Agents() as agents:
        (row,) = (await agents.status(machine)).workspaces
    assert (row.status, row.pid) == ("running", ide)

    # The next gateway can also stop what it did not launch.
    await pool.close(stop_machines=True)
    assert started_at(ide) == 0
    await until(lambda: not started_at(pid), what="the agent gone")


async def test_a_killed_agent_is_a_stopped_machine_that_comes_back(
    pool: LocalPool, data_dir: Path, up, until
) -> None:
    await pool.launch([ONE])
    machine = await up()
    ide = await start_ide(machine, until)
    notes = data_dir / "machines/m-1/workspaces/demo/home/notes.txt"
    notes.write_text("kept")
    os.kill(agent_pid(data_dir), signal.SIGKILL)

    async def stopped() -> bool:
        (row,) = await pool.describe()
        return row.state == "stopped"

    await until(stopped, what="m-1 stopped")
    await until(lambda: not started_at(ide), what="its IDE gone")
    await pool.start(ONE)
    machine = await up()
    async with Agents() as agents:
        report = await agents.status(machine)
    assert report.machine_id == "m-1"
    assert [(row.status, row.error_code) for row in report.workspaces] == [
        ("failed", "machine_restarted")
    ]
    assert notes.read_text() == "kept"


async def test_a_reused_pid_is_not_the_agent(pool: LocalPool, data_dir: Path, up) -> None:
    await pool.launch([ONE])
    await up()
    announced = data_dir / "machines/m-1/agent.json"
    stale = json.loads(announced.read_text())
    await pool.close(stop_machines=True)
    announced.write_text(json.dumps(stale | {"pid": os.getpid()}))
    (row,) = await pool.describe()
    assert row.state == "stopped"
    await pool.terminate("m-1")  # and we are still here


async def test_terminating_ends_what_a_killed_agent_left(
    pool: LocalPool, data_dir: Path, up, until
) -> None:
    await pool.launch([ONE])
    machine = await up()
    command = f"{shlex.quote(sys.executable)} -c {shlex.quote(STUBBORN)} {{port}}"
    ide = await start_ide(machine, until, command)
    os.kill(agent_pid(data_dir), signal.SIGKILL)

    async def stopped() -> bool:
        return (await pool.describe())[0].state == "stopped"

    await until(stopped, what="m-1 stopped")
    assert started_at(ide), "it ignores SIGTERM"
    await pool.terminate("m-1")
    assert started_at(ide) == 0
    assert list((data_dir / "machines").iterdir()) == []


async def test_an_agent_that_hangs_is_killed(
    pool: LocalPool, data_dir: Path, up, until, monkeypatch
) -> None:
    monkeypatch.setattr(sys.modules[LocalPool.__module__], "STOP_MARGIN", 0.1)
    pool._stop_grace = 0.1
    await pool.launch([ONE])
    machine = await up()
    ide = await start_ide(machine, until)
    pid = agent_pid(data_dir)
    os.kill(pid, signal.SIGSTOP)
    await pool.terminate("m-1")
    assert [started_at(pid), started_at(ide)] == [0, 0]
    assert await pool.describe() == []


async def test_the_agent_learns_nothing_of_the_gateway(
    pool: LocalPool, data_dir: Path, up, monkeypatch
) -> None:
    monkeypatch.setenv("IDE_GATEWAY_API_KEY", "the-api-key")
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    await pool.launch([ONE])
    await up()
    agent = psutil.Process(agent_pid(data_dir))
    assert "the-machines-token" not in " ".join(agent.cmdline())
    if os.geteuid() == 0:  # hidden from everybody else, the agent's own user too
        environment = agent.environ()
        assert "IDE_GATEWAY_API_KEY" not in environment
        assert environment["AWS_REGION"] == "eu-west-1"


async def test_only_machine_ids_name_directories(pool: LocalPool, data_dir: Path) -> None:
    for name in ("../m-1", "", "a/b", ".m", "m\n1", "m" * 65):
        with pytest.raises(PoolError, match="cannot name a machine"):
            await pool.launch([Launch(name, "token", 1)])
        with pytest.raises(PoolError, match="cannot name a machine"):
            await pool.terminate(name)
    assert not data_dir.exists()


async def test_a_data_directory_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    pool = LocalPool(tmp_path / "data")
    with pytest.raises(PoolError, match=r"cannot launch machine m-1: .*Not a directory"):
        await pool.launch([ONE])
    assert await pool.describe() == []


def test_machines_have_uids_of_their_own() -> None:
    assert [uid_base("m-1"), uid_base("m-2"), uid_base("m-12")] == [201_000, 202_000, 212_000]
    assert uid_base("m-x") != uid_base("m-y")
    assert all(0 < uid_base(name) < 2**31 for name in ("m-99999999999", "m-x", "0"))


async def test_what_a_machine_was_launched_with_is_found_again(
    pool: LocalPool, data_dir: Path, up
) -> None:
    await pool.launch([ONE])
    await up()
    written = data_dir / "machines" / "m-1" / "machine.json"
    assert written.stat().st_mode & 0o777 == 0o600
    (seen,) = await LocalPool(data_dir).describe()
    assert (seen.token, seen.slots) == (ONE.token, ONE.slots)
    assert ONE.token not in repr(seen)
    written.unlink()
    (seen,) = await pool.describe()
    assert (seen.state, seen.token, seen.slots) == ("running", "", 0)


async def test_a_stopped_machine_keeps_its_disk_and_comes_back(
    pool: LocalPool, data_dir: Path, up, until
) -> None:
    await pool.launch([ONE])
    machine = await up()
    ide, pid = await start_ide(machine, until), agent_pid(data_dir)
    notes = data_dir / "machines/m-1/workspaces/demo/home/notes.txt"
    notes.write_text("kept")
    await pool.stop("m-1")
    assert [started_at(pid), started_at(ide)] == [0, 0], "the agent and its IDE have ended"
    await pool.stop("m-1")
    assert [row.state for row in await pool.describe()] == ["stopped"]
    await pool.start(ONE)
    machine = await up()
    async with Agents() as agents:
        (row,) = (await agents.status(machine)).workspaces
    assert (row.status, row.error_code) == ("stopped", ""), "in order, not by a crash"
    assert notes.read_text() == "kept"


async def test_nobody_else_removes_machines_of_this_host(pool: LocalPool, up) -> None:
    assert await pool.launch([ONE]) == []
    await pool.protect([])
    assert (await up()).id == "m-1"
    assert (pool.traits.joins, pool.traits.keeps_disks, pool.traits.lag) == (False, True, 0)
