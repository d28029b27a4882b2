"""Pictures: each is there, is whole, and is the same each time."""

from __future__ import annotations

import warnings
from pathlib import Path
from xml.etree import ElementTree

import pytest

from lifecycle.simulation.records import Visit, Workload
from lifecycle.simulation.runs import Task
from lifecycle.simulation.summary import Summary, summaries
from tests.lifecycle.simulation import standin

pytest.importorskip("matplotlib")


def rows() -> list[Summary]:
    workload = Workload("mine", [Visit(float(n), n, 60) for n in range(1000)], 0)
    asked = [("promise", 0.001), ("promise", 0.1), ("fixed", None)]
    accounts = [
        standin.simulate(workload, Task("", policy, figure, seed), lambda _: None)
        for policy, figure in asked
        for seed in (1, 2)
    ]
    return summaries(accounts)


def test_pictures_are_whole_and_the_same_each_time(tmp_path: Path) -> None:
    from lifecycle.simulation.plots import draw

    found = rows()
    first = draw(found, found[1:], 5, tmp_path / "a" / "b")
    again = draw(found, found[1:], 5, tmp_path / "again")
    assert [path.name for path in first] == ["warm.svg", "waits.svg", "day.svg"]
    for one, other in zip(first, again, strict=True):
        assert one.read_bytes() == other.read_bytes()
        assert ElementTree.parse(one).getroot().tag.endswith("svg")
    texts = [path.read_text() for path in first]
    assert "arrivals that wait" in texts[0]
    assert "promise 0.1" in texts[1]
    assert "slots ready" in texts[2]


def test_nobody_who_waits_and_no_sample_is_no_error(tmp_path: Path) -> None:
    from dataclasses import replace

    from lifecycle.simulation.plots import draw

    quiet = [Summary([replace(row.accounts[0], waits=[], samples=())]) for row in rows()]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(draw(quiet, quiet, 5, tmp_path)) == 3
