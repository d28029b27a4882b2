"""What users have taken of their quotas, in Redis."""

from __future__ import annotations

import json
from collections.abc import Sequence

from redis.asyncio import Redis

from lifecycle.quota import Taken
from lifecycle.stores import keys, scripts
from lifecycle.stores.connection import Scripts, asked


class RedisQuotas:
    """Raises StoreUnavailable, as every store does."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._scripts = Scripts(redis)

    async def taken(self, user_id: str) -> Taken:
        """Now, in one step; O(their workspaces and the gateways)."""
        row = json.loads(await self._scripts.run(scripts.TAKEN, user_id))
        return Taken(
            now_ms=int(row["now"]),
            workspaces=row["workspaces"],
            running=row["running"],
            sessions=row["sessions"],
            counting=row["open"],
            day_ms=int(row["day"]),
            month_ms=int(row["month"]),
            day_ends_ms=int(row["dayEnds"]),
            month_ends_ms=int(row["monthEnds"]),
            periods=(row["period"][0], row["period"][1]),
            told={quota: mark for quota, mark in row["told"].items() if mark},
        )

    async def told(self, user_id: str, quota: str, mark: str) -> None:
        """Their person was told of that period and threshold."""
        await asked(self._redis.hset(keys.hours(user_id), f"told:{quota}", mark))

    async def due(self, now_ms: int, limit: int) -> list[tuple[str, str]]:
        """Users whose hours have to be looked at, most urgent first, each with the score that again()
        takes: O(log n + found)."""
        rows = await asked(
            self._redis.zrangebyscore(
                keys.QUOTA_DUE, "-inf", now_ms, start=0, num=limit, withscores=True
            )
        )
        return [(str(row[0]), f"{float(row[1]):.0f}") for row in rows]

    async def again(self, user_id: str, seen: str, at_ms: int | None) -> None:
        """When to look again; None: not before they start something. One who did meanwhile stays due."""
        after = "" if at_ms is None else str(at_ms)
        await self._scripts.run(scripts.QUOTA_AGAIN, user_id, seen, after)

    async def everybody_due(self) -> int:
        """Look at everybody who runs something; how many workspaces run."""
        return int(await self._scripts.run(scripts.QUOTA_DUE))

    async def stop_by(self, workspace_ids: Sequence[str], seconds: float | None) -> list[str]:
        """Let those that run stop in so many seconds, whatever happens in them; None: they need not, as
        far as that was on account of quotas. Which were changed."""
        if not workspace_ids:
            return []
        after = "" if seconds is None else str(int(seconds * 1000))
        changed = await self._scripts.run(scripts.QUOTA_STOP, after, *workspace_ids)
        return [str(each) for each in changed]

    async def admit(self, user_id: str, member: str, bound: int) -> bool:
        """Whether one more session of theirs may open, over all gateways. member: as in heartbeat:sessions."""
        return bool(await self._scripts.run(scripts.ADMIT, user_id, member, bound))

    async def release(self, user_id: str, member: str) -> None:
        """That session is over."""
        await self._scripts.run(scripts.RELEASE, user_id, member)
