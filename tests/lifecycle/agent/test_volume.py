"""A workspace's own volume: a real file system on a loop device, mounted and let go of by a real agent."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lifecycle.agent import volume
from lifecycle.agent.disk import WorkspaceDir
from lifecycle.agent.refusal import BootFailed


def loop_device(image: Path) -> tuple[str, str]:
    """Its name, or why there is none."""
    if os.geteuid() != 0:
        return "", "attaching a loop device needs root"
    needed = ("losetup", "mkfs.ext4", "blkid", "mount", "umount", "resize2fs")
    if missing := [name for name in needed if not shutil.which(name)]:
        return "", f"{missing[0]} is not installed"
    image.touch()
    os.truncate(image, 32 << 20)
    done = subprocess.run(["losetup", "-f", "--show", image], capture_output=True, text=True)
    return done.stdout.strip(), f"no loop device can be had here: {done.stderr.strip()}"


@pytest.fixture
def device(tmp_path: Path) -> Iterator[str]:
    name, why = loop_device(tmp_path / "volume.img")
    if not name:
        pytest.skip(why)
    yield name
    for point in mounted_at(name):
        subprocess.run(["umount", point], check=False)
    subprocess.run(["losetup", "-d", name], check=True)


def mounted_at(device: str) -> list[str]:
    rows = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    return [row[1] for row in rows if row[0] == device]


def is_free(device: str) -> bool:
    """Not mounted in any view of the disk: only then it can be detached."""
    try:
        os.close(os.open(device, os.O_RDONLY | os.O_EXCL))
    except OSError:
        return False
    return True


async def test_files_are_on_the_volume_and_come_along(agent: Any, device: str) -> None:
    row = await agent.start(volume="vol-1", device=device)
    assert row.status == "running", row
    (point,) = mounted_at(device)
    options = next(
        line.split()[3] for line in Path("/proc/mounts").read_text().splitlines() if point in line
    )
    assert {"nosuid", "nodev"} <= set(options.split(","))
    home = Path(point) / "home"
    (home / "a.txt").write_text("mine")
    assert (await agent.start("other")).status == "running"
    assert (await agent.stop()).status == "stopped"
    assert is_free(device), "unmounted before it says stopped, whoever else runs"
    await agent.agents.remove(agent.machine, "demo", 1)
    assert (await agent.start(epoch=2, volume="vol-1", device=device)).status == "running"
    assert (home / "a.txt").read_text() == "mine", "no second file system over the first"


async def test_a_neighbours_view_does_not_hold_a_volume(agent: Any, device: str) -> None:
    assert (await agent.start(volume="vol-1", device=device)).status == "running"
    row = await agent.start("other")
    mounts = Path(f"/proc/{row.pid}/mounts").read_text()
    if mounts == Path("/proc/self/mounts").read_text():
        pytest.skip("workspaces have no view of their own here")
    assert device not in mounts


async def test_an_agent_that_was_killed_lets_go_of_it_when_it_is_back(
    agent: Any, device: str
) -> None:
    assert (await agent.start(volume="vol-1", device=device)).status == "running"
    agent.kill()
    assert mounted_at(device)
    await agent.launch()
    row = await agent.row()
    assert (row.status, row.error_code) == ("failed", "machine_restarted")
    assert is_free(device)
    assert (await agent.start(epoch=2, volume="vol-1", device=device)).status == "running"


async def test_files_are_removed_only_from_the_machine(agent: Any, device: str) -> None:
    assert (await agent.start(volume="vol-1", device=device)).status == "running"
    (Path(mounted_at(device)[0]) / "home" / "a.txt").write_text("mine")
    await agent.agents.remove(agent.machine, "demo", 1)
    assert is_free(device)
    row = await agent.start(epoch=2, volume="vol-1", device=device)
    assert row.status == "running", row
    assert (Path(mounted_at(device)[0]) / "home" / "a.txt").read_text() == "mine"


async def test_a_volume_that_does_not_appear_fails_the_boot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(volume, "APPEARS_WITHIN", 0.1)
    where = WorkspaceDir(tmp_path, "demo")
    where.make()
    with pytest.raises(BootFailed, match="vol-1 did not appear") as failed:
        volume.mount(where, "vol-1", str(tmp_path / "nothing"))
    assert failed.value.code == "volume_missing"


def test_only_what_is_empty_is_formatted(device: str, tmp_path: Path) -> None:
    where = WorkspaceDir(tmp_path / "m", "demo")
    where.make()
    subprocess.run(["mkswap", "-q", device], check=False, capture_output=True)
    swap = Path(device).read_bytes()
    assert b"SWAPSPACE2" in swap
    with pytest.raises(BootFailed) as failed:
        volume.mount(where, "vol-1", device)
    assert failed.value.code == "volume_mount"
    assert Path(device).read_bytes() == swap


def test_volumes_are_known_by_their_id_first() -> None:
    names = [str(path) for path in volume._candidates("vol-0a1b", "/dev/sdf")]
    assert names == [
        "/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_vol0a1b",
        "/dev/sdf",
        "/dev/xvdf",
    ]


def test_a_mounted_volume_is_never_thrown_away(device: str, tmp_path: Path) -> None:
    where = WorkspaceDir(tmp_path / "m", "demo")
    where.make()
    volume.mount(where, "vol-1", device)
    (where.volume / "a.txt").write_text("mine")
    with pytest.raises(OSError, match="still mounted"):
        where.discard(tmp_path / "trash")
    assert (where.volume / "a.txt").read_text() == "mine"
