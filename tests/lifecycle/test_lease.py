"""One holder at a time, a new token for each, and a paused holder that finds out."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from redis.asyncio import Redis

from lifecycle.lease import Lease
from lifecycle.stores import StoreUnavailable, keys
from lifecycle.stores.signals import RedisSignals

Until = Callable[..., Awaitable[object]]
TTL = 0.6  # seconds


class Away(RedisSignals):
    """Redis, as a gateway sees it whose line can be cut."""

    def __init__(self, redis: Redis) -> None:
        super().__init__(redis)
        self.away = False
        self.asked = 0

    async def take_lease(self, holder: str, ttl: float) -> int:
        self.asked += 1
        if self.away:
            raise StoreUnavailable("cut off")
        return await super().take_lease(holder, ttl)


class Gateway:
    """Holds a lease and remembers when it led."""

    def __init__(self, redis: Redis, name: str) -> None:
        self.signals = Away(redis)
        self.lease = Lease(self.signals, name, TTL)
        self.leads, self.led, self.tokens = False, 0, list[int]()
        self.breaks: Exception | None = None
        self.task = asyncio.create_task(self.lease.run(self.lead))

    async def lead(self) -> None:
        self.led += 1
        self.tokens.append(self.lease.token)
        if self.breaks is not None:
            raise self.breaks
        self.leads = True
        try:
            await asyncio.Event().wait()
        finally:
            self.leads = False

    async def end(self) -> None:
        self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.task


@pytest.fixture
async def start(redis: Redis) -> AsyncIterator[Callable[[str], Gateway]]:
    gateways: list[Gateway] = []

    def start(name: str) -> Gateway:
        gateways.append(Gateway(redis, name))
        return gateways[-1]

    yield start
    for gateway in gateways:
        await gateway.end()


async def test_one_leads_the_other_stands_by(
    start: Callable[[str], Gateway], until: Until, redis: Redis
) -> None:
    a = start("a")
    await until(lambda: a.leads)
    b = start("b")
    await until(lambda: b.signals.asked >= 4)
    assert a.leads
    assert not b.leads
    assert (a.lease.token, b.lease.token) == (1, 0)
    assert await redis.get(keys.LEASE) == "a 1"
    assert await a.signals.lease_holder() == "a"


async def test_giving_it_back_hands_over_at_once_with_a_new_token(
    start: Callable[[str], Gateway], until: Until
) -> None:
    a = start("a")
    await until(lambda: a.leads)
    b = start("b")
    await a.end()
    await a.lease.give()
    await until(lambda: b.leads, timeout=TTL)
    assert b.tokens == [2]
    assert not a.leads
    assert a.lease.token == 0


async def test_a_dead_holders_lease_runs_out(
    start: Callable[[str], Gateway], until: Until, redis: Redis
) -> None:
    a = start("a")
    await until(lambda: a.leads)
    b = start("b")
    await a.end()  # without giving it back
    assert await redis.get(keys.LEASE) == "a 1"
    await until(lambda: b.leads)
    assert b.tokens == [2]


async def test_what_is_not_ones_own_cannot_be_given_back(redis: Redis) -> None:
    signals = RedisSignals(redis)
    await signals.take_lease("a", 60)
    await signals.give_lease("b")
    assert await signals.lease_holder() == "a"


async def test_a_holder_that_was_paused_past_its_lease_finds_out_and_stops(
    start: Callable[[str], Gateway], until: Until, redis: Redis
) -> None:
    a = start("a")
    await until(lambda: a.leads)
    # What a sees on waking up: its lease ran out long ago and b took it.
    await redis.delete(keys.LEASE)
    b = start("b")
    await until(lambda: b.leads)
    await until(lambda: not a.leads, timeout=TTL)
    assert a.lease.token == 0
    assert b.lease.token > a.tokens[-1], "what a did can be told from what b does"
    assert b.leads


async def test_a_holder_that_cannot_reach_redis_stops_when_its_lease_has_run_out(
    start: Callable[[str], Gateway], until: Until
) -> None:
    a, loop = start("a"), asyncio.get_running_loop()
    await until(lambda: a.leads)
    a.signals.away = True
    cut = loop.time()
    await until(lambda: not a.leads)
    assert loop.time() - cut >= TTL / 3, "one lost answer is no lost lease"
    assert loop.time() - cut < 3 * TTL
    a.signals.away = False
    await until(lambda: a.leads)
    assert a.led == 2


async def test_a_lost_answer_is_no_lost_lease(
    start: Callable[[str], Gateway], until: Until
) -> None:
    a = start("a")
    await until(lambda: a.leads)
    asked = a.signals.asked
    a.signals.away = True
    await until(lambda: a.signals.asked > asked)
    a.signals.away = False
    asked = a.signals.asked
    await until(lambda: a.signals.asked > asked + 3)
    assert (a.leads, a.led) == (True, 1)


async def test_a_lease_that_ran_out_unnoticed_begins_anew(
    start: Callable[[str], Gateway], until: Until, redis: Redis
) -> None:
    """FLUSHALL, or a pause in which nobody else came: the old lead ends, a new one begins."""
    a = start("a")
    await until(lambda: a.leads)
    await redis.delete(keys.LEASE)
    await until(lambda: a.led == 2 and a.leads)
    assert a.tokens == [1, 2]


async def test_a_lead_that_fails_is_led_again(
    start: Callable[[str], Gateway], until: Until
) -> None:
    a = start("a")
    a.breaks = RuntimeError("a loop broke")
    await until(lambda: a.led >= 2)
    assert not a.task.done()
    a.breaks = None
    await until(lambda: a.leads)
