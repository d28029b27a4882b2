from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from lifecycle.aws import Clients
from lifecycle.channels import ChannelError
from lifecycle.channels.sns import BYTES_MAX, SnsTopic, batches, message
from lifecycle.model import Event


class Topic:
    """A topic with a queue that hears it."""

    def __init__(self, aws: Any, name: str = "lifecycle", policy: Any = None) -> None:
        self.aws, self.sqs, sns = aws, aws.client("sqs"), aws.client("sns")
        fifo = {"FifoTopic": "true"} if name.endswith(".fifo") else {}
        self.arn = sns.create_topic(Name=name, Attributes=fifo)["TopicArn"]
        queue = {"FifoQueue": "true"} if fifo else {}
        name = "heard.fifo" if fifo else "heard"
        self.queue = self.sqs.create_queue(QueueName=name, Attributes=queue)["QueueUrl"]
        endpoint = f"arn:aws:sqs:{aws.region}:123456789012:{name}"
        attributes = {"FilterPolicy": json.dumps(policy)} if policy else {}
        sns.subscribe(TopicArn=self.arn, Protocol="sqs", Endpoint=endpoint, Attributes=attributes)

    def heard(self) -> list[dict[str, Any]]:
        """SNS's envelopes, each with its message read."""
        found: list[dict[str, Any]] = []
        while True:
            answer = self.sqs.receive_message(
                QueueUrl=self.queue, MaxNumberOfMessages=10, AttributeNames=["All"]
            )
            for each in answer.get("Messages", []):
                envelope = json.loads(each["Body"]) | {"sqs": each.get("Attributes", {})}
                found.append(envelope | {"Message": json.loads(envelope["Message"])})
                self.sqs.delete_message(QueueUrl=self.queue, ReceiptHandle=each["ReceiptHandle"])
            if not answer.get("Messages"):
                return found


@pytest.fixture
async def clients(aws: Any) -> AsyncIterator[Clients]:
    clients = Clients()
    yield clients
    await clients.close()


def running(n: int = 1, **more: str) -> Event:
    data = {"workspace": f"w{n}", "user": "ann", "machine": "m-1", "epoch": "3", **more}
    return Event(f"170000000{n:04}-0", "workspace.running", data)


async def test_a_subscriber_reads_what_happened(aws: Any, clients: Clients) -> None:
    topic = Topic(aws)
    assert await SnsTopic(topic.arn, "blue", clients).tell([running(1, reason="asked for")]) == 0
    (heard,) = topic.heard()
    assert heard["Message"] == {
        "id": "1700000000001-0",
        "type": "workspace.running",
        "at": 1700000000001,
        "fleet": "blue",
        "workspace": "w1",
        "user": "ann",
        "machine": "m-1",
        "epoch": "3",
        "reason": "asked for",
    }
    told = {name: row["Value"] for name, row in heard["MessageAttributes"].items()}
    assert told == {"type": "workspace.running", "fleet": "blue"}


async def test_a_subscription_filters_by_type(aws: Any, clients: Clients) -> None:
    topic = Topic(aws, policy={"type": ["machine.lost"]})
    lost = Event("1700000000002-0", "machine.lost", {"machine": "m-1"})
    await SnsTopic(topic.arn, "blue", clients).tell([running(), lost])
    assert [heard["Message"]["type"] for heard in topic.heard()] == ["machine.lost"]


async def test_ten_at_a_time(aws: Any, clients: Clients) -> None:
    topic = Topic(aws)
    await SnsTopic(topic.arn, "blue", clients).tell([running(n) for n in range(25)])
    assert [call.action for call in aws.calls] == ["PublishBatch"] * 3
    assert {heard["Message"]["workspace"] for heard in topic.heard()} == {
        f"w{n}" for n in range(25)
    }


async def test_a_fifo_topic_keeps_the_order_of_each_workspace(aws: Any, clients: Clients) -> None:
    topic = Topic(aws, "lifecycle.fifo")
    events = [running(1), Event("1700000000009-0", "workspace.stopped", {"workspace": "w1"})]
    machine = Event("1700000000010-0", "machine.ready", {"machine": "m-1"})
    await SnsTopic(topic.arn, "blue", clients).tell([*events, machine])
    heard = topic.heard()
    groups = {each["Message"]["type"]: each["sqs"]["MessageGroupId"] for each in heard}
    assert groups == {
        "workspace.running": "w1",
        "workspace.stopped": "w1",
        "machine.ready": "m-1",
    }
    assert len({each["sqs"]["MessageDeduplicationId"] for each in heard}) == 3


async def test_fleets_that_share_a_fifo_topic_do_not_swallow_each_others(
    aws: Any, clients: Clients
) -> None:
    topic = Topic(aws, "lifecycle.fifo")
    for fleet in ("blue", "green", "blue"):
        await SnsTopic(topic.arn, fleet, clients).tell([running()])
    assert sorted({each["Message"]["fleet"] for each in topic.heard()}) == ["blue", "green"]
    ids = [
        json.dumps(sorted(row for row in call.params.items() if "Deduplication" in row[0]))
        for call in aws.calls
    ]
    assert ids[0] == ids[2] != ids[1]


def test_nothing_but_what_is_known_to_be_harmless_is_told() -> None:
    event = running(1, secret="s3cret", token="t0ken", address="10.0.0.1:7070", code="c0de")
    told = message(event, "blue")
    assert {"secret", "token", "address", "code"} & told.keys() == set()
    assert "s3cret" not in json.dumps(told)
    assert len(message(running(1, reason="x" * 1_000_000), "blue")["reason"]) == 2_000


def test_a_call_stays_below_what_sns_takes() -> None:
    entries = [{"Id": str(n), "Message": "ä" * 40_000, "MessageAttributes": {}} for n in range(9)]
    found = list(batches(entries))
    assert [len(batch) for batch in found] == [3, 3, 3]
    assert all(sum(len(e["Message"].encode()) for e in batch) < BYTES_MAX for batch in found)


async def test_what_sns_stumbles_over_is_told_once_more(aws: Any, clients: Clients) -> None:
    topic = Topic(aws)
    refused = (
        "<PublishBatchResponse><PublishBatchResult><Successful/><Failed><member><Id>{}</Id>"
        "<Code>InternalError</Code><Message>try again</Message><SenderFault>{}</SenderFault>"
        "</member></Failed></PublishBatchResult></PublishBatchResponse>"
    )
    channel = SnsTopic(topic.arn, "blue", clients)

    def answer(fault: str) -> Any:
        return lambda *_: refused.format(running().id, fault).encode()

    with aws.fault("sns", "PublishBatch", answer=answer("false"), times=1):
        assert await channel.tell([running()]) == 0
    with aws.fault("sns", "PublishBatch", answer=answer("true")) as calls:
        assert await channel.tell([running()]) == 1
    assert calls.hits == 1


async def test_check_says_what_to_do(aws: Any, clients: Clients) -> None:
    topic = Topic(aws)
    await SnsTopic(topic.arn, "blue", clients).check()
    with pytest.raises(ChannelError, match=r"no SNS topic .*nobody .* --aws-topic"):
        await SnsTopic(topic.arn.replace("lifecycle", "nobody"), "blue", clients).check()
    aws.fault("sns", error=("AuthorizationError", 403))
    with pytest.raises(ChannelError, match="AuthorizationError"):
        await SnsTopic(topic.arn, "blue", clients).tell([running()])
