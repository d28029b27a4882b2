"""The outbox in Redis, which is also the log of deliveries: lifecycle.notices.deliveries.Outbox."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence

from redis.asyncio import Redis

from lifecycle.notices import Notice
from lifecycle.notices.deliveries import Answer, Delivery, Next, Status
from lifecycle.stores import Conflict, keys
from lifecycle.stores.connection import Scripts, asked
from lifecycle.stores.scripts.deliveries import CLAIM, NOTED, RETRY

READ_BATCH = 200  # rows of the log read at once


class RedisDeliveries:
    def __init__(self, redis: Redis) -> None:
        self._redis, self._scripts = redis, Scripts(redis)

    async def claim(self, limit: int, seconds: float) -> list[Delivery]:
        rows = await self._scripts.run(CLAIM, uuid.uuid4().hex, limit, int(seconds * 1000))
        return [found for row in rows if (found := delivery_from(_pairs(row)))]

    async def note(self, delivery: Delivery, answer: Answer, took_ms: int, then: Next) -> bool:
        due = "" if then.due_at_ms is None else str(then.due_at_ms)
        return bool(
            await self._scripts.run(
                NOTED, delivery.id, delivery.claim, then.status, due,
                "duration", took_ms, "code", answer.code, "answer", answer.said,
            )
        )  # fmt: skip

    async def retry(self, delivery_id: str) -> Delivery:
        """Begin anew with one that failed, or of which nothing is known. Raises Conflict; its actual status
        is "" when there is no such delivery."""
        said = await self._scripts.run(RETRY, delivery_id)
        found = delivery_from(await asked(self._redis.hgetall(keys.delivery(delivery_id))))
        if said == "gone" or found is None:
            raise Conflict(f"there is no delivery {delivery_id}")
        if said != "ok":
            raise Conflict(f"delivery {delivery_id} is {said}; it is not sent again", said)
        return found

    async def list(
        self, user_id: str | None = None, status: Status | None = None, limit: int = 100
    ) -> Sequence[Delivery]:
        """The log, newest first."""
        found: list[Delivery] = []
        start = 0
        while len(found) < limit:
            ids = await asked(self._redis.zrevrange(keys.DELIVERIES, start, start + READ_BATCH - 1))
            if not ids:
                break
            start += len(ids)
            async with self._redis.pipeline(transaction=False) as pipe:
                for one in ids:
                    pipe.hgetall(keys.delivery(one))
                rows = await asked(pipe.execute())
            found += [
                row
                for row in map(delivery_from, rows)
                if row is not None
                and user_id in (None, row.notice.user_id)
                and status in (None, row.status)
            ]
        return found[:limit]


def delivery_from(row: Mapping[str, str]) -> Delivery | None:
    """None for what has expired meanwhile."""
    if "id" not in row or "notice" not in row:
        return None
    notice = Notice(
        seq=int(row["seq"]),
        type=row["notice"],
        workspace_id=row["workspace"],
        user_id=row["user"],
        at_ms=int(row["at"]),
        text=row["text"],
        data=dict(json.loads(row["data"])),
    )
    return Delivery(
        id=row["id"],
        channel=row["channel"],
        notice=notice,
        name=row.get("name") or row["workspace"],
        to=row.get("to", ""),
        status=Status(row["status"]),
        attempts=int(row.get("attempts", 0)),
        retried=int(row.get("retried", 0)),
        created_at_ms=int(row.get("created", 0)),
        attempted_at_ms=int(row.get("attempted") or 0),
        due_at_ms=int(row.get("due") or 0),
        duration_ms=int(row.get("duration") or 0),
        code=int(row.get("code") or 0),
        answer=row.get("answer", ""),
        claim=row.get("claim", ""),
        interrupted=row.get("interrupted", "") == "1",
    )


def _pairs(flat: Sequence[str] | Mapping[str, str]) -> Mapping[str, str]:
    """A hash as a script returns it."""
    return flat if isinstance(flat, Mapping) else dict(zip(flat[::2], flat[1::2], strict=True))
