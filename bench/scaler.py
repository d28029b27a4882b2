"""What one decision about the pool costs the leader: how many machines (scale), and where the queue goes (place).

Nineteen of twenty machines are full, as a packed pool is; the records are made here, so this is the deciding alone.
"""

from __future__ import annotations

import time
from collections import defaultdict

from lifecycle.model import Machine, MachineStatus, Workspace, WorkspaceStatus
from lifecycle.placement import place
from lifecycle.scaler import scale
from lifecycle.scaling.memory import begin
from lifecycle.scaling.records import Facts, Rule

ROUNDS = 25
CASES = ((200, 20), (2000, 200), (20_000, 0), (20_000, 3000))
"""(machines, workspaces in the queue)"""

SLOTS = 5


def measure() -> dict[str, dict[str, list[float]]]:
    """Case → {"scale", "place"}: milliseconds of this thread's CPU, a value a round."""
    return {f"{machines:,} machines, {queue:,} wait": _case(machines, queue) for machines, queue in CASES}  # fmt: skip


def _case(machines: int, waiting: int) -> dict[str, list[float]]:
    pool, queue = [_machine(n) for n in range(machines)], [_queued(n) for n in range(waiting)]
    idle = {each.id: 60_000 + n for n, each in enumerate(pool) if 0 < each.occupied < SLOTS}
    users = sum(each.occupied for each in pool) + waiting
    rule = Rule(slots=SLOTS, max_machines=2 * machines, wait_probability=0.01, burst=1000, rate=2.0)
    memory, now = begin(0, rule), 0
    found: dict[str, list[float]] = defaultdict(list)
    for _ in range(ROUNDS):
        now += 2000
        facts = Facts(users, pool, arrivals=20, departures=20, boots=(60.0,) * 100)
        before = time.thread_time_ns()
        _, memory = scale(facts, rule, memory, now)
        between = time.thread_time_ns()
        place(queue, pool, idle)
        found["scale"].append((between - before) / 1e6)
        found["place"].append((time.thread_time_ns() - between) / 1e6)
    return found


def _machine(number: int) -> Machine:
    taken = number % SLOTS if number % 20 == 0 else SLOTS
    return Machine(
        f"m-{number}", "ec2", MachineStatus.READY, 1, SLOTS, created_at_ms=number, occupied=taken,
        holds_files=taken, empty_since_ms=0 if taken else 1,
    )  # fmt: skip


def _queued(number: int) -> Workspace:
    return Workspace(f"ws-{number}", f"user-{number}", WorkspaceStatus.QUEUED, 0, 0)
