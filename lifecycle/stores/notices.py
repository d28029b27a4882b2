"""Notices in Redis: lifecycle.notices.Notices, and what people want to hear of."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from redis.asyncio import Redis

from lifecycle.model import Workspace
from lifecycle.notices import TYPES, Notice, Preferences
from lifecycle.stores import keys
from lifecycle.stores.connection import Scripts, asked
from lifecycle.stores.scripts.deliveries import PREFER
from lifecycle.stores.scripts.notices import NOTIFY

_OPT_OUT = "optOut:"


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

    async def followed(self) -> str:
        """The newest event that notices were made from; "" before the first."""
        return str(await asked(self._redis.get(keys.NOTICES_CURSOR)) or "")

    async def follow_from(self, event_id: str) -> None:
        await asked(self._redis.set(keys.NOTICES_CURSOR, event_id))

    async def preferences(self, user_id: str) -> Preferences:
        row = await asked(self._redis.hgetall(keys.preferences(user_id)))
        out = {
            name.removeprefix(_OPT_OUT): tuple(value.split())
            for name, value in row.items()
            if name.startswith(_OPT_OUT)
        }
        return Preferences(row.get("email", ""), out)

    async def prefer(
        self,
        user_id: str,
        email: str | None = None,
        opt_out: Mapping[str, Sequence[str]] | None = None,
    ) -> Preferences:
        """Write down what is given: an address ("" for none), every type's channels that are not wanted."""
        pairs = []
        for type in TYPES if opt_out is not None else ():
            pairs += [_OPT_OUT + type, " ".join(sorted(set((opt_out or {}).get(type, ()))))]
        await self._scripts.run(PREFER, user_id, "-" if email is None else email, *pairs)
        return await self.preferences(user_id)


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
