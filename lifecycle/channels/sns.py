"""Lifecycle events to a topic of Amazon SNS."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import structlog

from lifecycle.aws import Clients, code_of, explain, failures
from lifecycle.channels import ChannelError
from lifecycle.model import Event

log = structlog.get_logger(__name__)

ENTRIES_MAX = 10  # of one call
BYTES_MAX = 250_000  # of one call; SNS takes 256 KiB, attributes and all
FIELD_MAX = 2_000  # characters of one field: a reason may quote an IDE's output

_TOLD = frozenset(
    {"workspace", "user", "machine", "session", "epoch", "reason", "step", "errorCode", "error", "pool"}
)  # fmt: skip
"""Fields of an event that are told; any other stays here, so that what is added later does too."""


class SnsTopic:
    """A Channel. fleet: tells fleets apart that share a topic."""

    def __init__(self, arn: str, fleet: str, clients: Clients) -> None:
        self._arn, self._fleet, self._clients = arn, fleet, clients

    async def check(self) -> None:
        try:
            client = await self._clients.get("sns")
            await client.get_topic_attributes(TopicArn=self._arn)
        except failures() as error:
            if code_of(error) in ("NotFound", "NotFoundException", "InvalidParameter"):
                raise ChannelError(
                    f"there is no SNS topic {self._arn} in this account and region: create it, or"
                    " correct --aws-topic or --aws-region"
                ) from error
            raise ChannelError(explain(error, f"look at the SNS topic {self._arn}")) from error

    async def tell(self, events: Sequence[Event]) -> int:
        refused = 0
        for batch in batches([self._entry(event) for event in events]):
            refused += await self._publish(batch)
        return refused

    async def _publish(self, batch: list[dict[str, Any]]) -> int:
        """How many were refused. What SNS itself stumbled over is told once more."""
        lost = await self._call(batch)
        again = {row["Id"] for row in lost if not row.get("SenderFault")}
        if again:
            more = await self._call([entry for entry in batch if entry["Id"] in again])
            lost = [row for row in lost if row["Id"] not in again] + more
        for row in lost:
            log.warning(
                "channel.refused", id=row["Id"], code=row.get("Code"), why=row.get("Message")
            )
        return len(lost)

    async def _call(self, batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
        try:
            client = await self._clients.get("sns")
            answer = await client.publish_batch(
                TopicArn=self._arn, PublishBatchRequestEntries=batch
            )
        except failures() as error:
            raise ChannelError(explain(error, f"publish to the SNS topic {self._arn}")) from error
        return list(answer.get("Failed") or [])

    def _entry(self, event: Event) -> dict[str, Any]:
        row: dict[str, Any] = {
            "Id": event.id,
            "Message": json.dumps(message(event, self._fleet), ensure_ascii=False),
            "MessageAttributes": {
                "type": {"DataType": "String", "StringValue": event.type},
                "fleet": {"DataType": "String", "StringValue": self._fleet},
            },
        }
        if self._arn.endswith(".fifo"):
            about = event.data.get("workspace") or event.data.get("machine") or "fleet"
            # Fleets that share a topic have events of the same id.
            named = hashlib.sha256(f"{self._fleet}\0{event.id}".encode()).hexdigest()
            row |= {"MessageGroupId": about, "MessageDeduplicationId": named}
        return row


def message(event: Event, fleet: str) -> dict[str, Any]:
    """What subscribers read: {"id", "type", "at" (ms), "fleet", "workspace", "user", "machine", "reason", …}."""
    said = {name: text[:FIELD_MAX] for name, text in event.data.items() if name in _TOLD}
    return {"id": event.id, "type": event.type, "at": event.at_ms, "fleet": fleet, **said}


def batches(entries: Sequence[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Full ones in order, each within what one call takes."""
    batch: list[dict[str, Any]] = []
    size = 0
    for entry in entries:
        weight = _weight(entry)
        if batch and (len(batch) == ENTRIES_MAX or size + weight > BYTES_MAX):
            yield batch
            batch, size = [], 0
        batch.append(entry)
        size += weight
    if batch:
        yield batch


def _weight(entry: Mapping[str, Any]) -> int:
    attributes = json.dumps(entry["MessageAttributes"])
    return len(entry["Message"].encode()) + len(attributes.encode())
