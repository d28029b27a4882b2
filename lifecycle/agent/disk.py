"""What an agent keeps on its machine's disk, and how it is written so that a crash leaves it whole.

DIR/agent.json, agent.lock, agent.log       the agent itself
DIR/machine.json                            written by its pool: what it was launched with
DIR/epochs.json                             newest epochs of workspaces that are not here any more
DIR/workspaces/{id}/state.json, ide.log     the workspace's epoch and status; its IDE's output
DIR/workspaces/{id}/home, run               its files; its sockets and temporary files
DIR/workspaces/{id}/volume/home             its files, where it has a volume of its own
DIR/workspaces/{id}/home.moving             its files, on their way into the home of a warm IDE
DIR/warm/{id}/                              as DIR/workspaces/{id}: an IDE that is nobody's yet
DIR/warm/{id} → ../workspaces/{id}          whose it became, where processes go on knowing it by its old path
DIR/trash/                                  being removed
"""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import uuid
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from lifecycle.agent import output
from lifecycle.snapshots import tree

log = logging.getLogger("lifecycle.agent")

MAX_EPOCHS = 10_000  # above it the oldest are forgotten

SEEN = Path("/run/ide-gateway")
"""A workspace with a view of its own finds its files in `home` and its sockets in `run` here: what it writes
down of its own paths is true for every IDE it is given, and on every machine."""

NOBODY = "workspace"
"""The user's name in an IDE that was started before it was known whose it is."""


@dataclass(frozen=True, slots=True)
class Saved:
    """A workspace as state.json holds it. pid, started: of the IDE, also after it ended."""

    epoch: int = 0
    status: str = "stopped"
    step: str = ""
    uid: int = 0
    port: int = 0
    pid: int = 0
    started: int = 0
    error_code: str = ""
    error: str = ""
    user_id: str = ""
    name: str = ""
    plan: str = "default"
    priority: str = "normal"
    region: str = "local"
    secret: str = field(default="", repr=False)
    restore: str = ""
    volume: str = ""
    called: str = ""
    """What the warm IDE that it was given was called before; "" of a boot that started its own."""


def write_json(path: Path, data: dict[str, Any]) -> None:
    """Atomic, and on the disk before it returns: an epoch once promised is never forgotten.
    For the agent's own user only: a state holds the IDE's secret."""
    beside = path.with_name(path.name + ".new")
    beside.unlink(missing_ok=True)
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump(data, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)


def read_json(path: Path) -> dict[str, Any]:
    """{} when the file is not there. Raises ValueError when it is not ours."""
    try:
        data = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    if not isinstance(data, dict):
        raise ValueError(f"{path} does not hold an object")
    return data


class WorkspaceDir:
    """Paths of one workspace, or of a warm IDE that is to become one's."""

    def __init__(self, machine: Path, workspace_id: str, folder: str = "workspaces") -> None:
        self.id = workspace_id
        self.user = workspace_id if folder == "workspaces" else NOBODY
        self.machine = machine
        self.path = machine / folder / workspace_id
        self.home = self.path / "home"
        self.volume = self.path / "volume"
        self.run = self.path / "run"
        self.log = self.path / "ide.log"
        self.accounts = {
            f"/etc/{name}": str(self.path / name)
            for name in ("passwd", "group")
            if Path(f"/etc/{name}").exists()
        }
        self._state = self.path / "state.json"

    def make(self) -> None:
        # 0711: the workspace's user passes through to home and run, and sees nothing else.
        for directory in (self.path.parent.parent, self.path.parent, self.path):
            directory.mkdir(mode=0o711, parents=True, exist_ok=True)

    def use_volume(self, volume: str) -> None:
        """Where home is: on that volume, or ("") on the machine's disk."""
        self.home = (self.volume if volume else self.path) / "home"

    def load(self) -> Saved:
        known = {each.name for each in fields(Saved)}
        data = {name: value for name, value in read_json(self._state).items() if name in known}
        saved = Saved(**data)
        self.use_volume(saved.volume)
        return saved

    def save(self, saved: Saved) -> None:
        self.make()
        write_json(self._state, asdict(saved))

    def give_to(self, uid: int) -> None:
        """Make home and run, private to uid (0: to the agent's own user). run starts empty."""
        shutil.rmtree(self.run, ignore_errors=True)
        for directory in (self.run, self.run / "tmp", self.run / "jupyter"):
            directory.mkdir(mode=0o700)
        if os.geteuid() == 0:
            give_tree(self.run, uid)
        self._give_home_to(uid)
        if uid:
            self._write_accounts(uid, self.user)
        self.path.chmod(0o711)

    def close(self) -> None:
        """Nobody passes through until give_to() or move_in() is over: files that are on their way to a user who
        may yet become somebody else's stay out of that one's reach, also when the boot breaks off."""
        self.path.chmod(0o700)

    def _give_home_to(self, uid: int) -> None:
        self.home.mkdir(mode=0o700, exist_ok=True)
        if os.geteuid() == 0 and self.home.stat().st_uid != uid:
            give_tree(self.home, uid)
        self.home.chmod(0o700)

    def _write_accounts(self, uid: int, *names: str) -> None:
        """passwd and group as this workspace sees them: the machine's, and itself. The files stay the same
        ones, so that who looks at them already sees it."""
        lines = {
            "passwd": [f"{name}:x:{uid}:{uid}::{SEEN}/home:{shell()}\n" for name in names],
            "group": [f"{name}:x:{uid}:\n" for name in names],
        }
        for path, own in self.accounts.items():
            shown = Path(own)
            before = Path(path).read_text().rstrip("\n")
            shown.write_text("\n".join([before, "".join(lines[shown.name])]))
            shown.chmod(0o644)

    def has_files(self) -> bool:
        return self.home.is_dir() and any(self.home.iterdir())

    def move_in(self, warm: WorkspaceDir, uid: int) -> None:
        """Take over what a warm IDE has: its run, its log, its home with the files that are here in it. After
        it broke off, reunite() and give_to() lead on."""
        shutil.rmtree(self.run, ignore_errors=True)
        os.rename(warm.run, self.run)
        output.hand_on(warm.log, self.log)
        if self.has_files():
            self._give_home_to(uid)
            os.rename(self.home, self._moving)
        os.rename(warm.home, self.home)
        self.reunite()
        if uid:
            for name, own in warm.accounts.items():
                os.rename(own, self.accounts[name])
            self._write_accounts(uid, self.id, warm.user)
        self.path.chmod(0o711)

    @property
    def _moving(self) -> Path:
        return self.home.parent / "home.moving"

    def reunite(self) -> None:
        """Finish a move of files into a warm IDE's home, if one broke off: before anybody looks at the files.
        Where both have something of one name, the person's stays. Raises OSError."""
        if not self._moving.exists():
            return
        if not self.home.exists():
            os.rename(self._moving, self.home)
            return
        for theirs in sorted(self._moving.iterdir()):
            own = self.home / theirs.name
            if own.is_dir() and not own.is_symlink():
                tree.remove(own)
            elif os.path.lexists(own):
                own.unlink()
            os.rename(theirs, own)
        self._moving.rmdir()

    def discard(self, trash: Path) -> None:
        """Gone at once under its name; whoever empties the trash frees the space."""
        if os.path.ismount(self.volume):
            raise OSError(errno.EBUSY, "its volume is still mounted", str(self.volume))
        if self.path.exists():
            trash.mkdir(mode=0o700, exist_ok=True)
            os.rename(self.path, trash / uuid.uuid4().hex)


def give_tree(root: Path, uid: int) -> None:
    """Nothing of the workspace runs meanwhile, so no link can be swapped in under us. root is the last: as
    long as it is not given, not everything is."""
    for directory, names, files in os.walk(root):
        for name in [*names, *files]:
            os.chown(os.path.join(directory, name), uid, uid, follow_symlinks=False)
    os.chown(root, uid, uid)


def shell() -> str:
    return "/bin/bash" if os.access("/bin/bash", os.X_OK) else "/bin/sh"


class Epochs:
    """Newest epochs of workspaces that were here: a late call for one of them is still refused."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._newest: dict[str, int] = read_json(path)

    def newest(self, workspace_id: str) -> int:
        return self._newest.get(workspace_id, 0)

    def remember(self, workspace_id: str, epoch: int) -> None:
        if epoch <= self.newest(workspace_id):
            return
        self._newest.pop(workspace_id, None)
        self._newest[workspace_id] = epoch
        while len(self._newest) > MAX_EPOCHS:
            del self._newest[next(iter(self._newest))]
        try:
            write_json(self._path, self._newest)
        except OSError as error:  # a full disk must not keep files from being removed
            log.error("%s is not up to date: %s", self._path, error)
