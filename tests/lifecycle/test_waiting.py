"""How long does it take? One thing that is waited for at a time; all of them together: test_eta.py."""

from __future__ import annotations

from typing import Any

import pytest

from lifecycle.model import MachineStatus
from lifecycle.pace import AGES, Pace, by_age, middle
from lifecycle.waiting import (
    FIRST_BOOT_GUESS,
    Bounds,
    left,
    one_after_another,
    outlook,
    releases,
)
from tests.lifecycle.fakes import machine

NOW = 1_000_000_000
FULL = [machine(slots=2, occupied=2)]
BOUNDS = Bounds(slots=2, warm_slots=0, max_machines=1, turn=2.0, launch_guess=40.0)


def pace(**known: Any) -> Pace:
    known = {"boots": [3.0, 90.0, 5.0], "users": 3, "running": [(0.0, 2)]} | known
    return Pace(NOW, **known)


def test_with_a_slot_free_it_takes_a_boot_the_middle_one() -> None:
    free = [machine(slots=2, occupied=0)]
    assert outlook(pace(), free, BOUNDS).eta(1) == 5.0
    assert outlook(pace(boots=[]), free, BOUNDS).eta(2) == FIRST_BOOT_GUESS
    assert outlook(pace(), free, BOUNDS).eta(0) == 5.0


def test_a_machine_that_will_be_launched_takes_the_scalers_turn_and_a_launch() -> None:
    more = Bounds(slots=2, warm_slots=0, max_machines=2, turn=2.0, launch_guess=40.0)
    assert outlook(pace(), FULL, more).eta(1) == 1 + 40 + 5
    assert outlook(pace(launches=[20.0, 30.0, 90.0]), FULL, more).eta(1) == 1 + 30 + 5


def test_a_machine_on_its_way_has_come_some_of_it() -> None:
    since = NOW - 25_000
    coming = [*FULL, machine("m-2", MachineStatus.LAUNCHING, slots=2, status_since_ms=since)]
    bounds = Bounds(slots=2, warm_slots=0, max_machines=2)
    look = outlook(pace(launches=[20.0, 30.0, 40.0, 50.0]), coming, bounds)
    assert look.eta(1) == look.eta(2) == 15 + 5  # of those that take longer than 25 s half take 40
    overdue = outlook(pace(launches=[20.0]), coming, bounds)
    assert overdue.eta(1) == 25 / 4 + 5


def test_of_several_at_once_the_first_comes_sooner_and_the_last_later() -> None:
    spread = [10.0, 20.0, 30.0, 40.0, 50.0]
    assert one_after_another([spread]) == [30.0]
    assert one_after_another([spread] * 3) == [20.0, 30.0, 40.0]
    assert left(25.0, spread) == [5.0, 15.0, 25.0]
    assert one_after_another([]) == []


def test_at_the_bound_it_waits_for_others_to_stop_each_as_far_as_it_is() -> None:
    runs = [100.0, 110.0, 120.0]
    fresh = outlook(pace(runs=runs, running=[(0.0, 2)]), FULL, BOUNDS).eta(1)
    old = outlook(pace(runs=runs, running=[(95.0, 2)]), FULL, BOUNDS).eta(1)
    assert 95 < fresh < 120
    assert 5 < old < 25
    third = outlook(pace(runs=runs, running=[(95.0, 2)]), FULL, BOUNDS).eta(3)
    assert 100 < third < 140  # behind the two that go soon, and one who follows them
    assert (
        outlook(pace(runs=runs, running=[]), FULL, BOUNDS).eta(2) == 5 + 5
    )  # both are being stopped


def test_who_follows_comes_free_again() -> None:
    found = releases([(0.0, 10)], [10.0, 10.0], 1.0)
    assert [found[8], found[9], found[18], found[29]] == [0, 10, 10, 30]


def test_with_so_many_boots_at_once_the_others_wait_their_turn() -> None:
    room = [machine(slots=9, occupied=2)]
    bounds = Bounds(slots=9, warm_slots=0, max_machines=1, max_starting=2)
    look = outlook(pace(boots=[10.0], booting=[4.0, 8.0]), room, bounds)
    assert [look.eta(place) for place in (1, 2, 3, 5)] == [12.0, 16.0, 21.0, 31.0]


def test_who_may_yet_be_overtaken_waits_longer() -> None:
    vips = [(float(ago), 600.0) for ago in range(0, 1000, 20)]
    look = outlook(pace(runs=[20.0], running=[(10.0, 2)], arrivals=vips), FULL, BOUNDS)
    vip, normal = look.eta(20, 600.0), look.eta(20)
    assert normal > 1.5 * vip
    assert vip == look.eta(20, 0.0, waited=601.0)  # nobody who comes now is before it


@pytest.mark.parametrize("age", [0.0, 3.0, 10.0, 59.0, 5000.0, 1e6])
def test_ages_are_counted_in_steps_and_stand_for_about_what_they_were(age: float) -> None:
    [(about, many)] = by_age([age])
    assert many == 1
    assert about == pytest.approx(min(age, middle(len(AGES) - 1)), rel=0.16, abs=5)
