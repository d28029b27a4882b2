"""Heartbeats and since when they can be trusted; evictions; leases; events."""

from __future__ import annotations

import asyncio

import pytest
from redis.asyncio import Redis

from lifecycle.stores import keys
from lifecycle.stores.signals import HEARTBEAT_GAP_MS, Flush, RedisSignals


@pytest.fixture
def signals(redis: Redis) -> RedisSignals:
    return RedisSignals(redis)


async def now_ms(redis: Redis) -> int:
    seconds, micros = await redis.time()
    return int(seconds) * 1000 + int(micros) // 1000


async def shift(redis: Redis, ms: int) -> None:
    """As if the last flush had been `ms` later: below 0 it is long ago, above 0 in the future."""
    last = int(await redis.get(keys.LAST))
    await redis.set(keys.LAST, last + ms)


# Since when heartbeats can be trusted


async def test_nobody_ever_flushed_so_nothing_is_trusted(signals: RedisSignals) -> None:
    assert await signals.trusted_since_ms() is None


async def test_the_first_flush_starts_the_trust(signals: RedisSignals) -> None:
    first = (await signals.flush("g", Flush())).now_ms
    assert await signals.trusted_since_ms() == first


async def test_flushes_without_a_gap_keep_it(signals: RedisSignals, redis: Redis) -> None:
    first = (await signals.flush("g", Flush())).now_ms
    await shift(redis, -(HEARTBEAT_GAP_MS - 1000))
    await signals.flush("other", Flush())
    await signals.flush("g", Flush())
    assert await signals.trusted_since_ms() == first


async def test_a_gap_starts_it_anew(signals: RedisSignals, redis: Redis) -> None:
    first = (await signals.flush("g", Flush())).now_ms
    await shift(redis, -(HEARTBEAT_GAP_MS + 1000))
    again = (await signals.flush("g", Flush())).now_ms
    assert await signals.trusted_since_ms() == again
    assert again >= first


async def test_within_a_gap_nothing_is_trusted_before_the_first_flush(
    signals: RedisSignals, redis: Redis
) -> None:
    """Redis comes back after minutes. The leader's sweep may look before any gateway has flushed, and
    must not take the silence for idleness."""
    await signals.flush("g", Flush(sessions={"w1/g-1": 0}))
    assert await signals.trusted_since_ms() is not None
    await shift(redis, -(HEARTBEAT_GAP_MS + 1000))
    assert await signals.trusted_since_ms() is None
    again = (await signals.flush("g", Flush())).now_ms
    assert await signals.trusted_since_ms() == again


async def test_a_clock_that_went_back_starts_it_anew(signals: RedisSignals, redis: Redis) -> None:
    await signals.flush("g", Flush())
    await redis.set(keys.SINCE, await now_ms(redis) + 3_600_000)
    await shift(redis, 3_600_000)
    assert await signals.trusted_since_ms() is None
    again = (await signals.flush("g", Flush())).now_ms
    assert await signals.trusted_since_ms() == again


async def test_a_small_step_back_changes_nothing(signals: RedisSignals, redis: Redis) -> None:
    first = (await signals.flush("g", Flush())).now_ms
    await shift(redis, HEARTBEAT_GAP_MS - 1000)
    await signals.flush("g", Flush())
    assert await signals.trusted_since_ms() == first


async def test_a_flushed_redis_trusts_nothing_until_the_next_flush(
    signals: RedisSignals, redis: Redis
) -> None:
    await signals.flush("g", Flush())
    await redis.flushall()
    assert await signals.trusted_since_ms() is None
    again = (await signals.flush("g", Flush())).now_ms
    assert await signals.trusted_since_ms() == again


async def test_a_lost_since_alone_is_made_anew(signals: RedisSignals, redis: Redis) -> None:
    await signals.flush("g", Flush())
    await redis.delete(keys.SINCE)
    assert await signals.trusted_since_ms() is None
    again = (await signals.flush("g", Flush())).now_ms
    assert await signals.trusted_since_ms() == again


async def test_distrust_counts_from_now(signals: RedisSignals, redis: Redis) -> None:
    await signals.flush("g", Flush())
    await redis.set(keys.SINCE, 5)
    await signals.distrust("the clock jumped")
    assert (await signals.trusted_since_ms() or 0) > 5
    [event] = await signals.history("", 1)
    assert (event.type, event.data["reason"]) == ("heartbeats.distrusted", "the clock jumped")


# What a flush writes


async def test_ages_become_moments_by_redis_clock(signals: RedisSignals, redis: Redis) -> None:
    now = (await signals.flush("g", Flush(sessions={"w1/g-1": 0, "w1/g-2": 1500}))).now_ms
    seen = dict(await redis.zrange(keys.SESSIONS, 0, -1, withscores=True))
    assert seen == {"w1/g-1": now, "w1/g-2": now - 1500}
    assert await signals.gateways() == {"g": now}


async def test_a_later_flush_of_an_older_sighting_moves_nothing_back(
    signals: RedisSignals, redis: Redis
) -> None:
    first = (await signals.flush("g", Flush(sessions={"w1/g-1": 0}))).now_ms
    await signals.flush("g", Flush(sessions={"w1/g-1": 60_000}))
    assert await redis.zscore(keys.SESSIONS, "w1/g-1") == first


async def test_closed_sessions_go(signals: RedisSignals, redis: Redis) -> None:
    await signals.flush("g", Flush(sessions={"w1/g-1": 0, "w1/g-2": 0}))
    await signals.flush("g", Flush(sessions={"w1/g-1": 0}, closed=["w1/g-1"]))
    assert await redis.zrange(keys.SESSIONS, 0, -1) == ["w1/g-2"]


async def test_activity_of_what_does_not_run_is_dropped(
    signals: RedisSignals, redis: Redis
) -> None:
    """A frame that was in flight while it stopped must not look like life later."""
    await signals.flush("g", Flush(active={"w1": {"frames": [0, "frames of session g-1"]}}))
    assert await redis.zrange(keys.WORKSPACES, 0, -1) == []
    assert not await redis.exists(keys.workspace("w1"))


@pytest.mark.parametrize("status", ["running", "starting"])
async def test_each_kind_of_activity_has_its_moment_and_source(
    signals: RedisSignals, redis: Redis, status: str
) -> None:
    record = keys.workspace("w1")
    await redis.hset(record, "status", status)
    active = {"w1": {"frames": [1000, "frames of session a-1"], "input": [3000, "browser"]}}
    now = (await signals.flush("a", Flush(active=active))).now_ms
    assert await redis.hgetall(record) == {
        "status": status,
        "seen:frames": str(now - 1000), "source:frames": "frames of session a-1",
        "seen:input": str(now - 3000), "source:input": "browser",
    }  # fmt: skip
    assert await redis.zscore(keys.WORKSPACES, "w1") == now - 1000, "the newest of any"


async def test_what_was_seen_earlier_takes_no_kind_back(
    signals: RedisSignals, redis: Redis
) -> None:
    record = keys.workspace("w1")
    await redis.hset(record, "status", "running")
    now = (await signals.flush("a", Flush(active={"w1": {"input": [0, "browser"]}}))).now_ms
    late = {"w1": {"input": [60_000, "visit"], "frames": [90_000, "frames of session b-1"]}}
    later = (await signals.flush("b", Flush(active=late))).now_ms
    assert await redis.hmget(record, "seen:input", "source:input") == [str(now), "browser"]
    assert await redis.hget(record, "seen:frames") == str(later - 90_000)
    assert await redis.zscore(keys.WORKSPACES, "w1") == now


async def test_connections_are_the_whole_of_it_or_unchanged(signals: RedisSignals) -> None:
    await signals.flush("g", Flush(connections={"w1": 2, "w2": 1}))
    await signals.flush("g", Flush())
    assert await signals.connections("g") == {"w1": 2, "w2": 1}
    await signals.flush("g", Flush(connections={"w2": 1}))
    assert await signals.connections("g") == {"w2": 1}
    await signals.flush("g", Flush(connections={}))
    assert await signals.connections("g") == {}


async def test_events_ride_along(signals: RedisSignals) -> None:
    fields = {"workspace": "w1", "session": "g-1", "text": 'ünï "quoted" \n'}
    await signals.flush("g", Flush(events=[("session.opened", fields), ("session.closed", {})]))
    opened, closed = await signals.history("", 10)
    assert (opened.type, opened.data) == ("session.opened", fields)
    assert (closed.type, closed.data) == ("session.closed", {})
    assert opened.at_ms > 0


# Evictions and gateways that are gone


async def test_an_eviction_takes_and_tells_in_one_step(signals: RedisSignals, redis: Redis) -> None:
    seen = (await signals.flush("g-1", Flush(sessions={"w1/g-1-7": 0}))).now_ms
    assert await signals.evict("w1/g-1-7", seen, "no heartbeat")
    assert await redis.zcard(keys.SESSIONS) == 0
    [event] = await signals.history("", 1)
    assert event.type == "session.evicted"
    assert event.data == {
        "workspace": "w1", "session": "g-1-7", "gateway": "g-1", "reason": "no heartbeat",
    }  # fmt: skip
    assert not await signals.evict("w1/g-1-7", seen, "no heartbeat"), "it is gone already"


async def test_a_session_seen_meanwhile_is_not_evicted(signals: RedisSignals, redis: Redis) -> None:
    seen = (await signals.flush("g", Flush(sessions={"w1/g-1": 0}))).now_ms
    assert not await signals.evict("w1/g-1", seen - 1, "no heartbeat")
    assert await redis.zcard(keys.SESSIONS) == 1
    assert await signals.history("", 1) == []


async def test_of_two_leaders_one_evicts(signals: RedisSignals) -> None:
    seen = (await signals.flush("g", Flush(sessions={"w1/g-1": 0}))).now_ms
    evicted = await asyncio.gather(*(signals.evict("w1/g-1", seen, "x") for _ in range(4)))
    assert sum(evicted) == 1


async def test_quiet_sessions_are_found_by_when_they_were_seen(signals: RedisSignals) -> None:
    now = (await signals.flush("g", Flush(sessions={"w1/g-1": 5000, "w1/g-2": 1000}))).now_ms
    assert await signals.sessions_seen_before(now - 5000) == [("w1/g-1", now - 5000)]
    assert await signals.sessions_seen_before(now - 5001) == []


async def test_a_gateway_is_forgotten_unless_it_spoke(signals: RedisSignals) -> None:
    seen = (await signals.flush("g", Flush(connections={"w1": 1}))).now_ms
    assert not await signals.forget_gateway("g", seen - 1)
    assert await signals.connections("g") == {"w1": 1}
    assert await signals.forget_gateway("g", seen)
    assert await signals.gateways() == {}
    assert await signals.connections("g") == {}


async def test_the_last_gateway_to_leave_is_told(signals: RedisSignals) -> None:
    await signals.flush("a", Flush(connections={"w1": 1}))
    await signals.flush("b", Flush())
    assert await signals.leave("a") == ["b"]
    assert await signals.connections("a") == {}
    assert await signals.leave("b") == []


# The lease


async def test_the_lease_is_one_gateways_and_its_token_grows(
    signals: RedisSignals, redis: Redis
) -> None:
    assert await signals.take_lease("a b", 60) == 1
    assert await signals.take_lease("a b", 60) == 1, "renewed"
    assert await signals.take_lease("c", 60) == 0
    assert await signals.lease_holder() == "a b"
    await signals.give_lease("a b")
    assert await signals.take_lease("c", 60) == 2
    assert 0 < await redis.pttl(keys.LEASE) <= 60_000


async def test_a_renewal_starts_its_time_anew(signals: RedisSignals, redis: Redis) -> None:
    await signals.take_lease("a", 60)
    await redis.pexpire(keys.LEASE, 1000)
    await signals.take_lease("a", 60)
    assert await redis.pttl(keys.LEASE) > 50_000


# Events


async def test_history_is_read_forward_from_an_id_or_from_the_end(signals: RedisSignals) -> None:
    for n in range(5):
        await signals.tell("x", {"n": str(n), "empty": ""})
    newest = await signals.history("", 2)
    assert [event.data for event in newest] == [{"n": "3"}, {"n": "4"}]
    assert [e.data["n"] for e in await signals.history(newest[0].id, 10)] == ["4"]
    assert await signals.last_event_id() == newest[-1].id


async def test_a_tail_waits_for_the_first_and_gives_up(signals: RedisSignals) -> None:
    assert await signals.tail("$", 0.05) == []
    waiting = asyncio.ensure_future(signals.tail("0-0", 5))
    await asyncio.sleep(0)
    await signals.tell("x", {"n": "1"})
    assert [event.data["n"] for event in await waiting] == ["1"]


async def test_an_empty_stream_ends_at_its_beginning(signals: RedisSignals) -> None:
    assert await signals.last_event_id() == "0-0"
