"""Machines that come by themselves: with a code once, with their token from then on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import asdict
from typing import Any

import pytest
from redis.asyncio import Redis

from lifecycle.agent.contract import Report, WorkspaceReport
from lifecycle.joining import Joining
from lifecycle.model import Machine, MachineStatus
from lifecycle.stores import StoreUnavailable
from lifecycle.stores.fleet import RedisFleet

JOINING = Joining("signing-key")
NONCE, OTHER = "n" * 22, "o" * 22
JOIN = "/api/machines/join"
HERE = "10.0.0.7:7070"


@pytest.fixture
def fleet(redis: Redis) -> RedisFleet:
    return RedisFleet(redis, JOINING.token)


@pytest.fixture
async def world(served: Callable[..., Any], fleet: RedisFleet) -> AsyncIterator[Any]:
    async with served(fleet=fleet) as world:
        yield world


def ask(code: str, **changes: Any) -> dict[str, Any]:
    return {"code": code, "index": 0, "nonce": NONCE, "address": HERE, "instance": "i-1"} | changes


async def machine(fleet: RedisFleet, machine_id: str = "m-1") -> Machine:
    found = await fleet.machine(machine_id)
    assert found is not None
    return found


async def report(world: Any, machine_id: str = "m-1", token: str = "", **changes: Any) -> Any:
    said = Report(machine_id, "boot", 1, 5, cpu_percent=12.5, memory_bytes=100)
    body = {"address": HERE, "instance": "i-1", "report": asdict(said)} | changes
    token = token or JOINING.token(machine_id)
    path = f"/api/machines/{machine_id}/report"
    return await world.call("POST", path, body, user=None, Authorization=f"Bearer {token}")


async def test_each_machine_of_a_launch_joins_as_itself(world: Any, fleet: RedisFleet) -> None:
    assert await fleet.intend("ec2", 5, 3, bound=9) == ["m-1", "m-2", "m-3"]
    for index, name in enumerate(("m-1", "m-2", "m-3")):
        body = ask(JOINING.code(1, 3), index=index, nonce=f"{index}" * 22)
        answer = await world.call("POST", JOIN, body, user=None)
        assert answer.status == 200
        assert answer.json == {"machineId": name, "token": JOINING.token(name), "slots": 5}
        assert answer.headers["Cache-Control"] == "no-store"
        one = await machine(fleet, name)
        assert (one.joined, one.address, one.instance) == (True, HERE, "i-1")


async def test_a_code_is_for_one_use_and_a_lost_answer_is_given_again(
    world: Any, fleet: RedisFleet
) -> None:
    await fleet.intend("ec2", 5, 1, bound=9)
    body = ask(JOINING.code(1))
    first = await world.call("POST", JOIN, body, user=None)
    again = await world.call("POST", JOIN, body, user=None)
    assert first.json == again.json
    other = await world.call("POST", JOIN, body | {"nonce": OTHER}, user=None)
    assert other.refusal == (409, "join_code_used")
    assert JOINING.token("m-1") not in other.text
    await fleet.change(await machine(fleet), MachineStatus.READY)
    assert (await world.call("POST", JOIN, body | {"nonce": OTHER}, user=None)).status == 409


async def test_what_is_no_code_of_ours_opens_nothing(world: Any, fleet: RedisFleet) -> None:
    await fleet.intend("ec2", 5, 1, bound=9)
    for code in ("", "1-1.x", JOINING.code(1)[:-1], Joining("another").code(1), "x" * 64):
        answer = await world.call("POST", JOIN, ask(code), user=None)
        assert answer.refusal == (401, "unauthorized"), code
    out_of_launch = await world.call("POST", JOIN, ask(JOINING.code(1), index=1), user=None)
    assert out_of_launch.refusal == (401, "unauthorized")
    assert not (await machine(fleet)).joined
    unknown = await world.call("POST", JOIN, ask(JOINING.code(7)), user=None)
    assert unknown.refusal == (404, "not_found")
    assert await fleet.machine("m-7") is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"nonce": "short"}, {"nonce": "n" * 65}, {"nonce": "n" * 21 + "\n"}, {"index": -1},
        {"index": "0"}, {"index": True}, {"address": "10.0.0.7"}, {"address": "10.0.0.7:0"},
        {"address": "10.0.0.7:70000"}, {"address": "host:70"}, {"address": "169.254.169.254:80"},
        {"address": "0.0.0.0:80"}, {"address": "10.0.0.7:80/x"}, {"instance": "x" * 257},
        {"instance": "a\nb"}, {"code": "x" * 65}, {"token": "mine"},
    ],
)  # fmt: skip
async def test_a_join_that_is_malformed_is_named(
    world: Any, fleet: RedisFleet, wrong: dict[str, Any]
) -> None:
    await fleet.intend("ec2", 5, 1, bound=9)
    answer = await world.call("POST", JOIN, ask(JOINING.code(1)) | wrong, user=None)
    assert answer.status == 422
    assert answer.error["field"] == next(iter(wrong))
    assert not (await machine(fleet)).joined


async def test_a_report_is_taken_with_the_machines_token_only(
    world: Any, fleet: RedisFleet
) -> None:
    await fleet.intend("ec2", 5, 2, bound=9)
    for token in ("wrong", JOINING.token("m-2"), JOINING.code(1), "api-key", "ü"):
        assert (await report(world, token=token)).refusal == (401, "unauthorized")
    assert (await machine(fleet)).last_report_ms == 0
    answer = await report(world)
    assert (answer.status, answer.json) == (200, {})
    one = await machine(fleet)
    assert one.last_report_ms > 0
    assert (one.address, one.cpu_percent, one.instance) == (HERE, 12.5, "i-1")


async def test_a_machine_without_a_record_is_told_so(world: Any, redis: Redis) -> None:
    assert (await report(world)).refusal == (404, "not_found")
    assert await redis.keys("*") == []


async def test_a_report_has_the_agents_shape(world: Any, fleet: RedisFleet) -> None:
    await fleet.intend("ec2", 5, 2, bound=9)
    good = asdict(Report("m-1", "boot", 1, 5, workspaces=(WorkspaceReport("w", 1, "running"),)))
    assert (await report(world, report=good)).status == 200
    for wrong in (
        {},
        good | {"version": "x"},
        good | {"machine_id": "m-2"},
        good | {"slots": None},
    ):
        assert (await report(world, report=wrong)).error["field"] == "report"
    large = await report(world, instance="x" * 70_000)
    assert large.refusal == (413, "body_too_large")


async def test_a_notice_is_handed_on(world: Any, fleet: RedisFleet) -> None:
    await fleet.intend("ec2", 5, 1, bound=9)
    assert (await report(world, notice={"kind": "spot", "at": 1234})).status == 200
    assert (await report(world, notice={"kind": "other", "at": 1234})).status == 422
    assert (await report(world, token="wrong", notice={"kind": "spot", "at": 1})).status == 401
    assert world.notices == [("m-1", "spot", 1234)]


async def test_while_redis_is_away_a_machine_is_asked_to_come_back(
    world: Any, fleet: RedisFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: Any) -> Any:
        raise StoreUnavailable("Redis did not answer")

    monkeypatch.setattr(RedisFleet, "join", away)
    monkeypatch.setattr(RedisFleet, "heard", away)
    joined = await world.call("POST", JOIN, ask(JOINING.code(1)), user=None)
    assert joined.refusal == (503, "redis_unavailable")
    assert (await report(world)).refusal == (503, "redis_unavailable")
