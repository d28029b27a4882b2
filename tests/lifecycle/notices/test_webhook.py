"""A webhook against a real receiver."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import pytest

from lifecycle.notices import STOPPED, Notice
from lifecycle.notices.deliveries import Answer, Delivery, Outcome
from lifecycle.notices.webhook import Webhook
from tests.lifecycle.notices.receiver import SECRET, Receiver, receiving, verified

NOTICE = Notice(
    7, STOPPED, "demo-abc", "ada", 1_795_564_800_123, "“demo” was stopped",
    {"at": "1795564800123", "reason": "idle", "canStay": "1"},
)  # fmt: skip
DELIVERY = Delivery("msg_1_1", "webhook", NOTICE, "demo")


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as running:
        yield running


async def send(receiver: Receiver, url: str = "", timeout: float = 10) -> Answer:
    webhook = Webhook(url or receiver.url, SECRET, timeout=timeout)
    try:
        return await webhook.send(DELIVERY)
    finally:
        await webhook.close()


async def test_what_arrives_is_signed_and_says_it_all(receiver: Receiver) -> None:
    assert (await send(receiver)).outcome is Outcome.SENT
    [(headers, raw)] = receiver.got
    assert verified(headers, raw, SECRET, time.time())
    assert not verified(headers, raw + b" ", SECRET, time.time())
    assert not verified({**headers, "webhook-id": "msg_2"}, raw, SECRET, time.time())
    assert headers["webhook-id"] == "msg_1_1"
    assert headers["content-type"] == "application/json"
    assert receiver.bodies == [
        {
            "type": STOPPED,
            "timestamp": "2026-11-25T00:00:00.123Z",
            "data": {
                "workspaceId": "demo-abc",
                "userId": "ada",
                "name": "demo",
                "seq": 7,
                "text": "“demo” was stopped",
                "at": 1_795_564_800_123,
                "reason": "idle",
                "canStay": True,
            },
        }
    ]


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (200, Outcome.SENT),
        (302, Outcome.FAILED),
        (400, Outcome.FAILED),
        (410, Outcome.GONE),
        (503, Outcome.FAILED),
    ],
)
async def test_what_each_answer_means(receiver: Receiver, status: int, outcome: Outcome) -> None:
    receiver.answers, receiver.text = [status], "so\x1b[0m be it " + "x" * 100_000
    receiver.headers = {"Location": receiver.url, "Retry-After": "90"}
    answer = await send(receiver)
    assert (answer.outcome, answer.code, answer.retry_after) == (outcome, status, 90)
    assert answer.said.startswith("so [0m be it xx")
    assert len(answer.said) <= 1024
    assert len(receiver.got) == 1  # a redirect is not followed


async def test_whoever_does_not_answer_is_told_so(receiver: Receiver) -> None:
    receiver.hangs = True
    assert await send(receiver, timeout=0.2) == Answer(Outcome.FAILED, "no answer in 0.2 s")
    gone = receiver.url.replace("http://", "https://")  # nobody speaks TLS there
    answer = await send(receiver, gone)
    assert answer.outcome is Outcome.FAILED
    assert answer.said.startswith("no answer: ")
