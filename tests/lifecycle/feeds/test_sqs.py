"""An SQS queue of moto's, behind a proxy that can fail it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from lifecycle import aws as lifecycle_aws
from lifecycle.aws import Clients
from lifecycle.feeds import FeedError
from lifecycle.feeds.sqs import SqsFeed


@dataclass
class Queue:
    """A queue and the feed that reads it. sqs: the operator's client."""

    sqs: Any
    url: str
    feed: SqsFeed
    clients: Clients = field(repr=False)

    def send(self, *bodies: str) -> None:
        for body in bodies:
            self.sqs.send_message(QueueUrl=self.url, MessageBody=body)

    def left(self) -> tuple[int, int]:
        """(waiting, handed out and not done)"""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        answer = self.sqs.get_queue_attributes(QueueUrl=self.url, AttributeNames=names)
        waiting, hidden = (int(answer["Attributes"][name]) for name in names)
        return waiting, hidden

    def show_again(self, handle: str) -> None:
        """The visibility timeout of a message passes."""
        self.sqs.change_message_visibility(
            QueueUrl=self.url, ReceiptHandle=handle, VisibilityTimeout=0
        )


@pytest.fixture
async def queue(aws: Any) -> AsyncIterator[Queue]:
    sqs = aws.client("sqs")
    url = sqs.create_queue(QueueName="notices")["QueueUrl"]
    clients = Clients()
    yield Queue(sqs, url, SqsFeed(url, clients), clients)
    await clients.close()


async def test_messages_are_there_until_they_are_done(queue: Queue) -> None:
    queue.send("one", "two")
    found = await queue.feed.receive(0)
    assert {m.body for m in found} == {"one", "two"}
    assert {m.receives for m in found} == {1}
    assert all(m.sent_at_ms > 1_700_000_000_000 for m in found)
    assert queue.left() == (0, 2)

    queue.show_again(found[0].handle)
    [again] = await queue.feed.receive(0)
    assert (again.body, again.id, again.receives) == (found[0].body, found[0].id, 2)

    await queue.feed.done([again, found[1]])
    assert queue.left() == (0, 0)
    await queue.feed.done([again])  # twice is as good as once


async def test_more_than_ten_are_taken_and_deleted_in_batches(queue: Queue, aws: Any) -> None:
    queue.send(*map(str, range(23)))
    found = []
    while batch := await queue.feed.receive(0):
        found += batch
    assert {m.body for m in found} == set(map(str, range(23)))
    await queue.feed.done(found)
    assert queue.left() == (0, 0)
    actions = [call.action for call in aws.calls]
    assert actions.count("DeleteMessageBatch") == 3
    assert set(actions) == {"ReceiveMessage", "DeleteMessageBatch"}


async def test_one_poll_is_long_and_takes_ten_at_most(queue: Queue, aws: Any) -> None:
    queue.send("here")
    await queue.feed.receive(20)
    await queue.feed.receive(0)
    asked = [call.params for call in aws.calls if call.action == "ReceiveMessage"]
    assert [(p["WaitTimeSeconds"], p["MaxNumberOfMessages"]) for p in asked] == [(20, 10), (0, 10)]
    assert all(p["VisibilityTimeout"] == 10 for p in asked)


async def test_an_empty_queue_answers_with_nothing(queue: Queue) -> None:
    assert await queue.feed.receive(0) == []
    await queue.feed.done([])


async def test_a_lost_answer_is_asked_for_again(queue: Queue, aws: Any) -> None:
    queue.send("one")
    [message] = await queue.feed.receive(0)
    with aws.fault("sqs", "DeleteMessageBatch", times=1, drop_reply=True) as fault:
        await queue.feed.done([message])
    assert fault.hits == 1
    assert queue.left() == (0, 0)


# At the start


async def test_a_queue_that_is_there_passes(queue: Queue) -> None:
    await queue.feed.check()


async def test_a_queue_that_is_not_there_is_said_with_what_to_do(queue: Queue) -> None:
    wrong = SqsFeed(queue.url.replace("notices", "typo"), queue.clients)
    with pytest.raises(FeedError, match="there is no such queue; create it") as caught:
        await wrong.check()
    assert "typo" in str(caught.value)
    assert "--aws-queue" in str(caught.value)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("AccessDenied", "compare it with deploy/iam"),
        ("InvalidClientTokenId", "the credentials are wrong"),
        ("ExpiredToken", "renew them"),
    ],
)
async def test_a_refusal_says_what_to_do(queue: Queue, aws: Any, code: str, words: str) -> None:
    with aws.fault("sqs", error=(code, 403)), pytest.raises(FeedError, match=words):
        await queue.feed.check()


async def test_a_queue_that_does_not_answer_is_an_error_of_the_feed(
    queue: Queue, aws: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifecycle_aws, "ATTEMPTS", 1)
    clients = Clients()
    feed = SqsFeed(queue.url, clients)
    with aws.fault("sqs", drop_request=True), pytest.raises(FeedError, match="receive from queue"):
        await feed.receive(0)
    queue.send(json.dumps({}))
    assert len(await feed.receive(0)) == 1
    await clients.close()
