"""Progress as a timeline: what a waiting page hears, and when the stream ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from sse_starlette import EventSourceResponse
from starlette.requests import Request

from gateway import progress
from gateway.progress import Progress, facts, message_of, roughly, steps_of
from lifecycle.model import Event, Workspace, WorkspaceStatus
from lifecycle.stores import StoreUnavailable

W = WorkspaceStatus


def workspace(status: WorkspaceStatus, **fields: Any) -> Workspace:
    return Workspace(
        **{
            "id": "w1",
            "user_id": "ada",
            "created_at_ms": 1,
            "status_since_ms": 5,
            "status": status,
            **fields,
        }
    )


def marks(**fields: Any) -> str:
    """The steps as one line: "queue+ machine* ide ready"."""
    signs = {"done": "+", "now": "*", "todo": "", "failed": "!"}
    return " ".join(name + signs[state] for name, state in steps_of(workspace(**fields)).items())


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"status": W.QUEUED}, "queue* machine ide ready"),
        ({"status": W.QUEUED, "snapshot_id": "s"}, "queue* machine restore ide ready"),
        ({"status": W.QUEUED, "step": "machine-stopping"}, "queue* machine ide ready"),
        (
            {"status": W.STOPPING, "next": "start", "reason": "moving: its machine goes"},
            "stop* queue machine ide ready",
        ),
        ({"status": W.QUEUED, "reason": "moving: its machine goes"}, "queue* machine ide ready"),
        ({"status": W.FAILED, "error_code": "move_failed"}, ""),
        ({"status": W.STARTING}, "queue+ machine* ide ready"),
        ({"status": W.STARTING, "step": "machine"}, "queue+ machine* ide ready"),
        ({"status": W.STARTING, "step": "restore"}, "queue+ machine+ restore* ide ready"),
        ({"status": W.STARTING, "step": "ide"}, "queue+ machine+ ide* ready"),
        ({"status": W.STARTING, "step": "ready"}, "queue+ machine+ ide+ ready*"),
        ({"status": W.STARTING, "step": "new one"}, "queue+ machine* ide ready"),
        ({"status": W.RUNNING}, "queue+ machine+ ide+ ready+"),
        ({"status": W.FAILED, "step": "ide"}, "queue+ machine+ ide! ready"),
        ({"status": W.FAILED, "step": "ready"}, ""),  # it had run: no start to show
        ({"status": W.FAILED}, ""),
        ({"status": W.STOPPING, "next": "start"}, "stop* queue machine ide ready"),
        ({"status": W.TERMINATING, "next": "start"}, "stop* queue machine ide ready"),
        ({"status": W.STOPPING}, ""),
        ({"status": W.STOPPED}, ""),
        ({"status": W.TERMINATED, "snapshot_id": "s"}, ""),
    ],
)
def test_steps(fields: dict[str, Any], line: str) -> None:
    assert marks(**fields) == line


def test_messages_tell_place_and_time() -> None:
    queued = workspace(W.QUEUED)
    assert message_of(queued, 3, 38.2) == "In the queue, place 3, about 40 s to go."
    assert message_of(queued, 3) == "In the queue, place 3."
    assert message_of(queued) == "In the queue."
    assert message_of(workspace(W.STOPPING)) != message_of(workspace(W.STOPPING, next="start"))
    assert message_of(workspace(W.FAILED, error="no such command")) == "No such command."
    assert "no reason" in message_of(workspace(W.FAILED))


def test_a_move_is_told_from_the_stop_to_the_queue() -> None:
    goes = "moving: its machine is taken away at 2026-11-23 12:02:00 UTC"
    told = "Moving to another machine: its machine is taken away at 2026-11-23 12:02:00 UTC."
    stopping = workspace(W.STOPPING, reason=goes, next="start", machine_id="m-1")
    assert message_of(stopping) == f"{told} The IDE is being stopped, then its files are saved."
    saving = workspace(W.QUEUED, reason=goes, machine_id="m-1")
    assert message_of(saving, 1) == f"{told} Its files are being saved. In the queue, place 1."
    saved = workspace(W.QUEUED, reason=goes)
    assert message_of(saved, 1, 9) == (
        f"{told} Its files are saved. In the queue, place 1, about 10 s to go."
    )
    assert [facts(one, 9)["moving"] for one in (stopping, saving, saved)] == [True] * 3


def test_who_asked_for_a_stop_meanwhile_is_not_told_of_a_move() -> None:
    """The reason stays in the record; only what comes back is moving."""
    asked = workspace(W.STOPPING, reason="moving: its machine goes", next="")
    assert message_of(asked) == "It is being stopped. Its files are kept."
    for status in (W.STOPPED, W.RUNNING, W.FAILED):
        assert not facts(workspace(status, reason="moving: it goes"), 9)["moving"]


def test_a_queue_for_a_machine_that_is_still_stopping_says_so() -> None:
    waiting = workspace(W.QUEUED, step="machine-stopping")
    said = message_of(waiting, 2, 4.0)
    assert said.startswith("In the queue, place 2. Its machine is still stopping")
    assert "to go" not in said, "nobody knows how long the stop takes"


def test_why_there_is_no_machine_is_told_to_whoever_waits_for_one() -> None:
    notice = "no machines to be had just now: no capacity for m7i.large in eu-1a"
    assert message_of(workspace(W.QUEUED), 3, None, notice) == (
        "In the queue, place 3. No machines to be had just now: no capacity for m7i.large in eu-1a."
    )
    assert notice not in message_of(workspace(W.STARTING), None, None, notice)


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.2, "5 s"), (5.1, "10 s"), (59, "60 s"), (60, "1 min"), (61, "2 min")]
)
def test_a_promise_is_rounded_up(seconds: float, words: str) -> None:
    assert roughly(seconds) == words


def test_a_log_is_cut_at_its_head() -> None:
    told = facts(workspace(W.FAILED), 9, log="x" * 20_000 + "the end")
    assert len(told["log"]) == progress.LOG_MAX_CHARS
    assert told["log"].endswith("the end")
    assert "log" not in facts(workspace(W.FAILED), 9)


class World:
    """A store and its news, moved by hand."""

    def __init__(self, status: WorkspaceStatus, **fields: Any) -> None:
        self.record: Workspace | None = workspace(status, **fields)
        self.away = False
        self.queue: asyncio.Queue[Event | None] = asyncio.Queue()
        self.following = 0
        self.on_get = lambda: None

    async def now_ms(self) -> int:
        return 77

    async def get(self, workspace_id: str) -> Workspace | None:
        self.on_get()
        if self.away:
            raise StoreUnavailable("Redis did not answer")
        return self.record

    def set(self, status: WorkspaceStatus, **fields: Any) -> None:
        assert self.record is not None
        self.record = replace(self.record, status=status, **fields)
        self.queue.put_nowait(Event("1-0", f"workspace.{status}", {"workspace": "w1"}))

    async def follow(self, workspace: str) -> AsyncIterator[Event]:
        self.following += 1
        try:
            while (event := await self.queue.get()) is not None:
                yield event
        finally:
            self.following -= 1

    async def eta(self, workspace: Workspace) -> tuple[int | None, float | None]:
        return 2, 12.0

    async def log(self, workspace: Workspace) -> str:
        return "boom"


def follow(world: World) -> AsyncGenerator[dict[str, Any], None]:
    stream = Progress(world, world, world.eta, world.log).follow("w1")
    assert isinstance(stream, AsyncGenerator)
    return stream


async def test_from_the_queue_to_running(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "QUEUE_INTERVAL", 60)
    world = World(W.QUEUED)
    stream = follow(world)
    first = await anext(stream)
    assert first == {
        "status": "queued",
        "step": "",
        "steps": {"queue": "now", "machine": "todo", "ide": "todo", "ready": "todo"},
        "position": 2,
        "etaSeconds": 12.0,
        "moving": False,
        "message": "In the queue, place 2, about 15 s to go.",
        "since": 5,
        "now": 77,
        "epoch": 0,
        "error": "",
        "errorCode": "",
    }
    world.set(W.STARTING, step="machine", epoch=1)
    told = await anext(stream)
    assert (told["status"], told["step"], told["position"]) == ("starting", "machine", None)
    world.set(W.STARTING, step="ide")
    assert (await anext(stream))["step"] == "ide"
    world.set(W.RUNNING)
    assert (await anext(stream))["status"] == "running"
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    assert world.following == 0


async def test_the_pools_notice_reaches_a_page_that_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "QUEUE_INTERVAL", 0.01)
    world, said = World(W.QUEUED), [""]

    async def notice() -> str:
        return said[0]

    stream = Progress(world, world, world.eta, world.log, notice).follow("w1")
    assert isinstance(stream, AsyncGenerator)
    assert "no machines" not in (await anext(stream))["message"].lower()
    said[0] = "no machines to be had just now"
    assert (await anext(stream))["message"].endswith("No machines to be had just now.")
    world.set(W.STARTING)
    assert "No machines" not in (await anext(stream))["message"]
    await stream.aclose()


async def test_a_failure_brings_the_log_and_ends_the_stream() -> None:
    world = World(W.FAILED, error="it broke", error_code="exited")
    told = [account async for account in follow(world)]
    assert [(t["error"], t["errorCode"], t["log"]) for t in told] == [
        ("it broke", "exited", "boom")
    ]


async def test_a_place_in_the_queue_is_told_again_and_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(progress, "QUEUE_INTERVAL", 0.01)
    stream = follow(World(W.QUEUED))
    for _ in range(3):
        assert (await anext(stream))["status"] == "queued"
    await stream.aclose()


async def test_a_lost_event_delays_and_nothing_new_says_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(progress, "LOOK_INTERVAL", 0.01)
    world = World(W.STARTING, step="ide")
    looks = 0

    def turn() -> None:
        nonlocal looks
        looks += 1
        if looks == 4:  # no event goes with it
            world.record = workspace(W.RUNNING)

    world.on_get = turn
    told = [account["status"] async for account in follow(world)]
    assert told == ["starting", "running"]
    assert looks == 4


async def test_news_between_subscribing_and_looking_is_heard(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(progress, "LOOK_INTERVAL", 60)
    world = World(W.STARTING)
    seen_at_first_look: list[int] = []
    world.on_get = lambda: seen_at_first_look.append(world.following)
    stream = follow(world)
    await anext(stream)
    assert seen_at_first_look == [1]
    await stream.aclose()
    assert world.following == 0


async def test_while_the_store_is_away_it_says_so_and_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(progress, "QUEUE_INTERVAL", 0.01)
    world = World(W.STARTING)
    world.away = True
    stream = follow(world)
    assert (await anext(stream))["status"] == "unavailable"
    world.away = False
    assert (await anext(stream))["status"] == "starting"
    await stream.aclose()


async def test_a_deleted_one_is_gone_and_news_that_end_end_the_stream() -> None:
    world = World(W.STARTING)
    stream = follow(world)
    await anext(stream)
    world.queue.put_nowait(None)
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    world.record = None
    assert [account["status"] async for account in follow(world)] == ["gone"]
    assert world.following == 0


def asking(accept: str) -> Request:
    headers = [(b"accept", accept.encode())]
    return Request({"type": "http", "method": "GET", "path": "/", "headers": headers})


async def test_an_event_source_gets_a_stream_and_a_poll_gets_one_account() -> None:
    world = World(W.STOPPED)
    look = Progress(world, world, world.eta, world.log)
    stream = await look.respond(asking("text/event-stream"), "w1")
    assert isinstance(stream, EventSourceResponse)
    assert stream.headers["cache-control"] == "no-store"
    one = await look.respond(asking("application/json"), "w1")
    assert b'"status":"stopped"' in bytes(one.body)
    assert world.record is not None
    assert world.record.status is W.STOPPED


async def test_a_workspaces_streams_are_bounded() -> None:
    """Its own page can open as many as it likes: each would hold a connection and ask Redis."""
    world = World(W.STOPPED)
    look = Progress(world, world, world.eta, world.log)
    streams = []
    for _ in range(progress.MAX_STREAMS):
        stream = await look.respond(asking("text/event-stream"), "w1")
        assert isinstance(stream, EventSourceResponse)
        streams.append(aiter(stream.body_iterator))
        await anext(streams[-1])
    more = await look.respond(asking("text/event-stream"), "w1")
    assert b'"status":"stopped"' in bytes(more.body)
    other = await look.respond(asking("text/event-stream"), "w2")
    assert isinstance(other, EventSourceResponse)
    await streams[0].aclose()
    assert isinstance(await look.respond(asking("text/event-stream"), "w1"), EventSourceResponse)
    for stream in streams:
        await stream.aclose()
