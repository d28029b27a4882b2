"""Why alive, and what happens when: a record and a moment in, words and times out."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lifecycle.activity import alive_because, explain, span
from lifecycle.model import Workspace, WorkspaceStatus
from lifecycle.plans import Policy
from lifecycle.policy import Facts, Stop, Terminate, look

S = 1000
HOUR = 3600.0
DAY = 86400.0
POLICY = Policy(idle_timeout=HOUR, retention=DAY)
RUNNING = Workspace(
    id="w1",
    user_id="ada",
    status=WorkspaceStatus.RUNNING,
    created_at_ms=1 * S,
    status_since_ms=100 * S,
    running_since_ms=100 * S,
    last_active_at_ms=100 * S,
    seen={"boot": 100 * S},
)


def done_to(workspace: Workspace, now_ms: int, kind: type[object]) -> bool:
    """Whether the policy does that to it now."""
    commands = look(workspace, POLICY, Facts(trusted_since_ms=0), now_ms).commands
    return any(isinstance(command, kind) for command in commands)


def in_status(status: WorkspaceStatus, **fields: object) -> Workspace:
    return replace(RUNNING, status=status, **fields)


def test_a_boot_counts_as_its_first_activity() -> None:
    assert alive_because(RUNNING, 103 * S, POLICY) == ("boot, 3 s ago", 3700 * S)


def test_the_newest_counting_kind_is_the_reason() -> None:
    seen = {"boot": 100 * S, "frames": 188 * S, "api": 150 * S, "ping": 199 * S}
    workspace = replace(RUNNING, last_active_at_ms=188 * S, seen=seen)
    assert alive_because(workspace, 200 * S, POLICY) == ("frames, 12 s ago", 3788 * S)


def test_activity_of_unknown_kind_moves_the_stop_too() -> None:
    workspace = replace(RUNNING, last_active_at_ms=190 * S)
    assert alive_because(workspace, 200 * S, POLICY) == ("activity, 10 s ago", 3790 * S)


def test_the_boot_after_a_move_is_no_activity() -> None:
    moved = replace(RUNNING, moved=True, running_since_ms=2_000 * S)
    assert alive_because(moved, 2_500 * S, POLICY) == ("boot before its move, 40 min ago", 3700 * S)
    assert done_to(moved, 3700 * S, Stop)
    used = replace(moved, seen={"boot": 100 * S, "input": 700 * S}, last_active_at_ms=700 * S)
    assert alive_because(used, 2_500 * S, POLICY) == ("input, 30 min ago", 4300 * S)
    asked_for = replace(used, moved=False)
    assert alive_because(asked_for, 2_500 * S, POLICY) == ("boot, 8 min ago", 5600 * S)


def test_a_lifetime_begins_anew_with_a_move() -> None:
    policy = replace(POLICY, max_lifetime=900.0)
    moved = replace(RUNNING, moved=True, running_since_ms=2_000 * S)
    assert alive_because(moved, 2_100 * S, policy)[1] == 2_900 * S


def test_it_is_idle_from_the_moment_the_policy_stops_it() -> None:
    last, due = 3_700 * S - 1, 3_700 * S
    assert alive_because(RUNNING, last, POLICY)[0] == "boot, 59 min ago"
    assert not done_to(RUNNING, last, Stop)
    assert alive_because(RUNNING, due, POLICY) == (None, due)
    assert done_to(RUNNING, due, Stop)


def test_an_extension_beyond_the_idle_timeout_wins_and_then_ends() -> None:
    workspace = replace(RUNNING, extend_until_ms=9_000 * S)
    assert alive_because(workspace, 5_400 * S, POLICY) == ("extended, 1 h left", 9_000 * S)
    assert alive_because(workspace, 9_000 * S, POLICY) == (None, 9_000 * S)
    assert not done_to(workspace, 9_000 * S - 1, Stop)
    assert done_to(workspace, 9_000 * S, Stop)


def test_an_extension_within_the_idle_timeout_changes_nothing() -> None:
    workspace = replace(RUNNING, extend_until_ms=200 * S)
    assert alive_because(workspace, 110 * S, POLICY) == ("boot, 10 s ago", 3700 * S)


def test_who_is_seen_and_extends_it_in_the_same_millisecond_reads_that_it_is_extended() -> None:
    workspace = replace(RUNNING, extend_until_ms=3700 * S)
    assert alive_because(workspace, 100 * S, POLICY) == ("extended, 1 h left", 3700 * S)


def test_unknown_is_never_idle() -> None:
    unknown = replace(RUNNING, last_active_at_ms=0, running_since_ms=0, seen={})
    reason, stops_at = alive_because(unknown, 10**12, POLICY)
    assert reason is not None
    assert "unknown is never idle" in reason
    assert stops_at is None
    assert explain(unknown, 10**12, POLICY)["next"][0]["at"] is None


def test_a_clock_that_went_back_says_zero_seconds_ago() -> None:
    assert alive_because(RUNNING, 90 * S, POLICY)[0] == "boot, 0 s ago"
    assert explain(RUNNING, 90 * S, POLICY)["signals"][0]["secondsAgo"] == 0


def test_starting_is_alive_without_a_stop() -> None:
    starting = in_status(WorkspaceStatus.STARTING)
    assert alive_because(starting, 104 * S, POLICY) == ("boot, 4 s ago", None)


@pytest.mark.parametrize(
    "status", [s for s in WorkspaceStatus if s not in (WorkspaceStatus.RUNNING, "starting")]
)
def test_what_does_not_run_is_not_alive(status: WorkspaceStatus) -> None:
    assert alive_because(in_status(status), 101 * S, POLICY) == (None, None)


def test_running_explained() -> None:
    seen = {"boot": 100 * S, "frames": 188 * S, "ping": 199 * S}
    workspace = replace(RUNNING, last_active_at_ms=188 * S, seen=seen, sources={"frames": "s"})
    said = explain(workspace, 200 * S, POLICY)
    assert said["signals"] == [
        {"kind": "ping", "lastAt": 199 * S, "secondsAgo": 1, "source": None, "counts": False},
        {"kind": "frames", "lastAt": 188 * S, "secondsAgo": 12, "source": "s", "counts": True},
        {"kind": "boot", "lastAt": 100 * S, "secondsAgo": 100, "source": None, "counts": True},
    ]
    assert [(step["what"], step["at"]) for step in said["next"]] == [
        ("stop", 3788 * S),
        ("terminate", (3788 + 86400) * S),
    ]
    assert said["stopsAt"] == 3788 * S
    assert "alive because of frames, 12 s ago" in said["text"]
    assert "It stops in 59 min unless there is activity" in said["text"]


def test_an_overdue_stop_is_said_and_the_retention_counts_from_now() -> None:
    said = explain(RUNNING, 4_000 * S, POLICY)
    assert said["aliveBecause"] is None
    assert said["next"][1]["at"] == (4_000 + 86400) * S
    assert "its time is over" in said["text"]


@pytest.mark.parametrize("status", [WorkspaceStatus.STOPPED, WorkspaceStatus.FAILED])
def test_the_termination_announced_is_the_one_the_policy_does(status: WorkspaceStatus) -> None:
    workspace = in_status(status)
    [step] = explain(workspace, 200 * S, POLICY)["next"]
    assert step["what"] == "terminate"
    assert not done_to(workspace, step["at"] - 1, Terminate)
    assert done_to(workspace, step["at"], Terminate)


@pytest.mark.parametrize(
    ("status", "then", "steps"),
    [
        (WorkspaceStatus.QUEUED, "", ["start"]),
        (WorkspaceStatus.STARTING, "", ["run"]),
        (WorkspaceStatus.STOPPING, "", ["terminate"]),
        (WorkspaceStatus.STOPPING, "start", ["start"]),
        (WorkspaceStatus.STOPPING, "terminate", ["terminate"]),
        (WorkspaceStatus.TERMINATING, "", []),
        (WorkspaceStatus.TERMINATING, "start", ["start"]),
        (WorkspaceStatus.TERMINATED, "", []),
    ],
)
def test_every_status_says_what_comes_next(
    status: WorkspaceStatus, then: str, steps: list[str]
) -> None:
    said = explain(in_status(status, next=then, reason="idle"), 160 * S, POLICY)
    assert [step["what"] for step in said["next"]] == steps
    assert said["text"].startswith(f"{status.capitalize()} for 1 min (idle)")


def test_a_terminated_one_says_where_its_files_are() -> None:
    gone = in_status(WorkspaceStatus.TERMINATED)
    assert "keeps no files" in explain(gone, 160 * S, POLICY)["text"]
    kept = replace(gone, snapshot_id="s1")
    assert "in a snapshot" in explain(kept, 160 * S, POLICY)["text"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "0 s"), (0.9, "0 s"), (59.9, "59 s"), (60, "1 min"), (3599, "59 min"), (3600, "1 h"),
        (3660, "1 h 1 min"), (86399, "23 h 59 min"), (86400, "1 d"), (93600, "1 d 2 h"),
    ],
)  # fmt: skip
def test_span(seconds: float, text: str) -> None:
    assert span(seconds) == text


def test_what_bounds_it_whatever_is_done_is_said() -> None:
    policy = replace(POLICY, max_lifetime=600)
    said = explain(RUNNING, 200 * S, policy)
    assert said["next"][0] == {"what": "stop", "at": 700 * S, "unless": None}
    assert "It stops in 8 min, whatever is done in it" in said["text"]


def test_what_is_kept_for_ever_or_starts_by_itself_is_said() -> None:
    stopped = in_status(WorkspaceStatus.STOPPED)
    assert explain(stopped, 200 * S, replace(POLICY, keep=True))["text"].endswith("kept for ever.")
    kept = replace(stopped, keep_until_ms=10**9)
    assert explain(kept, 200 * S, POLICY)["next"][0]["at"] == 10**9
    mornings = replace(POLICY, autostart="0 8 * * *")
    [start, end] = explain(stopped, 200 * S, mornings)["next"]
    assert (start["what"], start["at"], end["what"]) == ("start", 28_800 * S, "terminate")
