"""Metered time: clipped to the month, open until now, never counted twice."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifecycle.usage import (
    Interval,
    Total,
    Usage,
    month_of,
    month_window,
    pieces,
    total,
    totals,
)

ALL = (0, 10**15)


def test_nothing_was_used() -> None:
    assert total([], 100, ALL) == Usage(0, {}, 0)


def test_boots_of_a_workspace_add_up() -> None:
    rows = [Interval("w1", 1, 1000, 2000), Interval("w1", 2, 5000, 5500)]
    assert total(rows, 9000, ALL) == Usage(1500, {"w1": 1500}, 0)


def test_an_open_interval_counts_until_now() -> None:
    rows = [Interval("w1", 1, 1000, None)]
    assert total(rows, 4000, ALL) == Usage(3000, {"w1": 3000}, 1)
    assert total(rows, 900, ALL) == Usage(0, {}, 1)


def test_overlaps_of_one_workspace_count_once_and_of_two_count_both() -> None:
    rows = [
        Interval("w1", 1, 1000, 3000),
        Interval("w1", 1, 1000, 3000),
        Interval("w1", 2, 2000, 4000),
        Interval("w2", 1, 1000, 2000),
    ]
    assert total(rows, 9000, ALL) == Usage(4000, {"w1": 3000, "w2": 1000}, 0)


def test_a_lost_end_counts_until_the_next_boot_at_most() -> None:
    rows = [Interval("w1", 1, 1000, None), Interval("w1", 2, 5000, 6000)]
    assert total(rows, 90_000, ALL) == Usage(5000, {"w1": 5000}, 0)


def test_read_open_and_metered_meanwhile_counts_as_metered() -> None:
    rows = [Interval("w1", 1, 1000, None), Interval("w1", 1, 1000, 1500)]
    assert total(rows, 2000, ALL) == Usage(500, {"w1": 500}, 0)


def test_only_what_falls_into_the_window() -> None:
    rows = [Interval("w1", 1, 0, 100), Interval("w1", 2, 150, 250), Interval("w1", 3, 350, 400)]
    assert total(rows, 500, (50, 200)) == Usage(100, {"w1": 100}, 0)


def test_an_end_before_the_start_is_no_time() -> None:
    assert total([Interval("w1", 1, 500, 400)], 900, ALL).total_ms == 0


@given(
    st.lists(
        st.builds(
            Interval,
            st.sampled_from(["a", "b"]),
            st.integers(1, 4),
            st.integers(0, 50),
            st.integers(0, 50),
            st.just("running"),
            st.just(""),
            st.just(0),
        )
    )
)
def test_the_sum_is_the_number_of_covered_milliseconds(rows: list[Interval]) -> None:
    covered = {(r.workspace_id, ms) for r in rows for ms in range(r.start_ms, r.end_ms or 0)}
    assert total(rows, 60, ALL).total_ms == len(covered)


def test_month_windows_join_without_gap() -> None:
    assert month_window("2025-01") == (1_735_689_600_000, 1_738_368_000_000)
    for old, new in (("2024-02", "2024-03"), ("2024-12", "2025-01")):
        assert month_window(old)[1] == month_window(new)[0]
    assert month_of(month_window("2024-12")[1] - 1) == "2024-12"
    assert month_of(month_window("2024-12")[1]) == "2025-01"


def test_a_month_that_is_none() -> None:
    with pytest.raises(ValueError, match="2025-13"):
        month_window("2025-13")


def test_pieces_carry_what_they_are_billed_as() -> None:
    rows = [
        Interval("w1", 0, 0, 100, "stored"),
        Interval("w1", 1, 100, 400, "running", "m7i.large"),
        Interval("w1", 1, 400, None, "stored", "", 2**30),
    ]
    found = pieces(rows, 1000, (50, 600))
    assert [(p.kind, p.machine_class, p.bytes, p.milliseconds) for p in found] == [
        ("running", "m7i.large", 0, 300),
        ("stored", "", 0, 50),
        ("stored", "", 2**30, 200),
    ]
    assert total(rows, 1000, (50, 600)) == Usage(300, {"w1": 300}, 0)


def test_totals_of_everybody_come_from_sums() -> None:
    """Three run since hours 1, 1 and 4 of this month; 10 bytes are stored since the last one."""
    first = month_window("2026-11")[0]
    hour = 3_600_000
    ended = {"running/a": str(7 * hour), "stored": "5"}
    going_on = {"2026-11 running/a": "3", "2026-10 stored": "10", "2026-12 running/b": "1"}
    since = {"2026-11 running/a": str(6 * hour), "2026-10 stored": str(700 * hour)}
    rows = totals(ended, going_on, since, "2026-11", first + 5 * hour)
    assert rows == [
        Total("running", "a", Decimal((7 + 4 + 4 + 1) * hour), Decimal(3)),
        Total("running", "b", Decimal(0), Decimal(1)),  # clocks may be apart
        Total("stored", "", Decimal(5 + 10 * 5 * hour), Decimal(10)),
    ]
    assert totals({}, {}, {}, "2026-11", first) == []
