"""Loops with the real ec2 pool while EC2 lies, is slow, throttles, and has what nobody wrote down. What runs
on the instances are fake agents; minutes pass in Redis and by the pool's clock, not on the wall."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from redis.asyncio import Redis

from gateway.progress import facts
from lifecycle import errands, watching
from lifecycle.model import MachineStatus, Workspace, WorkspaceStatus
from lifecycle.pools.ec2_launch import FIRST, FLEET, SLOTS
from lifecycle.scaling import memory
from tests.aws.world import Cloud
from tests.lifecycle.agreement import Agreement
from tests.lifecycle.world import ended

W, M = WorkspaceStatus, MachineStatus
Until = Callable[..., Awaitable[object]]
LONG = {"idle_timeout": 7200.0, "retention": 86400.0, "launch_timeout": 300.0, "scale_in_delay": 900.0}  # fmt: skip
LAG = 120.0


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errands, "FIRST_PAUSE", 0.02)
    monkeypatch.setattr(memory, "SHRINK_LEAST", 1000.0)  # ten machines go within seconds
    monkeypatch.setattr(watching, "UNREACHABLE_RETRY", 0.02)
    monkeypatch.setattr(watching, "STATUS_WAIT", 0.1)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Days(Cloud):
    """A Cloud in which time can pass."""

    def __init__(self, redis: Redis, aws: Any, **how: Any) -> None:
        self.time = Clock()
        super().__init__(redis, aws, lag=LAG, clock=self.time, **how)

    def count(self, action: str) -> int:
        return sum(call.action == action for call in self.aws.calls)

    async def pass_(self, seconds: float, until: Until, looks: int = 2) -> None:
        """Time passes, and the loops look around so many times."""
        self.time.now += seconds
        await self.later(seconds)
        before = self.count("DescribeInstances")
        await until(lambda: self.count("DescribeInstances") >= before + looks)

    async def gets(self, until: Until, one: Workspace, *status: W) -> Workspace:  # type: ignore[override]
        async def there() -> Workspace | None:
            found = await self.read(one)
            return found if found.status in status else None

        found = await until(there, what=f"{one.id} is {status}")
        assert isinstance(found, Workspace)
        return found

    async def message(self, one: Workspace) -> str:
        """What its page says."""
        found = await self.read(one)
        return str(facts(found, 0, 1, None, notice=await self.signals.last_notice())["message"])

    async def states(self) -> list[str]:
        return [state for _, state in (await self.instances()).values()]

    def silent(self, machine_id: str, seconds: float) -> Any:
        return self.redis.zincrby("heartbeat:machines", -seconds * 1000, machine_id)


@pytest.fixture
async def world(redis: Redis, aws: Any, request: pytest.FixtureRequest) -> AsyncIterator[Days]:
    world = Days(redis, aws, **getattr(request, "param", {}))
    living = asyncio.create_task(world.live())
    yield world
    await ended(living)
    await world.close()


async def test_a_list_that_is_two_minutes_behind_boots_nobody_twice(
    world: Days, until: Until
) -> None:
    """Not even with a new leader, who knows nothing of the launch but its record."""
    empty: list[bytes] = []
    with world.aws.fault(
        "ec2", "DescribeInstances", answer=lambda _, now: empty.append(now) or now
    ):
        await world.leader(**LONG).loops.machines.tend()
    with world.aws.fault("ec2", "DescribeInstances", answer=lambda *_: empty[-1]):
        async with world.leader(**LONG).leading():
            one = await world.gets(until, await world.wake(), W.RUNNING)
            for _ in range(3):
                await world.pass_(20, until)
        async with world.leader(**LONG).leading():
            for _ in range(3):
                await world.pass_(20, until)
            # A list of two minutes ago, and agents that report all the while.
            assert (await world.read(one)).status is W.RUNNING
            assert world.count("RunInstances") == 1
    async with world.leader(**LONG).leading():
        await world.pass_(20, until)
    now = await world.read(one)
    assert (now.status, now.epoch, now.machine_id) == (W.RUNNING, 1, "m-1")
    assert await world.states() == ["running"]
    assert world.pool.most_running == {one.id: 1}
    told = await world.events("machine.", "workspace.failed")
    assert not {"machine.lost", "machine.terminated", "workspace.failed"} & set(told), told
    await Agreement(world.redis).check()


@pytest.mark.parametrize("world", [{"slots": 1}], indirect=True)
async def test_a_stop_of_ten_minutes_is_waited_for_with_honest_words(
    world: Days, until: Until
) -> None:
    def stopping(_: Any, reply: bytes) -> bytes:
        return re.sub(
            rb"<code>80</code>\s*<name>stopped<", b"<code>64</code><name>stopping<", reply
        )

    async with world.leader(**LONG).leading():
        one = await world.gets(until, await world.wake(), W.RUNNING)
        world.pool.disks["m-1"].of[one.id]["a.txt"] = "mine"
        with world.aws.fault("ec2", "DescribeInstances", answer=stopping):
            await world.store.stop(one.id, "asked")
            await until(lambda: "m-1" not in world.pool.agents, what="its instance stops")
            await world.wake()
            said = lambda: world.read(one)  # noqa: E731

            async def told() -> bool:
                return (await said()).step == "machine-stopping"

            await until(told)
            for _ in range(10):
                await world.pass_(60, until)
                assert (await said()).status is W.QUEUED
                assert await world.message(one) == (
                    "In the queue, place 1. Its machine is still stopping from before; once it has, it"
                    " is started again."
                )
            assert world.count("StartInstances") == 0, "EC2 would refuse it"
        back = await world.gets(until, one, W.RUNNING)
    assert (back.machine_id, back.epoch) == ("m-1", 2)
    assert world.pool.files(one.id) == [{"a.txt": "mine"}]
    assert (world.count("StartInstances"), world.count("RunInstances")) == (1, 1)


def orphan(world: Days, number: int) -> str:
    """An instance with our tags that no record speaks of."""
    tags = {FLEET: "blue", FIRST: str(number), SLOTS: "1"}
    answer = world.ec2.run_instances(
        ImageId="ami-12345678", InstanceType="t3.micro", MinCount=1, MaxCount=1,
        TagSpecifications=[
            {"ResourceType": "instance", "Tags": [{"Key": k, "Value": v} for k, v in tags.items()]}
        ],
    )  # fmt: skip
    return str(answer["Instances"][0]["InstanceId"])


async def test_an_instance_without_a_record_is_found_within_two_passes(
    world: Days, until: Until
) -> None:
    leader = world.leader(**LONG)
    instance = orphan(world, 7)
    for _ in range(2):
        await leader.loops.machines.tend()
    found = await world.machine("m-7")
    assert (found.instance, found.unheard) == (instance, True)
    world._seen = -1  # its agent comes up and joins

    async def heard() -> bool:
        await leader.tick()
        return (await world.machine("m-7")).status is M.READY

    await until(heard)
    assert not (await world.machine("m-7")).unheard
    assert await world.states() == ["running"], "it may hold somebody's files: it is kept"


@pytest.mark.parametrize("durable", [True, False])
async def test_an_orphan_that_never_joins_goes_once_no_record_can_be_missing(
    world: Days, until: Until, durable: bool
) -> None:
    world.dead.add(instance := orphan(world, 7))
    leader = world.leader(**LONG, durable=durable)
    for _ in range(2):
        await leader.loops.machines.tend()
    world.time.now += 301
    await world.later(301)
    for _ in range(2):
        await leader.loops.machines.tend()
        await leader.loops._errands.finished()
    there = instance in await world.instances()
    assert there is not durable, "without durable records it may hold files that none speaks of"


async def test_a_record_without_an_instance_is_found_within_two_passes(
    world: Days, until: Until
) -> None:
    leader = world.leader(**LONG)
    leader.loops.machines.clock = world.clock
    async with leader.leading():
        one = await world.gets(until, await world.wake(), W.RUNNING)
        (instance,) = await world.instances()
    world.ec2.terminate_instances(InstanceIds=[instance])  # somebody, in the console
    world._seen = -1
    await until(lambda: "m-1" not in world.pool.agents)
    world.time.now += LAG + 1
    await world.later(30)
    await world.silent("m-1", 30)
    for _ in range(2):
        await leader.loops.machines.tend()
    failed = await world.read(one)
    assert (failed.status, failed.error_code) == (W.FAILED, "machine_lost")
    assert failed.error == "its machine m-1 went down: it is gone. Start it again."
    assert await world.message(one) == "Its machine m-1 went down: it is gone. Start it again."
    assert (await world.machine()).status is M.LOST
    world.time.now += LAG + 1
    await world.later(LAG + 1)
    await world.wake()
    async with leader.leading():
        assert (await world.gets(until, one, W.RUNNING)).machine_id == "m-2"
    assert await world.states() == ["running"]


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that botocore would make before it asks again; they are noted and cut short."""
    from aiobotocore import endpoint

    noted: list[float] = []

    class Hasty:
        async def sleep(self, seconds: float) -> None:
            noted.append(seconds)
            await asyncio.sleep(seconds / 50)

        def __getattr__(self, name: str) -> Any:
            return getattr(asyncio, name)

    monkeypatch.setattr(endpoint, "asyncio", Hasty())
    return noted


@pytest.mark.parametrize("world", [{"slots": 1}], indirect=True)
async def test_a_day_while_a_third_of_all_calls_is_throttled(
    world: Days, until: Until, pauses: list[float]
) -> None:
    """Ten people come, go home, come back and leave for good."""
    many = {**LONG, "scale_in_delay": 0.0, "max_machines": 12}
    throttled = world.aws.fault("ec2", error=("RequestLimitExceeded", 503), share=0.3, seed=7)
    async with world.leader(**many).leading():
        people = [await world.wake(f"user-{n}") for n in range(10)]
        for one in people:
            await world.gets(until, one, W.RUNNING)
        for one in people:
            await world.store.stop(one.id, "asked")
        for one in people:
            await world.gets(until, one, W.STOPPED)
        await until(lambda: _all(world, "stopped"), what="every machine is stopped")
        for n in range(10):
            await world.wake(f"user-{n}")
        for one in people:
            assert (await world.gets(until, one, W.RUNNING)).epoch == 2
        for one in people:
            await world.store.terminate(one.id, "asked")
        await until(lambda: _all(world, ""), what="every machine is gone")
        # Before the leader ends: a call that it is cut off from is not asked again.
        throttled.remove()
        await until(
            lambda: len(pauses) == throttled.hits, what="each was asked again after a pause"
        )
    calls = Counter(call.action for call in world.aws.calls)
    needed = len(world.aws.calls) - throttled.hits
    assert throttled.hits > 10
    assert len(world.aws.calls) <= 2 * needed
    assert len(set(pauses)) == len(pauses), "jittered: no two alike"
    # Of one kind there are too few for the dice to even out.
    for action in ("RunInstances", "StartInstances", "StopInstances", "TerminateInstances"):
        assert calls[action] <= 4 * 10, calls
    assert max(world.pool.most_running.values()) == 1
    await Agreement(world.redis).check()


async def _all(world: Days, state: str) -> bool:
    return set(await world.states()) == ({state} if state else set())
