"""How many machines. Pure: facts, the rule, what is remembered of before, and the time in; a decision with its inputs and
its reason in words out.

The rule is a promise: of those who come, a share of at most `wait_probability` finds no free slot. What is wanted for it
says scaling/need.py, out of how many come (demand.py), how many free slots that takes (promise.py) and how large a risk may be
taken (risk.py). Here it is held against what is there (capacity.py): what is added, what is given back, and why.
"""

from __future__ import annotations

from dataclasses import dataclass

from lifecycle.model import Machine, MachineStatus
from lifecycle.scaling.capacity import Capacity, capacity_of
from lifecycle.scaling.memory import account, note_wanted, remember
from lifecycle.scaling.need import machines_wanted, needed
from lifecycle.scaling.records import Decision, Facts, Memory, Need, Rule

_M = MachineStatus


def scale(facts: Facts, rule: Rule, memory: Memory, now_ms: int) -> tuple[Decision, Memory]:
    """What to do about the pool now, and what to remember. A machine with a workspace in a slot is never named in
    `drain` or `park`."""
    memory = remember(facts, rule, memory, now_ms)
    capacity = capacity_of(facts, rule, now_ms)
    need, least = needed(facts, rule, memory, capacity)
    memory = note_wanted(memory, rule, need.machines)
    decision = _decide(facts, rule, memory, capacity, need, least, now_ms)
    return decision, account(facts, rule, memory, need, decision)


def _decide(
    facts: Facts,
    rule: Rule,
    memory: Memory,
    capacity: Capacity,
    need: Need,
    least: int,
    now_ms: int,
) -> Decision:
    have = capacity.there
    spare = max(0, have - memory.wanted[0][1])
    waits = _waits(rule, memory, need)
    added = _added(rule, memory, capacity, need.machines, least)
    there = have + len(added.undrain) + len(added.revive) + added.launch
    standby = 0
    if rule.standby:
        standby = min(rule.standby, max(0, need.machines + capacity.reserve - least))
    park: tuple[str, ...] = ()
    drain: tuple[str, ...] = ()
    if not waits:
        park, drain = _given_back(rule, memory, capacity, least, standby, now_ms)
    return Decision(
        at_ms=now_ms,
        users=facts.users,
        slots=rule.slots,
        warm_slots=rule.warm_slots,
        want=need.machines,
        have=have,
        launch=added.launch,
        undrain=added.undrain,
        revive=added.revive,
        drain=drain,
        evict=_evicted(facts, rule, capacity, there),
        reason=_reason(facts, rule, need, have, spare, len(drain) + len(park), waits),
        park=park,
        spare=spare,
        standby=standby,
        need=need,
    )


@dataclass(frozen=True, slots=True)
class _Added:
    """Drains that are called off, stopped machines that are started, and how many new ones are launched."""

    undrain: tuple[str, ...]
    revive: tuple[str, ...]
    launch: int


def _added(rule: Rule, memory: Memory, capacity: Capacity, wanted: int, least: int) -> _Added:
    have = capacity.there
    missing = max(0, wanted - have)
    undrain = tuple(capacity.draining[:missing])
    missing -= len(undrain)
    # Machines on standby are counted already: one that is started is missing there. They are started for
    # what cannot wait for a new one.
    started = max(0, min(missing, least - have - len(undrain), len(capacity.stopped)))
    # A lost machine keeps its place under the bound: it may still come back.
    room = rule.max_machines - capacity.alive
    launch = max(0, min(missing - started, room))
    if rule.burst:
        launch = min(launch, int(memory.tokens))
    revive = tuple(capacity.stopped[: max(0, missing - launch)])  # or when no new one can be had
    return _Added(undrain, revive, launch)


def _evicted(facts: Facts, rule: Rule, capacity: Capacity, there: int) -> tuple[str, ...]:
    """At the bound somebody who waits comes before the disk of somebody who sleeps. there: machines, with those that
    are added."""
    unmet = max(0, machines_wanted(facts.users, rule.slots, 0, rule.max_machines) - there)
    return tuple(m.id for m in sorted(capacity.asleep, key=_asleep_first)[:unmet])


def _asleep_first(m: Machine) -> tuple[bool, bool, int]:
    """What is on its way to be emptied goes on; then who has slept longest."""
    return (m.status is not _M.READY, m.status is not _M.LAUNCHING, m.status_since_ms)


def _given_back(
    rule: Rule, memory: Memory, capacity: Capacity, least: int, standby: int, now_ms: int
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Empty machines to stop, up to so many on standby, and those to drain."""
    have, most = capacity.there, memory.wanted[0][1]
    before = now_ms - rule.scale_in_delay * 1000
    empty = [m for m in capacity.empty if m.empty_since_ms <= before]
    # Least to move first, then the youngest: old machines have proved themselves.
    empty.sort(key=lambda m: (m.holds_files, -m.created_at_ms))
    beyond = max(0, have - max(least, most - standby))
    parks = max(0, min(beyond, standby - capacity.reserve, len(empty)))
    drains = max(0, min(max(0, have - most) - parks, int(memory.given)))
    ids = tuple(m.id for m in empty[: parks + drains])
    return ids[:parks], ids[parks:]


def _waits(rule: Rule, memory: Memory, need: Need) -> str:
    """Why nothing at all is given back now; "" if something may be."""
    if need.panic:
        return "none in a rush"
    settles = memory.since + rule.settle - memory.at
    return f"none for {settles:.0f} s more under a new leader" if settles > 0 else ""


def _reason(
    facts: Facts, rule: Rule, need: Need, have: int, spare: int, given: int, waits: str
) -> str:
    law = f"{facts.users} users"
    if need.probability and need.free > rule.warm_slots:
        law += f" + {need.free} free slots for {need.probability * 100:g} % to wait at most"
        rush = ", a rush" if need.panic else ""
        come = f"{need.up:.1f} come{', to peaks as well,' if need.crowd else ''}"
        law += f" ({come} and {need.down:.1f} leave in {need.lead_time:.0f} s{rush})"
    elif not need.held:
        law += f" + {rule.warm_slots} warm slots"
    if need.held:
        law += f" + {need.held} held for peaks"
    law += f" at {rule.slots} a machine want {need.machines}"
    if need.bound:
        law += f", held at --max-machines {rule.max_machines}"
    if need.machines > have:
        return f"{law}; {have} are there: add {need.machines - have}"
    if spare:
        rest = (
            waits or f"{spare - given} in use, not empty for long enough, or more than go at once"
        )
        return f"{law}; {have} are there: give back {given} of {spare}" + (
            f", {rest}" if spare > given else ""
        )
    return f"{law}; {have} are there"
