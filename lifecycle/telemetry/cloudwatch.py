"""Figures to Amazon CloudWatch, a figure a minute."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from lifecycle.aws import Clients, explain, failures
from lifecycle.telemetry import Datum, SinkError

DATA_MAX = 1000  # of one call
VALUES_MAX = 150  # of one datum
BYTES_MAX = 900_000  # of one call; CloudWatch takes 1 MB


class CloudWatch:
    """A MetricSink. Every figure has the dimension Fleet; counts of machines also Status."""

    def __init__(self, namespace: str, fleet: str, clients: Clients) -> None:
        self._namespace, self._fleet, self._clients = namespace, fleet, clients

    async def check(self) -> None:
        if not self._namespace or self._namespace.startswith("AWS/"):
            raise SinkError(
                f"CloudWatch takes no figures in the namespace {self._namespace!r}: --cloudwatch-namespace"
                " may be any other that does not begin with AWS/"
            )
        await self._send([])

    async def put(self, data: Sequence[Datum]) -> None:
        """Each batch by itself: one that is refused does not take the others with it."""
        errors = []
        for batch in batches(rows(data, self._fleet)):
            try:
                await self._send(batch)
            except SinkError as error:
                errors.append(f"{error} ({len(batch)} figures lost)")
        if errors:
            raise SinkError("; ".join(errors[:3]))

    async def _send(self, batch: list[dict[str, Any]]) -> None:
        try:
            client = await self._clients.get("cloudwatch")
            if batch:
                await client.put_metric_data(Namespace=self._namespace, MetricData=batch)
        except failures() as error:
            doing = f"send figures to CloudWatch, namespace {self._namespace}"
            raise SinkError(explain(error, doing)) from error


def rows(data: Sequence[Datum], fleet: str) -> Iterator[dict[str, Any]]:
    """As PutMetricData wants them. Equal values are told once, with their count."""
    for datum in data:
        dimensions = [{"Name": "Fleet", "Value": fleet}]
        if datum.status:
            dimensions.append({"Name": "Status", "Value": datum.status})
        counts = list(Counter(datum.values).items())
        for at in range(0, len(counts), VALUES_MAX):
            part = counts[at : at + VALUES_MAX]
            yield {
                "MetricName": datum.name,
                "Dimensions": dimensions,
                "Timestamp": datetime.fromtimestamp(datum.at_ms / 1000, UTC),
                "Unit": datum.unit,
                "StorageResolution": 60,
                "Values": [value for value, _ in part],
                "Counts": [float(count) for _, count in part],
            }


def batches(found: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Full ones, each within what one call takes."""
    batch: list[dict[str, Any]] = []
    size = 0
    for row in found:
        weight = len(json.dumps(row, default=str)) * 2  # in a form every name is spelled in full
        if batch and (len(batch) == DATA_MAX or size + weight > BYTES_MAX):
            yield batch
            batch, size = [], 0
        batch.append(row)
        size += weight
    if batch:
        yield batch
