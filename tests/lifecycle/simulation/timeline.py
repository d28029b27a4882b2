"""Small days on the virtual clock, of which every figure can be told with pencil and paper."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from lifecycle.plans import Plan, Policy
from lifecycle.scaler import scale
from lifecycle.scaling.records import Decision, Facts, Memory, Rule
from lifecycle.simulation import engine
from lifecycle.simulation.engine import Decide, Trial
from lifecycle.simulation.records import Account, Cloud, Visit, Workload

START_MS = 20_000 * 86_400_000  # midnight of 4 October 2024, UTC
CLOUD = Cloud(spread=0.0)  # new machines take 60 s, stopped ones 20 s, to the second
RULE = Rule(max_machines=1000)  # machines for who is there, and none beside
PLAN = Plan("default", Policy(idle_timeout=600.0))


def day(*visits: Visit, **more: Any) -> Workload:
    return Workload("test", sorted(visits, key=lambda v: v.at), START_MS, **more)


def trial(**more: Any) -> Trial:
    """more: of the Trial; or of its Rule."""
    known = Trial.__dataclass_fields__
    rule = replace(RULE, **{k: v for k, v in more.items() if k not in known})
    own = {k: v for k, v in more.items() if k in known}
    return Trial(**{"rule": rule, "plan": PLAN, "launch_timeout": 240.0} | own)


def simulated(
    *visits: Visit, cloud: Cloud = CLOUD, seed: int = 1, explain: float | None = None,
    workload: Mapping[str, Any] = {}, **more: Any,
) -> Account:  # fmt: skip
    """more: of the trial."""
    return engine.simulate(
        day(*visits, **workload), cloud, trial(**more), seed=seed, explain=explain
    )


def scripted(script: Mapping[float, Mapping[str, Any]]) -> Decide:
    """Decides nothing but what is written down: seconds → fields of the Decision."""

    def decide(facts: Facts, rule: Rule, memory: Memory, now_ms: int) -> tuple[Decision, Memory]:
        decision, memory = scale(facts, rule, memory, now_ms)
        nothing: dict[str, Any] = {
            "launch": 0, "undrain": (), "revive": (), "drain": (), "park": (), "spare": 0,
        }  # fmt: skip
        said = script.get((now_ms - START_MS) / 1000, {})
        return replace(decision, **nothing | dict(said)), memory

    return decide


def seconds(hours: float) -> float:
    return round(hours * 3600, 6)
