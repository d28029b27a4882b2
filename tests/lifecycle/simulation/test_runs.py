"""Many simulations, here and in processes."""

from __future__ import annotations

import multiprocessing
import os

import pytest

from lifecycle.simulation.records import Account, Workload
from lifecycle.simulation.runs import RunError, Task, Tell, run, workload_of
from tests.lifecycle.simulation import standin

SPEC = "diurnal:users=20"
TASKS = [Task(SPEC, policy, 0.1, seed) for seed in (1, 2) for policy in ("promise", "fixed")]


def dies(workload: Workload, task: Task, progress: Tell) -> Account:
    os._exit(9)


def told(accounts: list[Account]) -> list[tuple[str, int]]:
    return [(account.policy, account.seed) for account in accounts]


def test_here_and_in_processes_is_the_same() -> None:
    shares: list[float] = []
    here = run(TASKS, standin.simulate, 1, shares.append)
    assert told(here) == [("promise", 1), ("fixed", 1), ("promise", 2), ("fixed", 2)]
    assert shares == sorted(shares)
    assert shares[0] == 0.125
    assert shares[-1] == 1.0
    shares.clear()
    there = run(TASKS, standin.simulate, 2, shares.append)
    assert there == here
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert multiprocessing.active_children() == []


def test_an_error_of_a_simulation_ends_all() -> None:
    tasks = [*TASKS, Task(SPEC, "ceil", 10.0, 1)]
    for jobs in (1, 2):
        with pytest.raises(ValueError, match="cannot keep ten slots free"):
            run(tasks, standin.simulate, jobs, lambda _: None)
    assert multiprocessing.active_children() == []


def test_a_process_that_dies_is_said() -> None:
    with pytest.raises(
        RunError, match="was ended from outside, perhaps for want of memory; try fewer --jobs"
    ):
        run(TASKS[:2], dies, 2, lambda _: None)
    assert multiprocessing.active_children() == []


def test_an_interruption_ends_all_processes() -> None:
    def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(TASKS, standin.simulate, 2, interrupted)
    assert multiprocessing.active_children() == []


def test_declared_peaks_are_added() -> None:
    task = Task(
        "exam:users=20,extra=30,at=10:00", "promise", 0.1, 1, peaks=((3600.0, 70), (50_000.0, 9))
    )
    found = workload_of(task)
    assert [((peak.at_ms - found.start_ms) / 1000, peak.users) for peak in found.peaks] == [
        (3600, 70), (36_000, 30), (50_000, 9),
    ]  # fmt: skip
