"""From EventBridge over a rule and a queue to a workspace that runs elsewhere, or to words on its page.

Machines are fakes, everything between the event and the loops is real: moto's EventBridge and SQS over
the network, the feed, and loops that run by themselves.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from redis.asyncio import Redis

from gateway.progress import facts
from lifecycle import errands, moving, watching
from lifecycle.aws import Clients
from lifecycle.evacuation import Evacuation
from lifecycle.feeds.listening import Listening
from lifecycle.feeds.sqs import SqsFeed
from lifecycle.model import MachineStatus, Workspace, WorkspaceStatus
from lifecycle.snapshots import SnapshotError
from tests.lifecycle.agreement import Agreement
from tests.lifecycle.world import Leader, World, ended

W, M = WorkspaceStatus, MachineStatus
Until = Callable[..., Awaitable[object]]
SPOT = "EC2 Spot Instance Interruption Warning"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errands, "FIRST_PAUSE", 0.05)
    monkeypatch.setattr(errands, "LONGEST_PAUSE", 0.05)
    monkeypatch.setattr(watching, "UNREACHABLE_RETRY", 0.02)
    monkeypatch.setattr(watching, "STATUS_WAIT", 0.1)


class Bus:
    """EventBridge as an operator sets it up: a rule that fills a queue."""

    def __init__(self, aws: Any) -> None:
        self.events, self.sqs = aws.client("events"), aws.client("sqs")
        self.queue = self.sqs.create_queue(QueueName="notices")["QueueUrl"]
        names = ["QueueArn"]
        arn = self.sqs.get_queue_attributes(QueueUrl=self.queue, AttributeNames=names)
        pattern = {"source": ["aws.ec2", "aws.health", "aws.autoscaling", "aws.ecs"]}
        self.events.put_rule(Name="notices", EventPattern=json.dumps(pattern))
        target = {"Id": "queue", "Arn": arn["Attributes"]["QueueArn"]}
        self.events.put_targets(Rule="notices", Targets=[target])

    def put(self, kind: str, detail: dict[str, Any], age: float = 0.0) -> None:
        """An event of EC2's, age seconds ago."""
        entry = {"Source": "aws.ec2", "DetailType": kind, "Detail": json.dumps(detail)}
        at = datetime.now(UTC) - timedelta(seconds=age)
        answer = self.events.put_events(Entries=[entry | {"Time": at}])
        assert answer["FailedEntryCount"] == 0

    def left(self) -> int:
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        known = self.sqs.get_queue_attributes(QueueUrl=self.queue, AttributeNames=names)
        return sum(int(known["Attributes"][name]) for name in names)


@pytest.fixture
async def world(redis: Redis) -> AsyncIterator[World]:
    world = World(redis)
    yield world
    await world.close()


@pytest.fixture
def bus(aws: Any) -> Bus:
    return Bus(aws)


@contextlib.asynccontextmanager
async def leads(
    world: World, bus: Bus, *, listens: bool = True, **times: Any
) -> AsyncIterator[Leader]:
    """Loops, a gateway that flushes, and the queue listened to."""
    leader, clients = world.leader(**times), Clients()
    hears = Evacuation(world.store, world.fleet, world.signals, leader.loops.hurry)
    feed = SqsFeed(bus.queue, clients)
    await feed.check()

    async def beat() -> None:
        while True:
            await world.flush()
            await asyncio.sleep(0.2)

    tasks = [asyncio.create_task(beat())]
    if listens:
        tasks.append(asyncio.create_task(Listening(feed, hears.notice).run()))
    try:
        async with leader.leading():
            yield leader
    finally:
        for task in tasks:
            await ended(task)
        await clients.close()


async def runs(world: World, until: Until) -> Workspace:
    """Ada works on m-1, which the pool calls i-0a1b."""
    one = await world.wake()
    await until(lambda: world.pool.where(one.id))
    await gets(world, until, one, W.RUNNING)
    world.pool.disks["m-1"].of[one.id]["a.txt"] = "unsaved thoughts"
    await world.fleet.observe("m-1", "i-0a1b", "eu-central-1a")
    return await world.read(one)


async def gets(world: World, until: Until, one: Workspace, *status: W, on: str = "") -> Workspace:
    async def there() -> Workspace | None:
        found = await world.read(one)
        at = not on or found.machine_id == on
        return found if found.status in status and at else None

    found = await until(there, what=f"{one.id} is {status}")
    assert isinstance(found, Workspace)
    return found


async def told(world: World, kind: str) -> list[dict[str, str]]:
    found = await world.signals.history("0-0", 100_000)
    return [event.data for event in found if event.type == kind]


async def test_a_spot_notice_is_a_snapshot_a_move_and_words_within_the_two_minutes(
    world: World, bus: Bus, until: Until
) -> None:
    said: set[str] = set()
    async with leads(world, bus) as leader:
        one = await runs(world, until)

        async def look(when: str, call: tuple[str, str, str]) -> None:
            now = await world.read(one)
            said.add(facts(now, 0)["message"] if facts(now, 0)["moving"] else "")

        world.pool.gate = look
        began = asyncio.get_running_loop().time()
        bus.put(SPOT, {"instance-id": "i-0a1b", "instance-action": "terminate"})
        bus.put(SPOT, {"instance-id": "i-0a1b", "instance-action": "terminate"})  # as queues do
        bus.put(SPOT, {"instance-id": "i-somebody-else"})
        moved = await gets(world, until, one, W.RUNNING, on="m-2")
        assert asyncio.get_running_loop().time() - began < 60
        await until(lambda: told(world, "machine.evacuated"))
        await until(lambda: not bus.left(), what="the queue is empty")
        assert leader.loops is world.leaders[0].loops
    assert moved.epoch == 2
    assert world.pool.files(one.id) == [{"a.txt": "unsaved thoughts"}]
    assert world.pool.most_running[one.id] == 1
    [snapshot] = await told(world, "workspace.snapshotted")
    [moving_] = await told(world, "workspace.moving")
    assert (snapshot["machine"], moving_["machine"]) == ("m-1", "m-1")
    assert moving_["reason"].startswith("moving: its machine is taken away at ")
    assert any("The IDE is being stopped, then its files are saved." in words for words in said)
    assert any("Its files are being saved" in words for words in said)
    [done] = await told(world, "machine.evacuated")
    assert float(done["seconds"]) < 120
    assert await told(world, "workspace.move_failed") == []
    agreement = Agreement(world.redis)
    await agreement.check()
    await agreement.check_story()


async def test_with_the_bucket_away_the_deadline_ends_in_words_and_nothing_is_removed(
    world: World, bus: Bus, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moving, "LATE_MS", 0)
    ends: list[tuple[str, str]] = []

    async def gate(when: str, call: tuple[str, str, str]) -> None:
        if call[0] in ("terminate", "remove"):
            ends.append(call[:2])

    async with leads(world, bus) as leader:
        one = await runs(world, until)
        await leader.loops._actions.snapshot(one)
        world.pool.disks["m-1"].of[one.id]["a.txt"] = "newer than the snapshot"
        world.pool.target.failing = SnapshotError("unreachable", "the bucket does not answer")
        world.pool.gate = gate
        bus.put(SPOT, {"instance-id": "i-0a1b"}, age=117.5)  # 1.5 to 2.5 s are left
        failed = await gets(world, until, one, W.FAILED)
        await until(lambda: told(world, "workspace.move_failed"))
        failed = await world.read(one)
        assert ends == []
        assert (await world.machine()).status is M.DRAINING
        assert world.pool.files(one.id) == [{"a.txt": "newer than the snapshot"}]
        assert failed.error_code == "move_failed"
        assert failed.error.startswith("its files could not be moved off machine m-1 in time")
        assert "What was changed since its snapshot of " in failed.error
        assert facts(failed, 0)["message"] == "I" + failed.error[1:]
        assert await told(world, "machine.evacuated") == []
        before = await told(world, "workspace.move_failed")
        assert [row["workspace"] for row in before] == [one.id]

        world.pool.target.failing = None  # the machine is still there, and so are its files
        await until(lambda: told(world, "workspace.saved"))
        await world.wake()
        await gets(world, until, one, W.RUNNING, on="m-2")
    assert world.pool.files(one.id) == [{"a.txt": "newer than the snapshot"}]
    assert len(await told(world, "workspace.move_failed")) == 1


async def test_a_change_of_state_wakes_loops_that_would_look_much_later(
    world: World, bus: Bus, until: Until
) -> None:
    async with leads(world, bus, listens=False):
        one = await runs(world, until)
    async with leads(world, bus, scale_interval=3600) as leader:
        await until(lambda: "m-1" in leader.loops.machines._watching)
        world.pool.kill("m-1")
        await until(lambda: "m-1" not in leader.loops.machines._watching)
        assert (await world.read(one)).status is W.RUNNING
        detail = {"instance-id": "i-0a1b", "state": "terminated"}
        bus.put("EC2 Instance State-change Notification", detail)
        assert (await gets(world, until, one, W.FAILED)).error_code == "machine_lost"
