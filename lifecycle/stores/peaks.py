"""Declared peaks in Redis."""

from __future__ import annotations

import json
from typing import Literal, cast

from redis.asyncio import Redis

from lifecycle.peaks import Peak
from lifecycle.stores.connection import Scripts, pairs
from lifecycle.stores.scripts.peaks import PEAK_DECLARE, PEAK_REMOVE, PEAKS

Declared = Literal["ok", "past", "full"]


class RedisPeaks:
    def __init__(self, redis: Redis) -> None:
        self._scripts = Scripts(redis)

    async def current(self) -> tuple[int, list[Peak]]:
        """Now, by Redis's clock, and those that are not over, by name."""
        now, rows = await self._scripts.run(PEAKS)
        return int(now), [_peak(name, body) for name, body in sorted(pairs(rows).items())]

    async def declare(self, peak: Peak, most: int, reason: str) -> tuple[Declared, int]:
        """Write it down in place of one of its name. "past": its time is; "full": there are `most` already. And
        now."""
        body = json.dumps(
            {"at": peak.at_ms, "users": peak.users, "early": peak.early, "late": peak.late}
        )
        outcome, now = await self._scripts.run(
            PEAK_DECLARE, peak.name, body, peak.at_ms, most, reason
        )
        return cast(Declared, str(outcome)), int(now)

    async def remove(self, name: str) -> Peak | None:
        """What was removed; None when there was none (any more)."""
        body = await self._scripts.run(PEAK_REMOVE, name)
        return _peak(name, body) if body else None


def _peak(name: str, body: str) -> Peak:
    row = json.loads(body)
    return Peak(int(row["at"]), int(row["users"]), name, float(row["early"]), float(row["late"]))
