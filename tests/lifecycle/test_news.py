"""Every event once, in order, to everybody; Redis may go and come back meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from redis.asyncio import Redis

from lifecycle import news as module
from lifecycle.model import Event
from lifecycle.news import News
from lifecycle.stores import StoreUnavailable
from lifecycle.stores.connection import connect
from lifecycle.stores.signals import RedisSignals
from tests.conftest import start_valkey

Until = Callable[..., Awaitable[object]]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK", 0.1)
    monkeypatch.setattr(module, "RETRY", 0.05)


@contextlib.asynccontextmanager
async def reading(news: News) -> AsyncIterator[list[str]]:
    """What the process heard: the `n` of every event."""
    heard: list[str] = []
    news.listen(lambda event: heard.append(event.data.get("n", event.type)))
    await news.start()
    task = asyncio.create_task(news.run())
    try:
        yield heard
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_from_the_start_on_and_in_order(redis: Redis, until: Until) -> None:
    signals = RedisSignals(redis)
    await signals.tell("x", {"n": "before"})
    async with reading(News(signals)) as heard:
        for n in range(1200):  # more than one read brings
            await signals.tell("x", {"n": str(n)})
        await until(lambda: len(heard) >= 1200)
        assert heard == [str(n) for n in range(1200)]


async def test_nothing_is_missed_between_start_and_run(redis: Redis, until: Until) -> None:
    signals = RedisSignals(redis)
    news, heard = News(signals), list[str]()
    news.listen(lambda event: heard.append(event.data["n"]))
    await news.start()
    await signals.tell("x", {"n": "early"})
    task = asyncio.create_task(news.run())
    await until(lambda: heard == ["early"])
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_subscriber_hears_of_its_workspace_only(redis: Redis, until: Until) -> None:
    signals = RedisSignals(redis)
    news = News(signals)
    async with reading(news) as heard:
        with news.subscription("w1") as mine, news.subscription() as every:
            for workspace in ("w1", "w2", "w1"):
                await signals.tell("x", {"workspace": workspace, "n": workspace})
            await until(lambda: len(heard) == 3)
            assert [mine.get_nowait().data["n"] for _ in range(mine.qsize())] == ["w1", "w1"]
            assert every.qsize() == 3
        await signals.tell("x", {"workspace": "w1"})
        await until(lambda: len(heard) == 4)
        assert (mine.qsize(), every.qsize()) == (0, 3), "nothing comes after the end"


async def test_following_ends_with_the_follower(redis: Redis, until: Until) -> None:
    signals = RedisSignals(redis)
    news = News(signals)
    async with reading(news):
        following = news.follow("w1")
        first = asyncio.ensure_future(anext(following))
        await until(lambda: news._subscribers)
        await signals.tell("x", {"workspace": "w1", "n": "1"})
        assert (await first).data["n"] == "1"
        await following.aclose()
        assert not news._subscribers


async def test_a_slow_subscriber_loses_its_oldest_and_nobody_elses(
    redis: Redis, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PENDING_MAX", 3)
    signals = RedisSignals(redis)
    news = News(signals)
    async with reading(news) as heard:
        with news.subscription() as slow:
            for n in range(5):
                await signals.tell("x", {"n": str(n)})
            await until(lambda: len(heard) == 5)
            assert [slow.get_nowait().data["n"] for _ in range(3)] == ["2", "3", "4"]
        assert heard == ["0", "1", "2", "3", "4"]


async def test_a_listener_that_raises_costs_the_others_nothing(redis: Redis, until: Until) -> None:
    signals = RedisSignals(redis)
    news = News(signals)

    def broken(event: Event) -> None:
        raise ValueError(event.type)

    news.listen(broken)
    async with reading(news) as heard:
        await signals.tell("x", {"n": "1"})
        await signals.tell("x", {"n": "2"})
        await until(lambda: heard == ["1", "2"])


async def test_a_quiet_hour_is_no_outage(redis: Redis, valkey: str) -> None:
    """A read that waits must end before the client's own timeout takes the silence for a dead Redis."""
    client = connect(valkey)
    timeout = client.connection_pool.connection_kwargs["socket_timeout"]
    block = (await asyncio.to_thread(_fresh_block)) + 0.5
    assert block < timeout
    started = time.monotonic()
    assert await RedisSignals(client).tail("$", block) == []
    assert time.monotonic() - started >= block - 0.1
    await client.aclose()


def _fresh_block() -> float:
    """BLOCK as the module spells it, not as these tests have set it."""
    text = Path(module.__file__).read_text()
    return float(text.partition("\nBLOCK = ")[2].partition(" ")[0])


async def test_after_a_restart_it_goes_on_where_it_was(tmp_path: Path, until: Until) -> None:
    process, url = await asyncio.to_thread(start_valkey, tmp_path)
    client = connect(url)
    signals = RedisSignals(client)
    news = News(signals)
    try:
        async with reading(news) as heard:
            await signals.tell("x", {"n": "1"})
            await until(lambda: heard == ["1"])
            await client.save()
            process.terminate()
            await asyncio.to_thread(process.wait, 10)
            await until(lambda: news.away)
            with pytest.raises(StoreUnavailable):
                await signals.tell("x", {"n": "lost"})
            process, _ = await asyncio.to_thread(start_valkey, tmp_path)
            await signals.tell("x", {"n": "2"})
            await until(lambda: heard == ["1", "2"])
            assert not news.away
    finally:
        await client.aclose()
        process.terminate()
        await asyncio.to_thread(process.wait, 10)


async def test_after_a_flush_it_hears_what_is_new(redis: Redis, until: Until) -> None:
    signals = RedisSignals(redis)
    async with reading(News(signals)) as heard:
        await signals.tell("x", {"n": "1"})
        await until(lambda: heard == ["1"])
        await redis.flushall()
        await signals.tell("x", {"n": "2"})
        await until(lambda: heard == ["1", "2"])


async def test_a_stream_that_numbers_lower_than_before_is_followed(
    redis: Redis, until: Until
) -> None:
    """Redis was flushed, and its clock went back beyond that: new ids are below the last one read."""
    signals = RedisSignals(redis)
    news = News(signals)
    async with reading(news) as heard:
        future = int(time.time() * 1000) + 3_600_000
        await redis.xadd("events", {"type": "x", "n": "1"}, id=f"{future}-0")
        await until(lambda: heard == ["1"])
        await redis.flushall()
        await signals.tell("x", {"n": "while it does not know yet"})
        at = await signals.last_event_id()
        await until(lambda: news._last == at)
        await signals.tell("x", {"n": "2"})
        await until(lambda: heard[-1] == "2")
