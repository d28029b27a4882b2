"""A feed is listened to: what is handled is done, what fails comes again, poison goes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from lifecycle.cloud_events import Kind, Notice
from lifecycle.feeds import FeedError, Message, listening
from lifecycle.feeds.listening import RECEIVES_MAX, Listening
from lifecycle.stores import StoreUnavailable

Until = Callable[..., Awaitable[object]]


def spot(instance: str) -> str:
    return json.dumps(
        {
            "source": "aws.ec2",
            "detail-type": "EC2 Spot Instance Interruption Warning",
            "detail": {"instance-id": instance},
        }
    )


class FakeFeed:
    """Hands out what is not done, again and again."""

    def __init__(self, *bodies: str) -> None:
        self.messages = {str(n): Message(str(n), body, 0) for n, body in enumerate(bodies)}
        self.failing: FeedError | None = None

    async def receive(self, wait: float) -> list[Message]:
        await asyncio.sleep(0)
        if self.failing is not None:
            raise self.failing
        if not self.messages:
            await asyncio.sleep(min(wait, 0.005))
        for id, message in self.messages.items():
            self.messages[id] = replace(message, receives=message.receives + 1)
        return list(self.messages.values())

    async def done(self, messages: Sequence[Message]) -> None:
        for message in messages:
            self.messages.pop(message.id, None)

    async def check(self) -> None: ...

    async def close(self) -> None: ...


class Heard:
    def __init__(self) -> None:
        self.notices: list[Notice] = []
        self.failing: Exception | None = None

    async def __call__(self, kind: str, instance: str, at_ms: int, detail: str) -> None:
        if self.failing is not None:
            raise self.failing
        self.notices.append(Notice(Kind(kind), instance, at_ms, detail))


async def test_what_was_handled_is_done_and_the_rest_is_let_go() -> None:
    feed, heard = FakeFeed(spot("i-1"), json.dumps({"detail": {}}), spot("i-2")), Heard()
    assert await Listening(feed, heard).turn(0) == 3
    assert [(n.kind, n.instance) for n in heard.notices] == [
        (Kind.SPOT, "i-1"),
        (Kind.SPOT, "i-2"),
    ]
    assert feed.messages == {}
    assert await Listening(feed, heard).turn(0) == 0


async def test_what_is_no_event_is_deleted_with_an_error_log() -> None:
    feed = FakeFeed("gibberish")
    with capture_logs() as logs:
        await Listening(feed, Heard()).turn(0)
    assert feed.messages == {}
    assert [(row["event"], row["log_level"], row["why"]) for row in logs] == [
        ("feed.unreadable", "error", "not JSON")
    ]


async def test_one_that_always_fails_comes_five_times_and_holds_nobody_up() -> None:
    feed, heard = FakeFeed(spot("i-1")), Heard()
    heard.failing = RuntimeError("a bug")
    turn = Listening(feed, heard).turn
    for _ in range(RECEIVES_MAX - 1):
        await turn(0)
        assert len(feed.messages) == 1
    with capture_logs() as logs:
        await turn(0)
    assert feed.messages == {}
    assert [row["event"] for row in logs] == ["feed.poison"]


async def test_while_the_store_is_away_nothing_is_lost_however_often_it_comes() -> None:
    feed, heard = FakeFeed(spot("i-1"), spot("i-2")), Heard()
    heard.failing = StoreUnavailable("Redis did not answer")
    for _ in range(2 * RECEIVES_MAX):
        with pytest.raises(StoreUnavailable):
            await Listening(feed, heard).turn(0)
    assert len(feed.messages) == 2
    heard.failing = None
    await Listening(feed, heard).turn(0)
    assert [n.instance for n in heard.notices] == ["i-1", "i-2"]
    assert feed.messages == {}


async def test_a_feed_that_fails_is_told_once_and_heard_again(
    monkeypatch: pytest.MonkeyPatch, until: Until
) -> None:
    monkeypatch.setattr(listening, "RETRY", 0.001)
    feed, heard = FakeFeed(), Heard()
    feed.failing = FeedError("cannot receive from queue q: there is no such queue")
    with capture_logs() as logs:
        task = asyncio.create_task(Listening(feed, heard).run())
        await until(lambda: logs)
        for _ in range(20):
            await asyncio.sleep(0.001)
        feed.failing = None
        feed.messages["9"] = Message("9", spot("i-9"), 0)
        await until(lambda: heard.notices)
        await until(lambda: len(logs) > 1)
        task.cancel()
        await asyncio.wait([task])
    assert [row["event"] for row in logs] == ["feed.silent", "feed.heard_again"]
