"""Simulations as JSON, for other programs. Pure. Times in seconds, shares from 0 to 1, names in camelCase.

| field                          | holds                                                                       |
|--------------------------------|-----------------------------------------------------------------------------|
| `version`                      | of this format: 2; it grows when a field changes its meaning                |
| `workload`                     | `name`, `startMs`, `peaks`, `repairs`; `visits`, and their `users`, that are counted; `before`: visits of the evening before, which are not |
| `settings`                     | what was simulated with, as the command's flags are named                   |
| `cloud`                        | the same; but `fails` is of `--failures`, `burst` and `rate` of `--api-burst` and `--api-rate`, `refusals` of `--no-capacity` (in seconds since the first day began); `spread`, `notice` have no flag |
| `policies`                     | one row for each policy at each figure, over all seeds                      |
| `policies[].figure`            | what it was set to; `null` if it has none                                   |
| `policies[].warm` and its like | `{"mean", "margin"}`; margin: 95 % either way, `null` of one seed           |
| `policies[].waited`            | `p50`, `p95`, `p99` of those who were not served within a second            |
| `policies[].everybody`         | the same of all arrivals                                                    |
| `policies[].hours`             | `{"hour", "arrivals", "waited"}` by hour of the day                         |
| `runs`                         | one row for each simulation, with its `seed`, `violations` and `seconds`    |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from lifecycle.simulation.records import Account, Cloud, Workload
from lifecycle.simulation.report import counted_visits
from lifecycle.simulation.summary import PERCENTS, Mean, Summary

VERSION = 2


def results(
    workload: Workload, cloud: Cloud, settings: Mapping[str, Any], rows: Sequence[Summary]
) -> dict[str, Any]:
    return {
        "version": VERSION,
        "workload": _workload(workload),
        "cloud": {_camel(name): value for name, value in asdict(cloud).items()},
        "settings": {_camel(name): value for name, value in settings.items()},
        "policies": [_summary(row) for row in rows],
        "runs": [_run(account) for row in rows for account in row.accounts],
    }


def _workload(workload: Workload) -> dict[str, Any]:
    visits = counted_visits(workload)
    return {
        "name": workload.name,
        "visits": len(visits),
        "before": len(workload.visits) - len(visits),
        "users": len({visit.user for visit in visits}),
        "startMs": workload.start_ms,
        "peaks": [{_camel(k): v for k, v in asdict(peak).items()} for peak in workload.peaks],
        "repairs": list(workload.repairs),
    }


def _summary(row: Summary) -> dict[str, Any]:
    return {
        "policy": row.policy,
        "figure": row.figure,
        "seeds": [account.seed for account in row.accounts],
        "arrivals": row.arrivals,
        "warm": _mean(row.warm),
        "waited": {f"p{p}": row.waited(p) for p in PERCENTS},
        "everybody": {f"p{p}": row.everybody(p) for p in PERCENTS},
        "machineHours": _mean(row.machine_hours),
        "boundHours": row.bound_hours,
        "overBound": _mean(row.overhead),
        "cost": _mean(row.cost),
        "hours": [
            {"hour": hour, "arrivals": came, "waited": waited}
            for hour, (came, waited) in row.hours.items()
        ],
        "counts": dict(row.counts),
    }


def _run(account: Account) -> dict[str, Any]:
    return {
        "policy": account.policy,
        "figure": account.setting,
        "seed": account.seed,
        "visits": account.visits,
        "arrivals": account.arrivals,
        "waited": len(account.waits),
        "machineHours": account.machine_hours,
        "boundHours": account.bound_hours,
        "userHours": account.user_hours,
        "cost": account.cost,
        "counts": dict(account.counts),
        "violations": list(account.violations),
        "seconds": account.seconds,
    }


def _mean(of: Mean) -> dict[str, float | None]:
    return {"mean": of.value, "margin": of.margin}


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)
