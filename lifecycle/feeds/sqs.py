"""An SQS queue that an EventBridge rule fills."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lifecycle.aws import Clients, explain, failures
from lifecycle.feeds import FeedError, Message

WAIT_MAX = 20  # seconds of one long poll: SQS's own bound
BATCH = 10  # messages of one call: SQS's own bound, received and deleted
HIDDEN = (
    10  # seconds a received message stays hidden: its notices take milliseconds to write down, and
)
# one that whoever received it took to the grave must come again well within a spot notice's 120 s


class SqsFeed:
    def __init__(self, queue_url: str, clients: Clients) -> None:
        """clients: somebody else's to close."""
        self._url, self._clients = queue_url, clients

    async def check(self) -> None:
        await self._ask(
            "get_queue_attributes", f"read queue {self._url} (--aws-queue)",
            QueueUrl=self._url, AttributeNames=["QueueArn"],
        )  # fmt: skip

    async def receive(self, wait: float) -> list[Message]:
        answer = await self._ask(
            "receive_message", f"receive from queue {self._url}",
            QueueUrl=self._url, MaxNumberOfMessages=BATCH, VisibilityTimeout=HIDDEN,
            WaitTimeSeconds=max(0, min(WAIT_MAX, int(wait))),
            AttributeNames=["ApproximateReceiveCount", "SentTimestamp"],
        )  # fmt: skip
        return [_message(row) for row in answer.get("Messages", [])]

    async def done(self, messages: Sequence[Message]) -> None:
        for start in range(0, len(messages), BATCH):
            batch = messages[start : start + BATCH]
            rows = [{"Id": str(n), "ReceiptHandle": m.handle} for n, m in enumerate(batch)]
            # What could not be deleted comes again, and repeats what was done: that changes nothing.
            await self._ask(
                "delete_message_batch", f"delete from queue {self._url}",
                QueueUrl=self._url, Entries=rows,
            )  # fmt: skip

    async def close(self) -> None:
        """Nothing of its own to let go of."""

    async def _ask(self, verb: str, doing: str, **parameters: Any) -> dict[str, Any]:
        try:
            client = await self._clients.get("sqs")
            answer: dict[str, Any] = await getattr(client, verb)(**parameters)
        except failures() as error:
            raise FeedError(_explained(error, doing)) from error
        return answer


def _explained(error: BaseException, doing: str) -> str:
    gone = "NonExistentQueue" in str(getattr(error, "response", ""))
    if gone or "QueueDoesNotExist" in type(error).__name__:
        return f"cannot {doing}: there is no such queue; create it in this account and region, or correct the address"
    return explain(error, doing)


def _message(row: dict[str, Any]) -> Message:
    known = row.get("Attributes", {})
    return Message(
        id=row["MessageId"],
        body=row["Body"],
        receives=int(known.get("ApproximateReceiveCount", 1)),
        sent_at_ms=int(known.get("SentTimestamp", 0)),
        handle=row["ReceiptHandle"],
    )
