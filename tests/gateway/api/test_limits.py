"""How often one caller may call, and what is told of quotas."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.api import limits
from gateway.api.limits import Limits
from lifecycle.plans import Plan, Plans, Quota
from lifecycle.quota import Taken
from lifecycle.stores import LimitReached


def test_two_seconds_worth_at_once_then_the_rate() -> None:
    now = 0.0
    bucket = Limits(10, lambda: now)
    assert [bucket.take("ada") > 0 for _ in range(22)] == [False] * 20 + [True] * 2
    assert bucket.take("ada") == pytest.approx(0.1)
    assert bucket.take("bob") == 0
    assert bucket.take("operator", 10) == 0
    now = 0.1
    assert [bucket.take("ada") > 0 for _ in range(2)] == [False, True]
    now = 60.0
    taken = 0
    while not bucket.take("ada"):
        taken += 1
    assert taken == 20


def test_a_rate_below_one_lets_the_first_call_in() -> None:
    now = 0.0
    bucket = Limits(0.1, lambda: now)
    assert bucket.take("ada") == 0
    assert bucket.take("ada") > 9
    now = 10.0
    assert bucket.take("ada") == 0


def test_buckets_are_bounded(monkeypatch: Any) -> None:
    monkeypatch.setattr(limits, "BUCKETS_MAX", 3)
    bucket = Limits(1, lambda: 0.0)
    for caller in "abcad":
        bucket.take(caller)
    assert len(bucket) == 3
    assert bucket.take("a") > 0  # was there a moment ago, so b was forgotten, not a
    assert bucket.take("b") == 0


async def test_who_calls_too_often_is_told_when_to_come_back(served: Any) -> None:
    async with served(limits=Limits(0.05)) as world:
        assert (await world.call("GET", "/api/me", user="ada")).status == 200
        answer = await world.call("GET", "/api/me", user="ada")
        assert answer.refusal == (429, "rate_limited")
        assert 0 < int(answer.headers["Retry-After"]) <= 20
        assert (await world.call("GET", "/api/me", user="bob")).status == 200
        assert (await world.call("GET", "/api/me")).status == 200  # the operator
        assert (await world.call("GET", "/api/me", user=None)).status == 401
        assert (await world.call("GET", "/api/me", user=None)).status == 429
        for _ in range(3):  # a balancer's look
            assert (await world.call("GET", "/healthz", user=None)).status == 200


async def test_quotas_and_what_is_left_of_them(served: Any) -> None:
    async def taken(user_id: str) -> Taken:
        assert user_id == "ada"
        return Taken(0, 2, 1, 3, 1, 7_200_000, 9_000_000, 1000, 2000)

    plans = Plans(Plan("default"), {"trial": Plan("trial", quota=Quota(5, 2, 9, 4, 0))})
    async with served(plans=plans, taken=taken) as world:
        await world.store.ensure("ada", plan="trial")
        answer = (await world.call("GET", "/api/quota", user="ada")).json
        assert (answer["userId"], answer["plan"]) == ("ada", "trial")
        rows = {row.pop("quota"): row for row in answer["quotas"]}
        assert rows["workspaces"] == {"used": 2, "allowed": 5, "freesAt": None}
        assert rows["hours_a_day"] == {"used": 2.0, "allowed": 4.0, "freesAt": 1000}
        assert rows["hours_a_month"] == {"used": 2.5, "allowed": None, "freesAt": None}
        assert (await world.call("GET", "/api/quota?user=ada")).json["plan"] == "trial"
        assert (await world.call("GET", "/api/quota")).refusal == (422, "invalid")
        assert (await world.call("GET", "/api/quota?user=ada", user="bob")).status == 404


async def test_a_refusal_says_which_quota_and_when_it_frees(alone: Any) -> None:
    workspace, _ = await alone.store.ensure("ada")

    async def refuse(*_: str) -> None:
        raise LimitReached("hours_a_day", 8, 8.25, 1_795_564_800_000, 7200)

    alone.store.wake = refuse
    answer = await alone.call("POST", f"/api/workspaces/{workspace.id}/start", {}, user="ada")
    assert answer.refusal == (429, "quota_exceeded")
    error = answer.error
    assert (error["limit"], error["used"], error["allowed"]) == ("hours_a_day", 8.25, 8)
    assert (error["freesAt"], error["retryAfter"]) == (1_795_564_800_000, 7200)
    assert "8.25 of 8 running hours" in error["message"]
    assert "00:00 UTC on 25 November" in error["message"]


async def test_a_plans_priority_holds_where_none_is_asked_for(served: Any) -> None:
    plans = Plans(Plan("default"), {"gold": Plan("gold", priority="vip")})
    async with served(plans=plans) as world:
        body = {"userId": "ada", "plan": "gold"}
        assert (await world.call("POST", "/api/workspaces", body)).json["priority"] == "vip"
        body = {"userId": "bob", "plan": "gold", "priority": "batch"}
        assert (await world.call("POST", "/api/workspaces", body)).json["priority"] == "batch"
