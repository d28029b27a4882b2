"""What one workspace sees of the agent and of its neighbour on the machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from lifecycle.agent.disk import SEEN
from lifecycle.agent.isolation import Isolation, confined, disk_view, installations, isolation, plan
from lifecycle.agent.processes import started_at
from lifecycle.agent.refusal import BootFailed

root = pytest.mark.skipif(os.geteuid() != 0, reason="users of their own need root")

SECRETS = {
    "AWS_SECRET_ACCESS_KEY": "aws-key",
    "IDE_GATEWAY_API_KEY": "api-key",
    "PIP_INDEX_URL": "https://me:password@example.invalid/simple",
}


async def test_nothing_of_the_agent_reaches_the_ide(live, secret) -> None:
    await live.launch(environment=SECRETS)
    running = await live.start()
    environment = await live.ask("demo", "environ")
    text = " ".join(f"{name}={value}" for name, value in environment.items())
    for hidden in ("token-of-the-machine", "aws-key", "api-key", "password"):
        assert hidden not in text
    ours = {name for name in environment if name.startswith("IDE_GATEWAY_")}
    assert ours == {"IDE_GATEWAY_BOOT", "IDE_GATEWAY_HOME"}
    assert environment["IDE_GATEWAY_BOOT"] == "demo/1"
    own_view = os.geteuid() == 0
    seen = SEEN if own_view else live.home().parent
    assert environment["HOME"] == str(seen / "home")
    assert environment["IDE_SECRET"] == secret
    assert str(Path(sys.executable).parent) in environment["PATH"].split(":")
    for name in ("TMPDIR", "XDG_RUNTIME_DIR", "JUPYTER_RUNTIME_DIR"):
        assert environment[name].startswith(str(seen / "run"))
    argv = Path(f"/proc/{running.pid}/cmdline").read_bytes()
    assert secret.encode() not in argv


async def test_the_agents_own_arguments_hold_no_token(agent) -> None:
    argv = Path(f"/proc/{agent.process.pid}/cmdline").read_bytes()
    assert b"token-of-the-machine" not in argv
    assert "token-of-the-machine" not in agent.agent_log()


async def test_a_neighbour_cannot_open_the_ide_over_loopback(agent) -> None:
    first = await agent.start("one", 1)
    await agent.start("two", 1)
    assert await agent.ask("one", "fetch", port=str(first.port)) == 403
    assert await agent.ask("two", "fetch", port=str(first.port)) == 403


@root
async def test_a_neighbours_process_that_wears_our_mark_is_not_ours(agent) -> None:
    """Else the gateway would send our visitors, and the secret, to what the neighbour listens on."""
    first = await agent.start("one", 1)
    await agent.start("two", 1)
    port = await agent.ask("two", "pose", boot="one/1", home=str(agent.home("one")))
    assert await agent.agents.ports(agent.machine, "one") == [first.port]
    assert port in await agent.agents.ports(agent.machine, "two")
    await agent.stop("one", 1)
    assert port in await agent.agents.ports(agent.machine, "two"), "nor is it ended with us"


async def test_a_port_is_ours_only_where_loopback_leads_to_us(agent) -> None:
    theirs = (await agent.start("two", 1)).port
    await agent.start("one", 1)
    own = await agent.ask("one", "listen")
    both = await agent.ask("one", "listen", address="::")
    for address in ("127.0.0.2", "::"):
        assert await agent.ask("one", "listen", address=address, port=str(theirs)) == theirs
    ports = await agent.agents.ports(agent.machine, "one")
    assert {own, both} < set(ports)
    assert theirs not in ports


@root
async def test_each_workspace_is_a_user_of_its_own(agent) -> None:
    # pytest's temporary directories are 0700 and the Python may be in /root: it runs all the same.
    assert "a user of its own" in agent.agent_log()
    first = await agent.start("one", 1)
    await agent.start("two", 1)
    one, two = [await agent.ask(name, "whoami") for name in ("one", "two")]
    assert one[0] == one[1] >= 200_000
    assert one[0] != two[0]
    assert one[2:] == [[], "one", "0o77"]
    account = f"one:x:{one[0]}:{one[0]}::{SEEN}/home:"  # ssh refuses to run without
    assert account in await agent.ask("one", "read", path="/etc/passwd")

    await agent.ask("one", "write", name="private.txt", text="of one")
    private = str(agent.home("one") / "private.txt")
    assert await agent.ask("one", "read", path=private) == "of one"
    assert str(await agent.ask("two", "read", path=private)).startswith("refused: ")
    assert str(await agent.ask("two", "listing", path=str(agent.home("one")))).startswith("refused")
    for name in ("environ", "mem", "cwd/private.txt", "root"):
        answer = await agent.ask("two", "read", path=f"/proc/{first.pid}/{name}")
        assert str(answer).startswith("refused: "), name
    for name in ("environ", "mem"):
        answer = await agent.ask("two", "read", path=f"/proc/{agent.process.pid}/{name}")
        assert str(answer).startswith("refused: "), name
    for name in ("state.json", "ide.log"):
        path = str(agent.home("one").parent / name)
        assert str(await agent.ask("two", "read", path=path)).startswith("refused: ")
    found = agent.home("one").stat()
    assert (found.st_uid, found.st_mode & 0o777) == (one[0], 0o700)


@root
async def test_a_closed_directory_shows_only_what_is_needed(agent) -> None:
    beside = agent.directory.parent / "api-key"
    beside.write_text("secret of the gateway")
    await agent.start("demo", 1)
    assert str(await agent.ask("demo", "read", path=str(beside))).startswith("refused: ")
    assert beside.name not in await agent.ask("demo", "listing", path=str(beside.parent))


@root
async def test_shared_memory_is_of_one_boot(agent) -> None:
    for name, epoch in (("one", 1), ("two", 1), ("one", 2)):
        await agent.start(name, epoch)
        assert await agent.ask(name, "share") == [], "neither a neighbour's nor of the boot before"
    assert await agent.ask("one", "share") == [str(0x1DE)]


@root
async def test_the_uid_is_kept_and_freed_with_the_workspace(agent) -> None:
    await agent.start("demo", 1)
    uid = (await agent.ask("demo", "whoami"))[0]
    claim = Path(f"/run/ide-gateway/uids/{uid}")
    assert claim.readlink() == agent.home().parent
    assert (await agent.start("demo", 2)).status == "running"
    assert (await agent.ask("demo", "whoami"))[0] == uid
    agent.terminate()
    await agent.launch()
    assert claim.readlink() == agent.home().parent
    await agent.agents.remove(agent.machine, "demo", 2)
    assert not claim.is_symlink()


@root
async def test_a_job_that_wipes_its_environment_is_found_by_its_user(agent) -> None:
    await agent.start("demo", 1)
    uid = (await agent.ask("demo", "whoami"))[0]
    await agent.ask("demo", "spawn", detached="yes", clean="yes")
    assert len(_of_user(uid)) == 2
    agent.kill()
    await agent.launch()
    assert _of_user(uid) == []


def _of_user(uid: int) -> list[int]:
    found = [each.pid for each in psutil.process_iter(["uids"]) if each.info["uids"].real == uid]
    return [pid for pid in found if started_at(pid)]


@root
async def test_a_program_in_a_closed_directory_is_shown_alone(agent, runs, tmp_path) -> None:
    program = tmp_path / "serve"
    program.write_text(f"#!{sys.executable}\n" + SERVE)
    program.chmod(0o755)
    (tmp_path / "beside").touch()
    assert (await agent.start(command=f"{program} {{port}}", ready_path="")).status == "running"
    seen = Path(f"/proc/{(await agent.row()).pid}/root{tmp_path}")
    assert sorted(path.name for path in seen.iterdir()) == ["machine", "serve"]


SERVE = "import sys, http.server as s; s.test(s.SimpleHTTPRequestHandler, port=int(sys.argv[1]))"


@root
async def test_shared_on_request(live) -> None:
    await live.launch("--workspace-user", "shared")
    assert "set by --workspace-user shared" in live.agent_log()
    await live.start()
    assert (await live.ask("demo", "whoami"))[0] == os.geteuid()


@root
async def test_from_shared_to_own_the_files_change_hands(live) -> None:
    await live.launch("--workspace-user", "shared")
    await live.start("demo", 1)
    await live.ask("demo", "write", name="notes.txt", text="kept")
    live.terminate()
    await live.launch("--workspace-user", "own")
    await live.start("demo", 2)
    assert (await live.ask("demo", "whoami"))[0] >= 200_000
    assert await live.ask("demo", "read", path=str(live.home() / "notes.txt")) == "kept"


# Without the right to mount: as in a container that runs as root.
NO_MOUNTS = ["setpriv", "--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin"]


@root
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="setpriv is missing (util-linux)")
@pytest.mark.parametrize("user", ["auto", "own"])
async def test_no_right_to_mount(live, user: str, tmp_path: Path) -> None:
    assert tmp_path.parent.stat().st_mode & 0o001 == 0, "a closed directory in the way"
    await live.launch("--workspace-user", user, prefix=NO_MOUNTS)
    log = live.agent_log()
    assert "NOT kept apart" in log
    assert "is closed to other users" in log
    assert "unshare: Operation not permitted" in log
    report = await live.start()
    if user == "auto":
        assert report.status == "running"
    else:
        assert (report.status, report.error_code) == ("failed", "isolation_impossible")
        assert "set --workspace-user shared" in report.error


def test_an_unprivileged_agent_says_so(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert isolation("auto", tmp_path, 1) == Isolation(False, why="the agent does not run as root")
    with pytest.raises(BootFailed, match="does not run as root") as failed:
        isolation("own", tmp_path, 1).check()
    assert failed.value.code == "isolation_impossible"


def test_the_plan_covers_the_outermost_closed_directory(tmp_path: Path, monkeypatch) -> None:
    closed = {"/root", "/root/inner", "/srv/software/data"}
    monkeypatch.setattr(
        sys.modules[plan.__module__], "_closed", lambda path, uid: str(path) in closed
    )

    def bind(path: str, read_only: bool) -> tuple[str, str, str, bool]:
        return ("bind", path, path, read_only)

    def steps(writable: list[str], read_only: list[str]) -> list:
        return plan(4711, map(Path, writable), map(Path, read_only))

    assert steps(["/home/w"], ["/usr", "/srv/software"]) == []
    # Once /root is covered, what lay closed inside it is ours to make anew.
    assert steps(["/root/inner/w/home"], ["/root/python"]) == [
        ("tmpfs", "/root"),
        bind("/root/python", True),
        bind("/root/inner/w/home", False),
    ]
    # Inside of what was bound back the directories are the real ones again.
    closed.add("/root/python/inner")
    assert steps(["/root/python/inner/home"], ["/root/python"]) == [
        ("tmpfs", "/root"),
        bind("/root/python", True),
        ("tmpfs", "/root/python/inner"),
        bind("/root/python/inner/home", False),
    ]
    assert steps(["/srv/software/data/w"], ["/srv/software"]) == [
        ("tmpfs", "/srv/software/data"),
        bind("/srv/software/data/w", False),
    ]


def test_without_mounts_a_closed_directory_is_an_error(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    tmp_path.chmod(0o700)
    with pytest.raises(BootFailed, match="is closed to other users") as failed:
        disk_view(Isolation(own=True), 4711, [home], Path(sys.executable), [], {})
    assert failed.value.code == "isolation_impossible"


def test_installations_follow_links_and_interpreters(tmp_path: Path) -> None:
    for name in ("node/bin", ".local/bin", "venv/bin"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "venv/bin/python").touch()
    (tmp_path / "node/bin/ide").write_text(f"#!{tmp_path}/venv/bin/python\n")
    (tmp_path / ".local/bin/ide").symlink_to(tmp_path / "node/bin/ide")
    found = installations([tmp_path / ".local/bin/ide"])
    # The home's .local is not an installation: only its bin is shown.
    assert {tmp_path / ".local/bin", tmp_path / "node", tmp_path / "venv"} <= found
    assert tmp_path / ".local" not in found
    assert Path(sys.prefix) in found


def test_a_command_whose_agent_died_meanwhile_does_not_run(tmp_path: Path) -> None:
    argv = confined(["/bin/echo", "ran"], 0, tmp_path, [])
    argv[4] = argv[4].replace(f'"parent": {os.getpid()}', '"parent": 1')
    done = subprocess.run(argv, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (125, "")
    assert done.stderr == "ide-gateway: the agent is gone\n"
