"""The virtual clock: visits and machines come and go, and what decides about them is what decides live.

Placing, the queue's order, when a workspace stops, what a machine is given back for, what moves off a doomed machine, what
is made of a launch that never came up: all of that is lifecycle's own code, called with this clock's time. What is
modelled here is the rest of the world: people (workload) and a cloud (cloud.py).

A day's parts, each of which knows those below it and none above:

    engine      a decision each tick, and what it asks for
    telling     samples, the account
    machines    launched, come up, given back, taken away
    moves       what leaves a doomed machine, what moves together
    people      visits, who gets a slot, what time does to a workspace
    queue seats hours     who waits; who is where, on which machine the next one goes (choice); running hours
    ledger      what is counted
    clock cloud what happens when; what machines come from
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf
from random import Random

from lifecycle.plans import Plan, Policy
from lifecycle.pricing import Prices
from lifecycle.scaler import scale
from lifecycle.scaling.memory import begin
from lifecycle.scaling.records import Decision, Facts, Memory, Rule
from lifecycle.simulation.clock import Clock
from lifecycle.simulation.cloud import CloudModel
from lifecycle.simulation.hours import Hours
from lifecycle.simulation.ledger import Ledger
from lifecycle.simulation.machines import Machines
from lifecycle.simulation.moves import Moves
from lifecycle.simulation.people import People
from lifecycle.simulation.records import Account, Cloud, Workload
from lifecycle.simulation.seats import Seats
from lifecycle.simulation.telling import Telling

Decide = Callable[[Facts, Rule, Memory, int], tuple[Decision, Memory]]

SAMPLE = 60.0  # seconds between two samples
PATIENCE = 86_400.0  # seconds beyond the last visit, at most, until everybody was served
EXPLAINED = 5  # decisions that are kept before the moment that is asked about, and after it


@dataclass(frozen=True, slots=True)
class Trial:
    """What is tried. decide: who sizes the pool. tick: seconds between two decisions. move_after: seconds without a
    session after which a workspace may move; 0: none does. launch_timeout: seconds until a silent launch is given up."""

    rule: Rule
    decide: Decide = scale
    name: str = "promise"
    setting: float | None = None
    plan: Plan = field(default_factory=lambda: Plan("default", Policy()))
    tick: float = 2.0
    move_after: float = 0.0
    launch_timeout: float = 300.0
    prices: Prices | None = None


def simulate(
    workload: Workload,
    cloud: Cloud,
    trial: Trial,
    *,
    seed: int = 1,
    explain: float | None = None,
    progress: Callable[[float], None] = lambda share: None,
) -> Account:
    """The day, from the first visit until its end and a decision after the last one, and on until nobody waits. explain: the moment
    whose decisions are kept. progress: told the share that is done."""
    return _Day(workload, cloud, trial, seed, explain).run(progress)


class _Day:
    def __init__(
        self, workload: Workload, cloud: Cloud, trial: Trial, seed: int, explain: float | None
    ) -> None:
        self.workload, self.trial, self.seed, self.explain = workload, trial, seed, explain
        counted_from = workload.counted_from
        clock = self.clock = Clock(workload.start_ms)
        self.cloud = CloudModel(cloud, Random(f"{seed}/cloud"))
        ledger = self.ledger = Ledger(clock, self.cloud, trial.rule.slots, counted_from)
        hours = Hours(clock, trial.plan.quota, trial.prices, counted_from)
        seats = self.seats = Seats(clock, ledger)
        people = self.people = People(clock, seats, hours, ledger, trial.plan.policy)
        self.moves = Moves(clock, seats, people, ledger, trial.move_after)
        self.machines = Machines(
            clock, self.cloud, seats, people, self.moves, ledger, trial.rule, trial.launch_timeout
        )
        self.telling = Telling(clock, self.cloud, seats, people, hours, ledger)

    def run(self, progress: Callable[[float], None]) -> Account:
        began = time.perf_counter()
        clock, visits, tick = self.clock, self.workload.visits, self.trial.tick
        number, total = 0, len(visits)
        end = max((visits[-1].at if visits else 0.0) + tick, self.workload.until)
        next_tick = next_sample = min(0.0, visits[0].at // tick * tick if visits else 0.0)
        clock.go_to(next_tick)
        self.memory = begin(clock.now_ms, self.trial.rule)
        while True:
            at_visit = visits[number].at if number < total else inf
            at_event = clock.next_at
            at = min(at_visit, at_event, next_tick)
            if at > end and not (self.people.queue and at < end + PATIENCE):
                break
            clock.go_to(at)
            if next_tick <= at:
                decision = self._decide()
                next_tick += tick
                if at >= next_sample:
                    self.telling.sample(decision.want)
                    next_sample += SAMPLE
            elif at_event <= at:
                clock.happen()
            else:
                self.people.visit(visits[number])
                before, number = number, number + 1
                if number * 100 // total > before * 100 // total:
                    progress(number * 100 // total / 100)
        clock.go_to(max(end, clock.now))
        trial, seconds = self.trial, time.perf_counter() - began
        return self.telling.account(
            self.workload.name, self.seed, trial.name, trial.setting, seconds
        )

    def _decide(self) -> Decision:
        """How many machines there shall be, and that it is so."""
        if self.cloud.faulty:
            self.machines.reconcile()
        trial, now = self.trial, self.clock.now
        decision, self.memory = trial.decide(
            self._facts(), trial.rule, self.memory, self.clock.now_ms
        )
        if self.explain is not None and abs(now - self.explain) <= EXPLAINED * trial.tick:
            self.telling.explain(decision)
        self._carry_out(decision)
        return decision

    def _facts(self) -> Facts:
        machines, seats = self.machines, self.seats
        arrived, departed, waited = self.people.since_last()
        return Facts(
            self.ledger.users,
            list(seats.listed.values()),
            arrivals=arrived,
            departures=departed,
            waits=waited,
            boots=machines.boots,
            starts=machines.starts,
            peaks=self.workload.peaks,
            throttled=machines.throttled(),
            busy=len(seats.machines) - len(seats.listed),
        )

    def _carry_out(self, decision: Decision) -> None:
        for machine_id in decision.undrain:
            self.machines.undrain(machine_id)
        for machine_id in decision.revive:
            self.machines.start(machine_id)
        for machine_id in decision.drain:
            self.machines.give_back(machine_id)
        for machine_id in decision.park:
            self.machines.park(machine_id)
        self.machines.launch(decision.launch)
        self.moves.together(0 if self.memory.demand.panics else decision.spare)
        self.people.serve_queue()
