"""What follows from a machine's deadline, as a timeline."""

from __future__ import annotations

import pytest

from lifecycle import moving
from lifecycle.model import Machine, MachineStatus, Workspace, WorkspaceStatus
from lifecycle.moving import Explain, GiveUp, Move, deadline, loss, steps
from tests.lifecycle.fakes import machine, workspace

W, M = WorkspaceStatus, MachineStatus

NOON = 1_795_435_200_000  # 2026-11-23 12:00:00 UTC
GOES = NOON + 120_000


def doomed(status: M = M.DRAINING, at_ms: int = GOES, **fields: object) -> Machine:
    return machine(status=status, doomed_at_ms=at_ms, reason="spot interruption", **fields)


def kinds(found: list[moving.Step]) -> list[tuple[type, str]]:
    return [(type(step), step.workspace.id) for step in found]


def test_after_a_spot_notice_everything_moves_those_with_people_first() -> None:
    here = [
        workspace("w1"),
        workspace("w2", W.STARTING),
        workspace("w3"),
        workspace("w4", W.STOPPED),
        workspace("w5", W.STOPPING),
    ]
    found = steps(doomed(), here, {"w3": 2, "w2": 1}, NOON)
    assert kinds(found) == [(Move, "w3"), (Move, "w2"), (Move, "w1")]
    assert {step.reason for step in found} == {
        "moving: its machine is taken away at 2026-11-23 12:02:00 UTC"
    }


def test_who_waits_in_the_queue_is_told_why_once() -> None:
    waits = workspace(status=W.QUEUED)
    [said] = steps(doomed(), [waits], {}, NOON)
    assert isinstance(said, Explain)
    assert steps(doomed(), [workspace(status=W.QUEUED, reason=said.reason)], {}, NOON) == []


def test_before_maintenance_people_work_on_until_ten_minutes_are_left() -> None:
    there, at = [workspace()], NOON + 3_600_000
    assert steps(doomed(at_ms=at), there, {}, NOON) == []
    assert steps(doomed(at_ms=at), there, {}, at - 600_001) == []
    assert kinds(steps(doomed(at_ms=at), there, {}, at - 600_000)) == [(Move, "w1")]


def test_a_rebalance_recommendation_moves_nobody() -> None:
    leaning = doomed(at_ms=moving.NO_DEADLINE_MS)
    assert steps(leaning, [workspace(), workspace("w2", W.STOPPED)], {}, NOON) == []
    [said] = steps(leaning, [workspace(status=W.QUEUED)], {}, NOON)
    assert said.reason == "moving: its machine may be taken away soon"


@pytest.mark.parametrize("status", [s for s in W if s is not W.TERMINATED])
def test_at_the_deadline_whatever_is_still_there_is_given_up(status: W) -> None:
    here = [workspace(status=status)]
    assert GiveUp not in [type(step) for step in steps(doomed(), here, {}, GOES - 1)]
    assert kinds(steps(doomed(), here, {}, GOES)) == [(GiveUp, "w1")]


def test_a_machine_that_went_down_before_is_as_good_as_past_its_deadline() -> None:
    gone = doomed(M.LOST)
    assert kinds(steps(gone, [workspace(status=W.QUEUED)], {}, NOON)) == [(GiveUp, "w1")]


def test_one_that_came_up_again_is_emptied_in_peace() -> None:
    """Its spot instance was only stopped: the disk is there, the deadline is of a life before."""
    back = doomed(M.READY, status_since_ms=GOES + 60_000)
    assert steps(back, [workspace(status=W.STOPPED)], {}, GOES + 61_000) == []


@pytest.mark.parametrize(
    "safe",
    [
        workspace(status=W.FAILED, error_code=moving.LOST),
        workspace(status=W.STOPPED, volume="vol-1"),
        workspace(status=W.QUEUED, restore="00000001-1"),
        workspace(status=W.TERMINATING, reason="deleted"),
    ],
    ids=["told before", "on its own disk", "as in its snapshot", "deleted"],
)
def test_what_the_machine_does_not_take_with_it_is_not_given_up(safe: Workspace) -> None:
    assert steps(doomed(), [safe], {}, GOES) == []


def test_the_loss_says_since_when_and_what_to_do() -> None:
    saved = workspace(status=W.QUEUED, snapshot_id=f"00000003-{NOON - 600_000}")
    said = loss(saved, doomed())
    assert said == (
        "its files could not be moved off machine m-1 in time: it goes at 2026-11-23 12:02:00 UTC. "
        "What was changed since its snapshot of 2026-11-23 11:50:00 UTC is lost with that machine, "
        "unless it can still be saved from there. "
        "Start it again to go on from its newest snapshot."
    )
    never = loss(workspace(), doomed(M.LOST))
    assert (
        "There is no snapshot of it: its files are lost with that machine, unless that comes back."
        in never
    )
    assert never.endswith("Start it again to begin anew.")
    restoring = workspace(status=W.STARTING, restore="x", snapshot_id=f"00000003-{NOON}")
    assert "Nothing is lost" in loss(restoring, doomed())


def test_what_was_saved_after_all_is_said_so() -> None:
    before, after = f"00000001-{NOON}", f"00000002-{GOES}"
    told = workspace(status=W.FAILED, error_code=moving.LOST, snapshot_id=after)
    assert "all its files were saved at 2026-11-23 12:02:00 UTC" in moving.saved_late(told, before)
    assert moving.saved_late(told, after) == "", "no newer snapshot"
    started = workspace(status=W.RUNNING, snapshot_id=after)
    assert moving.saved_late(started, before) == ""


# Notices: twice, late, out of order


def test_a_notice_sets_the_deadline_and_the_earliest_counts() -> None:
    up = machine()
    assert deadline(up, GOES, NOON) == GOES
    again = machine(status=M.DRAINING, doomed_at_ms=GOES)
    assert deadline(again, GOES, NOON) is None
    assert deadline(again, GOES + 1, NOON) is None
    assert deadline(again, GOES - 1, NOON) == GOES - 1
    leaning = machine(status=M.DRAINING, doomed_at_ms=moving.NO_DEADLINE_MS)
    assert deadline(leaning, GOES, NOON) == GOES


def test_a_notice_after_its_time_leaves_a_moment_to_try_but_only_one() -> None:
    up = machine()
    late = GOES + 60_000
    first = deadline(up, GOES, late)
    assert first == late + moving.LATE_MS
    again = machine(status=M.DRAINING, doomed_at_ms=first)
    assert deadline(again, GOES, late + 10_000) is None


def test_a_notice_of_a_life_before_is_none() -> None:
    """A spot machine that was stopped and started again keeps its instance's name."""
    assert deadline(machine(status_since_ms=GOES + 5), GOES, GOES + 10) is None
    assert deadline(machine(status=M.TERMINATED), GOES, NOON) is None


# Small rules


@pytest.mark.parametrize(
    ("now", "grace"),
    [(NOON, 10), (GOES - 100_000, 10), (GOES - 30_000, 3), (GOES, 0), (GOES + 9, 0)],
)
def test_the_grace_of_a_stop_leaves_the_snapshot_its_time(now: int, grace: float) -> None:
    assert moving.stop_grace(10, doomed(), now) == grace
    assert moving.stop_grace(10, machine(), now) == 10


@pytest.mark.parametrize(
    ("known", "named", "same"),
    [
        ("i-0a", "i-0a", True),
        ("i-0a", "i-0b", False),
        ("", "", False),
        ("", "i-0a", False),
        ("", "arn:aws:ecs/", False),
        ("arn:aws:ecs:eu:1:task/ides/0a1b", "0a1b", True),
        ("0a1b", "arn:aws:ecs:eu:1:task/ides/0a1b", True),
    ],
)
def test_names_of_instances(known: str, named: str, same: bool) -> None:
    assert moving.same_instance(known, named) is same


@pytest.mark.parametrize(("id", "at"), [("00000001-5", 5), ("", 0), ("x", 0), ("1-" + "9" * 30, 0)])
def test_when_a_snapshot_was_taken(id: str, at: int) -> None:
    assert moving.snapshot_at(id) == at
