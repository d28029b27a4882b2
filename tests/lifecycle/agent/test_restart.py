"""The agent ends, in order or not, and comes back to the same directory."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest

from lifecycle.agent.processes import started_at
from lifecycle.agents import AgentRefused


async def test_a_killed_agent_takes_its_ides_along_and_remembers(each_agent, make_spec) -> None:
    agent = each_agent
    running = await agent.start("demo", 4)
    await agent.ask("demo", "write", name="notes.txt", text="kept")
    job = await agent.ask("demo", "spawn", detached="yes")
    agent.kill()
    await agent.until(lambda: not started_at(running.pid), what="the IDE gone")
    assert started_at(job)

    await agent.launch()
    report = await agent.agents.status(agent.machine, since=10**15)  # from its last boot
    (row,) = report.workspaces
    assert (row.epoch, row.status, row.error_code) == (4, "failed", "machine_restarted")
    assert "machine m-1 restarted" in row.error
    assert started_at(job) == 0
    assert agent.marked() == []
    with pytest.raises(AgentRefused):
        await agent.agents.start(agent.machine, "demo", make_spec(3))
    assert (await agent.agents.start(agent.machine, "demo", make_spec(4))).status == "failed"

    assert (await agent.start("demo", 5)).status == "running"
    assert await agent.ask("demo", "read", path=str(agent.home() / "notes.txt")) == "kept"


async def test_versions_grow_over_restarts(agent) -> None:
    before = await agent.agents.status(agent.machine)
    agent.kill()
    await agent.launch()
    after = await agent.agents.status(agent.machine, since=before.version, wait=30)
    assert after.version > before.version
    assert after.boot_id != before.boot_id


@pytest.mark.parametrize("by", ["signal", "call"])
async def test_an_orderly_end_stops_everything(each_agent, by: str) -> None:
    agent = each_agent
    running = await agent.start("demo", 1)
    job = await agent.ask("demo", "spawn", detached="yes")
    if by == "call":
        await agent.agents.shutdown(agent.machine)
        assert agent.process.wait(20) == 0
    else:
        assert agent.terminate() == 0
    assert [started_at(running.pid), started_at(job)] == [0, 0]
    assert not (agent.directory / "agent.json").exists()

    await agent.launch()
    row = await agent.row()
    assert (row.status, row.epoch, row.error) == ("stopped", 1, "")


async def test_open_status_calls_do_not_hold_up_the_end(agent) -> None:
    known = await agent.agents.status(agent.machine)
    waiting = asyncio.create_task(agent.agents.status(agent.machine, known.version, wait=60))
    await agent.agents.shutdown(agent.machine)
    assert (await waiting).version > known.version
    assert agent.process.wait(10) == 0


async def run_agent(directory: Path, *options: str, token: str = "other") -> tuple[int, str]:
    """Exit code and stderr of an agent that is expected to refuse."""
    argv = [sys.executable, "-m", "lifecycle.agent", "--machine", "m-9", "--slots", "1"]
    process = await asyncio.create_subprocess_exec(
        *[*argv, "--dir", str(directory), *options],
        env=os.environ | {"IDE_GATEWAY_AGENT_TOKEN": token},
        stderr=asyncio.subprocess.PIPE,
    )
    said = (await process.communicate())[1].decode()
    return process.returncode, said


async def test_one_directory_one_agent(agent) -> None:
    message = f"error: another agent runs in {agent.directory}\n"
    assert await run_agent(agent.directory) == (75, message)
    assert (await agent.agents.status(agent.machine)).machine_id == "m-1"


async def test_no_token_no_agent(tmp_path: Path) -> None:
    code, said = await run_agent(tmp_path / "machine", token="")
    assert code == 78
    assert "IDE_GATEWAY_AGENT_TOKEN is not set" in said


async def test_a_taken_port(agent) -> None:
    port = agent.machine.address.rpartition(":")[2]
    code, said = await run_agent(agent.directory.with_name("m-2"), "--port", port)
    assert code == 69
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in said


async def test_an_agent_whose_directory_is_removed_ends(agent) -> None:
    (agent.directory / "agent.lock").unlink()
    assert agent.process.wait(15) == 0


async def test_a_broken_state_file_is_a_failed_workspace(agent) -> None:
    await agent.start("demo", 1)
    await agent.stop("demo", 1)
    assert agent.terminate() == 0
    state = agent.directory / "workspaces" / "demo" / "state.json"
    assert json.loads(state.read_text())["epoch"] == 1
    state.write_text("{")
    await agent.launch()
    row = await agent.row()
    assert (row.status, row.error_code) == ("failed", "state_unreadable")
    assert "its files are kept" in row.error
    assert (await agent.start("demo", 2)).status == "running"


async def test_whose_it_is_is_told_again(each_agent, secret) -> None:
    agent = each_agent
    whose = {"user_id": "ada", "name": "My work", "plan": "gpu", "priority": "vip", "region": "eu"}
    row = await agent.start("demo", 4, **whose)
    assert {name: getattr(row, name) for name in whose} == whose
    assert (row.secret, row.restore) == (secret, "")
    assert secret not in repr(row)
    state = agent.home().parent / "state.json"
    assert state.stat().st_mode & 0o777 == 0o600, "it holds the secret"
    agent.kill()
    await agent.launch()
    row = await agent.row()
    assert {name: getattr(row, name) for name in whose} == whose
    assert (row.epoch, row.status, row.secret) == (4, "failed", secret)
