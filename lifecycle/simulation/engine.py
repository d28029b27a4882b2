"""The virtual clock: visits and machines come and go, and what decides about them is what decides live.

Placing, the queue's order, when a workspace stops, what a machine is given back for, what moves off a doomed machine, what
is made of a launch that never came up: all of that is lifecycle's own code, called with this clock's time. What is
modelled here is the rest of the world: people (workload) and a cloud (cloud.py). Records are the live ones; they are
changed in place, for a day has a hundred thousand of them.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from heapq import heappop, heappush
from math import inf
from random import Random
from typing import Any

from lifecycle import defragment, moving, policy, quota, reconcile
from lifecycle.idleness import LOOK_EVERY, idle_ms
from lifecycle.model import (
    STANDBY,
    Machine,
    MachineStatus,
    Workspace,
    WorkspaceStatus,
    check_transition,
)
from lifecycle.placement import Place, best_fit, place, takes_work
from lifecycle.plans import Plan, Policy
from lifecycle.pricing import Prices, shown
from lifecycle.queueing import boost_ms
from lifecycle.scaler import scale
from lifecycle.scaler_memory import begin
from lifecycle.scaler_records import Decision, Facts, Memory, Rule
from lifecycle.simulation.cloud import CloudModel
from lifecycle.simulation.records import Account, Cloud, Sample, Visit, Workload
from lifecycle.simulation.sums import Sums
from lifecycle.usage import RUNNING, Piece, month_of, month_window

_W = WorkspaceStatus
_M = MachineStatus

Decide = Callable[[Facts, Rule, Memory, int], tuple[Decision, Memory]]

SAMPLE = 60.0  # seconds between two samples
DAY_MS = 86_400_000
PATIENCE = 86_400.0  # seconds beyond the last visit, at most, until everybody was served
NO_CAPACITY_PAUSE = 10.0  # seconds until a cloud without capacity is asked again, as the loops do
MOVE_EVERY = 10.0  # seconds between two looks for what can move
MOVE_TAKES = 5.0  # seconds that a workspace is away while it moves: stop, snapshot, restore, start
STAYS_ON = 600.0  # seconds that who was there when it moved stays on
RECENT = 100  # boots that are remembered, as the store does
DUE, LEFT, UP, GOES, MOVED = range(5)
"""Kinds of what happens at a moment: a look at a workspace is due, a person disconnects, a machine comes up, one that was
doomed is taken away, a workspace that moved wants a slot again."""


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
    """The day, from the first visit until a decision after the last one, and on until nobody waits. explain: the moment whose decisions are kept.
    progress: told the share that is done."""
    return _Day(workload, cloud, trial, seed, explain).run(progress)


def _put(record: Machine | Workspace, **changes: Any) -> None:
    for name, value in changes.items():
        object.__setattr__(record, name, value)


class _Day:
    def __init__(
        self, workload: Workload, cloud: Cloud, trial: Trial, seed: int, explain: float | None
    ) -> None:
        self.workload, self.trial, self.seed, self.explain = workload, trial, seed, explain
        self.cloud = CloudModel(cloud, Random(f"{seed}/cloud"))
        self.start_ms = workload.start_ms
        self.now = 0.0
        self.memory = begin(self.start_ms, trial.rule)
        self.machines: dict[str, Machine] = {}
        self.listed: dict[str, Machine] = {}  # those about which something may have to be done
        self.roomy: dict[str, Machine] = {}  # those with a free slot
        self.shared: dict[str, Machine] = {}  # those of them that somebody is on
        self.idle_ms: dict[str, int] = {}
        self.idle_at = -inf
        self.empty: list[
            tuple[int, str]
        ] = []  # heap of those that nobody is on, and of some that were so
        self.goes: dict[str, float] = {}  # machine → when it is taken back
        self.on: dict[str, dict[str, Workspace]] = {}  # machine → what holds a slot of it
        self.of: dict[int, Workspace] = {}
        self.sessions: Counter[str] = Counter()
        self.asked: dict[str, tuple[float, float]] = {}  # workspace → when it was queued, stay
        self.queue: list[tuple[float, int, Workspace]] = []
        self.events: list[tuple[float, int, int, Any]] = []
        self.boots: list[float] = []
        self.starts: list[float] = []
        self.serial = self.users = 0
        self.refused_until = self.moved_at = -inf
        self.arrived = self.departed = self.waited = 0  # since the last decision
        self.throttled = False
        self.account = Sums(trial.rule.slots, workload.counted_from)
        self.decision: Decision | None = None
        self.facts = policy.Facts(trusted_since_ms=1)
        self.counts: Counter[str] = Counter()
        self.violations: list[str] = []
        self.explained: list[dict[str, Any]] = []
        self.samples: list[Sample] = []
        self.hours: dict[
            str, tuple[int, int, int]
        ] = {}  # user → when metered, ms in that day, in that month
        self.billed = Decimal(0)

    def run(self, progress: Callable[[float], None]) -> Account:
        began = time.perf_counter()
        visits: Sequence[Visit] = self.workload.visits
        tick, number, total = self.trial.tick, 0, len(visits)
        end = (visits[-1].at if visits else 0.0) + tick
        next_tick = next_sample = begins = min(0.0, visits[0].at // tick * tick if visits else 0.0)
        told = 0
        events = self.events
        while True:
            at_visit = visits[number].at if number < total else inf
            at_event = events[0][0] if events else inf
            at = min(at_visit, at_event, next_tick)
            if at > end and not (self.queue and at < end + PATIENCE):
                break
            self.now = at
            if next_tick <= at:
                if at == begins:
                    self.memory = begin(self.now_ms, self.trial.rule)
                self._decide()
                next_tick += tick
                if at >= next_sample:
                    self._sample()
                    next_sample += SAMPLE
            elif at_event <= at:
                _, _, kind, what = heappop(events)
                self._happens(kind, what)
            else:
                self._visit(visits[number])
                number += 1
                if number * 100 // total > told:
                    told = number * 100 // total
                    progress(told / 100)
        self.now = max(end, self.now)
        return self._told(time.perf_counter() - began)

    @property
    def now_ms(self) -> int:
        return self.start_ms + int(self.now * 1000)

    def _at(self, when: float, kind: int, what: Any) -> None:
        self.serial += 1
        heappush(self.events, (when, self.serial, kind, what))

    def _happens(self, kind: int, what: Any) -> None:
        if kind == LEFT:
            self._leave(what)
        elif kind == DUE:
            workspace, epoch = what
            if workspace.epoch == epoch:
                self._look(workspace)
        elif kind == UP:
            self._come_up(what)
        elif kind == GOES:
            self._taken_away(what)
        else:
            self._turn(what, _W.STOPPED)
            self._enqueue(what)

    # People

    def _visit(self, visit: Visit) -> None:
        workspace = self.of.get(visit.user)
        if workspace is None:
            workspace = Workspace(
                f"ws-{visit.user}", f"u-{visit.user}", _W.STOPPED, self.now_ms, self.now_ms
            )
            self.of[visit.user] = workspace
        self.account.visits += self.now >= self.workload.counted_from
        if workspace.status is _W.RUNNING:
            self.sessions[workspace.id] += 1
            self._at(self.now + visit.seconds, LEFT, (workspace, workspace.epoch))
            return
        waits = self.asked.get(workspace.id)
        if waits is not None:  # they are in the queue, or on the move
            self.asked[workspace.id] = (waits[0], max(waits[1], visit.seconds))
            return
        if self._used_up(workspace):
            self._tally("refused by quota", 1)
            return
        self.asked[workspace.id] = (self.now, visit.seconds)
        self.account.arrive(self.now)
        if workspace.status in (_W.STOPPING, _W.QUEUED):
            return  # it moves, and starts again by itself
        self.arrived += 1
        if visit.priority != workspace.priority:
            _put(workspace, priority=visit.priority)
        self._enqueue(workspace)

    def _used_up(self, workspace: Workspace) -> bool:
        """Whether its user has no running hours left, as the plan counts them."""
        bounds = self.trial.plan.quota
        if not (bounds.hours_a_day or bounds.hours_a_month):
            return False
        day_ms, month_ms = self._taken(workspace)
        taken = quota.Taken(self.now_ms, day_ms=day_ms, month_ms=month_ms)
        return quota.used_up(bounds, taken)

    def _taken(self, workspace: Workspace) -> tuple[int, int]:
        """Milliseconds that its user's workspace ran today, and this month."""
        at, day_ms, month_ms = self.hours.get(workspace.user_id, (0, 0, 0))
        day_begins, month_begins = self._periods()
        return day_ms * (at >= day_begins), month_ms * (at >= month_begins)

    def _periods(self) -> tuple[int, int]:
        """When this day and this month began, UTC."""
        now = self.now_ms
        return now - now % DAY_MS, month_window(month_of(now))[0]

    def _meter(self, workspace: Workspace, machine: Machine) -> None:
        """What it ran counts and costs."""
        bounds = self.trial.plan.quota
        if bounds.hours_a_day or bounds.hours_a_month:
            day_ms, month_ms = (
                before + self.now_ms - max(workspace.running_since_ms, begins)
                for before, begins in zip(self._taken(workspace), self._periods(), strict=True)
            )
            self.hours[workspace.user_id] = (self.now_ms, day_ms, month_ms)
        self._bill(workspace, machine)

    def _bill(self, workspace: Workspace, machine: Machine) -> None:
        counted_ms = self.start_ms + int(self.workload.counted_from * 1000)
        since = max(workspace.running_since_ms, counted_ms)
        if self.trial.prices is not None and since < self.now_ms:
            piece = Piece(workspace.id, RUNNING, machine.machine_class, 0, since, self.now_ms)
            self.billed += self.trial.prices.cost([piece])

    def _enqueue(self, workspace: Workspace) -> None:
        self._turn(workspace, _W.QUEUED)
        self._count(1)
        if not self.queue and self.roomy and self._boot_at_once(workspace):
            return
        self.waited += workspace.id in self.asked
        self.serial += 1
        score = self.now - boost_ms(workspace.priority) / 1000
        heappush(self.queue, (score, self.serial, workspace))

    def _boot_at_once(self, workspace: Workspace) -> bool:
        machine = self._best()
        for command in place([workspace], [machine]) if machine else ():
            if isinstance(command, Place):
                self._seat(command)
                return True
        return False

    def _serve_queue(self) -> None:
        """Whoever is next takes what has come free."""
        while self.queue and self._boot_at_once(self.queue[0][2]):
            heappop(self.queue)

    def _best(self) -> Machine | None:
        """The machine that place() would choose among all of them: of a day's machines it is shown that one alone."""
        if not self.shared:
            return self._oldest_empty()
        if len(self.shared) > 1 and self.now >= self.idle_at + LOOK_EVERY:
            self.idle_at = self.now
            self.idle_ms = {m.id: self._idle(m) for m in self.shared.values()}
        idle = self.idle_ms
        return min(
            self.shared.values(), key=lambda m: best_fit(m, m.slots - m.occupied, idle[m.id])
        )

    def _oldest_empty(self) -> Machine | None:
        while self.empty:
            machine = self.roomy.get(self.empty[0][1])
            if machine is not None and not machine.occupied:
                return machine
            heappop(self.empty)
        return None

    def _idle(self, machine: Machine) -> int:
        here = self.on[machine.id].values()
        now = self.now_ms
        last = (
            now if self.sessions[w.id] else max(w.left_at_ms, 0, *w.seen.values()) for w in here
        )
        return idle_ms(last, now)

    def _seat(self, command: Place) -> None:
        workspace, machine = command.workspace, command.machine
        if workspace.machine_id:
            self.violations.append(f"{workspace.id} boots while it is on {workspace.machine_id}")
        _put(machine, occupied=machine.occupied + 1, empty_since_ms=0)
        if machine.occupied > machine.slots:
            self.violations.append(
                f"{machine.id} holds {machine.occupied} of {machine.slots} slots"
            )
        self.on[machine.id][workspace.id] = workspace
        self._list(machine)
        self.idle_ms[machine.id] = 0
        self._turn(workspace, _W.STARTING)
        self._turn(workspace, _W.RUNNING)
        moved = workspace.next == "start" and workspace.id not in self.asked
        seen = workspace.seen if moved else {"boot": self.now_ms}
        _put(
            workspace, machine_id=machine.id, epoch=workspace.epoch + 1, seen=seen, next="",
            running_since_ms=self.now_ms, moved=moved, warned_ms=0,
        )  # fmt: skip
        asked = self.asked.pop(workspace.id, None)
        if asked is not None:
            came, stay = asked
            self.account.served(came, self.now - came, workspace.priority)
            self.sessions[workspace.id] += 1
            self._at(self.now + stay, LEFT, (workspace, workspace.epoch))
        if moved:  # its time may be over: it stops once whoever is being placed is
            self._at(self.now, DUE, (workspace, workspace.epoch))
        else:
            self._look(workspace)

    def _leave(self, what: tuple[Workspace, int]) -> None:
        workspace, epoch = what
        if workspace.epoch != epoch:
            return  # that boot is over, and its sessions with it
        self.sessions[workspace.id] -= 1
        workspace.seen["input"] = self.now_ms
        _put(workspace, left_at_ms=self.now_ms)

    def _look(self, workspace: Workspace) -> None:
        """What the policy says of it now, and when it is to be asked again."""
        if self.sessions[workspace.id]:
            workspace.seen["input"] = self.now_ms
        found = policy.look(workspace, self.trial.plan.policy, self.facts, self.now_ms)
        next_ms = found.next_ms
        for command in found.commands:
            if isinstance(command, policy.Stop):
                self._stop(workspace, at_any_rate=command.unless_extended_ms is None)
                return
            if isinstance(command, policy.Start) and not self._used_up(workspace):
                self.arrived += 1
                self._enqueue(workspace)
                return
            if isinstance(command, policy.Terminate):
                self._turn(workspace, _W.TERMINATING)
                self._turn(workspace, _W.TERMINATED)
                self.of.pop(int(workspace.id[3:]), None)
                return
            if isinstance(command, policy.Warn | policy.WarnEnd):
                # Nobody is there to be told, and nothing else changes until then.
                next_ms = command.at_ms
                if isinstance(command, policy.Warn) and command.bound.hard:
                    _put(workspace, warned_ms=command.at_ms)
        if next_ms is not None:
            when = (next_ms - self.start_ms) / 1000
            self._at(max(when, self.now + 0.001), DUE, (workspace, workspace.epoch))

    def _stop(self, workspace: Workspace, at_any_rate: bool) -> None:
        if self.sessions[workspace.id] and not at_any_rate:
            self.violations.append(f"{workspace.id} was stopped with a session open")
        self._turn(workspace, _W.STOPPING)
        self._unseat(workspace)
        self._turn(workspace, _W.STOPPED)
        self.departed += 1
        self._look(workspace)
        self._serve_queue()

    def _lose(self, workspace: Workspace) -> None:
        """Its machine is gone. Live, nobody may ever see this; here it is told, and the day goes on."""
        self._turn(workspace, _W.FAILED)
        self._unseat(workspace)
        self.departed += 1
        self._look(workspace)

    def _unseat(self, workspace: Workspace) -> None:
        machine = self.machines[workspace.machine_id]
        del self.on[machine.id][workspace.id]
        _put(machine, occupied=machine.occupied - 1)
        if not machine.occupied:
            _put(machine, empty_since_ms=self.now_ms)
        self._list(machine)
        self._meter(workspace, machine)
        # Files leave with every stop: machines come and go.
        _put(workspace, machine_id="", epoch=workspace.epoch + 1)
        self.sessions.pop(workspace.id, None)
        self._count(-1)

    def _turn(self, workspace: Workspace, to: WorkspaceStatus) -> None:
        check_transition(workspace.status, to)
        _put(workspace, status=to, status_since_ms=self.now_ms)

    def _count(self, more: int) -> None:
        self._pass()
        self.users += more

    def _pass(self) -> None:
        """Time passed with what there was; called before that changes."""
        cloud = self.cloud
        self.account.pass_to(self.now, self.users, len(cloud.instances), len(cloud.stopped))

    def _tally(self, name: str, more: int) -> None:
        if self.now >= self.workload.counted_from:
            self.counts[name] += more

    # Machines

    def _list(self, machine: Machine) -> None:
        ready = machine.status is _M.READY
        if ready and machine.occupied:
            self.listed.pop(machine.id, None)
        else:
            self.listed[machine.id] = machine
        if ready and takes_work(machine) and machine.occupied < machine.slots:
            self.roomy[machine.id] = machine
            if machine.occupied:
                self.shared[machine.id] = machine
                self.idle_ms[machine.id] = self._idle(machine)
            else:
                self.shared.pop(machine.id, None)
                heappush(self.empty, (machine.created_at_ms, machine.id))
        else:
            self.roomy.pop(machine.id, None)
            self.shared.pop(machine.id, None)

    def _become(self, machine: Machine, to: MachineStatus) -> None:
        check_transition(machine.status, to)
        _put(machine, status=to, status_since_ms=self.now_ms)
        if to is _M.TERMINATED:
            for workspace in list(self.on[machine.id].values()):
                self.violations.append(f"{machine.id} was removed with {workspace.id} on it")
                self._lose(workspace)
            del self.on[machine.id]
            for each in (self.machines, self.listed, self.roomy, self.shared, self.goes):
                each.pop(machine.id, None)
            self._pass()
            self.cloud.terminate(machine.id)
        else:
            self._list(machine)

    def _decide(self) -> None:
        if self.cloud.faulty:
            self._reconcile()
        facts = Facts(
            self.users,
            list(self.listed.values()),
            arrivals=self.arrived,
            departures=self.departed,
            waits=self.waited,
            boots=self.boots,
            starts=self.starts,
            peaks=self.workload.peaks,
            throttled=self.throttled,
            busy=len(self.machines) - len(self.listed),
        )
        self.arrived = self.departed = self.waited = 0
        self.throttled = False
        trial = self.trial
        decision, self.memory = trial.decide(facts, trial.rule, self.memory, self.now_ms)
        self.decision = decision
        if self.explain is not None and abs(self.now - self.explain) <= 5 * trial.tick:
            self.explained.append({"at": self.now, **decision.to_json()})
        for machine_id in decision.undrain:
            self._become(self.machines[machine_id], _M.READY)
        for machine_id in decision.revive:
            self._start(self.machines[machine_id])
        for machine_id in decision.drain:
            self._give_back(self.machines[machine_id])
        for machine_id in decision.park:
            self._park(self.machines[machine_id])
        if decision.launch and self.now >= self.refused_until:
            self._launch(decision.launch)
        spare = 0 if self.memory.demand.panics else decision.spare
        if spare and trial.move_after and self.now >= self.moved_at + MOVE_EVERY:
            self._move(spare)
        if self.queue and self.roomy:
            self._serve_queue()

    def _give_back(self, machine: Machine) -> None:
        if machine.occupied:
            self.violations.append(f"{machine.id} was drained with workspaces on it")
        self._become(machine, _M.DRAINING)
        self._become(machine, _M.TERMINATED)
        self._tally("given back", 1)

    def _park(self, machine: Machine) -> None:
        if machine.occupied:
            self.violations.append(f"{machine.id} was stopped with workspaces on it")
        _put(machine, reason=STANDBY)
        self.goes.pop(machine.id, None)
        self._become(machine, _M.STOPPED)
        self._pass()
        self.cloud.stop(machine.id)

    def _launch(self, count: int) -> None:
        self._pass()
        ids = []
        for _ in range(count):
            self.serial += 1
            machine = Machine(
                f"m-{self.serial}", "simulated", _M.LAUNCHING, self.now_ms, self.trial.rule.slots,
                created_at_ms=self.now_ms,
            )  # fmt: skip
            self.machines[machine.id] = self.listed[machine.id] = machine
            self.on[machine.id] = {}
            ids.append(machine.id)
        self._tally("launched", count)
        self._ask(ids)

    def _ask(self, ids: Sequence[str]) -> None:
        answer = self.cloud.launch(ids, self.now)
        for machine_id, when in answer.up:
            self._at(when, UP, (machine_id, self.machines[machine_id].status_since_ms))
        for machine_id in answer.refused:
            self._become(self.machines[machine_id], _M.TERMINATED)
        self.throttled |= answer.throttled
        self._tally("refused", len(answer.refused))
        if answer.no_capacity:
            self.refused_until = self.now + NO_CAPACITY_PAUSE

    def _start(self, machine: Machine) -> None:
        self._pass()
        when = self.cloud.start(machine.id, self.now)
        _put(machine, reason="")
        self._become(machine, _M.LAUNCHING)
        self._tally("started", 1)
        self._at(when, UP, (machine.id, machine.status_since_ms))

    def _come_up(self, what: tuple[str, int]) -> None:
        machine = self.machines.get(what[0])
        if (
            machine is None
            or machine.status is not _M.LAUNCHING
            or machine.id not in self.cloud.instances
        ):
            return  # given up meanwhile
        took = self.now - (machine.status_since_ms - self.start_ms) / 1000
        recent = self.boots if machine.status_since_ms == machine.created_at_ms else self.starts
        recent.insert(0, took)
        del recent[RECENT:]
        _put(machine, empty_since_ms=self.now_ms)
        self._become(machine, _M.READY)
        goes = self.cloud.taken_back_at(machine.id, self.now)
        if goes is not None:
            self.goes[machine.id] = goes
            self._at(goes - self.cloud.notice, GOES, (machine.id, goes, True))
        self._serve_queue()

    def _taken_away(self, what: tuple[str, float, bool]) -> None:
        machine_id, goes, told_only = what
        machine = self.machines.get(machine_id)
        if machine is None or self.goes.get(machine_id) != goes:
            return  # it was stopped since: what was to take it back ended with that life
        if told_only:
            at_ms = self.start_ms + int(goes * 1000)
            doomed = moving.deadline(machine, at_ms, self.now_ms)
            if doomed is None:
                return
            _put(machine, doomed_at_ms=doomed)
            if machine.status is _M.READY:
                self._become(machine, _M.DRAINING)
            self._evacuate(machine)
            self._at(goes, GOES, (machine_id, goes, False))
            return
        left = self.on[machine_id]
        if any(self.sessions[one] for one in left):
            self.violations.append(f"{machine_id} was taken away with sessions on it")
        self._tally("taken back", 1)
        if machine.status is not _M.TERMINATED:
            self._become(machine, _M.TERMINATED)

    def _evacuate(self, machine: Machine) -> None:
        here = list(self.on[machine.id].values())
        for step in moving.steps(machine, here, self.sessions, self.now_ms):
            if isinstance(step, moving.Move):
                self._relocate(step.workspace)
                self._tally("moved off doomed machines", 1)

    def _move(self, spare: int) -> None:
        self.moved_at = self.now
        now_ms, open_sessions = self.now_ms, self.sessions.get
        before_ms = now_ms - int(self.trial.move_after * 1000)
        used = [m for m in self.machines.values() if m.occupied]
        movable = {
            m.id: [
                one.id
                for one in self.on[m.id].values()
                if defragment.movable(one, 0, before_ms, now_ms)
            ]
            for m in used
            if not any(map(open_sessions, self.on[m.id]))
        }
        spare -= len(self.roomy) - len(self.shared)  # empty ones are given back anyway
        for move in defragment.moves(max(0, spare), used, movable):
            self._relocate(self.on[move.machine_id][move.workspace_id])
            self._tally("moved", 1)

    def _relocate(self, workspace: Workspace) -> None:
        """It is stopped, saved, and wants a slot again; whoever is connected comes back to it by themselves."""
        open_sessions = self.sessions[workspace.id]
        _put(workspace, next="start")
        self._turn(workspace, _W.STOPPING)
        self._unseat(workspace)
        if open_sessions:  # no new arrival: they were there
            self.asked[workspace.id] = (inf, STAYS_ON)
        self._at(self.now + MOVE_TAKES, MOVED, workspace)

    def _reconcile(self) -> None:
        """Records against what the cloud shows, by the code that does so live."""
        suspects = [m for m in self.listed.values() if m.status is not _M.READY]
        if not suspects:
            return
        shown = self.cloud.describe(suspects)
        standby = reconcile.standby(suspects, self.trial.rule.standby)
        outlook = reconcile.Outlook(self.trial.launch_timeout, joins=True, standby=standby)
        repeats = []
        for change in reconcile.converge_machines(suspects, shown, self.now_ms, outlook):
            if isinstance(change, reconcile.Repeat):
                repeats.append(change.machine.id)
            elif isinstance(change, reconcile.Remove):
                self._become(change.machine, _M.TERMINATED)
                self._tally("given up", 1)
        if repeats:
            self._ask(repeats)

    # What is told

    def _sample(self) -> None:
        status = Counter(m.status for m in self.listed.values())
        ready = len(self.machines) - len(self.listed) + status[_M.READY]
        launching, stopped = status[_M.LAUNCHING], status[_M.STOPPED]
        want = self.decision.want if self.decision else 0
        waiting = len(self.queue)
        self.samples.append(Sample(self.now, self.users, waiting, ready, launching, stopped, want))
        orphans = self.cloud.instances - self.machines.keys()
        if orphans:
            self.violations.append(f"nobody knows of {sorted(orphans)[:3]}")

    def _told(self, seconds: float) -> Account:
        sums = self.account
        self._pass()
        for workspace in self.of.values():
            if workspace.id in self.asked:  # they wait still
                came, _ = self.asked[workspace.id]
                sums.served(came, self.now - came, workspace.priority)
        hours = sums.machine_seconds / 3600
        stopped = sums.stopped_seconds / 3600
        cost = hours * self.cloud.about.price + stopped * self.cloud.about.price_stopped
        counts: dict[str, float] = dict(self.counts)
        if self.trial.prices is not None:
            for machine_id, here in self.on.items():  # they run on, and what they ran is billed
                for workspace in here.values():
                    self._bill(workspace, self.machines[machine_id])
            counts["billed"] = shown(self.billed)
        return Account(
            self.trial.name, self.trial.setting, self.workload.name, self.seed,
            sums.visits, sums.arrivals, sums.waits, hours, sums.bound_seconds / 3600,
            sums.user_seconds / 3600, cost, sums.hours, self.samples, counts,
            self.violations, self.explained, seconds, sums.priorities(),
        )  # fmt: skip
