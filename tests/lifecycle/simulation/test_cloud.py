"""The cloud of the simulator, call by call."""

from __future__ import annotations

from math import log
from random import Random
from statistics import median, stdev

import pytest

from lifecycle.model import MachineStatus
from lifecycle.simulation.cloud import CloudModel
from lifecycle.simulation.records import Cloud
from tests.lifecycle.fakes import machine


def cloud(**about: object) -> CloudModel:
    return CloudModel(Cloud(**{"spread": 0.0, **about}), Random("1"))  # type: ignore[arg-type]


def test_machines_take_their_time() -> None:
    there = cloud(boot=90.0, start=15.0)
    assert there.launch(["a", "b"], 10.0).up == [("a", 100.0), ("b", 100.0)]
    there.stop("a")
    assert (there.instances, there.stopped) == ({"b"}, {"a"})
    assert there.start("a", 200.0) == 215.0
    assert (there.instances, there.stopped) == ({"a", "b"}, set())
    there.stop("b")
    there.terminate("a")
    there.terminate("b")
    assert (there.instances, there.stopped) == (set(), set())


def test_times_lie_around_their_median() -> None:
    there = CloudModel(Cloud(boot=60.0, spread=0.15), Random("2"))
    up = [at for _, at in there.launch([str(n) for n in range(4000)], 0.0).up]
    assert median(up) == pytest.approx(60.0, rel=0.02)
    assert stdev(log(at) for at in up) == pytest.approx(0.15, rel=0.05)


def test_a_launch_may_be_repeated() -> None:
    there = cloud(burst=1, rate=0.0)
    assert there.launch(["a"], 0.0).up == [("a", 60.0)]
    again = there.launch(["a"], 1.0)
    assert (again.up, again.refused, again.throttled) == ([], [], False)


def test_the_bucket_gives_at_once_and_fills_again() -> None:
    """Two at once, and one each 2 s; never more than two."""
    there = cloud(burst=2, rate=0.5)
    first = there.launch(["a", "b", "c"], 0.0)
    assert ([one for one, _ in first.up], first.refused, first.throttled) == (
        ["a", "b"],
        ["c"],
        True,
    )
    assert there.launch(["c"], 1.0).throttled
    assert not there.launch(["c"], 2.0).throttled
    assert [one for one, _ in there.launch(["d", "e", "f"], 100.0).up] == ["d", "e"]


@pytest.mark.parametrize("now", [-14_400.0, -1.0, 0.0, 50.0])
def test_the_bucket_is_full_whenever_the_first_asks(now: float) -> None:
    there = cloud(burst=2, rate=2.0)
    assert [one for one, _ in there.launch(["a", "b", "c"], now).up] == ["a", "b"]


def test_without_a_bucket_there_is_no_bound() -> None:
    assert len(cloud().launch([str(n) for n in range(10_000)], 0.0).up) == 10_000


def test_hours_without_capacity() -> None:
    """From the first moment until before the last one; it takes nothing from the bucket."""
    there = cloud(refusals=((10.0, 20.0), (30.0, 40.0)), burst=2, rate=0.0)
    for now in (10.0, 19.9, 30.0):
        answer = there.launch(["a"], now)
        assert (answer.no_capacity, answer.refused, answer.throttled) == (True, ["a"], False)
    assert there.instances == set()
    assert [one for one, _ in there.launch(["a", "b"], 20.0).up] == ["a", "b"]


def test_some_launches_fail_and_some_are_never_heard_of_again() -> None:
    there = cloud(fails=0.2, hangs=0.1)
    assert there.faulty
    answer = there.launch([str(n) for n in range(5000)], 0.0)
    assert len(answer.refused) / 5000 == pytest.approx(0.2, abs=0.02)
    silent = there.instances - {one for one, _ in answer.up}
    assert len(silent) / 5000 == pytest.approx(0.8 * 0.1, abs=0.015)
    assert not there.instances & set(answer.refused)


def test_what_is_seen_of_machines() -> None:
    there = cloud(hangs=1.0)
    there.launch(["a", "b"], 0.0)
    there.stop("b")
    all_three = [machine(each, MachineStatus.LAUNCHING) for each in "abc"]
    seen = {row.machine_id: row.state for row in there.describe(all_three)}
    assert seen == {"a": "launching", "b": "stopped"}
    assert there.describe([]) == []


def test_when_a_machine_is_taken_back() -> None:
    assert cloud().taken_back_at("a", 5.0) is None
    there = cloud(spot_hours=2.0)
    lives = [there.taken_back_at("a", 1000.0) or 0.0 for _ in range(4000)]
    assert min(lives) >= 1000.0 + there.notice, "there is always time to be told"
    assert sum(lives) / 4000 - 1000 == pytest.approx(7200, rel=0.06)
