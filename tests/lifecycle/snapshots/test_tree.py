from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lifecycle.snapshots.tree import DIRECTORY, Descent, clear


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root/a/b/c").mkdir(parents=True)
    (tmp_path / "root/a/d").mkdir()
    (tmp_path / "outside/b").mkdir(parents=True)
    return tmp_path / "root"


@pytest.fixture
def descent(root: Path) -> Iterator[Descent]:
    fd = os.open(root, DIRECTORY)
    with Descent(fd) as descent:
        yield descent
    os.close(fd)


def same(fd: int, path: Path) -> bool:
    return os.path.samestat(os.fstat(fd), path.stat())


def test_goes_anywhere_from_anywhere(root: Path, descent: Descent) -> None:
    paths = ["", "a", "a/b", "a/b/c", "a/d"]
    for here in paths:
        for there in paths:
            assert same(descent.enter(here), root / here)
            assert same(descent.enter(there), root / there)


@pytest.mark.parametrize("path", ["a/x", "l", "l/b", "a/f", "a/f/x"])
def test_enters_neither_links_nor_files_and_goes_on(
    root: Path, descent: Descent, path: str
) -> None:
    (root / "l").symlink_to("../outside")
    (root / "a/f").touch()
    descent.enter("a/b/c")
    with pytest.raises(OSError, match=r"Not a directory|No such file"):
        descent.enter(path)
    assert same(descent.enter("a/d"), root / "a/d")


def test_a_directory_moved_away_under_us_is_no_way_out(
    root: Path, descent: Descent, tmp_path: Path
) -> None:
    descent.enter("a/b/c")
    (root / "a/b").rename(tmp_path / "outside/moved")
    (tmp_path / "outside/d").mkdir()
    assert same(descent.enter("a/d"), root / "a/d")  # not outside/d, though it is at ../../d
    descent.enter("a/d")
    (root / "a/d").rmdir()
    assert same(descent.enter("a"), root / "a")


def test_nothing_stays_open(root: Path) -> None:
    before = os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else []
    fd = os.open(root, DIRECTORY)
    with Descent(fd) as descent:
        for path in ["a/b/c", "a/d", "", "a/b"]:
            descent.enter(path)
        with pytest.raises(FileNotFoundError):
            descent.enter("a/b/x/y")
    os.close(fd)
    assert (os.listdir("/proc/self/fd") if before else []) == before


def test_clears_everything_but_what_links_lead_to(root: Path, tmp_path: Path) -> None:
    (root / "l").symlink_to(tmp_path / "outside")
    (root / "a/b/file").touch()
    os.mkfifo(root / "a/fifo")
    (root / "a/b").chmod(0)
    clear(root)
    assert os.listdir(root) == []
    assert os.listdir(tmp_path / "outside") == ["b"]
