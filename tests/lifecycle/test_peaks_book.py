"""Declared peaks in Redis, and at hand for who leads."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from redis.asyncio import Redis

from lifecycle.model import Event
from lifecycle.news import News
from lifecycle.peaks import Peak
from lifecycle.peaks_book import PeaksBook
from lifecycle.peaks_file import PeaksFile
from lifecycle.stores import keys
from lifecycle.stores.peaks import RedisPeaks
from lifecycle.stores.signals import RedisSignals

FILE = '[[peak]]\nname = "lecture"\ncron = "0 9 * * *"\nusers = 400\n'


async def now_ms(redis: Redis) -> int:
    return (await RedisPeaks(redis).current())[0]


async def exam(redis: Redis, seconds: float = 3600, **more: float) -> Peak:
    return Peak(await now_ms(redis) + int(seconds * 1000), 3000, "exam", **more)


def book(redis: Redis, path: str = "") -> PeaksBook:
    return PeaksBook(RedisPeaks(redis), PeaksFile(path))


async def test_what_is_declared_is_kept_as_json_and_told(redis: Redis) -> None:
    one = await exam(redis, early=120.5, late=900)
    assert (await book(redis).declare(one))[0] == "ok"
    kept = json.loads(await redis.hget(keys.PEAKS, "exam"))
    assert kept == {"at": one.at_ms, "users": 3000, "early": 120.5, "late": 900}
    assert (await RedisPeaks(redis).current())[1] == [one]
    (event,) = await RedisSignals(redis).history("", 10)
    assert event.type == "pool.peak"
    assert {k: v for k, v in event.data.items() if k != "reason"} == {
        "peak": "exam", "at": str(one.at_ms), "state": "declared",
    }  # fmt: skip
    assert event.data["reason"].startswith("3,000 people at 20")


async def test_removed_once(redis: Redis) -> None:
    store, one = RedisPeaks(redis), await exam(redis)
    await store.declare(one, 5, "")
    assert await store.remove("exam") == one
    assert await store.remove("exam") is None
    assert await redis.exists(keys.PEAKS) == 0
    told = [event.data.get("state") for event in await RedisSignals(redis).history("", 10)]
    assert told == ["declared", "removed"]


async def test_not_in_the_past_and_not_more_than_so_many(redis: Redis) -> None:
    store = RedisPeaks(redis)
    outcome, now = await store.declare(await exam(redis, -5), 2, "")
    assert (outcome, abs(now - await now_ms(redis)) < 60_000) == ("past", True)
    later = await now_ms(redis) + 60_000
    found = [(await store.declare(Peak(later, 1, name), 2, ""))[0] for name in ("a", "b", "c", "a")]
    assert found == ["ok", "ok", "full", "ok"]


async def test_what_is_over_goes_and_makes_room(redis: Redis) -> None:
    store, now = RedisPeaks(redis), await now_ms(redis)
    over = {"at": now - 2000, "users": 5, "early": 1, "late": 1}
    going_on = {**over, "late": 600}
    await redis.hset(
        keys.PEAKS,
        mapping={
            "over": json.dumps(over),
            "on": json.dumps(going_on),
            "no": "{",
            "nor": "7",
            "words": json.dumps(going_on | {"users": "five"}),
            "digits": json.dumps(going_on | {"users": "5.5"}),
            "endless": json.dumps(going_on | {"late": float("inf")}),
        },
    )
    assert (await store.declare(Peak(now + 60_000, 1, "a"), 2, ""))[0] == "ok"
    assert await redis.hkeys(keys.PEAKS) == ["on", "a"]
    assert await store.remove("over") is None


async def test_at_hand_are_those_of_the_last_refresh(redis: Redis, tmp_path: Path) -> None:
    path = tmp_path / "peaks.toml"
    path.write_text(FILE)
    one = book(redis, str(path))
    assert one.now() == ()
    await one.refresh()
    assert [peak.name for peak in one.now()] == ["lecture"] * 3
    await one.declare(await exam(redis, 1))
    assert len(one.now()) == 3
    await one.refresh()
    assert [peak.name for peak in one.now()].count("exam") == 1
    times = [peak.at_ms for peak in one.now()]
    assert times == sorted(times)
    assert await one.in_file("lecture")
    assert not await one.in_file("exam")


async def test_a_file_that_breaks_leaves_what_it_said_before(redis: Redis, tmp_path: Path) -> None:
    path = tmp_path / "peaks.toml"
    path.write_text(FILE)
    one = book(redis, str(path))
    await one.refresh()
    known = one.now()
    path.write_text(FILE + "user = 5\n")
    await one.refresh()
    assert one.now() == known
    path.unlink()
    await one.refresh()
    assert one.now() == known
    path.write_text("# nobody comes any more\n")
    await one.refresh()
    assert one.now() == ()


async def test_who_leads_hears_of_it(redis: Redis, until: Callable[..., Any]) -> None:
    """Another gateway declares it; nobody waits for the minute to be over."""
    news = News(RedisSignals(redis))
    here, there = book(redis), book(redis)
    news.listen(here.on_event)
    await news.start()
    tasks = [asyncio.create_task(news.run()), asyncio.create_task(here.run())]
    try:
        await there.declare(await exam(redis))
        await until(lambda: bool(here.now()))
        await there.remove("exam")
        await until(lambda: not here.now())
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_other_news_are_no_reason_to_look(redis: Redis) -> None:
    one = book(redis)
    one.on_event(Event("1-0", "workspace.running", {}))
    assert not one._hurry.is_set()
    one.on_event(Event("1-0", "events.reset", {}))
    assert one._hurry.is_set()
