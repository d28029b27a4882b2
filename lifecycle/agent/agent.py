"""The agent of one machine: its workspaces, its slots, its report."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import uuid
from typing import NoReturn

from lifecycle.agent import output
from lifecycle.agent.contract import (
    Manifest,
    Report,
    SnapshotSpec,
    StartSpec,
    WarmSpec,
    WorkspaceReport,
)
from lifecycle.agent.disk import Epochs, WorkspaceDir
from lifecycle.agent.jobs import Jobs
from lifecycle.agent.kernels import busy_kernel
from lifecycle.agent.meter import Meter, Sample
from lifecycle.agent.processes import listening, running, script_of
from lifecycle.agent.refusal import Refused, stale_epoch
from lifecycle.agent.warm import WarmIdes
from lifecycle.agent.workspace import OCCUPYING, ORIGIN, LocalWorkspace, Setup
from lifecycle.snapshots import tree

log = logging.getLogger("lifecycle.agent")


class Agent:
    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.boot_id = uuid.uuid4().hex
        self.closing = asyncio.Event()
        # Above every version of an earlier boot, so that a `since` from then is answered at once.
        self._version = time.time_ns() // 1_000_000
        self._change = asyncio.Event()
        self._epochs = Epochs(setup.directory / "epochs.json")
        self._trash = setup.directory / "trash"
        self._meter = Meter(setup.directory)
        self._workspaces: dict[str, LocalWorkspace] = {}
        self._warm = WarmIdes(setup, self._bump)

    async def recover(self) -> None:
        """Read what is on the disk and end what an earlier agent left running. Before anything starts."""
        await asyncio.to_thread(self._empty_trash)
        for state in sorted((self.setup.directory / "workspaces").glob("*/state.json")):
            await self._add(state.parent.name).recover()
        await self._warm.recover()

    def _add(self, workspace_id: str) -> LocalWorkspace:
        where = WorkspaceDir(self.setup.directory, workspace_id)
        workspace = LocalWorkspace(self.setup, where, self._bump, self._warm)
        self._workspaces[workspace_id] = workspace
        return workspace

    def _bump(self) -> None:
        self._version += 1
        self._change.set()
        self._change = asyncio.Event()

    async def report(self, since: int, wait: float) -> Report:
        """As soon as the version is above `since`, at the latest after `wait` seconds."""
        deadline = time.monotonic() + wait
        while self._version == since and not self.closing.is_set():
            change = self._change
            try:
                async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                    await change.wait()
            except TimeoutError:
                break
        return await self._report()

    async def _report(self) -> Report:
        sample = await self._meter.read([each.owner for each in self._occupying()])
        machine = sample.machine
        return Report(
            machine_id=self.setup.machine_id,
            boot_id=self.boot_id,
            version=self._version,
            slots=self.setup.slots,
            cpu_percent=machine.cpu_percent,
            memory_bytes=machine.memory_bytes,
            memory_total_bytes=machine.memory_total_bytes,
            disk_free_bytes=machine.disk_free_bytes,
            warm=self._warm.ready,
            warm_spec=self._warm.told,
            workspaces=tuple(_row(each, sample) for each in self._workspaces.values()),
        )

    async def start(self, workspace_id: str, spec: StartSpec) -> WorkspaceReport:
        """Begin a boot; see the contract. Raises Refused."""
        if self.closing.is_set():
            message = f"machine {self.setup.machine_id} is shutting down"
            raise Refused(503, "shutting_down", message, "start the workspace elsewhere")
        known = self._workspaces.get(workspace_id)
        if known is None and spec.epoch <= (newest := self._epochs.newest(workspace_id)):
            raise stale_epoch(workspace_id, spec.epoch, newest)
        begun = known is not None and spec.epoch <= known.saved.epoch
        if not begun and sum(each is not known for each in self._occupying()) >= self.setup.slots:
            taken = f"all {self.setup.slots} slots of machine {self.setup.machine_id} are taken"
            raise Refused(409, "no_slot", f"{workspace_id}: {taken}", "use another machine")
        workspace = known or self._add(workspace_id)
        try:
            workspace.start(spec)
        except Refused:
            if known is None:
                del self._workspaces[workspace_id]
            raise
        return _row(workspace)

    async def stop(self, workspace_id: str, epoch: int, grace: float) -> WorkspaceReport:
        workspace = self._workspaces.get(workspace_id)
        if workspace is None:
            self._refuse_later(workspace_id, epoch)
            return WorkspaceReport(workspace_id, epoch, "stopped")
        await workspace.stop(epoch, grace)
        return _row(workspace)

    async def remove(self, workspace_id: str, epoch: int) -> None:
        workspace = self._workspaces.get(workspace_id)
        if workspace is None:
            self._refuse_later(workspace_id, epoch)
            return
        await workspace.remove(epoch, lambda newest: self._forget(workspace, newest))
        await asyncio.to_thread(self._empty_trash)

    def _empty_trash(self) -> None:
        """Blocks. What is left when it breaks off goes with the next call or the next start."""
        for doomed in self._trash.glob("*"):
            with contextlib.suppress(OSError):
                tree.remove(doomed)

    def _forget(self, workspace: LocalWorkspace, epoch: int) -> None:
        self._epochs.remember(workspace.where.id, epoch)
        workspace.where.discard(self._trash)
        self._workspaces.pop(workspace.where.id, None)
        self._bump()

    def _refuse_later(self, workspace_id: str, epoch: int) -> None:
        """A start of this epoch may still be on its way; when it comes, it is too late."""
        newest = self._epochs.newest(workspace_id)
        if epoch < newest:
            raise stale_epoch(workspace_id, epoch, newest)
        self._epochs.remember(workspace_id, epoch)

    async def snapshot(self, workspace_id: str, spec: SnapshotSpec) -> Manifest:
        return await self._known(workspace_id).snapshot(spec)

    async def ports(self, workspace_id: str) -> list[int]:
        workspace = self._known(workspace_id)
        if workspace.saved.status not in OCCUPYING:
            return []
        return await asyncio.to_thread(listening, workspace.owner, self.setup.host)

    async def log(self, workspace_id: str, tail: int) -> str:
        workspace = self._known(workspace_id)
        return await asyncio.to_thread(output.tail, workspace.where.log, tail, workspace.secret)

    async def look_for_jobs(self) -> None:
        """What works in the workspaces that run. A job that begins or ends is news."""
        here = [each for each in self._occupying() if each.saved.status == "running"]
        if not here:
            return
        epochs = [each.saved.epoch for each in here]
        rows = await asyncio.to_thread(running, [each.owner for each in here])
        now = time.monotonic()  # of the rows: a server that is slow to answer changes no share
        kernels = await asyncio.gather(*(self._busy_kernel(each) for each in here))
        for each, epoch, kernel in zip(here, epochs, kernels, strict=True):
            spec = each.spec
            if spec is None or (each.saved.epoch, each.saved.status) != (epoch, "running"):
                continue  # another boot began while we asked
            before = each.job
            if each.jobs is None:
                each.jobs = Jobs(each.saved.pid, spec.job_cpu, script_of)
            if bool(each.jobs.look(rows[each.where.id], kernel, now)) != bool(before):
                self._bump()

    async def _busy_kernel(self, workspace: LocalWorkspace) -> str:
        spec, port = workspace.spec, workspace.saved.port
        if spec is None or not spec.jobs_path or not port:
            return ""
        return await busy_kernel(self.setup.host, port, spec.jobs_path, spec.upstream_header)

    def keep_warm(self, spec: WarmSpec) -> None:
        """From now on, until told otherwise."""
        self._warm.tell(spec)

    async def look_after_warm(self) -> None:
        """One turn: start, end and replace them."""
        occupying = self._occupying()
        starting = any(each.saved.status == "starting" for each in occupying)
        await self._warm.look(self.setup.slots - len(occupying), starting=starting)

    async def cap_logs(self) -> None:
        for workspace in self._occupying():
            await asyncio.to_thread(output.cap, workspace.where.log)
        await self._warm.cap_logs()

    async def shut_down(self, grace: float) -> None:
        """Stop every workspace in order; nothing starts any more."""
        self.closing.set()
        self._bump()
        stops = [each.stop(each.saved.epoch, grace) for each in self._occupying()]
        for result in await asyncio.gather(*stops, return_exceptions=True):
            if isinstance(result, BaseException):
                log.error("%s", result)
        await self._warm.close()

    def _occupying(self) -> list[LocalWorkspace]:
        return [each for each in self._workspaces.values() if each.saved.status in OCCUPYING]

    def _known(self, workspace_id: str) -> LocalWorkspace:
        return self._workspaces.get(workspace_id) or self._missing(workspace_id)

    def _missing(self, workspace_id: str) -> NoReturn:
        message = f"workspace {workspace_id} is not on machine {self.setup.machine_id}"
        raise Refused(404, "not_found", message)


def _row(workspace: LocalWorkspace, sample: Sample | None = None) -> WorkspaceReport:
    saved = workspace.saved
    runs = saved.status in OCCUPYING
    usage = sample.workspaces.get(workspace.where.id) if sample and runs else None
    return WorkspaceReport(
        workspace_id=workspace.where.id,
        epoch=saved.epoch,
        status=saved.status,
        step=saved.step,
        port=saved.port,
        pid=saved.pid if saved.status == "running" else 0,
        cpu_percent=usage.cpu_percent if usage else 0.0,
        memory_bytes=usage.memory_bytes if usage else 0,
        error_code=saved.error_code,
        error=saved.error,
        restore=saved.restore,
        job=workspace.job,
        warm=bool(saved.called),
        **{name: getattr(saved, name) for name in ORIGIN},
    )
