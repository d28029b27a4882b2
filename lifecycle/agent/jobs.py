"""Does something work in a workspace although nobody is there? Pure: what its processes used, in, words out.

A job is a process that uses more than a share of a core over two looks, or many that do together, or a busy
Jupyter kernel. The IDE's own server is none: it works for whoever looks at it. A build is one, although each of
its compilers lives for a second: what they used is their parent's once they have ended.
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
        self._last: dict[int, Running] = {}
        self._at: float | None = None
        self._busy = 0
        self._worked_at = float("-inf")
        self.job = ""
        """In words; "" while nothing works."""

    def look(self, processes: Iterable[Running], kernel: str, now: float) -> str:
        """kernel: name of a busy one, or "". now: seconds of a clock that only goes forward. The job."""
        others = [each for each in processes if each.pid != self._ide]
        used = self._used(others, now)
        self._last = {each.pid: each for each in others}
        self._at = now
        total = sum(share for share, _ in used)
        self._busy = self._busy + 1 if total >= self._share else 0
        if kernel or self._busy >= ENOUGH:
            self._worked_at = now
            self.job = f"kernel {kernel} is busy" if kernel else self._words(used[0][1])
        elif now - self._worked_at >= PAUSE:
            self.job = ""
        return self.job

    def _used(self, processes: list[Running], now: float) -> list[tuple[float, Running]]:
        """Percent of a core since the last look, the busiest first."""
        if self._at is None or now <= self._at:
            return []
        elapsed = now - self._at
        found = [(seconds / elapsed * 100, each) for seconds, each in self._seconds(processes)]
        return sorted(found, key=lambda pair: -pair[0])

    def _seconds(self, processes: list[Running]) -> list[tuple[float, Running]]:
        """CPU seconds since the last look of each process, with those of its children that ended meanwhile."""
        here = {each.pid: each.started for each in processes}
        stays = {pid for pid, each in self._last.items() if here.get(pid) == each.started}
        counted = dict.fromkeys(stays, 0.0)  # what its ended children had used by the last look
        for each in self._last.values():
            heir = self._heir(each, stays)
            if heir is not None:
                counted[heir] += each.cpu_seconds + each.ended_seconds
        found = []
        for each in processes:
            if each.pid not in stays:
                found.append((each.cpu_seconds + each.ended_seconds, each))
                continue
            last = self._last[each.pid]
            ended = each.ended_seconds - last.ended_seconds - counted[each.pid]
            found.append((each.cpu_seconds - last.cpu_seconds + max(0.0, ended), each))
        return found

    def _heir(self, ended: Running, stays: set[int]) -> int | None:
        """Which of those that stay was told what this one used; None when it stays itself, or none was."""
        pid = ended.pid
        for _ in self._last:  # a pid that is used again may lead in a circle
            if pid in stays or pid not in self._last:
                break
            pid = self._last[pid].parent
        return pid if pid in stays and pid != ended.pid else None

    def _words(self, busiest: Running) -> str:
        script = self._script_of(busiest.pid)
        return f"{busiest.name}{' ' + script if script else ''} (pid {busiest.pid})"
