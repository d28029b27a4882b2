"""How many were there, as arrivals."""

from __future__ import annotations

import pytest

from lifecycle.simulation import occupancy
from lifecycle.simulation.records import Workload
from lifecycle.simulation.spec import Asked, WorkloadError

NINE = 1_763_974_800


def read(text: str, **values: str) -> Workload:
    asked = Asked("occupancy", "there.csv", values).read(occupancy.PARAMETERS)
    return occupancy.workload("mine", "there.csv", text, asked, 1)


def there(workload: Workload, at: float) -> int:
    return sum(visit.at <= at < visit.at + visit.seconds for visit in workload.visits)


def series(*people: float, step: int = 3600, column: str = "users") -> str:
    return f"at,{column}\n" + "".join(f"{NINE + n * step},{p}\n" for n, p in enumerate(people))


def test_people_are_there_as_it_says() -> None:
    workload = read(series(0, 400, 900, 800, 600, 500))
    for hour, people in ((10, 400), (11, 900), (12, 800), (13, 600)):
        assert abs(there(workload, hour * 3600) - people) < 4 * people**0.5
    assert workload.repairs == ("times were read as seconds since 1970",)
    assert read(series(0, 400, 900, 800, 600, 500)).visits == workload.visits


def test_it_is_scaled_to_its_highest_value() -> None:
    workload = read(series(0, 4, 9, 8, column="count"), users="900")
    assert abs(there(workload, 11 * 3600) - 900) < 120


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (series(50, 60, 55), "nobody is there before 2025-11-24 09:00: who was, 50, comes until the next moment"),
        (series(0, 90, 0, 1, step=600), "at 2 of its moments it falls faster than people leave"),
        (series(0, 9, 8).replace(str(NINE + 7200), str(NINE - 3600)), "1 row was out of order and was sorted"),
        (
            "at,users\n" + "".join(f"{NINE + n * 3600},{n}\n" for n in (0, 1, 2, 3, 9)),
            "a gap of 6.0 h from 2025-11-24 12:00: people are taken to come evenly in it",
        ),
        ("at,users,capacity,weather\n" + f"{NINE},0,9,dry\n{NINE + 3600},5,9,wet\n", "columns that are not used: weather"),
    ],
)  # fmt: skip
def test_what_is_said(text: str, said: str) -> None:
    assert any(repair.startswith(said) for repair in read(text).repairs)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (series(1), "there.csv:1:1: it needs two rows at least"),
        (series(1, -8), "there.csv:3:12: users must be from 0 to 1,000,000, not -8; correct it"),
        (series(1, 1e9), "there.csv:3:12: users must be from 0 to 1,000,000"),
        ("at,users\n5,nan\n6,1", 'there.csv:2:1: "5" is no time'),
        (
            f"at,users\n{NINE},nan\n",
            "there.csv:2:12: users must be a number, not 'nan'; correct it",
        ),
        (f"at,people\n{NINE},1\n", "there.csv:1:1: there is no column users"),
        (
            f"at,user\n{NINE},1\n",
            "there.csv:1:1: column user: did you mean users? rename it, or remove it",
        ),
        (
            f"at,users\n{NINE},1\n{NINE},2\n",
            "there.csv:3:1: line 2 is of the same moment; keep one of them",
        ),
        (series(0, 0, 0), "nobody is there from 2025-11-24 00:00 on; choose another day"),
    ],
)
def test_what_is_refused(text: str, error: str) -> None:
    with pytest.raises(WorkloadError) as refused:
        read(text)
    assert error in str(refused.value)


def hourly(since: int, *people: float) -> str:
    return "at,users\n" + "".join(
        f"{NINE + (since + n) * 3600},{p}\n" for n, p in enumerate(people)
    )


def test_the_evening_before_comes_first() -> None:
    """400 are there from six in the evening until two in the night: none comes before eight, 400 are there at midnight."""
    found = read(hourly(9, *[400.0] * 9), day="2025-11-25")
    assert -14_400 <= found.visits[0].at < -14_300
    for hour in (-1, 0, 1, 2):
        assert abs(there(found, hour * 3600) - 400) < 80
    early = sum(visit.at < 0 for visit in found.visits)
    assert found.repairs[1:] == (
        "nobody is there before 2025-11-24 20:00: who was, 400, comes until the next moment",
        f"the evening before ({early:,} visits since 2025-11-24 20:00) fills the pool and is not counted",
    )


def test_users_are_those_of_the_days_themselves() -> None:
    """The evening had five times as many as the day."""
    evening, night = (5000, 5000, 5000, 4000, 2500), (1000, 500, 500, 1000, 900)
    found = read(hourly(10, *evening, *night), day="2025-11-25", users="300")
    assert abs(there(found, 3 * 3600) - 300) < 70
    assert there(found, -2 * 3600) > 1000


def test_an_evening_is_no_day() -> None:
    with pytest.raises(WorkloadError, match="nobody is there from 2025-11-25 00:00 on"):
        read(hourly(12, 90, 50, 0, 0, 0), day="2025-11-25")


def test_hours_over_a_clock_change() -> None:
    hours = ["00:00", "01:00", "02:00", "02:00", "03:00"]
    text = "at,users\n" + "".join(f"2025-10-26T{hour},{n * 9}\n" for n, hour in enumerate(hours))
    workload = read(text, zone="Europe/Berlin")
    assert (
        "2 times lie in the hour that the clock of Europe/Berlin showed twice"
        in workload.repairs[1]
    )
    assert (
        max(visit.at for visit in workload.visits) > 3.5 * 3600
    )  # the fifth row is four hours after the first
