"""CPU, memory and disk of the machine and of each workspace, measured at most once a second.

Nobody waits for a measurement but the first: what a report is for is news, and figures may be those of the
report before."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from lifecycle.agent.processes import Owner, Usage, usage

INTERVAL = 1.0  # seconds


@dataclass(frozen=True, slots=True)
class Load:
    """cpu_percent: of one core, so above 100 on several; of the whole machine for a machine."""

    cpu_percent: float
    memory_bytes: int
    memory_total_bytes: int = 0
    disk_free_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Sample:
    at: float
    machine: Load
    workspaces: dict[str, Load]
    raw: dict[str, Usage] = field(default_factory=dict)


class Meter:
    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._last = Sample(-INTERVAL, Load(0.0, 0), {})
        self._measuring: asyncio.Task[None] | None = None
        psutil.cpu_percent()  # the first answer is since this call

    async def read(self, owners: list[Owner]) -> Sample:
        """The last sample. If it is older than INTERVAL, the next one is on its way."""
        idle = self._measuring is None or self._measuring.done()
        if idle and time.monotonic() - self._last.at >= INTERVAL:
            self._measuring = asyncio.create_task(self._renew(owners))
        if self._measuring is not None and not self._last.machine.memory_bytes:
            await asyncio.wait({self._measuring})
        return self._last

    async def _renew(self, owners: list[Owner]) -> None:
        self._last = await asyncio.to_thread(self._measure, owners)

    def _measure(self, owners: list[Owner]) -> Sample:
        raw, now = usage(owners), time.monotonic()
        elapsed = now - self._last.at
        loads = {
            workspace: Load(
                _percent(self._last.raw.get(workspace), used, elapsed), used.memory_bytes
            )
            for workspace, used in raw.items()
        }
        return Sample(now, _machine(self._directory), loads, raw)


def _machine(directory: Path) -> Load:
    memory = psutil.virtual_memory()
    return Load(
        psutil.cpu_percent(),
        memory.total - memory.available,
        memory.total,
        psutil.disk_usage(str(directory)).free,
    )


def _percent(before: Usage | None, now: Usage, elapsed: float) -> float:
    if before is None:
        return 0.0
    # A process that ended takes its seconds along: then the sum may even fall.
    return round(max(0.0, now.cpu_seconds - before.cpu_seconds) / elapsed * 100, 1)
