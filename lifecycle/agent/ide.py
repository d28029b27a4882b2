"""One process of an IDE: how it is launched, when it is ready, how it ended."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from lifecycle.agent import output, probe
from lifecycle.agent.command import Command, fill
from lifecycle.agent.contract import StartSpec
from lifecycle.agent.disk import WorkspaceDir, shell
from lifecycle.agent.isolation import Isolation, confined, disk_view, seen
from lifecycle.agent.processes import BOOT, HOME, Owner, listening, listens, started_at
from lifecycle.agent.refusal import BootFailed

POLL = 0.02  # seconds between two questions whether it is ready
LOG_LINES = 8  # of its output, shown with a failure

# Nothing else of the agent's environment reaches a workspace: it may hold tokens and keys.
KEPT = ("LANG", "LANGUAGE", "TZ", "TERM", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE")

_PORT_TAKEN = re.compile(r"address (is )?already in use|EADDRINUSE|port \S+ is .*in use", re.I)


class PortTaken(BootFailed):
    """Somebody else was faster on the port that we chose."""


@dataclass(frozen=True, slots=True)
class Ide:
    process: asyncio.subprocess.Process
    started: int
    host: str
    port: int
    where: WorkspaceDir
    machine_id: str
    secret: str

    def owner(self, uid: int) -> Owner:
        return Owner(self.where.id, self.where.home, uid, self.process.pid, self.started)

    def moved(self, where: WorkspaceDir) -> Ide:
        """The same one, in the workspace that it was given to."""
        return replace(self, where=where)

    def said(self) -> str:
        """The last lines of its output, as a postscript."""
        lines = output.tail(self.where.log, LOG_LINES, hide=self.secret)
        return f"\nThe end of its log:\n{lines}" if lines else ""


async def launch(
    spec: StartSpec,
    where: WorkspaceDir,
    uid: int,
    isolation: Isolation,
    machine_id: str,
    host: str,
) -> Ide:
    """Run the command on a free port of that address. Raises BootFailed when there is nothing to run."""
    port = free_port(host)
    home, run = seen(isolation, uid, where)
    values = {"host": host, "port": str(port), "workspace": where.id, "dir": str(home)}
    values |= {"base_url": spec.base_url, "secret": spec.secret}
    command = fill(spec.command, values)
    environment = environment_of(where, spec.epoch, command, os.environ, home, run)
    program = find(command.argv[0], environment["PATH"], where.home, machine_id)
    directories = [where.home, where.run]
    rest = command.argv[1:]
    steps = disk_view(isolation, uid, directories, program, rest, where.accounts) if uid else []
    argv = confined([str(program), *rest], uid, home, steps, where.home)
    log = output.begin(where.log)
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
            cwd="/",
            start_new_session=True,
        )
    finally:
        os.close(log)
    return Ide(process, started_at(process.pid), host, port, where, machine_id, spec.secret)


def free_port(host: str) -> int:
    with socket.socket() as probing:
        probing.bind((host, 0))
        port: int = probing.getsockname()[1]
        return port


def environment_of(
    where: WorkspaceDir,
    epoch: int,
    command: Command,
    ours: Mapping[str, str],
    home: Path,
    run: Path,
) -> dict[str, str]:
    """What the IDE sees. home, run: as it finds them. The command's own NAME=value words win over defaults, not over the mark."""
    kept = {name: value for name, value in ours.items() if name in KEPT or name[:3] == "LC_"}
    here = str(Path(sys.executable).parent)
    path = ours.get("PATH", os.defpath)
    defaults = {
        "PATH": path if here in path.split(os.pathsep) else f"{here}{os.pathsep}{path}",
        "HOME": str(home),
        "USER": where.user,
        "LOGNAME": where.user,
        "SHELL": shell(),
        "TMPDIR": str(run / "tmp"),
        "XDG_RUNTIME_DIR": str(run),
        "JUPYTER_RUNTIME_DIR": str(run / "jupyter"),
    }
    mark = {BOOT: f"{where.id}/{epoch}", HOME: str(where.home)}
    return kept | defaults | command.environment | mark


def find(program: str, path: str, home: Path, machine_id: str) -> Path:
    """The program's absolute path. Raises BootFailed("command_not_found")."""
    if "/" in program:
        place = home / program  # an absolute path stays what it is
        found = str(place) if place.is_file() else None
    else:
        found = shutil.which(program, path=path)
    if found is None:
        raise BootFailed(
            "command_not_found",
            f'the IDE command "{program}" was not found on machine {machine_id}; '
            "try: pip install jupyterlab, or set --workspace-command",
        )
    return Path(os.path.abspath(found))


async def until_ready(
    ide: Ide, spec: StartSpec, owner: Owner, accepting: Callable[[], None]
) -> None:
    """Return once it serves. accepting: told once when its port accepts and more is to come.

    Raises PortTaken, BootFailed("exited", "not_ready", …).
    """
    exited = asyncio.ensure_future(ide.process.wait())
    deadline = time.monotonic() + spec.ready_timeout
    ours = told = False
    try:
        while not exited.done():
            why = "" if ours else await probe.accepts(ide.host, ide.port)
            if not why and not ours:
                # Before the secret is sent there: is it the workspace itself that listens?
                ours = await asyncio.to_thread(_listens, ide, owner)
                why = "" if ours else f"port {ide.port} belongs to another program"
            if not why and spec.ready_path:
                why = await probe.answers(ide.host, ide.port, spec.ready_path, spec.upstream_header)
            if not why:
                return
            if ours and not told:
                told = True
                accepting()
            if time.monotonic() > deadline:
                raise _not_ready(ide, spec, why)
            await asyncio.wait({exited}, timeout=POLL)
        raise await _exited_early(ide, exited.result())
    finally:
        exited.cancel()


def _listens(ide: Ide, owner: Owner) -> bool:
    """Whether its port is the workspace's. Blocks; only where it is not the IDE's own process for long."""
    return listens(ide.process.pid, ide.host, ide.port) or ide.port in listening(owner, ide.host)


def _not_ready(ide: Ide, spec: StartSpec, why: str) -> BootFailed:
    return BootFailed(
        "not_ready",
        f"the IDE of workspace {ide.where.id} was not ready within {spec.ready_timeout:g} s "
        f"({why}). Start it again, or set --boot-timeout higher{ide.said()}",
    )


async def _exited_early(ide: Ide, code: int) -> BootFailed:
    last = output.tail(ide.where.log, 1)
    if code in (125, 126, 127) and last.startswith("ide-gateway: "):
        kind = "isolation_impossible" if code == 125 else "command_not_found"
        reason = last.removeprefix("ide-gateway: ")
        return BootFailed(kind, f"workspace {ide.where.id} on machine {ide.machine_id}: {reason}")
    message = f"the IDE of workspace {ide.where.id} ended before it was ready ({ended(code)})"
    taken = not await probe.accepts(ide.host, ide.port)
    if taken or _PORT_TAKEN.search(output.tail(ide.where.log, 50)):
        return PortTaken("exited", message + ide.said())
    return BootFailed("exited", f"{message}. Check --workspace-command{ide.said()}")


async def crash_of(ide: Ide) -> BootFailed:
    """Wait until it ends; that is a crash, for a stop cancels the waiting first."""
    code = await ide.process.wait()
    return BootFailed(
        "crashed",
        f"the IDE of workspace {ide.where.id} ended by itself ({ended(code)}). Its files are kept; "
        f"start it again{ide.said()}",
    )


def ended(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"
