"""Processes of a workspace: whose they are, what they use, what they listen on, and their end.

A workspace's processes are told by its uid where it has one of its own, and by two variables they
inherit: IDE_GATEWAY_BOOT={workspace}/{epoch} and IDE_GATEWAY_HOME={its home} (which keeps two
installations on one host apart). One that was given a warm IDE goes by what that one was called before. So are found those that left the session, and those that a dead
agent left behind. Anybody can set these variables: in processes of a third user they mean nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

BOOT = "IDE_GATEWAY_BOOT"
HOME = "IDE_GATEWAY_HOME"
LAST_WORD = 1.0  # seconds that processes outside the IDE's group get between SIGTERM and SIGKILL
UNKILLABLE_AFTER = 10.0  # seconds after SIGKILL; one that hangs in the kernel stays longer

_GONE = (psutil.NoSuchProcess, psutil.AccessDenied, OSError)


class StillRunning(Exception):
    """Processes that even SIGKILL did not end in time."""


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose processes. home: as their mark names it. uid: 0 unless the workspace has a user of its own. pid,
    started: the IDE's, 0 if none. called: the name in their mark, where that is not the workspace's."""

    workspace_id: str
    home: Path
    uid: int = 0
    pid: int = 0
    started: int = 0
    called: str = ""

    @property
    def mark(self) -> tuple[str, str]:
        return self.called or self.workspace_id, str(self.home)


@dataclass(frozen=True, slots=True)
class Usage:
    cpu_seconds: float
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class Running:
    """One process. started: seconds since 1970; tells a pid that is used again. ended_seconds: CPU that its
    children used which have ended."""

    pid: int
    started: float
    name: str
    cpu_seconds: float
    memory_bytes: int
    parent: int = 0
    ended_seconds: float = 0.0


def started_at(pid: int) -> int:
    """When a process started, in a unit of its own that tells a reused pid; 0 if it does not run."""
    if pid <= 0:
        return 0
    try:
        if sys.platform != "linux":
            process = psutil.Process(pid)
            zombie = process.status() == psutil.STATUS_ZOMBIE
            return 0 if zombie else int(process.create_time() * 100)
        # Fields after the name, which may hold anything: state first, start time twentieth.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return 0 if fields[0] in "ZX" else int(fields[19])
    except _GONE:
        return 0


def is_alive(pid: int, started: int) -> bool:
    return started != 0 and started_at(pid) == started


def processes_of(owner: Owner) -> list[psutil.Process]:
    """All that run now. Blocks for some milliseconds per hundred processes on the machine."""
    found = {process.pid: process for process in psutil.process_iter() if _belongs(process, owner)}
    if is_alive(owner.pid, owner.started):
        with contextlib.suppress(*_GONE):
            ide = psutil.Process(owner.pid)
            found |= {process.pid: process for process in [ide, *ide.children(recursive=True)]}
    return [process for process in found.values() if started_at(process.pid)]


def _belongs(process: psutil.Process, owner: Owner) -> bool:
    try:
        uid = process.uids().real
        if owner.uid and uid == owner.uid:
            return True
        if owner.uid and uid != os.geteuid():  # our own: on its way to becoming the workspace's
            return False
    except _GONE:
        return False
    return _mark_of(process) == owner.mark


def _mark_of(process: psutil.Process) -> tuple[str, str]:
    """The workspace and home that it inherited; twice "" of one that is not ours to read."""
    try:
        environment = process.environ()
    except _GONE:
        return "", ""
    return environment.get(BOOT, "").rpartition("/")[0], environment.get(HOME, "")


async def end(owner: Owner, grace: float) -> None:
    """SIGTERM to the IDE's group, then to the rest, then SIGKILL to all. Returns once none is left.

    Raises StillRunning.
    """
    left = await asyncio.to_thread(processes_of, owner)
    deadline = time.monotonic() + grace
    group = [process for process in left if _group(process.pid) == owner.pid]
    if group and grace > 0:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(owner.pid, signal.SIGTERM)
        await _gone(group, deadline)
    rest = [process for process in left if process not in group]
    if rest and grace > 0:
        _send(rest, signal.SIGTERM)
        await _gone(rest, min(deadline, time.monotonic() + LAST_WORD))
    await _kill(owner)


async def _kill(owner: Owner) -> None:
    deadline = time.monotonic() + UNKILLABLE_AFTER
    while left := await asyncio.to_thread(processes_of, owner):
        if time.monotonic() > deadline:
            pids = " ".join(str(process.pid) for process in left)
            raise StillRunning(f"workspace {owner.workspace_id}: SIGKILL did not end {pids}")
        _send(left, signal.SIGKILL)
        await _gone(left, time.monotonic() + 1)


def _send(processes: Iterable[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with contextlib.suppress(*_GONE):
            process.send_signal(number)


async def _gone(processes: list[psutil.Process], deadline: float) -> None:
    """Wait until none of them runs, or until the deadline."""
    left = [(process.pid, started_at(process.pid)) for process in processes]
    while left := [each for each in left if is_alive(*each)]:
        if time.monotonic() > deadline:
            return
        await asyncio.sleep(0.02)


def _group(pid: int) -> int:
    try:
        return os.getpgid(pid)
    except OSError:
        return -1


def listening(owner: Owner, host: str) -> list[int]:
    """TCP ports at which host (IPv4) leads to the workspace's processes, and to nobody else. Blocks."""
    # Where it arrives, as the kernel spells it.
    arrives = frozenset({host, "0.0.0.0", f"::ffff:{host}", "::ffff:0.0.0.0"})
    found: set[tuple[str, int]] = set()
    for process in processes_of(owner):
        with contextlib.suppress(*_GONE):
            found |= _listeners(process.net_connections(kind="tcp"))
    ports = {port for address, port in found if address in arrives}
    either = {port for address, port in found if address == "::"} - ports
    if either:
        # That takes IPv4 as well, unless it was told not to and somebody else has the port there.
        with contextlib.suppress(*_GONE):
            taken = _listeners(psutil.net_connections(kind="tcp4"))
            either -= {port for address, port in taken if address in arrives}
    return sorted(ports | either)


def listens(pid: int, host: str, port: int) -> bool:
    """Whether that process itself has that port of that very address. Blocks for a millisecond."""
    with contextlib.suppress(*_GONE):
        return (host, port) in _listeners(psutil.Process(pid).net_connections(kind="tcp"))
    return False


def _listeners(connections: Iterable[Any]) -> set[tuple[str, int]]:
    return {
        (each.laddr.ip, each.laddr.port)
        for each in connections
        if each.status == psutil.CONN_LISTEN
    }


_READ = ["ppid", "uids", "cpu_times", "memory_info", "name", "create_time"]

_marks: dict[tuple[int, float], tuple[str, str]] = {}
"""pid and start → its mark. Read once: this is looked at every second, of every process of our user."""


def running(owners: Iterable[Owner]) -> dict[str, list[Running]]:
    """Each workspace's processes, by its id. One pass over all that there are; blocks."""
    owners = list(owners)
    by_uid = {owner.uid: owner.workspace_id for owner in owners if owner.uid}
    by_pid = {owner.pid: owner.workspace_id for owner in owners if owner.pid}
    # Without a user of its own: what left the IDE's tree (nohup, setsid) is known by its mark.
    by_mark = {owner.mark: owner.workspace_id for owner in owners if not owner.uid}
    processes = {process.pid: process for process in psutil.process_iter(_READ)}
    rows = {pid: process.info for pid, process in processes.items()}
    found: dict[str, list[Running]] = {owner.workspace_id: [] for owner in owners}
    marks: dict[tuple[int, float], tuple[str, str]] = {}
    for own, row in rows.items():
        if not row["uids"] or not row["cpu_times"] or not row["memory_info"]:
            continue  # gone, or not ours to see
        pid, workspace = own, by_uid.get(row["uids"].real)
        while workspace is None and pid in rows:
            workspace = by_pid.get(pid)
            pid = rows[pid]["ppid"] if rows[pid]["ppid"] != pid else -1
        if workspace is None and by_mark and row["uids"].real == os.geteuid():
            which = own, row["create_time"] or 0.0
            mark = marks[which] = _marks.get(which) or _mark_of(processes[own])
            workspace = by_mark.get(mark)
        if workspace:
            found[workspace].append(_running(own, row))
    if by_mark:
        _marks.clear()
        _marks.update(marks)
    return found


def _running(pid: int, row: dict[str, Any]) -> Running:
    cpu = row["cpu_times"]
    # Linux tells of children that have ended; other systems do not.
    ended = getattr(cpu, "children_user", 0.0) + getattr(cpu, "children_system", 0.0)
    return Running(
        pid, row["create_time"] or 0.0, _plain(row["name"] or ""), cpu.user + cpu.system,
        row["memory_info"].rss, row["ppid"] or 0, ended,
    )  # fmt: skip


def _plain(name: str) -> str:
    """A program's name, as far as it is one: a process may call itself anything, and at any length."""
    return (
        name if re.fullmatch(r"[\w.+-]{1,60}", name) else name[:15] if name.isprintable() else "?"
    )


def usage(owners: Iterable[Owner]) -> dict[str, Usage]:
    """CPU time and resident memory of each workspace's processes, by its id. Blocks."""
    return {
        workspace: Usage(
            sum(each.cpu_seconds for each in rows), sum(each.memory_bytes for each in rows)
        )
        for workspace, rows in running(owners).items()
    }


def script_of(pid: int) -> str:
    """File name of the script that an interpreter runs, "" when it runs none or is gone. No other argument
    is told: they may be secrets."""
    try:
        words = psutil.Process(pid).cmdline()[1:]
    except _GONE:
        return ""
    first = next((word for word in words if not word.startswith("-")), "")
    name = first.rpartition("/")[2]
    # `bash -c "… run.sh"`: that first word is a whole line of somebody's, and no name.
    return name if re.fullmatch(r"[\w.+-]{1,60}\.(py|js|sh|rb|R|jl|pl)", name) else ""
