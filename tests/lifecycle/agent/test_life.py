"""One workspace from its first start to its removal, epochs, slots, and calls that cross."""

from __future__ import annotations

import asyncio
import time

import pytest

from lifecycle.agent.contract import SnapshotSpec
from lifecycle.agent.processes import started_at
from lifecycle.agents import AgentRefused


async def test_a_whole_life(agent) -> None:
    first = await agent.start("demo", 1)
    assert (first.status, first.epoch, first.error) == ("running", 1, "")
    assert await agent.ask("demo", "write", name="notes.txt", text="kept")

    stopped = await agent.stop("demo", 1)
    assert (stopped.status, stopped.port, stopped.pid) == ("stopped", 0, 0)
    assert started_at(first.pid) == 0
    assert agent.marked() == []

    second = await agent.start("demo", 2)
    assert second.pid != first.pid
    assert await agent.ask("demo", "read", path=str(agent.home() / "notes.txt")) == "kept"

    await agent.agents.remove(agent.machine, "demo", 2)
    assert await agent.row() is None
    assert agent.marked() == []
    assert not agent.home().exists()
    assert list((agent.directory / "trash").iterdir()) == []


async def test_the_same_epoch_twice_is_one_process(agent, make_spec) -> None:
    calls = [agent.agents.start(agent.machine, "demo", make_spec(1)) for _ in range(5)]
    for report in await asyncio.gather(*calls):
        assert (report.epoch, report.status) == (1, "starting")
    running = await agent.settled()
    again = await agent.agents.start(agent.machine, "demo", make_spec(1))
    assert (again.status, again.pid) == ("running", running.pid)
    assert agent.marked() == [running.pid]


async def test_an_epoch_that_is_stopped_does_not_start_again(agent, make_spec) -> None:
    await agent.start("demo", 1)
    await agent.stop("demo", 1)
    late = await agent.agents.start(agent.machine, "demo", make_spec(1))
    assert late.status == "stopped"
    assert agent.marked() == []


async def test_older_epochs_are_refused_and_change_nothing(agent, make_spec) -> None:
    running = await agent.start("demo", 5)
    old = SnapshotSpec(4, str(agent.directory / "snapshots"), "s1")
    for call in (
        agent.agents.start(agent.machine, "demo", make_spec(4)),
        agent.agents.stop(agent.machine, "demo", 4),
        agent.agents.snapshot(agent.machine, "demo", old),
        agent.agents.remove(agent.machine, "demo", 4),
    ):
        with pytest.raises(AgentRefused) as refused:
            await call
        assert refused.value.code == "stale_epoch"
    assert (await agent.row()).pid == running.pid
    assert agent.marked() == [running.pid]


async def test_a_newer_epoch_replaces_what_runs(agent) -> None:
    old = await agent.start("demo", 1)
    new = await agent.start("demo", 2)
    assert new.status == "running"
    assert started_at(old.pid) == 0
    assert agent.marked() == [new.pid]


async def test_a_start_that_comes_while_the_stop_is_under_way(agent, make_spec) -> None:
    old = await agent.start("demo", 1)
    await agent.ask("demo", "stubborn")
    stopping = asyncio.create_task(agent.stop("demo", 1, grace=1))
    await agent.reaches("demo", "stopping")
    await agent.agents.start(agent.machine, "demo", make_spec(2))
    await stopping
    new = await agent.settled()
    assert (new.status, new.epoch) == ("running", 2)
    assert started_at(old.pid) == 0
    assert agent.marked() == [new.pid]


async def test_a_stop_while_it_starts(agent, make_spec, runs) -> None:
    never = make_spec(1, command=runs("import time; time.sleep(600)"))
    await agent.agents.start(agent.machine, "demo", never)
    await agent.until(agent.marked, what="a process")
    report = await agent.stop("demo", 1)
    assert report.status == "stopped"
    assert agent.marked() == []


async def test_stopping_what_is_stopped_or_unknown_is_success(agent, make_spec) -> None:
    assert (await agent.stop("ghost", 3)).status == "stopped"
    with pytest.raises(AgentRefused) as refused:  # the start that was on its way came too late
        await agent.agents.start(agent.machine, "ghost", make_spec(3))
    assert refused.value.code == "stale_epoch"
    assert (await agent.start("ghost", 4)).status == "running"
    for _ in range(2):
        assert (await agent.stop("ghost", 4)).status == "stopped"


async def test_a_removed_workspace_keeps_its_epoch_over_a_restart(agent, make_spec) -> None:
    await agent.start("demo", 3)
    for _ in range(2):  # the second time it is gone already
        await agent.agents.remove(agent.machine, "demo", 3)
    assert agent.terminate() == 0
    await agent.launch()
    with pytest.raises(AgentRefused) as refused:
        await agent.agents.start(agent.machine, "demo", make_spec(3))
    assert refused.value.code == "stale_epoch"
    assert (await agent.start("demo", 4)).status == "running"


async def test_no_more_workspaces_than_slots(agent, make_spec) -> None:
    await agent.start("one", 1)
    await agent.start("two", 1)
    with pytest.raises(AgentRefused, match="all 2 slots of machine m-1") as refused:
        await agent.agents.start(agent.machine, "three", make_spec(1))
    assert refused.value.code == "no_slot"
    assert await agent.row("three") is None
    assert (await agent.start("one", 2)).status == "running"  # it has a slot already
    await agent.stop("two", 1)
    assert (await agent.start("three", 1)).status == "running"


async def test_the_status_call_wakes_with_the_change(agent, make_spec) -> None:
    known = await agent.agents.status(agent.machine)
    waiting = asyncio.create_task(agent.agents.status(agent.machine, known.version, wait=30))
    began = time.monotonic()
    await agent.agents.start(agent.machine, "demo", make_spec(1))
    woken = await waiting
    assert time.monotonic() - began < 10
    assert woken.version > known.version
    assert [row.workspace_id for row in woken.workspaces] == ["demo"]


async def test_the_status_call_answers_at_the_latest_after_the_wait(agent) -> None:
    known = await agent.agents.status(agent.machine)
    later = await agent.agents.status(agent.machine, known.version, wait=0.1)
    assert (later.version, later.boot_id) == (known.version, known.boot_id)


async def test_the_report_measures(agent) -> None:
    await agent.start("demo", 1)

    async def memory() -> int:
        return (await agent.row()).memory_bytes

    assert await agent.until(memory, what="a measurement") > 2**20
    report = await agent.agents.status(agent.machine)
    assert 0 < report.memory_bytes < report.memory_total_bytes
    assert report.disk_free_bytes > 0


async def test_ports_and_log(agent, secret) -> None:
    running = await agent.start("demo", 1)
    extra = await agent.ask("demo", "listen")
    assert await agent.agents.ports(agent.machine, "demo") == sorted([running.port, extra])
    log = await agent.agents.log(agent.machine, "demo")
    assert "serving" in log
    assert secret not in log
    await agent.stop("demo", 1)
    assert await agent.agents.ports(agent.machine, "demo") == []
    for call in (agent.agents.ports, agent.agents.log):
        with pytest.raises(AgentRefused, match="ghost is not on machine m-1"):
            await call(agent.machine, "ghost")


async def test_removals_wait_for_the_grace_and_a_start_overtakes_them(agent, make_spec) -> None:
    """At once, each on a workspace of its own: the grace of a removal takes its ten seconds."""
    await asyncio.gather(_two_removals_and_a_start(agent), _a_start_overtakes(agent, make_spec))


async def _two_removals_and_a_start(agent) -> None:
    await agent.start("demo", 1)
    await agent.ask("demo", "stubborn")
    removals = [
        asyncio.create_task(agent.agents.remove(agent.machine, "demo", 1)) for _ in range(2)
    ]
    await asyncio.gather(*removals)
    assert not agent.home().exists()
    assert (await agent.start("demo", 2)).status == "running"
    assert agent.home().is_dir()


async def _a_start_overtakes(agent, make_spec) -> None:
    await agent.start("more", 1)
    await agent.ask("more", "write", name="notes.txt", text="kept")
    await agent.ask("more", "stubborn")
    removal = asyncio.create_task(agent.agents.remove(agent.machine, "more", 1))
    await agent.reaches("more", "stopping")
    await agent.agents.start(agent.machine, "more", make_spec(2))
    with pytest.raises(AgentRefused) as refused:
        await removal
    assert refused.value.code == "stale_epoch"
    assert (await agent.settled("more")).status == "running"
    assert await agent.ask("more", "read", path=str(agent.home("more") / "notes.txt")) == "kept"
