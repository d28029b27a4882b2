"""Peaks in a file: what is read, what is refused and how, when those that repeat come next; what a pool cannot do."""

from __future__ import annotations

import os
import tomllib
from datetime import UTC, datetime
from pathlib import Path

import pytest

from lifecycle.peaks import SURE, Peak
from lifecycle.peaks_declared import (
    ENTRIES_MAX,
    NEXT,
    Entry,
    PeaksError,
    Reach,
    doubts,
    entries_of,
)
from lifecycle.peaks_file import PeaksFile

EXAM = '[[peak]]\nname = "exam"\nat = 2026-12-01T09:00:00+01:00\nusers = 3000\n'
LECTURE = '[[peak]]\nname = "lecture"\ncron = "0 9 * * MON-FRI"\nusers = 400\n'


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


def read(text: str) -> tuple[Entry, ...]:
    return entries_of(tomllib.loads(text))


def test_once_and_again_and_again() -> None:
    exam, lecture = read(
        EXAM + "early = 900\nlate = 60\n" + LECTURE + 'time-zone = "Europe/Berlin"'
    )
    assert exam == Entry("exam", 3000, ms("2026-12-01T08:00"), early=900, late=60)
    assert lecture == Entry("lecture", 400, cron="0 9 * * MON-FRI", zone="Europe/Berlin")
    assert (lecture.early, lecture.late) == (600, 1800)
    assert entries_of(tomllib.loads(LECTURE), "Asia/Tokyo")[0].zone == "Asia/Tokyo"
    assert read("") == ()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[peak]\nname = 'x'", "peak: must be entries that are headed [[peak]], in two brackets"),
        ("[[peaks]]\nname = 'x'", "the file: peaks: is not known; did you mean peak?"),
        ("[[peak]]\nusers = 1", "peak 1: name: must be letters, digits, _, . and -, at most 64, not nothing"),
        ("[[peak]]\nname = 'a b'", "peak 1: name: must be letters, digits, _, . and -, at most 64, not 'a b'"),
        (EXAM + EXAM, "peak 2: name: exam is the name of another one too"),
        (EXAM + "user = 5", "peak exam: user: is not known; did you mean users?"),
        (EXAM + "cron = '0 9 * * *'", "peak exam: at: say not both at and cron: "),
        ("[[peak]]\nname = 'x'\nusers = 1", "peak x: at: say when it is: at = 2026-12-01T09:00:00+01:00 for once, or cron"),
        (EXAM + "time-zone = 'UTC'", "peak exam: time-zone: is for cron; leave it out, at has its own offset"),
        (EXAM.replace("+01:00", ""), "peak exam: at: must be a time with its offset, as 2026-12-01T09:00:00+01:00, without quotes, not 2026-12-01 09:00:00"),
        (EXAM.replace("2026-12-01T09:00:00+01:00", "'tomorrow'"), "not 'tomorrow'"),
        (EXAM.replace("3000", "'many'"), "peak exam: users: must be a whole number from 1 to 1,000,000, not 'many'"),
        (EXAM.replace("3000", "0"), "peak exam: users: must be a whole number from 1 to 1,000,000, not 0"),
        (EXAM.replace("3000", "true"), "not True"),
        (EXAM + "early = -1", "peak exam: early: must be seconds from 0 to 86,400, not -1"),
        (EXAM + "late = 0", "peak exam: late: must be seconds from 1 to 86,400, not 0"),
        (EXAM + "late = nan", "peak exam: late: must be seconds from 1 to 86,400, not nan"),
        (LECTURE + "time-zone = 'Mars'", "peak lecture: time-zone: 'Mars' is no time zone: give an IANA name"),
        (LECTURE + "time-zone = 1", "peak lecture: time-zone: must be a time zone such as Europe/Berlin, not 1"),
        (LECTURE.replace("0 9", "9"), "peak lecture: cron: '9 * * MON-FRI' is no cron expression (there are not five"),
        (LECTURE.replace("* * MON-FRI", "30 2 *"), "peak lecture: cron: '0 9 30 2 *' is no cron expression (Bad day-of-month)"),
        ("[[peak]]\nname = 'x'\ncron = 5", "peak x: users: must be a whole number from 1 to 1,000,000, not nothing"),
        ("[[peak]]\nname = 'x'\nusers = 5\ncron = 5", "peak x: cron: must be a cron expression such as '0 9 * * MON-FRI', not 5"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_its_entry_and_its_field(text: str, words: str) -> None:
    with pytest.raises(PeaksError) as caught:
        read(text)
    said = str(caught.value)
    assert words in said
    assert "\n" not in said


def test_a_file_is_no_endless_list() -> None:
    rows = [EXAM.replace("exam", f"exam-{n}") for n in range(ENTRIES_MAX + 1)]
    assert len(read("".join(rows[1:]))) == ENTRIES_MAX
    with pytest.raises(PeaksError, match="101 entries; 100 are possible"):
        read("".join(rows))


def test_one_that_is_over_is_none() -> None:
    (exam,) = read(EXAM)
    assert [peak.at_ms for peak in exam.peaks(ms("2026-11-01"))] == [exam.at_ms]
    assert exam.peaks(exam.at_ms + 1_799_999) == [Peak(exam.at_ms, 3000, "exam")]
    assert exam.peaks(exam.at_ms + 1_800_000) == []


def test_one_that_repeats_is_its_next_times_by_the_clock_on_the_wall() -> None:
    lecture = Entry("lecture", 400, cron="0 9 * * MON-FRI", zone="Europe/Berlin")
    # Friday 23 October 2026; the clock is put back on Sunday.
    found = [peak.at_ms for peak in lecture.peaks(ms("2026-10-23T06:00"))]
    assert found == [ms("2026-10-23T07:00"), ms("2026-10-26T08:00"), ms("2026-10-27T08:00")]
    assert len(found) == NEXT
    open_still = lecture.peaks(ms("2026-10-23T07:29"))
    assert open_still[0].at_ms == ms("2026-10-23T07:00")
    assert lecture.peaks(ms("2026-10-23T07:30"))[0].at_ms == ms("2026-10-26T08:00")


# The file


def test_a_file_is_read_again_when_it_has_changed(tmp_path: Path) -> None:
    path = tmp_path / "peaks.toml"
    path.write_text(EXAM)
    file = PeaksFile(str(path))
    first = file.entries()
    assert file.entries() is first, "it has not changed"
    path.write_text(EXAM + LECTURE)
    assert [each.name for each in file.entries()] == ["exam", "lecture"]
    other = tmp_path / "new"
    other.write_text(LECTURE)
    os.replace(other, path)
    assert [each.name for each in file.entries()] == ["lecture"]
    assert PeaksFile("").entries() == ()


def test_a_file_that_cannot_be_used_is_named_each_time(tmp_path: Path) -> None:
    path = tmp_path / "peaks.toml"
    file = PeaksFile(str(path))
    for content, words in (
        (None, "it cannot be read (no such file or directory); correct the path, or leave --peaks"),
        (b"\xff", "it is no text in UTF-8 (byte 0)"),
        (b"[[peak]", "it is no TOML: "),
        (EXAM.replace("3000", "-1").encode(), "peak exam: users: must be a whole number"),
    ):
        if content is not None:
            path.write_bytes(content)
        for _ in range(2):
            with pytest.raises(PeaksError) as caught:
                file.entries()
            assert str(caught.value).startswith(f"{path}: {words}")
    path.write_text(EXAM)
    assert len(file.entries()) == 1


# What the pool cannot do

NINE = 9 * 3_600_000
POOL = Reach(slots=5, max_machines=1000, lead_time=80)


def test_a_pool_that_is_large_and_quick_enough() -> None:
    exam = Peak(NINE, 3000, "exam")
    assert doubts(exam, [exam], POOL, 0) == ""
    assert doubts(exam, [], POOL, exam.from_ms - int(SURE * 80_000)) == ""


def test_more_than_max_machines_by_itself_or_with_others_at_the_same_time() -> None:
    exam, quiz = Peak(NINE, 3000, "exam"), Peak(NINE + 600_000, 2500, "quiz")
    evening = Peak(NINE + 9 * 3_600_000, 4000, "evening")
    assert doubts(exam, [exam, quiz, evening], POOL, 0) == (
        "5,500 people with quiz need 1,100 machines of 5 slots, and --max-machines allows 1,000:"
        " at least 500 of them will wait; raise it"
    )
    assert doubts(evening, [exam, quiz, evening], POOL, 0) == ""


def test_sooner_than_machines_come() -> None:
    exam = Peak(NINE, 3000, "exam")
    said = doubts(exam, [exam], POOL, exam.from_ms - 60_000)
    assert said == (
        "its people may come in 1 min, and 600 machines take 1 min:"
        " who comes in the 40 s before they are there may wait"
    )
    assert doubts(exam, [exam], POOL, exam.from_ms, is_ready=True) == ""
    assert "may come now, and" in doubts(exam, [exam], POOL, exam.from_ms + 5)
    slow = Reach(5, 1000, 80, granted=100, rate=0.5)
    assert "600 machines take 18 min" in doubts(exam, [exam], slow, exam.from_ms - 60_000)
    assert doubts(exam, [exam], slow, exam.from_ms - 1_100_000) == ""
