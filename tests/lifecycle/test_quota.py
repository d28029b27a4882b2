"""What is left of a quota, and whom to tell."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lifecycle.plans import Quota
from lifecycle.quota import (
    HOUR_MS,
    Taken,
    alert_words,
    alerts,
    next_look_ms,
    standings,
    used_up,
    words,
)

NOON = 1_795_521_600_000  # 2026-11-24 12:00 UTC
MIDNIGHT, FIRST = NOON + 12 * HOUR_MS, 1_796_083_200_000
QUOTA = Quota(workspaces=5, running=2, hours_a_day=8, hours_a_month=100)


def taken(day: float = 0, month: float = 0, counting: int = 1, **told: str) -> Taken:
    """Hours of the day and the month."""
    return Taken(
        NOON, 3, 2, 7, counting, int(day * HOUR_MS), int(month * HOUR_MS), MIDNIGHT, FIRST,
        ("d20781", "m2026-11"), told,
    )  # fmt: skip


def test_every_quota_says_how_much_is_used_and_when_it_frees() -> None:
    rows = {row.quota: row for row in standings(QUOTA, taken(3.999, 42))}
    assert (rows["workspaces"].used, rows["workspaces"].allowed) == (3, 5)
    assert (rows["running"].used, rows["running"].frees_at_ms) == (2, None)
    assert rows["sessions"].used == 7
    assert (rows["hours_a_day"].used, rows["hours_a_day"].frees_at_ms) == (3.99, MIDNIGHT)
    assert (rows["hours_a_month"].used, rows["hours_a_month"].frees_at_ms) == (42, FIRST)


def test_a_day_of_alerts() -> None:
    told: list[str] = []
    marks: dict[str, str] = {}
    for minute in range(12 * 60):
        for alert in alerts(QUOTA, taken(minute / 60, **marks)):
            told.append(f"{minute / 60:g} {alert.standing.quota} {alert.threshold}")
            marks[alert.standing.quota] = alert.mark
    assert told == ["6 hours_a_day 75", "7.2 hours_a_day 90", "8 hours_a_day 100"]
    tomorrow = replace(taken(6.5, **marks), periods=("d20782", "m2026-11"))
    assert [alert.threshold for alert in alerts(QUOTA, tomorrow)] == [75]


def test_who_leaps_over_thresholds_hears_of_the_highest_and_who_is_unbounded_of_none() -> None:
    assert [a.threshold for a in alerts(QUOTA, taken(7.5, 99))] == [90, 90]
    assert alerts(Quota(), taken(23, 700)) == []
    assert not used_up(Quota(), taken(23, 700))


def test_hours_are_used_up_to_the_millisecond() -> None:
    at = taken(8)
    assert used_up(QUOTA, at)
    assert not used_up(QUOTA, replace(at, day_ms=at.day_ms - 1))
    assert used_up(QUOTA, taken(0, 100))


@pytest.mark.parametrize(
    ("day", "month", "counting", "hours_from_noon"),
    [
        (0, 0, 1, 6),  # 75 % of 8 h
        (0, 0, 3, 2),  # three side by side: three times as fast
        (6, 10, 1, 1.2),  # told; 90 % is next
        (1, 74, 1, 1),  # 75 % of the month comes before 75 % of the day
        (8, 20, 2, 12),  # used up: free again at midnight
        (0, 0, 0, None),  # nothing runs, nothing changes
    ],
)
def test_the_next_look_is_when_something_changes(
    day: float, month: float, counting: int, hours_from_noon: float | None
) -> None:
    expected = None if hours_from_noon is None else NOON + int(hours_from_noon * HOUR_MS)
    assert next_look_ms(QUOTA, taken(day, month, counting)) == expected


def test_words_say_which_how_much_and_until_when() -> None:
    assert "5 of 5 workspaces" in words("workspaces", 5, 5)
    assert "stop one first" in words("running", 2, 2)
    day = words("hours_a_day", 8, 8, MIDNIGHT, 12 * 3600)
    assert "8 of 8 running hours" in day
    assert "at 00:00 UTC on 25 November (in 12 h)" in day
    assert "at 00:00 UTC on 1 December" in words("hours_a_month", 100, 100, FIRST, 561_600)
    assert "try again in 3 s" in words("start_rate", 30, 30, NOON, 2.1)
    alert = alerts(QUOTA, taken(8))[0]
    assert "8 of today's 8 running hours are used: what runs is stopped" in alert_words(alert)
