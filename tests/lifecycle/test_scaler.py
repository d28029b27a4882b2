"""How many machines? Worked examples of ceil((users + warm) / slots), then what is done about it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import exp
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifecycle.model import STANDBY, Machine, MachineStatus
from lifecycle.peaks import Peak
from lifecycle.scaler import scale
from lifecycle.scaling import risk
from lifecycle.scaling.demand import Demand
from lifecycle.scaling.memory import SHRINK_LEAST, begin
from lifecycle.scaling.need import machines_wanted
from lifecycle.scaling.records import Decision, Facts, Memory, Need, Rule
from tests.lifecycle.fakes import machine

M = MachineStatus
DELAY = 120.0  # seconds a machine must have been empty


def decide(users: int, machines: list[Machine], now: float = 1000, **more: Any) -> Decision:
    """By the law alone, as if nothing had happened before. more: of the rule, and `returning`."""
    facts = Facts(users, machines, returning=more.pop("returning", ()))
    rule = Rule(**({"scale_in_delay": DELAY} | more))
    return scale(facts, rule, begin(int(now * 1000), rule), int(now * 1000))[0]


def busy(id: str, occupied: int = 1, **fields: Any) -> Machine:
    return machine(id, occupied=occupied, holds_files=occupied, **fields)


def empty(id: str, since: float = 1, **fields: Any) -> Machine:
    return machine(id, empty_since_ms=int(since * 1000), **fields)


@pytest.mark.parametrize(
    ("users", "warm", "machines"),
    [(0, 0, 0), (0, 1, 1), (1, 0, 1), (4, 1, 1), (5, 0, 1), (5, 1, 2), (6, 0, 2), (10, 0, 2)],
)
def test_the_law(users: int, warm: int, machines: int) -> None:
    assert machines_wanted(users, slots=5, warm_slots=warm, max_machines=10) == machines


def test_the_bound_is_never_passed_and_is_named() -> None:
    decision = decide(200, [])
    assert (decision.want, decision.launch) == (10, 10)
    assert "--max-machines 10" in decision.reason
    assert "--max-machines" not in decide(50, []).reason, "50 users fit exactly"


def test_dedicated_machines_have_one_slot() -> None:
    assert decide(3, [], slots=1, warm_slots=1).launch == 4


def test_a_dedicated_machine_with_files_is_its_owners_alone() -> None:
    parked = machine("m-1", M.STOPPED, slots=1, holds_files=1)
    new = decide(1, [parked], slots=1)
    assert (new.launch, new.revive) == (1, ()), "somebody else wants a machine"
    back = decide(1, [parked], slots=1, returning={"m-1"})
    assert (back.launch, back.revive, back.have) == (0, (), 1), "placing revives it"
    idle = empty("m-1", slots=1, holds_files=1)
    assert decide(0, [idle], slots=1).drain == (), "it is parked, not given back"
    assert decide(0, [idle], slots=1, parks=False).drain == ("m-1",), "no disk would be kept"


def test_at_the_bound_who_waits_comes_before_the_disk_of_who_sleeps() -> None:
    old = machine("m-1", M.STOPPED, slots=1, holds_files=1, status_since_ms=1)
    new = machine("m-2", M.STOPPED, slots=1, holds_files=1, status_since_ms=2)
    waits = decide(1, [new, old], slots=1, max_machines=2)
    assert (waits.launch, waits.evict) == (0, ("m-1",))
    for status in (M.LAUNCHING, M.READY):
        begun = machine("m-2", status, slots=1, holds_files=1, status_since_ms=2)
        assert decide(1, [begun, old], slots=1, max_machines=2).evict == ("m-2",), "one is enough"
    assert decide(1, [new, old], slots=1, max_machines=3).evict == (), "there is room for one more"
    assert decide(0, [new, old], slots=1, max_machines=2, warm_slots=1).evict == ()
    back = decide(1, [new, old], slots=1, max_machines=2, returning={"m-2"})
    assert back.evict == (), "it is theirs"


def test_a_doomed_machine_is_replaced_and_never_called_back() -> None:
    doomed = busy("m-1", status=M.DRAINING, doomed_at_ms=5)
    decision = decide(1, [doomed])
    assert (decision.launch, decision.undrain) == (1, ())
    coming = machine("m-1", M.LAUNCHING, doomed_at_ms=5)
    assert decide(1, [coming]).launch == 1


def test_what_is_launching_already_is_not_launched_again() -> None:
    assert decide(6, [busy("m-1", 5), machine("m-2", M.LAUNCHING)]).launch == 0


def test_drains_are_called_off_first_then_stopped_machines_started_then_new_ones_added() -> None:
    machines = [machine("m-1", M.DRAINING), machine("m-2", M.STOPPED), busy("m-3", 5)]
    assert decide(10, machines).undrain == ("m-1",)
    assert decide(10, machines).revive == ()
    decision = decide(20, machines)
    assert (decision.undrain, decision.revive, decision.launch) == (("m-1",), ("m-2",), 1)


def test_what_an_operator_drains_stays_drained() -> None:
    held = machine("m-1", M.DRAINING, held_by="operator")
    decision = decide(1, [held])
    assert (decision.undrain, decision.launch) == ((), 1)


def test_a_lost_machine_keeps_its_place_under_the_bound() -> None:
    machines = [busy("m-1", 5), machine("m-2", M.LOST)]
    assert decide(15, machines, max_machines=3).launch == 1
    assert decide(15, machines, max_machines=2).launch == 0


def test_an_empty_machine_is_given_back_after_the_delay_and_not_before() -> None:
    one = empty("m-1", since=100)
    assert decide(0, [one], now=219.999).drain == ()
    assert decide(0, [one], now=220).drain == ("m-1",)


def test_a_machine_with_a_workspace_in_a_slot_is_never_given_back() -> None:
    machines = [busy("m-1"), busy("m-2")]
    decision = decide(2, machines, now=10**6)
    assert (decision.want, decision.have, decision.drain) == (1, 2, ())
    assert "in use" in decision.reason


def test_a_machine_of_which_nothing_is_known_is_not_empty() -> None:
    assert decide(0, [machine("m-1", empty_since_ms=0)], now=10**6).drain == ()


def test_only_what_is_too_much_is_given_back_least_to_move_first_then_the_youngest() -> None:
    machines = [
        empty("m-1", holds_files=3),
        empty("m-2", holds_files=0, created_at_ms=1),
        empty("m-3", holds_files=0, created_at_ms=2),
        busy("m-4"),
    ]
    assert decide(1, machines).drain == ("m-3", "m-2", "m-1")
    assert decide(6, machines).drain == ("m-3", "m-2")
    assert decide(16, machines).drain == ()


def test_warm_slots_keep_a_machine() -> None:
    assert decide(0, [empty("m-1")], warm_slots=1).drain == ()
    assert decide(5, [busy("m-1", 5)], warm_slots=1).launch == 1


def test_a_day_in_a_small_office() -> None:
    """Everybody comes at nine, most go at noon, the rest in the evening."""
    night = decide(0, [empty("m-1")], warm_slots=1)
    assert (night.want, night.launch, night.drain) == (1, 0, ())
    nine = decide(7, [busy("m-1", 5)], warm_slots=1)
    assert (nine.want, nine.launch) == (2, 1)
    assert nine.reason == "7 users + 1 warm slots at 5 a machine want 2; 1 are there: add 1"
    noon = decide(3, [busy("m-1", 3), empty("m-2", since=950)], warm_slots=1)
    assert (noon.want, noon.drain) == (1, ())
    later = decide(3, [busy("m-1", 3), empty("m-2", since=880)], warm_slots=1)
    assert later.drain == ("m-2",)
    back = decide(6, [busy("m-1", 5), machine("m-2", M.DRAINING)], warm_slots=1)
    assert (back.undrain, back.launch) == (("m-2",), 0)


def test_the_decision_shows_its_inputs() -> None:
    shown = decide(3, [busy("m-1", 3)], warm_slots=1).to_json()
    assert {
        "at_ms": 1_000_000,
        "users": 3,
        "slots": 5,
        "want": 1,
        "have": 1,
    }.items() <= shown.items()


machines_of_any_kind = st.lists(
    st.builds(
        machine,
        id=st.uuids().map(str),
        status=st.sampled_from(sorted(set(M) - {M.TERMINATED})),
        occupied=st.integers(0, 5),
        holds_files=st.integers(0, 9),
        empty_since_ms=st.integers(0, 2_000_000),
        created_at_ms=st.integers(0, 9),
    ),
    max_size=12,
)


@given(st.integers(0, 80), machines_of_any_kind, st.integers(0, 12))
def test_whatever_there_is_the_decision_is_sane(
    users: int, machines: list[Machine], warm: int
) -> None:
    decision = decide(users, machines, warm_slots=warm)
    by_id = {m.id: m for m in machines}
    added = decision.launch + len(decision.undrain) + len(decision.revive)
    assert not (added and decision.drain), "grows and shrinks at once"
    assert decision.launch >= 0
    assert len(machines) + decision.launch <= max(10, len(machines))
    assert decision.have + added <= max(decision.want, decision.have)
    assert decision.have - len(decision.drain) >= min(decision.want, decision.have)
    assert all(by_id[i].occupied == 0 and by_id[i].status is M.READY for i in decision.drain)
    assert all(by_id[i].status is M.DRAINING for i in decision.undrain)
    assert all(by_id[i].status is M.STOPPED for i in decision.revive)


# Timelines: what was before counts


@dataclass
class Timeline:
    """A pool with its rule, turn after turn."""

    rule: Rule
    now: float = 10_000.0
    memory: Memory = field(init=False)

    def __post_init__(self) -> None:
        self.memory = begin(int(self.now * 1000), self.rule)

    def turn(
        self, users: int, machines: list[Machine], after: float = 2.0, **facts: Any
    ) -> Decision:
        self.now += after
        told = Facts(users, machines, **facts)
        decision, self.memory = scale(told, self.rule, self.memory, int(self.now * 1000))
        return decision

    def need(self, users: int, machines: list[Machine], after: float = 2.0, **facts: Any) -> Need:
        need = self.turn(users, machines, after, **facts).need
        assert need is not None
        return need

    def steady(self, users: int, machines: list[Machine], every: float, seconds: float) -> Decision:
        """Somebody comes and somebody leaves every so many seconds; the last decision."""
        for n in range(int(seconds / 2)):
            came = int((n + 1) * 2 / every) - int(n * 2 / every)
            decision = self.turn(users, machines, arrivals=came, departures=came)
        return decision

    def learnt(self, rate: float, **more: Any) -> None:
        """As if for an hour so many had come and left in a second."""
        long_ago = self.now - 3600
        demand = Demand(long_ago, self.now, fast=rate, slow=rate, long=rate, leaving=rate, **more)
        self.memory = replace(self.memory, since=long_ago, demand=demand)


def pool(count: int, users: int, since: float = 1) -> list[Machine]:
    """So many machines, as full as they can be."""
    full, rest = divmod(users, 5)
    taken = [5] * full + [rest] * (rest > 0) + [0] * count
    return [busy(f"m-{n}", each) if each else empty(f"m-{n}", since) for n, each in enumerate(taken[:count])]  # fmt: skip


def promise(**more: Any) -> Rule:
    return Rule(**({"max_machines": 100, "wait_probability": 0.01, "scale_in_delay": DELAY} | more))


def test_what_the_lead_time_brings_is_kept_free() -> None:
    line = Timeline(promise(boot_guess=60.0))
    line.learnt(0.1)  # six come within a minute
    slow = line.turn(20, pool(4, 20))
    assert slow.need is not None
    assert slow.need.up == pytest.approx(6.0, abs=0.1)
    assert slow.need.free >= 6
    assert line.need(20, pool(4, 20), boots=(5.0,) * 20).free < slow.need.free
    assert "free slots for" in slow.reason


def test_safer_moments_are_saved_and_spent_later() -> None:
    line = Timeline(promise())
    line.learnt(0.02)
    want = line.steady(18, pool(5, 18), 50, 600).want
    assert want == 5
    assert line.memory.credit > 0, "five slots come at once, so more is free than promised"
    saved = line.need(18, pool(20, 18))
    line.memory = replace(line.memory, credit=0.0)
    usual = line.need(18, pool(20, 18))
    line.memory = replace(line.memory, credit=-1.0)
    owed = line.need(18, pool(20, 18))
    assert saved.risk > usual.risk > owed.risk
    assert saved.free <= usual.free <= owed.free


def test_what_cannot_be_given_back_yet_is_nothing_saved() -> None:
    line = Timeline(promise(scale_in_delay=3600.0))
    line.learnt(0.02)
    line.steady(18, pool(20, 18), 50, 600)
    assert line.memory.credit == 0.0


def test_however_much_was_saved_the_risk_of_a_moment_is_bounded() -> None:
    line = Timeline(promise())
    line.learnt(0.02)
    line.memory = replace(line.memory, credit=risk.CREDIT_MAX, bias=risk.MOST)
    assert line.need(18, pool(5, 18)).risk == pytest.approx(0.01 * exp(3.4))


def test_waits_that_happened_are_held_against_the_promise() -> None:
    line = Timeline(promise())
    line.learnt(0.1)
    before = line.need(20, pool(10, 20))
    after = line.need(20, pool(10, 20), arrivals=1, waits=30)
    assert after.kept > before.kept
    assert after.free > before.free


def test_what_an_evening_taught_is_forgotten_while_more_is_there_than_is_wanted() -> None:
    line = Timeline(promise(scale_in_delay=60.0))
    line.learnt(0.02)
    line.steady(18, pool(20, 18), 50, 600)
    line.memory = replace(line.memory, bias=2.0)
    line.steady(18, pool(20, 18), 50, 600)
    assert line.memory.bias == pytest.approx(risk.forgotten(2.0, 600), abs=0.01)
    wait = line.turn(18, pool(20, 18), waits=5)
    assert wait.spare, "there is more than is wanted"
    assert line.memory.bias < risk.forgotten(2.0, 600) - 0.4, "that somebody waits is always told"


def test_who_comes_while_more_is_there_than_wanted_is_counted_into_the_promise() -> None:
    """Half of all come to no more than is wanted: of those, twice as many may wait."""

    def bias(share: float | None) -> float:
        line = Timeline(promise())
        line.learnt(1.5)
        line.memory = replace(line.memory, bias=0.0)
        for turn in range(800):
            line.memory = replace(line.memory, bound=turn % 2 == 0, credit=0.0)
            if share is not None:
                line.memory = replace(line.memory, share=share)
            line.turn(60, pool(20, 60), arrivals=3, departures=3)
        if share is None:
            assert line.memory.share == pytest.approx(0.5, abs=0.1)
        return line.memory.bias

    alone = bias(1.0)
    assert alone > 0.1
    assert bias(0.5) > 1.5 * alone
    assert 1.3 * alone < bias(None) < bias(0.5), "the share begins as 1"


def test_a_night_in_which_nobody_comes_teaches_nothing() -> None:
    line = Timeline(promise())
    line.learnt(0.02)
    line.steady(4, pool(1, 4), 50, 600)
    for bias, credit in ((3.4, 1.4), (-2.0, -1.0)):
        line.memory = replace(line.memory, bias=bias, credit=credit)
        for _ in range(12 * 60):
            line.turn(0, [], after=60)
        assert line.memory.bias == pytest.approx(risk.BIAS_REST, abs=0.3)
        assert line.memory.credit == pytest.approx(0.0, abs=0.1)


def test_slots_that_are_held_for_a_peak_teach_nothing() -> None:
    line = Timeline(promise(scale_in_delay=60.0, max_machines=200))
    line.learnt(1.0)
    line.steady(300, pool(70, 300), 1, 600)
    before = line.memory.bias
    peak = Peak(at_ms=int((line.now + 600) * 1000), users=300)
    for _ in range(600):
        decision = line.turn(300, pool(125, 300), arrivals=2, departures=2, peaks=(peak,))
    assert decision.need is not None
    assert decision.need.held > 200
    assert line.memory.bias < before + 0.1


def test_the_reason_says_why_nothing_is_given_back() -> None:
    line = Timeline(Rule(settle=300.0, scale_in_delay=0.0, max_machines=300))
    assert "give back 0 of 3, none for 200 s more under a new leader" in line.turn(0, pool(3, 0), after=100).reason  # fmt: skip
    line.turn(0, pool(200, 0), after=300)
    assert "more than go at once" in line.turn(0, pool(180, 0)).reason
    rush = Timeline(promise())
    rush.learnt(0.05)
    rush.turn(5, pool(10, 5), after=DELAY)
    assert "none in a rush" in rush.turn(15, pool(30, 15), arrivals=10).reason


def test_a_rush_only_adds() -> None:
    line = Timeline(promise())
    line.learnt(0.05)
    machines = pool(10, 5)
    assert line.turn(5, machines, after=DELAY).drain, "too many, and empty for long"
    assert line.turn(15, machines, arrivals=10).drain == (), "a rush has begun"
    rush = line.turn(5, machines, after=30, departures=10)
    assert rush.need is not None
    assert (rush.need.panic, rush.drain) == (True, ())
    assert not line.need(5, machines, after=31).panic


def test_what_was_wanted_within_the_window_is_kept() -> None:
    line = Timeline(Rule(scale_in_delay=DELAY))
    machines = pool(4, 5)
    assert line.turn(20, machines).want == 4
    for _ in range(59):
        assert line.turn(5, machines).drain == ()
    last = line.turn(5, machines, after=DELAY - 118)
    assert (last.spare, last.drain) == (0, ())
    over = line.turn(5, machines, after=0.001)
    assert over.spare == 3
    assert len(over.drain) == 3


def test_a_tenth_of_the_pool_is_given_back_in_a_minute() -> None:
    line = Timeline(Rule(max_machines=300, scale_in_delay=0.0))
    given, left = [], 200
    for _ in range(90):
        decision = line.turn(0, pool(left, 0))
        given.append(len(decision.drain))
        left -= len(decision.drain)
    assert given[0] <= SHRINK_LEAST, "what was not given back before"
    assert 18 <= sum(given[1:31]) <= 21
    assert sum(given[1:]) <= 61


def test_nothing_is_given_back_before_it_has_settled() -> None:
    line = Timeline(Rule(settle=300.0, scale_in_delay=0.0))
    assert line.turn(0, pool(3, 0), after=299.9).drain == ()
    assert line.turn(0, pool(3, 0), after=0.1).drain == ("m-0", "m-1", "m-2")


def test_standby_machines_bridge_what_a_new_one_takes_longer() -> None:
    line = Timeline(promise(standby=2, scale_in_delay=0.0))
    line.learnt(0.2)
    boots, starts = (120.0,) * 20, (10.0,) * 20
    machines = pool(12, 10)
    first = line.turn(10, machines, boots=boots, starts=starts)
    assert len(first.park) == 2
    asleep = [
        replace(m, status=M.DRAINING, reason=STANDBY) if m.id in first.park else m for m in machines
    ]
    assert line.turn(10, asleep, boots=boots, starts=starts).park == (), "they are on their way"
    stopped = [replace(m, status=M.STOPPED) if m.reason else m for m in asleep]
    calm = line.turn(10, stopped, boots=boots, starts=starts)
    assert (calm.revive, calm.launch) == ((), 0)
    more = line.turn(47, stopped, boots=boots, starts=starts)
    assert more.revive == ("m-2",), "what cannot wait for a new one"
    begun = int(line.now * 1000)
    started = [
        replace(m, status=M.LAUNCHING, status_since_ms=begun) if m.id == "m-2" else m
        for m in stopped
    ]
    follows = line.turn(47, started, boots=boots, starts=starts)
    assert (follows.revive, follows.launch) == ((), 1), "a new one in its place"


def test_launches_go_at_the_pace_that_is_granted() -> None:
    line = Timeline(Rule(max_machines=100, burst=10, rate=0.5))
    assert line.turn(200, []).launch == 10
    assert line.turn(200, pool(10, 50)).launch == 1
    assert line.turn(200, pool(11, 55), after=10).launch == 5
    refused = line.turn(200, pool(16, 80), throttled=True)
    assert (line.memory.burst, refused.launch) == (5.0, 1)
    line.turn(200, pool(17, 85), throttled=True)
    assert line.memory.burst == 2.5
    line.turn(200, pool(17, 85), after=600)
    assert line.memory.burst == 10.0, "asked as much as before"


def test_where_waits_cost_more_than_slots_more_are_kept_than_promised_and_never_fewer() -> None:
    """A free slot of a 0.36-an-hour machine costs 0.0012 in a minute: waits that cost 12 as much are worth one in
    13, and a promise that lets more wait is kept better."""
    dear = Timeline(promise(wait_probability=0.2, machine_hour=0.36, wait_cost=0.0144))
    dear.learnt(0.1)
    needed = dear.need(20, pool(8, 20))
    assert needed.probability == pytest.approx(1 / 13)
    plain = Timeline(promise(wait_probability=0.2))
    plain.learnt(0.1)
    assert plain.need(20, pool(8, 20)).free < needed.free
    cheap = Timeline(promise(wait_probability=0.01, machine_hour=0.36, wait_cost=0.0144))
    cheap.learnt(0.1)
    assert cheap.need(20, pool(8, 20)).probability == 0.01


def test_a_launch_that_takes_far_longer_than_others_is_replaced() -> None:
    late = machine("m-2", M.LAUNCHING, status_since_ms=9_000_000)
    line = Timeline(Rule())
    assert line.turn(6, [busy("m-1", 5), late]).launch == 0, "nothing is known of others"
    assert line.turn(6, [busy("m-1", 5), late], boots=(30.0,) * 5).launch == 1
    young = replace(late, status_since_ms=int(line.now * 1000) - 80_000)
    assert line.turn(6, [busy("m-1", 5), young], boots=(30.0,) * 5).launch == 0


@given(st.lists(st.tuples(st.integers(0, 80), machines_of_any_kind), min_size=1, max_size=6))
def test_a_machine_with_a_workspace_is_never_named_whatever_came_before(
    turns: list[tuple[int, list[Machine]]],
) -> None:
    line = Timeline(promise(scale_in_delay=0.0, standby=4, max_machines=20))
    for users, machines in turns:
        decision = line.turn(users, machines, arrivals=users % 7, departures=users % 5)
        taken = {m.id for m in machines if m.occupied}
        assert not taken & {*decision.drain, *decision.park}
        assert not {*decision.drain} & {*decision.park}
        assert decision.have - len(decision.drain) - len(decision.park) >= 0


def test_a_clock_that_went_back_does_not_stop_the_counting() -> None:
    rule = Rule(wait_probability=0.01, scale_in_delay=DELAY)
    memory = begin(7_200_000, rule)
    for second in range(7202, 7300, 2):
        _, memory = scale(Facts(1, [], arrivals=1), rule, memory, second * 1000)
    near = scale(Facts(1, [], arrivals=1), rule, memory, (7298 - 59) * 1000)[1]
    assert near.demand == memory.demand, "a step of a minute is waited out"
    _, memory = scale(Facts(1, [], arrivals=1), rule, memory, 3_600_000)
    assert (memory.at, memory.since, memory.demand.slow) == (3600, 3600, 0)
    _, memory = scale(Facts(1, [], arrivals=2), rule, memory, 3_602_000)
    assert memory.demand.slow > 0
