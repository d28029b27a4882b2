"""Sessions over all gateways: asked for where a plan bounds them, and given back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from redis.asyncio import Redis

from gateway import closing
from gateway.admission import Admission
from gateway.heartbeats import TooManySessions
from gateway.tunnel import Session
from lifecycle.plans import Quota
from lifecycle.stores import StoreUnavailable
from lifecycle.stores.quotas import RedisQuotas

PLANS = {"small": Quota(sessions=2), "default": Quota(sessions=100), "any": Quota(sessions=0)}


def session(number: int) -> Session:
    return Session(workspace="w", user="ada", id=f"g-{number}", epoch=1)


async def test_two_gateways_let_in_as_many_as_one_and_what_ended_makes_room(
    redis: Redis, until: Callable[..., Any]
) -> None:
    quotas = RedisQuotas(redis)
    one, other = (Admission(quotas, PLANS.__getitem__, 100) for _ in range(2))
    first, second = session(1), session(2)
    await one.admit(first, "small")
    await other.admit(second, "small")
    with pytest.raises(TooManySessions) as full:
        await one.admit(session(3), "small")
    assert full.value.close is closing.TOO_MANY_SESSIONS
    other.ended(second)
    other.ended(second)

    async def gone() -> bool:
        return int(await redis.zcard("sessions:ada")) == 1

    await until(gone)
    await one.admit(session(4), "small")


async def test_nothing_is_asked_where_the_process_bounds_it_anyway() -> None:
    class Away:
        async def admit(self, user_id: str, member: str, bound: int) -> bool:
            raise AssertionError("a round trip for nothing")

        async def release(self, user_id: str, member: str) -> None:
            raise AssertionError("a round trip for nothing")

    admission = Admission(Away(), PLANS.__getitem__, 100)
    for plan in ("default", "any"):
        one = session(1)
        await admission.admit(one, plan)
        admission.ended(one)


async def test_while_redis_is_away_the_process_bound_has_to_do() -> None:
    class Away:
        async def admit(self, user_id: str, member: str, bound: int) -> bool:
            raise StoreUnavailable("Redis did not answer")

        async def release(self, user_id: str, member: str) -> None: ...

    await Admission(Away(), PLANS.__getitem__, 100).admit(session(1), "small")
