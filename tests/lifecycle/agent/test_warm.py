"""IDEs that are started before anybody asks: who gets one, what comes along, and when there is none."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from lifecycle.agent import copies, warm
from lifecycle.agent.contract import Restore, SnapshotSpec, StartSpec, WarmSpec
from lifecycle.agent.disk import SEEN, Saved, WorkspaceDir
from lifecycle.agent.isolation import Isolation
from lifecycle.agent.processes import StillRunning, started_at
from lifecycle.agent.refusal import BootFailed
from lifecycle.agent.spare import Spare
from lifecycle.agent.warm import WarmIdes
from lifecycle.agent.workspace import LocalWorkspace, Setup
from lifecycle.agents import AgentRefused

root = pytest.mark.skipif(os.geteuid() != 0, reason="users of their own need root")


async def test_three_boots_of_one_workspace(each_agent, make_spec, secret) -> None:
    """New, with its files here, and from a snapshot: each in an IDE that was there before."""
    agent = each_agent
    agent.terminate()
    await agent.launch("--slots", "4")
    report = await agent.keeps(3)
    assert (report.workspaces, report.warm_spec != "") == ((), True)
    before = agent.warm_ones()
    assert len(before) == 3

    first = await agent.start("demo", 1)
    assert (first.status, first.warm, first.error) == ("running", True, "")
    assert first.pid in before
    assert first.secret not in ("", secret)
    assert await agent.ask("demo", "write", name="notes.txt", text="kept")
    assert (agent.home() / "notes.txt").read_text() == "kept"
    told = (await agent.ask("demo", "environ"))["HOME"]
    assert await agent.agents.ports(agent.machine, "demo") == [first.port]
    log = await agent.agents.log(agent.machine, "demo")
    assert "serving" in log
    assert first.secret not in log
    again = await agent.agents.start(agent.machine, "demo", make_spec(1))
    assert (again.pid, again.secret) == (first.pid, first.secret)
    job = await agent.ask("demo", "spawn", detached="yes")
    assert job in agent.marked()
    assert (await agent.stop("demo", 1)).status == "stopped"
    assert [started_at(first.pid), started_at(job)] == [0, 0]

    second = await agent.start("demo", 2)
    assert (second.warm, second.pid in before, second.pid != first.pid) == (True, True, True)
    assert second.secret not in (first.secret, secret)
    with pytest.raises(AgentRefused, match="epoch 1 is over"):
        await agent.agents.start(agent.machine, "demo", make_spec(1))
    home = (await agent.ask("demo", "environ"))["HOME"]
    for path in (home, told):  # what somebody wrote down of their own paths stays true
        assert await agent.ask("demo", "read", path=f"{path}/notes.txt") == "kept"
    await agent.stop("demo", 2)
    target = str(agent.directory.parent / "snapshots")
    await agent.agents.snapshot(agent.machine, "demo", SnapshotSpec(2, target, "s1"))
    await agent.agents.remove(agent.machine, "demo", 2)

    third = await agent.start("demo", 3, restore=Restore(target, "s1"))
    assert (third.status, third.warm, third.pid in before) == ("running", True, True)
    assert await agent.ask("demo", "write", name="more.txt", text="more")
    for path in (told, home):
        assert await agent.ask("demo", "read", path=f"{path}/notes.txt") == "kept"
    assert (agent.home() / "more.txt").read_text() == "more"
    for each in (first, second, third):
        assert each.secret not in agent.agent_log()

    agent.kill()
    await agent.launch()
    assert agent.marked() == []
    assert (await agent.row()).error_code == "machine_restarted"
    assert started_at(third.pid) == 0


@root
async def test_each_is_a_user_of_its_own_from_the_start(agent) -> None:
    await agent.keeps(2)
    rows = [await agent.start(name, 1) for name in ("one", "two")]
    assert [row.warm for row in rows] == [True, True]
    one, two = [await agent.ask(name, "whoami") for name in ("one", "two")]
    assert one[0] == one[1] >= 200_000
    assert (one[0] != two[0], one[2]) == (True, [])
    assert agent.home("one").stat().st_uid == one[0]
    account = f"one:x:{one[0]}:{one[0]}::{SEEN}/home:"
    assert account in await agent.ask("one", "read", path="/etc/passwd")
    await agent.ask("one", "write", name="private.txt", text="of one")
    for path in (agent.home("one") / "private.txt", f"/proc/{rows[0].pid}/environ"):
        assert str(await agent.ask("two", "read", path=str(path))).startswith("refused: ")
    assert Path(f"/run/ide-gateway/uids/{one[0]}").readlink() == agent.home("one").parent
    await agent.agents.remove(agent.machine, "one", 1)
    assert not Path(f"/run/ide-gateway/uids/{one[0]}").is_symlink()


async def test_what_does_not_fit_starts_its_own_and_a_restart_cleans_up(
    agent, make_spec, secret
) -> None:
    await agent.keeps(1)
    (spare,) = agent.warm_ones()
    command = make_spec(1).command + " more"
    row = await agent.start("demo", 1, command=command)
    assert (row.status, row.warm, row.secret) == ("running", False, secret)
    await agent.ask("demo", "write", name="mine.txt", text="mine")
    await agent.stop("demo", 1)
    (agent.home() / "started").mkdir()
    (agent.home() / "started" / "settings").touch()
    row = await agent.start("demo", 2)
    assert (row.status, row.warm) == ("running", False), "it has files that an IDE reads first"
    assert "this IDE reads started/* when it starts" in agent.agent_log()
    assert await agent.ask("demo", "read", path=str(agent.home() / "mine.txt")) == "mine"
    assert agent.warm_ones() == [spare]

    agent.kill()
    await agent.until(lambda: not started_at(spare), what="the warm one gone")
    await agent.launch()
    assert (await agent.agents.status(agent.machine)).warm_spec == ""
    assert list((agent.directory / "warm").iterdir()) == []


async def test_a_command_for_one_workspace_only_is_never_kept_warm(agent, make_spec) -> None:
    spec = WarmSpec(1, make_spec(1).command + " {workspace}")
    for _ in range(2):
        await agent.agents.warm(agent.machine, spec)
    assert agent.agent_log().count("no warm IDEs here: the workspace command names") == 1
    assert (await agent.agents.status(agent.machine)).warm_spec == spec.name()
    assert (await agent.start("demo", 1)).warm is False


async def test_an_orderly_end_takes_them_along(agent) -> None:
    await agent.keeps(1)
    (spare,) = agent.warm_ones()
    assert agent.terminate() == 0
    assert started_at(spare) == 0
    assert list((agent.directory / "warm").iterdir()) == []


# Turn by turn, without an agent around it.


class Kept(WarmIdes):
    """free: slots. now: seconds."""

    free = 2
    now = 0.0

    async def turn(self, *, starting: bool = False) -> int:
        await self.look(self.free, starting=starting)
        return len(self._spares)

    async def serving(self) -> Spare:
        await self._spares[0].serves()
        return self._spares[0]


@pytest.fixture
async def kept(tmp_path: Path) -> AsyncIterator[Kept]:
    kept = Kept(Setup("m-1", tmp_path.resolve(), 2, 0, Isolation(own=False)), lambda: None)
    kept.clock = lambda: kept.now
    yield kept
    await kept.close()
    assert [path for path in (tmp_path / "warm").iterdir() if not path.is_symlink()] == []


@pytest.fixture
def spec(make_spec) -> WarmSpec:
    return WarmSpec(1, make_spec(1).command, "/", 20, "Authorization: token {secret}", ())


async def test_never_more_than_free_slots_and_none_when_told_so(kept: Kept, spec) -> None:
    assert await kept.turn() == 0
    kept.tell(WarmSpec(3, spec.command, "/", 20, spec.upstream_header))
    assert [await kept.turn() for _ in range(4)] == [1, 2, 2, 2]
    kept.free = 1
    assert await kept.turn(starting=True) == 2, "the boot may be about to take one"
    assert await kept.turn() == 1
    kept.tell(WarmSpec())
    assert (await kept.turn(), kept.told, kept.ready) == (0, "", 0)


async def test_one_that_is_taken_is_replaced_when_nobody_needs_the_cpu(
    kept: Kept, spec, make_spec
) -> None:
    kept.tell(spec)
    await kept.turn()
    await kept.serving()
    assert kept.ready == 1
    assert kept.take(make_spec(1, volume="vol-1")) is None
    assert kept.take(make_spec(1, upstream_header="Authorization: other")) is None
    spare = kept.take(make_spec(1))
    assert spare is not None
    assert kept.take(make_spec(1)) is None
    kept.now = warm.PAUSE - 1
    assert await kept.turn(starting=True) == 0
    kept.now = 2 * warm.PAUSE - 2
    assert await kept.turn() == 0
    kept.now += 1
    assert await kept.turn() == 1
    kept.give_back(spare)
    assert await kept.turn() == 1


async def test_one_that_dies_is_replaced_later_and_later_and_told_of_once(
    kept: Kept, spec, caplog
) -> None:
    kept.tell(spec)
    waited = []
    for _ in range(3):
        await kept.turn()
        spare = await kept.serving()
        os.kill(spare.ide.process.pid, signal.SIGKILL)
        await spare.ide.process.wait()
        assert await kept.turn() == 0
        waited.append(kept._not_before - kept.now)
        kept.now = kept._not_before
    assert waited == [2, 4, 8]
    assert caplog.text.count("a warm IDE failed") == 1
    assert spare.ide.secret not in caplog.text


async def test_one_that_cannot_start_is_told_of_once(kept: Kept, caplog) -> None:
    kept.tell(WarmSpec(1, "no-such-program {port}"))
    for _ in range(3):
        assert await kept.turn() == 0
        kept.now = kept._not_before
    assert caplog.text.count("a warm IDE failed") == 1
    assert '"no-such-program" was not found' in caplog.text


async def test_a_machine_elsewhere_keeps_none_whose_paths_would_change(
    kept: Kept, spec, caplog
) -> None:
    kept._setup = replace(kept._setup, joined=True)
    kept.tell(spec)
    assert await kept.turn() == 0
    assert "no view of the disk of their own" in caplog.text
    (kept._setup.directory / "warm").mkdir()


async def test_whatever_fails_while_it_is_given_leads_to_a_boot_of_its_own(
    kept: Kept, spec, make_spec, until, monkeypatch: pytest.MonkeyPatch, secret
) -> None:
    kept.tell(spec)
    await kept.turn()
    spare = await kept.serving()
    setup = kept._setup
    workspace = LocalWorkspace(setup, WorkspaceDir(setup.directory, "demo"), lambda: None, kept)

    def fails(*_: object) -> None:
        raise OSError("no room")

    monkeypatch.setattr(WorkspaceDir, "move_in", fails)
    workspace.start(make_spec(1))
    await until(lambda: workspace.saved.status == "running")
    saved = workspace.saved
    assert (saved.epoch, saved.called, saved.secret) == (1, "", secret)
    assert started_at(spare.ide.process.pid) == 0
    await workspace.stop(1, 1)


async def test_one_that_is_still_starting_is_waited_for(
    kept: Kept, spec: WarmSpec, make_spec, until
) -> None:
    kept.tell(spec)
    await kept.turn()
    (spare,) = kept._spares
    assert not spare.ready.done()
    setup = kept._setup
    workspace = LocalWorkspace(setup, WorkspaceDir(setup.directory, "demo"), lambda: None, kept)
    workspace.start(make_spec(1))
    await until(lambda: workspace.saved.status == "running")
    assert workspace.saved.pid == spare.ide.process.pid
    assert isinstance(workspace.spec, StartSpec)
    assert workspace.spec.upstream_header == f"Authorization: token {spare.ide.secret}"
    await workspace.stop(1, 1)


async def test_files_restored_for_one_that_is_not_given_are_out_of_its_reach(
    kept: Kept, spec, make_spec, until, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its user may be somebody else's a moment later, and the files are that user's."""
    kept.tell(spec)
    await kept.turn()
    spare = await kept.serving()
    setup = kept._setup
    workspace = LocalWorkspace(setup, WorkspaceDir(setup.directory, "demo"), lambda: None, kept)

    def breaks_off(where: WorkspaceDir, *_: object) -> None:
        where.home.mkdir()
        raise BootFailed("restore_corrupt", "it breaks off")

    monkeypatch.setattr(copies, "restore", breaks_off)
    workspace.start(make_spec(1, restore=Restore("snapshots", "s1")))
    await until(lambda: workspace.saved.status == "failed")
    await until(lambda: kept._spares == [spare])
    assert workspace.where.path.stat().st_mode & 0o777 == 0o700
    kept.take(make_spec(2))
    workspace.start(make_spec(2))
    await until(lambda: workspace.saved.status == "running")
    assert workspace.where.path.stat().st_mode & 0o777 == 0o711
    await workspace.stop(2, 1)
    kept.give_back(spare)


async def test_one_that_dies_before_anybody_noted_it_is_cleaned_up(kept: Kept, spec) -> None:
    kept.tell(spec)
    await kept.turn()
    (spare,) = kept._spares
    spare.ready.cancel()
    await asyncio.wait({spare.ready})
    spare.ready = asyncio.create_task(asyncio.Event().wait())  # what it said is still being read
    spare.ide.process.kill()
    await spare.ide.process.wait()
    assert await kept.turn() == 0
    assert list((kept._setup.directory / "warm").iterdir()) == []


async def test_one_whose_start_cannot_be_noted_is_ended(
    kept: Kept, spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    launched = []
    save = WorkspaceDir.save

    def full(where: WorkspaceDir, saved: Saved) -> None:
        if saved.pid:
            launched.append((saved.pid, saved.started))
            raise OSError("no space left on device")
        save(where, saved)

    monkeypatch.setattr(WorkspaceDir, "save", full)
    kept.tell(spec)
    assert await kept.turn() == 0
    ((pid, started),) = launched
    assert started_at(pid) != started
    assert list((kept._setup.directory / "warm").iterdir()) == []


async def test_one_that_cannot_be_ended_keeps_its_user(
    kept: Kept, spec, monkeypatch: pytest.MonkeyPatch, caplog
) -> None:
    async def hangs(*_: object) -> None:
        raise StillRunning("SIGKILL did not end 1")

    kept.tell(spec)
    await kept.turn()
    spare = await kept.serving()
    with monkeypatch.context() as stuck:
        stuck.setattr(warm, "end", hangs)
        kept.tell(WarmSpec())
        assert await kept.turn() == 0
        assert spare.where.path.is_dir()
        await kept.recover()
    assert caplog.text.count("SIGKILL did not end 1") == 2
    await kept.recover()
    await spare.ide.process.wait()
    assert not spare.where.path.exists()
