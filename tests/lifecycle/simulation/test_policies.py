"""Who can be asked how many machines there shall be, and what the engine is then to try."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from lifecycle.plans import PlanError
from lifecycle.pricing import PricesError
from lifecycle.scaler import scale
from lifecycle.scaling.memory import begin
from lifecycle.scaling.records import Facts, Rule
from lifecycle.simulation.engine import Trial
from lifecycle.simulation.policies import MOVE_AFTER, POLICIES, plan_of
from lifecycle.simulation.records import OURS, PROMISE, Cloud
from lifecycle.simulation.settings import Settings


def tried(name: str, figure: float | None = 0.1, **settings: object) -> Trial:
    return POLICIES[name].trial(
        name, figure, Settings(**settings), Cloud(boot=90.0, burst=7, rate=0.5)
    )  # type: ignore[arg-type]


@pytest.mark.parametrize("name", POLICIES)
def test_each_can_be_asked_at_its_default_and_at_every_figure_of_its_sweep(name: str) -> None:
    sizer, rule = POLICIES[name], Rule(max_machines=1000)
    assert sizer.means
    assert sizer.default is None or sizer.sweep
    for figure in (sizer.default, *sizer.sweep):
        assert figure is None or sizer.bounds[0] <= figure <= sizer.bounds[1]
        decide = tried(name, figure).decide
        decision, _ = decide(Facts(100, []), rule, begin(0, rule), 2000)
        assert decision.launch == decision.want >= 10, (
            "a hundred in fives; KPA grows tenfold at most"
        )


@pytest.mark.parametrize("name", POLICIES)
def test_each_can_be_asked_at_its_bounds(name: str) -> None:
    rule = Rule(max_machines=1000)
    for figure in POLICIES[name].bounds:
        trial = tried(name, figure)
        memory = begin(0, rule)
        for at_ms in range(2000, 60_000, 2000):
            facts = Facts(100, [], arrivals=20, departures=5)
            decision, memory = trial.decide(facts, trial.rule, memory, at_ms)
        assert 0 <= decision.want <= trial.rule.max_machines


def test_each_simulation_has_a_memory_of_its_own() -> None:
    for name in ("agones", "kpa", "hpa"):
        assert tried(name).decide is not tried(name).decide


def test_the_figure_is_the_promise_of_ours_alone() -> None:
    assert PROMISE in OURS
    for name in POLICIES:
        rule = tried(name, 0.02).rule
        assert rule.wait_probability == (0.02 if name in OURS else 0.0)
        assert (rule.burst, rule.rate, rule.boot_guess) == (7, 0.5, 90.0)
    assert tried("ceil", None).rule.wait_probability == 0.0
    assert tried("promise").decide is scale


def test_settings_are_those_of_serve() -> None:
    trial = tried("promise", slots=3, max_machines=8, scale_in_delay=9.0, standby_machines=2, scale_interval=5.0)  # fmt: skip
    rule = trial.rule
    assert (rule.slots, rule.max_machines, rule.scale_in_delay, rule.standby) == (3, 8, 9.0, 2)
    assert (trial.tick, trial.launch_timeout, trial.prices) == (5.0, 360.0, None)
    assert (trial.name, trial.setting) == ("promise", 0.1)


def test_all_move_where_they_are_told_to() -> None:
    assert [tried(name).move_after for name in ("promise", "moving", "kpa")] == [0.0, MOVE_AFTER, 0]
    given = [tried(name, move_after=60.0).move_after for name in ("promise", "moving", "kpa")]
    assert given == [60.0, 60.0, 60.0]


def test_plans_and_prices_come_from_files(tmp_path: Path) -> None:
    plans, prices = tmp_path / "plans.toml", tmp_path / "prices.toml"
    plans.write_text("[plans.default]\nidle-timeout = 60\n[plans.default.quota]\nhours-a-day = 2\n")
    prices.write_text('currency = "EUR"\n[running]\ndefault = 0.1\n')
    trial = tried("promise", plans=str(plans), prices=str(prices), idle_timeout=900.0)
    assert trial.plan.policy.idle_timeout == 60.0
    assert trial.plan.quota.hours_a_day == 2.0
    assert trial.prices is not None
    assert trial.prices.default == Decimal("0.1")
    assert plan_of(Settings(idle_timeout=900.0)).policy.idle_timeout == 900.0


def test_what_a_wait_costs_is_held_against_a_full_machine_by_ours_alone(tmp_path: Path) -> None:
    prices = tmp_path / "prices.toml"
    prices.write_text('currency = "EUR"\n[running]\ndefault = 0.1\nstandard = 9\n')
    given = {
        "prices": str(prices),
        "slots": 4,
        "warm_slots": 3,
        "wait_cost": 0.02,
        "standby_machines": 2,
    }
    for name in POLICIES:
        rule = tried(name, **given).rule
        kept = (rule.wait_cost, rule.warm_slots, rule.standby)
        assert kept == ((0.02, 3, 2) if name in OURS else (0.0, 0, 0))
        assert rule.machine_hour == pytest.approx(0.4), "simulated machines are of no class"
    assert tried("promise", wait_cost=0.02).rule.machine_hour == 0.0


def test_files_that_are_none() -> None:
    with pytest.raises(PlanError, match=r"/none\.toml: it cannot be read"):
        tried("promise", plans="/none.toml")
    with pytest.raises(PricesError, match=r"/none\.toml: it cannot be read"):
        tried("promise", prices="/none.toml")
