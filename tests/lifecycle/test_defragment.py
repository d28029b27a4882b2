"""Which workspaces move so that machines come free: worked examples, and what never happens."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from lifecycle.defragment import KEPT, Move, moves
from lifecycle.model import Machine, MachineStatus
from lifecycle.placement import takes_work
from tests.lifecycle.fakes import machine

M = MachineStatus


def names(machine_id: str, count: int) -> list[str]:
    return [f"{machine_id}/{n}" for n in range(count)]


def quiet(*machines: Machine) -> dict[str, list[str]]:
    """Nobody is connected to anything."""
    return {m.id: names(m.id, m.occupied) for m in machines}


def test_the_machine_with_the_least_on_it_is_emptied() -> None:
    fleet = [machine("m-1", occupied=3), machine("m-2", occupied=1), machine("m-3", occupied=2)]
    assert moves(1, fleet, quiet(*fleet)) == [Move("m-2/0", "m-2")]


def test_of_equals_the_youngest() -> None:
    fleet = [machine(f"m-{n}", occupied=1, created_at_ms=n) for n in (1, 2, 3)]
    assert moves(1, fleet, quiet(*fleet)) == [Move("m-3/0", "m-3")]


def test_no_more_than_are_spare() -> None:
    fleet = [machine(f"m-{n}", occupied=1) for n in range(6)]
    assert moves(0, fleet, quiet(*fleet)) == []
    assert len(moves(2, fleet, quiet(*fleet))) == 2


def test_as_long_as_the_slots_of_the_others_suffice() -> None:
    # 6 on three machines of 5: two of them hold 10, and one slot stays free for whoever comes.
    fleet = [machine(f"m-{n}", occupied=2) for n in range(3)]
    assert {move.machine_id for move in moves(3, fleet, quiet(*fleet))} == {"m-0"}
    full = [machine("m-1", occupied=4), machine("m-2", occupied=1)]
    assert moves(1, full, quiet(*full)) == [], "the slot that it would take is the last one"


def test_whoever_is_connected_is_not_disturbed_nor_is_who_shares_their_machine() -> None:
    fleet = [machine("m-1", occupied=1), machine("m-2", occupied=3), machine("m-3", occupied=2)]
    someone = {"m-1": [], "m-2": names("m-2", 2), "m-3": names("m-3", 2)}
    assert moves(1, fleet, someone) == [Move(each, "m-3") for each in names("m-3", 2)]
    assert moves(1, fleet, {}) == []


def test_never_onto_an_empty_machine() -> None:
    fleet = [machine("m-1", occupied=1), machine("m-2")]
    assert moves(1, fleet, quiet(*fleet)) == []


def test_machines_that_take_nobody_in_are_left_alone_and_counted_on_by_nobody() -> None:
    alone = machine("m-1", occupied=1)
    for other in (
        machine("m-2", occupied=1, doomed_at_ms=5),
        machine("m-2", M.DRAINING, occupied=1),
        machine("m-2", M.LAUNCHING, occupied=1),
        machine("m-2", slots=1, occupied=1),
    ):
        assert moves(2, [alone, other], quiet(alone, other)) == []


@st.composite
def fleets(draw: st.DrawFn) -> tuple[list[Machine], dict[str, list[str]]]:
    fleet, movable = [], {}
    for n in range(draw(st.integers(0, 8))):
        slots = draw(st.integers(1, 6))
        occupied = draw(st.integers(0, slots))
        fleet.append(
            machine(
                f"m-{n}", draw(st.sampled_from([M.READY, M.READY, M.READY, M.DRAINING, M.LAUNCHING])),
                slots=slots, occupied=occupied, created_at_ms=draw(st.integers(0, 3)),
                doomed_at_ms=draw(st.sampled_from([0, 0, 0, 9])),
            )
        )  # fmt: skip
        if draw(st.booleans()):
            movable[f"m-{n}"] = names(f"m-{n}", draw(st.integers(0, occupied)))
    return fleet, movable


@given(fleets(), st.integers(0, 9))
def test_what_never_happens(made: tuple[list[Machine], dict[str, list[str]]], spare: int) -> None:
    fleet, movable = made
    found = moves(spare, fleet, movable)
    by_id = {m.id: m for m in fleet}
    emptied = Counter(move.machine_id for move in found)
    assert len(emptied) <= spare
    assert len({move.workspace_id for move in found}) == len(found)
    for machine_id, count in emptied.items():
        source = by_id[machine_id]
        assert count == source.occupied == len(movable[machine_id]), "whole or not at all"
        assert takes_work(source)
        assert source.slots > 1
    stay = [
        m for m in fleet if takes_work(m) and m.occupied and m.slots > 1 and m.id not in emptied
    ]
    if found:
        assert len(found) + KEPT <= sum(m.slots - m.occupied for m in stay)
