"""What is counted as the day goes: time with what there was, who came and waited, what was done, what must not be. Pure."""

from __future__ import annotations

from collections import Counter

from lifecycle.simulation.clock import Clock
from lifecycle.simulation.cloud import CloudModel
from lifecycle.simulation.sums import Sums


class Ledger:
    """users: those who hold a slot or wait for one. violations: promises of safety that were broken, in words."""

    def __init__(self, clock: Clock, cloud: CloudModel, slots: int, counted_from: float) -> None:
        self._clock, self._cloud, self._counted_from = clock, cloud, counted_from
        self.sums = Sums(slots, counted_from)
        self.users = self._waiting = 0
        self.counts: Counter[str] = Counter()
        self.violations: list[str] = []

    def more_users(self, more: int) -> None:
        self.time_passed()
        self.users += more

    def more_waiting(self, more: int) -> None:
        """Of the users."""
        self.time_passed()
        self._waiting += more

    def time_passed(self) -> None:
        """With what there was; called before machines of the cloud change."""
        cloud = self._cloud
        machines, stopped = len(cloud.instances), len(cloud.stopped)
        self.sums.pass_to(self._clock.now, self.users, self._waiting, machines, stopped)

    def visited(self) -> None:
        self.sums.visits += self._clock.now >= self._counted_from

    def arrived(self) -> None:
        """Somebody who needs a slot."""
        self.sums.arrive(self._clock.now)

    def waited(self, came: float, priority: str) -> None:
        """From `came` until now, perhaps for no time."""
        self.sums.served(came, self._clock.now - came, priority)

    def tally(self, name: str, more: int = 1) -> None:
        if self._clock.now >= self._counted_from:
            self.counts[name] += more

    def broken(self, what: str) -> None:
        self.violations.append(what)
