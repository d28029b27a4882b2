"""A stand-in for the engine: its account follows from the figure alone, so that what is made of accounts can be told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from lifecycle.simulation.records import Account, Sample, Workload
from lifecycle.simulation.runs import Simulator, Task, Tell


@dataclass(frozen=True)
class Known:
    means: str
    default: float | None
    sweep: Sequence[float] = ()
    bounds: tuple[float, float] = (0.0, 100.0)


POLICIES = {
    "promise": Known("the share of arrivals that may wait", 0.01, (0.001, 0.01, 0.1)),
    "ceil": Known("slots kept free", 1.0, (0.0, 1.0, 10.0)),
    "fixed": Known("", None),
}


def simulate(workload: Workload, task: Task, progress: Tell) -> Account:
    """A share of arrivals waits: the promise's figure, or a tenth by any other policy."""
    if task.policy == "ceil" and task.figure == 10:
        raise ValueError("the stand-in cannot keep ten slots free")
    chance = Random(task.seed)
    arrivals = len(workload.visits)
    share = task.figure if task.policy == "promise" else 0.1
    waiting = round(arrivals * (share or 0.1) * chance.uniform(0.5, 0.9))
    progress(0.5)
    samples = [Sample(at * 600.0, at % 50, 0, at % 12, 1, 0, 12) for at in range(144)]
    hours = {hour: (arrivals // 24, waiting // 24) for hour in range(24)} | {4: (100, 30)}
    row = {
        "at": 33_122.0, "want": 14, "have": 12, "launch": 2, "reason": "61 are expected in 60 s",
        "warm_slots": 61, "quantile": 0.99, "windows": [{"seconds": 60.0, "arrivals": 12}, {"seconds": 3600.0, "arrivals": 400}],
    }  # fmt: skip
    return Account(
        task.policy, task.figure, workload.name, task.seed, arrivals, arrivals,
        [5.0 + 50 * chance.random() for _ in range(waiting)], 120.0 + task.seed, 100.0, 400.0,
        120.0 * task.cloud.price, hours, samples, {"launches": 30},
        ("a machine in use was removed",) if task.cloud.hangs > 0.5 else (),
        [row] if task.explain is not None else [], 0.1,
    )  # fmt: skip


SIMULATOR = Simulator(POLICIES, simulate)
