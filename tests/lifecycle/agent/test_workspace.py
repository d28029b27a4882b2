"""One workspace without HTTP around it: calls that cross at the worst moment."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from lifecycle.agent import copies
from lifecycle.agent.contract import Restore
from lifecycle.agent.disk import WorkspaceDir
from lifecycle.agent.isolation import Isolation
from lifecycle.agent.processes import started_at
from lifecycle.agent.refusal import Refused
from lifecycle.agent.workspace import LocalWorkspace, Setup


@pytest.fixture
async def workspace(tmp_path: Path) -> AsyncIterator[LocalWorkspace]:
    root = tmp_path.resolve()
    setup = Setup("m-1", root, 1, 0, Isolation(own=False))
    workspace = LocalWorkspace(setup, WorkspaceDir(root, "demo"), lambda: None)
    yield workspace
    await workspace.stop(workspace.saved.epoch, 1)


@pytest.fixture
def slow_restore(monkeypatch) -> dict[str, threading.Event]:
    """Restores begin, and end when told to."""
    events = {"begun": threading.Event(), "go on": threading.Event()}

    def restore(*_: object) -> None:
        events["begun"].set()
        assert events["go on"].wait(20)
        events["over"] = threading.Event()

    monkeypatch.setattr(copies, "restore", restore)
    return events


async def test_stops_and_starts_wait_for_a_restore_under_way(
    workspace: LocalWorkspace, slow_restore, make_spec, until
) -> None:
    workspace.start(make_spec(1, restore=Restore("/nowhere", "s1")))
    await until(slow_restore["begun"].is_set)
    stops = [asyncio.create_task(workspace.stop(1, 1)) for _ in range(2)]
    await asyncio.sleep(0)
    for epoch in (2, 3):
        workspace.start(make_spec(epoch))
        await asyncio.sleep(0)
    assert "over" not in slow_restore
    assert workspace.saved.pid == 0, "the newer boot touches nothing yet"
    slow_restore["go on"].set()
    await asyncio.gather(*stops)
    assert "over" in slow_restore
    await until(lambda: workspace.saved.status == "running", timeout=20)
    assert workspace.saved.epoch == 3
    assert started_at(workspace.saved.pid) == workspace.saved.started


async def test_a_full_disk_promises_nothing(
    workspace: LocalWorkspace, make_spec, monkeypatch
) -> None:
    def full(saved: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(workspace.where, "save", full)
    with pytest.raises(Refused, match="No space left") as refused:
        workspace.start(make_spec(1))
    assert (refused.value.status, refused.value.code) == (507, "disk_full")
    assert workspace.saved.epoch == 0
    monkeypatch.undo()


async def test_a_full_disk_does_not_keep_a_running_ide_from_being_stopped(
    workspace: LocalWorkspace, make_spec, monkeypatch, until
) -> None:
    workspace.start(make_spec(1))
    await until(lambda: workspace.saved.status == "running", timeout=20)
    pid = workspace.saved.pid

    def full(saved: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(workspace.where, "save", full)
    await workspace.stop(1, 1)
    assert (workspace.saved.status, started_at(pid)) == ("stopped", 0)
    monkeypatch.undo()
