"""Many simulations, several at a time, each in a process. Errors: RunError."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, MutableSequence, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from multiprocessing.connection import wait as wait_for
from typing import Protocol

from lifecycle.peaks import Peak
from lifecycle.simulation import workloads
from lifecycle.simulation.records import Account, Cloud, Workload
from lifecycle.simulation.settings import Settings

LOOK = 0.25  # seconds between two looks at how far they are


class RunError(Exception):
    """A process of simulations has ended without a result. str(error) says what to do."""


@dataclass(frozen=True, slots=True)
class Task:
    """One simulation, and all that it depends on. workload: its specification. peaks: (seconds since the day began,
    users), declared beside those of the workload. explain: the moment that is asked about."""

    workload: str
    policy: str
    figure: float | None
    seed: int
    cloud: Cloud = field(default_factory=Cloud)
    settings: Settings = field(default_factory=Settings)
    peaks: tuple[tuple[float, int], ...] = ()
    explain: float | None = None


Tell = Callable[[float], None]
"""How much is done, from 0 to 1."""


class Simulate(Protocol):
    """A function of a module: processes find it by its name."""

    def __call__(self, workload: Workload, task: Task, progress: Tell) -> Account: ...


class Policy(Protocol):
    """means: what its one figure is, in words; default: of it (None: it has none); sweep: those that are worth
    comparing; bounds: the least and the most that it can be."""

    @property
    def means(self) -> str: ...
    @property
    def default(self) -> float | None: ...
    @property
    def sweep(self) -> Sequence[float]: ...
    @property
    def bounds(self) -> tuple[float, float]: ...


@dataclass(frozen=True, slots=True)
class Simulator:
    """What can be simulated, and how."""

    policies: Mapping[str, Policy]
    simulate: Simulate


def workload_of(task: Task) -> Workload:
    """Its visits, with all peaks. Raises WorkloadError."""
    found = _made(task.workload, task.seed)
    declared = (Peak(found.start_ms + round(at * 1000), users) for at, users in task.peaks)
    return replace(found, peaks=tuple(sorted((*found.peaks, *declared), key=lambda p: p.at_ms)))


@lru_cache(maxsize=1)  # tasks come by seed: all policies of a seed have the same visits
def _made(text: str, seed: int) -> Workload:
    return workloads.workload(text, seed)


def run(tasks: Sequence[Task], simulate: Simulate, jobs: int, tell: Tell) -> list[Account]:
    """An account of each task, in their order. jobs: how many at a time; one or a single task is done in this process.
    Ctrl-C ends all processes. Raises RunError."""
    if jobs < 2 or len(tasks) < 2:
        return list(_here(tasks, simulate, tell))
    with _processes(min(jobs, len(tasks)), len(tasks)) as (pool, shares):
        # Whoever is interrupted is this process: it ends the others, and they say nothing.
        with _deaf():
            futures = [
                pool.submit(_there, number, task, simulate) for number, task in enumerate(tasks)
            ]
        try:
            _watch(futures, shares, tell)
            return [future.result() for future in futures]
        except BrokenProcessPool:
            raise RunError(
                "a process with a simulation was ended from outside, perhaps for want of memory; try fewer --jobs"
            ) from None


def _here(tasks: Sequence[Task], simulate: Simulate, tell: Tell) -> Iterator[Account]:
    for number, task in enumerate(tasks):
        yield simulate(workload_of(task), task, partial(_part, tell, number, len(tasks)))
    tell(1.0)


def _part(tell: Tell, number: int, among: int, share: float) -> None:
    tell((number + share) / among)


def _watch(futures: Sequence[Future[Account]], shares: Sequence[float], tell: Tell) -> None:
    """Until all are done, or one of them failed."""
    waiting = set(futures)
    while waiting:
        done, waiting = wait(waiting, LOOK, FIRST_COMPLETED)
        for future in done:
            future.result()
        tell(sum(shares) / len(futures))


@contextlib.contextmanager
def _processes(
    jobs: int, tasks: int
) -> Iterator[tuple[ProcessPoolExecutor, MutableSequence[float]]]:
    """Started anew rather than forked: this process may have threads. However it is left, they have ended."""
    context = multiprocessing.get_context("spawn")
    shares = context.Array("d", tasks, lock=False)
    before = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(jobs, context, _begin, (shares,))
    try:
        yield pool, shares
    except BaseException:
        for child in set(multiprocessing.active_children()) - before:
            child.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def _deaf() -> Iterator[None]:
    """Processes that are started meanwhile ignore Ctrl-C from their first moment."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    was = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, was)


class _Shares:
    """How far each task is; shared with the process that waits."""

    of: MutableSequence[float]


def _begin(shares: MutableSequence[float]) -> None:
    _Shares.of = shares
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A process whose parent was killed would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait_for([parent.sentinel])
        os._exit(1)


def _there(number: int, task: Task, simulate: Simulate) -> Account:
    def tell(share: float) -> None:
        _Shares.of[number] = share

    account = simulate(workload_of(task), task, tell)
    tell(1.0)
    return account
