"""How fast things go, from Redis."""

from __future__ import annotations

from redis.asyncio import Redis

from lifecycle.pace import AGES, Pace, middle
from lifecycle.stores.connection import Scripts
from lifecycle.stores.scripts.pace import PACE


class RedisPace:
    def __init__(self, redis: Redis) -> None:
        self._scripts = Scripts(redis)

    async def look(self) -> Pace:
        """Now, in one step. Raises StoreUnavailable."""
        answer = await self._scripts.run(PACE, *(round(age * 1000) for age in AGES))
        now_ms, users, starting, boots, launches, starts, runs, held, arrivals = answer
        now_ms = int(now_ms)
        came = (row.split() for row in arrivals)
        return Pace(
            now_ms,
            users=users,
            booting=[max(0.0, (now_ms - float(since)) / 1000) for since in starting[1::2]],
            boots=seconds(boots),
            launches=seconds(launches),
            starts=seconds(starts),
            runs=seconds(runs),
            running=[(middle(step), count) for step, count in enumerate(held) if count],
            arrivals=[(max(0, now_ms - int(at)) / 1000, int(worth) / 1000) for at, worth in came],
        )


def seconds(rows: list[str]) -> list[float]:
    """Of milliseconds."""
    return [int(each) / 1000 for each in rows]
