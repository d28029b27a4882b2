"""`python -m bench.scaling [PART ...] [--seeds N] [--jobs N] [--write]`: what docs/scaling.md shows, measured anew.

Every part is one or more `ide-gateway simulate`, called as a function; the tables say which. `safety` takes as long as it
has sessions (--sessions).
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from heapq import heappop, heappush
from math import log
from pathlib import Path
from statistics import fmean

from bench import report
from gateway.simulate import decided
from lifecycle.simulation.datasets import PackageMissing
from lifecycle.simulation.explaining import explained
from lifecycle.simulation.plots import draw
from lifecycle.simulation.policies import MOVE_AFTER
from lifecycle.simulation.records import Account, Cloud, Workload
from lifecycle.simulation.runs import Task, run, workload_of
from lifecycle.simulation.settings import Settings
from lifecycle.simulation.spec import clock
from lifecycle.simulation.summary import Summary, summaries

PAGE = Path(__file__).parents[1] / "docs" / "scaling.md"
PICTURES = PAGE.with_name("scaling")
LARGE, SMALL = "diurnal:users=1500", "diurnal:users=50"
CURVES: dict[str, tuple[float | None, ...]] = {
    "moving": (0.1, 0.01, 0.001, 0.0002),
    "promise": (0.1, 0.03, 0.01, 0.001, 0.0002),
    "ceil+p": (0.0, 0.01, 0.015, 0.02, 0.03),
    "agones": (0.01, 0.02, 0.03),
    "kpa": (0.985, 0.97, 0.95),
    "hpa": (0.95, 0.85),
    "fixed": (740, 780),
}
MOVED, SMALL_MOVED = (0.0, 0.01, 0.015, 0.02, 0.03), (0.0, 0.01, 0.02, 0.03, 0.05, 0.07)
"""Of ceil+p, with moves as `moving` has them."""
SMALL_CURVES: dict[str, tuple[float | None, ...]] = {
    "moving": (0.1, 0.05, 0.02, 0.005, 0.001, 0.0002),
    "promise": (0.2, 0.05, 0.02, 0.005, 0.001, 0.0002),
    "ceil+p": (0.0, 0.01, 0.02, 0.03, 0.05, 0.07),
    "agones": (0.01, 0.03, 0.05, 0.1),
    "kpa": (0.97, 0.95, 0.85),
    "hpa": (0.9, 0.8),
}
RECORDED: dict[str, tuple[float | None, ...]] = {"moving": (0.001,), "promise": (0.001,)}
PARKING = "parking:users=1500"
BUCKET = Cloud(burst=1000, rate=2.0)
HUGE, DAYS = "diurnal:users=3000,days=4", 4
BAD_DAYS = (
    f"`{HUGE}`, {{runs}} times with different seeds, {{days}} days in all, with 2 % of launches failing, 1 % never heard of again, EC2's default"
    " bucket, machines taken back after a day on average with two minutes' notice, and ten and thirty minutes without any"
    " capacity each day:"
)
FAULTS = Cloud(
    fails=0.02, hangs=0.01, burst=1000, rate=2.0, spot_hours=24.0,
    refusals=tuple(
        (day * 86_400.0 + since, day * 86_400.0 + until)
        for day in range(DAYS)
        for since, until in ((30_000.0, 30_600.0), (60_000.0, 61_800.0))
    ),
)  # fmt: skip


def simulated(tasks: Sequence[Task], jobs: int, called: str = "") -> list[Summary]:
    """called: how to call the policy, in place of its name."""
    told = [time.monotonic()]

    def tell(share: float) -> None:
        if time.monotonic() - told[0] > 30:
            told[0] = time.monotonic()
            print(f"  {share:.0%} of {len(tasks)} simulations", file=sys.stderr, flush=True)

    accounts = run(tasks, decided, jobs, tell)
    return summaries([replace(each, policy=called or each.policy) for each in accounts])


def grid(
    workload: str, figures: dict[str, tuple[float | None, ...]], seeds: int, cloud: Cloud, settings: Settings
) -> list[Task]:  # fmt: skip
    return [
        Task(workload, policy, figure, seed, cloud, settings)
        for seed in range(1, seeds + 1)
        for policy, some in figures.items()
        for figure in some
    ]


def percent(share: float, digits: int = 2) -> str:
    return f"{share * 100:.{digits}f} %"


def compared(title: str, rows: Sequence[Summary]) -> str:
    """A row a policy and figure. Over the largest bound of all: who is made to wait holds a slot later."""
    bound = max(row.bound_hours for row in rows)
    columns = ("policy", "its figure", "served warm", "machine-hours over the bound", "p99 wait")
    found = []
    for row in rows:
        figure = "" if row.figure is None else f"{row.figure:g}"
        warm = f"{percent(row.warm.value, 3)} ± {(row.warm.margin or 0) * 100:.3f}"
        hours, margin = row.machine_hours.value, row.machine_hours.margin or 0.0
        over = f"{hours / bound:.4f} ± {margin / bound:.4f}"
        found.append((row.policy, figure, warm, over, f"{row.everybody(99):.0f} s"))
    return report.table(title, columns, found)


def cheapest(rows: Sequence[Summary], warm: float) -> dict[str, float]:
    """Policy → machine-hours over the bound at which it serves that share warm, between the figures that were tried (the
    share who wait on a logarithmic scale); policies that never do are left out."""
    bound = max(row.bound_hours for row in rows)
    found: dict[str, float] = {}
    for policy in dict.fromkeys(row.policy for row in rows):
        mine = [
            (max(1e-6, 1 - row.warm.value), row.machine_hours.value / bound) for row in rows if row.policy == policy
        ]  # fmt: skip
        mine.sort(reverse=True)
        wanted = 1 - warm
        for (more, cheap), (less, dear) in itertools.pairwise(mine):
            if more >= wanted >= less:
                part = (log(more) - log(wanted)) / (log(more) - log(less)) if more > less else 1.0
                found[policy] = cheap + part * (dear - cheap)
                break
        else:
            if mine[0][0] <= wanted:  # the cheapest that was tried is better than that already
                found[policy] = mine[0][1]
    return found


def below(title: str, rows: Sequence[Summary], shares: Sequence[float]) -> str:
    names = list(dict.fromkeys(row.policy for row in rows))
    table = []
    for share in shares:
        at = cheapest(rows, share)
        table.append([percent(share), *(f"{at[n]:.4f}" if n in at else "—" for n in names)])
    return report.table(title, ["served warm", *names], table)


PLAIN = Settings(warm_slots=0)  # what is kept free is what each rule says
SHOWN = ("moving", "kpa")  # over the day, hour by hour: a picture of all of them is two megabytes
SHARES = (0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9999)


def curves(
    seeds: int,
    jobs: int,
    spec: str,
    figures: dict[str, tuple[float | None, ...]],
    moved: tuple[float, ...],
    name: str,
) -> str:
    rows = simulated(grid(spec, figures, seeds, Cloud(), PLAIN), jobs)
    moves = grid(spec, {"ceil+p": moved}, seeds, Cloud(), replace(PLAIN, move_after=MOVE_AFTER))
    others = simulated(moves, jobs, "ceil+p, moving")
    shown = {row.policy: row for row in rows if row.policy in SHOWN}  # each at its last figure
    title = f"`{spec} --warm-slots 0`, {seeds} seeds, boots of 60 s, idle timeout of an hour:"
    least = f"Machine-hours over the bound at which so many are served warm, `{spec}`, between the figures tried:"
    rows += others
    draw(rows, list(shown.values()), PLAIN.slots, PICTURES / name)
    return "\n".join([compared(title, rows), "", below(least, rows, SHARES)])


def large(seeds: int, jobs: int) -> str:
    return curves(seeds, jobs, LARGE, CURVES, MOVED, "large")


def small(seeds: int, jobs: int) -> str:
    return curves(seeds, jobs, SMALL, SMALL_CURVES, SMALL_MOVED, "small")


def calibration(seeds: int, jobs: int) -> str:
    """Over a week: what is learnt on the first days is known on the next."""
    promises = (0.05, 0.01, 0.001)
    spec = f"{LARGE},days=7"
    rows = simulated(grid(spec, {"moving": promises}, seeds, Cloud(), PLAIN), jobs)
    columns = ["hour", "arrivals", *(f"promised {percent(p, 1)}" for p in promises)]
    table = []
    for hour in range(24):
        cells = [f"{hour:02}", f"{rows[0].hours[hour][0]:,}"]
        for row in rows:
            came, waited = row.hours[hour]
            share, promised = waited / came, row.figure or 1.0
            cells.append(f"{percent(share, 3)} ({share / promised:.2f}×)")
        table.append(cells)
    whole = ["all", f"{rows[0].arrivals:,}"]
    for row in rows:
        share = len(row.waits) / row.arrivals
        whole.append(f"{percent(share, 3)} ({share / (row.figure or 1.0):.2f}×)")
    return report.table(
        f"`{spec} --warm-slots 0`, policy `moving`, {seeds} seeds: who waited, and that over what was promised:",
        columns, [*table, whole],
    )  # fmt: skip


def fluid_wait(workload: Workload, cloud: Cloud, slots: int, idle: float) -> float:
    """Mean wait if machines come as fast as the API grants them from the first arrival on, are ready after the median boot,
    and every slot that is free is taken at once."""
    first = workload.visits[0].at
    number, free, mean = 0, [], 0.0  # free: heap of moments at which a slot is free
    machines = -(-len(workload.visits) // slots)
    for n in range(machines):
        granted = first + (max(0, n + 1 - cloud.burst) / cloud.rate if cloud.rate else 0.0)
        for _ in range(slots):
            heappush(free, granted + cloud.boot)
    for visit in workload.visits:
        at = max(visit.at, heappop(free))
        heappush(free, at + visit.seconds + idle)
        mean += at - visit.at
        number += 1
    return mean / number


def rush(seeds: int, jobs: int) -> str:
    text = []
    figures: dict[str, tuple[float | None, ...]] = {
        "promise": (0.01,), "ceil": (None,), "kpa": (0.7,), "hpa": (0.7,), "agones": (0.05,)
    }  # fmt: skip
    for spec in ("rush", "rush:shape=even"):
        rows = simulated(grid(spec, figures, seeds, Cloud(), Settings()), jobs)
        text.append(
            compared(f"`{spec}`: 100,000 in 15 minutes, no limit of the API, {seeds} seeds:", rows)
        )
    rows = simulated(grid("rush", {"promise": (0.01,)}, seeds, BUCKET, Settings()), jobs)
    table = []
    for account in rows[0].accounts:
        task = Task("rush", "promise", 0.01, account.seed, BUCKET)
        bound = fluid_wait(workload_of(task), BUCKET, 5, Settings().idle_timeout)
        mine = sum(account.waits) / account.arrivals
        by = account.priorities
        table.append([
            str(account.seed), f"{mine:.0f} s", f"{bound:.0f} s", f"{mine / bound:.3f}×",
            *(f"{by[p][1]:.0f} / {by[p][2]:.0f} s" for p in ("vip", "normal", "batch")),
        ])  # fmt: skip
    columns = (
        "seed",
        "mean wait",
        "fluid bound",
        "ratio",
        *(f"{p}: mean / longest" for p in ("vip", "normal", "batch")),
    )
    text.append(
        report.table(
            "`rush --api-burst 1000 --api-rate 2`: the same under EC2's default bucket:",
            columns,
            table,
        )
    )
    return "\n".join(text)


def latest_ramp(workload: Workload, cloud: Cloud, slots: int, account: Account) -> float:
    """Machine-hours of a pool that has one machine for each five users and, for the peak, launches each of its machines as
    late as it can (median boot, the API's pace) and still be there when the first may come."""
    (peak,) = workload.peaks
    machines = -(-peak.users // slots)
    ready = (peak.from_ms - workload.start_ms) / 1000
    hours = 0.0
    for n in range(machines):
        early = max(0, n + 1 - cloud.burst) / cloud.rate if cloud.rate else 0.0
        hours += (cloud.boot + early) / 3600
    # Until those who come fill them, they stand empty.
    came = sorted(
        v.at for v in workload.visits if v.at >= ready and v.user >= _first_of_exam(workload)
    )
    for n in range(machines):
        filled = came[min(len(came) - 1, n * slots)]
        hours += max(0.0, filled - ready) / 3600
    return account.bound_hours + hours


def _first_of_exam(workload: Workload) -> int:
    return max(v.user for v in workload.visits) + 1 - workload.peaks[0].users


def peaks(seeds: int, jobs: int) -> str:
    rows, text = [], []
    for spec in ("exam:users=500,extra=3000", "exam-undeclared:users=500,extra=3000"):
        tasks = grid(spec, {"promise": (0.01, 0.001)}, seeds, BUCKET, Settings())
        found = simulated(tasks, jobs)
        text.append(compared(f"`{spec} --api-burst 1000 --api-rate 2`, {seeds} seeds:", found))
        rows.append(found)
    table = []
    for row in rows[0]:
        ratios = []
        for account in row.accounts:
            task = Task("exam:users=500,extra=3000", "promise", row.figure, account.seed, BUCKET)
            ratios.append(
                account.machine_hours / latest_ramp(workload_of(task), BUCKET, 5, account)
            )
        came = [account.hours for account in row.accounts]
        around = [(sum(h[k][0] for h in came), sum(h[k][1] for h in came)) for k in (8, 9)]
        warm = 1 - sum(w for _, w in around) / sum(c for c, _ in around)
        table.append([f"{row.figure:g}", percent(warm, 3), f"{fmean(ratios):.3f}×"])
    text.append(report.table(
        "The declared exam at nine: who came between eight and ten and was served warm, and the whole day's machine-hours over"
        " those of the latest ramp that is in time:",
        ("promise", "served warm from 8 to 10", "machine-hours over the latest feasible ramp"), table,
    ))  # fmt: skip
    return "\n".join(text)


def safety(seeds: int, jobs: int, sessions: int) -> Iterator[str]:
    """A pool of some 3,000 users with faults on, day after day; told again after each few."""
    settings, counts = Settings(scale_interval=10.0), Counter[str]()
    visits, number, broken = 0, 0, list[str]()
    while visits < sessions:
        some = range(number + 1, number + 1 + 2 * jobs)
        tasks = [Task(HUGE, "moving", 0.01, seed, FAULTS, settings) for seed in some]
        for account in run(tasks, decided, jobs, lambda share: None):
            visits, number = visits + account.visits, number + 1
            broken += account.violations
            counts.update({name: int(count) for name, count in account.counts.items()})
        rows = [("sessions", f"{visits:,}"), ("violations", str(len(broken)))]
        rows += [(name, f"{count:,}") for name, count in sorted(counts.items())]
        found = "".join(f"- {text}\n" for text in broken[:20])
        yield (
            report.table(
                BAD_DAYS.format(runs=number, days=number * DAYS), ("what", "how often"), rows
            )
            + found
        )


def speed(seeds: int, jobs: int) -> str:
    rows = []
    for spec in ("diurnal:sessions=100000", "rush"):
        account = run([Task(spec, "promise", 0.01, 1)], decided, 1, lambda share: None)[0]
        rows.append((f"`{spec}`", f"{account.visits:,}", f"{account.seconds:.1f} s"))
    return report.table(
        "One simulation on one core:", ("workload", "sessions counted", "seconds"), rows
    )


def recorded(seeds: int, jobs: int) -> str:
    """Arrivals that happened, of packages whose data files are read."""
    text = []
    days: dict[str, list[Task]] = {
        f"{name}:users=1500": grid(f"{name}:users=1500", RECORDED, seeds, Cloud(), Settings())
        for name in ("flights", "bikes", "parking")
    }
    # It is known when it opens.
    opens = (clock("07:30"), 30)
    tasks = grid(PARKING, {"moving": (0.001,)}, seeds, Cloud(), Settings(move_after=300.0))
    days[f"{PARKING} --move-after 300 --peak 07:30=30"] = [
        replace(task, peaks=(opens,)) for task in tasks
    ]
    for shown, tasks in days.items():
        try:
            found = simulated(tasks, jobs)
        except PackageMissing as error:
            text.append(f"`{shown}`: not measured. {error}\n")
            continue
        text.append(compared(f"`{shown}`, {seeds} seeds:", found))
    return "\n".join(text)


def standby(seeds: int, jobs: int) -> str:
    """Machines that are stopped and start in 20 s, for what a new one takes 60."""
    text = []
    for kept in (0, 40):
        settings = Settings(standby_machines=kept)
        found = simulated(grid(LARGE, {"promise": (0.01, 0.001)}, seeds, Cloud(), settings), jobs)
        text.append(
            compared(f"`{LARGE} --standby-machines {kept} --start 20`, {seeds} seeds:", found)
        )
    return "\n".join(text)


def explain(seeds: int, jobs: int) -> str:
    moment = "09:12"
    task = Task(LARGE, "promise", 0.01, 1, explain=clock(moment))
    account = run([task], decided, 1, lambda share: None)[0]
    lines = explained(account, clock(moment))
    lines = lines[: lines.index("", 2)]  # the nearest decision
    return "\n".join(
        [f"`ide-gateway simulate {LARGE} --explain {moment}`:", "", "```", *lines, "```"]
    )


PARTS: dict[str, Callable[..., str | Iterator[str]]] = {
    "large": large, "small": small, "calibration": calibration, "rush": rush,
    "recorded": recorded,
    "standby": standby,
    "explain": explain, "peaks": peaks, "speed": speed,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.scaling", description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, "safety"], metavar="PART")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--sessions", type=int, default=10_000_000, help="of the part safety")
    parser.add_argument("--write", action="store_true", help=f"also into {PAGE.name}")
    options = parser.parse_args()
    parts = PARTS | {"safety": partial(safety, sessions=options.sessions)}
    for name in options.parts or parts:
        began = time.monotonic()
        answer = parts[name](options.seeds, options.jobs)
        for told in [answer] if isinstance(answer, str) else answer:
            print(f"{told}\n({name}: {time.monotonic() - began:.0f} s)\n", flush=True)
            if options.write:
                report.write(name, told, PAGE, "sim")


if __name__ == "__main__":
    main()
