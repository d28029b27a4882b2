"""Who is next?"""

from __future__ import annotations

import pytest

from lifecycle.queueing import boost_ms


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
