"""Notices, preferences and the log of deliveries over HTTP, on a real Valkey."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import pytest
from redis.asyncio import Redis

from lifecycle.model import Workspace
from lifecycle.notices import STOPPED, STOPPING_SOON, TYPES
from lifecycle.notices.deliveries import Answer, Next, Outcome, Status
from lifecycle.stores.deliveries import RedisDeliveries
from lifecycle.stores.notices import RedisNotices
from lifecycle.stores.redis import RedisStore


@dataclass
class Book:
    call: Callable[..., Any]
    notices: RedisNotices
    deliveries: RedisDeliveries
    workspace: Workspace

    async def tell(self, key: str, type: str = STOPPED) -> None:
        await self.notices.tell(self.workspace, type, key, f"“demo” {key}", {"reason": "idle"})


@pytest.fixture
async def book(redis: Redis, served: Callable[..., Any]) -> AsyncIterator[Book]:
    store, notices = RedisStore(redis), RedisNotices(redis, ["webhook", "email"])
    deliveries = RedisDeliveries(redis)
    workspace, _ = await store.ensure("ada", "demo")
    async with served(store=store, notices=notices, deliveries=deliveries) as world:
        yield Book(world.call, notices, deliveries, workspace)


async def test_a_person_reads_what_they_were_told(book: Book) -> None:
    await book.tell("one")
    await book.tell("two")
    path = f"/api/workspaces/{book.workspace.id}/notices"
    told = (await book.call("GET", path, user="ada")).json
    assert [(row["seq"], row["type"], row["text"]) for row in told] == [
        (1, STOPPED, "“demo” one"),
        (2, STOPPED, "“demo” two"),
    ]
    assert told[0]["data"] == {"reason": "idle"}
    assert [row["seq"] for row in (await book.call("GET", f"{path}?after=1")).json] == [2]
    assert (await book.call("GET", path, user="eve")).refusal == (404, "not_found")
    assert (await book.call("GET", f"{path}?after=-1")).refusal == (422, "invalid")


async def test_a_person_opts_out_and_only_the_operator_sets_an_address(book: Book) -> None:
    path = "/api/preferences"
    empty = {"userId": "ada", "email": None, "optOut": {}}
    assert (await book.call("GET", path, user="ada")).json == empty
    email = {"email": "ada@example.org"}
    assert (await book.call("PUT", path, email, user="ada")).refusal == (403, "forbidden")
    assert (await book.call("PUT", f"{path}?user=ada", email)).json == {**empty, **email}

    out = {"optOut": {STOPPED: ["webhook", "ide"], STOPPING_SOON: ["email"]}}
    changed = await book.call("PUT", path, out, user="ada")
    wanted = {STOPPED: ["ide", "webhook"], STOPPING_SOON: ["email"]}
    assert changed.json == {"userId": "ada", **email, "optOut": wanted}
    await book.tell("one")
    assert [row.channel for row in await book.deliveries.list()] == ["email"]
    # What is given is the whole of it, with the address as it was; an address can always be taken back.
    both = {"optOut": {}, "email": "ada@example.org"}
    assert (await book.call("PUT", path, both, user="ada")).json == {**empty, **email}
    assert (await book.call("PUT", path, {"email": None}, user="ada")).json == empty


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"optOut": {STOPPING_SOON: ["ide"]}}, "optOut"),
        ({"optOut": {"workspace.exploded": ["email"]}}, "optOut"),
        ({"optOut": {STOPPED: ["pigeon"]}}, "optOut"),
        ({"email": "ada"}, "email"),
        ({"email": "ada@x.example\r\nBcc: eve@y.example"}, "email"),
        ({"email": "ada@x.example\n"}, "email"),
        ({"email": "a@b.example, c@d.example"}, "email"),
    ],
)
async def test_what_cannot_be_preferred(book: Book, body: Any, field: str) -> None:
    answer = await book.call("PUT", "/api/preferences?user=ada", body)
    assert answer.refusal == (422, "invalid")
    assert answer.error["field"] == field


async def test_whose_preferences(book: Book) -> None:
    assert (await book.call("GET", "/api/preferences")).refusal == (422, "invalid")
    path = "/api/preferences?user=eve"
    assert (await book.call("GET", path, user="ada")).refusal == (404, "not_found")
    assert (await book.call("PUT", path, {"optOut": {}}, user="ada")).status == 404
    every = {"optOut": {type: ["email"] for type in TYPES}}
    assert (await book.call("PUT", path, every)).json["optOut"].keys() == set(TYPES)


async def test_an_operator_reads_the_log_and_sends_again_what_failed(book: Book) -> None:
    await book.tell("one")
    [claimed] = await book.deliveries.claim(8, 60)
    said = Answer(Outcome.REFUSED, "no such hook", 404)
    await book.deliveries.note(claimed, said, 12, Next(Status.FAILED))
    [row] = (await book.call("GET", "/api/deliveries?user=ada&status=failed")).json
    assert row["attemptedAt"] >= row["createdAt"] > 0
    assert {name: value for name, value in row.items() if not name.endswith("At")} == {
        "id": claimed.id, "channel": "webhook", "to": None, "workspaceId": book.workspace.id,
        "userId": "ada", "type": STOPPED, "text": "“demo” one", "status": "failed", "attempts": 1,
        "retried": 0, "durationMs": 12, "code": 404, "answer": "no such hook",
    }  # fmt: skip
    assert (await book.call("GET", "/api/deliveries?status=sent")).json == []
    again = (await book.call("POST", f"/api/deliveries/{claimed.id}/retry")).json
    assert (again["status"], again["attempts"], again["retried"]) == ("pending", 0, 1)
    assert again["nextAttemptAt"] > 0

    twice = await book.call("POST", f"/api/deliveries/{claimed.id}/retry")
    assert twice.refusal == (409, "conflict")
    unknown = await book.call("POST", "/api/deliveries/msg_1_1/retry")
    assert unknown.refusal == (404, "not_found")
    for method, path in (
        ("GET", "/api/deliveries"),
        ("POST", f"/api/deliveries/{claimed.id}/retry"),
    ):
        assert (await book.call(method, path, user="ada")).refusal == (403, "forbidden")
