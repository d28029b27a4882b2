"""Calls to Redis under cancellation."""

from __future__ import annotations

import asyncio

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from lifecycle.stores import StoreUnavailable
from lifecycle.stores.connection import asked, connect


async def deaf(error: Exception | None = None) -> str:
    """What asyncio.wait_for does of a cancellation that comes at the wrong moment."""
    try:
        await asyncio.sleep(10)
    except asyncio.CancelledError:
        if error is not None:
            raise error from None
    return "answer"


@pytest.mark.parametrize("error", [None, RedisConnectionError("away")])
async def test_a_cancellation_that_the_client_swallows_is_heeded(error: Exception | None) -> None:
    task = asyncio.create_task(asked(deaf(error)))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_calls_made_while_being_cancelled_are_answered(redis: Redis) -> None:
    """Cleaning up after a cancellation may ask Redis."""
    answers = []

    async def work() -> None:
        try:
            await asyncio.sleep(10)
        finally:
            answers.append(await asked(redis.ping()))
            answers.append(await asked(redis.ping()))

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert answers == [True, True]


async def test_loops_over_redis_always_end(valkey: str) -> None:
    """Cancelled at every point of a call in turn."""
    client = connect(valkey)

    async def loop_for_ever() -> None:
        while True:
            await asked(client.ping())

    try:
        for steps in range(200):
            task = asyncio.create_task(loop_for_ever())
            for _ in range(steps % 40):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task], timeout=5)
            assert task.cancelled(), f"runs on after a cancellation at step {steps % 40}"
    finally:
        await client.aclose()


async def test_a_server_that_is_away_is_named_so() -> None:
    client = connect("unix:///nonexistent/valkey.sock")
    with pytest.raises(StoreUnavailable):
        await asked(client.ping())
    await client.aclose()
