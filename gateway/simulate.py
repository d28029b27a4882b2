"""`ide-gateway simulate`: what is asked for, checked before anything runs; then the runs, and what came of them."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path

import click

from gateway.exits import ConfigurationError, DependencyMissing, Exit
from gateway.simulate_order import Order, tasks_of, visits_repeat
from gateway.simulate_times import check_times
from gateway.terminal import one_line, say, warn
from lifecycle.simulation import engine, report
from lifecycle.simulation.datasets import PackageMissing
from lifecycle.simulation.explaining import explained
from lifecycle.simulation.policies import POLICIES
from lifecycle.simulation.records import Account, Workload
from lifecycle.simulation.results import results
from lifecycle.simulation.runs import RunError, Simulator, Task, Tell, run, workload_of
from lifecycle.simulation.spec import WorkloadError, clock
from lifecycle.simulation.summary import Summary, summaries

BROKEN = 3
"""Exit code: a promise of safety was broken. No other end of this command has it."""

REPEATED = "all seeds have the same visits: ± is of the cloud's chance alone, and promises are judged as by one seed"
MOSTLY = "most visits are the same with all seeds: ± is of the others and the cloud's chance, and promises are judged as by one seed"

WIDE = 6
"""Columns of the table by hours at most; with more, each policy shows its own figure alone."""


def simulator() -> Simulator:
    """The production code's deciding, and what it is compared with."""
    return Simulator(POLICIES, decided)


def decided(workload: Workload, task: Task, progress: Tell) -> Account:
    """One simulation, in whatever process."""
    trial = POLICIES[task.policy].trial(task.policy, task.figure, task.settings, task.cloud)
    return engine.simulate(
        workload, task.cloud, trial, seed=task.seed, explain=task.explain, progress=progress
    )


def simulate(order: Order, simulator: Simulator) -> int:
    """Run and tell; the exit code. Raises Exit."""
    tasks = tasks_of(order, simulator)
    _writable(order)
    try:
        workload = workload_of(tasks[0])
        check_times(workload, tasks[0])
        same = visits_repeat(order, workload, tasks)
        if repeat := same > 0.5:
            said = REPEATED if same == 1 else MOSTLY
            workload = replace(workload, repairs=(*workload.repairs, said))
        for line in report.heading(workload, order.seeds):
            say(one_line(line))
        accounts = _run(order, tasks, simulator)
    except PackageMissing as error:
        raise DependencyMissing(one_line(str(error))) from error
    except WorkloadError as error:
        raise ConfigurationError(one_line(str(error))) from error
    except RunError as error:
        raise Exit(str(error)) from error
    rows = summaries(accounts, repeat)
    _tell(order, workload, rows, simulator)
    _keep(order, workload, rows, detail(rows, simulator), tasks[0])
    return _broken(rows)


def _writable(order: Order) -> None:
    """Hours of simulating shall not end at a directory that is not there. Raises Exit."""
    if order.plots is not None and find_spec("matplotlib") is None:
        raise DependencyMissing(
            "--plots needs matplotlib, which is not installed",
            "try: pip install 'ide-gateway[simulate]'",
        )
    for flag, path in (("--json", order.json_file), ("--plots", order.plots)):
        if path is None:
            continue
        directory = path.parent if flag == "--json" else path
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unwritable(flag, path, error) from error
        if path.is_dir() == (flag == "--json") or not os.access(directory, os.W_OK):
            what = "a directory" if path.is_dir() else "not writable"
            raise Exit(f"{flag} {path}: cannot write there, it is {what}", "name another")


def _unwritable(flag: str, path: Path, error: OSError) -> Exit:
    reason = (error.strerror or str(error)).lower()
    there = next((place for place in (path, *path.parents) if place.exists()), path)
    if isinstance(error, FileExistsError | NotADirectoryError) and not there.is_dir():
        reason = f"{there} is a file"
    return Exit(f"{flag} {path}: cannot write there ({reason})", "name another")


# Running


def _run(order: Order, tasks: Sequence[Task], simulator: Simulator) -> list[Account]:
    with _progress(len(tasks)) as tell:
        return run(tasks, simulator.simulate, order.jobs, tell)


@contextmanager
def _progress(tasks: int) -> Iterator[Tell]:
    """A bar on a terminal, a line for every tenth elsewhere; on stderr, so that results can be piped."""
    what = f"{tasks} simulation{'s' * (tasks > 1)}"
    if not sys.stderr.isatty():
        told = [0]

        def tell(share: float) -> None:
            if (tenth := int(share * 10 + 1e-9)) > told[0]:
                told[0] = tenth
                click.echo(f"{what}: {tenth * 10} %", err=True)

        yield tell
        return
    with click.progressbar(length=1000, label=what, file=sys.stderr, show_pos=False) as bar:
        yield lambda share: bar.update(int(share * 1000) - bar.pos)


# What came of it


def _tell(order: Order, workload: Workload, rows: Sequence[Summary], simulator: Simulator) -> None:
    means = {name: policy.means for name, policy in simulator.policies.items()}
    lines = ["", *report.main_table(rows, means)]
    if kept := report.promises(rows):
        lines += ["", *kept]
    shown = detail(rows, simulator)
    lines += ["", *report.hours_table(shown), "", *report.counted(shown)]
    if order.explain is not None:
        moment = clock(order.explain)
        for row in rows:
            lines += ["", *explained(row.accounts[0], moment)]
    if order.json_file or order.plots:
        lines.append("")
    for line in lines:
        say(one_line(line))


def detail(rows: Sequence[Summary], simulator: Simulator) -> list[Summary]:
    """Those that are shown hour by hour: all, or of many one of each policy, at its own figure if that was simulated."""
    if len(rows) <= WIDE:
        return list(rows)
    chosen: dict[str, Summary] = {}
    for row in rows:
        if row.policy not in chosen or row.figure == simulator.policies[row.policy].default:
            chosen[row.policy] = row
    return list(chosen.values())


def _keep(
    order: Order, workload: Workload, rows: Sequence[Summary], shown: Sequence[Summary], task: Task
) -> None:
    """Files that were asked for."""
    if order.json_file is not None:
        found = results(workload, task.cloud, asdict(task.settings), rows)
        try:
            order.json_file.write_text(json.dumps(found, indent=2) + "\n", "utf-8")
        except OSError as error:
            raise _unwritable("--json", order.json_file, error) from error
        say(f"results: {order.json_file}")
    if order.plots is not None:
        from lifecycle.simulation.plots import draw

        try:
            for path in draw(rows, shown, task.settings.slots, order.plots):
                say(f"picture: {path}")
        except OSError as error:
            raise _unwritable("--plots", order.plots, error) from error


def _broken(rows: Sequence[Summary]) -> int:
    """BROKEN if a promise of safety was: a machine in use taken away, and the like. Else 0."""
    found = [f"{row.label}, {what}" for row in rows for what in row.violations]
    for text in found[:20]:
        warn(one_line(text))
    if len(found) > 20:
        warn(f"and {len(found) - 20} more")
    return BROKEN if found else 0
