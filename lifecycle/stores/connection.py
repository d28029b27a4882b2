"""One Redis client and its scripts; a vendor's errors become ours here and nowhere else."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import BusyLoadingError, RedisError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from lifecycle.stores import StoreError, StoreUnavailable

Text = str | int | float


def connect(url: str) -> Redis:
    """A client whose calls fail within about 5 s when the server is away. Answers are text."""
    return Redis.from_url(
        url,
        decode_responses=True,
        socket_timeout=5,
        socket_connect_timeout=2,
        # One more try mends a pooled connection that died with a restarted server. Every script is a
        # compare-and-set or idempotent, so that a try whose answer was lost does no harm.
        retry=Retry(ExponentialBackoff(cap=0.2, base=0.05), 1),
        max_connections=200,
    )


async def asked(answer: Any) -> Any:
    """The answer of a redis-py call, its errors translated. Raises StoreUnavailable, StoreError."""
    before = _cancellations()
    try:
        found = await _translated(answer)
    except StoreError:
        _heed(before)
        raise
    _heed(before)
    return found


def _cancellations() -> int:
    task = asyncio.current_task()
    return task.cancelling() if task is not None else 0


def _heed(before: int) -> None:
    """Raise a cancellation that came during the call and was swallowed there: redis-py sends with
    asyncio.wait_for, and until Python 3.12 that forgets one that arrives as the sending ends. The task
    would run on, and whoever cancelled it would wait for ever."""
    if _cancellations() > before:
        raise asyncio.CancelledError


async def _translated(answer: Any) -> Any:
    try:
        return await answer
    except (RedisConnectionError, RedisTimeoutError, BusyLoadingError, OSError) as error:
        raise StoreUnavailable(f"Redis did not answer: {error}") from error
    except ResponseError as error:
        # A replica promoted half-way or a server still loading refuses writes: away, not broken.
        if str(error).startswith(("READONLY", "LOADING", "MASTERDOWN", "NOREPLICAS", "MISCONF")):
            raise StoreUnavailable(f"Redis takes no writes: {error}") from error
        raise StoreError(f"Redis refused a command: {error}") from error
    except RedisError as error:
        raise StoreError(f"Redis: {error}") from error


class Scripts:
    """Lua by text. EVALSHA first, EVAL when the server has forgotten it (redis-py does that)."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._scripts: dict[str, Any] = {}

    async def run(self, script: str, *args: Text) -> Any:
        if script not in self._scripts:
            self._scripts[script] = self._redis.register_script(script)
        return await asked(self._scripts[script](args=list(args)))


def pairs(flat: Iterable[str]) -> dict[str, str]:
    """A hash as a script gives it."""
    return dict(zip(*[iter(flat)] * 2, strict=True))
