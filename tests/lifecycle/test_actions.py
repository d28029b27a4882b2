"""Each step between records, agents and snapshots, and what a step does that comes too late."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis

from lifecycle.actions import Actions, NotNow
from lifecycle.agent.contract import Manifest
from lifecycle.model import Machine, MachineStatus, Workspace, WorkspaceStatus
from lifecycle.pools import Launch
from lifecycle.snapshots import SnapshotError
from lifecycle.stores import Conflict
from tests.lifecycle.fakes import FakeAgents
from tests.lifecycle.world import PLAN, World, token_of

W, M = WorkspaceStatus, MachineStatus


class Scene(World):
    """One ready machine, and the actions on it."""

    def __init__(self, redis: Redis) -> None:
        super().__init__(redis)
        agents = FakeAgents(self.pool)
        self.actions = Actions(self.store, self.fleet, agents, PLAN, self.pool.target.open)

    async def add_machine(self) -> Machine:
        [machine_id] = await self.fleet.intend("fake", 2, 1, bound=9)
        await self.pool.launch([Launch(machine_id, token_of(machine_id), 2)])
        address = self.pool.agents[machine_id].address
        await self.fleet.change(await self.machine(machine_id), M.READY, address=address)
        return await self.machine(machine_id)

    async def runs(self, machine: Machine, user: str = "ada") -> Workspace:
        one = await self.wake(user)
        await self.actions.boot(one, machine, 0)
        await self.actions.running(await self.read(one), "10.0.0.1:9001")
        return await self.read(one)

    async def sleeps(self, machine: Machine, text: str = "hello") -> Workspace:
        """Stopped, with a file on that machine."""
        one = await self.runs(machine)
        self.pool.disks[machine.id].of[one.id]["a.txt"] = text
        await self.actions.stop(await self.store.stop(one.id, "asked"))
        return await self.read(one)


@pytest.fixture
async def scene(redis: Redis) -> AsyncIterator[Scene]:
    scene = Scene(redis)
    yield scene
    await scene.close()


# Boot


async def test_a_boot_takes_a_slot_and_asks_the_agent(scene: Scene) -> None:
    machine = await scene.add_machine()
    one = await scene.wake()
    await scene.actions.boot(one, machine, 0)
    one = await scene.read(one)
    assert (one.status, one.epoch, one.machine_id) == (W.STARTING, 1, machine.id)
    assert len(one.secret) > 20
    assert scene.pool.where(one.id) == [machine.id]


async def test_every_boot_has_a_secret_of_its_own(scene: Scene) -> None:
    machine = await scene.add_machine()
    first = await scene.sleeps(machine)
    await scene.actions.boot(await scene.wake(), machine, 0)
    second = await scene.read(first)
    assert first.secret != second.secret


async def test_a_boot_that_was_overtaken_asks_nobody(scene: Scene) -> None:
    machine = await scene.add_machine()
    one = await scene.wake()
    await scene.store.stop(one.id, "asked")
    await scene.actions.boot(one, machine, 0)
    assert scene.pool.calls == []


async def test_an_unanswered_start_leaves_it_to_the_next_report(scene: Scene) -> None:
    machine = await scene.add_machine()
    scene.pool.agents[machine.id].hung = True
    one = await scene.wake()
    await scene.actions.boot(one, machine, 0)
    assert (await scene.read(one)).status is W.STARTING


async def test_a_slot_that_is_not_free_yet_is_waited_for(scene: Scene) -> None:
    machine = await scene.add_machine()
    agent = scene.pool.agents[machine.id]
    agent.slots = 0
    one = await scene.wake()
    await scene.actions.boot(one, machine, 0)
    one = await scene.read(one)
    assert one.status is W.STARTING
    agent.slots = 1
    await scene.actions.start(one, machine)
    assert scene.pool.where(one.id) == [machine.id]


async def test_a_refused_start_fails_with_the_agents_words(scene: Scene) -> None:
    machine = await scene.add_machine()
    one = await scene.wake()
    scene.pool.disks[machine.id].newest[one.id] = 9
    await scene.actions.boot(one, machine, 0)
    one = await scene.read(one)
    assert (one.status, one.error_code) == (W.FAILED, "stale_epoch")
    assert "9 is known" in one.error


# Stop


async def test_a_stop_ends_with_the_agents_word(scene: Scene) -> None:
    machine = await scene.add_machine()
    one = await scene.store.stop((await scene.runs(machine)).id, "asked")
    await scene.actions.stop(one)
    one = await scene.read(one)
    assert (one.status, one.reason, one.address) == (W.STOPPED, "asked", "")
    assert scene.pool.where(one.id) == []


async def test_without_the_agents_word_it_is_not_stopped(scene: Scene) -> None:
    machine = await scene.add_machine()
    one = await scene.store.stop((await scene.runs(machine)).id, "asked")
    scene.pool.agents[machine.id].hung = True
    with pytest.raises(NotNow, match="m-1 did not stop"):
        await scene.actions.stop(one)
    assert (await scene.read(one)).status is W.STOPPING


async def test_a_late_stop_never_touches_a_newer_boot(scene: Scene) -> None:
    machine = await scene.add_machine()
    old = await scene.store.stop((await scene.runs(machine)).id, "asked")
    await scene.actions.stop(old)
    await scene.actions.boot(await scene.wake(), machine, 0)
    with pytest.raises(NotNow, match="epoch 1 is over"):
        await scene.actions.stop(old)
    assert scene.pool.where(old.id) == [machine.id]


# Snapshots and ends


async def test_a_snapshot_is_written_read_back_and_noted(scene: Scene) -> None:
    one = await scene.sleeps(await scene.add_machine())
    manifest = await scene.actions.snapshot(one)
    assert (await scene.read(one)).snapshot_id == manifest.snapshot_id
    assert scene.pool.target.kept[one.id, manifest.snapshot_id][1] == {"a.txt": "hello"}


async def test_so_many_snapshots_are_kept(scene: Scene) -> None:
    one = await scene.sleeps(await scene.add_machine())
    ids = [(await scene.actions.snapshot(one)).snapshot_id for _ in range(4)]
    assert scene.pool.target.list(one.id) == sorted(set(ids))[-PLAN.snapshots_kept :]


async def test_pruning_never_takes_the_one_the_record_points_at(scene: Scene) -> None:
    """Another leader's snapshots of the same moment lie there too, newer and noted by nobody."""
    one = await scene.sleeps(await scene.add_machine())
    target = scene.pool.target
    first = await scene.actions.snapshot(one)
    for n in range(3):
        target.kept[one.id, f"99999999-{n}"] = target.kept[one.id, first.snapshot_id]
    second = await scene.actions.snapshot(await scene.read(one))
    assert (await scene.read(one)).snapshot_id == second.snapshot_id
    assert second.snapshot_id in target.list(one.id)


async def test_a_manifest_that_differs_from_what_was_written_is_not_believed(scene: Scene) -> None:
    one = await scene.sleeps(await scene.add_machine())
    before = scene.pool.target.write
    scene.pool.target.write = lambda *a: (before(*a), before(a[0], a[1], {}))[0]  # type: ignore[method-assign]
    with pytest.raises(SnapshotError, match="not what was written"):
        await scene.actions.snapshot(one)
    assert (await scene.read(one)).snapshot_id == ""


async def test_a_termination_keeps_the_files_in_a_snapshot_and_then_removes_them(
    scene: Scene,
) -> None:
    one = await scene.sleeps(await scene.add_machine())
    await scene.actions.terminate(await scene.store.terminate(one.id, "deleted"))
    one = await scene.read(one)
    assert (one.status, one.machine_id) == (W.TERMINATED, "")
    assert scene.pool.files(one.id) == []
    assert scene.pool.target.kept[one.id, one.snapshot_id][1] == {"a.txt": "hello"}
    assert [verb for verb, *_ in scene.pool.calls[-2:]] == ["snapshot", "remove"]


async def test_a_snapshot_that_fails_calls_the_termination_off(scene: Scene) -> None:
    one = await scene.sleeps(await scene.add_machine())
    since = one.status_since_ms
    scene.pool.target.failing = SnapshotError("disk_full", "no room left")
    await scene.actions.terminate(await scene.store.terminate(one.id, "retention"))
    one = await scene.read(one)
    assert (one.status, one.status_since_ms) == (W.STOPPED, since)
    assert (one.error_code, one.error) == ("snapshot_disk_full", "no room left")
    assert scene.pool.files(one.id) == [{"a.txt": "hello"}]


async def test_an_agent_that_does_not_answer_leaves_the_termination_waiting(scene: Scene) -> None:
    one = await scene.sleeps(await scene.add_machine())
    one = await scene.store.terminate(one.id, "deleted")
    scene.pool.agents["m-1"].hung = True
    with pytest.raises(NotNow):
        await scene.actions.terminate(one)
    assert (await scene.read(one)).status is W.TERMINATING


async def test_a_termination_that_was_called_off_meanwhile_removes_nothing(scene: Scene) -> None:
    """Two leaders: the other one's snapshot failed and it put the workspace back to stopped; its record
    says that the files are on the machine, so there they must stay."""
    one = await scene.sleeps(await scene.add_machine())
    one = await scene.store.terminate(one.id, "retention")

    async def other_leader(when: str, call: tuple[str, str, str]) -> None:
        if (when, call[0]) == ("after", "snapshot"):
            scene.pool.gate = None
            await scene.store.change(one, W.STOPPED)

    scene.pool.gate = other_leader
    await scene.actions.terminate(one)
    assert (await scene.read(one)).status is W.STOPPED
    assert (await scene.read(one)).machine_id == "m-1"
    assert scene.pool.files(one.id) == [{"a.txt": "hello"}]


async def test_what_never_ran_is_terminated_without_a_snapshot(scene: Scene) -> None:
    one, _ = await scene.store.ensure("ada")
    await scene.actions.terminate(await scene.store.terminate(one.id, "deleted"))
    assert (await scene.read(one)).status is W.TERMINATED
    assert scene.pool.calls == []


async def test_a_boot_that_never_reached_its_machine_left_nothing_to_snapshot(scene: Scene) -> None:
    """Its record says that its files are there. It must not stay for ever, undeletable, for a snapshot
    that cannot be written."""
    machine = await scene.add_machine()
    scene.pool.agents[machine.id].hung = True
    one = await scene.wake()
    await scene.actions.boot(one, machine, 0)
    scene.pool.agents[machine.id].hung = False
    await scene.actions.stop(await scene.store.stop(one.id, "asked"))
    await scene.actions.terminate(await scene.store.terminate(one.id, "deleted"))
    assert (await scene.read(one)).status is W.TERMINATED


async def test_a_snapshot_that_vanished_is_not_the_same_as_nothing_to_keep(scene: Scene) -> None:
    one = await scene.sleeps(await scene.add_machine())
    write = scene.pool.target.write

    def lost(*args: Any) -> Manifest:
        manifest = write(*args)
        scene.pool.target.kept.clear()
        return manifest

    scene.pool.target.write = lost  # type: ignore[method-assign]
    await scene.actions.terminate(await scene.store.terminate(one.id, "deleted"))
    one = await scene.read(one)
    assert (one.status, one.error_code) == (W.STOPPED, "snapshot_not_found")
    assert scene.pool.files(one.id) == [{"a.txt": "hello"}]


async def test_what_was_terminated_comes_back_from_its_snapshot(scene: Scene) -> None:
    one = await scene.sleeps(await scene.add_machine())
    await scene.actions.terminate(await scene.store.terminate(one.id, "deleted"))
    other = await scene.add_machine()
    await scene.actions.boot(await scene.wake(), other, 0)
    one = await scene.read(one)
    assert one.restore == one.snapshot_id != ""
    assert scene.pool.disks[other.id].of[one.id] == {"a.txt": "hello"}
    await scene.actions.running(one, "x:1")
    assert (await scene.read(one)).restore == "", "from now on the machine has the newer files"


async def test_a_restore_that_was_cut_short_is_done_again_at_home_too(scene: Scene) -> None:
    one = await scene.sleeps(await scene.add_machine())
    await scene.actions.terminate(await scene.store.terminate(one.id, "deleted"))
    machine = await scene.machine("m-1")
    await scene.actions.boot(await scene.wake(), machine, 0)
    await scene.actions.failed(await scene.read(one), "disk_full", "no room")
    scene.pool.disks["m-1"].of[one.id] = {"half": ""}
    await scene.actions.boot(await scene.wake(), machine, 0)
    assert scene.pool.files(one.id) == [{"a.txt": "hello"}]


async def test_half_restored_files_are_never_snapshotted(scene: Scene) -> None:
    one = await scene.sleeps(await scene.add_machine())
    await scene.actions.terminate(await scene.store.terminate(one.id, "deleted"))
    kept = scene.pool.target.list(one.id)
    await scene.actions.boot(await scene.wake(), await scene.machine("m-1"), 0)
    await scene.actions.failed(await scene.read(one), "disk_full", "no room")
    scene.pool.disks["m-1"].of[one.id] = {"half": ""}
    await scene.actions.terminate(await scene.store.terminate(one.id, "deleted"))
    one = await scene.read(one)
    assert one.status is W.TERMINATED
    assert scene.pool.target.list(one.id) == kept == [one.snapshot_id]


async def test_files_move_by_a_snapshot(scene: Scene) -> None:
    one = await scene.sleeps(await scene.add_machine())
    await scene.actions.detach(one)
    one = await scene.read(one)
    assert (one.status, one.machine_id) == (W.STOPPED, "")
    assert scene.pool.files(one.id) == []
    other = await scene.add_machine()
    await scene.actions.boot(await scene.wake(), other, 0)
    assert scene.pool.disks[other.id].of[one.id] == {"a.txt": "hello"}


async def test_files_that_were_booted_meanwhile_stay(scene: Scene) -> None:
    machine = await scene.add_machine()
    one = await scene.sleeps(machine)

    async def visit(when: str, call: tuple[str, str, str]) -> None:
        if (when, call[0]) == ("after", "snapshot"):
            scene.pool.gate = None
            await scene.actions.boot(await scene.wake(), machine, 0)

    scene.pool.gate = visit
    with pytest.raises(NotNow, match="booted again"):
        await scene.actions.detach(one)
    assert (await scene.read(one)).machine_id == machine.id
    assert scene.pool.files(one.id) == [{"a.txt": "hello"}]


async def test_forgetting_takes_the_snapshots_along(scene: Scene) -> None:
    one = await scene.sleeps(await scene.add_machine())
    with pytest.raises(Conflict):
        await scene.actions.purge(one)
    await scene.actions.terminate(await scene.store.terminate(one.id, "deleted"))
    assert scene.pool.target.list(one.id) != []
    await scene.actions.purge(one)
    assert scene.pool.target.list(one.id) == []
    assert await scene.store.get(one.id) is None


async def test_made_again_under_the_same_name_it_boots_at_once(scene: Scene) -> None:
    """The machine remembers the epochs of the one that was forgotten."""
    machine = await scene.add_machine()
    one = await scene.sleeps(machine)
    await scene.actions.terminate(await scene.store.terminate(one.id, "deleted"))
    await scene.actions.purge(one)
    again = await scene.wake()
    await scene.actions.boot(again, machine, 0)
    assert (await scene.read(again)).status is W.STARTING
    assert scene.pool.disks[machine.id].of[again.id] == {}, "and it is empty"
