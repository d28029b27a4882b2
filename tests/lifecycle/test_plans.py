"""Plans: what a file says over the flags, what a workspace says over its plan, and what is refused by name."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from lifecycle.model import Workspace, WorkspaceStatus
from lifecycle.plans import Plan, PlanError, Policy, Quota, default_plan, plans_of
from lifecycle.plans_file import read_plans

DEFAULT = Plan("default", Policy(idle_timeout=1800.0, retention=100.0), Quota(workspaces=7))
W = Workspace("w1", "ada", WorkspaceStatus.RUNNING, 1, 1, plan="pro")


def test_a_plan_stands_over_the_files_default_over_the_settings() -> None:
    plans = plans_of(
        {
            "plans": {
                "default": {"retention": 50, "quota": {"sessions": 3}},
                "pro": {"idle-timeout": 60, "signals": ["job", "input"], "priority": "vip"},
            }
        },
        DEFAULT,
    )
    pro = plans.of("pro")
    assert (pro.policy.idle_timeout, pro.policy.retention) == (60.0, 50.0)
    assert pro.policy.signals == {"input", "job"}
    assert (pro.quota, pro.priority) == (Quota(workspaces=7, sessions=3), "vip")
    assert plans.of("gone") is plans.of("default") is plans.default
    assert (plans.default.policy.idle_timeout, plans.default.policy.retention) == (1800.0, 50.0)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"idle-timout": 60}, "plans.pro: there is no idle-timout; did you mean idle-timeout?"),
        ({"idle-timeout": 0}, "plans.pro: idle-timeout must be above 0 seconds"),
        ({"idle-timeout": "1h"}, "plans.pro: idle-timeout must be a number of seconds, not '1h'"),
        ({"retention": float("nan")}, "plans.pro: retention must be a number of seconds, not nan"),
        ({"keep": 1}, "plans.pro: keep must be true or false, not 1"),
        ({"signals": ["mouse"]}, "plans.pro: signals must be some of input, frames, job, api"),
        ({"signals": "input"}, "plans.pro: signals must be some of input, frames, job, api"),
        ({"countdown": [60, -1]}, "plans.pro: countdown must be 0 or more, not -1"),
        ({"quiet-hours": "at night"}, "plans.pro: quiet-hours 'at night' is no cron expression"),
        ({"time-zone": "Mars"}, "plans.pro: time-zone 'Mars' is no time zone"),
        ({"priority": "nan"}, "plans.pro: priority must be vip, normal, batch or a number"),
        ({"quota": {"running": 1.5}}, "plans.pro.quota: running must be a whole number, 0 for no"),
        ({"quota": {"hours-a-day": -1}}, "plans.pro.quota: hours-a-day must be 0 or more"),
        ({"quota": {"cpu": 1}}, "plans.pro.quota: there is no cpu; known are workspaces, running"),
    ],
)
def test_what_is_wrong_is_named_with_what_it_may_be(said: dict[str, object], words: str) -> None:
    with pytest.raises(PlanError, match=re.escape(words)):
        plans_of({"plans": {"pro": said}}, DEFAULT)


def test_settings_give_lists_as_text() -> None:
    plan = default_plan({"countdown": "60, 300", "ending-notice": "", "signals": "input, job"})
    assert plan.policy.countdown == (300.0, 60.0)
    assert plan.policy.ending_notice == ()
    assert plan.policy.signals == {"input", "job"}
    with pytest.raises(PlanError, match="--countdown must be seconds, such as 300,60; 'soon' is"):
        default_plan({"countdown": "soon"})


def test_a_workspace_says_otherwise_and_what_it_says_no_more_is_its_plans() -> None:
    plans = plans_of({"plans": {"pro": {"idle-timeout": 60}}}, DEFAULT)
    assert plans.policy_of(W).idle_timeout == 60.0
    own = replace(W, own_policy='{"idle-timeout": 30, "signals": ["mouse"], "gone": 1}')
    assert plans.policy_of(own) == replace(plans.of("pro").policy, idle_timeout=30.0)
    assert plans.policy_of(own) is plans.policy_of(own)
    for broken in ("{", "[]", "null", '{"retention": null}'):
        assert plans.policy_of(replace(W, own_policy=broken)) == plans.of("pro").policy


def test_the_example_is_a_file_that_can_be_read() -> None:
    plans = read_plans("deploy/plans.example.toml", DEFAULT)
    assert plans.of("free").quota.hours_a_month == 40
    assert plans.of("pro").policy.time_zone == "Europe/Berlin"
    assert plans.of("teaching").policy.keep


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    missing, broken = tmp_path / "none.toml", tmp_path / "broken.toml"
    with pytest.raises(PlanError, match=r"none.toml: it cannot be read \(no such file"):
        read_plans(str(missing), DEFAULT)
    broken.write_text("[plans.pro\n")
    with pytest.raises(PlanError, match=r"broken.toml: .*line 1"):
        read_plans(str(broken), DEFAULT)
    assert read_plans("", DEFAULT).of("pro") is DEFAULT
