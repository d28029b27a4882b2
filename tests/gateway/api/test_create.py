"""Giving a user their workspace: once, awake, and safe to repeat."""

from __future__ import annotations

from typing import Any

import pytest

from lifecycle.model import WorkspaceStatus as W

PATHS = ["/api/workspaces", "/api/createWorkspace"]


@pytest.mark.parametrize("path", PATHS)
async def test_a_new_one_is_queued(world: Any, path: str) -> None:
    answer = await world.call("POST", path, {"userId": "ada", "name": "Thesis", "plan": "large"})
    assert answer.status == 202
    shown = answer.json
    assert answer.headers["Location"] == f"/api/workspaces/{shown['workspaceId']}"
    assert answer.headers["Cache-Control"] == "no-store"
    assert shown["status"] == "queued"
    assert (shown["userId"], shown["name"], shown["plan"]) == ("ada", "Thesis", "large")
    assert shown["queue"] == {"position": 1, "etaSeconds": 6}
    assert shown["url"] == f"http://{shown['workspaceId']}.localhost:8000/"
    assert (shown["instanceId"], shown["epoch"], shown["aliveBecause"]) == (None, 0, None)
    assert shown["error"] is None


async def test_repeating_it_gives_the_same_one_in_the_same_place(world: Any) -> None:
    first = (await world.call("POST", "/api/workspaces", {"userId": "ada"})).json
    await world.call("POST", "/api/workspaces", {"userId": "bob"})
    again = (await world.call("POST", "/api/workspaces", {"userId": "ada"})).json
    assert again == first


async def test_a_running_one_is_given_at_once(world: Any) -> None:
    workspace = await world.bring("ada", W.RUNNING)
    answer = await world.call("POST", "/api/workspaces", {"userId": "ada"})
    assert answer.status == 200
    assert answer.json["workspaceId"] == workspace.id
    assert answer.json["queue"] is None
    assert answer.json["instanceId"] == "m-1"
    assert answer.json["aliveBecause"].startswith("boot, ")


@pytest.mark.parametrize("status", [W.STOPPED, W.FAILED, W.TERMINATED])
async def test_one_that_sleeps_is_woken(world: Any, status: W) -> None:
    await world.bring("ada", status)
    answer = await world.call("POST", "/api/workspaces", {"userId": "ada"})
    assert (answer.status, answer.json["status"]) == (202, "queued")
    assert answer.json["error"] is None


@pytest.mark.parametrize("status", [W.STOPPING, W.TERMINATING])
async def test_one_that_goes_down_comes_back_afterwards(world: Any, status: W) -> None:
    workspace = await world.bring("ada", status)
    answer = await world.call("POST", "/api/workspaces", {"userId": "ada"})
    assert (answer.status, answer.json["status"], answer.json["queue"]) == (202, status, None)
    assert (await world.store.get(workspace.id)).next == "start"


async def test_starting_has_place_zero_and_the_rest_of_the_boot(world: Any) -> None:
    await world.bring("ada", W.STARTING)
    answer = await world.call("POST", "/api/workspaces", {"userId": "ada"})
    assert answer.status == 202
    assert answer.json["queue"]["position"] == 0
    assert 1 <= answer.json["queue"]["etaSeconds"] <= 5


async def test_priority_decides_the_place(world: Any) -> None:
    for user, priority in (("ada", "batch"), ("bob", "normal"), ("eve", 60), ("kim", "vip")):
        body = {"userId": user, "priority": priority}
        assert (await world.call("POST", "/api/workspaces", body)).status == 202
    rows = (await world.call("GET", "/api/workspaces?status=queued")).json
    places = sorted((row["queue"]["position"], row["userId"]) for row in rows)
    assert [user for _, user in places] == ["kim", "eve", "bob", "ada"]


async def test_a_person_gets_their_own_without_naming_themselves(world: Any) -> None:
    answer = await world.call("POST", "/api/workspaces", user="ada")
    assert (answer.status, answer.json["userId"]) == (202, "ada")
    answer = await world.call("POST", "/api/workspaces", {"userId": "ada"}, user="ada")
    assert answer.status == 202


@pytest.mark.parametrize(
    "body", [{"userId": "bob"}, {"priority": "vip"}, {"priority": 1}, {"plan": "large"}]
)
async def test_a_person_asks_for_nothing_that_is_not_theirs(world: Any, body: Any) -> None:
    answer = await world.call("POST", "/api/workspaces", body, user="ada")
    assert answer.refusal == (403, "forbidden")
    assert await world.store.list() == []


async def test_an_admin_says_whose_it_is(world: Any) -> None:
    answer = await world.call("POST", "/api/workspaces", {})
    assert answer.refusal == (422, "invalid")
    assert answer.error["field"] == "userId"


async def test_the_quota_says_which_and_how_much(world: Any) -> None:
    for name in ("a", "b", "c"):
        await world.bring("ada", W.STOPPED, name)
    answer = await world.call("POST", "/api/workspaces", {"userId": "ada", "name": "d"})
    assert answer.refusal == (403, "quota_exceeded")
    error = answer.error
    assert (error["limit"], error["allowed"], error["used"]) == ("workspaces", 3, 3)
    assert "3 of 3" in error["message"]
    assert "Retry-After" not in answer.headers
    again = await world.call("POST", "/api/workspaces", {"userId": "ada", "name": "c"})
    assert again.status == 202


async def test_a_full_queue_says_when_to_come_back(world: Any) -> None:
    for user in ("u1", "u2", "u3", "u4"):
        await world.bring(user, W.QUEUED)
    answer = await world.call("POST", "/api/workspaces", {"userId": "ada"})
    assert answer.refusal == (429, "limit_reached")
    assert answer.error["limit"] == "max_queue"
    assert int(answer.headers["Retry-After"]) == answer.error["retryAfter"] > 0


async def test_an_idempotency_key_tells_a_repetition_from_another_call(world: Any) -> None:
    async def post(body: Any, user: str = "admin", key: str = "k1") -> Any:
        return await world.call("POST", "/api/workspaces", body, user=user, Idempotency_Key=key)

    first = await post({"userId": "ada", "name": "a"})
    assert first.status == 202
    repeated = await post({"name": "a", "priority": "normal", "userId": "ada"})
    assert (repeated.status, repeated.json) == (202, first.json)
    other = await post({"userId": "ada", "name": "b"})
    assert other.refusal == (422, "idempotency_mismatch")
    assert len(await world.store.list("ada")) == 1
    assert (await post({"userId": "ada", "name": "b"}, key="k2")).status == 202
    # A person's keys are their own: ada's "k1" is not the operator's.
    assert (await post({"name": "c"}, user="ada")).status == 202


@pytest.mark.parametrize("key", ["", "k" * 256])
async def test_an_idempotency_key_has_a_length(world: Any, key: str) -> None:
    answer = await world.call("POST", "/api/workspaces", {"userId": "ada"}, Idempotency_Key=key)
    assert answer.refusal == (422, "invalid")
    assert answer.error["field"] == "Idempotency-Key"


async def test_a_collision_of_ids_opens_nothing(alone: Any) -> None:
    mine, _ = await alone.store.ensure("ada")

    async def ensure(*_: Any, **__: Any) -> Any:
        return mine, False

    alone.store.ensure = ensure
    answer = await alone.call("POST", "/api/workspaces", {"userId": "bob"})
    assert answer.refusal == (409, "conflict")
    assert (await alone.store.get(mine.id)).status is W.STOPPED
