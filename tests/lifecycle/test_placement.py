"""Which machine? Told by the queue and the machines as they are."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifecycle.model import Machine, MachineStatus, Workspace, WorkspaceStatus
from lifecycle.placement import (
    Detach,
    Place,
    Revive,
    at_once,
    place,
    shortage,
    takes_work,
    without_room,
)
from tests.lifecycle.fakes import machine, workspace

M = MachineStatus


def queued(id: str = "w1", home: str = "", **fields: str) -> Workspace:
    return workspace(id, WorkspaceStatus.QUEUED, machine_id=home, **fields)


def where(
    queue: list[Workspace], machines: list[Machine], idle: dict[str, int] | None = None
) -> dict[str, str]:
    commands = place(queue, machines, idle)
    return {c.workspace.id: c.machine.id for c in commands if isinstance(c, Place)}


def test_a_newcomer_takes_the_fullest_machine_that_has_a_slot_left() -> None:
    machines = [
        machine("m-1", occupied=2),
        machine("m-2", occupied=4),
        machine("m-3", occupied=5),
        machine("m-4"),
    ]
    assert where([queued()], machines) == {"w1": "m-2"}


def test_of_equally_full_machines_the_oldest_is_taken() -> None:
    young, old = machine("m-1", created_at_ms=9), machine("m-2", created_at_ms=3)
    assert where([queued()], [young, old]) == {"w1": "m-2"}
    assert where([queued()], [machine("m-b"), machine("m-a")]) == {"w1": "m-a"}


def test_the_queue_is_served_in_its_order_until_the_slots_are_gone() -> None:
    machines = [machine("m-1", slots=1), machine("m-2", slots=2, occupied=1)]
    queue = [queued("first"), queued("second"), queued("third")]
    assert where(queue, machines) == {"first": "m-2", "second": "m-1"}


def test_nobody_comes_to_a_machine_that_will_soon_be_empty_while_another_has_room() -> None:
    full, quiet, busy = machine("m-1", occupied=5), machine("m-2", occupied=4), machine("m-3", occupied=2)  # fmt: skip
    machines = [full, quiet, busy, machine("m-4")]
    assert where([queued()], machines) == {"w1": "m-2"}
    assert where([queued()], machines, {"m-2": 120_000}) == {"w1": "m-3"}
    # Of two where nobody is active, the one where somebody was last.
    assert where([queued()], machines, {"m-2": 120_000, "m-3": 90_000}) == {"w1": "m-3"}
    # An empty one comes last: it can be given back at once.
    many = [queued(f"w{n}") for n in range(5)]
    chosen = where(many, machines, {"m-2": 120_000, "m-3": 900_000})
    assert list(chosen.values()) == ["m-2", "m-3", "m-3", "m-3", "m-4"]


def test_where_somebody_has_just_been_placed_somebody_is_active() -> None:
    machines = [machine("m-1", occupied=3), machine("m-2", occupied=3)]
    idle = {"m-1": 90_000, "m-2": 80_000}
    assert where([queued("w1"), queued("w2"), queued("w3")], machines, idle) == {
        "w1": "m-2", "w2": "m-2", "w3": "m-1"
    }  # fmt: skip
    assert idle == {"m-1": 90_000, "m-2": 80_000}, "what was known is the caller's"


def test_whoever_has_files_goes_home_even_if_another_machine_is_fuller() -> None:
    machines = [machine("m-1"), machine("m-2", occupied=4)]
    assert where([queued(home="m-1")], machines) == {"w1": "m-1"}


def test_a_full_home_sends_the_files_on_their_way_when_there_is_room_elsewhere() -> None:
    home, other = machine("m-1", slots=1, occupied=1), machine("m-2", slots=1)
    one = queued(home="m-1")
    assert place([one], [home, other]) == [Detach(one, home)]
    assert place([one], [home]) == []


def test_room_for_files_that_move_is_not_given_away_meanwhile() -> None:
    home, other = machine("m-1", slots=1, occupied=1), machine("m-2", slots=1)
    mover, newcomer = queued("mover", home="m-1"), queued("newcomer")
    assert place([mover, newcomer], [home, other]) == [Detach(mover, home)]


def test_the_last_slot_at_home_goes_to_whoever_is_first() -> None:
    home, other = machine("m-1", slots=1), machine("m-2", slots=1)
    first, second = queued("first", home="m-1"), queued("second", home="m-1")
    assert place([first, second], [home, other]) == [Place(first, home), Detach(second, home)]


def test_a_stopped_home_is_started_once_for_all_who_wait_for_it() -> None:
    home = machine("m-1", M.STOPPED)
    queue = [queued("w1", home="m-1"), queued("w2", home="m-1")]
    assert place(queue, [home, machine("m-2")]) == [Revive(home)]


@pytest.mark.parametrize("status", [M.LAUNCHING, M.DRAINING, M.LOST])
def test_a_home_that_is_on_its_way_somewhere_is_waited_for(status: MachineStatus) -> None:
    assert place([queued(home="m-1")], [machine("m-1", status), machine("m-2")]) == []


def test_a_home_that_is_gone_holds_nobody() -> None:
    assert where([queued(home="m-gone")], [machine("m-2")]) == {"w1": "m-2"}


@pytest.mark.parametrize("status", sorted(set(M) - {M.READY}))
def test_newcomers_only_boot_on_ready_machines(status: MachineStatus) -> None:
    assert place([queued()], [machine("m-1", status)]) == []


def test_one_who_waits_does_not_hold_up_the_next() -> None:
    queue = [queued("waits", home="m-1"), queued("goes")]
    machines = [machine("m-1", M.LAUNCHING), machine("m-2")]
    assert where(queue, machines) == {"goes": "m-2"}


def test_a_machine_whose_slots_were_cut_takes_nobody() -> None:
    assert place([queued()], [machine("m-1", slots=1, occupied=2)]) == []


# A machine of one slot belongs to whose files it holds


def test_a_dedicated_machine_that_holds_anothers_files_takes_nobody_else() -> None:
    taken, free = machine("m-1", slots=1, holds_files=1), machine("m-2", slots=1)
    assert where([queued()], [taken]) == {}
    assert where([queued()], [taken, free]) == {"w1": "m-2"}


def test_its_owner_goes_home_to_it() -> None:
    taken = machine("m-1", slots=1, holds_files=1)
    assert where([queued(home="m-1")], [taken]) == {"w1": "m-1"}


def test_files_do_not_move_to_a_machine_that_is_dedicated_to_another() -> None:
    home = machine("m-1", slots=1, occupied=1, holds_files=2)
    other = machine("m-2", slots=1, holds_files=1)
    assert place([queued(home="m-1")], [home, other]) == []


def test_a_shared_machine_holds_anybodys_files() -> None:
    assert where([queued()], [machine("m-1", slots=2, holds_files=7)]) == {"w1": "m-1"}


# A volume can only be attached in its own zone


def test_a_volume_goes_to_a_machine_of_its_zone() -> None:
    machines = [machine("m-1", occupied=4, zone="eu-1a"), machine("m-2", zone="eu-1b")]
    assert where([queued(volume="vol-1", zone="eu-1b")], machines) == {"w1": "m-2"}


def test_without_a_machine_in_its_zone_it_waits_and_holds_up_nobody() -> None:
    machines = [machine("m-1", slots=1, zone="eu-1a")]
    queue = [queued("waits", volume="vol-1", zone="eu-1b"), queued("goes")]
    assert where(queue, machines) == {"goes": "m-1"}


def test_who_has_no_volume_yet_goes_to_any_zone() -> None:
    assert where([queued()], [machine("m-1", zone="eu-1a")]) == {"w1": "m-1"}


@pytest.mark.parametrize("status", [M.STOPPED, M.LOST])
def test_a_volume_is_unplugged_from_a_machine_that_is_down(status: MachineStatus) -> None:
    home, one = machine("m-1", status, zone="a"), queued(home="m-1", volume="vol-1", zone="a")
    assert place([one], [home]) == [Detach(one, home)]


def test_a_volume_moves_from_a_full_machine_within_its_zone() -> None:
    home = machine("m-1", slots=1, occupied=1, zone="a")
    one = queued(home="m-1", volume="vol-1", zone="a")
    assert place([one], [home, machine("m-2", zone="b")]) == []
    assert place([one], [home, machine("m-3", zone="a")]) == [Detach(one, home)]


# A machine that its pool takes back


def test_a_doomed_machine_takes_nobody() -> None:
    doomed = machine("m-1", occupied=4, doomed_at_ms=1)
    assert where([queued()], [doomed]) == {}
    assert where([queued()], [doomed, machine("m-2")]) == {"w1": "m-2"}


def test_a_doomed_home_is_not_gone_back_to() -> None:
    """Its files are moved away from it first, by the drain that the notice began."""
    home = machine("m-1", doomed_at_ms=1)
    assert place([queued(home="m-1")], [home, machine("m-2")]) == []
    stopped = machine("m-1", M.STOPPED, doomed_at_ms=1)
    assert place([queued(home="m-1")], [stopped]) == []


# Where volumes wait


def waits(id: str, zone: str, home: str = "") -> Workspace:
    return queued(id, home, volume=f"vol-{id}", zone=zone)


def zones(queue: list[Workspace], machines: list[Machine], slots: int = 2) -> tuple[str, ...]:
    return shortage(queue, machines, slots).zones


def test_a_volume_wants_a_machine_in_its_zone_whatever_there_is_elsewhere() -> None:
    one, elsewhere = waits("w1", "a"), machine("m-1", zone="b")
    assert zones([one], [elsewhere]) == ("a",)
    assert zones([one], [elsewhere, machine("m-2", zone="a")]) == ()
    assert zones([one], [machine("m-2", zone="a", occupied=5)]) == ("a",)
    assert zones([queued()], []) == (), "who may go anywhere is counted by the scaler"


def test_what_is_coming_there_is_not_asked_for_twice() -> None:
    one = waits("w1", "a")
    assert zones([one], [machine("m-1", M.LAUNCHING, zone="a")]) == ()
    assert zones([one], [machine("m-1", M.LAUNCHING)]) == (), "it may come up there"
    assert zones([one], [machine("m-1", M.LAUNCHING, zone="b")]) == ("a",)
    for useless in ({"unheard": True}, {"doomed_at_ms": 9}):
        assert zones([one], [machine("m-1", M.LAUNCHING, zone="a", **useless)]) == ("a",)


def test_as_many_as_have_room_for_all_who_wait_there() -> None:
    queue = [waits(f"w{n}", "a") for n in range(5)] + [waits("w9", "b")]
    assert zones(queue, [machine("m-1", zone="a", slots=2)]) == ("a", "a", "b")
    assert zones(queue, [], slots=5) == ("a", "b")


def test_who_comes_first_and_may_go_anywhere_takes_the_room() -> None:
    machines = [machine("m-1", zone="a", slots=1), machine("m-2", zone="b", slots=1)]
    assert zones([waits("w1", "b"), queued("w2")], machines) == ()
    assert zones([queued("w2"), waits("w1", "a")], machines) == ("a",)


def test_what_is_empty_and_no_help_may_be_given_back() -> None:
    machines = [machine("m-1", zone="b"), machine("m-2", zone="b", occupied=1), machine("m-3", zone="a")]  # fmt: skip
    found = shortage([waits("w1", "a"), waits("w2", "c")], machines, 5)
    assert ([m.id for m in found.idle], found.zones) == (["m-1"], ("c",))


def test_so_many_boot_at_once_in_the_order_of_the_queue_and_files_move_meanwhile() -> None:
    first, second, third = (Place(queued(id), machine()) for id in ("w1", "w2", "w3"))
    moves = Detach(queued("w4"), machine())
    assert at_once([first, second, moves, third], 2) == [first, second, moves]
    assert at_once([first, moves], 0) == [moves]


# Who waits for a slot


def test_who_waits_because_no_slot_is_free() -> None:
    machines = [machine("m-1", slots=1, occupied=1), machine("m-2", M.STOPPED, holds_files=1)]
    queue = [queued("new"), queued("full", home="m-1"), queued("asleep", home="m-2")]
    assert without_room(queue, machines, place(queue, machines)) == {"new", "full"}
    room = [*machines, machine("m-3", slots=2)]
    assert without_room(queue, room, place(queue, room)) == frozenset()


# The same as looking at every machine for every workspace


def suits(w: Workspace, m: Machine) -> bool:
    return not (m.slots == 1 and m.holds_files > 0) and w.zone in ("", m.zone)


def scanned(
    queue: list[Workspace], machines: list[Machine], idle: dict[str, int]
) -> dict[str, str]:
    """Workspace → the machine that place() chooses for it, where it says something."""
    idle = dict(idle)
    free = {m.id: m.slots - m.occupied for m in machines if takes_work(m)}
    by_id = {m.id: m for m in machines}
    found = {}
    for w in queue:
        home = by_id.get(w.machine_id)
        chosen = home if home is not None and free.get(home.id, 0) > 0 else None
        if chosen is None:
            fits = [m for m in machines if free.get(m.id, 0) > 0 and suits(w, m)]
            chosen = min(
                fits,
                key=lambda m: (
                    not m.occupied,
                    idle.get(m.id, 0),
                    free[m.id],
                    m.created_at_ms,
                    m.id,
                ),
                default=None,
            )
        if chosen is None:
            continue
        if home in (None, chosen):
            found[w.id] = chosen.id
        elif (
            home is None
            or home.doomed_at_ms
            or home.status is M.LAUNCHING
            or (
                not (w.volume and home.status in (M.STOPPED, M.LOST)) and home.status is not M.READY
            )
        ):
            continue
        free[chosen.id] -= 1
        idle[chosen.id] = 0
    return found


def scanned_zones(queue: list[Workspace], machines: list[Machine], slots: int) -> tuple[str, ...]:
    """Where machines have to be added."""
    comes = [m for m in machines if m.status is M.LAUNCHING and not (m.unheard or m.doomed_at_ms)]
    room = {m.id: m.slots - m.occupied for m in [*comes, *filter(takes_work, machines)]}
    zones: list[str] = []
    waiting: Counter[str] = Counter()
    for w in queue:
        fits = [
            m
            for m in machines
            if room.get(m.id, 0) > 0
            and (m.id == w.machine_id or suits(w, m) or (m in comes and not m.zone))
        ]
        if fits:
            best = min(
                fits,
                key=lambda m: (
                    m.id != w.machine_id, m.status is not M.READY, not m.zone, room[m.id],
                    m.created_at_ms, m.id,
                ),
            )  # fmt: skip
            room[best.id] -= 1
        elif w.volume and w.zone:
            waiting[w.zone] += 1
            if waiting[w.zone] > zones.count(w.zone) * slots:
                zones.append(w.zone)
    return tuple(zones)


@st.composite
def situations(draw: st.DrawFn) -> tuple[list[Workspace], list[Machine]]:
    some = st.builds(
        lambda **of: of,
        status=st.sampled_from([M.READY, M.READY, M.READY, M.LAUNCHING, M.STOPPED, M.DRAINING]),
        slots=st.sampled_from([1, 2, 5]),
        occupied=st.integers(0, 5),
        holds_files=st.integers(0, 2),
        created_at_ms=st.integers(0, 3),
        zone=st.sampled_from(["", "a", "b"]),
        doomed_at_ms=st.sampled_from([0, 0, 0, 9]),
    )
    machines = [
        machine(f"m-{n}", **(of | {"occupied": min(of["occupied"], of["slots"])}))
        for n, of in enumerate(draw(st.lists(some, max_size=8)))
    ]
    homes = st.sampled_from(["", "m-none", *(m.id for m in machines)])
    kinds = st.tuples(homes, st.sampled_from(["", "a", "b"]), st.booleans())
    queue = [
        queued(f"w{n}", home=home, zone=zone, volume="vol" if volume else "")
        for n, (home, zone, volume) in enumerate(draw(st.lists(kinds, max_size=12)))
    ]
    return queue, machines


@given(
    situations(), st.dictionaries(st.sampled_from([f"m-{n}" for n in range(8)]), st.integers(1, 3))
)
def test_it_chooses_what_a_look_at_every_machine_would(
    situation: tuple[list[Workspace], list[Machine]], idle: dict[str, int]
) -> None:
    queue, machines = situation
    assert where(queue, machines, idle) == scanned(queue, machines, idle)
    assert shortage(queue, machines, 5).zones == scanned_zones(queue, machines, 5)
