"""Records against what a machine's agent reports, and against what the pool sees."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from lifecycle.agent.contract import Report, WorkspaceReport
from lifecycle.model import STANDBY, Machine, MachineStatus, Workspace, WorkspaceStatus
from lifecycle.pools import Observed
from lifecycle.reconcile import (
    Adopt,
    Await,
    Boot,
    Change,
    Doom,
    Down,
    Failed,
    Halt,
    Lost,
    MachineChange,
    Outlook,
    Park,
    Progress,
    Remove,
    Repeat,
    Revive,
    Running,
    Stopped,
    Watch,
    adoptable,
    adoptions,
    converge,
    converge_machines,
    failures,
    homeless,
    standby,
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
    one: Machine,
    seen: str | None,
    now: float = 1000,
    needed: tuple[str, ...] = (),
    address: str = "10.0.0.7:7009",
    leaving: str = "",
    **more: Any,
) -> MachineChange | None:
    row = Observed(one.id, seen or "running", address, leaving=leaving)  # type: ignore[arg-type]
    outlook = Outlook(launch_timeout=60, needed=frozenset(needed), **more)
    found = converge_machines([one], [row] if seen else [], int(now * 1000), outlook)
    return found[0] if found else None


@pytest.mark.parametrize("status", [M.LAUNCHING, M.READY, M.DRAINING, M.LOST])
def test_a_machine_that_runs_is_watched_where_the_pool_sees_it(status: MachineStatus) -> None:
    one = machine("m-1", status, address="10.0.0.1:1")
    assert meet(one, "running") == Watch(replace(one, address="10.0.0.7:7009"))


def test_a_launch_gets_its_time() -> None:
    one = machine("m-1", M.LAUNCHING, status_since_ms=940_001)
    for seen in ("launching", "stopped"):
        assert meet(one, seen, now=1000) is None
    assert meet(one, None, now=954) is None
    assert meet(one, None, now=1000) == Repeat(one), "whoever was to launch it is gone"
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


def test_a_stopped_machine_that_holds_nothing_goes_unless_it_is_on_standby() -> None:
    first, second = (machine(f"m-{n}", M.STOPPED, reason=STANDBY) for n in (1, 2))
    other = machine("m-3", M.STOPPED, reason="its workspace is stopped")
    kept = standby([first, second, other], 1)
    assert kept == {"m-1"}
    assert meet(first, "stopped", standby=kept) is None
    for each in (second, other):
        assert meet(each, "stopped", standby=kept) == Remove(
            each, "it is stopped and holds nothing"
        )
    assert standby([first, replace(second, status=M.READY)], 0) == frozenset()


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
    late = {"now_ms": 61_000, "outlook": Outlook(launch_timeout=60.0)}
    (found,) = converge_machines([fresh], [Observed("m-1", "stopped")], **late)
    assert isinstance(found, Lost)
    lost = replace(fresh, status=M.LOST)
    assert converge_machines([lost], [Observed("m-1", "stopped")], **late) == [Revive(lost)]
    (found,) = converge_machines([lost], [], **late)
    assert isinstance(found, Remove), "there is no disk"


def far(id: str = "m-1", status: M = M.READY, **fields: Any) -> Machine:
    """A machine of a pool whose word may be old, and that joins by itself."""
    return machine(id, status, **({"joined": True} | fields))


AWS = {"lag": 120.0, "joins": True}


def test_what_still_reports_is_there_whatever_the_pool_says() -> None:
    one = far(last_report_ms=990_000)
    for seen in (None, "stopped", "stopping"):
        assert meet(one, seen, **AWS) is None
        found = meet(replace(one, last_report_ms=970_000), seen, **AWS)
        assert isinstance(found, Lost)
    assert isinstance(meet(one, None), Lost), "a pool that is never behind is believed at once"


def test_a_machine_that_joins_is_watched_where_it_says_it_is() -> None:
    launched = far(status=M.LAUNCHING, status_since_ms=1000, address="", joined=False)
    assert meet(launched, "running", now=20, address="", **AWS) is None
    said = replace(launched, address="10.1.1.1:7070", last_report_ms=15_000, joined=True)
    assert meet(said, "running", now=20, address="10.9.9.9:1", **AWS) == Watch(said)
    old = replace(said, last_report_ms=500)
    assert meet(old, "running", now=20, address="", **AWS) is None, "said before it was stopped"


def test_a_machine_that_does_not_join_in_time_is_removed() -> None:
    silent = far(status=M.LAUNCHING, address="", joined=False)
    found = meet(silent, "running", now=61, address="", **AWS)
    assert isinstance(found, Remove)
    assert "did not join after 60 s" in found.reason
    kept = meet(replace(silent, holds_files=1), "running", now=61, address="", **AWS)
    assert isinstance(kept, Lost)


def test_a_launch_that_nobody_carried_out_is_repeated_when_the_pool_must_show_it() -> None:
    intent = far(status=M.LAUNCHING, address="", joined=False)
    slow = AWS | {"lag": 40.0}
    assert meet(intent, None, now=39, **slow) is None
    assert meet(intent, None, now=41, **slow) == Repeat(intent)
    assert meet(replace(intent, joined=True), None, now=41, **slow) is None, "it was there"
    assert isinstance(meet(intent, None, now=61, **slow), Remove)


def test_an_orphan_goes_when_the_records_are_known_to_be_whole() -> None:
    orphan = far(status=M.LAUNCHING, address="", joined=False, unheard=True)
    assert isinstance(meet(orphan, "running", now=61, address="", **AWS), Lost)
    found = meet(orphan, "running", now=61, address="", files_known=True, **AWS)
    assert isinstance(found, Remove)


def test_a_dedicated_machine_is_parked_with_its_workspace() -> None:
    mine = far(slots=1, holds_files=1, last_report_ms=999_000)
    assert meet(mine, "running", **AWS) == Park(mine)
    for other in (
        replace(mine, occupied=1),
        replace(mine, holds_files=0),
        replace(mine, slots=5),
        replace(mine, doomed_at_ms=5),
    ):
        assert meet(other, "running", **AWS) == Watch(other)
    assert meet(mine, "running", needed=("m-1",), **AWS) == Watch(mine)
    assert meet(mine, "running", keeps_disks=False, **AWS) == Watch(mine)


def test_a_stop_that_was_never_asked_for_is_asked_for_again() -> None:
    parked = far(status=M.STOPPED, slots=1, holds_files=1)
    assert meet(parked, "running", now=60, **AWS) is None, "the pool's word may be old"
    assert meet(parked, "running", now=121, **AWS) == Park(parked)


def test_who_comes_back_while_the_machine_stops_waits_for_it() -> None:
    parked = far(status=M.STOPPED, slots=1, holds_files=1)
    assert meet(parked, "stopping", **AWS) is None
    assert meet(parked, "stopping", needed=("m-1",), **AWS) == Await(parked)
    assert meet(parked, "stopped", needed=("m-1",), **AWS) == Revive(parked)
    assert meet(parked, None, now=119, needed=("m-1",), **AWS) is None
    assert isinstance(meet(parked, None, now=121, needed=("m-1",), **AWS), Remove)


def test_what_was_started_while_it_stopped_is_stopped_and_started_once_it_can_be() -> None:
    early = far(status=M.LAUNCHING, holds_files=1)
    for state in ("stopping", "stopped"):
        assert meet(early, state, now=5, **AWS) is None, "the pool may be behind"
        assert meet(early, state, now=20, **AWS) == Down(early)
        assert meet(early, state, now=600, **AWS) == Down(early), "never lost for that"
    parked = far(status=M.STOPPED, holds_files=1)
    assert meet(parked, "running", needed=("m-1",), **AWS) == Revive(parked)


def test_what_the_pool_takes_away_is_doomed_once() -> None:
    one = far(last_report_ms=999_000)
    found = meet(one, "running", leaving="Auto Scaling takes it away", **AWS)
    assert found == Doom(one, "Auto Scaling takes it away")
    told = replace(one, doomed_at_ms=5)
    assert meet(told, "running", leaving="Auto Scaling takes it away", **AWS) == Watch(told)


def test_a_record_without_a_machine_is_homeless() -> None:
    here = workspace("w1", W.RUNNING, machine_id="m-1")
    away = workspace("w2", W.RUNNING, machine_id="m-9")
    asleep = workspace("w3", W.STOPPED, machine_id="m-9")
    assert homeless([here, away, asleep], [machine("m-1")], []) == [away]
    assert homeless([away], [], [Observed("m-9", "running")]) == []


def test_machines_that_join_are_adopted_without_their_tokens() -> None:
    seen = Observed("m-4", "running", slots=5)
    assert adoptable([], [seen]) == []
    assert adoptable([], [seen], joins=True) == [seen]


def test_a_machine_that_reports_and_cannot_be_asked_is_replaced() -> None:
    shut = far(status=M.LAUNCHING, last_report_ms=120_000, joined=True)
    assert isinstance(meet(shut, "running", now=119, **AWS), Watch)
    found = meet(shut, "running", now=121, **AWS)
    assert isinstance(found, Remove)
    assert "does not answer" in found.reason
    assert isinstance(meet(replace(shut, holds_files=1), "running", now=121, **AWS), Watch)
