"""How many machines. Pure: facts, the rule, what is remembered of before, and the time in; a decision with its inputs and
its reason in words out.

The rule is a promise: of those who come, a share of at most `wait_probability` finds no free slot. It is kept over time.
Machines come five slots at once, so most moments are safer than promised; what is saved then is spent later (`credit`),
which is what makes small pools cheap. What happened is held against the promise as well (`kept`).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from math import exp
from typing import Any

from lifecycle import demand as demands
from lifecycle.demand import Demand
from lifecycle.model import STANDBY, Machine, MachineStatus
from lifecycle.peaks import Held, Peak, Peaks, holding, usual_rate, watch
from lifecycle.promise import shortfall, slots_needed

_M = MachineStatus

COUNTED = frozenset({_M.READY, _M.LAUNCHING})
"""Statuses of machines that are there, or will be."""

LATE = 0.75  # the quantile of recent boots that a machine is expected to take
CREDIT_S = 3600.0  # seconds over which the promise is kept
CREDIT_MIN, CREDIT_MAX, GAIN = -1.0, 1.4, 2.0
"""A risk of exp(-2) to exp(2.8) times the promised one: with more, one hour would have the waits of a whole night."""
RISK_MAX = 0.95
NOBODY = 0.01  # people expected in a lead time; with fewer, and nobody there, a pool without warm slots ends
LESSON, LESSON_S = 10.0, 1800.0
"""Waits more or fewer than promised that change the risk taken by a factor of e: so many, and those of so many seconds."""
BIAS_MIN, BIAS_MAX = -2.0, 4.0
MEMORY = 100.0  # waits as promised that are remembered, to be shown
SHRINK, SHRINK_LEAST = 0.1, 20.0
"""Share of the pool that is given back in a minute at most; so many machines in any case."""
RECOVERY = 600.0  # seconds until a pool's API that was slow is asked as much as before
OVERDUE, FEW = 3.0, 5
"""Lead times after which a launch is not counted on any more, once so many launches were measured."""
START_GUESS = 0.5  # of a boot: what a stopped machine takes, before any was started
QUEUE_MAX = 3600.0  # seconds that launches wait for the pool's API, at most, as far as is reckoned
BACK_MAX = 60.0
"""Seconds by which the clock may have gone back. After more memory begins anew: until it is as late again, nobody would
be counted and nothing given back."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What operators set. wait_probability: 0 keeps `warm_slots` free and no more. scale_in_delay: seconds for which less
    was wanted, and for which a machine was empty, before it goes. settle: seconds after a change of leader without
    scale-in. standby: stopped machines kept at most. burst, rate: launches that the pool's API grants at once, and a
    second after that; 0: no bound. parks: a dedicated machine is stopped with its workspace, and keeps its disk.
    boot_guess: seconds until a machine is ready, before any was measured. wait_cost, machine_hour: prices of a cold wait
    and of an hour of a machine; with both, where a wait costs more than the slots that would spare it, more are kept free
    than wait_probability asks for, never fewer."""

    slots: int = 5
    warm_slots: int = 0
    max_machines: int = 10
    scale_in_delay: float = 120.0
    wait_probability: float = 0.0
    settle: float = 0.0
    standby: int = 0
    burst: int = 0
    rate: float = 0.0
    parks: bool = True
    boot_guess: float = 60.0
    wait_cost: float = 0.0
    machine_hour: float = 0.0


@dataclass(frozen=True, slots=True)
class Facts:
    """users: workspaces that hold a slot or wait for one. arrivals, departures, waits: since the last decision: who came
    for a slot, who gave one back, who did not find one free. busy: ready machines in use that are not in `machines`, since
    nothing can be done about them. boots, starts: recent seconds until a new machine, and a
    stopped one, was ready. returning: machines whose files somebody waits for. throttled: the pool's API was told to
    slow down."""

    users: int
    machines: Sequence[Machine]
    arrivals: int = 0
    departures: int = 0
    waits: int = 0
    boots: Sequence[float] = ()
    starts: Sequence[float] = ()
    peaks: Sequence[Peak] = ()
    returning: Collection[str] = ()
    throttled: bool = False
    busy: int = 0


@dataclass(frozen=True, slots=True)
class Memory:
    """What is remembered between decisions. at, since: seconds. wanted: (when, machines) of the last scale_in_delay, those
    that nothing later exceeded. tokens: launches that the pool's API will grant now; given: how many may be given back.
    bias: logarithm of how much larger a risk may be reckoned than promised, for what is reckoned to come true; learnt
    from who found no slot. bound: no more is there than was wanted of late. came, waited: fading counts of who came, and of who found no slot."""

    since: float
    at: float
    demand: Demand
    credit: float = 0.0
    bias: float = 0.0
    bound: bool = True
    wanted: tuple[tuple[float, int], ...] = ()
    tokens: float = 0.0
    burst: float = 0.0
    given: float = SHRINK_LEAST
    given_at: float = 0.0
    came: float = 0.0
    waited: float = 0.0
    peaks: Peaks = ()


def begin(now_ms: int, rule: Rule) -> Memory:
    """Of somebody who has just begun to lead."""
    now = now_ms / 1000
    burst = float(rule.burst)
    return Memory(now, now, demands.begin(now), tokens=burst, burst=burst, given_at=now)


@dataclass(frozen=True, slots=True)
class Need:
    """How many machines are wanted, and why. free: slots wanted free, beside `held` for peaks. up, down, spread: the
    forecast over lead_time seconds. probability: promised; risk: that was taken. kept: waits over those promised.
    peaks: for which of them how many are held."""

    machines: int
    free: int
    held: int
    lead_time: float
    up: float
    down: float
    spread: float
    panic: bool
    probability: float
    risk: float
    kept: float
    bound: bool
    peaks: tuple[Held, ...] = ()


@dataclass(frozen=True, slots=True)
class Decision:
    """launch: how many to add. revive: stopped machines to start first. undrain: drains to call off.
    drain: empty machines to give back; park: those to stop instead, so that they start faster than new ones.
    evict: dedicated machines of sleepers, whose files go into snapshots so that others can use them. spare: machines
    beyond what is wanted for the whole window. need: what was reckoned. reason: in words, for the log and GET /api/pool."""

    at_ms: int
    users: int
    slots: int
    warm_slots: int
    want: int
    have: int
    launch: int
    undrain: tuple[str, ...]
    revive: tuple[str, ...]
    drain: tuple[str, ...]
    evict: tuple[str, ...]
    reason: str
    park: tuple[str, ...] = ()
    spare: int = 0
    standby: int = 0
    need: Need | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def machines_wanted(users: int, slots: int, warm_slots: int, max_machines: int) -> int:
    """ceil((users + warm slots) / slots), at most max_machines."""
    return min(max_machines, -(-(users + warm_slots) // slots))


def scale(facts: Facts, rule: Rule, memory: Memory, now_ms: int) -> tuple[Decision, Memory]:
    """What to do about the pool now, and what to remember. A machine with a workspace in a slot is never named in
    `drain` or `park`."""
    if memory.at - now_ms / 1000 > BACK_MAX:
        memory = begin(now_ms, rule)
    memory = _remember(facts, rule, memory, now_ms)
    fleet = _fleet(facts, rule, now_ms)
    need, least = _need(facts, rule, memory, fleet)
    memory = _window(memory, rule, need.machines)
    decision = _decide(facts, rule, memory, fleet, need, least, now_ms)
    return decision, _account(facts, rule, memory, need, decision)


def _remember(facts: Facts, rule: Rule, memory: Memory, now_ms: int) -> Memory:
    now = now_ms / 1000
    seconds = max(0.0, now - memory.at)
    demand = demands.observe(memory.demand, now, facts.users, facts.arrivals, facts.departures)
    # As it was before: who came since the last look came to what has opened since then.
    before = memory.demand
    opened = watch(memory.peaks, facts.peaks, now_ms, before.arrivals, before.slow)
    burst = float(rule.burst)
    if facts.throttled:
        burst = max(1.0, memory.burst / 2)
    else:
        burst = min(burst, memory.burst + burst * seconds / RECOVERY)
    came, waited = memory.came + facts.arrivals, memory.waited + facts.waits
    promised = rule.wait_probability * came
    fades = min(1.0, MEMORY / promised) if promised else 1.0
    # While more is there than the promise asks for, that nobody waits says nothing of how it is reckoned.
    told = facts.arrivals if memory.bound else 0
    expected = rule.wait_probability * demand.slow * LESSON_S
    lesson = (rule.wait_probability * told - facts.waits) / max(LESSON, expected)
    return replace(
        memory,
        at=now,
        demand=demand,
        peaks=opened,
        burst=burst,
        tokens=min(burst, memory.tokens + rule.rate * seconds),
        bias=min(BIAS_MAX, max(BIAS_MIN, memory.bias + lesson)),
        came=came * fades,
        waited=waited * fades,
    )


@dataclass(slots=True)
class _Fleet:
    """The machines by what can be done with them. awake: those that count as there. back: stopped ones whose owner
    comes back. asleep: dedicated ones whose owner is away. parking: those that are emptied to be stopped."""

    awake: int
    back: int
    alive: int
    callable: list[str]
    stopped: list[str]
    asleep: list[Machine]
    empty: list[Machine]
    parking: int = 0

    @property
    def reserve(self) -> int:
        """Machines on standby, or on their way there."""
        return len(self.stopped) + self.parking


def _fleet(facts: Facts, rule: Rule, now_ms: int) -> _Fleet:
    found = _Fleet(facts.busy, 0, facts.busy + len(facts.machines), [], [], [], [])
    returning = facts.returning
    overdue_ms = (
        now_ms - OVERDUE * 1000 * _lead_time(facts.boots, rule) if len(facts.boots) >= FEW else 0.0
    )
    for m in facts.machines:
        own = rule.parks and m.slots == 1 and m.holds_files > 0
        sleeps = own and not m.occupied and m.id not in returning
        if sleeps:
            found.asleep.append(m)
        if m.status is _M.READY:
            if not sleeps:
                found.awake += 1
                if not own and not m.occupied and m.empty_since_ms:
                    found.empty.append(m)
        elif m.status is _M.LAUNCHING:
            # An adopted one that is still silent after its time may never answer; nor may one that takes far longer
            # than others do. They do not count.
            if not (sleeps or m.unheard or m.doomed_at_ms or m.status_since_ms < overdue_ms):
                found.awake += 1
        elif m.status is _M.DRAINING:
            if not (m.doomed_at_ms or m.held_by):
                found.callable.append(m.id)
                found.parking += m.reason == STANDBY
        elif m.status is _M.STOPPED:
            if not own:
                found.stopped.append(m.id)
            elif m.id in returning:
                found.back += 1
    return found


def _lead_time(seconds: Sequence[float], rule: Rule) -> float:
    """What a machine is expected to take, from what recent ones took."""
    if not seconds:
        return rule.boot_guess
    return sorted(seconds)[min(len(seconds) - 1, int(LATE * len(seconds)))]


def _need(facts: Facts, rule: Rule, memory: Memory, fleet: _Fleet) -> tuple[Need, int]:
    """The machines that are wanted, and how few of them would do, were enough others stopped and quick to start."""
    boot = _lead_time(facts.boots, rule)
    need = _need_over(boot, facts, rule, memory)
    short = need.machines - fleet.awake - fleet.reserve - memory.tokens
    if rule.rate and short > 0:
        need = _need_over(boot + min(short / rule.rate, QUEUE_MAX), facts, rule, memory)
    if not rule.standby:
        return need, need.machines
    start = min(boot, _lead_time(facts.starts, replace(rule, boot_guess=START_GUESS * boot)))
    quick = _need_over(start, facts, rule, memory)
    hot = max(quick.machines, need.machines - fleet.reserve)
    return replace(need, machines=hot), quick.machines


def _need_over(lead_time: float, facts: Facts, rule: Rule, memory: Memory) -> Need:
    """For a machine that is there after lead_time seconds."""
    free, risk, kept = 0, 0.0, 1.0
    peaks: list[Held] = []
    told = demands.forecast(_usual(memory), lead_time)
    promised = rule.wait_probability
    if promised:
        if rule.wait_cost and rule.machine_hour:
            idle = rule.machine_hour / 3600 / rule.slots * lead_time
            promised = min(promised, idle / (idle + rule.wait_cost))
        kept = memory.waited / (promised * memory.came) if memory.came else 1.0
        risk = promised * exp(min(GAIN * CREDIT_MAX, GAIN * memory.credit + memory.bias))
        risk = min(RISK_MAX, max(promised / 10, risk))
        if facts.users or rule.warm_slots or told.up >= NOBODY:
            free = slots_needed(risk, told.up, told.down, told.spread)
    if facts.peaks:
        peaks = holding(
            facts.peaks, memory.peaks, int(memory.at * 1000), memory.demand.arrivals, lead_time,
            rule.slots, memory.tokens, rule.rate,
        )  # fmt: skip
    held = sum(each.slots for each in peaks)
    wanted = -(-(facts.users + max(rule.warm_slots, free + held)) // rule.slots)
    machines = max(0, min(rule.max_machines, wanted))
    return Need(
        machines, free, held, lead_time, told.up, told.down, told.spread,
        bool(promised) and memory.demand.panics,  # without a promise nobody asks how many come
        promised, risk, kept, wanted > rule.max_machines, tuple(peaks),
    )  # fmt: skip


def _usual(memory: Memory) -> Demand:
    """Demand without the people of peaks: slots are held for those."""
    if not memory.peaks:
        return memory.demand
    rate = usual_rate(memory.peaks, memory.demand.rate)
    return replace(memory.demand, fast=rate, slow=rate, long=rate)


def _window(memory: Memory, rule: Rule, want: int) -> Memory:
    """Only what nothing later exceeds is remembered of the window: the first entry is its maximum."""
    oldest = memory.at - rule.scale_in_delay
    wanted = [each for each in memory.wanted if each[0] >= oldest and each[1] > want]
    return replace(memory, wanted=(*wanted, (memory.at, want)))


def _decide(
    facts: Facts, rule: Rule, memory: Memory, fleet: _Fleet, need: Need, least: int, now_ms: int
) -> Decision:
    want, have = need.machines, fleet.awake + fleet.back
    missing = max(0, want - have)
    undrain = tuple(fleet.callable[:missing])
    missing -= len(undrain)
    # Machines on standby are counted already: one that is started is missing there. They are started for
    # what cannot wait for a new one.
    started = max(0, min(missing, least - have - len(undrain), len(fleet.stopped)))
    # A lost machine keeps its place under the bound: it may still come back.
    room = rule.max_machines - fleet.alive
    launch = max(0, min(missing - started, room))
    if rule.burst:
        launch = min(launch, int(memory.tokens))
    revive = tuple(fleet.stopped[: max(0, missing - launch)])  # or when no new one can be had
    # At the bound somebody who waits comes before the disk of somebody who sleeps.
    needed = machines_wanted(facts.users, rule.slots, 0, rule.max_machines)
    unmet = max(0, needed - have - len(undrain) - len(revive) - launch)
    evict = tuple(m.id for m in sorted(fleet.asleep, key=_asleep_first)[:unmet])
    top = memory.wanted[0][1]
    spare = max(0, have - top)
    drain: tuple[str, ...] = ()
    park: tuple[str, ...] = ()
    standby = min(rule.standby, max(0, want + fleet.reserve - least)) if rule.standby else 0
    if not need.panic and memory.at - memory.since >= rule.settle:
        before = now_ms - rule.scale_in_delay * 1000
        empty = [m for m in fleet.empty if m.empty_since_ms <= before]
        # Least to move first, then the youngest: old machines have proved themselves.
        empty.sort(key=lambda m: (m.holds_files, -m.created_at_ms))
        parks = min(
            max(0, have - max(least, top - standby)),
            standby - fleet.reserve,
            len(empty),
        )
        park = tuple(m.id for m in empty[: max(0, parks)])
        drains = min(spare - len(park), int(memory.given))
        drain = tuple(m.id for m in empty[len(park) : len(park) + max(0, drains)])
    return Decision(
        now_ms, facts.users, rule.slots, rule.warm_slots, want, have, launch, undrain, revive, drain, evict,
        _reason(facts, rule, need, want, have, spare, len(drain) + len(park)), park, spare, standby, need,
    )  # fmt: skip


def _asleep_first(m: Machine) -> tuple[bool, bool, int]:
    """What is on its way to be emptied goes on; then who has slept longest."""
    return (m.status is not _M.READY, m.status is not _M.LAUNCHING, m.status_since_ms)


def _account(facts: Facts, rule: Rule, memory: Memory, need: Need, decision: Decision) -> Memory:
    """Remember what was given, what was foretold, and what was risked."""
    most = max(SHRINK_LEAST, SHRINK * decision.have)
    seconds = memory.at - memory.given_at
    given = min(most, memory.given + most * seconds / 60) - len(decision.drain)
    tokens = memory.tokens - decision.launch if rule.burst else 0.0
    memory = replace(
        memory, given=given, given_at=memory.at, tokens=tokens, bound=not decision.spare
    )
    if not need.probability:
        return memory
    demand = demands.foretell(memory.demand, facts.users, need.lead_time)
    there = max(decision.want, decision.have - len(decision.drain) - len(decision.park))
    free = there * rule.slots - facts.users - need.held
    risk = shortfall(free, need.up, need.down, need.spread)
    # A moment's risk counts for no more than the largest that is ever taken on purpose.
    saved = 1.0 - min(risk / (need.probability * exp(memory.bias)), exp(GAIN * CREDIT_MAX))
    if decision.spare:  # that cannot be given back yet: nobody chose to be that safe
        saved = min(0.0, saved)
    credit = memory.credit + (saved - memory.credit / 4) * seconds / CREDIT_S
    return replace(memory, demand=demand, credit=min(CREDIT_MAX, max(CREDIT_MIN, credit)))


def _reason(
    facts: Facts, rule: Rule, need: Need, want: int, have: int, spare: int, given: int
) -> str:
    law = f"{facts.users} users"
    if need.probability and need.free > rule.warm_slots:
        law += f" + {need.free} free slots for {need.probability * 100:g} % to wait at most"
        rush = ", a rush" if need.panic else ""
        law += f" ({need.up:.1f} come and {need.down:.1f} leave in {need.lead_time:.0f} s{rush})"
    elif not need.held:
        law += f" + {rule.warm_slots} warm slots"
    if need.held:
        law += f" + {need.held} held for peaks"
    law += f" at {rule.slots} a machine want {want}"
    if need.bound:
        law += f", held at --max-machines {rule.max_machines}"
    if want > have:
        return f"{law}; {have} are there: add {want - have}"
    if spare:
        waits = f", {spare - given} in use or not empty for long enough" if spare > given else ""
        return f"{law}; {have} are there: give back {given} of {spare}{waits}"
    return f"{law}; {have} are there"
