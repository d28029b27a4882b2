"""Workspaces on volumes of EBS through the live loops: volumes are moto's, machines fakes that stand for its
instances in their zones. A volume's life is booted, stopped, booted elsewhere in its zone, terminated into a
snapshot and restored in another zone; leaders die at every call of it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from contextvars import ContextVar
from dataclasses import replace
from typing import Any

import pytest
from redis.asyncio import Redis

from lifecycle import errands, watching
from lifecycle.actions import Actions
from lifecycle.aws import Clients
from lifecycle.disks import ebs
from lifecycle.disks.ebs import EbsDisks
from lifecycle.evacuation import Evacuation
from lifecycle.loops import Loops
from lifecycle.model import MachineStatus, Workspace, WorkspaceStatus
from lifecycle.news import News
from lifecycle.pools import Launch, NoCapacity, Observed, PoolError, Traits
from lifecycle.stores.connection import Scripts
from tests.conftest import until
from tests.lifecycle.agreement import Agreement
from tests.lifecycle.fakes import FakeAgents, FakePool
from tests.lifecycle.world import PLAN, TIMES, Leader, World, ended, token_of

W, M = WorkspaceStatus, MachineStatus
A, B = "eu-central-1a", "eu-central-1b"
LEADING: ContextVar[str] = ContextVar("LEADING", default="")
QUICK: dict[str, Any] = {"scale_interval": 0.03, "launch_timeout": 30.0, "scale_in_delay": 0.0}


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errands, "FIRST_PAUSE", 0.02)
    monkeypatch.setattr(watching, "UNREACHABLE_RETRY", 0.02)
    monkeypatch.setattr(watching, "STATUS_WAIT", 0.1)
    monkeypatch.setattr(ebs, "FIRST_PAUSE", 0.01)


class ZonedPool(FakePool):
    """Its machines are instances. anywhere: the zone of those that may be in any; asked: launches told."""

    def __init__(self, aws: Any) -> None:
        super().__init__(Traits(keeps_disks=True))
        self.ec2 = aws.client("ec2")
        self.image = self.ec2.register_image(Name="image", RootDeviceName="/dev/sda1")["ImageId"]
        self.anywhere = A
        self.asked: list[Launch] = []
        self.seats: dict[str, tuple[str, str]] = {}
        self._verbs: set[tuple[str, str]] = set()

    async def launch(self, launches: Sequence[Launch]) -> list[str]:
        self.asked += launches
        if self.refuses is None:
            for launch in launches:
                if launch.machine_id not in self.seats:
                    self.seats[launch.machine_id] = self._seat(launch.zone or self.anywhere)
        return await super().launch(launches)

    def _seat(self, zone: str) -> tuple[str, str]:
        made = self.ec2.run_instances(
            ImageId=self.image, MinCount=1, MaxCount=1, Placement={"AvailabilityZone": zone}
        )
        return made["Instances"][0]["InstanceId"], zone

    def _observe(self, machine_id: str) -> Observed:
        instance, zone = self.seats[machine_id]
        return replace(super()._observe(machine_id), instance=instance, zone=zone)

    async def terminate(self, machine_id: str) -> None:
        await super().terminate(machine_id)
        if machine_id in self.seats:
            self.ec2.terminate_instances(InstanceIds=[self.seats.pop(machine_id)[0]])

    def interrupt(self, machine_id: str) -> None:
        """As EC2 ends a dedicated spot machine: it stops, and its disk stays."""
        self.kill(machine_id)
        self.ec2.stop_instances(InstanceIds=[self.seats[machine_id][0]])

    def verbs(self, machine_id: str = "") -> set[str]:
        """What it was asked to do, of machines and workspaces; or of that one."""
        return {verb for verb, of in self._verbs if machine_id in ("", of)}

    async def _pass(self, when: Any, call: tuple[str, str, str]) -> None:
        self._verbs.add(call[:2])
        await super()._pass(when, call)


class Plugged(World):
    def __init__(self, redis: Redis, aws: Any) -> None:
        super().__init__(redis, pool=ZonedPool(aws))
        self.aws, self.ec2 = aws, aws.client("ec2")
        self.zoned: ZonedPool = self.pool  # type: ignore[assignment]
        self._clients: list[Clients] = []

    def leader(self, *, disks: bool = True, **times: Any) -> Leader:
        """Each with clients of its own, as in a process of its own."""
        self._clients.append(Clients())
        made = EbsDisks(self._clients[-1], "blue", 1) if disks else None
        agents, news = FakeAgents(self.pool), News(self.signals)
        actions = Actions(self.store, self.fleet, agents, PLAN, self.pool.target.open, made)
        loops = Loops(
            self.store, self.fleet, self.signals, news, self.pool, agents, actions,
            replace(TIMES, **(QUICK | times)), token_of,
            Evacuation(self.store, self.fleet, self.signals),
        )  # fmt: skip
        self.leaders.append(Leader(loops, news))
        return self.leaders[-1]

    async def close(self) -> None:
        await super().close()
        for clients in self._clients:
            await clients.close()

    def volumes(self) -> dict[str, dict[str, Any]]:
        """Those of the fleet that exist."""
        ours = [{"Name": "tag:ide-gateway:fleet", "Values": ["blue"]}]
        return {v["VolumeId"]: v for v in self.ec2.describe_volumes(Filters=ours)["Volumes"]}

    def attached(self) -> dict[str, list[str]]:
        """Volume → instances."""
        return {
            volume: [each["InstanceId"] for each in row["Attachments"]]
            for volume, row in self.volumes().items()
        }

    async def is_plugged(self, one: Workspace) -> None:
        """It has one volume, and that is where it runs."""
        machine = await self.machine(one.machine_id)
        assert self.attached() == {one.volume: [machine.instance]}
        assert machine.zone == one.zone == self.volumes()[one.volume]["AvailabilityZone"]


@pytest.fixture
async def world(redis: Redis, aws: Any) -> AsyncIterator[Plugged]:
    world = Plugged(redis, aws)
    yield world
    await world.close()


async def asleep(world: Plugged, leader: Leader, user: str = "ada") -> Workspace:
    """A workspace of that user with a volume, stopped."""
    one = await world.wake(user)
    await world.gets(leader, one, W.RUNNING)
    await world.store.stop(one.id, "asked")
    return await world.gets(leader, one, W.STOPPED)


async def day(world: Plugged) -> None:
    """Ada works, goes home, comes back, is away past the retention, and comes back to her files."""

    async def gets(status: W) -> Workspace:
        async def there() -> Workspace | None:
            found = await world.read(one)
            return found if found.status is status else None

        found = await until(there, 30, f"it is {status}")
        assert isinstance(found, Workspace)
        return found

    async def no_machine() -> bool:
        return not await world.fleet.machines()

    one = await world.wake()
    home = await gets(W.RUNNING)
    await world.is_plugged(home)
    await world.store.stop(one.id, "asked")
    stopped = await gets(W.STOPPED)
    assert (stopped.machine_id, stopped.volume) == ("", home.volume)
    assert world.attached() == {home.volume: []}
    await until(no_machine, 30, "nothing keeps its machine")
    world.zoned.anywhere = B
    await world.wake()
    back = await gets(W.RUNNING)
    assert (back.volume, back.zone, back.machine_id != home.machine_id) == (home.volume, A, True)
    await world.is_plugged(back)
    await world.store.terminate(one.id, "retention")
    over = await gets(W.TERMINATED)
    (kept,) = world.ec2.describe_snapshots(SnapshotIds=[over.snapshot_id.removeprefix("ebs:")])["Snapshots"]  # fmt: skip
    assert (kept["VolumeId"], kept["State"]) == (home.volume, "completed")
    assert over.volume == ""
    await until(no_machine, 30, "nothing keeps its machine")
    await world.wake()
    again = await gets(W.RUNNING)
    assert (again.zone, again.volume != home.volume) == (B, True)
    row = world.volumes()[again.volume]
    assert row["SnapshotId"] == over.snapshot_id.removeprefix("ebs:"), "with her files"
    assert max(world.pool.most_running.values()) == 1, "it ran on two machines"


async def flushing(world: Plugged) -> None:
    while True:
        await world.flush()
        await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def leads(world: Plugged, name: str) -> AsyncIterator[None]:
    token = LEADING.set(name)
    async with world.leader(terminate_sweep_interval=0.05).leading():
        LEADING.reset(token)
        yield


@pytest.fixture
async def people(world: Plugged) -> AsyncIterator[asyncio.Task[None]]:
    gateway = asyncio.create_task(flushing(world))
    task = asyncio.create_task(day(world))
    yield task
    await ended(task)
    await ended(gateway)


async def the_end(world: Plugged, people: asyncio.Task[None]) -> None:
    await people
    (one,) = await world.store.list()

    async def swept() -> bool:
        return set(world.volumes()) == {one.volume}

    await until(swept, 30, "no volume is left over")
    await world.is_plugged(one)
    agreement = Agreement(world.redis)
    await agreement.check()
    await agreement.check_story()


class Mortal:
    """Ends the leader called "first" at its step number `at`; odd: before a call that changes something in
    AWS, even: after it. To die after a look is to die before the next call."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.dead = asyncio.Event()
        self.story: list[str] = []

    async def step(self, what: str) -> None:
        if LEADING.get() != "first":
            return
        if not self.dead.is_set():
            self.story.append(what)
            if len(self.story) != self.at:
                return
            self.dead.set()
        await asyncio.Event().wait()  # until the test buries it

    def watch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        run, call = Scripts.run, EbsDisks._call

        async def dead_or(self_: Scripts, script: str, *args: Any) -> Any:
            if LEADING.get() == "first" and self.dead.is_set():
                await asyncio.Event().wait()
            return await run(self_, script, *args)

        async def stepped(self_: EbsDisks, doing: str, verb: str, **asked: Any) -> Any:
            await self.step(f"before {verb}")
            answer = await call(self_, doing, verb, **asked)
            await self.step(f"after {verb}")
            return answer

        monkeypatch.setattr(Scripts, "run", dead_or)
        monkeypatch.setattr(EbsDisks, "_call", stepped)


CALLS = (
    "create_volume", "attach_volume", "detach_volume", "attach_volume", "detach_volume",
    "create_snapshot", "delete_volume", "create_volume", "attach_volume",
)  # fmt: skip


async def test_the_day_of_a_volume(
    world: Plugged, people: asyncio.Task[None], monkeypatch: pytest.MonkeyPatch
) -> None:
    mortal = Mortal(0)
    mortal.watch(monkeypatch)
    async with leads(world, "first"):
        await the_end(world, people)
    # The sweep may ask for the deletion as well, in the same moment: one of the two is told that it is gone.
    done = [step.removeprefix("after ") for step in mortal.story if step.startswith("after ")]
    assert done == list(CALLS)
    assert [launch.zone for launch in world.zoned.asked] == ["", A, ""]


@pytest.mark.parametrize("at", range(1, 2 * len(CALLS) + 1))
async def test_a_leader_dies_between_any_two_calls(
    world: Plugged, people: asyncio.Task[None], monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    mortal = Mortal(at)
    mortal.watch(monkeypatch)
    async with leads(world, "first"):
        dead = asyncio.create_task(mortal.dead.wait())
        await asyncio.wait([dead, people], return_when=asyncio.FIRST_COMPLETED)
        await ended(dead)  # type: ignore[arg-type]
    assert mortal.dead.is_set(), f"it took fewer steps: {mortal.story}"
    async with leads(world, "second"):
        await the_end(world, people)


# Where machines come up


async def test_one_more_machine_comes_where_the_volume_is(world: Plugged) -> None:
    """By their number there are enough: one stands warm, in another zone."""
    leader = world.leader(warm_slots=1, slots=2, scale_in_delay=100)
    one = await asleep(world, leader)
    world.zoned.anywhere = B
    await world.zoned.terminate("m-1")
    await world.until(leader, lambda: world.fleet.machine("m-2"))
    await world.rounds(leader, 5)
    assert (await world.machine("m-2")).zone == B
    await world.wake()
    one = await world.gets(leader, one, W.RUNNING)
    assert (one.machine_id, one.zone) == ("m-3", A)
    await world.rounds(leader)
    assert [(each.machine_id, each.zone) for each in world.zoned.asked] == [
        ("m-1", ""), ("m-2", ""), ("m-3", A),
    ]  # fmt: skip


async def test_at_the_bound_an_empty_machine_makes_room_for_one_there(world: Plugged) -> None:
    leader = world.leader(warm_slots=1, slots=2, scale_in_delay=100, max_machines=1)
    one = await asleep(world, leader)
    world.zoned.anywhere = B
    await world.zoned.terminate("m-1")
    await world.until(leader, lambda: world.fleet.machine("m-2"))
    await world.rounds(leader, 5)
    await world.wake()
    one = await world.gets(leader, one, W.RUNNING)
    assert (one.machine_id, one.zone) == ("m-3", A)
    assert [m.id for m in await world.fleet.machines()] == ["m-3"]


async def test_a_launch_there_that_nobody_saw_is_asked_for_there_again(world: Plugged) -> None:
    leader = world.leader(launch_timeout=1.0)
    one = await asleep(world, leader)
    world.zoned.anywhere = B
    await world.until(leader, lambda: _none(world))
    world.zoned.refuses = PoolError("nobody knows what became of it")
    await world.wake()
    await world.until(leader, lambda: _asked(world, 2))
    world.zoned.refuses = None
    one = await world.gets(leader, one, W.RUNNING)
    assert [(each.machine_id, each.zone) for each in world.zoned.asked[1:3]] == [("m-2", A)] * 2
    assert one.machine_id == "m-2"


async def test_a_zone_that_has_nothing_is_told_and_nothing_is_held_up(world: Plugged) -> None:
    leader = world.leader()
    await asleep(world, leader)
    await world.until(leader, lambda: _none(world))
    world.zoned.refuses = NoCapacity("no machine for a volume in eu-central-1a", ["m-2"])
    await world.wake()
    await world.until(leader, lambda: _asked(world, 2))
    await world.rounds(leader, 3)
    assert await world.fleet.machines() == [], "its place under the bound is free again"
    assert "in eu-central-1a" in await world.signals.last_notice()


async def _none(world: Plugged) -> bool:
    return not await world.fleet.machines()


async def _asked(world: Plugged, count: int) -> bool:
    return len(world.zoned.asked) >= count


# Dedicated machines: nothing of anybody lies on them, so none is kept for anybody


async def test_a_dedicated_machine_is_given_back_and_not_parked(world: Plugged) -> None:
    leader = world.leader(slots=1)
    await asleep(world, leader)
    await world.until(leader, lambda: _none(world))
    assert "halt" not in world.zoned.verbs()
    assert list(world.attached().values()) == [[]]


async def test_a_dedicated_machine_goes_from_one_to_the_next(world: Plugged) -> None:
    """And one whose workspace is stopped is anybody's."""
    leader = world.leader(slots=1, max_machines=1, scale_in_delay=100)
    ada = await asleep(world, leader)
    ben = await asleep(world, leader, "ben")
    await world.wake("ada")
    ada = await world.gets(leader, ada, W.RUNNING)
    assert (ada.machine_id, [each.machine_id for each in world.zoned.asked]) == ("m-1", ["m-1"])
    assert world.attached()[ben.volume] == []


async def test_what_crashed_lets_go_of_its_dedicated_machine(world: Plugged) -> None:
    leader = world.leader(slots=1, scale_in_delay=100)
    one = await world.wake()
    one = await world.gets(leader, one, W.RUNNING)
    world.pool.agents["m-1"].fail(one.id)
    await world.gets(leader, one, W.FAILED)

    async def unplugged() -> bool:
        return (await world.read(one)).machine_id == ""

    await world.until(leader, unplugged)
    await world.rounds(leader)
    assert world.attached() == {one.volume: []}
    assert (await world.machine()).status is M.READY
    assert "halt" not in world.zoned.verbs()
    await world.wake()
    back = await world.gets(leader, one, W.RUNNING)
    assert (back.machine_id, back.volume) == ("m-1", one.volume)


async def test_an_interrupted_spot_machine_is_not_started_for_what_is_elsewhere(
    world: Plugged,
) -> None:
    leader = world.leader(slots=1)
    one = await world.wake()
    one = await world.gets(leader, one, W.RUNNING)
    world.zoned.anywhere = B
    # It may have launched one more, where the volume was to be before it was there.
    gone = one.machine_id
    world.zoned.interrupt(gone)
    failed = await world.gets(leader, one, W.FAILED)
    assert failed.error_code == "machine_lost"
    await world.until(leader, lambda: _none(world))
    assert {"power", "halt"} & world.zoned.verbs(gone) == set()
    assert world.attached() == {one.volume: []}
    await world.wake()
    back = await world.gets(leader, one, W.RUNNING)
    assert back.machine_id != gone
    assert (back.volume, back.zone) == (one.volume, A)


async def test_files_of_before_move_onto_a_volume(world: Plugged) -> None:
    """Volumes were switched on after it had worked on its machine's disk."""
    before = world.leader(disks=False, scale_in_delay=100)
    one = await world.wake()
    one = await world.gets(before, one, W.RUNNING)
    world.pool.disks["m-1"].of[one.id]["a.txt"] = "mine"
    await world.store.stop(one.id, "asked")
    await world.gets(before, one, W.STOPPED)
    await before.rest()
    after = world.leader(scale_in_delay=100)
    await world.wake()
    one = await world.gets(after, one, W.RUNNING)
    assert one.volume
    assert world.pool.files(one.id) == [{"a.txt": "mine"}]
