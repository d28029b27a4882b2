"""Cron expressions over the days on which clocks are changed: Berlin's on 29 March and 25 October 2026."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest

from lifecycle.schedule import check, matches, next_change, next_time

BERLIN = "Europe/Berlin"


def at(text: str) -> int:
    """ "2026-03-29 01:00" in UTC."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


def test_a_minute_is_one_of_them_by_the_clock_on_the_wall() -> None:
    night = "* 22-23,0-5 * * *"
    assert not matches(night, BERLIN, at("2026-01-10 20:59:59"))
    assert matches(night, BERLIN, at("2026-01-10 21:00"))
    assert matches(night, BERLIN, at("2026-07-10 20:00"))
    assert not matches(night, BERLIN, at("2026-07-10 04:00"))


def test_quiet_hours_begin_and_end() -> None:
    night = "* 22-23,0-5 * * *"
    assert next_change(night, BERLIN, at("2026-01-10 12:00:30")) == at("2026-01-10 21:00")
    assert next_change(night, BERLIN, at("2026-01-10 21:00")) == at("2026-01-11 05:00")
    assert next_change("15-44 9 * * SAT", "UTC", at("2026-01-11 00:00")) == at("2026-01-17 09:15")
    assert next_change("* * * * *", "UTC", at("2026-01-11 00:00")) is None


def test_quiet_hours_over_a_change_of_the_clock() -> None:
    forward, back = at("2026-03-28 22:00"), at("2026-10-24 22:00")
    assert next_change("* 0-5 * * *", BERLIN, at("2026-03-28 23:00")) == at("2026-03-29 04:00")
    assert next_change("* 0-5 * * *", BERLIN, back) == at("2026-10-25 05:00")
    # The hour from two to three is left out, and comes twice.
    assert next_change("* 2 * * *", BERLIN, forward) == at("2026-03-30 00:00")
    assert next_change("* 2 * * *", BERLIN, back) == at("2026-10-25 00:00")
    assert next_change("* 2 * * *", BERLIN, at("2026-10-25 00:00")) == at("2026-10-25 02:00")
    # Lord Howe puts its clock back by half an hour: from two to half past one.
    assert next_change("* 2 * * *", "Australia/Lord_Howe", at("2026-04-04 14:45")) == at(
        "2026-04-04 15:30"
    )


def test_a_start_happens_once_whatever_the_clock_does() -> None:
    daily = "30 2 * * *"
    assert next_time(daily, BERLIN, at("2026-03-28 12:00")) == at("2026-03-29 01:00")
    assert next_time(daily, BERLIN, at("2026-10-24 12:00")) == at("2026-10-25 00:30")
    assert next_time(daily, BERLIN, at("2026-10-25 00:30")) == at("2026-10-26 01:30")
    assert next_time(daily, BERLIN, at("2026-10-25 01:10")) == at("2026-10-26 01:30")
    assert next_time("0 8 * * MON-FRI", "UTC", at("2026-11-20 08:00")) == at("2026-11-23 08:00")


@pytest.mark.parametrize(
    ("expression", "zone", "words"),
    [
        ("0 7 * *", "UTC", "'0 7 * *' is no cron expression"),
        ("0 0 7 * * *", "UTC", "give minute, hour, day of the month"),
        ("0 25 * * *", "UTC", "(Bad hour)"),
        ("0 0 30 2 *", "UTC", "(Bad day-of-month)"),
        ("0 7 * * *", "Mars/Olympus", "'Mars/Olympus' is no time zone: give an IANA name"),
        ("0 7 * * *", "../etc/passwd", "is no time zone"),
        ("0 7 * * *", "", "is no time zone"),
    ],
)
def test_what_cannot_be_used_is_said_in_words(expression: str, zone: str, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        check(expression, zone)
