"""What is remembered between decisions: who came, what was wanted, what the pool's API grants, and how well the promise
was kept. Pure: a memory in, a memory out."""

from __future__ import annotations

from dataclasses import replace

from lifecycle.peaks import watch
from lifecycle.scaling import demand as demands
from lifecycle.scaling import risk as risks
from lifecycle.scaling.promise import shortfall
from lifecycle.scaling.records import Decision, Facts, Memory, Need, Rule

KEPT = 100.0  # waits as promised that are remembered, to be shown
SHRINK, SHRINK_LEAST = 0.1, 20.0
"""Share of the pool that is given back in a minute at most; so many machines in any case."""
SELDOM = 1 / 3600  # people a second: of fewer nothing is learnt or saved
RECOVERY = 600.0  # seconds until a pool's API that was slow is asked as much as before
BACK_MAX = 60.0
"""Seconds by which the clock may have gone back. After more memory begins anew: until it is as late again, nobody would
be counted and nothing given back."""


def begin(now_ms: int, rule: Rule) -> Memory:
    """Of somebody who has just begun to lead."""
    now = now_ms / 1000
    burst = float(rule.burst)
    return Memory(
        now, now, demands.begin(now), tokens=burst, burst=burst, given=SHRINK_LEAST, given_at=now
    )


def remember(facts: Facts, rule: Rule, memory: Memory, now_ms: int) -> Memory:
    """What has happened since the last decision."""
    now = now_ms / 1000
    if memory.at - now > BACK_MAX:
        memory = begin(now_ms, rule)
    seconds, before = max(0.0, now - memory.at), memory.demand
    demand = demands.observe(before, now, facts.users, facts.arrivals, facts.departures)
    burst = _burst(facts, rule, memory, seconds)
    came, waited = _counted(facts, rule, memory)
    return replace(
        memory,
        at=now,
        demand=demand,
        # Who came since the last look came to what has opened since then.
        peaks=watch(memory.peaks, facts.peaks, now_ms, before.arrivals, before.slow),
        burst=burst,
        tokens=min(burst, memory.tokens + rule.rate * seconds),
        bias=_learnt(facts, rule, memory, demand, seconds),
        share=risks.shared(memory.share, memory.bound, facts.arrivals, demand.slow),
        came=came,
        waited=waited,
    )


def _learnt(
    facts: Facts, rule: Rule, memory: Memory, demand: demands.Demand, seconds: float
) -> float:
    """While more is there than the promise asks for, that nobody waits says nothing of how it is reckoned; that somebody
    does is always told."""
    if not rule.wait_probability:
        return memory.bias
    told = risks.told(facts.arrivals, memory.share) if memory.bound else 0
    bias = risks.learnt(
        memory.bias, memory.credit, rule.wait_probability, told, facts.waits, demand.slow
    )
    learns = memory.bound and demand.long >= SELDOM
    return bias if learns else risks.forgotten(bias, seconds)


def _burst(facts: Facts, rule: Rule, memory: Memory, seconds: float) -> float:
    """Launches that the pool's API is asked for at once: half as many when it said that it is too much."""
    if facts.throttled:
        return max(1.0, memory.burst / 2)
    burst = float(rule.burst)
    return min(burst, memory.burst + burst * seconds / RECOVERY)


def _counted(facts: Facts, rule: Rule, memory: Memory) -> tuple[float, float]:
    """Who came and who waited: of as many as KEPT waits are promised for, older ones fade."""
    came, waited = memory.came + facts.arrivals, memory.waited + facts.waits
    promised = rule.wait_probability * came
    fades = min(1.0, KEPT / promised) if promised else 1.0
    return came * fades, waited * fades


def note_wanted(memory: Memory, rule: Rule, machines: int) -> Memory:
    """So many are wanted now. Only what nothing later exceeds is remembered of the window: the first entry is its
    maximum."""
    oldest = memory.at - rule.scale_in_delay
    wanted = [each for each in memory.wanted if each[0] >= oldest and each[1] > machines]
    return replace(memory, wanted=(*wanted, (memory.at, machines)))


def account(facts: Facts, rule: Rule, memory: Memory, need: Need, decision: Decision) -> Memory:
    """What was decided: what was given, what was foretold, and what was risked."""
    seconds = memory.at - memory.given_at
    most = max(SHRINK_LEAST, SHRINK * decision.have)
    memory = replace(
        memory,
        given=min(most, memory.given + most * seconds / 60) - len(decision.drain),
        given_at=memory.at,
        tokens=memory.tokens - decision.launch if rule.burst else 0.0,
        # Slots held for a peak, and those that are kept free in any case, are more than the promise asks for.
        bound=not decision.spare and not need.held and need.free >= rule.warm_slots,
    )
    if not need.probability:
        return memory
    saving = risks.saved(_risked(facts, rule, need, decision), need.probability, memory.bias)
    if decision.spare:  # that cannot be given back yet: nobody chose to be that safe
        saving = min(0.0, saving)
    if memory.demand.long < SELDOM:  # and a slot that nobody comes to is neither safe nor a risk
        saving = 0.0
    return replace(
        memory,
        demand=demands.foretell(memory.demand, facts.users, need.lead_time),
        credit=risks.credited(memory.credit, memory.bias, saving, seconds),
    )


def _risked(facts: Facts, rule: Rule, need: Need, decision: Decision) -> float:
    """Probability that who comes finds no free slot, with the machines that are there and are wanted."""
    left = decision.have - len(decision.drain) - len(decision.park)
    free = max(decision.want, left) * rule.slots - facts.users
    if not need.crowd:  # who comes takes none of what is held
        free -= need.held
    return shortfall(free, need.up, need.down, need.spread)
