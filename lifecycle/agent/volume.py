"""A workspace's own volume: found, formatted when it is new, mounted, and let go of. Everything here blocks.

It is mounted in the workspace's directory; the files are in `home` on it, beside ext4's own lost+found.
What is mounted is asked of the kernel every time, so an agent that was started anew knows it too.
"""

from __future__ import annotations

import logging
import os
import subprocess
import time
from pathlib import Path

from lifecycle.agent.disk import WorkspaceDir
from lifecycle.agent.processes import StillRunning
from lifecycle.agent.refusal import BootFailed

log = logging.getLogger("lifecycle.agent")

BY_ID = Path("/dev/disk/by-id")
APPEARS_WITHIN = 30.0  # seconds from attached to a device in /dev
LETS_GO_WITHIN = 10.0  # seconds that a file system stays busy after its last process
COMMAND_TIMEOUT = 600.0  # a journal of an unclean end is replayed by the mount


def mount(where: WorkspaceDir, volume: str, device: str) -> None:
    """Make it the place of the workspace's files. Raises BootFailed("volume_…")."""
    source = _appearing(volume, device)
    point = where.volume
    point.mkdir(mode=0o711, exist_ok=True)
    if os.path.ismount(point):
        if point.stat().st_dev == source.stat().st_rdev:
            return
        raise BootFailed("volume_busy", f"another volume is mounted at {point}; try again")
    if not _has_files(source):
        log.info("%s: a file system for the new volume %s", where.id, volume)
        _run("volume_format", "mkfs.ext4", "-q", "-m", "0", "-L", where.id[:16], str(source))
    _run("volume_mount", "mount", "-t", "ext4", "-o", "nosuid,nodev", str(source), str(point))
    # One made from a snapshot may be larger than the file system on it.
    _run("volume_grow", "resize2fs", str(source))
    # As for every directory above a home: its user passes through.
    point.chmod(0o711)


def unmount(where: WorkspaceDir) -> None:
    """Return once nothing here uses it any more. Raises StillRunning."""
    if not os.path.ismount(where.volume):
        return
    source = _mounted_at(where.volume)
    deadline = time.monotonic() + LETS_GO_WITHIN
    while busy := _in_use(where.volume, source):
        if time.monotonic() > deadline:
            raise StillRunning(f"the volume of {where.id} cannot be let go of: {busy}")
        time.sleep(0.05)


def _mounted_at(point: Path) -> Path:
    rows = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    # A space in a path is written \040 there.
    return Path(next(row[0] for row in rows if row[1] == str(point).replace(" ", "\\040")))


def _in_use(point: Path, source: Path) -> str:
    """Unmount it, and say what is still in the way. A view of the disk that ended a moment ago holds on to
    what was mounted in it until the kernel has cleaned up."""
    if os.path.ismount(point) and (failed := _try("umount", str(point))):
        return failed
    try:
        os.close(os.open(source, os.O_RDONLY | os.O_EXCL))
    except OSError as error:
        return str(error)
    return ""


def _appearing(volume: str, device: str) -> Path:
    deadline = time.monotonic() + APPEARS_WITHIN
    while True:
        for candidate in _candidates(volume, device):
            if candidate.is_block_device():
                return candidate
        if time.monotonic() > deadline:
            raise BootFailed(
                "volume_missing",
                f"volume {volume} did not appear on this machine as {device} within"
                f" {APPEARS_WITHIN:g} s; start it again",
            )
        time.sleep(0.1)


def _candidates(volume: str, device: str) -> list[Path]:
    """Its names, surest first: a Nitro machine names NVMe devices in any order, but tells whose they are."""
    names = [BY_ID / f"nvme-Amazon_Elastic_Block_Store_{volume.replace('-', '')}"]
    if device:
        names.append(Path(device))
        if device.startswith("/dev/sd"):
            names.append(Path(device.replace("/dev/sd", "/dev/xvd")))
    return names


def _has_files(source: Path) -> bool:
    """Whether there is anything on it that a new file system would destroy. What cannot be read is not
    empty."""
    try:
        with source.open("rb") as file:
            file.read(1 << 20)
    except OSError as error:
        raise BootFailed("volume_unreadable", f"cannot read {source}: {error}") from error
    done = subprocess.run(
        ["blkid", "-p", str(source)], capture_output=True, text=True, timeout=COMMAND_TIMEOUT
    )
    if done.returncode not in (0, 2):  # 2: nothing that it knows
        raise BootFailed(
            "volume_unreadable", f"cannot tell what is on {source}: {done.stderr.strip()}"
        )
    return done.returncode == 0


def _run(code: str, *argv: str) -> None:
    if failed := _try(*argv):
        raise BootFailed(code, failed)


def _try(*argv: str) -> str:
    """What went wrong; "" when nothing did."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=COMMAND_TIMEOUT)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{argv[0]} could not be run: {error}"
    if done.returncode == 0:
        return ""
    return f"{argv[0]} ended with {done.returncode}: {done.stderr.strip()[-300:]}"
