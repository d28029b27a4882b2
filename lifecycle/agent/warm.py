"""Warm IDEs: started, empty and nobody's, for whoever comes next. How many there are to be is told
(WarmSpec); they never take a free slot's room, and a new one is started only while nothing else starts."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from lifecycle.agent import output, uids
from lifecycle.agent.contract import StartSpec, WarmSpec
from lifecycle.agent.disk import Saved, WorkspaceDir
from lifecycle.agent.ide import ended, launch, until_ready
from lifecycle.agent.processes import Owner, StillRunning, end
from lifecycle.agent.refusal import BootFailed
from lifecycle.agent.spare import Spare
from lifecycle.agent.workspace import Setup, load, owner_of
from lifecycle.snapshots import tree

log = logging.getLogger("lifecycle.agent")

LOOK = 0.25  # seconds between two turns
PAUSE = 5.0
"""Seconds after a boot until a new one is started: the person's first page has the CPU to itself."""
GRACE = 1.0  # seconds for one that is not needed any more
STEADY = 60.0  # seconds; one that lived that long was no failed attempt
RETRY_MAX = 60.0
LINKS = 10_000  # above it the oldest are forgotten


class WarmIdes:
    """One look() at a time, every LOOK seconds."""

    def __init__(self, setup: Setup, changed: Callable[[], None]) -> None:
        """changed: told when the number of those that are ready changes."""
        self._setup, self._changed = setup, changed
        self._spares: list[Spare] = []
        self._spec = WarmSpec()
        self._why_not = ""
        self._not_before = 0.0
        self._failures = 0
        self._ready = 0
        self._turn = asyncio.Lock()
        self.clock: Callable[[], float] = time.monotonic

    @property
    def told(self) -> str:
        """Name of the WarmSpec that it goes by."""
        return self._spec.name()

    @property
    def ready(self) -> int:
        return sum(spare.lives and spare.ready.done() for spare in self._spares)

    def tell(self, spec: WarmSpec) -> None:
        """From now on. Told the same again, nothing changes."""
        if spec == self._spec:
            return
        self._spec, self._failures, self._not_before = spec, 0, 0.0
        self._why_not = self._reason(spec) if spec.count else ""
        if self._why_not:
            log.warning("no warm IDEs here: %s", self._why_not)
        for spare in self._spares:
            spare.broken = spare.broken or not _same(spare.spec, spec)
        self._changed()

    def _reason(self, spec: WarmSpec) -> str:
        """Why none can be kept; "" when they can."""
        if "{workspace}" in spec.command:
            return "the workspace command names the {workspace}, so it cannot start before that is known"
        if self._setup.joined and not self._setup.isolation.mounts:
            # Their paths would be other ones on each machine that a workspace comes to.
            return f"workspaces have no view of the disk of their own ({self._setup.isolation.why})"
        return ""

    def take(self, spec: StartSpec) -> Spare | None:
        """One for that boot, the readiest first; None when none fits. It is the caller's from now on."""
        found = [spare for spare in self._spares if spare.lives and spare.fits(spec)]
        if not found:
            return None
        spare = min(found, key=lambda each: (not each.ready.done(), each.born))
        self._spares.remove(spare)
        self._failures = 0
        self._pause()
        return spare

    def give_back(self, spare: Spare) -> None:
        """It was not used after all."""
        self._spares.append(spare)

    def _pause(self) -> None:
        self._not_before = max(self._not_before, self.clock() + PAUSE)

    async def look(self, free: int, *, starting: bool) -> None:
        """One turn. free: slots. starting: a workspace is on its way, and may be about to take one."""
        async with self._turn:
            await self._look(free, starting)

    async def _look(self, free: int, starting: bool) -> None:
        if starting:
            self._pause()
        for spare in [each for each in self._spares if not each.lives]:
            self._spares.remove(spare)
            self._note_end(spare)
            await self._end(spare)
        wanted = 0 if self._why_not else min(self._spec.count, free)
        while len(self._spares) > wanted and not (starting and self._spec.count):
            await self._end(self._spares.pop(0))
        if len(self._spares) < wanted and self.clock() >= self._not_before:
            await self._start()
        if self.ready != self._ready:
            self._ready = self.ready
            self._changed()

    def _note_end(self, spare: Spare) -> None:
        if spare.broken:
            return
        if self.clock() - spare.born >= STEADY:
            self._failures = 0
        code = spare.ide.process.returncode
        told = spare.ready.done() and not spare.ready.cancelled()
        error = spare.ready.exception() if told else None
        self._failed(str(error) if error else f"it ended by itself ({ended(code or 0)})")

    def _failed(self, why: str) -> None:
        """Told once; then tried again less and less often, until one was of use."""
        if not self._failures:
            log.warning("a warm IDE failed, and is tried again: %s", why)
        self._failures += 1
        pause = min(RETRY_MAX, 2.0**self._failures)
        self._not_before = max(self._not_before, self.clock() + pause)

    async def _start(self) -> None:
        where = WorkspaceDir(self._setup.directory, f"warm-{uuid.uuid4().hex[:12]}", "warm")
        try:
            self._spares.append(await self._launch(where))
        except (BootFailed, OSError) as error:
            self._failed(str(error))
            await asyncio.to_thread(self._discard, where, load(where).uid)

    async def _launch(self, where: WorkspaceDir) -> Spare:
        setup, spec = self._setup, self._spec
        setup.isolation.check()
        uid = await asyncio.to_thread(self._prepare, where)
        secret = secrets.token_urlsafe(24)
        start = StartSpec(
            epoch=0,
            command=spec.command,
            secret=secret,
            ready_path=spec.ready_path,
            ready_timeout=spec.ready_timeout,
            upstream_header=spec.upstream_header.replace("{secret}", secret),
        )
        ide = await launch(start, where, uid, setup.isolation, setup.machine_id, setup.host)
        ready = asyncio.create_task(until_ready(ide, start, ide.owner(uid), lambda: None))
        spare = Spare(ide, where, uid, spec, ready, self.clock())
        try:
            where.save(Saved(uid=uid, pid=ide.process.pid, started=ide.started))
        except OSError:
            await self._end(spare)  # before its uid is anybody's again
            raise
        return spare

    def _prepare(self, where: WorkspaceDir) -> int:
        where.make()
        uid = 0
        if self._setup.isolation.own:
            uid = uids.claim(where.path, 0, self._setup.uid_base)
        where.save(Saved(uid=uid))
        where.give_to(uid)
        return uid

    async def _end(self, spare: Spare) -> None:
        spare.ready.cancel()
        await asyncio.wait({spare.ready})
        if await self._away(spare.where, spare.ide.owner(spare.uid), spare.uid, GRACE):
            await spare.ide.process.wait()

    async def _away(self, where: WorkspaceDir, owner: Owner, uid: int, grace: float) -> bool:
        """Whether it is gone. What cannot be ended keeps its uid, which nobody else may have beside it."""
        try:
            await end(owner, grace)
        except StillRunning as error:
            log.error("%s", error)
            return False
        await asyncio.to_thread(self._discard, where, uid)
        return True

    def _discard(self, where: WorkspaceDir, uid: int) -> None:
        uids.release(where.path, uid)
        with contextlib.suppress(OSError):  # what is left goes with the agent's next start
            tree.remove(where.path)

    async def recover(self) -> None:
        """Away with what an earlier agent kept. Links stay: workspaces go by those paths, also when they come
        back to this machine."""
        links: list[Path] = []
        for path in sorted((self._setup.directory / "warm").glob("*")):
            if path.is_symlink():
                links.append(path)
                continue
            where = WorkspaceDir(self._setup.directory, path.name, "warm")
            saved = load(where)
            await self._away(where, owner_of(where, saved), saved.uid, 0)
        for link in sorted(links, key=lambda each: -each.lstat().st_mtime)[LINKS:]:
            os.unlink(link)

    async def close(self) -> None:
        """End all of them; nothing starts any more."""
        self._spec = WarmSpec()
        async with self._turn:
            while self._spares:
                await self._end(self._spares.pop())

    async def cap_logs(self) -> None:
        for spare in list(self._spares):
            await asyncio.to_thread(output.cap, spare.where.log)


def _same(one: WarmSpec, other: WarmSpec) -> bool:
    """But for how many."""
    return one.to_json() | {"count": 0} == other.to_json() | {"count": 0}
