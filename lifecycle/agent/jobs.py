"""Does something work in a workspace although nobody is there? Pure: what its processes used, in, words out.

A job is a process that uses more than a share of a core over two looks, or many that do together, or a busy
Jupyter kernel. The IDE's own server is none: it works for whoever looks at it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from lifecycle.agent.processes import Running

PAUSE = 15.0
"""Seconds without work after which a job has ended: one that waits for its disk for a moment goes on."""

ENOUGH = 2
"""Looks in a row that something has to be busy for: a save, an import and a linter are no jobs."""


class Jobs:
    """What works in one boot of a workspace."""

    def __init__(
        self, ide: int, share: float, script_of: Callable[[int], str] = lambda pid: ""
    ) -> None:
        """ide: pid of the IDE's server. share: percent of a core. script_of: pid → what its interpreter
        runs, or ""."""
        self._ide, self._share, self._script_of = ide, share, script_of
        self._last: dict[tuple[int, float], float] = {}
        self._at: float | None = None
        self._busy = 0
        self._worked_at = float("-inf")
        self.job = ""
        """In words; "" while nothing works."""

    def look(self, processes: Iterable[Running], kernel: str, now: float) -> str:
        """kernel: name of a busy one, or "". now: seconds of a clock that only goes forward. The job."""
        others = [each for each in processes if each.pid != self._ide]
        used = self._used(others, now)
        self._last = {(each.pid, each.started): each.cpu_seconds for each in others}
        self._at = now
        total = sum(share for share, _ in used)
        self._busy = self._busy + 1 if total >= self._share else 0
        if kernel or self._busy >= ENOUGH:
            self._worked_at = now
            self.job = f"kernel {kernel} is busy" if kernel else self._words(used[0][1])
        elif now - self._worked_at >= PAUSE:
            self.job = ""
        return self.job

    def _used(self, processes: Iterable[Running], now: float) -> list[tuple[float, Running]]:
        """Percent of a core since the last look, the busiest first. One that is new has used nothing yet."""
        if self._at is None or now <= self._at:
            return []
        elapsed = now - self._at
        found = [
            ((each.cpu_seconds - self._last[each.pid, each.started]) / elapsed * 100, each)
            for each in processes
            if (each.pid, each.started) in self._last
        ]
        return sorted(found, key=lambda pair: -pair[0])

    def _words(self, busiest: Running) -> str:
        script = self._script_of(busiest.pid)
        return f"{busiest.name}{' ' + script if script else ''} (pid {busiest.pid})"
