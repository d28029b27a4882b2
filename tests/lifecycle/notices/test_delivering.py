"""Deliveries from the outbox on a real Valkey: each once, whoever leads and whoever is killed."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from redis.asyncio import Redis

from lifecycle.model import Workspace
from lifecycle.notices import STOPPED, delivering
from lifecycle.notices.deliveries import Answer, Delivery, Next, Outcome, Status
from lifecycle.notices.delivering import Delivering
from lifecycle.notices.email import Email
from lifecycle.notices.webhook import Webhook
from lifecycle.stores import Conflict
from lifecycle.stores.deliveries import RedisDeliveries
from lifecycle.stores.notices import RedisNotices
from lifecycle.stores.redis import RedisStore
from tests.lifecycle.notices.mailing import mail_server
from tests.lifecycle.notices.receiver import SECRET, Receiver, receiving, verified

Until = Callable[..., Awaitable[object]]


class World:
    def __init__(self, redis: Redis, receiver: Receiver, workspace: Workspace) -> None:
        self.redis, self.receiver, self.workspace = redis, receiver, workspace
        self.outbox = RedisDeliveries(redis)
        self.notices = RedisNotices(redis, ["webhook", "email"])
        self.leaders: list[Delivering] = []

    def leader(self, claim: float = 90, mail_port: int = 0) -> Delivering:
        channels = [Webhook(self.receiver.url, SECRET, timeout=5)]
        mail = Email(f"smtp://127.0.0.1:{mail_port}", "ide@example.com", "https://ide.example.com")
        self.leaders.append(Delivering(self.outbox, [*channels, mail], claim))
        return self.leaders[-1]

    async def tell(self, *keys: str) -> None:
        for key in keys:
            await self.notices.tell(self.workspace, STOPPED, key, f"“demo” {key}", {})

    async def log(self) -> list[tuple[str, Status, int]]:
        return [(d.channel, d.status, d.attempts) for d in await self.outbox.list()]

    async def comes_due(self) -> None:
        """Time passes until everything that waits is due."""
        for one in await self.redis.zrange("deliveries:due", 0, -1):
            await self.redis.zadd("deliveries:due", {one: 1})


@pytest.fixture
async def world(redis: Redis) -> AsyncIterator[World]:
    workspace, _ = await RedisStore(redis).ensure("ada", "demo")
    async with receiving() as receiver:
        world = World(redis, receiver, workspace)
        yield world
        for leader in world.leaders:
            await leader.close()


async def test_it_is_tried_five_times_with_one_id_and_a_fresh_signature(world: World) -> None:
    world.receiver.answers, world.receiver.text = [500] * 5, "out of order"
    leader = world.leader()
    await world.tell("stop/1")
    for attempts in range(1, 6):
        await leader.turn()
        await leader.turn()  # not before it is due again
        assert len(world.receiver.got) == attempts
        [row] = await world.outbox.list()
        assert (row.attempts, row.code, row.answer) == (attempts, 500, "out of order")
        wait = (row.due_at_ms - row.attempted_at_ms) / 1000 if row.due_at_ms else 0
        assert wait == pytest.approx([5, 30, 120, 600, 0][attempts - 1], rel=0.2)
        await world.comes_due()
    assert await world.log() == [("webhook", Status.FAILED, 5)]
    await leader.turn()
    assert len(set(world.receiver.ids)) == 1
    assert len(world.receiver.got) == 5
    assert all(verified(*each, SECRET, time.time()) for each in world.receiver.got)

    # An operator sends it again, and nothing that has arrived.
    await world.outbox.retry(world.receiver.ids[0])
    await leader.turn()
    [row] = await world.outbox.list(status=Status.SENT)
    assert (row.attempts, row.retried, row.code) == (1, 1, 204)
    assert 39 * 86400 > await world.redis.ttl(f"delivery:{row.id}") > 6.9 * 86400
    with pytest.raises(Conflict, match="is sent"):
        await world.outbox.retry(row.id)
    with pytest.raises(Conflict, match="no delivery"):
        await world.outbox.retry("msg_0_0")


async def test_two_leaders_at_once_deliver_200_once_each(world: World) -> None:
    await world.tell(*(f"stop/{n}" for n in range(200)))
    leaders = [world.leader(), world.leader()]
    await asyncio.gather(*(leader.turn() for leader in leaders))
    assert set(Counter(world.receiver.ids).values()) == {1}
    assert len(world.receiver.got) == 200
    assert set(await world.log()) == {("webhook", Status.SENT, 1)}
    assert {body["data"]["seq"] for body in world.receiver.bodies} == set(range(1, 201))


async def test_a_leader_killed_during_an_attempt(world: World, until: Until) -> None:
    """The webhook comes again under its own id; of the mail nobody knows, so it does not."""
    async with mail_server() as server:
        await world.redis.hset("preferences:ada", "email", "lost@example.org")
        world.receiver.hangs = True
        killed = world.leader(claim=0.2, mail_port=server.port)
        await world.tell("stop/1")
        await killed.tick()
        await until(lambda: world.receiver.got)
        await server.next()  # the server has the mail, and has not said so
        for task in [*killed._running]:
            task.cancel()

        world.receiver.hangs = False
        after = world.leader(claim=0.2, mail_port=server.port)

        async def over() -> bool:
            await after.turn()
            if await world.outbox.list(status=Status.SENDING):
                return False  # the claim has not run out yet
            await world.comes_due()
            return not await world.redis.zcard("deliveries:due")

        await until(over)
        assert set(await world.log()) == {
            ("webhook", Status.SENT, 2),
            ("email", Status.UNKNOWN, 1),
        }
        assert len(world.receiver.got) == 2
        assert len(set(world.receiver.ids)) == 1
        assert await server.stop() == []


async def test_the_late_word_of_a_leader_whose_claim_ran_out_counts_for_nothing(
    world: World, until: Until
) -> None:
    await world.tell("stop/1")
    [old] = await world.outbox.claim(8, 0.01)
    [new] = await until(lambda: world.outbox.claim(8, 60))  # type: ignore[misc]
    assert (old.interrupted, new.interrupted, new.attempts) == (False, True, 1)
    assert not await world.outbox.note(old, Answer(Outcome.FAILED), 1, Next(Status.FAILED))
    assert await world.outbox.note(new, Answer(Outcome.SENT, "ok", 200), 1, Next(Status.SENT))
    assert await world.log() == [("webhook", Status.SENT, 1)]


async def test_where_nobody_listens_any_more_nothing_else_is_sent(world: World) -> None:
    world.receiver.answers = [410]
    leader = world.leader()
    for n in (1, 2):
        await world.tell(f"stop/{n}")
        await leader.turn()
    assert len(world.receiver.got) == 1
    assert await world.log() == [("webhook", Status.FAILED, 1)] * 2
    [row, _] = await world.outbox.list()
    assert "410 Gone" in row.answer
    await world.outbox.retry(row.id)  # the operator says that somebody does
    await leader.turn()
    await world.tell("stop/3")
    await leader.turn()
    assert len(world.receiver.got) == 3


async def test_one_that_hangs_holds_up_no_other(
    world: World, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivering, "INTERVAL", 0.02)
    monkeypatch.setattr(delivering, "GRACE", 0.05)

    class Hanging:
        name, repeatable = "webhook", True

        def __init__(self) -> None:
            self.begun: list[Delivery] = []

        async def send(self, delivery: Delivery) -> Answer:
            self.begun.append(delivery)
            if len(self.begun) <= 7:
                await asyncio.Event().wait()
            return Answer(Outcome.SENT)

        async def close(self) -> None: ...

    channel = Hanging()
    running = asyncio.create_task(Delivering(world.outbox, [channel]).run())
    await world.tell(*(f"stop/{n}" for n in range(9)))

    async def two_sent() -> bool:
        return len(await world.outbox.list(status=Status.SENT)) == 2

    await until(two_sent)
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    assert len(channel.begun) == 9


async def test_the_log_is_of_one_person_or_one_status(world: World) -> None:
    stranger, _ = await RedisStore(world.redis).ensure("eve")
    await world.tell("stop/1", "stop/2")
    await world.notices.tell(stranger, STOPPED, "stop/1", "“ws” stopped", {})
    assert [d.notice.user_id for d in await world.outbox.list()] == ["eve", "ada", "ada"]
    assert [d.notice.seq for d in await world.outbox.list(user_id="ada")] == [2, 1]
    assert len(await world.outbox.list(limit=1)) == 1
    assert await world.outbox.list(status=Status.SENT) == []
    await world.leader().turn()
    assert len(await world.outbox.list(user_id="ada", status=Status.SENT)) == 2


async def test_a_channel_that_is_no_longer_set_up_gives_up_what_waits_for_it(world: World) -> None:
    await world.tell("stop/1")
    await Delivering(world.outbox, []).turn()
    [row] = await world.outbox.list()
    assert (row.status, row.answer) == (Status.FAILED, "no webhook is set up any more")
