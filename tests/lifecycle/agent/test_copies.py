"""Snapshots and restores through the agent."""

from __future__ import annotations

import asyncio
import ctypes
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from lifecycle.agent.contract import Restore, SnapshotSpec
from lifecycle.agents import AgentRefused
from lifecycle.snapshots.registry import open_target


async def test_a_snapshot_brings_the_files_back(agent, tmp_path: Path) -> None:
    target = str(tmp_path / "snapshots")
    await agent.start("demo", 1)
    await agent.ask("demo", "write", name="notes.txt", text="kept")
    await agent.stop("demo", 1)
    manifest = await agent.agents.snapshot(agent.machine, "demo", SnapshotSpec(1, target, "s1"))
    assert (manifest.workspace_id, manifest.snapshot_id, manifest.epoch) == ("demo", "s1", 1)
    assert open_target(target).manifest("demo", "s1") == manifest
    assert not (agent.home().parent / "snapshot.tmp").exists()

    # The answer was lost: asked again, the committed one is found.
    again = await agent.agents.snapshot(agent.machine, "demo", SnapshotSpec(1, target, "s1"))
    assert again == manifest

    await agent.agents.remove(agent.machine, "demo", 1)
    assert not agent.home().exists()
    restored = await agent.start("demo", 2, restore=Restore(target, "s1"))
    assert (restored.status, restored.error) == ("running", "")
    assert await agent.ask("demo", "read", path=str(agent.home() / "notes.txt")) == "kept"
    assert await agent.ask("demo", "write", name="notes.txt", text="and its owner's")


async def test_a_restore_replaces_older_files(agent, tmp_path: Path) -> None:
    target = str(tmp_path / "snapshots")
    await agent.start("demo", 1)
    await agent.ask("demo", "write", name="new.txt", text="of the snapshot")
    await agent.stop("demo", 1)
    await agent.agents.snapshot(agent.machine, "demo", SnapshotSpec(1, target, "s1"))
    (agent.home() / "new.txt").unlink()
    (agent.home() / "old.txt").write_text("from before")
    await agent.start("demo", 2, restore=Restore(target, "s1"))
    assert await agent.ask("demo", "listing", path=str(agent.home())) == ["new.txt"]
    assert not list(agent.home().parent.glob("home.*"))


@pytest.mark.parametrize("damage", ["missing", "corrupt"])
async def test_a_bad_snapshot_leaves_the_files_alone(agent, tmp_path: Path, damage: str) -> None:
    target = str(tmp_path / "snapshots")
    await agent.start("demo", 1)
    await agent.ask("demo", "write", name="notes.txt", text="kept")
    await agent.stop("demo", 1)
    manifest = await agent.agents.snapshot(agent.machine, "demo", SnapshotSpec(1, target, "s1"))
    archive = Path(target) / "demo" / manifest.archive
    data = bytearray(archive.read_bytes())
    data[len(data) // 2] ^= 1
    archive.write_bytes(data)
    wanted = "s1" if damage == "corrupt" else "s0"
    failed = await agent.start("demo", 2, restore=Restore(target, wanted))
    code = {"corrupt": "restore_corrupt", "missing": "restore_not_found"}[damage]
    assert (failed.status, failed.error_code) == ("failed", code)
    assert agent.marked() == []
    assert (agent.home() / "notes.txt").read_text() == "kept"
    assert not list(agent.home().parent.glob("home.*"))
    assert not list(agent.home().parent.glob("restore.*"))


async def test_a_running_workspace_can_be_snapshotted(agent, tmp_path: Path) -> None:
    target = str(tmp_path / "snapshots")
    running = await agent.start("demo", 1)
    await agent.ask("demo", "write", name="notes.txt", text="kept")
    manifest = await agent.agents.snapshot(agent.machine, "demo", SnapshotSpec(1, target, "s1"))
    assert manifest.files >= 1
    assert (await agent.row()).pid == running.pid


async def test_no_snapshot_while_it_starts(agent, make_spec, runs, tmp_path: Path) -> None:
    never = make_spec(1, command=runs("import time; time.sleep(600)"))
    await agent.agents.start(agent.machine, "demo", never)
    with pytest.raises(AgentRefused, match="demo is starting") as refused:
        await agent.agents.snapshot(
            agent.machine, "demo", SnapshotSpec(1, str(tmp_path / "snapshots"), "s1")
        )
    assert refused.value.code == "busy"


async def test_a_boot_that_never_had_files_has_no_snapshot(agent, tmp_path: Path) -> None:
    """Stopped before its home was made: "busy" would be asked again for ever."""
    await agent.start("demo", 1)
    await agent.agents.stop(agent.machine, "demo", 1)
    shutil.rmtree(agent.home())
    with pytest.raises(AgentRefused, match="no whole files") as refused:
        await agent.agents.snapshot(
            agent.machine, "demo", SnapshotSpec(1, str(tmp_path / "snapshots"), "s1")
        )
    assert refused.value.code == "not_found"


async def test_too_large(agent, tmp_path: Path) -> None:
    await agent.start("demo", 1)
    await agent.ask("demo", "write", name="notes.txt", text="x" * 1000)
    await agent.stop("demo", 1)
    spec = SnapshotSpec(1, str(tmp_path / "snapshots"), "s1", max_bytes=999)
    with pytest.raises(AgentRefused) as refused:
        await agent.agents.snapshot(agent.machine, "demo", spec)
    assert refused.value.code == "too_large"


async def test_a_start_waits_for_the_snapshot_under_way(agent, make_spec, tmp_path: Path) -> None:
    target = str(tmp_path / "snapshots")
    await agent.start("demo", 1)
    await agent.stop("demo", 1)
    (agent.home() / "large").write_bytes(os.urandom(30 * 2**20))
    writing = asyncio.create_task(
        agent.agents.snapshot(agent.machine, "demo", SnapshotSpec(1, target, "s1"))
    )
    await agent.until((agent.home().parent / "snapshot.tmp").exists, what="the snapshot begun")
    accepted = await agent.agents.start(agent.machine, "demo", make_spec(2))
    assert accepted.status == "starting"
    assert (await writing).bytes >= 30 * 2**20
    assert (await agent.settled()).status == "running"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    where = tmp_path / "small"
    where.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"tmpfs", os.fsencode(where), b"tmpfs", 0, b"size=4m") != 0:
        pytest.skip(f"cannot mount: {os.strerror(ctypes.get_errno())}")
    yield where
    detach = 2
    assert libc.umount2(os.fsencode(where), detach) == 0


@pytest.mark.parametrize("full", ["store", "machine"])
async def test_a_full_disk_keeps_the_previous_snapshot(
    live, tmp_path: Path, small_disk: Path, full: str
) -> None:
    target = str((small_disk if full == "store" else tmp_path) / "snapshots")
    if full == "machine":
        live.directory = small_disk / "machine"
    await live.launch()
    await live.start("demo", 1)
    await live.ask("demo", "write", name="notes.txt", text="kept")
    await live.stop("demo", 1)
    first = await live.agents.snapshot(live.machine, "demo", SnapshotSpec(1, target, "s1"))

    (live.home() / "large").write_bytes(os.urandom(2500 * 1024 if full == "machine" else 6 * 2**20))
    with pytest.raises(AgentRefused) as refused:
        await live.agents.snapshot(live.machine, "demo", SnapshotSpec(1, target, "s2"))
    assert refused.value.code == "disk_full"
    assert open_target(target).list("demo") == ["s1"]
    assert open_target(target).manifest("demo", "s1") == first
    assert not (live.home().parent / "snapshot.tmp").exists()

    await live.agents.remove(live.machine, "demo", 1)
    restored = await live.start("demo", 2, restore=Restore(target, "s1"))
    assert (restored.status, restored.error) == ("running", "")
    assert await live.ask("demo", "read", path=str(live.home() / "notes.txt")) == "kept"
