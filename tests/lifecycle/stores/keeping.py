"""Records in this process, held to the same contract as the real ones; a Redis that goes back in time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Literal

from redis.asyncio import Redis

from lifecycle.stores import keys
from lifecycle.stores.records import DELETED, Record, Records


class MemoryRecords:
    """gate: awaited before and after every call, for tests that let somebody die or come first there."""

    name = "memory"

    def __init__(self) -> None:
        self.kept: dict[str, Record] = {}
        self.gate: Callable[[Literal["before", "after"], str], Awaitable[None]] | None = None

    async def open(self) -> None:
        pass

    async def get(self, workspace_id: str) -> Record | None:
        await self._pass("before", "get")
        found = self.kept.get(workspace_id)
        await self._pass("after", "get")
        return found

    async def put(self, record: Record, over: Record | None) -> bool:
        await self._pass("before", "put")
        there = self.kept.get(record.workspace_id)
        fits = _key(there) == _key(over)
        if fits:
            self.kept[record.workspace_id] = record
        await self._pass("after", "put")
        return fits

    async def scan(self) -> AsyncIterator[Record]:
        for record in list(self.kept.values()):
            await self._pass("before", "scan")
            yield record

    async def close(self) -> None:
        pass

    async def _pass(self, when: Literal["before", "after"], call: str) -> None:
        if self.gate is not None:
            await self.gate(when, call)


def _key(record: Record | None) -> tuple[object, ...]:
    return (record.status, record.epoch, record.stamp) if record else ()


class Failover:
    """Redis as it was at a moment: what it wrote after that is lost when it is put back."""

    def __init__(self, redis: Redis) -> None:
        self._client = Redis(connection_pool=_raw(redis))
        self._dumps: dict[bytes, bytes] = {}

    async def remember(self) -> None:
        names = await self._client.keys("*")
        self._dumps = {name: await self._client.dump(name) for name in names}

    async def happen(self) -> None:
        await self._client.flushall()
        for name, dump in self._dumps.items():
            await self._client.restore(name, 0, dump)

    async def close(self) -> None:
        await self._client.aclose()
        await self._client.connection_pool.disconnect()


def _raw(redis: Redis) -> Any:
    pool = redis.connection_pool
    arguments = {**pool.connection_kwargs, "decode_responses": False}
    return type(pool)(connection_class=pool.connection_class, **arguments)


async def agree(redis: Redis, records: Records) -> None:
    """Redis has what is kept, what is kept is what Redis has, and nothing is pending."""
    kept = {record.workspace_id: record async for record in records.scan()}
    ours = [key async for key in redis.scan_iter("workspace:*")]
    for key in ours:
        row = await redis.hgetall(key)
        theirs = kept.pop(row["workspaceId"])
        assert theirs.stamp == int(row["stamp"]), "the newest change is kept"
        for name in ("status", "epoch", "machineId", "address", "secret", "next", "userId"):
            assert theirs.row().get(name, "") == row.get(name, ""), name
    assert {record.status for record in kept.values()} <= {DELETED}
    for record in kept.values():
        assert await redis.get(keys.last_epoch(record.workspace_id)) == str(record.epoch)
    assert await redis.smembers(keys.PENDING) == set()
    assert [key async for key in redis.scan_iter("deleted:*")] == []
