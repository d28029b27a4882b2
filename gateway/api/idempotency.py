"""Idempotency keys in Redis: `idempotency:{sha256(key)}` → the fingerprint it came with, for a day."""

from __future__ import annotations

import hashlib

from redis.asyncio import Redis

from lifecycle.stores import keys
from lifecycle.stores.connection import asked

KEPT = 86_400  # seconds; within it the same key with another body is refused


class RedisIdempotencyKeys:
    def __init__(self, redis: Redis) -> None:
        """redis: with decode_responses=True."""
        self._redis = redis

    async def claim(self, key: str, fingerprint: str) -> str:
        # Hashed: a caller's key has any length and any characters, and may be a secret of theirs.
        name = keys.idempotency(hashlib.sha256(key.encode()).hexdigest())
        older = await asked(self._redis.set(name, fingerprint, nx=True, get=True, ex=KEPT))
        return fingerprint if older is None else str(older)
