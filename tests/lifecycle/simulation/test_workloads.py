"""Specifications: what they mean, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from lifecycle.simulation.spec import WorkloadError, asked, clock, number, whole, zone
from lifecycle.simulation.workloads import KINDS, workload


def test_how_a_specification_is_read() -> None:
    def parts(text: str) -> tuple[str, str, dict[str, str]]:
        found = asked(text)
        return found.name, found.file, dict(found.values)

    assert parts("rush") == ("rush", "", {})
    assert parts("diurnal:users=1500,days=2") == ("diurnal", "", {"users": "1500", "days": "2"})
    assert parts("recorded:day.csv") == ("recorded", "day.csv", {})
    assert parts("recorded:a,b.csv,zone=Europe/Berlin") == (
        "recorded",
        "a,b.csv",
        {"zone": "Europe/Berlin"},
    )
    assert parts("events:C:/day.json,days=1") == ("events", "C:/day.json", {"days": "1"})


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("diurnl", "there is no workload diurnl; did you mean diurnal? there are: bikes, bursts"),
        ("day.csv", "for a file: recorded:day.csv"),
        ("", "the workload has no name; write NAME"),
        ("diurnal:usrs=5", "diurnal: no parameter usrs; did you mean users? there are: days, returns"),
        ("diurnal:users=many", "diurnal: users=many must be a number from 1 to 1e+06"),
        ("diurnal:users=nan", "diurnal: users=nan must be"),
        ("diurnal:users=0", "diurnal: users=0 must be"),
        ("diurnal:days=1.5", "diurnal: days=1.5 must be a whole number from 1 to 31"),
        ("diurnal:users=5,users=6", "diurnal: users is given twice; leave one out"),
        ("diurnal:users=5,sessions=6", "diurnal: users and sessions say the same twice; leave one out"),
        ("diurnal:1500", "diurnal: 1500 is no parameter; write NAME=VALUE, of: users, sessions"),
        ("diurnal:sessions=5000000,days=31", "diurnal: about 156,074,561 visits are more than 5,000,000; ask for fewer"),
        ("exam:at=2d09:00", "exam: at: the exam would be after the last day; ask for more days"),
        ("exam:at=nine", "exam: at=nine must be a time such as 09:12"),
        ("recorded", "recorded: name the file, as in recorded:visits.csv"),
        ("recorded:zone=Mars/Base", "recorded: name the file"),
        ("recorded:none.csv", "none.csv: it cannot be read (no such file or directory); correct the path"),
        ("recorded:none.csv,zone=Mars", "recorded: zone=Mars must be a time zone such as Europe/Berlin"),
        ("recorded:none.csv,zone=../x", "recorded: zone=../x must be a time zone"),
        ("recorded:none.csv,day=9999-12-31", "recorded: day=9999-12-31 must be a date from 2000 to 2100"),
        ("recorded:none.csv,day=monday", "recorded: day=monday must be a date such as 2026-11-23"),
    ],
)  # fmt: skip
def test_what_is_refused(text: str, error: str) -> None:
    with pytest.raises(WorkloadError) as refused:
        workload(text, 1)
    assert error in str(refused.value)


def test_a_day_on_which_nobody_comes_is_refused() -> None:
    with pytest.raises(WorkloadError, match="poisson: nobody comes; ask for more users or days"):
        workload("poisson:sessions=1", 2)  # of this seed; others have one visit, or two
    with pytest.raises(WorkloadError, match="poisson: nobody comes; ask for more users or days"):
        workload("poisson:sessions=1", 55)  # one comes the evening before


def test_files_are_read(tmp_path: Path) -> None:
    visits, there, events = tmp_path / "v.csv", tmp_path / "there.csv", tmp_path / "day.json"
    visits.write_text("at,seconds\n1763974800,5\n")
    there.write_text("at,users\n1763974800,0\n1763978400,50\n")
    events.write_text('[{"type": "workspace.queued", "at": 1763974800000, "workspaceId": "w"}]')
    for text in (f"recorded:{visits}", f"occupancy:{there}", f"events:{events}"):
        found = workload(text, 1)
        assert found.visits
        assert found.name == text
    visits.write_bytes(b"at,seconds\n\xff\n")
    with pytest.raises(
        WorkloadError, match=r"it is no text in UTF-8 \(byte 11\); save it as UTF-8"
    ):
        workload(f"recorded:{visits}", 1)
    with pytest.raises(WorkloadError, match="it cannot be read"):
        workload(f"recorded:{tmp_path}", 1)


def test_clocks() -> None:
    assert [clock(text) for text in ("00:00", "09:12", "09:12:30", "2d00:30", "33120", "1.5")] == [
        0, 33_120, 33_150, 88_200, 33_120, 1.5,
    ]  # fmt: skip
    for text in ("9", "0d09:00", "25:00", "09:61", "", "-1", "nan"):
        if text == "9":
            assert clock(text) == 9
            continue
        with pytest.raises(ValueError, match="a time"):
            clock(text)


def test_numbers_and_zones() -> None:
    assert number(0, 1)("0.5") == 0.5
    assert whole(1, 9)("9") == 9
    assert str(zone("UTC")) == "UTC"
    for text in ("-1", "inf", "x", ""):
        with pytest.raises(ValueError, match="a number from 0 to 1"):
            number(0, 1)(text)


@pytest.mark.parametrize("name", KINDS)
def test_the_page_on_scaling_names_every_workload_and_parameter(name: str) -> None:
    page = (Path(__file__).parents[3] / "docs/scaling.md").read_text()
    assert f"`{name}" in page
    assert [p for p in KINDS[name].parameters if f"`{p}`" not in page] == []
