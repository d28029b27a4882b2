"""How many machines are wanted, and of what that is made: who is there, who comes until a new machine is there, how
surely they shall find a slot, and the peaks that were declared. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from lifecycle.peaks import Held, holding, usual_rate
from lifecycle.scaling import demand as demands
from lifecycle.scaling import risk as risks
from lifecycle.scaling.capacity import Capacity, lead_time
from lifecycle.scaling.demand import Demand, Forecast
from lifecycle.scaling.promise import slots_needed
from lifecycle.scaling.records import Facts, Memory, Need, Rule

NOBODY = 0.01  # people expected in a lead time; with fewer, and nobody there, a pool without warm slots ends
START_GUESS = 0.5  # of a boot: what a stopped machine takes, before any was started
QUEUE_MAX = 3600.0  # seconds that launches wait for the pool's API, at most, as far as is reckoned


def machines_wanted(users: int, slots: int, warm_slots: int, max_machines: int) -> int:
    """ceil((users + warm slots) / slots), at most max_machines."""
    return min(max_machines, -(-(users + warm_slots) // slots))


def needed(facts: Facts, rule: Rule, memory: Memory, capacity: Capacity) -> tuple[Need, int]:
    """The machines that are wanted, and how few of them would do, were enough others stopped and quick to start."""
    boot = capacity.boot
    need = _need_over(boot, facts, rule, memory)
    short = need.machines - capacity.awake - capacity.reserve - memory.tokens
    if rule.rate and short > 0:
        need = _need_over(boot + min(short / rule.rate, QUEUE_MAX), facts, rule, memory)
    if not rule.standby:
        return need, need.machines
    start = min(boot, lead_time(facts.starts, START_GUESS * boot))
    least = _need_over(start, facts, rule, memory).machines
    return replace(need, machines=max(least, need.machines - capacity.reserve)), least


def _need_over(seconds: float, facts: Facts, rule: Rule, memory: Memory) -> Need:
    """For a machine that is there after so many seconds."""
    promised = _promised(rule, seconds)
    risk = risks.allowed(promised, memory.credit, memory.bias)
    peaks = _held(facts, rule, memory, seconds)
    held = sum(each.slots for each in peaks)
    told = demands.forecast(_usual(memory), seconds)
    free, crowd = _free(told, promised, risk, facts, rule), False
    if memory.peaks:
        # More come than were told of: never fewer slots than had nobody told of them.
        everybody = demands.forecast(memory.demand, seconds)
        more = _free(everybody, promised, risk, facts, rule) - held
        if more > free:
            told, free, crowd = everybody, more, True
    wanted = -(-(facts.users + max(rule.warm_slots, free + held)) // rule.slots)
    return Need(
        machines=max(0, min(rule.max_machines, wanted)),
        free=free,
        held=held,
        lead_time=seconds,
        up=told.up,
        down=told.down,
        spread=told.spread,
        # Without a promise nobody asks how many come.
        panic=bool(promised) and memory.demand.panics,
        probability=promised,
        risk=risk,
        kept=memory.waited / (promised * memory.came) if promised and memory.came else 1.0,
        bound=wanted > rule.max_machines,
        peaks=tuple(peaks),
        crowd=crowd,
    )


def _free(told: Forecast, promised: float, risk: float, facts: Facts, rule: Rule) -> int:
    """Slots to be free for so many. Where nobody is and nobody comes, none."""
    somebody = facts.users or rule.warm_slots or told.up >= NOBODY
    return slots_needed(risk, told.up, told.down, told.spread) if promised and somebody else 0


def _usual(memory: Memory) -> Demand:
    """Demand without the people of peaks: slots are held for those."""
    if not memory.peaks:
        return memory.demand
    rate = usual_rate(memory.peaks, memory.demand.rate)
    return replace(memory.demand, fast=rate, slow=rate, long=rate)


def _promised(rule: Rule, seconds: float) -> float:
    """The share of those who come that may wait: as it is set, or fewer where a wait costs more than the slots that would
    spare it."""
    promised = rule.wait_probability
    if promised and rule.wait_cost and rule.machine_hour:
        idle = rule.machine_hour / 3600 / rule.slots * seconds
        promised = min(promised, idle / (idle + rule.wait_cost))
    return promised


def _held(facts: Facts, rule: Rule, memory: Memory, seconds: float) -> Sequence[Held]:
    if not facts.peaks:
        return ()
    return holding(
        facts.peaks, memory.peaks, int(memory.at * 1000), memory.demand.arrivals, seconds,
        rule.slots, memory.tokens, rule.rate,
    )  # fmt: skip
