"""Metered intervals in Redis, as scripts/metering.py wrote them."""

from __future__ import annotations

from redis.asyncio import Redis

from lifecycle.stores import keys
from lifecycle.stores.connection import asked
from lifecycle.usage import Total, month_of, totals

Row = tuple[str, int, int, int, str, str, int]
"""Workspace, epoch, start ms, end ms, kind, class, bytes: what lifecycle.usage.Interval is made of."""

OLD_FORM_MS = 31 * 86_400_000
"""Members of four parts are scored by their start: as far back as one may reach that is asked for."""


class RedisUsage:
    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def usage(self, user_id: str, since_ms: int = 0) -> list[Row]:
        """Closed intervals that end after since_ms, oldest first; none for an unknown user. O(log n + found)."""
        lowest = max(0, since_ms - OLD_FORM_MS)
        members = await asked(self._redis.zrangebyscore(keys.usage(user_id), lowest, "+inf"))
        return [row for row in map(_row, members) if row[3] > since_ms]

    async def users(self, since_ms: int) -> list[str]:
        """Users with intervals that end after since_ms, or are open, by name."""
        return sorted(
            await asked(self._redis.zrangebyscore(keys.USAGE_USERS, f"({since_ms}", "+inf"))
        )

    async def totals(self, now_ms: int) -> list[Total]:
        """Of everybody, in this month until now: O(classes), however many they are."""
        month = month_of(now_ms)
        async with self._redis.pipeline(transaction=True) as pipe:
            for key in (keys.used(month), keys.USED_OPEN, keys.USED_SINCE):
                pipe.hgetall(key)
            ended, going_on, since = await asked(pipe.execute())
        return totals(ended, going_on, since, month, now_ms)


def _row(member: str) -> Row:
    parts = member.split("/")
    if len(parts) == 4:  # as they were before kinds, classes and sizes
        parts[2:2] = ["running", "", "0"]
    workspace, epoch, kind, billed_as, size, start, end = parts
    return workspace, int(epoch), int(start), int(end), kind, billed_as, int(float(size))
