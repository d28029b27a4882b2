"""The contract of SnapshotTarget, run against every target."""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lifecycle.agent.contract import Manifest
from lifecycle.snapshots import SnapshotError
from lifecycle.snapshots.archive import unpack

Packed = Callable[..., tuple[Manifest, Path]]


def restore(target: Any, manifest: Manifest, directory: Path) -> Path:
    """The files of a snapshot, through fetch and unpack."""
    archive, root = directory / "fetched", directory / "restored"
    target.fetch(manifest, archive)
    unpack(archive, root, max_bytes=2**30, max_files=1000, owner=None)
    return root


def code_of(call: Callable[[], object]) -> str:
    with pytest.raises(SnapshotError) as caught:
        call()
    return caught.value.code


def test_what_was_put_comes_back(shelf: Any, packed: Packed, tmp_path: Path) -> None:
    manifest, archive = packed("s1", content=b"precious")
    shelf.target.put(manifest, archive)
    assert shelf.target.list("demo") == ["s1"]
    assert shelf.target.manifest("demo", "s1") == manifest
    assert (restore(shelf.target, manifest, tmp_path) / "notes").read_bytes() == b"precious"
    assert shelf.names("demo") == ["s1.json", "s1.tar.zst"]


def test_lists_oldest_first_by_the_time_of_the_snapshot(shelf: Any, packed: Packed) -> None:
    for snapshot, at in [("b", 3000), ("c", 1000), ("a", 2000)]:
        shelf.target.put(*packed(snapshot, at=at))
    assert shelf.target.list("demo") == ["c", "a", "b"]


def test_workspaces_do_not_see_each_other(shelf: Any, packed: Packed) -> None:
    shelf.target.put(*packed("s1", workspace="ada"))
    assert shelf.target.list("bob") == []
    assert code_of(lambda: shelf.target.manifest("bob", "s1")) == "not_found"


def test_a_missing_snapshot_is_not_found(shelf: Any, packed: Packed, tmp_path: Path) -> None:
    manifest, _ = packed("s1")
    assert shelf.target.list("demo") == []
    assert code_of(lambda: shelf.target.manifest("demo", "s1")) == "not_found"
    assert code_of(lambda: shelf.target.fetch(manifest, tmp_path / "x")) == "not_found"


def test_deletes_one_and_deletes_it_again(shelf: Any, packed: Packed) -> None:
    shelf.target.put(*packed("s1"))
    shelf.target.put(*packed("s2"))
    shelf.target.delete("demo", "s1")
    shelf.target.delete("demo", "s1")
    assert shelf.target.list("demo") == ["s2"]
    assert shelf.names("demo") == ["s2.json", "s2.tar.zst"]
    shelf.target.delete("demo", "s2")
    shelf.target.delete("nobody", "s2")
    assert shelf.names("demo") == []


def test_putting_it_again_replaces_it(shelf: Any, packed: Packed, tmp_path: Path) -> None:
    shelf.target.put(*packed("s1", content=b"first"))
    manifest, archive = packed("s1", content=b"second")
    shelf.target.put(manifest, archive)
    assert shelf.target.list("demo") == ["s1"]
    stored = shelf.target.manifest("demo", "s1")
    assert (restore(shelf.target, stored, tmp_path) / "notes").read_bytes() == b"second"


def test_an_archive_that_is_not_the_manifests_is_not_stored(shelf: Any, packed: Packed) -> None:
    shelf.target.put(*packed("s1"))
    manifest, archive = packed("s2")
    archive.write_bytes(archive.read_bytes()[:-1] + b"!")
    assert code_of(lambda: shelf.target.put(manifest, archive)) == "corrupt"
    archive.write_bytes(archive.read_bytes() + b"more")
    assert code_of(lambda: shelf.target.put(manifest, archive)) == "corrupt"
    archive.unlink()
    assert code_of(lambda: shelf.target.put(manifest, archive)) == "unreachable"
    assert shelf.names("demo") == ["s1.json", "s1.tar.zst"]


def test_one_changed_byte_anywhere_is_found(shelf: Any, packed: Packed, tmp_path: Path) -> None:
    manifest, archive = packed("s1", content=random.Random(1).randbytes(3000))
    shelf.target.put(manifest, archive)
    good = shelf.read("demo", "s1.tar.zst")
    for at in random.Random(2).sample(range(len(good)), 50):
        bad = bytearray(good)
        bad[at] ^= 1 << at % 8
        shelf.write("demo", "s1.tar.zst", bytes(bad))
        assert code_of(lambda: restore(shelf.target, manifest, tmp_path)) == "corrupt", at
        assert not (tmp_path / "fetched").exists()
        assert not (tmp_path / "restored").exists()


def test_a_cut_archive_is_found_and_the_previous_one_restores(
    shelf: Any, packed: Packed, tmp_path: Path
) -> None:
    previous, archive = packed("s1", content=b"previous", at=1000)
    shelf.target.put(previous, archive)
    manifest, archive = packed("s2", content=random.Random(1).randbytes(3000), at=2000)
    shelf.target.put(manifest, archive)
    good = shelf.read("demo", "s2.tar.zst")
    for size in random.Random(2).sample(range(len(good)), 50):
        shelf.write("demo", "s2.tar.zst", good[:size])
        assert code_of(lambda: shelf.target.fetch(manifest, tmp_path / "fetched")) == "corrupt"
        assert not (tmp_path / "fetched").exists()
    assert (restore(shelf.target, previous, tmp_path) / "notes").read_bytes() == b"previous"


def test_a_manifest_without_its_archive_is_corrupt(
    shelf: Any, packed: Packed, tmp_path: Path
) -> None:
    manifest, archive = packed("s1")
    shelf.target.put(manifest, archive)
    shelf.remove("demo", "s1.tar.zst")
    assert code_of(lambda: shelf.target.fetch(manifest, tmp_path / "x")) == "corrupt"


def test_an_archive_without_its_manifest_does_not_exist(shelf: Any, packed: Packed) -> None:
    shelf.target.put(*packed("s1"))
    shelf.target.put(*packed("s2"))
    shelf.remove("demo", "s1.json")
    assert shelf.target.list("demo") == ["s2"]
    assert code_of(lambda: shelf.target.manifest("demo", "s1")) == "not_found"


@pytest.mark.parametrize(
    "change",
    [
        {"workspace_id": "other"},
        {"snapshot_id": "s2"},
        {"archive": "../../etc/passwd"},
        {"archive_bytes": "12"},
        {"archive_bytes": -1},
        {"files": True},
        {"sha256": "0" * 63 + "g"},
        {"unknown": 1},
    ],
    ids=str,
)
def test_a_manifest_with_wrong_values_is_corrupt(
    shelf: Any, packed: Packed, change: dict[str, object]
) -> None:
    manifest, archive = packed("s1")
    shelf.target.put(manifest, archive)
    values = {**dataclasses.asdict(manifest), **change}
    shelf.write("demo", "s1.json", json.dumps(values).encode())
    assert code_of(lambda: shelf.target.manifest("demo", "s1")) == "corrupt"
    assert shelf.target.list("demo") == []


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000])
def test_a_manifest_that_is_no_document_is_corrupt(shelf: Any, packed: Packed, text: bytes) -> None:
    shelf.target.put(*packed("s1"))
    shelf.target.put(*packed("s2"))
    shelf.write("demo", "s1.json", text)
    assert code_of(lambda: shelf.target.manifest("demo", "s1")) == "corrupt"
    assert shelf.target.list("demo") == ["s2"]


BAD_IDS = ["", ".", "..", "../x", "a/b", "/etc", ".hidden", "a\n", "a\0", "a b", "ä", "x" * 129]


@pytest.mark.parametrize("bad", BAD_IDS)
def test_ids_are_no_paths(shelf: Any, packed: Packed, tmp_path: Path, bad: str) -> None:
    manifest, archive = packed("s1")
    for wrong in (
        dataclasses.replace(manifest, workspace_id=bad),
        dataclasses.replace(manifest, snapshot_id=bad),
    ):
        assert code_of(lambda m=wrong: shelf.target.put(m, archive)) == "not_found"
        assert code_of(lambda m=wrong: shelf.target.fetch(m, tmp_path / "x")) == "not_found"
    assert code_of(lambda: shelf.target.list(bad)) == "not_found"
    for pair in [("demo", bad), (bad, "s1")]:
        assert code_of(lambda p=pair: shelf.target.manifest(*p)) == "not_found"
        assert code_of(lambda p=pair: shelf.target.delete(*p)) == "not_found"


def test_a_file_left_by_an_earlier_fetch_is_replaced(
    shelf: Any, packed: Packed, tmp_path: Path
) -> None:
    manifest, archive = packed("s1")
    shelf.target.put(manifest, archive)
    (tmp_path / "fetched").write_bytes(b"half of an archive")
    restore(shelf.target, manifest, tmp_path)
    assert (tmp_path / "fetched").read_bytes() == archive.read_bytes()
    assert (tmp_path / "fetched").stat().st_mode & 0o777 == 0o600
