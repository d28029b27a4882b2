"""Which machines are told to keep IDEs warm, and what the records take from a boot that was given one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from lifecycle import watching
from lifecycle.agent.contract import WarmSpec
from lifecycle.agents import AgentRefused
from lifecycle.model import WorkspaceStatus
from tests.lifecycle import world as worlds
from tests.lifecycle.world import PLAN, Leader, World

W = WorkspaceStatus


@pytest.fixture
async def world(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(watching, "UNREACHABLE_RETRY", 0.02)
    monkeypatch.setattr(watching, "STATUS_WAIT", 0.1)
    monkeypatch.setattr(worlds, "PLAN", replace(PLAN, warm=2, reads=(".config",)))
    world = World(redis)
    yield world
    await world.close()


async def told(world: World, leader: Leader, machine_id: str, spec: WarmSpec) -> None:
    async def so() -> bool:
        return world.pool.agents[machine_id].warm_spec == spec

    await world.until(leader, so)


async def test_a_machine_is_told_once_and_an_agent_that_restarted_once_more(world: World) -> None:
    leader = world.leader()
    one = await world.gets(leader, await world.wake(), W.RUNNING)
    spec = WarmSpec(
        2, PLAN.command, PLAN.ready_path, PLAN.boot_timeout, PLAN.upstream_header, (".config",)
    )
    await told(world, leader, "m-1", spec)
    await world.rounds(leader)
    assert world.pool.calls.count(("warm", "m-1", "")) <= 2, "the second crossed with its report"
    calls = len(world.pool.calls)
    await world.rounds(leader)
    assert len(world.pool.calls) == calls

    world.pool.agents[one.machine_id].warm_spec = WarmSpec()
    await told(world, leader, "m-1", spec)


async def test_an_agent_that_refuses_is_named_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: object) -> None:
        raise AgentRefused("not_found", "there is no /warm")

    monkeypatch.setattr(world.pool, "warm", refuse)
    leader = world.leader()
    with capture_logs() as logs:
        await world.gets(leader, await world.wake(), W.RUNNING)
        await world.gets(leader, await world.wake("bob"), W.RUNNING)

        async def told_again() -> bool:
            return any(
                row["log_level"] == "debug" for row in logs if row["event"] == "machine.not_warm"
            )

        await world.until(leader, told_again)
    said = [row for row in logs if row["event"] == "machine.not_warm"]
    assert [row["log_level"] for row in said].count("warning") == 1
    assert said[0]["machine"] == "m-1"


async def test_one_that_drains_is_told_to_keep_none(world: World) -> None:
    leader = world.leader()
    one = await world.gets(leader, await world.wake(), W.RUNNING)
    world.pool.agents[one.machine_id].boots_by_themselves = False

    async def keeps() -> bool:
        return world.pool.agents["m-1"].warm_spec.count == 2

    await world.until(leader, keeps)
    await world.fleet.hold("m-1", True)
    await told(world, leader, "m-1", WarmSpec())


async def test_the_record_takes_the_secret_of_the_ide_that_was_given(world: World) -> None:
    leader = world.leader()
    world.pool.on_boot = lambda agent: setattr(agent, "boots_by_themselves", False)
    one = await world.gets(leader, await world.wake(), W.STARTING)
    made_up = one.secret

    async def asked() -> bool:
        return one.id in world.pool.agents["m-1"].rows

    await world.until(leader, asked)
    agent = world.pool.agents["m-1"]
    agent.change(replace(agent.rows[one.id], secret="of the warm one", warm=True))
    agent.ready(one.id)
    one = await world.gets(leader, one, W.RUNNING)
    assert (one.secret, made_up not in ("", one.secret)) == ("of the warm one", True)
    events = await world.signals.history("0-0", 1000)
    (running,) = [event for event in events if event.type == "workspace.running"]
    assert running.data["warm"] == "1"
    assert "of the warm one" not in str([event.data for event in events])

    # Another leader, and one that had a lost answer repeated, find the same.
    other = world.leader()
    await world.rounds(other)
    assert (await world.read(one)).secret == "of the warm one"
