"""Notices in Redis: lifecycle.notices.Notices, and what people want to hear of."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from redis.asyncio import Redis

from lifecycle.model import Workspace
from lifecycle.notices import Notice
from lifecycle.stores import keys
from lifecycle.stores.connection import Scripts, asked
from lifecycle.stores.scripts.notices import NOTIFY


class RedisNotices:
    def __init__(self, redis: Redis, channels: Sequence[str] = ()) -> None:
        """channels: those that are set up besides the IDE's own: "webhook", "email"."""
        self._redis, self._scripts = redis, Scripts(redis)
        self._channels = " ".join(channels)

    async def tell(
        self, workspace: Workspace, type: str, key: str, text: str, data: Mapping[str, str]
    ) -> int:
        body = json.dumps(dict(data))
        return int(
            await self._scripts.run(NOTIFY, workspace.id, type, key, text, body, self._channels)
        )

    async def since(self, workspace_id: str, seq: int, limit: int = 50) -> list[Notice]:
        rows = await asked(self._redis.lrange(keys.notices(workspace_id), 0, -1))
        found = [_notice(workspace_id, json.loads(row)) for row in rows]
        if found and seq > found[-1].seq:
            seq = 0  # numbers that a Redis gave which lost them since
        return [notice for notice in found if notice.seq > seq][:limit]


def _notice(workspace_id: str, row: Mapping[str, Any]) -> Notice:
    return Notice(
        seq=int(row["seq"]),
        type=row["type"],
        workspace_id=workspace_id,
        user_id=row["user"],
        at_ms=int(row["at"]),
        text=row["text"],
        data=dict(row["data"]),
    )
