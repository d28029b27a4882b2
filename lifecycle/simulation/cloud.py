"""A cloud as the pool meets it: machines take their time, some launches fail or are never heard of again, the API grants
only so many a second, and what was had cheaply is taken back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import exp
from random import Random

from lifecycle.model import Machine
from lifecycle.pools import Observed
from lifecycle.simulation.records import Cloud


@dataclass(slots=True)
class Answer:
    """To a launch. up: (machine, when it will be ready). refused: those that do not exist for certain."""

    up: list[tuple[str, float]] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    throttled: bool = False
    no_capacity: bool = False


class CloudModel:
    def __init__(self, about: Cloud, random: Random) -> None:
        self.about, self._random = about, random
        self.notice = about.notice
        self.instances: set[str] = set()  # that run, and cost; those in `stopped` cost less
        self.faulty = bool(about.fails or about.hangs)
        self.stopped: set[str] = set()
        self._tokens, self._asked_at = float(about.burst), 0.0

    def launch(self, machine_ids: Sequence[str], now: float) -> Answer:
        """One that exists is left alone: a launch may be repeated."""
        answer = Answer()
        for machine_id in machine_ids:
            if machine_id in self.instances:
                continue
            if self._out_of_capacity(now):
                answer.no_capacity = True
                answer.refused.append(machine_id)
            elif not self._granted(now):
                answer.throttled = True
                answer.refused.append(machine_id)
            elif self._random.random() < self.about.fails:
                answer.refused.append(machine_id)
            else:
                self._run(machine_id, now, answer)
        return answer

    def _run(self, machine_id: str, now: float, answer: Answer) -> None:
        self.instances.add(machine_id)
        if self._random.random() < self.about.hangs:
            return  # it runs, and never says so
        answer.up.append((machine_id, now + self._takes(self.about.boot)))

    def _takes(self, median: float) -> float:
        return median * exp(self._random.gauss(0.0, self.about.spread))

    def _out_of_capacity(self, now: float) -> bool:
        return any(since <= now < until for since, until in self.about.refusals)

    def _granted(self, now: float) -> bool:
        if not self.about.burst:
            return True
        more = (
            max(0.0, now - self._asked_at) * self.about.rate
        )  # the first may ask at a time below 0
        self._tokens, self._asked_at = min(self.about.burst, self._tokens + more), now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def start(self, machine_id: str, now: float) -> float | None:
        """When the stopped machine is ready; None while there is no capacity, or the API grants nothing: it stays stopped."""
        if self._out_of_capacity(now) or not self._granted(now):
            return None
        self.stopped.discard(machine_id)
        self.instances.add(machine_id)
        return now + self._takes(self.about.start)

    def stop(self, machine_id: str) -> None:
        self.instances.discard(machine_id)
        self.stopped.add(machine_id)

    def terminate(self, machine_id: str) -> None:
        self.instances.discard(machine_id)
        self.stopped.discard(machine_id)

    def taken_back_at(self, machine_id: str, now: float) -> float | None:
        """When one that has just come up will be taken back; None: never."""
        if not self.about.spot_hours:
            return None
        return now + max(self.notice, self._random.expovariate(1 / (self.about.spot_hours * 3600)))

    def describe(self, machines: Iterable[Machine]) -> list[Observed]:
        """What is seen of these. One that hangs is launching for ever."""
        return [
            Observed(m.id, "launching" if m.id in self.instances else "stopped")
            for m in machines
            if m.id in self.instances or m.id in self.stopped
        ]
