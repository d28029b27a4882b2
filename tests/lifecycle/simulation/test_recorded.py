"""Recorded visits: what is read, what is mended and said, and what is refused, with its place."""

from __future__ import annotations

import json
from collections import Counter
from datetime import date
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from lifecycle.simulation import engine, recorded, stretch
from lifecycle.simulation.records import Workload
from lifecycle.simulation.spec import Asked, WorkloadError
from tests.lifecycle.simulation.timeline import CLOUD, trial

BERLIN = ZoneInfo("Europe/Berlin")
MONDAY_MS = 1_763_942_400_000  # 24 November 2025, 00:00 UTC


def read(text: str, **values: str) -> Workload:
    asked = Asked("recorded", "day.csv", values).read(recorded.PARAMETERS)
    return recorded.workload("mine", "day.csv", text, asked, seed=1)


def rows(workload: Workload) -> list[tuple[Any, ...]]:
    return [(v.at, v.user, v.seconds, v.priority) for v in workload.visits]


PLAIN = """at,seconds,user,priority
2025-11-24T09:00:00Z,1800,ada,vip
2025-11-24T09:05:00.250Z,60,bob,
2025-11-24T10:00:00Z,90.5,ada,batch
"""


def test_a_plain_file() -> None:
    workload = read(PLAIN)
    assert (workload.name, workload.start_ms, workload.repairs) == ("mine", MONDAY_MS, ())
    assert rows(workload) == [
        (32400.0, 0, 1800.0, "vip"), (32700.25, 1, 60.0, "normal"), (36000.0, 0, 90.5, "batch"),
    ]  # fmt: skip


def as_lines(at: Any) -> str:
    return json.dumps({"at": at, "seconds": 5}) + "\n" + json.dumps({"at": at, "seconds": 5})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (PLAIN, ""),
        (PLAIN.replace(",", ";"), ""),
        (PLAIN.replace(",", "\t"), ""),
        ("\ufeff" + PLAIN.replace("\n", "\r\n"), ""),
        ("# of a Monday\n\n" + PLAIN, ""),
        ('at,seconds,user\n"2025-11-24T09:00:00Z","5","Lovelace, ""Ada"""', ""),
        ("at,until\n2025-11-24T09:00:00Z,2025-11-24T09:00:05Z", ""),
        ("at,seconds\n1763974800,5", "times were read as seconds since 1970"),
        ("at,seconds\n1763974800000,5", "times were read as milliseconds since 1970"),
        (as_lines(1_763_974_800), "times were read as seconds since 1970"),
        (as_lines("2025-11-24T09:00:00Z"), ""),
        (f"[{as_lines('2025-11-24T09:00:00Z')}]".replace("}\n{", "},\n{"), ""),
        ("at,seconds\n2025-11-24 09:00,5", "1 time without a zone was read as UTC (zone=… says otherwise)"),
        ("at\n2025-11-24T09:00:00Z", "it does not say how long people stayed: stays are drawn (stay=, sigma=)"),
        ("2025-11-24T09:00:00Z\n2025-11-24T09:01:00Z", "it does not say how long people stayed: stays are drawn (stay=, sigma=)"),
        ("at,seconds,mood\n2025-11-24T09:00:00Z,5,good", "columns that are not used: mood"),
        ("at,seconds\n2025-11-24T09:00:00Z,0", "1 stay of less than a second was taken as one second"),
        ("at,seconds\n2025-11-24T09:05:00Z,5\n2025-11-24T09:00:00Z,5", "1 row was out of order and was sorted"),
        (
            "at,seconds,user\n2025-11-24T09:00:00Z,600,ada\n2025-11-24T09:05:00Z,600,ada",
            "1 visit overlapped another of the same user and was taken as one with it",
        ),
    ],
)  # fmt: skip
def test_what_is_read_and_what_is_said_of_it(text: str, said: str) -> None:
    workload = read(text)
    assert workload.repairs == ((said,) if said else ())
    assert workload.visits[0].at == 32400.0
    assert all(visit.seconds >= 1 for visit in workload.visits)
    assert workload.start_ms == MONDAY_MS


def test_overlapping_visits_of_a_user_are_one() -> None:
    text = "at,seconds,user\n2025-11-24T09:00:00Z,600,ada\n2025-11-24T09:05:00Z,600,ada\n"
    assert rows(read(text)) == [(32400.0, 0, 900.0, "normal")]


HEAD = "at,seconds,user,priority\n"
NINE = "2025-11-24T09:00:00Z"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "day.csv:1:1: there is nothing in it; it needs a header and rows"),
        ("# nothing\n", "day.csv:1:1: there are only comments in it; it needs a header and rows"),
        (HEAD, "day.csv:1:1: there are no rows in it; each visit needs one"),
        ("[]", "there is no column at"),
        (
            '{"type": "gateway.lost", "at": 1763942400000}\n{"at": 1763942400001, "type": "session.opened", "workspaceId": "w"}',
            "day.csv:2:31: it is an event of GET /api/events, and no visit; is it an events: file?",
        ),
        ("when,seconds\n1,2", "day.csv:1:1: there is no column at; known ones are at, seconds, until, user, priority"),
        ("at,secnods\n1,2", "day.csv:1:1: column secnods: did you mean seconds? rename it, or remove it"),
        ("at,at\n1,2", "day.csv:1:1: two columns are named at; rename one"),
        (f"{HEAD}{NINE},5\n", "day.csv:2:23: 2 values, but 4 columns; complete the row or take it out"),
        (f'{HEAD}{NINE},"5,a,b\n', "day.csv:2:22: a quotation mark is not closed; close it"),
        (f"{HEAD}{NINE},-5,,\n", "day.csv:2:22: a stay of -5.000 s ends before it begins; correct it"),
        (f"{HEAD}{NINE},31536000,,\n", "day.csv:2:22: a stay of 365 days is longer than 7; correct it"),
        (f"{HEAD}{NINE},NaN,,\n", "day.csv:2:22: seconds must be a number, not 'NaN'; correct it"),
        (f"{HEAD}{NINE},inf,,\n", "day.csv:2:22: seconds must be a number, not 'inf'; correct it"),
        (f"{HEAD}{NINE},,,\n", "day.csv:2:22: it says neither seconds nor until; give one, or take the row out"),
        (f"{HEAD}{NINE},5,,urgent\n", "day.csv:2:25: priority must be vip, normal, batch or seconds, not 'urgent'"),
        (f"{HEAD}{NINE},5,,nan\n", "day.csv:2:25: priority must be"),
        (f"at,until\n{NINE},2025-11-24T08:00:00Z\n", "day.csv:2:22: a stay of -3,600.000 s ends before it begins"),
        (f"{HEAD}yesterday,5,,\n", 'day.csv:2:1: "yesterday" is no time; write it as'),
        (f"{HEAD}2025-13-01T00:00:00Z,5,,\n", 'day.csv:2:1: "2025-13-01T00:00:00Z" is no date and time'),
        (f"{HEAD}1970-01-01T00:00:00Z,5,,\n", 'day.csv:2:1: "1970-01-01T00:00:00Z" is no time from 2000 to 2100'),
        (f"{HEAD}2500-01-01T00:00:00Z,5,,\n", 'day.csv:2:1: "2500-01-01T00:00:00Z" is no time from 2000 to 2100'),
        (f"{HEAD}3600,5,,\n", 'day.csv:2:1: "3600" is no time from 2000 to 2100 in seconds or milliseconds'),
        (f"{HEAD}1e300,5,,\n", 'day.csv:2:1: "1e300" is no time from 2000 to 2100'),
        (f"{HEAD},5,,\n", 'day.csv:2:1: "" is no time'),
        (
            f"{HEAD}1763974800,5,,\n1763974800000,5,,\n",
            "day.csv:3:1: this time is written as milliseconds since 1970, those before it as seconds since 1970",
        ),
        ('{"at": 1763974800, "seconds": 5}\n{"at": 17', "day.csv:2:10: it is no JSON (expecting ',' delimiter)"),
        ('{"at": 1763974800, "seconds": NaN}', "day.csv:1:1: NaN is no number; take the row out"),
        ('{"at": 1763974800, "seconds": "soon"}', "day.csv:1:31: seconds must be a number, not 'soon'; correct it"),
        ('{"at": 1763974800, "seconds": true}', "day.csv:1:31: seconds must be a number, not True; correct it"),
        ('{"at": [1], "seconds": 5}', "day.csv:1:8: [1] is no time"),
        ('{"seconds": 5, "at": true}', "day.csv:1:22: True is no time"),
        ('{"at": 1763974800, "seconds": 5, "user": {}}', "day.csv:1:42: a user must be text or a number, not {}"),
        ('{"at": 1763974800, "seconds": 5}\n7', "day.csv:2:1: a row must be an object"),
        ('[{"at": 1763974800, "seconds": 5}', "day.csv:1:1: the array has no end; was all of it written?"),
        ("[" * 100_000, "day.csv:1:"),
    ],
)  # fmt: skip
def test_what_is_refused(text: str, error: str) -> None:
    with pytest.raises(WorkloadError) as refused:
        read(text)
    assert error in str(refused.value)


def test_a_gap_is_said() -> None:
    minutes = [*range(0, 300, 10), *range(600, 900, 10)]
    text = "at,seconds\n" + "".join(f"{1_763_942_400 + 60 * m},60\n" for m in minutes)
    assert read(text).repairs[-1] == "a gap of 5.2 h from 2025-11-24 04:50 has no arrivals"


DAYS = "at,seconds\n2025-11-24T09:00:00Z,5\n2025-11-25T10:00:00Z,5\n2025-11-26T11:00:00Z,5\n"


def test_a_day_is_chosen() -> None:
    tuesday = read(DAYS, day="2025-11-25")
    assert ([v.at for v in tuesday.visits], tuesday.start_ms) == ([36000.0], MONDAY_MS + 86_400_000)
    assert [v.at for v in read(DAYS, day="2025-11-25", days="2").visits] == [36000.0, 126_000.0]
    assert [v.at for v in read(DAYS, days="1").visits] == [32400.0]
    assert len(read(DAYS).visits) == 3


def test_an_empty_day_and_too_many_days_are_refused() -> None:
    with pytest.raises(
        WorkloadError,
        match=r"day.csv: nothing happened on 2025-11-27; it has 2025-11-24 to 2025-11-26",
    ):
        read(DAYS, day="2025-11-27")
    long = DAYS + "2026-11-24T09:00:00Z,5\n"
    with pytest.raises(
        WorkloadError,
        match=r"it has 366 days, 2025-11-24 to 2026-11-24; choose at most 31, as in day=2025-11-24,days=7",
    ):
        read(long)


EVENING = """at,seconds,user
2025-11-24T12:00:00Z,43200,eve
2025-11-24T12:00:00Z,43260,fay
2025-11-24T19:59:59Z,60,ada
2025-11-24T20:00:00Z,60,bob
2025-11-24T23:30:00Z,3600,cyd
2025-11-25T00:00:00Z,60,dan
2025-11-25T10:00:00Z,60,cyd
"""


def test_the_evening_before_comes_first() -> None:
    """From eight on, and who had come before and leaves after midnight: of two since noon only the one until 00:01."""
    tuesday = read(EVENING, day="2025-11-25")
    assert [row[:3] for row in rows(tuesday)] == [
        (-14_400.0, 0, 14_460.0), (-14_400.0, 1, 60.0), (-1800.0, 2, 3600.0), (0.0, 3, 60.0), (36_000.0, 2, 60.0),
    ]  # fmt: skip
    assert tuesday.start_ms == MONDAY_MS + 86_400_000
    assert tuesday.repairs == (
        "the evening before (3 visits since 2025-11-24 20:00) fills the pool and is not counted",
    )
    both = read(EVENING)
    assert (len(both.visits), both.visits[0].at, both.repairs) == (7, 43_200.0, ())


def test_the_evening_before_is_not_counted() -> None:
    """Three workspaces run at midnight on a machine of five slots that is there: who comes then does not wait, who
    comes at ten does, two seconds for a decision and 60 for a boot. Those two are all arrivals."""
    account = engine.simulate(read(EVENING, day="2025-11-25"), CLOUD, trial())
    assert (account.visits, account.arrivals, account.waits) == (2, 2, [62.0])
    assert account.hours == {0: (1, 0), 10: (1, 1)}
    assert account.samples[0].at == -14_400


def test_an_evening_is_no_day() -> None:
    late = "at,seconds,user\n2025-11-24T09:00:00Z,5,ada\n2025-11-24T23:00:00Z,7200,ada\n"
    with pytest.raises(WorkloadError, match=r"day.csv: nothing happened on 2025-11-25; it has"):
        read(late, day="2025-11-25")
    with pytest.raises(
        WorkloadError,
        match="mine: nobody came from 2025-11-25 00:00 on who was not there already; choose another day",
    ):
        read(late + "2025-11-25T00:30:00Z,60,ada\n", day="2025-11-25")


@pytest.mark.parametrize(
    ("day", "begins"),
    [
        ("2025-03-30", "2025-03-29 20:00"),  # the clock goes from 00:00 to 01:00
        ("2025-10-26", "2025-10-25 21:00"),  # it shows 23:00 to 24:00 twice
    ],
)
def test_an_evening_has_four_hours_whatever_the_clock_does(day: str, begins: str) -> None:
    eve = begins[:10]
    times = [f"{eve}T{at}Z" for at in ("17:59:59", "18:00:00", "21:59:59", "22:00:00")]
    found = read(
        "at,seconds\n" + "".join(f"{time},5\n" for time in times), zone="Asia/Beirut", day=day
    )
    assert [visit.at for visit in found.visits] == [-14_400.0, -1.0, 0.0]
    assert found.repairs[-1].startswith(f"the evening before (2 visits since {begins}) fills")


def test_gaps_are_of_the_days_themselves() -> None:
    minutes = [-240, *range(0, 300, 10), *range(600, 900, 10)]
    text = "at,seconds\n" + "".join(f"{1_763_942_400 + 60 * m},60\n" for m in minutes)
    assert read(text, day="2025-11-24").repairs[1:] == (
        "the evening before (1 visit since 2025-11-23 20:00) fills the pool and is not counted",
        "a gap of 5.2 h from 2025-11-24 04:50 has no arrivals",
    )


def berlin(*times: str) -> Workload:
    return read("at,seconds\n" + "".join(f"{time},5\n" for time in times), zone="Europe/Berlin")


def test_the_hour_that_the_clock_shows_twice() -> None:
    workload = berlin(
        "2025-10-26T01:30",
        "2025-10-26T02:10",
        "2025-10-26T02:50",
        "2025-10-26T02:05",
        "2025-10-26T03:00",
    )
    assert [v.at for v in workload.visits] == [5400.0, 7800.0, 10200.0, 11100.0, 14400.0]
    assert (
        "3 times lie in the hour that the clock of Europe/Berlin showed twice"
        in workload.repairs[1]
    )
    assert not any("out of order" in said for said in workload.repairs)


def test_the_hour_that_the_clock_skips() -> None:
    workload = berlin("2025-03-30T01:30", "2025-03-30T02:30", "2025-03-30T03:45")
    assert [v.at for v in workload.visits] == [5400.0, 9000.0, 9900.0]
    assert workload.repairs[-2:] == (
        "1 time lies in the hour that the clock of Europe/Berlin skipped: taken an hour later",
        "2025-03-30 has 23 hours, as clocks change: times such as 09:12 count hours since midnight, on it and after it",
    )


def test_days_begin_where_times_say() -> None:
    there = read("at,seconds\n2025-11-24T00:30:00+01:00,5\n")
    assert (there.visits[0].at, there.start_ms) == (1800.0, MONDAY_MS - 3_600_000)
    berlin = read("at,seconds\n2025-11-23T23:30:00Z,5\n", zone="Europe/Berlin")
    assert (berlin.visits[0].at, berlin.start_ms) == (1800.0, MONDAY_MS - 3_600_000)


def test_a_day_with_25_hours() -> None:
    text = "at,seconds\n2025-10-26T00:00:00+02:00,5\n2025-10-26T23:30:00+01:00,5\n"
    found = read(text, zone="Europe/Berlin", day="2025-10-26")
    assert [v.at for v in found.visits] == [0.0, 24.5 * 3600]
    assert "2025-10-26 has 25 hours, as clocks change" in found.repairs[-1]
    around = stretch.chosen([found.start_ms - 1, found.start_ms], BERLIN, date(2025, 10, 24), 4, "")
    assert [said.partition(",")[0] for said in stretch.odd(around)] == ["2025-10-26 has 25 hours"]


def test_stays_are_drawn_from_the_seed() -> None:
    text = "at\n" + "".join(f"{1_763_974_800 + n}\n" for n in range(2000))
    first, again = read(text), read(text)
    assert rows(first) == rows(again)
    mean = sum(v.seconds for v in first.visits) / 2000
    assert 2200 < mean < 2700
    short = read(text, stay="60", sigma="0.1")
    assert 58 < sum(v.seconds for v in short.visits) / 2000 < 62


def busy(**values: str) -> Workload:
    """400 people, each twice, over eight hours; and one of the evening before."""
    days = [(-60, "early", 120)] + [
        (9 * 3600 + n * 36 + part * 14_400, f"u{n}", 900) for n in range(400) for part in (0, 1)
    ]
    text = "at,seconds,user\n" + "".join(
        f"{MONDAY_MS // 1000 + at},{seconds},{user}\n" for at, user, seconds in days
    )
    return read(text, day="2025-11-24", **values)


def test_a_day_with_more_people() -> None:
    plain, more = busy(), busy(times="1.5")
    assert rows(more) == rows(busy(times="1.5")), "a seed's copies are the same each time"
    users = Counter(visit.user for visit in more.visits)
    assert abs(len(users) - 600) < 45
    assert users.keys() >= {visit.user for visit in plain.visits}
    assert set(plain.visits) <= set(more.visits), "who was there comes as before"
    copies = [visit for visit in more.visits if visit.user > max(v.user for v in plain.visits)]
    assert {visit.seconds for visit in copies} <= {900, 120}
    times = sorted(visit.at for visit in plain.visits)
    near = [min(abs(visit.at - at) for at in times) for visit in copies]
    assert max(near) <= 600
    assert (
        "1.5 times as many users; copies come up to 10 minutes earlier or later, drawn for each seed"
        in more.repairs
    )
    assert not [said for said in plain.repairs if "times as many" in said]


def test_a_day_with_fewer_people() -> None:
    plain, fewer = busy(), busy(times="0.25")
    assert set(fewer.visits) < set(plain.visits)
    by_user = Counter(visit.user for visit in fewer.visits)
    assert abs(len(by_user) - 100) < 35
    assert set(by_user.values()) <= {1, 2}
    assert "0.25 times as many users, drawn for each seed" in fewer.repairs


def test_copies_stay_within_the_day() -> None:
    moments = (MONDAY_MS // 1000, MONDAY_MS // 1000 + 86_399)
    text = "at,seconds,user\n" + "".join(f"{at},60,u{at}\n" for at in moments)
    found = read(text, times="200")
    assert len(found.visits) == 400
    assert -600 <= found.visits[0].at < 0 < found.visits[-1].at < 86_400
    at_once = Counter(round(visit.at) for visit in found.visits).most_common(1)[0][1]
    assert at_once < 10, "those who would come after its end do not all come at its last moment"


def test_copies_of_somebody_keep_the_times_between_their_visits() -> None:
    """Half a minute without a connection, as events tell of it: moved one by one, they would overlap."""
    moments = [MONDAY_MS // 1000 + 32_400 + n * 630 for n in range(3)]
    text = "at,seconds,user\n" + "".join(f"{at},600,ada\n" for at in moments)
    by_user: dict[int, list[float]] = {}
    for visit in read(text, times="50").visits:
        assert visit.seconds == 600
        by_user.setdefault(visit.user, []).append(visit.at)
    assert len(by_user) == 50
    for first, second, third in by_user.values():
        assert (second - first, third - second) == pytest.approx((630, 630))


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ({"times": "0"}, "times=0 must be a number from 0.01 to 1,000"),
        ({"times": "0.01"}, "mine: of 0.01 times its users nobody comes; raise times="),
        (
            {"times": "1000"},
            "mine: 1000 times its 8,000 visits are more than 5,000,000; ask for fewer times or days",
        ),
    ],
)
def test_too_many_people_and_nobody(values: dict[str, str], error: str) -> None:
    many = 8000 if values["times"] == "1000" else 1
    text = "at,seconds\n" + "".join(f"{MONDAY_MS // 1000 + n},60\n" for n in range(many))
    with pytest.raises(WorkloadError) as refused:
        read(text, **values)
    assert error in str(refused.value)
