"""What of a simulated day is summed up while its time passes. Pure: moments and numbers in."""

from __future__ import annotations

from math import inf

WARM = 1.0  # seconds; who has a slot sooner did not wait


class Sums:
    """What is summed up while time passes, from counted_from on."""

    def __init__(self, slots: int, counted_from: float) -> None:
        self.slots, self.counted_from = slots, counted_from
        self.at = counted_from
        self.visits = self.arrivals = 0
        self.machine_seconds = self.stopped_seconds = 0.0
        self.bound_seconds = self.user_seconds = 0.0
        self.waits: list[float] = []
        self.hours: dict[int, tuple[int, int]] = {}
        self._priorities: dict[str, tuple[int, float, float]] = {}

    def pass_to(self, now: float, users: int, waiting: int, machines: int, stopped: int) -> None:
        """waiting: those of the users who have no slot; whoever they are, machines could do without them."""
        seconds = now - self.at
        if seconds <= 0:
            return
        self.at = now
        self.user_seconds += users * seconds
        self.bound_seconds += -(-(users - waiting) // self.slots) * seconds
        self.machine_seconds += machines * seconds
        self.stopped_seconds += stopped * seconds

    def arrive(self, at: float) -> None:
        if at >= self.counted_from:
            self.arrivals += 1
            came, waited = self.hours.get(int(at // 3600) % 24, (0, 0))
            self.hours[int(at // 3600) % 24] = (came + 1, waited)

    def served(self, came: float, wait: float, priority: str) -> None:
        if not self.counted_from <= came < inf:
            return
        count, total, longest = self._priorities.get(priority, (0, 0.0, 0.0))
        self._priorities[priority] = (count + 1, total + wait, max(longest, wait))
        if wait >= WARM:
            self.waits.append(wait)
            hour = int(came // 3600) % 24
            arrivals, waited = self.hours.get(hour, (0, 0))
            self.hours[hour] = (arrivals, waited + 1)

    def priorities(self) -> dict[str, tuple[int, float, float]]:
        """Priority → how many, their mean wait, the longest."""
        return {
            name: (count, total / count, longest)
            for name, (count, total, longest) in self._priorities.items()
        }
