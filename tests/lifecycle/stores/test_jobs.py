"""A job in the record: since when, and that its end takes the bound along."""

from __future__ import annotations

from redis.asyncio import Redis

from lifecycle.model import WorkspaceStatus as W
from lifecycle.stores import keys
from lifecycle.stores.redis import RedisStore
from lifecycle.stores.signals import RedisSignals
from tests.lifecycle.stores.test_redis import ready_machine


async def test_a_job_begins_goes_on_ends_and_the_next_has_its_own_time(redis: Redis) -> None:
    store = RedisStore(redis)
    one, _ = await store.ensure("ada")
    one = await store.wake(one.id)
    one = await store.change(one, W.STARTING, place=await ready_machine(store))
    assert not await store.job(one, "too early")
    one = await store.change(one, W.RUNNING)
    assert await store.job(one, "python3 train.py (pid 7)")
    first = await store.get(one.id)
    assert first is not None
    assert (first.job, first.sources["job"]) == ("python3 train.py (pid 7)",) * 2
    assert first.job_since_ms == first.seen["job"] > 0
    assert await redis.zscore(keys.DUE, one.id) <= await store.now_ms()

    await redis.hset(keys.workspace(one.id), "jobSince", first.job_since_ms - 5000)
    assert not await store.job(one, "python3 train.py (pid 7)"), "it goes on"
    again = await store.get(one.id)
    assert again is not None
    assert again.job_since_ms == first.job_since_ms - 5000
    assert await store.job(one, "")
    ended = await store.get(one.id)
    assert ended is not None
    assert (ended.job, ended.job_since_ms) == ("", 0)
    assert ended.seen["job"] >= first.seen["job"], "it was active until then"
    assert await store.job(one, "kernel python3 is busy")
    anew = await store.get(one.id)
    assert anew is not None
    assert anew.job_since_ms >= ended.seen["job"]
    told = [e for e in await RedisSignals(redis).history("", 50) if e.type == "workspace.job"]
    assert [event.data["state"] for event in told] == ["began", "ended", "began"]

    one = await store.change(one, W.STOPPED, chain=(W.STOPPING,))
    assert not await store.job(one, "late"), "its boot is over"
