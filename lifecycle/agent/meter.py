"""CPU, memory and disk of the machine and of each workspace, measured at most once a second."""

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
        self._lock = asyncio.Lock()
        psutil.cpu_percent()  # the first answer is since this call

    async def read(self, owners: list[Owner]) -> Sample:
        """The last sample, or a new one if it is older than INTERVAL."""
        async with self._lock:
            if time.monotonic() - self._last.at >= INTERVAL:
                self._last = await asyncio.to_thread(self._measure, owners)
            return self._last

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
