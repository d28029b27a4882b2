"""What others' rules want, on worked numbers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lifecycle.model import MachineStatus
from lifecycle.peaks import Peak
from lifecycle.scaling.memory import begin
from lifecycle.scaling.records import Facts, Rule
from lifecycle.simulation import baselines
from lifecycle.simulation.baselines import Hpa, Kpa, Want
from lifecycle.simulation.records import Visit
from tests.lifecycle.fakes import machine
from tests.lifecycle.simulation.timeline import START_MS, simulated

RULE = Rule(slots=5, max_machines=1000)


def asked(want: Want, users: int, now: float = 0.0, there: int = 0) -> int:
    return want(now, there, Facts(users, []), RULE)


@pytest.mark.parametrize(
    ("extra", "users", "machines"),
    [(0, 0, 0), (0, 1, 1), (0, 50, 10), (0, 51, 11), (0.1, 50, 11), (0.1, 51, 12), (0.2, 25, 6), (0.03, 1000, 206)],
)  # fmt: skip
def test_users_and_some_percent(extra: float, users: int, machines: int) -> None:
    assert asked(baselines.ceil_rule(extra), users) == machines


@pytest.mark.parametrize(
    ("share", "users", "machines"),
    [(0.05, 0, 0), (0.05, 19, 4), (0.05, 20, 5), (0.2, 20, 5), (0.2, 21, 6), (0.1, 45, 10)],
)
def test_agones_rounds_the_allocated_over_the_rest_up(
    share: float, users: int, machines: int
) -> None:
    """19 / 0.95 / 5 = 4; 20 / 0.95 / 5 = 4.2."""
    assert asked(baselines.agones(share), users) == machines


def test_agones_looks_every_thirty_seconds() -> None:
    want = baselines.agones(0.2)
    assert asked(want, 20, now=100.0) == 5
    assert asked(want, 400, now=129.9) == 5
    assert asked(want, 400, now=130.0) == 100
    assert asked(want, 0, now=159.0) == 100


def test_a_fixed_number() -> None:
    assert asked(baselines.fixed(7.0), 0) == asked(baselines.fixed(7.0), 5000) == 7


def ready(count: int, launching: int = 0) -> Facts:
    """So many machines; some more are on their way."""
    machines = [machine(f"m-{n}") for n in range(count)]
    machines += [machine(f"m-{count + n}", MachineStatus.LAUNCHING) for n in range(launching)]
    return Facts(0, machines)


def kpa(want: Kpa, users: int, now: float, facts: Facts) -> int:
    return want(now, len(facts.machines), replace(facts, users=users), RULE)


def test_kpa_averages_over_a_minute() -> None:
    """Of 0 and 35 users: 17.5 / (0.7 · 5) = 5. What is a minute old is forgotten."""
    want, ten = Kpa(0.7), ready(10)
    assert kpa(want, 0, 0.0, ten) == 0
    assert kpa(want, 35, 30.0, ten) == 5
    assert kpa(want, 35, 60.0, ten) == 10


def test_kpa_panics_and_only_grows_meanwhile() -> None:
    """In panic once the last 6 s want twice of what is ready, until 60 s after the last such moment."""
    want = Kpa(1.0)
    for now in range(0, 60, 2):
        assert kpa(want, 10, now, ready(2)) == 2
    assert kpa(want, 30, 60.0, ready(2)) == 4, "10, 10 and 30 within 6 s: 16.7 / 5"
    assert kpa(want, 40, 62.0, ready(4)) == 6, "26.7 / 5; no new sign, four are ready"
    assert kpa(want, 0, 100.0, ready(6)) == 6, "it falls, and nothing is given back"
    assert kpa(want, 0, 118.0, ready(6)) == 6
    assert kpa(want, 0, 120.0, ready(6)) == 2, "over: 40, 0, 0 and 0 within a minute"


def test_kpa_counts_what_is_ready_for_its_panic_and_grows_as_far_as_it_wants() -> None:
    want = Kpa(1.0)
    assert kpa(want, 1000, 0.0, ready(3, launching=200)) == 200
    assert kpa(want, 0, 60.0 - 0.1, ready(3, launching=200)) == 200, "three are ready: in panic"
    calm = Kpa(1.0)
    kpa(calm, 1000, 0.0, ready(200))
    assert kpa(calm, 0, 60.0 - 0.1, ready(200)) == 100


def test_hpa_is_content_within_ten_percent() -> None:
    """10 machines for 50: 35 users are 0.7; 38 are 0.76, 1.086 of it; 39 are 1.114 of it: ceil(10 · 0.78 / 0.7)."""
    for users, wanted in ((35, 10), (38, 10), (32, 10), (39, 12), (50, 15)):
        assert asked(Hpa(0.7), users, there=10) == wanted
    assert asked(Hpa(0.7), 31, there=10) == 9, "0.62 / 0.7"


def test_hpa_looks_every_fifteen_seconds_and_forgets_in_five_minutes() -> None:
    want = Hpa(0.5)
    assert asked(want, 50, now=0.0, there=10) == 20
    assert asked(want, 0, now=14.9, there=20) == 20
    assert asked(want, 100, now=15.0, there=20) == 40
    assert asked(want, 0, now=30.0, there=40) == 40
    assert asked(want, 0, now=314.0, there=40) == 40
    assert asked(want, 0, now=329.0, there=40) == 0, "that of 15 s is 314 s old"


def test_hpa_begins_with_one() -> None:
    assert asked(Hpa(0.5), 5, there=0) == 2


def decided(want: Want, facts: Facts, rule: Rule = RULE) -> tuple[int, int]:
    now_ms = START_MS
    decision, _ = baselines.deciding(want)(facts, rule, begin(now_ms, rule), now_ms)
    assert decision.users == facts.users
    return decision.want, decision.launch


def test_what_a_rule_wants_is_what_is_decided() -> None:
    """More than users need or fewer, whatever ours would promise, hold on standby, or for peaks."""
    ours = replace(RULE, wait_probability=0.01, standby=5, warm_slots=9)
    facts = Facts(30, [machine("m-1")], arrivals=20, busy=2, peaks=(Peak(START_MS, 500),))
    for machines in (0, 3, 5, 6, 40):
        found = decided(baselines.fixed(machines), facts, ours)
        assert found == (machines, max(0, machines - 3))
    assert decided(baselines.fixed(40), facts, replace(RULE, max_machines=8))[0] == 8


def test_a_rule_is_told_what_is_there_or_coming() -> None:
    told: list[tuple[float, int]] = []

    def want(now: float, there: int, facts: Facts, rule: Rule) -> int:
        told.append((now, there))
        return -3

    assert decided(want, Facts(0, [machine("m-1")], busy=4)) == (0, 0)
    assert told == [(START_MS / 1000, 5)]


def test_too_few_fixed_machines_stay_too_few() -> None:
    """One slot for two: the second is served once the first has stopped, at 62 + 100 + 600."""
    visits = Visit(1, 0, 100), Visit(2, 1, 100)
    one = baselines.deciding(baselines.fixed(1))
    account = simulated(*visits, decide=one, slots=1)
    assert account.waits == [59.0, 758.0], "launched before anybody came, at 0"
