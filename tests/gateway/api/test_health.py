"""Alive, ready, the figures; and what a caller sees while Redis is away or something breaks."""

from __future__ import annotations

from typing import Any

import pytest

from gateway import api
from gateway.api.idempotency import KEPT, RedisIdempotencyKeys

READS_STORE = [row for row in api.operations() if "/workspaces" in row.path]


async def test_alive(alone: Any) -> None:
    answer = await alone.call("GET", "/healthz", user=None)
    assert (answer.status, answer.json) == (200, {"status": "ok"})


async def test_ready_or_why_not(alone: Any) -> None:
    answer = await alone.call("GET", "/readyz", user=None)
    assert (answer.status, answer.json) == (200, {"status": "ok", "reasons": []})
    alone.health.reasons = ["draining"]
    answer = await alone.call("GET", "/readyz", user=None)
    assert answer.status == 503
    assert answer.json == {"status": "unavailable", "reasons": ["draining"]}
    assert (await alone.call("GET", "/healthz", user=None)).status == 200


async def test_metrics_are_open_unless_a_token_is_set(alone: Any, served: Any) -> None:
    alone.metrics.session_opened()
    answer = await alone.call("GET", "/metrics", user=None)
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert "\nide_gateway_sessions 1.0\n" in answer.text
    async with served(metrics_token="m-token") as world:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Bearer "}):
            refused = await world.call("GET", "/metrics", user=None, **headers)
            assert refused.refusal == (401, "unauthorized")
        assert (await world.call("GET", "/metrics", user="ada")).status == 401
        assert (await world.call("GET", "/metrics", user="admin")).status == 200
        token = {"Authorization": "Bearer m-token"}
        assert (await world.call("GET", "/metrics", user=None, **token)).status == 200
        assert (await world.call("GET", "/api/workspaces", user=None, **token)).status == 401


async def test_the_document_is_public(alone: Any) -> None:
    answer = await alone.call("GET", "/api/openapi.json", user=None)
    assert (answer.status, answer.json["openapi"]) == (200, "3.1.0")


@pytest.mark.parametrize("row", READS_STORE, ids=lambda row: f"{row.method} {row.path}")
async def test_redis_away(served: Any, fakes: Any, row: Any) -> None:
    async with served(store=fakes.AwayStore()) as world:
        body = {"userId": "ada"} if row.body and row.path == "/api/workspaces" else None
        path = row.path.replace("{id}", "ws-aaaaaaaaaa")
        user = "ada" if row.method == "POST" else "admin"
        answer = await world.call(row.method, path, body, user=user)
        assert answer.refusal == (503, "redis_unavailable")
        assert answer.error["retryAfter"] > 0
        assert "connection refused" not in answer.text
        assert (await world.call("GET", "/healthz")).status == 200


async def test_a_bug_is_told_to_the_log_and_not_to_the_caller(
    alone: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    async def broken(*_: Any) -> Any:
        raise ZeroDivisionError("secret detail")

    alone.store.list = broken
    answer = await alone.call("GET", "/api/workspaces")
    assert answer.refusal == (500, "internal")
    assert "secret" not in answer.text
    assert "secret detail" in "".join(capfd.readouterr())


async def test_idempotency_keys_in_redis_are_kept_a_day_and_hashed(redis: Any) -> None:
    keys = RedisIdempotencyKeys(redis)
    assert await keys.claim("user ada secret-key", "f1") == "f1"
    assert await keys.claim("user ada secret-key", "f2") == "f1"
    assert await keys.claim("user bob secret-key", "f2") == "f2"
    names = await redis.keys("*")
    assert len(names) == 2
    assert not any("secret-key" in name for name in names)
    for name in names:
        assert name.startswith("idempotency:")
        assert KEPT - 60 < await redis.ttl(name) <= KEPT
