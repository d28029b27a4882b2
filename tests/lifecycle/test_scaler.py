"""How many machines? Worked examples of ceil((users + warm) / slots), then what is done about it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifecycle.model import Machine, MachineStatus
from lifecycle.scaler import Decision, Facts, Rule, begin, machines_wanted, scale
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
