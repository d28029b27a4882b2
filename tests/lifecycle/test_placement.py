"""Which machine? Told by the queue and the machines as they are."""

from __future__ import annotations

import pytest

from lifecycle.model import Machine, MachineStatus, Workspace, WorkspaceStatus
from lifecycle.placement import Detach, Place, Revive, place
from tests.lifecycle.fakes import machine, workspace

M = MachineStatus


def queued(id: str = "w1", home: str = "") -> Workspace:
    return workspace(id, WorkspaceStatus.QUEUED, machine_id=home)


def where(queue: list[Workspace], machines: list[Machine]) -> dict[str, str]:
    return {c.workspace.id: c.machine.id for c in place(queue, machines) if isinstance(c, Place)}


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
    assert where(queue, machines) == {"first": "m-1", "second": "m-2"}


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
