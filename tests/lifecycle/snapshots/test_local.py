"""What the contract cannot say of a directory: full disks, killed writers, permissions."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lifecycle.agent.contract import Manifest
from lifecycle.snapshots import SnapshotError
from lifecycle.snapshots.archive import pack, unpack
from lifecycle.snapshots.local import LocalTarget
from lifecycle.snapshots.manifests import dump

Packed = Callable[..., tuple[Manifest, Path]]
NOISE = random.Random(4).randbytes(400_000)


def code_of(call: Callable[[], object]) -> str:
    with pytest.raises(SnapshotError) as caught:
        call()
    return caught.value.code


def restored(target: LocalTarget, snapshot: str, directory: Path) -> bytes:
    """The content of `notes` in that snapshot."""
    archive, root = directory / f"fetched-{snapshot}", directory / f"root-{snapshot}"
    target.fetch(target.manifest("demo", snapshot), archive)
    unpack(archive, root, max_bytes=2**30, max_files=10, owner=None)
    return (root / "notes").read_bytes()


def test_only_the_owner_may_look(tmp_path: Path, packed: Packed) -> None:
    umask = os.umask(0)
    try:
        LocalTarget(tmp_path / "new" / "shelf").put(*packed("s1"))
    finally:
        os.umask(umask)
    for path in [tmp_path / "new/shelf", *(tmp_path / "new/shelf").rglob("*")]:
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path


def test_a_shelf_that_cannot_be_written(tmp_path: Path, packed: Packed) -> None:
    (tmp_path / "file").touch()
    target = LocalTarget(tmp_path / "file")
    manifest, archive = packed("s1")
    with pytest.raises(SnapshotError, match=f"{tmp_path}/file/demo.*permissions") as caught:
        target.put(manifest, archive)
    assert caught.value.code == "unreachable"
    assert target.list("demo") == []


# --- full disks ----------------------------------------------------------------------------------


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    if os.geteuid() != 0:
        pytest.skip("only root mounts a tiny file system")
    where = tmp_path / "tiny"
    where.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(where)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    yield where
    subprocess.run(["umount", str(where)], check=True)


def test_a_full_disk_leaves_the_previous_snapshot(
    tiny: Path, tmp_path: Path, packed: Packed
) -> None:
    target = LocalTarget(tiny / "shelf")
    target.put(*packed("s1", content=b"previous"))
    manifest, archive = packed("s2", content=NOISE, at=2000)
    assert code_of(lambda: target.put(manifest, archive)) == "disk_full"
    assert sorted(os.listdir(tiny / "shelf/demo")) == ["s1.json", "s1.tar.zst"]
    assert target.list("demo") == ["s1"]
    assert restored(target, "s1", tmp_path) == b"previous"


def test_no_room_for_the_manifest_leaves_no_archive(tiny: Path, packed: Packed) -> None:
    target = LocalTarget(tiny / "shelf")
    target.put(*packed("s1", content=b"previous"))
    manifest, archive = packed("s2", content=b"x", at=2000)
    with (tiny / "filler").open("wb", buffering=0) as file:
        while True:
            try:
                file.write(bytes(4096))
            except OSError:
                break
        file.truncate((file.tell() // 4096 - 1) * 4096)  # room for one page: the archive's
        assert code_of(lambda: target.put(manifest, archive)) == "disk_full"
    assert sorted(os.listdir(tiny / "shelf/demo")) == ["s1.json", "s1.tar.zst"]


def test_a_full_disk_while_packing_fetching_and_unpacking(
    tiny: Path, tmp_path: Path, packed: Packed, pack_tree: Callable[..., Manifest]
) -> None:
    manifest, archive = packed("s1", content=NOISE)
    root = tmp_path / "files-s1"
    assert code_of(lambda: pack_tree(root, tiny / "packed")) == "disk_full"
    target = LocalTarget(tmp_path / "shelf")
    target.put(manifest, archive)
    assert code_of(lambda: target.fetch(manifest, tiny / "fetched")) == "disk_full"
    bounds: dict[str, Any] = {"max_bytes": 2**30, "max_files": 10, "owner": None}
    assert code_of(lambda: unpack(archive, tiny / "root", **bounds)) == "disk_full"
    assert os.listdir(tiny) == []


LIMITED = """
import json, resource, sys
from pathlib import Path
from lifecycle.agent.contract import Manifest
from lifecycle.snapshots import SnapshotError
from lifecycle.snapshots.archive import pack, unpack
from lifecycle.snapshots.local import LocalTarget
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
here = Path(sys.argv[1])
manifest = Manifest(**json.loads((here / "manifest").read_text()))
for call in (
    lambda: pack(here / "files-s2", here / "p", workspace_id="demo", snapshot_id="s2", epoch=1,
                 created_at_ms=1, max_bytes=2**30, max_files=10),
    lambda: LocalTarget(here / "shelf").put(manifest, here / "s2.packed"),
    lambda: unpack(here / "s2.packed", here / "root", max_bytes=2**30, max_files=9, owner=None),
):
    try:
        call()
    except SnapshotError as error:
        print(error.code)
"""


def test_no_room_for_a_file_by_a_limit_of_the_process(tmp_path: Path, packed: Packed) -> None:
    """The same without being root: the kernel refuses to let a file grow."""
    target = LocalTarget(tmp_path / "shelf")
    target.put(*packed("s1", content=b"previous"))
    manifest, _ = packed("s2", content=NOISE, at=2000)
    (tmp_path / "manifest").write_bytes(dump(manifest))
    before = sorted(os.listdir(tmp_path))
    out = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert out.stdout.split() == ["disk_full"] * 3
    assert sorted(os.listdir(tmp_path)) == before
    assert sorted(os.listdir(tmp_path / "shelf/demo")) == ["s1.json", "s1.tar.zst"]
    assert restored(target, "s1", tmp_path) == b"previous"


# --- killed writers ------------------------------------------------------------------------------

# Every file opened, renamed or removed is an audit event: the writer dies at the n-th of them.
KILLED = """
import itertools, json, os, sys
from pathlib import Path
from lifecycle.agent.contract import Manifest
from lifecycle.snapshots.local import LocalTarget
here, dies_at = Path(sys.argv[1]), int(sys.argv[2])
manifest = Manifest(**json.loads((here / "manifest").read_text()))
target, steps = LocalTarget(here / "shelf"), itertools.count()
def watch(event, args):
    if event in ("open", "os.rename", "os.remove", "os.listdir") and next(steps) == dies_at:
        os.kill(os.getpid(), 9)
sys.addaudithook(watch)
target.put(manifest, here / "s2.packed")
"""


def put_killed_at(step: int, here: Path) -> int:
    arguments = [sys.executable, "-c", KILLED, str(here), str(step)]
    return subprocess.run(arguments, capture_output=True).returncode


def test_killed_at_every_step_of_a_put(tmp_path: Path, packed: Packed) -> None:
    target = LocalTarget(tmp_path / "shelf")
    target.put(*packed("s1", content=b"previous"))
    manifest, _ = packed("s2", content=b"new", at=2000)
    (tmp_path / "manifest").write_bytes(dump(manifest))
    seen = []
    for step in range(100):
        code = put_killed_at(step, tmp_path)
        listed = target.list("demo")
        seen.append((code, listed))
        assert listed in (["s1"], ["s1", "s2"]), step
        for snapshot in listed:
            target.fetch(target.manifest("demo", snapshot), tmp_path / "fetched")
        if code == 0:
            break
        target.delete("demo", "s2")
    assert [code for code, _ in seen[:-1]] == [-9] * (len(seen) - 1)
    assert (-9, ["s1"]) in seen
    assert seen[-1] == (0, ["s1", "s2"])
    assert len(seen) > 8
    assert restored(target, "s1", tmp_path) == b"previous"
    assert restored(target, "s2", tmp_path) == b"new"


def test_killed_while_copying_and_swept_by_the_next(tmp_path: Path, packed: Packed) -> None:
    """The archive comes through a FIFO that we feed only half of it."""
    target = LocalTarget(tmp_path / "shelf")
    target.put(*packed("s1", content=b"previous"))
    manifest, archive = packed("s2", content=NOISE, at=2000)
    (tmp_path / "manifest").write_bytes(dump(manifest))
    data = archive.read_bytes()
    archive.unlink()
    os.mkfifo(archive)
    child = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path), "-1"])
    try:
        with archive.open("wb", buffering=0) as feed:  # opens once the child reads
            half = memoryview(data)[: len(data) // 2]
            while half:  # returns once the child has taken all but the pipe's 64 KiB
                half = half[feed.write(half) :]
            child.kill()
            child.wait(10)
    finally:
        child.kill()
        child.wait(10)
    rubbish = [name for name in os.listdir(tmp_path / "shelf/demo") if name.startswith(".")]
    assert rubbish == [".s2.tar.zst.tmp"]
    assert target.list("demo") == ["s1"]
    target.put(*packed("s3", at=3000))
    assert sorted(os.listdir(tmp_path / "shelf/demo")) == [
        "s1.json", "s1.tar.zst", "s3.json", "s3.tar.zst",
    ]  # fmt: skip


def test_archives_that_were_never_committed_are_swept(tmp_path: Path, packed: Packed) -> None:
    target = LocalTarget(tmp_path / "shelf")
    target.put(*packed("s1"))
    target.put(*packed("s2"))
    (tmp_path / "shelf/demo/s1.json").unlink()
    (tmp_path / "shelf/demo/s2.json").write_text("{")  # damaged, but it was committed
    target.put(*packed("s3"))
    assert sorted(os.listdir(tmp_path / "shelf/demo")) == [
        "s2.json", "s2.tar.zst", "s3.json", "s3.tar.zst",
    ]  # fmt: skip


def test_writers_of_one_workspace_take_turns(tmp_path: Path, packed: Packed) -> None:
    """None sweeps away what another is writing."""
    target = LocalTarget(tmp_path / "shelf")
    snapshots = [packed(f"s{n}", content=NOISE[: 50_000 + n], at=n) for n in range(8)]
    failed: list[Exception] = []

    def put(manifest: Manifest, archive: Path) -> None:
        try:
            target.put(manifest, archive)
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=put, args=each) for each in snapshots]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert target.list("demo") == [f"s{n}" for n in range(8)]
    for manifest, _ in snapshots:
        target.fetch(manifest, tmp_path / "fetched")


def test_what_was_packed_can_be_put_from_anywhere(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    manifest = pack(
        root, tmp_path / "any-name", workspace_id="demo", snapshot_id="s1", epoch=1,
        created_at_ms=1, max_bytes=0, max_files=0,
    )  # fmt: skip
    LocalTarget(tmp_path / "shelf").put(manifest, tmp_path / "any-name")
    assert LocalTarget(tmp_path / "shelf").list("demo") == ["s1"]
