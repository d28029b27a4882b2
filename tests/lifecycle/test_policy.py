"""When is a workspace stopped, its person warned, a workspace terminated or started, a session evicted?
Told as timelines, in seconds since it began to run."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lifecycle.model import Workspace, WorkspaceStatus
from lifecycle.plans import Policy
from lifecycle.policy import (
    Command,
    Evict,
    Facts,
    Look,
    Start,
    Stays,
    Stop,
    Terminate,
    Warn,
    WarnEnd,
    evict_sessions,
    look,
    overdue_boots,
)
from tests.lifecycle.fakes import workspace

W = WorkspaceStatus
T0 = 1_763_942_400_000  # Monday, 24 November 2025, 00:00 UTC
POLICY = Policy(idle_timeout=3600, retention=86_400)
HOUR = 3600


def at(seconds: float) -> int:
    return int(seconds * 1000)


def then(seconds: float) -> int:
    return T0 + at(seconds)


def running(**fields: object) -> Workspace:
    """Runs since 0 and was seen at 0; heartbeats are trusted since then unless a test says otherwise."""
    fields = {"running_since_ms": T0, "status_since_ms": T0, "seen": {"boot": T0}} | fields
    return replace(workspace(status=W.RUNNING, machine_id="m-1"), **fields)  # type: ignore[arg-type]


def asleep(status: WorkspaceStatus = W.STOPPED, **fields: object) -> Workspace:
    fields = {"status_since_ms": T0} | fields
    return replace(workspace(status=status), **fields)  # type: ignore[arg-type]


def looks(
    one: Workspace, now: float, policy: Policy = POLICY, trusted: float | None = 0, **more: object
) -> Look:
    facts = Facts(None if trusted is None else then(trusted), **more)  # type: ignore[arg-type]
    return look(one, policy, facts, then(now))


def does(
    one: Workspace, now: float, policy: Policy = POLICY, trusted: float | None = 0, **more: object
) -> list[type[Command]]:
    return [type(command) for command in looks(one, now, policy, trusted, **more).commands]


def test_the_hour_of_a_workspace_in_which_nothing_is_done() -> None:
    one = running()
    assert looks(one, now=0) == Look((), then(3300))
    assert looks(one, now=3299.999) == Look((), then(3300))
    (warn,) = looks(one, now=3300).commands
    assert isinstance(warn, Warn)
    assert (warn.at_ms, warn.lead) == (then(3600), 300)
    one = replace(one, warned_ms=then(3600))
    assert looks(one, now=3400).next_ms == then(3402), "whoever stays is told so at once"
    (warn,) = looks(one, now=3540).commands
    assert isinstance(warn, Warn)
    assert warn.lead == 60
    assert does(one, now=3599.999) == [Warn]
    (stop,) = looks(one, now=3600).commands
    assert isinstance(stop, Stop)
    assert (stop.reason, stop.unless_seen["input"], stop.unless_seen["boot"]) == ("idle", 0, T0)


def test_whoever_stays_is_told_that_the_stop_is_off() -> None:
    one = running(warned_ms=then(3600), seen={"boot": T0, "input": then(3500)})
    assert looks(one, now=3502) == Look((Stays(one),), then(3504))
    one = replace(one, warned_ms=0)
    assert looks(one, now=3502) == Look((), then(3500 + 3300))


def test_a_short_timeout_has_room_for_a_short_countdown_only() -> None:
    quick = replace(POLICY, idle_timeout=12)
    assert looks(running(), 0, quick) == Look((), then(6))
    assert does(running(), 6, quick) == [Warn]
    assert looks(running(), 0, replace(quick, countdown=(60, 4, 2))) == Look((), then(8))


def test_a_signal_that_does_not_count_keeps_nothing() -> None:
    one = running(seen={"boot": T0, "frames": then(3000), "input": then(1000)})
    assert does(one, 4700, replace(POLICY, signals=frozenset({"input"}))) == [Stop]
    assert does(one, 4700) == []


def test_a_job_counts_for_its_hours_and_is_not_asked_again_at_their_end() -> None:
    one = running(seen={"boot": T0, "job": then(6 * HOUR - 5)}, job="train", job_since_ms=T0)
    assert does(one, 6 * HOUR - 301) == []
    assert does(one, 6 * HOUR - 300) == [Warn]
    (stop,) = looks(one, 6 * HOUR).commands
    assert isinstance(stop, Stop)
    assert stop.reason == "job limit"
    assert "job" not in stop.unless_seen
    ended = replace(one, job="", job_since_ms=0)
    assert does(ended, 6 * HOUR) == [], "one that ended is a signal like any other"


def test_no_activity_prevents_the_end_of_its_lifetime_and_it_is_told_before() -> None:
    short = replace(POLICY, max_lifetime=2 * HOUR)
    one = running(seen={"boot": T0, "input": then(2 * HOUR - 1)})
    assert does(one, 2 * HOUR - 301, short) == []
    (warn,) = looks(one, 2 * HOUR - 300, short).commands
    assert isinstance(warn, Warn)
    assert warn.bound.hard
    late = looks(one, 3 * HOUR, short).commands
    assert [(type(c), getattr(c, "at_ms", 0)) for c in late] == [(Warn, then(3 * HOUR + 60))]
    warned = replace(one, warned_ms=then(3 * HOUR + 60))
    assert does(warned, 3 * HOUR + 59, short) == [Warn]
    (stop,) = looks(warned, 3 * HOUR + 60, short).commands
    assert isinstance(stop, Stop)
    assert (stop.reason, stop.unless_seen) == ("max lifetime", {})


def test_a_stop_that_was_set_from_outside_says_why() -> None:
    one = running(stop_by_ms=then(600), stop_by="quota", warned_ms=then(600))
    (stop,) = looks(one, 600).commands
    assert isinstance(stop, Stop)
    assert stop.reason == "quota"


def test_what_is_pinned_is_left_alone() -> None:
    one = running(pinned=True)
    assert does(one, 10**7) == []
    assert does(replace(one, warned_ms=T0), 10**7) == [Stays]


def test_quiet_hours_end_it_earlier() -> None:
    quiet = replace(POLICY, quiet_hours="* 2 * * *", quiet_idle_timeout=600)
    seen = running(seen={"boot": T0, "input": then(1.9 * HOUR)})
    assert does(seen, 2 * HOUR - 301, quiet) == []
    assert does(seen, 2.07 * HOUR, quiet) == [Stop]
    assert does(seen, 2.07 * HOUR) == []


def test_heartbeats_that_came_back_open_a_whole_new_window() -> None:
    one = running()
    assert looks(one, now=9000, trusted=None) == Look((), then(9002))
    assert does(one, now=9000, trusted=9000) == []
    assert does(one, now=9000 + 3599, trusted=9000) == [Warn]
    assert does(one, now=9000 + 3600, trusted=9000) == [Stop]


def test_a_trusted_moment_in_the_future_waits_for_it() -> None:
    """The clock went back after the heartbeats were trusted."""
    assert does(running(), now=3700, trusted=3900) == []


def test_a_silent_gateway_with_sessions_counts_as_activity_until_its_last_word() -> None:
    one = running()
    assert does(one, now=4099, unheard_ms=then(500)) == [Warn]
    assert does(one, now=4100, unheard_ms=then(500)) == [Stop]


@pytest.mark.parametrize("unknown", ["silent", "late"])
def test_what_cannot_be_known_is_waited_for(unknown: str) -> None:
    assert looks(running(), 10**5, **{unknown: True}) == Look((), then(10**5 + 2))


def test_an_extension_holds_until_it_ends() -> None:
    one = running(extend_until_ms=then(9000))
    assert does(one, now=8600) == []
    (stop,) = looks(one, now=9000).commands
    assert isinstance(stop, Stop)
    assert stop.unless_extended_ms == then(9000)


@pytest.mark.parametrize("status", sorted(set(W) - {W.RUNNING, W.STOPPED, W.FAILED}))
def test_time_does_nothing_to_what_is_on_its_way_or_over(status: WorkspaceStatus) -> None:
    assert looks(asleep(status), 10**9) == Look()


@pytest.mark.parametrize("status", [W.STOPPED, W.FAILED])
def test_what_sleeps_is_announced_and_then_terminated(status: WorkspaceStatus) -> None:
    one, two_days = asleep(status), replace(POLICY, retention=48 * HOUR)
    assert looks(one, 0, two_days) == Look((), then(24 * HOUR))
    assert looks(one, 24 * HOUR, two_days).commands == (WarnEnd(one, then(48 * HOUR), 86_400),)
    assert looks(one, 24 * HOUR, two_days).next_ms == then(47 * HOUR)
    assert looks(one, 47 * HOUR, two_days).commands == (WarnEnd(one, then(48 * HOUR), 3600),)
    assert looks(one, 48 * HOUR, two_days).commands == (Terminate(one, "retention"),)
    assert looks(one, 0) == Look((), then(23 * HOUR)), "its stop says when, a day ahead"


def test_what_is_kept_is_not_terminated() -> None:
    kept = asleep(keep_until_ms=then(90 * HOUR))
    assert does(kept, 30 * HOUR) == []
    assert does(kept, 66 * HOUR) == []
    assert does(kept, 89 * HOUR) == [WarnEnd]
    assert does(kept, 90 * HOUR) == [Terminate]
    assert does(asleep(), 10**9, replace(POLICY, keep=True)) == []


def test_a_retention_of_nothing_is_announced_by_nobody() -> None:
    assert does(asleep(), 0, replace(POLICY, retention=0)) == [Terminate]


@pytest.mark.parametrize("status", [W.STOPPED, W.TERMINATED])
def test_a_schedule_starts_what_sleeps(status: WorkspaceStatus) -> None:
    mornings = replace(POLICY, autostart="0 8 * * 1-5", ending_notice=())
    one = asleep(status)
    assert looks(one, 0, mornings).next_ms == then(8 * HOUR)
    assert does(one, 8 * HOUR, mornings) == [Start]
    assert does(one, 8 * HOUR + 599, mornings) == [Start], "nobody led at that time"
    assert Start not in does(one, 8 * HOUR + 601, mornings)
    assert Start not in does(asleep(W.FAILED), 8 * HOUR, mornings), "it would fail in a loop"


def test_a_boot_is_overdue_after_twice_its_timeout() -> None:
    one = workspace(status=W.STARTING, status_since_ms=at(10))
    assert overdue_boots([one], at(249.999), 120, trusted_since_ms=0) == []
    assert overdue_boots([one], at(250), 120, trusted_since_ms=0) == [one]
    assert overdue_boots([running()], at(10**6), 120, trusted_since_ms=0) == []


def test_a_boot_that_nobody_could_hear_of_gets_its_time_again() -> None:
    """Every gateway was away; the first one back must listen before it judges."""
    one = workspace(status=W.STARTING)
    assert overdue_boots([one], at(10_000), 120, trusted_since_ms=None) == []
    assert overdue_boots([one], at(10_000), 120, trusted_since_ms=at(9_999)) == []
    assert overdue_boots([one], at(10_239), 120, trusted_since_ms=at(9_999)) == [one]


def test_a_session_is_evicted_after_its_timeout_and_not_before() -> None:
    seen = [("w1/g-1", at(10))]
    assert evict_sessions(seen, at(99.999), 90, 0) == []
    assert evict_sessions(seen, at(100), 90, 0) == [Evict("w1/g-1", "no heartbeat", at(10))]


def test_sessions_are_not_evicted_for_a_silence_that_was_ours() -> None:
    seen = [("w1/g-1", 0)]
    assert evict_sessions(seen, at(1000), 90, None) == []
    assert evict_sessions(seen, at(1089.999), 90, at(1000)) == []
    assert len(evict_sessions(seen, at(1090), 90, at(1000))) == 1
