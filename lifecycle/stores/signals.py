"""Heartbeats, the lease and events in Redis."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from redis.asyncio import Redis

from lifecycle.model import Event
from lifecycle.stores import keys, scripts
from lifecycle.stores.connection import Scripts, asked

NOTICE_KEPT = 120  # seconds
HEARTBEAT_GAP_MS = 10_000  # no gateway flushed for this long: old heartbeats say nothing any more


@dataclass(slots=True)
class Flush:
    """What one gateway saw in about a second. Ages are milliseconds before now: clocks never meet."""

    sessions: dict[str, int] = field(default_factory=dict)
    active: dict[str, dict[str, list[Any]]] = field(default_factory=dict)
    """Workspace → kind of signal → [age, what it was seen of]."""
    closed: list[str] = field(default_factory=list)
    connections: dict[str, int] | None = None
    """Workspace → open sessions, the whole of it; None when nothing changed."""
    events: list[tuple[str, dict[str, str]]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Flushed:
    """now_ms: Redis's. new: nothing was known of this gateway, nor of what it told before."""

    now_ms: int
    new: bool


class RedisSignals:
    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._scripts = Scripts(redis)

    async def flush(self, gateway: str, seen: Flush) -> Flushed:
        """Write a gateway's second down, one round trip."""
        body = json.dumps(
            {
                "sessions": seen.sessions,
                "active": seen.active,
                "closed": seen.closed,
                "connections": seen.connections,
                "events": seen.events,
            }
        )
        now, new = await self._scripts.run(scripts.FLUSH, gateway, HEARTBEAT_GAP_MS, body)
        return Flushed(int(now), bool(new))

    async def trusted_since_ms(self) -> int | None:
        """Since when heartbeats have come without a gap; None when none came of late."""
        value = await self._scripts.run(scripts.TRUSTED, HEARTBEAT_GAP_MS)
        return None if value is None else int(float(value))

    async def distrust(self, reason: str) -> None:
        """Count idleness from now: what was heard before says nothing."""
        await self._scripts.run(scripts.DISTRUST, reason)

    async def sessions_seen_before(self, before_ms: int) -> list[tuple[str, int]]:
        """(`workspace/session`, last seen) not after before_ms: O(log n + found)."""
        rows = await asked(
            self._redis.zrangebyscore(keys.SESSIONS, "-inf", before_ms, withscores=True)
        )
        return [(str(row[0]), int(float(row[1]))) for row in rows]

    async def evict(self, member: str, unless_seen_since_ms: int, reason: str) -> bool:
        return bool(await self._scripts.run(scripts.EVICT, member, unless_seen_since_ms, reason))

    async def gateways(self) -> dict[str, int]:
        """Gateway → its last flush."""
        rows = await asked(self._redis.zrange(keys.GATEWAYS, 0, -1, withscores=True))
        return {str(row[0]): int(float(row[1])) for row in rows}

    async def connections(self, gateway: str) -> dict[str, int]:
        """Workspace → open sessions on that gateway, as it last said."""
        rows = await asked(self._redis.hgetall(keys.connections(gateway)))
        return {name: int(count) for name, count in rows.items()}

    async def forget_gateway(self, gateway: str, unless_seen_since_ms: int) -> bool:
        return bool(await self._scripts.run(scripts.FORGET_GATEWAY, gateway, unless_seen_since_ms))

    async def leave(self, gateway: str) -> list[str]:
        """This gateway ends. The others that flushed of late; the last one on this Redis gets none."""
        return list(await self._scripts.run(scripts.LEAVE, gateway, HEARTBEAT_GAP_MS))

    async def take_lease(self, holder: str, ttl: float) -> int:
        """Take or renew it: the fencing token, 0 while somebody else has it. ttl: seconds."""
        return int(await self._scripts.run(scripts.LEASE_TAKE, holder, int(ttl * 1000)))

    async def give_lease(self, holder: str) -> None:
        await self._scripts.run(scripts.LEASE_GIVE, holder)

    async def lease_holder(self) -> str:
        value = await asked(self._redis.get(keys.LEASE))
        return str(value or "").rpartition(" ")[0]

    async def due(self) -> tuple[int, int]:
        """Workspaces that the lifecycle has to look at by now, and notices that wait for a delivery."""
        looks, deliveries = await self._scripts.run(scripts.DUE)
        return int(looks), int(deliveries)

    async def tell(self, kind: str, fields: Mapping[str, str]) -> None:
        """Append an event that goes with no change of a record."""
        row: dict[Any, Any] = {
            "type": kind,
            **{name: value for name, value in fields.items() if value},
        }
        await asked(
            self._redis.xadd(keys.EVENTS, row, maxlen=scripts.EVENTS_KEPT, approximate=True)
        )

    async def notice(self, text: str) -> None:
        """What the pool could not do as it was asked, for the people who wait for a machine."""
        body = json.dumps({"text": text})
        await asked(self._redis.set(keys.NOTICE, body, ex=NOTICE_KEPT))
        await self.tell("pool.notice", {"reason": text})

    async def last_notice(self) -> str:
        """The newest notice of the last two minutes, or ""."""
        value = await asked(self._redis.get(keys.NOTICE))
        return str(json.loads(value)["text"]) if value else ""

    async def history(self, after_id: str, limit: int) -> list[Event]:
        """Events after that id, oldest first. after_id "" gives the newest `limit`."""
        if after_id:
            rows = await asked(self._redis.xrange(keys.EVENTS, f"({after_id}", "+", count=limit))
        else:
            rows = (await asked(self._redis.xrevrange(keys.EVENTS, count=limit)))[::-1]
        return [event_from(row) for row in rows]

    async def tail(self, after_id: str, block: float) -> list[Event]:
        """Events after that id, waiting up to `block` seconds for the first. "$" means from now on."""
        answer: Any = await asked(
            self._redis.xread({keys.EVENTS: after_id}, count=500, block=int(block * 1000))
        )
        streams = answer.items() if isinstance(answer, dict) else (answer or [])
        found: list[Event] = []
        for _, entries in streams:
            for entry in entries:
                # RESP3 nests the entries one level deeper than RESP2.
                rows = entry if entry and isinstance(entry[0], list | tuple) else [entry]
                found += [event_from(row) for row in rows]
        return found

    async def last_event_id(self) -> str:
        """Where the stream ends now; "0-0" when it is empty."""
        rows = await asked(self._redis.xrevrange(keys.EVENTS, count=1))
        return str(rows[0][0]) if rows else "0-0"


def event_from(row: Sequence[Any]) -> Event:
    fields = dict(row[1])
    return Event(id=str(row[0]), type=fields.pop("type", ""), data=fields)
