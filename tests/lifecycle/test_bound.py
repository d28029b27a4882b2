"""When a running workspace stops: its record, its policy and a moment in, the bound out."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from lifecycle.activity import bound
from lifecycle.model import Workspace, WorkspaceStatus
from lifecycle.plans import Policy

S, MIN, H = 1000, 60_000, 3_600_000
T = int(datetime(2026, 1, 10, 12, tzinfo=UTC).timestamp() * 1000)
W = Workspace(
    "w1", "ada", WorkspaceStatus.RUNNING, T, T,
    running_since_ms=T, last_active_at_ms=T, seen={"boot": T},
)  # fmt: skip
HOUR = Policy(idle_timeout=3600.0)


def stops(workspace: Workspace, policy: Policy, now: int, trusted: int | None = None) -> object:
    found = bound(workspace, policy, now, trusted)
    return (found.at_ms and found.at_ms - T, found.kind, found.hard)


def seen(**kinds: int) -> Workspace:
    return replace(W, seen={"boot": T, **kinds}, last_active_at_ms=max(T, *kinds.values()))


def test_only_signals_that_count_move_the_stop() -> None:
    both = seen(input=T + 5 * MIN, frames=T + 30 * MIN)
    assert stops(both, HOUR, T + 40 * MIN) == (90 * MIN, "frames", False)
    typed = replace(HOUR, signals=frozenset({"input"}))
    assert stops(both, typed, T + 40 * MIN) == (65 * MIN, "input", False)
    assert stops(both, replace(HOUR, signals=frozenset()), T) == (60 * MIN, "boot", False)
    unknown = replace(both, last_active_at_ms=T + 35 * MIN)
    assert stops(unknown, typed, T + 40 * MIN) == (95 * MIN, "activity", False)


def test_a_job_counts_for_its_hours_and_no_longer() -> None:
    policy = replace(HOUR, max_job_hours=2.0)
    busy = replace(seen(job=T + 100 * MIN), job="python3", job_since_ms=T + 10 * MIN)
    assert stops(busy, policy, T + 100 * MIN) == (130 * MIN, "job", False)
    assert "at most" in bound(busy, policy, T + 100 * MIN).because
    person = replace(busy, seen={**busy.seen, "input": T + 90 * MIN})
    assert stops(person, policy, T + 100 * MIN) == (150 * MIN, "input", False)
    ended = replace(busy, job="", job_since_ms=0)
    assert stops(ended, policy, T + 101 * MIN) == (160 * MIN, "job", False)
    assert stops(busy, replace(policy, signals=frozenset({"input"})), T)[1] == "boot"  # type: ignore[index]


def test_quiet_hours_stop_it_sooner_and_are_seen_ahead() -> None:
    policy = replace(HOUR, quiet_hours="* 13 * * *", quiet_idle_timeout=600.0)
    late = seen(input=T + 45 * MIN)
    assert stops(late, policy, T + 46 * MIN) == (60 * MIN, "input", False)
    within = seen(input=T + 65 * MIN)
    assert stops(within, policy, T + 66 * MIN) == (75 * MIN, "input", False)
    after = seen(input=T + 119 * MIN)
    assert stops(after, policy, T + 119 * MIN) == (179 * MIN, "input", False)


def test_an_extension_outlasts_activity_and_no_hard_bound() -> None:
    extended = replace(W, extend_until_ms=T + 3 * H)
    assert stops(extended, HOUR, T) == (3 * H, "extended", False)
    assert stops(extended, replace(HOUR, max_lifetime=7200.0), T) == (2 * H, "lifetime", True)
    spent = replace(extended, stop_by_ms=T + H // 2, stop_by="quota")
    assert stops(spent, replace(HOUR, max_lifetime=7200.0), T) == (H // 2, "stop_by", True)
    assert stops(W, replace(HOUR, max_lifetime=7200.0), T) == (1 * H, "boot", False)


def test_what_is_pinned_or_unknown_has_no_time_to_stop_at() -> None:
    assert stops(replace(W, pinned=True), replace(HOUR, max_lifetime=60.0), T)[0] is None  # type: ignore[index]
    unknown = replace(W, running_since_ms=0, last_active_at_ms=0, seen={})
    assert stops(unknown, HOUR, T) == (None, "unknown", False)
    assert stops(replace(unknown, stop_by_ms=T + S), HOUR, T) == (S, "stop_by", True)
    assert stops(W, HOUR, T + 50 * MIN, T + 40 * MIN) == (100 * MIN, "unknown", False)
