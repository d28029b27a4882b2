"""Telemetry: where figures of the fleet go, beside /metrics. One file per technology behind the Protocol below."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


class SinkError(Exception):
    """The figures could not be sent, or never could be. str(error) says what to do next."""


@dataclass(frozen=True, slots=True)
class Datum:
    """One figure of one moment. unit: Count or Seconds. at_ms: by the store's clock.

    values: what was measured, several where each happened by itself (boots). status: of which
    machines, where it is a count of those; "" elsewhere.
    """

    name: str
    unit: str
    values: tuple[float, ...]
    at_ms: int
    status: str = ""


class MetricSink(Protocol):
    async def check(self) -> None:
        """Raise SinkError with what to do, if nothing can be sent like this."""

    async def put(self, data: Sequence[Datum]) -> None:
        """Send them. Raises SinkError; what could not be sent is not kept."""
