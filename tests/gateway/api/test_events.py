"""What happened, as a list and live: whose eyes it is for, and that nothing falls between."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import time
from typing import Any

import pytest

from gateway import auth
from gateway.api import events as calls
from lifecycle.model import WorkspaceStatus as W


async def listed(world: Any, query: str = "", user: str = "admin") -> list[dict[str, Any]]:
    answer = await world.call("GET", f"/api/events{query}", user=user)
    assert answer.status == 200, answer.text
    rows: list[dict[str, Any]] = answer.json
    return rows


async def test_an_event_as_it_is_shown(alone: Any) -> None:
    event = alone.events.tell(
        "workspace.starting", workspace="w1", user="ada", machine="m-1", epoch="3", step="ide",
        address="127.0.0.1:9", secret="s3cret", token="t",
    )  # fmt: skip
    assert await listed(alone) == [
        {
            "id": event.id, "type": "workspace.starting", "at": 1000, "workspaceId": "w1",
            "userId": "ada", "instanceId": "m-1", "sessionId": None, "gateway": None, "epoch": 3,
            "reason": None, "data": {"step": "ide"},
        }
    ]  # fmt: skip


async def test_newest_last_and_paged(alone: Any) -> None:
    ids = [alone.events.tell("pool.scaled").id for _ in range(5)]
    assert [row["id"] for row in await listed(alone)] == ids
    assert [row["id"] for row in await listed(alone, "?limit=2")] == ids[-2:]
    assert [row["id"] for row in await listed(alone, f"?after={ids[0]}&limit=2")] == ids[1:3]
    assert await listed(alone, f"?after={ids[-1]}") == []


async def test_pages_are_read_on_until_enough_is_visible(
    alone: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "PAGE", 3)
    first = alone.events.tell("pool.scaled")
    for number in range(20):
        alone.events.tell("workspace.running", workspace=f"w{number % 10}", user="ada")
    rows = await listed(alone, f"?after={first.id}&limit=12")
    assert len(rows) == 12
    workspace = await alone.bring("bob", W.STOPPED)
    told = alone.events.tell("workspace.created", workspace=workspace.id, user="bob")
    assert [r["id"] for r in await listed(alone, f"?after={first.id}", user="bob")] == [told.id]


async def test_persons_see_their_own(world: Any) -> None:
    mine, other = await world.bring("ada", W.STOPPED), await world.bring("bob", W.STOPPED)
    seen = [
        world.events.tell("workspace.stopped", workspace=mine.id, user="ada").id,
        world.events.tell("session.opened", workspace=mine.id).id,
    ]
    world.events.tell("workspace.stopped", workspace=other.id, user="bob")
    world.events.tell("session.evicted", workspace=other.id)
    world.events.tell("machine.ready", machine="m-1")
    world.events.tell("pool.scaled", user="ada")
    assert [row["id"] for row in await listed(world, user="ada")] == seen
    assert len(await listed(world)) == 6
    query = f"?workspaceId={mine.id}"
    assert [row["id"] for row in await listed(world, query)] == seen
    assert [row["id"] for row in await listed(world, query, user="ada")] == seen
    for asked in (other.id, "ws-aaaaaaaaaa"):
        answer = await world.call("GET", f"/api/events?workspaceId={asked}", user="ada")
        assert answer.refusal == (404, "not_found")


class Reader:
    """A reader of server-sent events."""

    def __init__(self, response: Any) -> None:
        self.response = response

    async def block(self) -> dict[str, str]:
        """The next block, its fields by name; a comment's name is ""."""
        lines: dict[str, str] = {}
        while line := (await self.response.content.readline()).decode().rstrip("\r\n"):
            name, _, value = line.partition(":")
            lines[name] = value.strip()
        return lines

    async def event(self) -> dict[str, Any]:
        """The next event, past comments; its id is the one the browser will send back."""
        while "data" not in (block := await self.block()):
            assert block, "the stream has ended"
        event: dict[str, Any] = json.loads(block["data"])
        assert block["id"] == event["id"]
        return event

    async def ids(self, count: int) -> list[str]:
        return [(await self.event())["id"] for _ in range(count)]


@asynccontextmanager
async def following(
    world: Any, query: str = "", user: str = "admin", headers: dict[str, str] | None = None
) -> AsyncIterator[Reader]:
    keys = auth.Keys(signing_key="signing-key", api_key="api-key")
    cookie = auth.make_home_cookie(user, keys, now=time())
    who = (
        {"Authorization": "Bearer api-key"}
        if user == "admin"
        else {"Cookie": f"ide-gateway-home={cookie}"}
    )
    sent = {**who, "Accept": "text/event-stream", **(headers or {})}
    async with world.http.get(f"{world.url}/api/events{query}", headers=sent) as response:
        assert response.status == 200, await response.text()
        assert response.content_type == "text/event-stream"
        assert response.headers["Cache-Control"] == "no-store"
        reader = Reader(response)
        opening = await reader.block()
        assert (opening[""], opening["retry"]) == ("events follow", "2000")
        yield reader


async def subscribed(world: Any, until: Any, count: int = 1) -> None:
    await until(lambda: len(world.events.queues) == count, what=f"{count} subscribers")


async def test_live_from_now_on(alone: Any, until: Any) -> None:
    alone.events.tell("pool.scaled")
    async with following(alone) as reader:
        await subscribed(alone, until)
        told = alone.events.tell("machine.ready", machine="m-1")
        shown = await reader.event()
        assert (shown["id"], shown["instanceId"]) == (told.id, "m-1")
        assert shown == (await listed(alone))[-1]
    await subscribed(alone, until, 0)


@pytest.mark.parametrize("by", ["after", "Last-Event-ID"])
async def test_resumes_where_it_was(
    alone: Any, until: Any, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    monkeypatch.setattr(calls, "PAGE", 3)
    ids = [alone.events.tell("pool.scaled").id for _ in range(10)]
    query = f"?after={ids[1]}" if by == "after" else "?after=1"
    headers = {"Last-Event-ID": ids[1]} if by == "Last-Event-ID" else None
    async with following(alone, query, headers=headers) as reader:
        assert await reader.ids(8) == ids[2:]
        told = alone.events.tell("pool.scaled")
        assert await reader.ids(1) == [told.id]


async def test_what_comes_while_the_past_is_read_comes_once(alone: Any) -> None:
    ids = [alone.events.tell("pool.scaled").id for _ in range(3)]
    history = alone.events.history

    async def slow(after: str, limit: int) -> Any:
        if after == "1":  # told after the subscription, and in the past as well
            ids.append(alone.events.tell("pool.scaled").id)
        return await history(after, limit)

    alone.events.history = slow
    async with following(alone, "?after=1") as reader:
        assert await reader.ids(4) == ids
        last = alone.events.tell("pool.scaled")
        assert await reader.ids(1) == [last.id]


async def test_a_burst_beyond_the_queue_has_no_gap(served: Any, fakes: Any, until: Any) -> None:
    async with served(fakes.FakeEvents(pending_max=4)) as world:
        world.events.tell("pool.scaled")
        async with following(world) as reader:
            await subscribed(world, until)
            burst = [world.events.tell("pool.scaled").id for _ in range(50)]
            assert await reader.ids(50) == burst
            more = world.events.tell("pool.scaled")
            assert await reader.ids(1) == [more.id]


async def test_a_stream_that_numbers_anew_goes_on(alone: Any, until: Any) -> None:
    alone.events.tell("pool.scaled")
    async with following(alone, "?after=900000") as reader:
        await subscribed(alone, until)
        reset = alone.events.tell("events.reset")
        told = alone.events.tell("pool.scaled")
        assert await reader.ids(2) == [reset.id, told.id]


async def test_a_person_follows_their_own_and_what_they_create_meanwhile(
    alone: Any, until: Any
) -> None:
    mine = await alone.bring("ada", W.STOPPED)
    async with following(alone, user="ada") as reader:
        await subscribed(alone, until)
        alone.events.tell("workspace.running", workspace="ws-bob", user="bob")
        alone.events.tell("machine.ready", machine="m-1")
        seen = [
            alone.events.tell("session.opened", workspace=mine.id),
            alone.events.tell("workspace.created", workspace="ws-new", user="ada"),
            alone.events.tell("session.opened", workspace="ws-new"),
        ]
        assert await reader.ids(3) == [event.id for event in seen]


async def test_one_workspace_alone(alone: Any, until: Any) -> None:
    mine = await alone.bring("ada", W.STOPPED)
    async with following(alone, f"?workspaceId={mine.id}", user="ada") as reader:
        await subscribed(alone, until)
        alone.events.tell("workspace.running", workspace="ws-other", user="ada")
        told = alone.events.tell("workspace.queued", workspace=mine.id, user="ada")
        assert await reader.ids(1) == [told.id]


async def test_silence_is_filled_with_comments(served: Any) -> None:
    async with served(keep_alive=0.05) as world, following(world) as reader:
        assert await reader.block() == {"": "keep-alive"}
        assert await reader.block() == {"": "keep-alive"}


@pytest.mark.parametrize("header", ["yesterday", "1-2-3", "1-", "9" * 17])
async def test_a_last_id_that_is_none(alone: Any, header: str) -> None:
    answer = await alone.call(
        "GET", "/api/events", Accept="text/event-stream", Last_Event_ID=header
    )
    assert answer.refusal == (422, "invalid")


async def test_streams_are_bounded_and_counted_down(
    alone: Any, until: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "MAX_STREAMS", 3)
    monkeypatch.setattr(calls, "MAX_STREAMS_PER_CALLER", 1)
    accept = {"Accept": "text/event-stream"}
    async with following(alone, user="ada"):
        await subscribed(alone, until, 1)
        refused = await alone.call("GET", "/api/events", user="ada", **accept)
        assert refused.refusal == (429, "too_many_streams")
        async with following(alone), following(alone):
            await subscribed(alone, until, 3)
            refused = await alone.call("GET", "/api/events", **accept)
            assert refused.refusal == (503, "too_many_streams")
            assert refused.error["retryAfter"] > 0
    await subscribed(alone, until, 0)
    async with following(alone, user="ada"):
        await subscribed(alone, until, 1)


async def test_without_redis_the_stream_ends_and_can_be_resumed(alone: Any, fakes: Any) -> None:
    away = fakes.AwayStore()
    history, alone.events.history = alone.events.history, away.history
    answer = await alone.call("GET", "/api/events?after=1", Accept="text/event-stream")
    assert answer.status == 200
    assert "events follow" in answer.text
    alone.events.history = history
    told = alone.events.tell("pool.scaled")
    async with asyncio.timeout(10), following(alone, "?after=1") as reader:
        assert await reader.ids(1) == [told.id]
