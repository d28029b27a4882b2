"""Records against what a machine's agent reports, and against what the pool sees."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from lifecycle.agent.contract import Report, WorkspaceReport
from lifecycle.model import Machine, MachineStatus, Workspace, WorkspaceStatus
from lifecycle.pools import Observed
from lifecycle.reconcile import (
    Adopt,
    Boot,
    Change,
    Failed,
    Halt,
    Lost,
    MachineChange,
    Progress,
    Remove,
    Revive,
    Running,
    Stopped,
    Watch,
    adoptable,
    adoptions,
    converge,
    converge_machines,
    failures,
    strangers,
    unheard,
    without_record,
)
from tests.lifecycle.fakes import machine, workspace

W, M = WorkspaceStatus, MachineStatus
HERE = machine("m-1", address="10.0.0.7:7001")


def record(status: WorkspaceStatus, epoch: int = 3, **fields: Any) -> Workspace:
    return workspace("w1", status, epoch=epoch, machine_id="m-1", **fields)


def row(status: str, epoch: int = 3, **fields: Any) -> WorkspaceReport:
    return WorkspaceReport("w1", epoch, status, **fields)


def report(*rows: WorkspaceReport) -> Report:
    return Report("m-1", "boot", 1, 5, workspaces=rows)


def change(one: Workspace, *rows: WorkspaceReport) -> Change | None:
    found = converge(HERE, [one], report(*rows))
    assert len(found) <= 1
    return found[0] if found else None


def test_a_start_that_the_agent_never_heard_of_is_asked_for_again() -> None:
    one = record(W.STARTING)
    assert change(one) == Boot(one)
    assert change(one, row("running", epoch=2)) == Boot(one)
    assert change(one, row("failed", epoch=2)) == Boot(one)


def test_a_boot_that_got_ready_runs_at_the_machines_address() -> None:
    one = record(W.STARTING)
    assert change(one, row("running", port=9001)) == Running(one, "10.0.0.7:9001")


def test_a_boot_on_its_way_tells_each_step_once() -> None:
    one = record(W.STARTING, step="machine")
    assert change(one, row("starting", step="restore")) == Progress(one, "restore")
    assert change(replace(one, step="restore"), row("starting", step="restore")) is None
    assert change(one, row("starting")) is None


def test_a_boot_that_failed_says_why() -> None:
    one = record(W.STARTING)
    failed = row("failed", error_code="exited", error="exit code 1")
    assert change(one, failed) == Failed(one, "exited", "exit code 1")
    assert isinstance(change(one, row("stopped")), Failed)


def test_a_running_workspace_that_still_runs_is_left_alone() -> None:
    assert change(record(W.RUNNING), row("running")) is None
    assert change(record(W.RUNNING), row("stopping")) is None


def test_a_running_workspace_that_crashed_was_stopped_or_is_forgotten() -> None:
    one = record(W.RUNNING)
    assert change(one, row("failed", error_code="crashed", error="signal 9")) == Failed(
        one, "crashed", "signal 9"
    )
    assert change(one, row("stopped")) == Stopped(one, "machine stopped")
    assert change(one) == Failed(one, "machine_lost_it", "machine m-1 no longer knows of it")


@pytest.mark.parametrize("rows", [(), (row("stopped"),), (row("failed"),), (row("running", 2),)])
def test_a_stop_is_over_when_nothing_of_it_runs(rows: tuple[WorkspaceReport, ...]) -> None:
    one = record(W.STOPPING, reason="idle")
    assert change(one, *rows) == Stopped(one, "idle")


@pytest.mark.parametrize("status", ["starting", "running", "stopping"])
def test_a_stop_is_not_over_before(status: str) -> None:
    assert change(record(W.STOPPING), row(status)) is None


@pytest.mark.parametrize("status", [W.QUEUED, W.STOPPED, W.FAILED, W.TERMINATING])
def test_what_should_not_run_is_stopped(status: WorkspaceStatus) -> None:
    one = record(status)
    assert change(one, row("running")) == Halt("w1", 3)
    assert change(one, row("starting", epoch=2)) == Halt("w1", 2)
    assert change(one, row("stopped")) is None
    assert change(one) is None


@pytest.mark.parametrize("status", list(W))
@pytest.mark.parametrize("reported", ["starting", "running", "stopped", "failed"])
def test_a_report_of_a_newer_boot_is_never_held_against_an_older_record(
    status: WorkspaceStatus, reported: str
) -> None:
    assert change(record(status, epoch=3), row(reported, epoch=4)) is None


@pytest.mark.parametrize("reported", ["running", "stopped", "failed"])
def test_a_report_of_an_older_boot_never_fails_a_newer_one(reported: str) -> None:
    assert isinstance(change(record(W.STARTING, epoch=4), row(reported, epoch=3)), Boot)


def test_what_runs_here_although_it_belongs_elsewhere_is_stopped() -> None:
    elsewhere = replace(record(W.RUNNING, epoch=5), machine_id="m-2")
    known = {"w1": elsewhere}
    assert strangers("m-1", report(row("running", 4)), known) == [Halt("w1", 4)]
    assert strangers("m-1", report(row("running", 5)), known) == [Halt("w1", 5)]
    assert strangers("m-1", report(row("running", 6)), known) == [], "newer than the record"
    assert strangers("m-1", report(row("stopped", 4)), known) == []
    assert strangers("m-2", report(row("running", 5)), known) == [], "it is at home here"


def test_a_late_start_of_what_was_terminated_is_stopped() -> None:
    gone = replace(record(W.TERMINATED), machine_id="")
    assert strangers("m-1", report(row("running")), {"w1": gone}) == [Halt("w1", 3)]


def test_a_workspace_without_any_record_is_left_alone() -> None:
    """Redis may have lost it. Unknown is never a reason to stop."""
    assert strangers("m-1", report(row("running")), {}) == []


# Machines


def meet(
    one: Machine, seen: str | None, now: float = 1000, needed: tuple[str, ...] = ()
) -> MachineChange | None:
    observed = [Observed(one.id, seen, "10.0.0.7:7009")] if seen else []  # type: ignore[arg-type]
    found = converge_machines(
        [one], observed, int(now * 1000), launch_timeout=60, needed=frozenset(needed)
    )
    return found[0] if found else None


@pytest.mark.parametrize("status", [M.LAUNCHING, M.READY, M.DRAINING, M.LOST])
def test_a_machine_that_runs_is_watched_where_the_pool_sees_it(status: MachineStatus) -> None:
    one = machine("m-1", status, address="10.0.0.1:1")
    assert meet(one, "running") == Watch(replace(one, address="10.0.0.7:7009"))


def test_a_launch_gets_its_time() -> None:
    one = machine("m-1", M.LAUNCHING, status_since_ms=940_001)
    for seen in (None, "launching", "stopped"):
        assert meet(one, seen, now=1000) is None
    late = replace(one, status_since_ms=940_000)
    assert meet(late, None) == Remove(late, "never came up after 60 s")
    assert meet(late, "launching") == Remove(late, "is still launching after 60 s")


def test_a_launch_that_failed_on_a_disk_with_files_is_lost_and_tried_again() -> None:
    one = machine("m-1", M.LAUNCHING, holds_files=1)
    assert isinstance(meet(one, "stopped"), Lost)
    assert meet(replace(one, status=M.LOST), "stopped") == Revive(replace(one, status=M.LOST))


@pytest.mark.parametrize("status", [M.READY, M.DRAINING])
def test_a_machine_that_went_down_is_lost(status: MachineStatus) -> None:
    one = machine("m-1", status)
    assert meet(one, "stopped") == Lost(one, "its agent is down")
    assert meet(one, None) == Lost(one, "it is gone")
    assert meet(one, "launching") is None


def test_a_lost_machine_comes_back_for_its_files_and_goes_without() -> None:
    bare, full = machine("m-1", M.LOST), machine("m-1", M.LOST, holds_files=2)
    assert meet(full, "stopped") == Revive(full)
    assert meet(full, "launching") is None
    assert isinstance(meet(bare, "stopped"), Remove)
    assert isinstance(meet(full, None), Remove)


@pytest.mark.parametrize("seen", [None, "stopped"])
def test_a_lost_machine_whose_workspaces_nobody_failed_is_lost_once_more(seen: str | None) -> None:
    one = machine("m-1", M.LOST, occupied=1, holds_files=1, reason="its agent is down")
    assert meet(one, seen) == Lost(one, "its agent is down")


def test_a_stopped_machine_starts_when_somebody_needs_its_files() -> None:
    full, bare = machine("m-1", M.STOPPED, holds_files=2), machine("m-1", M.STOPPED)
    assert meet(full, "stopped") is None
    assert meet(full, "stopped", needed=("m-1",)) == Revive(full)
    assert meet(full, "stopped", needed=("m-2",)) is None
    assert isinstance(meet(bare, "stopped"), Remove)
    assert isinstance(meet(full, None), Remove)


def test_a_lost_machine_fails_what_held_a_slot_there_and_nothing_else() -> None:
    one = machine("m-1", M.LOST)
    records = [workspace(str(s), s, machine_id="m-1") for s in W]
    records.append(workspace("elsewhere", W.RUNNING, machine_id="m-2"))
    failed = failures(one, records, "its agent is down")
    assert {f.workspace.id for f in failed} == {"starting", "running", "stopping"}
    assert all(f.code == "machine_lost" and "m-1" in f.message for f in failed)


def test_machines_of_the_pool_that_no_record_names() -> None:
    observed = [Observed("m-1", "running"), Observed("m-2", "stopped")]
    assert without_record([machine("m-1")], observed) == ["m-2"]


# After the records were lost


def told(status: str = "running", epoch: int = 3, **fields: Any) -> WorkspaceReport:
    return row(status, epoch, **({"user_id": "ada", "secret": "s"} | fields))


def test_a_workspace_without_a_record_is_adopted_as_its_machine_says() -> None:
    runs, stopped = told(port=9001), told("stopped")
    assert adoptions(HERE, report(runs), {}) == [Adopt(runs, "10.0.0.7:9001")]
    assert adoptions(HERE, report(stopped), {}) == [Adopt(stopped, "")]


def test_what_does_not_say_whose_it_is_cannot_be_adopted() -> None:
    assert adoptions(HERE, report(row("running")), {}) == []
    assert adoptions(HERE, report(told("confused")), {}) == []
    assert adoptions(HERE, report(told(epoch=0)), {}) == []


@pytest.mark.parametrize("status", [W.QUEUED, W.STOPPED, W.FAILED, W.TERMINATED])
def test_a_record_older_than_what_its_machine_knows_was_made_after_the_loss(
    status: WorkspaceStatus,
) -> None:
    older = workspace("w1", status, epoch=2)
    assert adoptions(HERE, report(told()), {"w1": older}) == [Adopt(told(), "10.0.0.7:0")]
    assert adoptions(HERE, report(told()), {"w1": replace(older, epoch=3)}) == []


@pytest.mark.parametrize("status", [W.STARTING, W.RUNNING, W.STOPPING, W.TERMINATING])
def test_what_holds_a_slot_elsewhere_is_not_taken_over(status: WorkspaceStatus) -> None:
    assert adoptions(HERE, report(told()), {"w1": workspace("w1", status, epoch=1)}) == []


def test_only_machines_that_can_be_spoken_to_are_adopted() -> None:
    known = Observed("m-2", "running", "10.0.0.2:1", "token", 5)
    assert adoptable([HERE], [replace(known, machine_id="m-1"), known]) == [known]
    assert adoptable([], [replace(known, token="")]) == []
    assert adoptable([], [replace(known, slots=0)]) == []


def test_an_adopted_machine_is_waited_for_within_bounds() -> None:
    fresh = machine("m-1", M.LAUNCHING, unheard=True, created_at_ms=1000)
    assert unheard([HERE, fresh], 60_999, 60) == [fresh]
    assert unheard([HERE, fresh], 61_000, 60) == []


def test_an_adopted_machine_is_not_removed_before_it_told_what_it_holds() -> None:
    fresh = machine("m-1", M.LAUNCHING, unheard=True)
    late = {"now_ms": 61_000, "launch_timeout": 60.0}
    (found,) = converge_machines([fresh], [Observed("m-1", "stopped")], **late)
    assert isinstance(found, Lost)
    lost = replace(fresh, status=M.LOST)
    assert converge_machines([lost], [Observed("m-1", "stopped")], **late) == [Revive(lost)]
    (found,) = converge_machines([lost], [], **late)
    assert isinstance(found, Remove), "there is no disk"
