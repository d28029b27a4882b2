"""What people take away of a snapshot: a .tar.gz that other programs read, and nothing left behind."""

from __future__ import annotations

import io
import tarfile
import tempfile
from pathlib import Path

import pytest

from lifecycle.agent.contract import Manifest
from lifecycle.model import Workspace
from lifecycle.model import WorkspaceStatus as W
from lifecycle.snapshots import SnapshotError
from lifecycle.snapshots.archive import pack
from lifecycle.snapshots.downloads import AT_ONCE, PIECE, Downloads

WORKSPACE = Workspace("w1", "ada", W.STOPPED, 0, 0, snapshot_id="s1")
BIG = bytes(range(256)) * 4096


@pytest.fixture
def downloads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Downloads:
    """Of one snapshot, made of real files; what is temporary is below tmp_path / "tmp"."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    files = tmp_path / "files"
    files.mkdir()
    (files / "a.txt").write_text("hello")
    (files / "big").write_bytes(BIG)
    (files / "link").symlink_to("a.txt")
    archive = tmp_path / "archive"
    packed = pack(
        files, archive, workspace_id="w1", snapshot_id="s1", epoch=1, created_at_ms=5000,
        max_bytes=2**30, max_files=100,
    )  # fmt: skip

    async def fetch(workspace: Workspace, into: Path) -> Manifest:
        if workspace.id != "w1":
            raise SnapshotError("not_found", "there is none")
        into.write_bytes(archive.read_bytes())
        return packed

    return Downloads(fetch)


def left(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "tmp").iterdir())


async def test_it_is_a_tar_gz_and_leaves_nothing(downloads: Downloads, tmp_path: Path) -> None:
    archive = await downloads(WORKSPACE)
    assert archive.created_at_ms == 5000
    pieces = [piece async for piece in archive.pieces]
    assert all(0 < len(piece) <= 2 * PIECE for piece in pieces)
    with tarfile.open(fileobj=io.BytesIO(b"".join(pieces)), mode="r:gz") as tar:
        names = {member.name.removeprefix("./"): member for member in tar.getmembers()}
        text, big = tar.extractfile(names["a.txt"]), tar.extractfile(names["big"])
        assert text is not None
        assert big is not None
        assert (text.read(), big.read()) == (b"hello", BIG)
        assert names["link"].linkname == "a.txt"
    assert left(tmp_path) == []


async def test_one_that_is_given_up_leaves_nothing(downloads: Downloads, tmp_path: Path) -> None:
    archive = await downloads(WORKSPACE)
    assert len(left(tmp_path)) == 1
    await archive.pieces.aclose()
    assert left(tmp_path) == []


async def test_one_that_cannot_be_had_leaves_nothing(downloads: Downloads, tmp_path: Path) -> None:
    for _ in range(AT_ONCE + 1):
        with pytest.raises(SnapshotError, match="there is none"):
            await downloads(Workspace("w2", "ada", W.STOPPED, 0, 0))
    assert left(tmp_path) == []


async def test_so_many_at_once(downloads: Downloads) -> None:
    under_way = [await downloads(WORKSPACE) for _ in range(AT_ONCE)]
    with pytest.raises(SnapshotError, match="too many") as caught:
        await downloads(WORKSPACE)
    assert caught.value.code == "unreachable"
    await under_way.pop().pieces.aclose()
    under_way.append(await downloads(WORKSPACE))
    for archive in under_way:
        await archive.pieces.aclose()
