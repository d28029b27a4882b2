"""What the snapshot tests share: packed trees, and every target behind one shelf."""

from __future__ import annotations

import functools
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest

from lifecycle.agent.contract import Manifest
from lifecycle.snapshots import SnapshotTarget
from lifecycle.snapshots.archive import pack
from lifecycle.snapshots.local import LocalTarget
from lifecycle.snapshots.s3 import S3Target

Packed = tuple[Manifest, Path]


class Shelf(Protocol):
    """A target and what stands behind it, so that the contract can damage it.

    A new target joins the contract suite with a shelf of its own in `SHELVES`.
    """

    target: SnapshotTarget

    def names(self, workspace: str) -> list[str]: ...

    def read(self, workspace: str, name: str) -> bytes: ...

    def write(self, workspace: str, name: str, data: bytes) -> None: ...

    def remove(self, workspace: str, name: str) -> None: ...


class LocalShelf:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.target: SnapshotTarget = LocalTarget(directory)

    def names(self, workspace: str) -> list[str]:
        where = self.directory / workspace
        return sorted(os.listdir(where)) if where.is_dir() else []

    def read(self, workspace: str, name: str) -> bytes:
        return (self.directory / workspace / name).read_bytes()

    def write(self, workspace: str, name: str, data: bytes) -> None:
        (self.directory / workspace / name).write_bytes(data)

    def remove(self, workspace: str, name: str) -> None:
        (self.directory / workspace / name).unlink()


def local_shelf(request: pytest.FixtureRequest) -> Iterator[Shelf]:
    yield LocalShelf(request.getfixturevalue("tmp_path") / "shelf")


class AsRoles(S3Target):
    """Archives are written and read by agents; a gateway looks, lists and deletes."""

    def __init__(self, aws: Any, *where: str, **how: Any) -> None:
        super().__init__(*where, **how)
        self._aws = aws

    def put(self, manifest: Manifest, archive: Path) -> None:
        with self._aws.role("agent"):
            super().put(manifest, archive)

    def fetch(self, manifest: Manifest, into: Path) -> None:
        with self._aws.role("agent"):
            super().fetch(manifest, into)


@pytest.fixture
def s3_target(aws: Any) -> Callable[..., S3Target]:
    """s3_target("bucket", "prefix", …): calls of each side are made as its role."""
    return functools.partial(AsRoles, aws)


class S3Shelf:
    """Damage is done past the target and its proxy, straight in moto."""

    bucket = "bucket"

    def __init__(self, aws: Any) -> None:
        self.s3 = aws.client("s3")
        where = {"LocationConstraint": aws.region}
        self.s3.create_bucket(Bucket=self.bucket, CreateBucketConfiguration=where)
        self.target: SnapshotTarget = AsRoles(aws, self.bucket, "some/prefix")

    def names(self, workspace: str) -> list[str]:
        prefix = self._key(workspace, "")
        listed = self.s3.list_objects_v2(Bucket=self.bucket, Prefix=prefix)
        return sorted(entry["Key"].removeprefix(prefix) for entry in listed.get("Contents", []))

    def read(self, workspace: str, name: str) -> bytes:
        found = self.s3.get_object(Bucket=self.bucket, Key=self._key(workspace, name))
        return bytes(found["Body"].read())

    def write(self, workspace: str, name: str, data: bytes) -> None:
        self.s3.put_object(Bucket=self.bucket, Key=self._key(workspace, name), Body=data)

    def remove(self, workspace: str, name: str) -> None:
        self.s3.delete_object(Bucket=self.bucket, Key=self._key(workspace, name))

    def _key(self, workspace: str, name: str) -> str:
        return f"some/prefix/{workspace}/{name}"


def s3_shelf(request: pytest.FixtureRequest) -> Iterator[Shelf]:
    yield S3Shelf(request.getfixturevalue("aws"))


SHELVES: dict[str, Callable[[pytest.FixtureRequest], Iterator[Shelf]]] = {
    "local": local_shelf,
    "s3": s3_shelf,
}


@pytest.fixture(params=sorted(SHELVES))
def shelf(request: pytest.FixtureRequest) -> Iterator[Shelf]:
    yield from SHELVES[request.param](request)


@pytest.fixture
def packed(tmp_path: Path) -> Callable[..., Packed]:
    """packed("s1", content=b"…", at=1000): a manifest and its archive of one file, `notes`."""

    def make(
        snapshot: str, *, content: bytes = b"hello\n", at: int = 1000, workspace: str = "demo"
    ) -> Packed:
        root = tmp_path / f"files-{snapshot}"
        root.mkdir(exist_ok=True)
        (root / "notes").write_bytes(content)
        archive = tmp_path / f"{snapshot}.packed"
        return pack_tree(
            root, archive, workspace_id=workspace, snapshot_id=snapshot, at=at
        ), archive

    return make


def pack_tree(root: Path, into: Path, **changes: Any) -> Manifest:
    values: dict[str, Any] = {"workspace_id": "demo", "snapshot_id": "s1", "epoch": 1}
    values |= {"created_at_ms": changes.pop("at", 1000), "max_bytes": 2**30, "max_files": 10_000}
    return pack(root, into, **{**values, **changes})


@pytest.fixture(name="pack_tree", scope="session")
def pack_tree_fixture() -> Callable[..., Manifest]:
    return pack_tree


def describe(root: Path) -> dict[str, tuple[object, ...]]:
    """Everything below `root` that a snapshot keeps: kind, mode, time, content, names of one file."""
    found: dict[str, tuple[object, ...]] = {}
    names: dict[int, str] = {}
    for above, directories, files in os.walk(root):
        for name in sorted(directories + files):
            path = Path(above, name)
            info, key = path.lstat(), str(path.relative_to(root))
            content: object = None
            if stat.S_ISLNK(info.st_mode):
                content = os.readlink(path)
            elif stat.S_ISREG(info.st_mode):
                content = path.read_bytes()
            one = names.setdefault(info.st_ino, key) if info.st_nlink > 1 else ""
            found[key] = (
                stat.S_IFMT(info.st_mode),
                info.st_mode & 0o1777,
                info.st_mtime_ns,
                content,
                one if stat.S_ISREG(info.st_mode) else "",
            )
    return found


@pytest.fixture(name="describe", scope="session")
def describe_fixture() -> Callable[[Path], dict[str, tuple[object, ...]]]:
    return describe
