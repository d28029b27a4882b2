"""Machines on this host: agent processes, each with a directory as its disk.

    {data_dir}/machines/{machine_id}/   see lifecycle.agent.disk

A machine outlives the gateway that launched it. Its agent holds a lock on its directory, so that
two launches of one machine, by whomever, leave one agent.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Literal

import lifecycle
from lifecycle.agent.disk import WorkspaceDir, read_json, write_json
from lifecycle.agent.processes import StillRunning, end, is_alive
from lifecycle.agent.uids import PER_MACHINE
from lifecycle.agent.workspace import OCCUPYING, load, owner_of
from lifecycle.pools import Launch, Observed, PoolError, Traits
from lifecycle.snapshots import tree

log = logging.getLogger(__name__)

TOKEN = "IDE_GATEWAY_AGENT_TOKEN"
UID_BASE = 200_000
PLACES = 1_000_000  # so that uids stay below 2**31
STOP_MARGIN = 5.0  # seconds on top of the workspaces' grace until an agent is killed

_LAUNCHED = "machine.json"
"""File in a machine's directory with the token and the slots it was launched with."""

_MACHINE_ID = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,62}[A-Za-z0-9])?")


class LocalPool:
    """A Pool. workspace_user: auto, own or shared. stop_grace: seconds that IDEs get to end."""

    name = "local"
    traits = Traits()

    def __init__(
        self, data_dir: Path, *, workspace_user: str = "auto", stop_grace: float = 10.0
    ) -> None:
        self._machines = data_dir.resolve() / "machines"
        self._workspace_user = workspace_user
        self._stop_grace = stop_grace
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    async def launch(self, launches: Sequence[Launch]) -> list[str]:
        for launch in launches:
            directory = self._directory(launch.machine_id)
            if not self._is_up(launch.machine_id):
                self._spawn(launch, directory)
        return []

    async def describe(self) -> list[Observed]:
        if not self._machines.is_dir():
            return []
        names = sorted(path.name for path in self._machines.iterdir() if path.is_dir())
        return [self._observe(name) for name in names if _MACHINE_ID.fullmatch(name)]

    async def start(self, launch: Launch) -> None:
        if not self._directory(launch.machine_id).is_dir():
            raise PoolError(
                f"machine {launch.machine_id} has no disk in {self._machines}; launch another one"
            )
        await self.launch([launch])

    async def stop(self, machine_id: str) -> None:
        self._directory(machine_id)
        await self._stop([machine_id])

    async def terminate(self, machine_id: str) -> None:
        directory = self._directory(machine_id)
        doomed = directory.with_name(f".{machine_id}.removed")
        await self._stop([machine_id])
        try:
            await asyncio.to_thread(_remove, directory, doomed)
        except OSError as error:
            raise PoolError(f"cannot remove machine {machine_id}: {error}") from error

    async def protect(self, machine_ids: Collection[str]) -> None:
        """Nobody else removes machines here."""

    async def close(self, stop_machines: bool) -> None:
        if stop_machines:
            await self._stop([each.machine_id for each in await self.describe()])
        for child in self._children.values():
            if child.poll() is None:
                child.returncode = 0  # it goes on without us: no warning that nobody waits for it
        self._children.clear()

    def _directory(self, machine_id: str) -> Path:
        if not _MACHINE_ID.fullmatch(machine_id):
            raise PoolError(f"{machine_id[:70]!r} cannot name a machine: use letters, digits and -")
        return self._machines / machine_id

    def _spawn(self, launch: Launch, directory: Path) -> None:
        argv = [sys.executable, "-P", "-m", "lifecycle.agent"]
        argv += ["--machine", launch.machine_id, "--dir", str(directory)]
        argv += ["--slots", str(launch.slots), "--uid-base", str(uid_base(launch.machine_id))]
        argv += ["--workspace-user", self._workspace_user, "--stop-grace", str(self._stop_grace)]
        try:
            # 0711: workspaces' users pass through to their homes, and list nothing.
            self._machines.mkdir(mode=0o711, parents=True, exist_ok=True)
            directory.mkdir(mode=0o711, exist_ok=True)
            # Before there is anything to find again: should the store lose its record, this tells.
            write_json(directory / _LAUNCHED, {"token": launch.token, "slots": launch.slots})
            # 0600: with a failure it quotes the IDE's own output.
            descriptor = os.open(
                directory / "agent.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600
            )
            with open(descriptor, "ab") as log:
                self._children[launch.machine_id] = subprocess.Popen(
                    argv,
                    env=_environment(launch.token),
                    cwd=directory,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
        except OSError as error:
            raise PoolError(f"cannot launch machine {launch.machine_id}: {error}") from error

    def _observe(self, machine_id: str) -> Observed:
        here = self._announced(machine_id)
        token, slots = self._launched(machine_id)
        if here is not None:
            address = f"127.0.0.1:{here['port']}"
            return Observed(machine_id, "running", address, token, slots)
        state: Literal["launching", "stopped"] = (
            "launching" if self._is_up(machine_id) else "stopped"
        )
        return Observed(machine_id, state, "", token, slots)

    def _launched(self, machine_id: str) -> tuple[str, int]:
        """Token and slots that it was launched with; ("", 0) when that is not written there."""
        try:
            told = read_json(self._machines / machine_id / _LAUNCHED)
            return str(told["token"]), int(told["slots"])
        except (OSError, ValueError, KeyError, TypeError):
            return "", 0

    def _announced(self, machine_id: str) -> dict[str, int] | None:
        """Where the agent listens; None unless the one that wrote it still runs."""
        try:
            here = json.loads((self._machines / machine_id / "agent.json").read_text())
            return here if is_alive(here["pid"], here["start_time"]) else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _is_up(self, machine_id: str) -> bool:
        """An agent runs there, or will in a moment."""
        return self._pid(machine_id) != 0

    def _pid(self, machine_id: str) -> int:
        child = self._children.get(machine_id)
        if child is not None:
            if child.poll() is None:
                return child.pid
            del self._children[machine_id]
        return _lock_holder(self._machines / machine_id / "agent.lock")

    async def _stop(self, machine_ids: Sequence[str]) -> None:
        """SIGTERM to all, SIGKILL to what is left after the grace. Disks are kept."""
        self._send(machine_ids, signal.SIGTERM)
        deadline = time.monotonic() + self._stop_grace + STOP_MARGIN
        while left := [each for each in machine_ids if self._is_up(each)]:
            if time.monotonic() > deadline:
                log.warning("agents did not stop in time, killed: %s", " ".join(left))
                self._send(left, signal.SIGKILL)
                deadline += STOP_MARGIN
            await asyncio.sleep(0.02)
        for machine_id in machine_ids:
            await self._end_workspaces(machine_id)

    def _send(self, machine_ids: Sequence[str], number: signal.Signals) -> None:
        for machine_id in machine_ids:
            pid = self._pid(machine_id)
            if pid > 0:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)

    async def _end_workspaces(self, machine_id: str) -> None:
        """What an agent that was killed left behind; nothing after an orderly end."""
        directory = self._machines / machine_id
        kept = [(path, "workspaces") for path in (directory / "workspaces").glob("*")]
        kept += [(path, "warm") for path in (directory / "warm").glob("*") if not path.is_symlink()]
        for path, folder in sorted(kept):
            where = WorkspaceDir(directory, path.name, folder)
            saved = load(where)
            if saved.status in OCCUPYING or folder == "warm":
                try:
                    await end(owner_of(where, saved), 0)
                except StillRunning as error:
                    raise PoolError(f"machine {machine_id}: {error}") from error


def uid_base(machine_id: str) -> int:
    """First of the uids for its workspaces: m-3 → 203000. They are claimed host-wide (agent.uids)."""
    number = re.search(r"[0-9]+$", machine_id)
    place = int(number[0]) if number else zlib.crc32(machine_id.encode())
    return UID_BASE + place % PLACES * PER_MACHINE


def _environment(token: str) -> dict[str, str]:
    """The gateway's settings and keys are not the agent's business. What a snapshot target needs is."""
    kept = {name: value for name, value in os.environ.items() if name[:12] != "IDE_GATEWAY_"}
    # The agent runs from another directory: say where this package is.
    ours = str(Path(lifecycle.__file__).parents[1])
    paths = [ours, *filter(None, kept.get("PYTHONPATH", "").split(os.pathsep))]
    return kept | {"PYTHONPATH": os.pathsep.join(paths), TOKEN: token}


def _remove(directory: Path, doomed: Path) -> None:
    """Out of sight first, so that an interrupted removal does not leave half a machine. Blocks."""
    tree.remove(doomed)
    if directory.exists():
        os.rename(directory, doomed)
        tree.remove(doomed)


def _lock_holder(path: Path) -> int:
    """Pid of the agent that holds the lock; 0 if none does, -1 if it has yet to say."""
    try:
        with path.open("r+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                text = file.read().strip()
                return int(text) if text.isdecimal() else -1
            return 0
    except (FileNotFoundError, NotADirectoryError):
        return 0
    except OSError as error:
        raise PoolError(f"cannot tell whether an agent runs there: {error}") from error
