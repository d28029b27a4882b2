"""Which instance becomes which machine: a timeline without AWS."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lifecycle.pools import Launch
from lifecycle.pools.members import Member, protection
from lifecycle.pools.naming import LAG, SPARE, Naming

ONE, TWO, TEN = Launch("m-1", "t", 5), Launch("m-2", "t", 5), Launch("m-10", "t", 5)


def host(instance: str, machine_id: str = "", lifecycle: str = "InService", **more) -> Member:
    fleet = "lab" if machine_id else ""
    return Member(instance, "g", lifecycle, **{"power": "running", "fleet": fleet, "machine_id": machine_id, **more})  # fmt: skip


def names(members: list[Member]) -> dict[str, str]:
    return {member.instance: member.machine_id for member in members}


def test_needed_is_a_total_and_repeating_a_launch_changes_nothing() -> None:
    naming = Naming("lab")
    there = naming.see([host("i-1", "m-1")], 0)
    assert naming.needed(there, 0) == 0
    for _ in range(2):
        naming.want([ONE, TWO, TEN], there)
        assert naming.needed(there, 0) == 3


def test_who_stands_by_or_goes_is_not_counted() -> None:
    naming = Naming("lab")
    gone = host("i-4", "m-4")
    there = naming.see([host("i-1", "m-1", "Standby"), host("i-2", "m-2", "Terminating:Wait"), host("i-3", "m-3"), gone], 0)  # fmt: skip
    naming.ended(gone, 0)
    naming.want([TEN], there)
    assert naming.needed(there, 0) == 2


def test_machines_get_instances_in_the_order_of_their_numbers() -> None:
    naming = Naming("lab")
    naming.see([], 0)
    naming.want([TEN, TWO], [])
    there = naming.see([host("i-1"), host("i-2"), host("i-3")], 1)
    assert names(naming.name(there, 1)) == {"i-1": "m-2", "i-2": "m-10", "i-3": ""}
    assert [instance for instance, _ in naming.to_tag()] == ["i-1", "i-2"]


def test_a_name_holds_before_any_tag_tells_it() -> None:
    naming = Naming("lab")
    naming.see([], 0)
    naming.want([ONE], [])
    naming.name(naming.see([host("i-1")], 1), 1)
    for now in (2, 100, 1000):  # EC2's answers stay behind
        there = naming.see([host("i-1"), host("i-2")], now)
        assert names(naming.name(there, now)) == {"i-1": "m-1", "i-2": ""}
    assert naming.to_tag() == [("i-1", ONE)]  # its tagging failed: again
    naming.see([host("i-1", "m-1")], 1001)
    assert naming.to_tag() == []


def test_an_instance_from_before_us_may_have_a_name_that_is_not_seen_yet() -> None:
    naming = Naming("lab")
    before = naming.see([host("i-1")], 0)
    naming.want([ONE], before)
    assert naming.needed(before, 0) == 1  # so that no second one is started for it
    assert names(naming.name(naming.see([host("i-1")], LAG - 1), LAG - 1)) == {"i-1": ""}
    assert names(naming.name(naming.see([host("i-1")], LAG), LAG)) == {"i-1": "m-1"}


def test_what_turns_out_to_have_a_name_waits_no_more() -> None:
    naming = Naming("lab")
    naming.want([ONE], naming.see([host("i-1")], 0))
    there = naming.see([host("i-1", "m-1"), host("i-2")], 5)
    assert naming.needed(there, 5) == 0
    assert names(naming.name(there, 5)) == {"i-1": "m-1", "i-2": ""}


@pytest.mark.parametrize(
    "other",
    [
        host("i-1", lifecycle="Pending"),
        host("i-1", lifecycle="Warmed:Stopped"),
        host("i-1", lifecycle="Terminating"),
        host("i-1", lifecycle="Standby"),
        host("i-1", power=""),  # EC2 does not know it yet: its tags are not known either
        host("i-1", fleet="another"),
    ],
)
def test_whom_no_name_is_given(other: Member) -> None:
    naming = Naming("lab")
    naming.see([], 0)
    naming.want([ONE], [])
    assert names(naming.name(naming.see([other], 1), 1)) == {"i-1": ""}
    naming.give_up("m-1")
    naming.see([other], 2)
    assert naming.spare(naming.see([other], 9999), 9999) == []


def test_an_instance_that_nobody_waits_for_is_spare_after_a_while() -> None:
    naming = Naming("lab")
    extra = host("i-1")
    naming.see([extra], 0)
    assert naming.spare(naming.see([extra], SPARE - 1), SPARE - 1) == []
    assert naming.spare(naming.see([extra], SPARE), SPARE) == [extra]
    naming.want([ONE], [extra])
    assert naming.spare([extra], SPARE) == []


def test_what_we_terminated_is_not_shown_unless_it_stays() -> None:
    naming = Naming("lab")
    (member,) = naming.see([host("i-1", "m-1")], 0)
    assert naming.shows(member, 0)
    naming.ended(member, 0)
    assert not naming.shows(member, LAG - 1)
    assert naming.shows(member, LAG)


def test_another_fleets_machines_are_counted_and_not_shown() -> None:
    naming = Naming("lab")
    other = host("i-1", "m-1", fleet="another")
    there = naming.see([other], 0)
    assert not naming.shows(other, 0)
    naming.want([TWO], there)
    assert naming.needed(there, 0) == 2


def test_protection_is_for_exactly_those_that_hold_workspaces() -> None:
    busy, idle = host("i-1", "m-1"), host("i-2", "m-2", protected=True)
    kept, going = host("i-3", "m-3", protected=True), host("i-4", "m-4", "Terminating")
    assert protection([busy, idle, kept, going], {"m-1", "m-3", "m-4"}) == ([busy], [idle])


def test_words_for_what_auto_scaling_takes_away() -> None:
    going = host("i-1", "m-1", "Terminating:Wait")
    assert going.state == "running"
    assert going.leaving == "Auto Scaling takes it away: its group scales in or renews it"
    assert "unhealthy" in replace(going, healthy=False).leaving
    assert host("i-1", "m-1").leaving == ""
    assert not replace(going, power="terminated").exists
