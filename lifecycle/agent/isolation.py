"""How workspaces on this machine are kept apart: a Linux user each, or all as the agent's user.

A user of its own must still reach its home, the Python installation and the IDE's program. Where
a directory above one of them is closed to it (/root is 0700), the workspace gets a view of the
disk in which that directory is an empty tmpfs with only what is needed bound back into it.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lifecycle.agent.disk import SEEN, WorkspaceDir
from lifecycle.agent.refusal import BootFailed

log = logging.getLogger("lifecycle.agent")

CONFINE = Path(__file__).with_name("confine.py")
WorkspaceUser = Literal["auto", "own", "shared"]
Step = tuple[str, str] | tuple[str, str, str, bool]


@dataclass(frozen=True, slots=True)
class Isolation:
    """own: each workspace has a uid. mounts: and may have its own view of the disk.

    why: for a person; starts with the path or the missing right that stands in the way.
    required: `own` was asked for, so a workspace that cannot have it does not start.
    """

    own: bool
    mounts: bool = False
    why: str = ""
    required: bool = False

    def check(self) -> None:
        """Raise BootFailed("isolation_impossible") if workspaces must not run like this."""
        if self.required and not self.own:
            raise BootFailed(
                "isolation_impossible",
                f"no user of its own for this workspace: {self.why}. "
                "Run the agent as root where it may mount, or set --workspace-user shared",
            )


def isolation(user: WorkspaceUser, directory: Path, uid: int) -> Isolation:
    """Find out by trying, once at start-up. directory: the machine's. uid: one to try with."""
    required = user == "own"
    if user == "shared":
        return Isolation(own=False, why="set by --workspace-user shared")
    if os.geteuid() != 0:
        return Isolation(own=False, why="the agent does not run as root", required=required)
    home = directory / "trial"
    home.mkdir(mode=0o700, exist_ok=True)
    try:
        os.chown(home, uid, uid)
        return _try(home, uid, required)
    except OSError as error:
        return Isolation(own=False, why=f"{error.filename}: {error.strerror}", required=required)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _try(home: Path, uid: int, required: bool) -> Isolation:
    steps = plan(uid, [home], installations([Path(sys.executable)]))
    # Even when no directory is in the way a view of its own is useful (see disk_view).
    SEEN.mkdir(mode=0o711, parents=True, exist_ok=True)
    own: list[Step] = [("tmpfs", str(SEEN)), ("bind", str(home), str(SEEN / "home"), False)]
    why = _trial(home, uid, [*own, *steps])
    if not why:
        return Isolation(own=True, mounts=True, required=required)
    closed = [str(step[1]) for step in steps if step[0] == "tmpfs"]
    if not closed and not _trial(home, uid, []):
        return Isolation(own=True, why=why, required=required)
    path = f"{', '.join(closed)} is closed to other users, and " if closed else ""
    return Isolation(own=False, why=path + why, required=required)


def _trial(home: Path, uid: int, steps: list[Step]) -> str:
    """What stops Python from running as `uid` in `home`; "" if nothing."""
    argv = confined([sys.executable, "-I", "-S", "-c", "import os; os.listdir()"], uid, home, steps)
    done = subprocess.run(argv, cwd="/", env={}, capture_output=True, text=True, timeout=30)
    if done.returncode == 0:
        return ""
    return done.stderr.strip().rpartition("\n")[2] or f"exit code {done.returncode}"


def confined(
    argv: Iterable[str], uid: int, cwd: Path, steps: list[Step], home: Path | None = None
) -> list[str]:
    """The command that runs argv confined. uid 0: as the agent's user, on the plain disk. home: its files,
    by their real path; cwd, unless given."""
    spec = {"parent": os.getpid(), "uid": uid, "cwd": str(cwd), "steps": steps}
    spec["home"] = str(home or cwd)
    return [sys.executable, "-I", "-S", str(CONFINE), json.dumps(spec), "--", *argv]


def plan(uid: int, writable: Iterable[Path], read_only: Iterable[Path]) -> list[Step]:
    """Mounts after which `uid` reaches these paths; none where it can already.

    The outermost closed directory above a path is covered by a tmpfs, the path is bound back.
    """
    wanted = {path: False for path in writable} | {path: True for path in read_only}
    steps: list[Step] = []
    covered: set[Path] = set()
    bound: set[Path] = set()
    for path in sorted(wanted, key=lambda each: len(each.parts)):
        if wanted[path] and _closed(path, uid):
            continue  # shown or not, it stays closed; and what lies below it would be as well
        above = list(reversed(path.parents))
        known = max((i for i, each in enumerate(above) if each in covered | bound), default=-1)
        if known < 0 or above[known] in bound:  # below that, directories are the real ones
            closed = next((each for each in above[known + 1 :] if _closed(each, uid)), None)
            if closed is None:
                continue
            steps.append(("tmpfs", str(closed)))
            covered.add(closed)
        steps.append(("bind", str(path), str(path), wanted[path]))
        bound.add(path)
    return steps


def _closed(path: Path, uid: int) -> bool:
    """A directory that `uid` may not pass through."""
    try:
        found = path.stat()
    except OSError:
        return False  # what is not there is somebody else's error to report
    if not stat.S_ISDIR(found.st_mode):
        return False
    if found.st_uid == uid:
        return not found.st_mode & stat.S_IXUSR
    return not found.st_mode & (stat.S_IXGRP if found.st_gid == uid else stat.S_IXOTH)


def installations(programs: Iterable[Path]) -> set[Path]:
    """What these programs and our own Python need, by every name it is reached by.

    The program itself as well: from a closed directory only that is shown.
    """
    found = {Path(sys.prefix), Path(sys.base_prefix)}
    for program in programs:
        for hop in [*_hops(program), *_interpreter(program)]:
            found |= {hop, _installation(hop)}
    return {path for path in found | {each.resolve() for each in found} if path.exists()}


def _hops(program: Path) -> list[Path]:
    """The path itself and what each of its symlinks leads to."""
    path = Path(os.path.abspath(program))
    hops = [path]
    while path.is_symlink() and len(hops) < 40:
        path = Path(os.path.abspath(path.parent / path.readlink()))
        hops.append(path)
    return [*hops, path.resolve()]


def _interpreter(program: Path) -> list[Path]:
    """Of a script that starts with "#!/path"."""
    try:
        with program.open("rb") as file:
            first = file.readline(256)
    except OSError:
        return []
    words = first[2:].split() if first.startswith(b"#!") else []
    return _hops(Path(os.fsdecode(words[0]))) if words else []


def _installation(program: Path) -> Path:
    """/opt/node/bin/node → /opt/node, but /root/.local/bin/x → /root/.local/bin: no more than needed."""
    directory, prefix = program.parent, program.parent.parent
    if directory.name != "bin" or len(prefix.parts) < 3:
        return directory
    plain = not prefix.name.startswith(".") or (prefix / "pyvenv.cfg").exists()
    return prefix if plain else directory


def named(words: Iterable[str]) -> set[Path]:
    """Files and directories that a command names by their absolute path, as in `--config=/etc/ide.toml`."""
    candidates = (Path(word.rpartition("=")[2]) for word in words)
    return {path for path in candidates if path.is_absolute() and os.path.lexists(path)}


def seen(found: Isolation, uid: int, where: WorkspaceDir) -> tuple[Path, Path]:
    """home and run, as the workspace's processes find them."""
    if uid and found.mounts:
        return SEEN / "home", SEEN / "run"
    return where.home, where.run


def disk_view(
    found: Isolation,
    uid: int,
    writable: Iterable[Path],
    program: Path,
    words: Iterable[str],
    accounts: dict[str, str],
) -> list[Step]:
    """The steps for one workspace. writable: its home and run, shown in SEEN as well. words: the program's
    arguments; what they name is shown to it, too. accounts: "/etc/passwd" and the like → the file shown instead.

    Raises BootFailed("isolation_impossible") when it needs mounts and this machine has none, or names
    a file that only its owner may read: running as somebody else's user is no way out.
    """
    writable = list(writable)
    shown = {path for path in named(words) if not any(path.is_relative_to(w) for w in writable)}
    private = next((p for p in shown if p.is_file() and not p.stat().st_mode & stat.S_IROTH), None)
    if private is not None:
        raise BootFailed(
            "isolation_impossible",
            f"{private}, which the workspace command names, is readable for its owner only. "
            f"Open it (chmod o+r), or set --workspace-user shared",
        )
    steps = plan(uid, writable, installations([program]) | shown)
    if found.mounts:
        # Without an account ssh refuses to work and the shell greets "I have no name!".
        shown_as = [("bind", str(path), str(SEEN / path.name), False) for path in writable]
        own: list[Step] = [("bind", new, old, True) for old, new in accounts.items()]
        return [*own, ("tmpfs", str(SEEN)), *shown_as, *steps]
    if steps:
        raise BootFailed(
            "isolation_impossible",
            f"{steps[0][1]} is closed to other users and mounting is not possible here. "
            f"Open it (chmod o+x), install the IDE elsewhere, or set --workspace-user shared",
        )
    return []
