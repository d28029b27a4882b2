"""Notices on a real Valkey: told once, numbered, bounded, with a delivery by every channel that is wanted."""

from __future__ import annotations

import asyncio

import pytest
from redis.asyncio import Redis

from lifecycle.model import Workspace, WorkspaceStatus
from lifecycle.notices import QUOTA, STOPPED, STOPPING_SOON
from lifecycle.stores.notices import RedisNotices
from lifecycle.stores.redis import RedisStore
from lifecycle.stores.signals import RedisSignals

BOTH = ("webhook", "email")


@pytest.fixture
async def workspace(redis: Redis) -> Workspace:
    return (await RedisStore(redis).ensure("ada", "demo"))[0]


async def test_a_notice_is_told_once_however_many_tell_it(
    redis: Redis, workspace: Workspace
) -> None:
    tellers = [RedisNotices(redis, ["webhook"]) for _ in range(8)]
    said = await asyncio.gather(
        *(
            each.tell(workspace, STOPPED, "stop/3", "“demo” stopped", {"at": "5", "reason": "idle"})
            for each in tellers
        )
    )
    assert sorted(said) == [0] * 7 + [1]
    [notice] = await tellers[0].since(workspace.id, 0)
    assert (notice.seq, notice.type, notice.user_id, notice.text) == (
        1,
        STOPPED,
        "ada",
        "“demo” stopped",
    )
    assert notice.data == {"at": "5", "reason": "idle"}
    assert notice.at_ms > 0
    assert await redis.zcard("deliveries:due") == 1
    events = await RedisSignals(redis).history("0-0", 100)
    [event] = [event for event in events if event.type == "workspace.notice"]
    assert event.data == {
        "workspace": workspace.id, "user": "ada", "seq": "1", "notice": STOPPED,
        "text": "“demo” stopped", "at": "5", "reason": "idle",
    }  # fmt: skip


async def test_what_came_after_a_number_comes_in_order_and_only_the_newest_are_kept(
    redis: Redis, workspace: Workspace
) -> None:
    notices = RedisNotices(redis)
    for n in range(1, 61):
        assert await notices.tell(workspace, STOPPED, f"stop/{n}", f"stop {n}", {}) == n
    assert [each.seq for each in await notices.since(workspace.id, 57)] == [58, 59, 60]
    assert [each.seq for each in await notices.since(workspace.id, 0)] == list(range(11, 61))
    assert [each.seq for each in await notices.since(workspace.id, 0, 2)] == [11, 12]
    assert await notices.since(workspace.id, 60) == []
    # A number that this Redis has not given: it lost those it gave, so nothing can be left out.
    assert len(await notices.since(workspace.id, 99)) == 50
    for key in (f"notices:{workspace.id}", f"noticed:{workspace.id}"):
        assert 39 * 86400 < await redis.ttl(key) <= 40 * 86400


async def test_an_opt_out_holds_for_its_type_and_channel(
    redis: Redis, workspace: Workspace
) -> None:
    notices = RedisNotices(redis, BOTH)
    await redis.hset("preferences:ada", f"optOut:{STOPPED}", "ide webhook")
    await redis.hset("preferences:ada", f"optOut:{STOPPING_SOON}", "ide email")
    await redis.hset("preferences:ada", "email", "ada@example.org")
    await notices.tell(workspace, STOPPED, "a", "stopped", {})
    await notices.tell(workspace, STOPPING_SOON, "b", "stops soon", {})
    made = [
        await redis.hgetall(f"delivery:{one}") for one in await redis.zrange("deliveries", 0, 9)
    ]
    assert {(row["notice"], row["channel"], row["to"]) for row in made} == {
        (STOPPED, "email", "ada@example.org"),
        (STOPPING_SOON, "webhook", ""),
    }
    # In the IDE nobody can choose not to be told before it stops.
    assert [each.type for each in await notices.since(workspace.id, 0)] == [STOPPING_SOON]


async def test_without_an_address_there_is_no_mail_and_without_a_workspace_nothing(
    redis: Redis, workspace: Workspace
) -> None:
    notices = RedisNotices(redis, ["email"])
    assert await notices.tell(workspace, STOPPED, "a", "stopped", {}) == 1
    assert await redis.exists("deliveries", "deliveries:due") == 0
    await redis.delete(f"workspace:{workspace.id}")
    assert await notices.tell(workspace, STOPPED, "b", "stopped", {}) == 0


async def test_an_alert_of_a_quota_is_told_a_user_once(redis: Redis, workspace: Workspace) -> None:
    other = (await RedisStore(redis).ensure("ada", "second"))[0]
    stranger = (await RedisStore(redis).ensure("eve"))[0]
    notices = RedisNotices(redis)
    said = [
        await notices.tell(w, QUOTA, "day/75", "75 %", {}) for w in (workspace, other, stranger)
    ]
    assert said == [1, 0, 1]


async def test_the_log_is_bounded_in_number_and_age(redis: Redis, workspace: Workspace) -> None:
    notices = RedisNotices(redis, ["webhook"])
    rows = {f"old-{n}": 1 + n for n in range(50)}  # from 1970
    await redis.zadd("deliveries", rows)
    await redis.zadd("deliveries:due", rows)
    await notices.tell(workspace, STOPPED, "a", "stopped", {})
    [kept] = await redis.zrange("deliveries", 0, -1)
    assert await redis.zrange("deliveries:due", 0, -1) == [kept]
    now = int((await redis.hgetall(f"delivery:{kept}"))["created"])
    await redis.zadd("deliveries", {f"new-{n}": now + 1 + n for n in range(10_000)})
    await notices.tell(workspace, STOPPED, "b", "stopped", {})
    assert await redis.zcard("deliveries") == 10_000
    assert await redis.exists(f"delivery:{kept}") == 0


async def test_a_deleted_workspace_leaves_no_notices(redis: Redis, workspace: Workspace) -> None:
    store, notices = RedisStore(redis), RedisNotices(redis)
    await notices.tell(workspace, STOPPED, "a", "stopped", {})
    for step in (WorkspaceStatus.TERMINATING, WorkspaceStatus.TERMINATED):
        workspace = await store.change(workspace, step)
    await store.delete(workspace.id)
    assert [key async for key in redis.scan_iter("notic*")] == []
