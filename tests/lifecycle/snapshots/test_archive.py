"""What goes in comes out: packing and unpacking real directories."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import random
import socket
import subprocess
import sys
import tarfile
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from lifecycle.agent.contract import Manifest
from lifecycle.snapshots import SnapshotError, archive, packing
from lifecycle.snapshots.archive import unpack

Pack = Callable[..., Manifest]
Describe = Callable[[Path], dict[str, tuple[object, ...]]]

ROOT = os.geteuid() == 0


def restore(packed: Path, root: Path, **changes: Any) -> Path:
    unpack(packed, root, **{"max_bytes": 2**30, "max_files": 10_000, "owner": None, **changes})
    return root


def code_of(call: Callable[[], object], match: str | None = None) -> str:
    with pytest.raises(SnapshotError, match=match) as caught:
        call()
    return caught.value.code


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "root"
    path.mkdir()
    return path


# --- round trips ---------------------------------------------------------------------------------

NAMES = st.one_of(
    st.binary(min_size=1, max_size=40),
    st.text(min_size=1, max_size=40).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.sampled_from([b"new\nline", "naïve ☃".encode(), b"-rf", b"\xff\xfe", b"n" * 255, b" "]),
).filter(lambda name: name not in (b".", b"..", b".cache") and not {0, 47} & set(name))
TIMES = st.integers(min_value=-(2**31) * 10**9, max_value=2**33 * 10**9)
FILES = st.tuples(st.just("file"), st.binary(max_size=2000), st.integers(0, 0o7777), TIMES)
LINKS = st.tuples(st.just("link"), NAMES, st.just(0), TIMES)
HARD_LINKS = st.tuples(st.just("hard"), st.integers(0, 9), st.just(0), TIMES)
ENTRIES = st.recursive(
    st.one_of(FILES, LINKS, HARD_LINKS),
    lambda inner: st.tuples(
        st.just("directory"),
        st.dictionaries(NAMES, inner, max_size=5),
        st.integers(0, 0o7777),
        TIMES,
    ),
    max_leaves=15,
)


def plant(where: Path, tree: dict[bytes, tuple[Any, ...]], files: list[Path]) -> None:
    for name, (kind, content, mode, time_ns) in tree.items():
        path = where / os.fsdecode(name)
        if kind == "hard" and files:
            os.link(files[content % len(files)], path)
            continue
        if kind == "directory":
            path.mkdir()
            plant(path, content, files)
        elif kind == "link":
            path.symlink_to(os.fsdecode(content))
        else:
            path.write_bytes(content if kind == "file" else b"")
            files.append(path)
        if kind != "link":  # who is not root can only store what they may read
            path.chmod(mode if ROOT else mode | 0o700)
        os.utime(path, ns=(time_ns, time_ns), follow_symlinks=False)


@settings(max_examples=80, deadline=None)
@given(tree=st.dictionaries(NAMES, ENTRIES, max_size=6))
def test_any_tree_comes_back(
    tree: dict[bytes, tuple[Any, ...]], pack_tree: Pack, describe: Describe
) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        source, packed = Path(temporary, "source"), Path(temporary, "packed")
        source.mkdir()
        plant(source, tree, [])
        # A name may by chance be one that points to itself; that one is left out on purpose.
        for path in [*source.rglob("*")]:
            if path.is_symlink() and os.readlink(path) == path.name:
                path.unlink()
        before = describe(source)
        manifest = pack_tree(source, packed)
        assert describe(restore(packed, Path(temporary, "restored"))) == describe(source) == before
        assert manifest.files == len(before)
        data = packed.read_bytes()
        assert (manifest.archive_bytes, manifest.sha256) == (
            len(data),
            hashlib.sha256(data).hexdigest(),
        )


@settings(max_examples=150, deadline=None)
@given(
    links=st.dictionaries(
        st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map("/".join),
        st.lists(st.sampled_from(["a", "b", "c", "..", ".", "", "x"]), max_size=6).map("/".join),
        max_size=8,
    )
)
def test_no_restored_link_leaves_the_root(links: dict[str, str], pack_tree: Pack) -> None:
    """The kernel and realpath are the judges, whatever the links do together."""
    with tempfile.TemporaryDirectory() as temporary:
        source, outside = Path(temporary, "d/e/source"), Path(temporary).resolve()
        source.mkdir(parents=True)
        for path, target in links.items():
            with contextlib.suppress(OSError):
                (source / path).parent.mkdir(parents=True, exist_ok=True)
                if (source / path).parent.resolve().is_relative_to(source.resolve()):
                    (source / path).symlink_to(target)
        pack_tree(source, Path(temporary, "packed"))
        root = restore(Path(temporary, "packed"), Path(temporary, "f/g/restored")).resolve()
        assert root.is_relative_to(outside)
        for above, directories, files in os.walk(root):
            for name in directories + files:
                assert Path(os.path.realpath(Path(above, name))).is_relative_to(root)


def test_other_programs_can_read_it(root: Path, tmp_path: Path, pack_tree: Pack) -> None:
    (root / "dir").mkdir()
    (root / "dir" / ("long" * 60)).write_bytes(b"x" * 700)
    (root / "naïve\n☃").symlink_to("dir")
    pack_tree(root, tmp_path / "packed")
    with (
        zstandard.open(tmp_path / "packed", "rb") as plain,
        tarfile.open(fileobj=plain, mode="r|") as tar,
    ):
        found = {member.name: (member.type, member.size, member.linkname) for member in tar}
    assert found == {
        "dir": (tarfile.DIRTYPE, 0, ""),
        "dir/" + "long" * 60: (tarfile.REGTYPE, 700, ""),
        "naïve\n☃": (tarfile.SYMTYPE, 0, "dir"),
    }


def test_deep_trees_need_no_descriptors_and_no_recursion(
    tmp_path: Path, root: Path, pack_tree: Pack, describe: Describe
) -> None:
    subprocess.run(["mkdir", "-p", str(root / "/".join(["d"] * 1200))], check=True)
    manifest = pack_tree(root, tmp_path / "packed")
    restored = restore(tmp_path / "packed", tmp_path / "restored")
    assert manifest.files == 1200
    assert (restored / "/".join(["d"] * 1200)).is_dir()
    assert (
        code_of(lambda: restore(tmp_path / "packed", tmp_path / "2", max_files=1199)) == "too_large"
    )
    assert not (tmp_path / "2").exists()
    subprocess.run(["rm", "-rf", str(root), str(restored)], check=True)  # rmtree would recurse


def test_nothing_packed_is_nothing_restored(root: Path, tmp_path: Path, pack_tree: Pack) -> None:
    manifest = pack_tree(root, tmp_path / "packed")
    assert (manifest.files, manifest.bytes) == (0, 0)
    assert list(restore(tmp_path / "packed", tmp_path / "restored").iterdir()) == []


# --- what is stored ------------------------------------------------------------------------------


def test_the_manifest_says_what_was_packed(root: Path, tmp_path: Path, pack_tree: Pack) -> None:
    (root / "a").write_bytes(b"12345")
    os.link(root / "a", root / "b")
    (root / "d").mkdir()
    manifest = pack_tree(root, tmp_path / "packed", snapshot_id="s9", epoch=7, at=42)
    assert manifest == dataclasses.replace(
        manifest, workspace_id="demo", snapshot_id="s9", epoch=7, created_at_ms=42,
        files=3, bytes=5, archive="s9.tar.zst", format="tar+zstd",
    )  # fmt: skip
    assert (tmp_path / "packed").stat().st_mode & 0o777 == 0o600


def test_what_belongs_to_processes_is_passed_over(
    root: Path, tmp_path: Path, pack_tree: Pack
) -> None:
    os.mkfifo(root / "fifo")
    if ROOT:
        with contextlib.suppress(PermissionError):  # a container may not
            os.mknod(root / "null", 0o20666, os.makedev(1, 3))
    (root / "file").write_bytes(b"")
    with socket.socket(socket.AF_UNIX) as server, contextlib.chdir(root):
        server.bind("socket")
        manifest = pack_tree(root, tmp_path / "packed")
    assert manifest.files == 1
    assert os.listdir(restore(tmp_path / "packed", tmp_path / "restored")) == ["file"]


def test_the_cache_at_the_top_is_left_out(root: Path, tmp_path: Path, pack_tree: Pack) -> None:
    for directory in (".cache", "project/.cache"):
        (root / directory).mkdir(parents=True)
        (root / directory / "x").write_bytes(b"")
    (root / ".hidden").write_bytes(b"")
    pack_tree(root, tmp_path / "packed")
    restored = restore(tmp_path / "packed", tmp_path / "restored")
    assert sorted(os.listdir(restored)) == [".hidden", "project"]
    assert (restored / "project/.cache/x").exists()
    assert {".cache"} == archive.EXCLUDED


def test_special_bits_and_owners_do_not_travel(root: Path, tmp_path: Path, pack_tree: Pack) -> None:
    (root / "tool").write_bytes(b"")
    (root / "tool").chmod(0o6755)
    (root / "shared").mkdir()
    (root / "shared").chmod(0o3777)
    pack_tree(root, tmp_path / "packed")
    restored = restore(tmp_path / "packed", tmp_path / "restored")
    assert (restored / "tool").stat().st_mode & 0o7777 == 0o755
    assert (restored / "shared").stat().st_mode & 0o7777 == 0o1777
    with (
        zstandard.open(tmp_path / "packed", "rb") as plain,
        tarfile.open(fileobj=plain, mode="r|") as tar,
    ):
        assert {(member.uid, member.gid) for member in tar} == {(0, 0)}


@pytest.mark.skipif(not ROOT, reason="only root gives files away")
def test_everything_gets_the_owner(root: Path, tmp_path: Path, pack_tree: Pack) -> None:
    (root / "d").mkdir()
    (root / "d" / "file").write_bytes(b"x")
    (root / "d" / "file").chmod(0o4755)
    (root / "d" / "link").symlink_to("file")
    os.link(root / "d" / "file", root / "hard")
    pack_tree(root, tmp_path / "packed")
    restored = restore(tmp_path / "packed", tmp_path / "restored", owner=(12345, 23456))
    for path in [restored, *restored.rglob("*")]:
        assert (path.lstat().st_uid, path.lstat().st_gid) == (12345, 23456), path
    assert restored.stat().st_mode & 0o7777 == 0o700
    assert (restored / "hard").stat().st_mode & 0o7777 == 0o755


# --- links ---------------------------------------------------------------------------------------


def test_absolute_links_into_the_workspace_follow_it(
    root: Path, tmp_path: Path, pack_tree: Pack
) -> None:
    alias = tmp_path / "alias"
    alias.symlink_to(tmp_path)
    (root / "a/b").mkdir(parents=True)
    (root / "file").write_bytes(b"here")
    (root / "a/b/file").symlink_to(root / "file")
    (root / "a/b/top").symlink_to(root)
    (root / "a/b/alias").symlink_to(alias / "root/file")
    (root / "sibling").symlink_to(f"{root}-other/file")
    pack_tree(alias / "root", tmp_path / "packed")
    restored = restore(tmp_path / "packed", tmp_path / "elsewhere")
    assert os.readlink(restored / "a/b/file") == "../../file"
    assert os.readlink(restored / "a/b/alias") == "../../file"
    assert (restored / "a/b/top").resolve() == restored
    assert not os.path.lexists(restored / "sibling")


def test_links_that_leave_are_left_out_and_named(
    root: Path, tmp_path: Path, pack_tree: Pack, caplog: pytest.LogCaptureFixture
) -> None:
    (root / "passwd").symlink_to("/etc/passwd")
    (root / "up").symlink_to("../secret")
    (root / "python").symlink_to("/usr/bin/python3")
    (root / "own").symlink_to(sys.base_prefix + "/bin/python3")
    (root / "dangling").symlink_to("not-yet")
    pack_tree(root, tmp_path / "packed")
    restored = restore(tmp_path / "packed", tmp_path / "restored")
    assert sorted(os.listdir(restored)) == ["dangling", "own", "python"]
    assert "passwd → /etc/passwd" in caplog.text
    assert "up → ../secret" in caplog.text


def test_software_is_no_way_to_the_neighbours(
    root: Path, tmp_path: Path, pack_tree: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With workspaces kept below /opt or the like, links to there are links to other workspaces."""
    monkeypatch.setattr("lifecycle.snapshots.unpacking.SOFTWARE", (str(tmp_path), "/usr"))
    (root / "neighbour").symlink_to(tmp_path / "other/notes")
    (root / "python").symlink_to("/usr/bin/python3")
    pack_tree(root, tmp_path / "packed")
    assert os.listdir(restore(tmp_path / "packed", tmp_path / "restored")) == ["python"]


@pytest.mark.skipif(not ROOT, reason="only root can plant another user's file")
def test_a_hard_link_to_another_users_file_is_not_read(
    root: Path, tmp_path: Path, pack_tree: Pack
) -> None:
    os.chown(root, 12345, 12345)
    (tmp_path / "shadow").write_bytes(b"secret")
    os.link(tmp_path / "shadow", root / "mine")
    (root / "by-sudo").write_bytes(b"one name only: it is the workspace's")
    pack_tree(root, tmp_path / "packed")
    assert os.listdir(restore(tmp_path / "packed", tmp_path / "restored")) == ["by-sudo"]


# --- files that change meanwhile -----------------------------------------------------------------


@pytest.mark.parametrize("left", [0, 1, 511, 512, 600_000])
def test_a_file_that_shrinks_is_filled_with_zeros(
    left: int, root: Path, tmp_path: Path, pack_tree: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "big").write_bytes(b"x" * 1_000_000)
    (root / "next").write_bytes(b"whole")
    read = os.read

    def shrink_then_read(fd: int, size: int) -> bytes:
        if (root / "big").stat().st_size == 1_000_000:
            os.truncate(root / "big", left)
        return read(fd, size)

    monkeypatch.setattr(packing.os, "read", shrink_then_read)
    pack_tree(root, tmp_path / "packed")
    monkeypatch.undo()
    restored = restore(tmp_path / "packed", tmp_path / "restored")
    assert (restored / "big").read_bytes() == b"x" * left + bytes(1_000_000 - left)
    assert (restored / "next").read_bytes() == b"whole"


def test_a_file_that_grows_is_cut(
    root: Path, tmp_path: Path, pack_tree: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "log").write_bytes(b"first line\n")
    (root / "next").write_bytes(b"whole")
    read = os.read

    def grow_then_read(fd: int, size: int) -> bytes:
        with (root / "log").open("ab") as file:
            file.write(b"more\n")
        return read(fd, size)

    monkeypatch.setattr(packing.os, "read", grow_then_read)
    pack_tree(root, tmp_path / "packed")
    monkeypatch.undo()
    restored = restore(tmp_path / "packed", tmp_path / "restored")
    assert (restored / "log").read_bytes() == b"first line\n"
    assert (restored / "next").read_bytes() == b"whole"


def test_a_tree_in_motion_is_packed_whole_and_leads_nowhere(
    root: Path, tmp_path: Path, pack_tree: Pack
) -> None:
    """A process removes, swaps and resizes all the time, and turns directories into links."""
    secret = tmp_path / "outside"
    secret.mkdir()
    (secret / "file").write_bytes(b"SECRET" * 100)
    stop, turns = threading.Event(), [0]

    def churn() -> None:
        rng = random.Random(3)
        while not stop.is_set():
            path = root / rng.choice("abcdef")
            with contextlib.suppress(OSError):
                if path.is_symlink():
                    path.unlink()
                if rng.random() < 0.3 and path.is_dir():
                    path.rename(tmp_path / "away")
                    path.symlink_to(secret)
                    subprocess_free_remove(tmp_path / "away")
                path.mkdir(exist_ok=True)
                (path / "file").write_bytes(b"x" * rng.randrange(300_000))
            turns[0] += 1

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        for n in range(40):
            packed, restored = tmp_path / f"packed-{n}", tmp_path / f"restored-{n}"
            pack_tree(root, packed)
            restore(packed, restored)
            for path in restored.rglob("*"):
                assert not path.is_symlink()
                assert path.is_dir() or b"SECRET" not in path.read_bytes()
    finally:
        stop.set()
        thread.join()
    assert turns[0] > 40


def subprocess_free_remove(path: Path) -> None:
    for child in path.iterdir():
        child.unlink()
    path.rmdir()


# --- bounds and refusals -------------------------------------------------------------------------


def test_more_bytes_than_the_setting_allows(root: Path, tmp_path: Path, pack_tree: Pack) -> None:
    (root / "a").write_bytes(b"x" * 600)
    (root / "b").write_bytes(b"x" * 400)
    manifest = pack_tree(root, tmp_path / "packed", max_bytes=1000)
    assert manifest.bytes == 1000
    wrong = lambda: pack_tree(root, tmp_path / "packed", max_bytes=999)  # noqa: E731
    assert code_of(wrong, "--snapshot-max-bytes") == "too_large"
    assert not (tmp_path / "packed").exists()


def test_more_files_than_the_setting_allows(root: Path, tmp_path: Path, pack_tree: Pack) -> None:
    (root / "d").mkdir()
    for n in range(9):
        (root / "d" / str(n)).touch()
    assert pack_tree(root, tmp_path / "packed", max_files=10).files == 10
    for allowed in (9, 8, 0):
        wrong = lambda: pack_tree(root, tmp_path / "packed", max_files=allowed)  # noqa: B023, E731
        assert code_of(wrong, "--snapshot-max-files") == "too_large"
        assert not (tmp_path / "packed").exists()


def test_a_root_that_is_missing_or_a_link(root: Path, tmp_path: Path, pack_tree: Pack) -> None:
    (tmp_path / "link").symlink_to(root)
    for wrong in ("missing", "link"):
        call = lambda: pack_tree(tmp_path / wrong, tmp_path / "packed")  # noqa: B023, E731
        assert code_of(call, "no directory") == "unreadable"


def test_an_archive_inside_its_own_root(root: Path, pack_tree: Pack) -> None:
    with pytest.raises(ValueError, match="contain itself"):
        pack_tree(root, root / "packed")


def test_what_is_in_the_way_of_the_archive(root: Path, tmp_path: Path, pack_tree: Pack) -> None:
    assert code_of(lambda: pack_tree(root, tmp_path / "no/packed")) == "unreachable"
    assert code_of(lambda: pack_tree(root, Path("/dev/full"))) == "unreachable"
    assert Path("/dev/full").is_char_device()
    (tmp_path / "packed").write_bytes(b"half of an archive")
    pack_tree(root, tmp_path / "packed")
    restore(tmp_path / "packed", tmp_path / "restored")


UNREADABLE = """
import os, sys, tempfile
from pathlib import Path
from lifecycle.snapshots import SnapshotError
from lifecycle.snapshots.archive import pack
if os.geteuid() == 0:
    os.setgroups([]); os.setegid(65534); os.seteuid(65534)
with tempfile.TemporaryDirectory() as temporary:
    root = Path(temporary, "root"); (root / "d").mkdir(parents=True)
    locked = root / sys.argv[1]; locked.mkdir() if sys.argv[1] == "d/x" else locked.touch()
    locked.chmod(0)
    try:
        pack(root, Path(temporary, "packed"), workspace_id="w", snapshot_id="s", epoch=1,
             created_at_ms=1, max_bytes=1000, max_files=10)
    except SnapshotError as error:
        print(error.code, error, Path(temporary, "packed").exists())
    locked.chmod(0o700)
"""


@pytest.mark.parametrize("name", ["d/x", "file"])
def test_what_cannot_be_read_is_no_whole_snapshot(name: str) -> None:
    out = subprocess.run(
        [sys.executable, "-c", UNREADABLE, name], capture_output=True, text=True, check=True
    ).stdout
    assert out.startswith("unreadable cannot read ")
    assert f"/root/{name}: Permission denied" in out
    assert out.endswith("False\n")


def test_a_root_that_is_not_empty_is_not_touched(
    root: Path, tmp_path: Path, pack_tree: Pack
) -> None:
    (root / "file").write_bytes(b"mine")
    pack_tree(root, tmp_path / "packed")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    (tmp_path / "target").mkdir()
    for wrong in (root, tmp_path / "link", tmp_path / "packed"):
        assert code_of(lambda: restore(tmp_path / "packed", wrong)) == "unreachable"  # noqa: B023
    assert (root / "file").read_bytes() == b"mine"
    assert code_of(lambda: restore(tmp_path / "missing", tmp_path / "new")) == "not_found"
    assert not (tmp_path / "new").exists()


def test_an_empty_root_is_used_and_left_empty_on_failure(
    root: Path, tmp_path: Path, pack_tree: Pack
) -> None:
    (root / "file").write_bytes(b"x" * 100)
    pack_tree(root, tmp_path / "packed")
    (tmp_path / "there").mkdir()
    wrong = lambda: restore(tmp_path / "packed", tmp_path / "there", max_bytes=99)  # noqa: E731
    assert code_of(wrong, "--snapshot-max-bytes") == "too_large"
    assert os.listdir(tmp_path / "there") == []
    assert os.listdir(restore(tmp_path / "packed", tmp_path / "there", max_bytes=100)) == ["file"]
