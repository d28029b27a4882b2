"""What is told of a day: how things stand each minute, the decisions that were asked about, and the account. Pure."""

from __future__ import annotations

from collections import Counter
from typing import Any

from lifecycle.model import MachineStatus
from lifecycle.pricing import shown
from lifecycle.scaling.records import Decision
from lifecycle.simulation.clock import Clock
from lifecycle.simulation.cloud import CloudModel
from lifecycle.simulation.hours import Hours
from lifecycle.simulation.ledger import Ledger
from lifecycle.simulation.people import People
from lifecycle.simulation.records import Account, Sample
from lifecycle.simulation.seats import Seats

_M = MachineStatus


class Telling:
    """It reads what the others hold, and changes nothing until the end."""

    def __init__(
        self, clock: Clock, cloud: CloudModel, seats: Seats, people: People, hours: Hours, ledger: Ledger,
    ) -> None:  # fmt: skip
        self._clock, self._cloud, self._seats = clock, cloud, seats
        self._people, self._hours, self._ledger = people, hours, ledger
        self._samples: list[Sample] = []
        self._explained: list[dict[str, Any]] = []

    def sample(self, want: int) -> None:
        """Now. want: machines, as decided."""
        seats = self._seats
        status = Counter(m.status for m in seats.listed.values())
        ready = len(seats.machines) - len(seats.listed) + status[_M.READY]
        users, waiting = self._ledger.users, len(self._people.queue)
        launching, stopped = status[_M.LAUNCHING], status[_M.STOPPED]
        self._samples.append(
            Sample(self._clock.now, users, waiting, ready, launching, stopped, want)
        )
        orphans = self._cloud.instances - seats.machines.keys()
        if orphans:
            self._ledger.broken(f"nobody knows of {sorted(orphans)[:3]}")

    def explain(self, decision: Decision) -> None:
        row = decision.to_json()
        for held in (row.get("need") or {}).get("peaks", ()):
            held["peak"]["at"] = self._clock.at(held["peak"].pop("at_ms"))
        self._explained.append({"at": self._clock.now, **row})

    def account(
        self, workload: str, seed: int, policy: str, setting: float | None, seconds: float
    ) -> Account:
        """The day ends now. seconds: that the simulation took."""
        self._ledger.time_passed()
        self._people.wait_on()
        sums = self._ledger.sums
        hours = sums.machine_seconds / 3600
        return Account(
            policy, setting, workload, seed, sums.visits, sums.arrivals, sums.waits,
            hours, sums.bound_seconds / 3600, sums.user_seconds / 3600, self._cost(), sums.hours,
            self._samples, self._counts(), self._ledger.violations, self._explained, seconds, sums.priorities(),
        )  # fmt: skip

    def _cost(self) -> float:
        sums, about = self._ledger.sums, self._cloud.about
        hours, stopped = sums.machine_seconds / 3600, sums.stopped_seconds / 3600
        return hours * about.price + stopped * about.price_stopped

    def _counts(self) -> dict[str, float]:
        counts: dict[str, float] = dict(self._ledger.counts)
        if self._hours.prices is not None:
            for (
                machine
            ) in self._seats.machines.values():  # they run on, and what they ran is billed
                for workspace in self._seats.on(machine.id):
                    self._hours.bill(workspace, machine)
            counts["billed"] = shown(self._hours.billed)
        return counts
