"""Who is next, and how long does it take?"""

from __future__ import annotations

import pytest

from lifecycle.queueing import FIRST_BOOT_GUESS, boost_ms, eta_seconds


def places(*arrivals: tuple[str, float, str]) -> list[str]:
    """Names in the order of their places in the queue. arrivals: (name, at seconds, priority)."""
    return [name for name, *_ in sorted(arrivals, key=lambda a: a[1] * 1000 - boost_ms(a[2]))]


def test_first_come_first_served() -> None:
    assert places(("b", 2, "normal"), ("a", 1, "normal")) == ["a", "b"]


def test_a_vip_overtakes_what_came_within_ten_minutes_and_no_more() -> None:
    assert places(("normal", 0, "normal"), ("vip", 599, "vip")) == ["vip", "normal"]
    assert places(("normal", 0, "normal"), ("vip", 601, "vip")) == ["normal", "vip"]


def test_a_batch_boot_never_starves() -> None:
    assert places(("batch", 0, "batch"), ("vip", 1199, "vip")) == ["vip", "batch"]
    assert places(("batch", 0, "batch"), ("vip", 1201, "vip")) == ["batch", "vip"]


@pytest.mark.parametrize(
    ("priority", "ms"), [("30", 30_000), ("-1.5", -1500), ("86400", 86_400_000)]
)
def test_a_number_is_taken_as_seconds(priority: str, ms: int) -> None:
    assert boost_ms(priority) == ms


@pytest.mark.parametrize("priority", ["", "urgent", "nan", "inf", "-inf", "86401", "1e300"])
def test_what_is_no_priority_is_refused(priority: str) -> None:
    with pytest.raises(ValueError, match=r"float|priority"):
        boost_ms(priority)


def eta(position: int, free: int = 0, boots: tuple[float, ...] = (4.0,)) -> float:
    return eta_seconds(position, free, boots, machine_lead=2.0)


def test_within_the_free_slots_one_boot_is_waited_for_beyond_them_a_machine_too() -> None:
    assert eta(1, free=1) == 4.0
    assert eta(2, free=1) == 6.0


def test_the_middle_boot_counts_not_the_odd_one_out() -> None:
    assert eta(1, free=1, boots=(3.0, 90.0, 5.0)) == 5.0


def test_before_any_boot_was_measured_there_is_a_guess() -> None:
    assert eta(1, free=1, boots=()) == FIRST_BOOT_GUESS
