"""When is a session evicted, a workspace stopped, a workspace terminated? Told as timelines."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lifecycle.model import Workspace, WorkspaceStatus
from lifecycle.policy import (
    Evict,
    Stop,
    Terminate,
    evict_sessions,
    overdue_boots,
    stop_idle,
    terminate_stale,
)
from tests.lifecycle.fakes import workspace

W = WorkspaceStatus
IDLE = 60.0  # seconds


def at(seconds: float) -> int:
    return int(seconds * 1000)


def running(**fields: object) -> Workspace:
    """Runs since 0 and was active at 0; heartbeats are trusted since 0 unless a test says otherwise."""
    return workspace(status=W.RUNNING, machine_id="m-1", **fields)


def stops(one: Workspace, now: float, trusted: float | None = 0, **more: object) -> list[Stop]:
    since = None if trusted is None else at(trusted)
    return stop_idle([one], at(now), IDLE, since, **more)


def test_a_workspace_is_stopped_after_the_idle_timeout_and_not_before() -> None:
    one = running()
    assert stops(one, now=0) == []
    assert stops(one, now=59.999) == []
    assert stops(one, now=60) == [Stop(one, "idle", unless_active_since_ms=0)]


def test_activity_counts_from_its_own_moment() -> None:
    one = running(last_active_at_ms=at(12))
    assert stops(one, now=71.999) == []
    assert stops(one, now=72) == [Stop(one, "idle", unless_active_since_ms=at(12))]


def test_a_boot_counts_as_activity() -> None:
    one = running(running_since_ms=at(30), last_active_at_ms=at(2))
    assert stops(one, now=89.999) == []
    assert stops(one, now=90) == [Stop(one, "idle", unless_active_since_ms=at(2))]


def test_heartbeats_that_came_back_open_a_whole_new_window() -> None:
    one = running()
    assert stops(one, now=1000, trusted=None) == []
    assert stops(one, now=1000, trusted=1000) == []
    assert stops(one, now=1059.999, trusted=1000) == []
    assert len(stops(one, now=1060, trusted=1000)) == 1


def test_a_trusted_moment_in_the_future_waits_for_it() -> None:
    """The clock went back after the heartbeats were trusted."""
    assert stops(running(), now=100, trusted=130) == []


def test_a_silent_gateway_with_sessions_counts_as_activity_until_its_last_word() -> None:
    one = running()
    assert stops(one, now=109.999, unheard_ms={"w1": at(50)}) == []
    assert len(stops(one, now=110, unheard_ms={"w1": at(50)})) == 1
    assert len(stops(one, now=60, unheard_ms={"other": at(50)})) == 1


def test_a_machine_that_does_not_answer_is_waited_for() -> None:
    one = running()
    assert stops(one, now=10_000, silent_machines={"m-1"}) == []
    assert len(stops(one, now=10_000, silent_machines={"m-2"})) == 1


def test_an_extension_holds_until_it_ends() -> None:
    one = running(extend_until_ms=at(100))
    assert stops(one, now=99.999) == []
    assert len(stops(one, now=100)) == 1


@pytest.mark.parametrize("status", [status for status in W if status is not W.RUNNING])
def test_only_what_runs_is_stopped(status: WorkspaceStatus) -> None:
    assert stops(replace(running(), status=status), now=10_000) == []


def test_each_workspace_is_judged_by_itself() -> None:
    old, new = workspace("old"), workspace("new", last_active_at_ms=at(59))
    assert [s.workspace.id for s in stop_idle([new, old], at(60), IDLE, 0)] == ["old"]


@pytest.mark.parametrize("status", [W.STOPPED, W.FAILED])
def test_what_sleeps_is_terminated_after_the_retention(status: WorkspaceStatus) -> None:
    one = workspace(status=status, status_since_ms=at(5))
    assert terminate_stale([one], at(64.999), retention=60) == []
    assert terminate_stale([one], at(65), retention=60) == [Terminate(one, "retention")]


@pytest.mark.parametrize("status", sorted(set(W) - {W.STOPPED, W.FAILED}))
def test_nothing_else_is_terminated_however_old(status: WorkspaceStatus) -> None:
    assert terminate_stale([workspace(status=status)], at(10**6), retention=60) == []


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
