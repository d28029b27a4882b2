"""Each step between records, agents and snapshots, and what a step does that comes too late."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from redis.asyncio import Redis

from lifecycle.actions import Actions, NotNow
from lifecycle.agent.contract import Manifest
from lifecycle.disks import DiskError, DiskGone, Elsewhere, Volume, VolumeSnapshot
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


# With a volume for each workspace


class FakeDisks:
    """Volumes and their snapshots in this process. failing: raised by every verb named there."""

    def __init__(self) -> None:
        self.there: dict[str, Volume] = {}
        self.kept: dict[str, VolumeSnapshot] = {}
        self.failing: dict[str, DiskError] = {}
        self.made = 0

    def _try(self, verb: str) -> None:
        if verb in self.failing:
            raise self.failing[verb]

    async def ensure(self, workspace: Workspace, zone: str, snapshot: str = "") -> Volume:
        self._try("ensure")
        if workspace.volume:
            if workspace.volume not in self.there:
                raise DiskGone(f"volume {workspace.volume} is gone")
            return self.there[workspace.volume]
        kept = self.kept.get(workspace.snapshot_id)
        for volume in self.there.values():
            if volume.workspace_id == workspace.id and not (kept and kept.volume == volume.id):
                return volume
        self.made += 1
        made = Volume(f"vol-{self.made}", workspace.id, zone, workspace.epoch + 1)
        self.there[made.id] = made
        return made

    async def attach(self, volume: str, instance: str) -> str:
        self._try("attach")
        now = self.there[volume]
        if now.instance not in ("", instance):
            raise Elsewhere(f"{volume} is attached to {now.instance}", now.instance)
        self.there[volume] = replace(now, instance=instance)
        return "/dev/sdf"

    async def detach(self, volume: str, instance: str = "", *, idle: bool = False) -> None:
        self._try("detach")
        now = self.there.get(volume)
        if now is None or (instance and now.instance != instance):
            return
        assert idle or not now.instance, "something may still write to it"
        self.there[volume] = replace(now, instance="")

    async def snapshot(self, workspace: Workspace, key: str) -> VolumeSnapshot:
        self._try("snapshot")
        made = VolumeSnapshot(
            f"ebs:snap-{key}", workspace.id, key, workspace.epoch, workspace.volume, 10, 5, True
        )
        return self.kept.setdefault(made.id, made)

    async def remove(self, thing: str) -> None:
        self._try("remove")
        if thing in self.there:
            assert not self.there[thing].instance
        self.there.pop(thing, None)
        self.kept.pop(thing, None)

    async def volumes(self, workspace_id: str = "") -> list[Volume]:
        return [v for v in self.there.values() if workspace_id in ("", v.workspace_id)]

    async def snapshots(self, workspace_id: str) -> list[VolumeSnapshot]:
        found = [each for each in self.kept.values() if each.workspace_id == workspace_id]
        return sorted(found, key=lambda each: each.key)


class Plugged(Scene):
    def __init__(self, redis: Redis) -> None:
        super().__init__(redis)
        self.disks = FakeDisks()
        self.actions = Actions(
            self.store, self.fleet, FakeAgents(self.pool), PLAN, self.pool.target.open, self.disks
        )

    async def add_machine(self, zone: str = "a") -> Machine:
        machine = await super().add_machine()
        await self.fleet.observe(machine.id, f"i-{machine.id}", zone)
        return await self.machine(machine.id)


@pytest.fixture
async def plugged(redis: Redis) -> AsyncIterator[Plugged]:
    scene = Plugged(redis)
    yield scene
    await scene.close()


async def test_a_boot_makes_and_attaches_its_volume(plugged: Plugged) -> None:
    machine = await plugged.add_machine()
    one = await plugged.runs(machine)
    assert (one.volume, one.zone, one.machine_id) == ("vol-1", "a", machine.id)
    assert plugged.disks.there["vol-1"].instance == machine.instance == f"i-{machine.id}"


async def test_a_stop_lets_go_of_machine_and_volume(plugged: Plugged) -> None:
    one = await plugged.sleeps(await plugged.add_machine())
    assert (one.status, one.machine_id, one.volume) == (W.STOPPED, "", "vol-1")
    assert plugged.disks.there["vol-1"].instance == ""
    assert [verb for verb, *_ in plugged.pool.calls[-2:]] == ["stop", "remove"]


async def test_it_is_not_stopped_before_its_volume_is_free(plugged: Plugged) -> None:
    one = await plugged.store.stop((await plugged.runs(await plugged.add_machine())).id, "asked")
    plugged.disks.failing["detach"] = DiskError("EC2 is away")
    with pytest.raises(NotNow, match="EC2 is away"):
        await plugged.actions.stop(one)
    await plugged.actions.stopped(one, "the machine's report says so")
    assert (await plugged.read(one)).status is W.STOPPING
    plugged.disks.failing.clear()
    await plugged.actions.stop(one)
    assert (await plugged.read(one)).status is W.STOPPED


async def test_a_machine_that_stopped_it_leaves_the_volume_to_the_stop(plugged: Plugged) -> None:
    one = await plugged.runs(await plugged.add_machine())
    await plugged.actions.stopped(one, "machine stopped")
    one = await plugged.read(one)
    assert (one.status, one.reason) == (W.STOPPING, "machine stopped")


async def test_another_machine_of_its_zone_takes_it_along(plugged: Plugged) -> None:
    await plugged.sleeps(await plugged.add_machine())
    other = await plugged.add_machine()
    await plugged.actions.boot(await plugged.wake(), other, 0)
    assert plugged.disks.there["vol-1"].instance == other.instance
    assert plugged.disks.made == 1


async def test_in_another_zone_it_does_not_boot(plugged: Plugged) -> None:
    await plugged.sleeps(await plugged.add_machine())
    await plugged.actions.boot(await plugged.wake(), await plugged.add_machine("b"), 0)
    (one,) = await plugged.store.list()
    assert (one.status, one.zone) == (W.QUEUED, "a")


async def test_a_volume_that_a_dead_leader_left_attached_is_fetched(plugged: Plugged) -> None:
    """It runs there, too, as far as anybody knows: it is ended there first."""
    old, new = await plugged.add_machine(), await plugged.add_machine()
    one = await plugged.sleeps(old)
    plugged.disks.there["vol-1"] = replace(plugged.disks.there["vol-1"], instance=old.instance)
    await plugged.actions.boot(await plugged.wake(), new, 0)
    assert plugged.disks.there["vol-1"].instance == new.instance
    assert ("stop", old.id, one.id) == plugged.pool.calls[-2]


async def test_a_volume_cannot_be_attached_just_now(plugged: Plugged) -> None:
    machine = await plugged.add_machine()
    plugged.disks.failing["attach"] = DiskError("throttled")
    with pytest.raises(NotNow, match="throttled"):
        await plugged.actions.boot(await plugged.wake(), machine, 0)
    (one,) = await plugged.store.list()
    assert (one.status, plugged.pool.calls) == (W.STARTING, [])
    plugged.disks.failing.clear()
    await plugged.actions.start(one, machine)
    assert plugged.pool.where(one.id) == [machine.id]


async def test_the_end_of_a_volume_is_a_snapshot(plugged: Plugged) -> None:
    one = await plugged.sleeps(await plugged.add_machine())
    await plugged.actions.terminate(await plugged.store.terminate(one.id, "retention"))
    one = await plugged.read(one)
    assert (one.status, one.volume, one.zone) == (W.TERMINATED, "", "")
    assert plugged.disks.there == {}
    assert list(plugged.disks.kept) == [one.snapshot_id]
    await plugged.actions.boot(await plugged.wake(), await plugged.add_machine("b"), 0)
    one = await plugged.read(one)
    assert (one.volume, one.zone, one.restore) == ("vol-2", "b", ""), "in any zone, by EBS itself"


async def test_without_its_snapshot_no_volume_is_deleted(plugged: Plugged) -> None:
    one = await plugged.sleeps(await plugged.add_machine())
    plugged.disks.failing["snapshot"] = DiskError("EC2 is away")
    await plugged.actions.terminate(await plugged.store.terminate(one.id, "retention"))
    one = await plugged.read(one)
    assert (one.status, one.error_code, one.volume) == (W.STOPPED, "snapshot_unreachable", "vol-1")
    assert "vol-1" in plugged.disks.there


async def test_what_was_left_of_a_termination_is_swept(plugged: Plugged) -> None:
    one = await plugged.sleeps(await plugged.add_machine())
    plugged.disks.failing["remove"] = DiskError("EC2 is away")
    await plugged.actions.terminate(await plugged.store.terminate(one.id, "retention"))
    assert "vol-1" in plugged.disks.there
    plugged.disks.failing.clear()
    plugged.disks.there["vol-9"] = Volume("vol-9", "ws-unknown", "a")
    await plugged.actions.sweep_volumes()
    assert list(plugged.disks.there) == ["vol-9"], "unknown is no reason to delete"


async def test_a_sweep_leaves_alone_what_is_in_use(plugged: Plugged) -> None:
    one = await plugged.sleeps(await plugged.add_machine())
    await plugged.actions.snapshot(one)
    await plugged.actions.sweep_volumes()
    assert "vol-1" in plugged.disks.there


async def test_a_volume_that_is_gone_is_told_and_not_asked_for_again(plugged: Plugged) -> None:
    machine = await plugged.add_machine()
    one = await plugged.sleeps(machine)
    plugged.disks.there.clear()
    await plugged.actions.boot(await plugged.wake(), machine, 0)
    one = await plugged.read(one)
    assert (one.status, one.error_code, one.volume) == (W.FAILED, "volume_gone", "")
    assert "there is no snapshot" in one.error
    await plugged.actions.boot(await plugged.wake(), machine, 0)
    assert (await plugged.read(one)).status is W.STARTING


async def test_forgetting_takes_volumes_and_their_snapshots_along(plugged: Plugged) -> None:
    one = await plugged.sleeps(await plugged.add_machine())
    await plugged.actions.terminate(await plugged.store.terminate(one.id, "deleted"))
    await plugged.actions.purge(one)
    assert (plugged.disks.there, plugged.disks.kept) == ({}, {})


async def test_without_disks_a_volume_is_not_taken_for_nothing(plugged: Plugged) -> None:
    machine = await plugged.add_machine()
    one = await plugged.sleeps(machine)
    plain = Actions(
        plugged.store, plugged.fleet, FakeAgents(plugged.pool), PLAN, plugged.pool.target.open
    )
    await plain.boot(await plugged.wake(), machine, 0)
    one = await plugged.read(one)
    assert (one.status, one.error_code) == (W.FAILED, "volume_unknown")


@pytest.mark.parametrize("at", range(7))
@pytest.mark.parametrize("after", [False, True])
async def test_a_leader_dies_at_any_call_of_a_volumes_day(
    plugged: Plugged, monkeypatch: pytest.MonkeyPatch, at: int, after: bool
) -> None:
    """Boot, stop, terminate: cut off before or after the call number `at`, and done again by the next."""
    machine, calls = await plugged.add_machine(), 0

    def mortal(verb: str) -> None:
        do = getattr(plugged.disks, verb)

        async def call(*args: Any, **how: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls - 1 == at and not after:
                raise ConnectionAbortedError
            answer = await do(*args, **how)
            if calls - 1 == at:
                raise ConnectionAbortedError
            return answer

        monkeypatch.setattr(plugged.disks, verb, call)

    for verb in ("ensure", "attach", "detach", "snapshot", "remove"):
        mortal(verb)

    async def step() -> Workspace:
        (one,) = await plugged.store.list()
        if one.status is W.QUEUED:
            await plugged.actions.boot(one, machine, 0)
        elif one.status is W.STARTING:
            await plugged.actions.start(one, machine)
            await plugged.actions.running(one, "10.0.0.1:9001")
        elif one.status is W.STOPPING:
            await plugged.actions.stop(one)
        elif one.status is W.TERMINATING:
            await plugged.actions.terminate(one)
        return one

    async def until(status: WorkspaceStatus) -> Workspace:
        for _ in range(6):
            try:
                await step()
            except ConnectionAbortedError:
                continue
            (one,) = await plugged.store.list()
            if one.status is status:
                return one
        raise AssertionError(f"{status} was never reached")

    one = await plugged.wake()
    await until(W.RUNNING)
    assert len(plugged.disks.there) == 1
    await plugged.store.stop(one.id, "asked")
    await until(W.STOPPED)
    await plugged.store.terminate(one.id, "deleted")
    one = await until(W.TERMINATED)
    await plugged.actions.sweep_volumes()
    assert plugged.disks.there == {}
    assert list(plugged.disks.kept) == [one.snapshot_id]
    assert calls > at, "nobody died"
