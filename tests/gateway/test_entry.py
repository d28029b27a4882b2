"""Entry codes work once, and lead nowhere else."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from redis.asyncio import Redis

from gateway.entry import Codes, Grant, safe_next


async def test_a_code_works_once(redis: Redis) -> None:
    codes = Codes(redis)
    code = await codes.mint("workspace", "ada", "w1", ttl=30, next="/lab?x=1#y")
    assert await codes.redeem(code) == Grant("workspace", "ada", "w1", "/lab?x=1#y")
    assert await codes.redeem(code) is None


async def test_of_fifty_at_once_one_gets_in(redis: Redis) -> None:
    codes = Codes(redis)
    code = await codes.mint("home", "ada", ttl=30)
    grants = await asyncio.gather(*(codes.redeem(code) for _ in range(50)))
    assert [g for g in grants if g] == [Grant("home", "ada", "", "/")]


async def test_a_code_grows_old(redis: Redis, until: Callable[..., Awaitable[object]]) -> None:
    codes = Codes(redis)
    code = await codes.mint("home", "ada", ttl=30)
    [key] = await redis.keys("code:*")
    assert 29_000 < await redis.pttl(key) <= 30_000
    short = await codes.mint("home", "ada", ttl=0.05)

    async def expired() -> bool:
        return len(await redis.keys("code:*")) == 1

    await until(expired, what="the short code expired")
    assert await codes.redeem(short) is None
    assert await codes.redeem(code) is not None


async def test_redis_never_sees_the_code(redis: Redis) -> None:
    code = await Codes(redis).mint("workspace", "ada", "w1", ttl=30)
    [key] = await redis.keys("*")
    assert code not in key
    assert code not in await redis.get(key)
    assert len(code) >= 43


@pytest.mark.parametrize("code", ["", "wrong", "x" * 100_000, "\0\n", "é", "\ud800", "*"])
async def test_a_wrong_code_is_nothing(redis: Redis, code: str) -> None:
    codes = Codes(redis)
    good = await codes.mint("home", "ada", ttl=30)
    assert await codes.redeem(code) is None
    assert await codes.redeem(good) is not None


async def test_a_code_does_not_carry_a_way_out(redis: Redis) -> None:
    codes = Codes(redis)
    code = await codes.mint("home", "ada", ttl=30, next="//evil.com")
    grant = await codes.redeem(code)
    assert grant is not None
    assert grant.next == "/"


@pytest.mark.parametrize(
    "path",
    ["/", "/lab", "/lab/tree/a%20b.ipynb?x=1&y=//z#frag", "/a//b", "/~ada", "/?next=http://x.com"],
)
def test_paths_of_the_same_origin_pass(path: str) -> None:
    assert safe_next(path) == path


@pytest.mark.parametrize(
    "path",
    [
        "",
        "lab",
        "//evil.com",
        "///evil.com",
        "////evil.com",
        "/\\evil.com",
        "\\\\evil.com",
        "\\/evil.com",
        "/a\\b",
        "/\t/evil.com",
        "\t//evil.com",
        " //evil.com",
        "/\n/evil.com",
        "/\r\nSet-Cookie: a=b",
        "/lab\n",
        "/\0",
        "/\x7f",
        "/a b",
        "http://evil.com",
        "https:/evil.com",
        "https:evil.com",
        "javascript:alert(1)",
        "data:text/html,x",
        "@evil.com",
        ".evil.com",
        "?x",
        "/é",
        "/\u2028",
        "/／evil.com",
        "/" + "a" * 2048,
    ],
)
def test_everything_else_leads_home(path: str) -> None:
    assert safe_next(path) == "/"
