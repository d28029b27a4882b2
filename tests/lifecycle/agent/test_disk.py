"""What is written down on a machine's disk: states, epochs, output, claims to uids."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

import pytest

from lifecycle.agent import disk, output, uids
from lifecycle.agent.disk import Epochs, Saved, WorkspaceDir
from lifecycle.agent.refusal import BootFailed


def test_a_state_is_read_as_it_was_written(tmp_path: Path) -> None:
    where = WorkspaceDir(tmp_path, "demo")
    assert where.load() == Saved()
    saved = Saved(epoch=3, status="running", uid=200_001, port=1, pid=2, started=3)
    where.save(saved)
    assert where.load() == saved


def test_a_state_of_a_newer_version_is_read_too(tmp_path: Path) -> None:
    where = WorkspaceDir(tmp_path, "demo")
    where.save(Saved(epoch=3))
    state = where.path / "state.json"
    state.write_text(json.dumps(json.loads(state.read_text()) | {"colour": "blue"}))
    assert where.load() == Saved(epoch=3)


def test_epochs_only_grow_and_are_bounded(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(disk, "MAX_EPOCHS", 2)
    epochs = Epochs(tmp_path / "epochs.json")
    epochs.remember("a", 5)
    epochs.remember("a", 4)
    assert Epochs(tmp_path / "epochs.json").newest("a") == 5
    epochs.remember("b", 1)
    epochs.remember("c", 1)
    again = Epochs(tmp_path / "epochs.json")
    assert [again.newest(name) for name in "abc"] == [0, 1, 1]


def test_a_full_disk_keeps_epochs_in_memory(tmp_path: Path) -> None:
    epochs = Epochs(tmp_path / "no such directory" / "epochs.json")
    epochs.remember("a", 5)
    assert epochs.newest("a") == 5


def test_output_is_capped_and_goes_on(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(output, "CAP", 10)
    log = tmp_path / "ide.log"
    descriptor = output.begin(log)
    os.write(descriptor, b"0123456789")
    output.cap(log)
    assert log.read_bytes() == b"0123456789"
    os.write(descriptor, b"A\n")
    output.cap(log)
    os.write(descriptor, b"after\n")
    os.close(descriptor)
    assert log.read_bytes() == b"after\n"
    assert output.previous(log).read_bytes() == b"0123456789A\n"
    os.close(output.begin(log))
    assert log.read_bytes() == b""
    assert output.previous(log).read_bytes() == b"after\n"


def test_the_tail_of_the_output(tmp_path: Path, monkeypatch) -> None:
    log = tmp_path / "ide.log"
    assert output.tail(log, 3) == ""
    log.write_bytes(b"one\ntoken=abc two\n\xff three\n")
    assert output.tail(log, 2, hide="abc") == "token=[secret] two\n\ufffd three"
    assert output.tail(log, 0) == ""
    monkeypatch.setattr(output, "TAIL_BYTES", 6)
    assert output.tail(log, 9) == "three"


@pytest.fixture
def claims(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setattr(uids, "CLAIMS", tmp_path / "claims")
    return tmp_path / "claims"


def _place(root: Path, name: str, uid: int = 0) -> Path:
    where = WorkspaceDir(root, name)
    where.save(Saved(epoch=1, uid=uid))
    return where.path


def test_two_workspaces_never_share_a_uid(tmp_path: Path, claims: Path) -> None:
    one, other = _place(tmp_path / "a", "demo"), _place(tmp_path / "b", "demo")
    assert uids.claim(one, 0, 7000) == 7000
    assert uids.claim(other, 0, 7000) == 7001
    assert uids.claim(one, 7000, 7000) == 7000
    assert uids.holds(one, 7000)
    assert not uids.holds(other, 7000)
    # /run was emptied by a reboot, and the other one was faster.
    (claims / "7000").unlink()
    assert uids.claim(other, 7000, 7000) == 7000
    assert uids.claim(one, 7000, 7000) not in (7000, 7001)


def test_a_void_claim_is_free(tmp_path: Path, claims: Path) -> None:
    gone, moved = _place(tmp_path, "gone"), _place(tmp_path, "moved")
    assert [uids.claim(gone, 0, 7000), uids.claim(moved, 0, 7000)] == [7000, 7001]
    gone.rename(tmp_path / "trash")
    assert uids.claim(_place(tmp_path, "third"), 0, 7000) == 7000
    WorkspaceDir(tmp_path, "moved").save(Saved(epoch=2, uid=7009))
    assert uids.claim(_place(tmp_path, "fourth"), 0, 7000) == 7001


def test_a_released_claim_is_free_but_only_ones_own(tmp_path: Path, claims: Path) -> None:
    one, two = _place(tmp_path, "one"), _place(tmp_path, "two")
    uids.claim(one, 0, 7000)
    uids.release(two, 7000)
    assert uids.holds(one, 7000)
    uids.release(one, 7000)
    assert uids.claim(two, 0, 7000) == 7000


def test_no_uid_is_left(tmp_path: Path, claims: Path, monkeypatch) -> None:
    monkeypatch.setattr(uids, "PER_MACHINE", 1)
    uids.claim(_place(tmp_path, "one"), 0, 7000)
    with pytest.raises(BootFailed, match="uids from 7000 are taken"):
        uids.claim(_place(tmp_path, "two"), 0, 7000)


@pytest.mark.parametrize("renames", range(8))
def test_files_that_move_in_with_a_warm_ide_are_never_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, renames: int
) -> None:
    """However many of its renames come to pass before it breaks off."""
    where, warm = WorkspaceDir(tmp_path, "demo"), WorkspaceDir(tmp_path, "warm-1", "warm")
    for each in (where, warm):
        each.make()
        each.give_to(0)
        each.log.touch()
    files = {"notes.txt": "mine", ".config/ide": "mine", "both": "mine"}
    for name, text in files.items():
        (where.home / name).parent.mkdir(exist_ok=True)
        (where.home / name).write_text(text)
    (warm.home / "both").mkdir()
    (warm.home / ".config").mkdir()
    (warm.home / "its own").touch()
    inode = warm.home.stat().st_ino
    left, rename = [renames], os.rename

    def renamed(old: object, new: object) -> None:
        if left[0] == 0:
            raise OSError("broke off")
        left[0] -= 1
        rename(old, new)

    monkeypatch.setattr(os, "rename", renamed)
    with contextlib.suppress(OSError):
        where.move_in(warm, 0)
    monkeypatch.setattr(os, "rename", rename)
    where.reunite()
    where.give_to(0)
    assert {name: (where.home / name).read_text() for name in files} == files
    assert (where.home.stat().st_ino == inode) == (renames > 2)
    assert not (where.path / "home.moving").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="to give files to somebody else needs root")
def test_what_one_user_left_where_all_may_write_does_not_reach_the_next(
    tmp_path: Path, claims: Path, monkeypatch
) -> None:
    monkeypatch.setattr(uids, "OPEN", (tmp_path / "tmp", tmp_path / "absent"))
    drawer = tmp_path / "tmp" / "ssh-agent"
    drawer.mkdir(parents=True)
    (tmp_path / "kept").write_text("not there")
    for name in ("notes", "theirs"):
        (tmp_path / "tmp" / name).write_text(name)
    (drawer / "key").write_text("private")
    (tmp_path / "tmp" / "link").symlink_to(tmp_path / "kept")
    for name, owner in (("notes", 7000), ("ssh-agent", 7000), ("link", 7000), ("theirs", 7001)):
        os.chown(tmp_path / "tmp" / name, owner, owner, follow_symlinks=False)
    one = _place(tmp_path, "one")
    assert uids.claim(one, 0, 7000) == 7000
    assert [path.name for path in (tmp_path / "tmp").iterdir()] == ["theirs"]
    assert (tmp_path / "kept").read_text() == "not there"
    os.chown(tmp_path / "tmp" / "theirs", 7000, 7000)
    assert uids.claim(one, 7000, 7000) == 7000
    assert (tmp_path / "tmp" / "theirs").exists(), "its own stay as long as it has the uid"


def test_a_uid_of_the_hosts_own_people_is_never_taken(
    tmp_path: Path, claims: Path, monkeypatch
) -> None:
    def known(uid: int) -> str:
        if uid in (7000, 7001):
            return "an account of the host's directory service"
        raise KeyError(uid)

    monkeypatch.setattr(uids.pwd, "getpwuid", known)
    assert uids.claim(_place(tmp_path, "one"), 0, 7000) == 7002
