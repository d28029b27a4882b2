"""A workspace on this machine: one lock, one newest epoch, one IDE at most.

What a call changes for everybody to see (epoch, status) it changes before its first await; the work
follows in the boot's task (`_live`) or in the call. Whoever comes next cancels that task first, then
ends what runs, so that two epochs never run at once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ParamSpec, Protocol, TypeVar

from lifecycle.agent import copies, uids, volume
from lifecycle.agent.contract import Manifest, SnapshotSpec, StartSpec
from lifecycle.agent.disk import Saved, WorkspaceDir
from lifecycle.agent.ide import Ide, PortTaken, crash_of, launch, until_ready
from lifecycle.agent.isolation import Isolation
from lifecycle.agent.jobs import Jobs
from lifecycle.agent.processes import Owner, StillRunning, end
from lifecycle.agent.refusal import BootFailed, Refused, stale_epoch
from lifecycle.agent.spare import Spare

log = logging.getLogger("lifecycle.agent")

PORTS_TRIED = 3
OLD_GRACE = 10.0  # seconds for the boot that a newer one replaces
FAILED_GRACE = 1.0  # seconds for what is left of a failed boot

OCCUPYING = ("starting", "running", "stopping")
ORIGIN = ("user_id", "name", "plan", "priority", "region", "secret")
"""What a StartSpec says and every report repeats."""

_P = ParamSpec("_P")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Setup:
    """What an agent is told at start-up, and what it found out."""

    machine_id: str
    directory: Path
    slots: int
    uid_base: int
    isolation: Isolation
    host: str = "127.0.0.1"
    """Address that the agent and its IDEs listen on."""
    joined: bool = False
    """Whether the machine is elsewhere: what lies on it then comes to other machines as well."""


class Spares(Protocol):
    """Where a boot may find an IDE that is started already (warm.py)."""

    def take(self, spec: StartSpec) -> Spare | None: ...

    def give_back(self, spare: Spare) -> None: ...


class LocalWorkspace:
    def __init__(
        self,
        setup: Setup,
        where: WorkspaceDir,
        changed: Callable[[], None],
        spares: Spares | None = None,
    ) -> None:
        """spares: None starts an IDE for every boot."""
        self._setup, self.where, self._changed, self._spares = setup, where, changed, spares
        self.saved = load(where)
        self.removed = False
        self._never_ran = self.saved == Saved()
        self._lock = asyncio.Lock()
        self.spec: StartSpec | None = None
        """Of the boot that this agent began; an agent ends what an earlier one left."""
        self.jobs: Jobs | None = None
        self._life: asyncio.Task[None] | None = None
        self._ide: Ide | None = None
        self._spare: Spare | None = None

    @property
    def secret(self) -> str:
        return self.saved.secret

    @property
    def job(self) -> str:
        """What works in it, in words; "" when nothing does or it does not run."""
        return self.jobs.job if self.jobs and self.saved.status == "running" else ""

    @property
    def owner(self) -> Owner:
        return owner_of(self.where, self.saved)

    def start(self, spec: StartSpec) -> None:
        """Begin a boot, unless this epoch has begun already. Raises Refused."""
        if spec.epoch < self.saved.epoch:
            raise stale_epoch(self.where.id, spec.epoch, self.saved.epoch)
        if spec.epoch == self.saved.epoch:
            return
        cleared = {"step": "", "port": 0, "error_code": "", "error": ""}
        origin = {name: getattr(spec, name) for name in ORIGIN}
        restore = spec.restore.snapshot_id if spec.restore else ""
        self.spec, self.jobs = spec, None
        self._promise(epoch=spec.epoch, status="starting", restore=restore, **cleared, **origin)
        self._life = asyncio.create_task(self._live(spec, self._life))

    async def stop(self, epoch: int, grace: float) -> None:
        """Return once nothing of it runs. Raises Refused."""
        await self._quiesce(epoch, grace, lambda: None)

    async def remove(self, epoch: int, forget: Callable[[int], None]) -> None:
        """Stop it, then call forget(newest epoch) and drop its files. Raises Refused."""

        def drop() -> None:
            forget(self.saved.epoch)
            self.removed = True
            uids.release(self.where.path, self.saved.uid)

        await self._quiesce(epoch, OLD_GRACE, drop)
        if not self.removed:
            raise stale_epoch(self.where.id, epoch, self.saved.epoch)

    async def _quiesce(self, epoch: int, grace: float, then: Callable[[], None]) -> None:
        """End what runs, unless a newer boot takes over meanwhile: that one ends it, and goes on."""
        if epoch < self.saved.epoch:
            raise stale_epoch(self.where.id, epoch, self.saved.epoch)
        status = "stopping" if self.saved.status in OCCUPYING else self.saved.status
        if (epoch, status) != (self.saved.epoch, self.saved.status):
            self._show(epoch=epoch, status=status)  # a full disk must not keep it running
        await _cancelled(self._life)
        async with self._lock:
            if self.saved.epoch != epoch or self.removed:
                return
            try:
                await self._end(grace)
            except StillRunning as error:
                raise Refused(500, "still_running", str(error), "restart the machine") from error
            if self.saved.epoch == epoch:  # a newer boot may have begun during the grace
                self._show(status="stopped", step="", port=0, error_code="", error="")
                then()

    async def snapshot(self, spec: SnapshotSpec) -> Manifest:
        """Of a stopped workspace; of a running one as good as it goes. Raises Refused."""
        async with self._lock:
            if spec.epoch < self.saved.epoch:
                raise stale_epoch(self.where.id, spec.epoch, self.saved.epoch)
            await _unbroken(self.where.reunite)
            if self.saved.status == "starting" or not self.where.home.is_dir():
                message = f"workspace {self.where.id} is {self.saved.status} and has no whole files"
                replaced = (self.where.home.parent / "home.replaced").exists()
                if self.saved.status in ("stopped", "failed") and not replaced:
                    # It ended before there was anything to keep: trying again would never end.
                    raise Refused(404, "not_found", message)
                raise Refused(409, "busy", message, "try again once it runs or is stopped")
            return await _unbroken(copies.snapshot, self.where, spec)

    async def recover(self) -> None:
        """After a restart of the agent: what ran under the last one is ended and said to have failed."""
        if self.saved.status in OCCUPYING or self.saved.volume:
            await self._end(0)
        if self.saved.uid and self._setup.isolation.own:
            await asyncio.to_thread(self._take_uid)
        if self.saved.status not in OCCUPYING:
            return
        if self.saved.status == "stopping":
            self._show(status="stopped", step="", port=0)
            return
        message = (
            f"machine {self._setup.machine_id} restarted while workspace {self.where.id} ran; "
            "its files are kept, start it again"
        )
        self._fail("machine_restarted", message)

    async def _live(self, spec: StartSpec, previous: asyncio.Task[None] | None) -> None:
        """One boot, from restore to the IDE's end."""
        await _cancelled(previous)
        try:
            await self._prepare(spec)
            ide = await self._serve(spec)
            how = "runs, warm," if self.saved.called else "runs"
            log.info("%s/%d %s on port %d", self.where.id, spec.epoch, how, ide.port)
            self._show(status="running", step="", port=ide.port, restore="")
            raise await crash_of(ide)
        except BootFailed as failure:
            self._fail(failure.code, str(failure))
        except Exception as error:
            log.exception("%s/%d: the boot broke off", self.where.id, spec.epoch)
            self._fail("agent_error", f"machine {self._setup.machine_id}: {error}")
        try:
            await self._end(FAILED_GRACE)
        except StillRunning as error:
            log.error("%s", error)

    async def _prepare(self, spec: StartSpec) -> None:
        """Files in their place, and what an IDE needs beside them; or a warm IDE that has it all."""
        async with self._lock:
            await self._end(OLD_GRACE)
            self._save(called="")
            await _unbroken(self.where.reunite)
            self._setup.isolation.check()
            self._spare = self._spares.take(spec) if self._spares else None
            if self._spare is None:
                await _unbroken(self._take_uid)
            self._save(volume=spec.volume)
            self.where.use_volume(spec.volume)
            if spec.volume:
                await _unbroken(volume.mount, self.where, spec.volume, spec.device)
            if spec.restore:
                self._show(step="restore")
                uid = self.saved.uid
                if self._spare is not None:
                    uid = self._spare.uid
                    self.where.close()
                await _unbroken(copies.restore, self.where, spec, uid)
            if self._spare is not None and await self._take_over(spec, self._spare):
                return
            await _unbroken(self._take_uid)
            await _unbroken(self.where.give_to, self.saved.uid)

    async def _take_over(self, spec: StartSpec, spare: Spare) -> bool:
        """Become the owner of a warm IDE. False when that cannot be: then the boot starts one of its own."""
        if why := await spare.serves():
            spare.broken = True
        why = why or await _unbroken(spare.unsuited, self.where)
        if why:
            log.info("%s/%d starts an IDE of its own: %s", self.where.id, spec.epoch, why)
            self._let_go()
            return False
        held = self.saved.uid
        self._own(spec, spare)
        try:
            await _unbroken(spare.give, self.where, held, self._setup.isolation)
        except OSError as error:
            log.warning("%s/%d: its warm IDE is of no use: %s", self.where.id, spec.epoch, error)
            await self._end(0)
            self._save(called="", secret=spec.secret)
            await _unbroken(self.where.reunite)
            self.spec = spec
            return False
        return True

    def _own(self, spec: StartSpec, spare: Spare) -> None:
        """From here on whatever ends this workspace ends that IDE."""
        secret, process = spare.ide.secret, spare.ide.process
        self._never_ran = False
        self._spare, self._ide = None, spare.ide.moved(self.where)
        self.spec = replace(spec, secret=secret, upstream_header=spare.header)
        self._save(
            called=spare.where.id,
            pid=process.pid,
            started=spare.ide.started,
            uid=spare.uid,
            secret=secret,
        )

    def _let_go(self) -> None:
        if self._spare is not None and self._spares is not None:
            self._spares.give_back(self._spare)
        self._spare = None

    def _take_uid(self) -> None:
        uid = 0
        if self._setup.isolation.own:
            uid = uids.claim(self.where.path, self.saved.uid, self._setup.uid_base)
        self._save(uid=uid)

    async def _serve(self, spec: StartSpec) -> Ide:
        """Launch it and wait until it is ready, with another port if somebody took ours. A warm one is."""
        if self._ide is not None:
            return self._ide
        for left in reversed(range(PORTS_TRIED)):
            setup, uid = self._setup, self.saved.uid
            self._never_ran = False
            self._show(step="ide")
            ide = await launch(spec, self.where, uid, setup.isolation, setup.machine_id, setup.host)
            self._ide = ide
            self._save(pid=ide.process.pid, started=ide.started)
            try:
                await until_ready(ide, spec, ide.owner(uid), lambda: self._show(step="ready"))
                return ide
            except PortTaken:
                if left == 0:
                    raise
        raise AssertionError("unreachable")

    async def _end(self, grace: float) -> None:
        self._let_go()
        if self._never_ran:  # to look through all processes takes longer than the rest of it
            return
        await end(self.owner, grace)
        if self._ide is not None:
            await self._ide.process.wait()
            self._ide = None
        if self.saved.volume:
            await _unbroken(volume.unmount, self.where)

    def _fail(self, code: str, message: str) -> None:
        log.warning("%s/%d failed: %s: %s", self.where.id, self.saved.epoch, code, message)
        self._show(status="failed", step="", port=0, error_code=code, error=message)

    def _promise(self, **changes: Any) -> None:
        """Change what is shown, but only if the disk has it first. Raises Refused("disk_full")."""
        saved = replace(self.saved, **changes)
        try:
            self.where.save(saved)
        except OSError as error:
            message = f"cannot note epoch {saved.epoch} of workspace {self.where.id}: {error}"
            raise Refused(507, "disk_full", message, "make room on the machine") from error
        self.saved = saved
        self._changed()

    def _show(self, **changes: Any) -> None:
        self._save(**changes)
        self._changed()

    def _save(self, **changes: Any) -> None:
        before, self.saved = self.saved, replace(self.saved, **changes)
        if self.removed or self.saved == before:
            return
        try:
            self.where.save(self.saved)
        except OSError as error:
            # The epoch is on the disk already; a restart would only see an older status.
            log.error("%s: cannot write its state: %s", self.where.id, error)


def owner_of(where: WorkspaceDir, saved: Saved) -> Owner:
    # A uid that somebody else holds by now (/run was emptied) tells nothing about us.
    uid = saved.uid if uids.holds(where.path, saved.uid) else 0
    warm = WorkspaceDir(where.machine, saved.called, "warm") if saved.called else where
    return Owner(where.id, warm.home, uid, saved.pid, saved.started, saved.called)


def load(where: WorkspaceDir) -> Saved:
    """What state.json says. One that cannot be read is a failed workspace, not a missing one."""
    try:
        return where.load()
    except (OSError, ValueError, TypeError) as error:
        message = f"{where.path}/state.json is unreadable ({error}); its files are kept"
        return Saved(status="failed", error_code="state_unreadable", error=message)


async def _cancelled(task: asyncio.Task[None] | None) -> None:
    if task is not None:
        task.cancel()
        await _over(task)


async def _unbroken(call: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """In a thread, and to its end even if cancelled: nothing else may touch the files meanwhile."""
    task = asyncio.ensure_future(asyncio.to_thread(call, *args, **kwargs))
    await _over(task)
    return task.result()


async def _over(task: asyncio.Task[Any]) -> None:
    """Wait for its end, however often we are cancelled meanwhile; then be cancelled."""
    cancelled = False
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            cancelled = True
    if cancelled:
        raise asyncio.CancelledError
