"""What one workspace is given beside its plan: its own policy, a longer keep, a pin."""

from __future__ import annotations

import pytest
from redis.asyncio import Redis

from lifecycle.stores import Conflict, keys
from lifecycle.stores.redis import RedisStore


async def test_each_is_kept_told_and_looked_at(redis: Redis) -> None:
    store = RedisStore(redis)
    made, _ = await store.ensure("ada")
    await redis.delete(keys.DUE)
    long = await store.keep(made.id, 500)
    assert await redis.zscore(keys.DUE, made.id) is not None
    assert long.keep_until_ms >= await store.now_ms() + 490_000
    assert (await store.keep(made.id, 5)).keep_until_ms == long.keep_until_ms, "never shortened"
    assert (await store.set_policy(made.id, '{"keep": true}')).own_policy == '{"keep": true}'
    assert (await store.pin(made.id, True)).pinned
    assert not (await store.pin(made.id, False)).pinned
    told = [row["type"] for _, row in await redis.xrange("events")][-5:]
    kinds = ("kept", "kept", "policy", "pinned", "unpinned")
    assert told == [f"workspace.{kind}" for kind in kinds]
    with pytest.raises(Conflict):
        await store.pin("ws-unknown", True)
    assert not await redis.exists(keys.workspace("ws-unknown"))
