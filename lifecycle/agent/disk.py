"""What an agent keeps on its machine's disk, and how it is written so that a crash leaves it whole.

DIR/agent.json, agent.lock, agent.log       the agent itself
DIR/machine.json                            written by its pool: what it was launched with
DIR/epochs.json                             newest epochs of workspaces that are not here any more
DIR/workspaces/{id}/state.json, ide.log     the workspace's epoch and status; its IDE's output
DIR/workspaces/{id}/home, run               its files; its sockets and temporary files
DIR/workspaces/{id}/volume/home             its files, where it has a volume of its own
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

log = logging.getLogger("lifecycle.agent")

MAX_EPOCHS = 10_000  # above it the oldest are forgotten


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
    """Paths of one workspace."""

    def __init__(self, machine: Path, workspace_id: str) -> None:
        self.id = workspace_id
        self.path = machine / "workspaces" / workspace_id
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
        self.home.mkdir(mode=0o700, exist_ok=True)
        for directory in (self.run, self.run / "tmp", self.run / "jupyter"):
            directory.mkdir(mode=0o700)
        if os.geteuid() == 0:
            if self.home.stat().st_uid != uid:
                give_tree(self.home, uid)
            give_tree(self.run, uid)
        self.home.chmod(0o700)
        if uid:
            self._write_accounts(uid)

    def _write_accounts(self, uid: int) -> None:
        """passwd and group as this workspace sees them: the machine's, and itself."""
        lines = {
            "passwd": f"{self.id}:x:{uid}:{uid}::{self.home}:{shell()}\n",
            "group": f"{self.id}:x:{uid}:\n",
        }
        for path, own in self.accounts.items():
            shown = Path(own)
            shown.write_text(Path(path).read_text().rstrip("\n") + "\n" + lines[shown.name])
            shown.chmod(0o644)

    def discard(self, trash: Path) -> None:
        """Gone at once under its name; whoever empties the trash frees the space."""
        if os.path.ismount(self.volume):
            raise OSError(errno.EBUSY, "its volume is still mounted", str(self.volume))
        if self.path.exists():
            trash.mkdir(mode=0o700, exist_ok=True)
            os.rename(self.path, trash / uuid.uuid4().hex)


def give_tree(root: Path, uid: int) -> None:
    """Nothing of the workspace runs meanwhile, so no link can be swapped in under us."""
    os.chown(root, uid, uid)
    for directory, names, files in os.walk(root):
        for name in [*names, *files]:
            os.chown(os.path.join(directory, name), uid, uid, follow_symlinks=False)


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
