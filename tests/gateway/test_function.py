"""The scheduled function: settings from its environment, one turn under the lease, and words when it cannot."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from redis import Redis

from gateway.exits import ConfigurationError, DependencyMissing
from gateway.function import handler
from lifecycle.stores import keys
from lifecycle.stores.connection import connect
from lifecycle.stores.redis import RedisStore
from lifecycle.stores.signals import RedisSignals


@pytest.fixture
def shared(valkey: str) -> Iterator[Redis]:
    """The gateways' Redis, on which one has started."""
    with Redis.from_url(valkey, decode_responses=True) as client:
        client.flushall()
        client.set(keys.SIGNING_KEY, "a key that gateways share")
        yield client


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()


@pytest.fixture
def environment(
    aws: Any, shared: Redis, valkey: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[pytest.MonkeyPatch]:
    """As of a function that is set up."""
    ec2 = aws.client("ec2")
    aws.client("s3").create_bucket(
        Bucket="snapshots", CreateBucketConfiguration={"LocationConstraint": aws.region}
    )
    settings = {
        "REDIS_URL": valkey,
        "POOL": "ec2",
        "MACHINE_IMAGE": ec2.register_image(Name="i", RootDeviceName="/dev/xvda")["ImageId"],
        "INSTANCE_TYPES": "m7i.large",
        "SUBNETS": ec2.describe_subnets()["Subnets"][0]["SubnetId"],
        "SNAPSHOTS": "s3://snapshots/ide",
        "PUBLIC_URL": "https://ide.example.com",
        "DOMAIN": "ide.example.com",
        "WARM_SLOTS": "0",
        "WAIT_PROBABILITY": "0",
    }
    for name, value in settings.items():
        monkeypatch.setenv(f"IDE_GATEWAY_{name}", value)
    with aws.role("function"):
        yield monkeypatch


async def _waken(url: str) -> None:
    async with connect(url) as redis:
        store = RedisStore(redis)
        one, _ = await store.ensure("ada")
        await store.wake(one.id)


async def _lease(url: str, holder: str, ttl: float) -> int:
    async with connect(url) as redis:
        return await RedisSignals(redis).take_lease(holder, ttl)


def launched(aws: Any) -> list[Any]:
    return [call for call in aws.calls if call.action == "RunInstances" and call.status == 200]


def test_nothing_is_launched_for_nobody(aws: Any, environment: Any, shared: Redis) -> None:
    told = handler({}, None)
    assert told["led"]
    assert not launched(aws)
    assert not shared.exists(keys.LEASE), "it was given back"


def test_a_turn_launches_for_who_waits_and_the_next_one_launches_nothing_more(
    aws: Any, environment: Any, shared: Redis, valkey: str
) -> None:
    asyncio.run(_waken(valkey))
    assert handler({}, None)["workspaces"]["queued"] == 1
    assert len(launched(aws)) == 1
    assert shared.smembers(keys.MACHINE_IDS) == {"m-1"}
    assert handler({"source": "aws.scheduler"}, object())["led"]
    assert len(launched(aws)) == 1
    assert {call.role for call in aws.calls} == {"function"}


def test_what_happened_since_the_last_turn_is_told_to_the_topic(
    aws: Any, environment: pytest.MonkeyPatch, shared: Redis, valkey: str
) -> None:
    sns, sqs = aws.client("sns"), aws.client("sqs")
    topic = sns.create_topic(Name="life")["TopicArn"]
    queue = sqs.create_queue(QueueName="hears")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])
    sns.subscribe(
        TopicArn=topic, Protocol="sqs", Endpoint=arn["Attributes"]["QueueArn"],
        Attributes={"RawMessageDelivery": "true"},
    )  # fmt: skip
    environment.setenv("IDE_GATEWAY_AWS_TOPIC", topic)

    def heard() -> set[str]:
        told = sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages", [])
        return {json.loads(message["Body"])["type"] for message in told}

    handler({}, None)
    assert heard() == set(), "what was before the first turn is history"
    asyncio.run(_waken(valkey))  # between two turns, by a gateway
    handler({}, None)
    assert heard() == {"workspace.created", "workspace.queued", "machine.launching"}
    handler({}, None)
    assert heard() == set(), "each is told once"


def test_who_finds_the_lease_taken_does_nothing(
    aws: Any, environment: Any, shared: Redis, valkey: str
) -> None:
    asyncio.run(_waken(valkey))
    assert asyncio.run(_lease(valkey, "a-gateway", 60))
    held = shared.get(keys.LEASE)
    told = handler({}, None)
    assert (told["led"], told["workspaces"]["queued"]) == (False, 1)
    assert not launched(aws)
    assert shared.get(keys.LEASE) == held, "it is still that gateway's"


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"REDIS_URL": ""}, ConfigurationError, "IDE_GATEWAY_REDIS_URL"),
        ({"POOL": "local"}, ConfigurationError, "ec2 or ecs"),
        ({"POOL": "asg", "ASG": "group"}, ConfigurationError, "let a gateway lead"),
        ({"POOL": "ec3"}, ConfigurationError, "pool = 'ec3'"),
        ({"SNAPSHOTS": "s3://nowhere/ide"}, ConfigurationError, "no such bucket"),
        ({"REDIS_URL": "unix:///nowhere.sock"}, DependencyMissing, "Redis did not answer"),
    ],
)
def test_what_is_set_up_wrongly_is_said(
    environment: pytest.MonkeyPatch, changes: dict[str, str], kind: type, words: str
) -> None:
    for name, value in changes.items():
        environment.setenv(f"IDE_GATEWAY_{name}", value)
    with pytest.raises(kind) as caught:
        handler({}, None)
    assert words in str(caught.value)


def test_without_a_gateway_there_is_no_key(environment: Any, shared: Redis) -> None:
    shared.delete(keys.SIGNING_KEY)
    with pytest.raises(DependencyMissing) as caught:
        handler({}, None)
    assert "no signing key" in str(caught.value)
    assert "--lifecycle off" in str(caught.value)
