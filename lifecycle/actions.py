"""What is done to a workspace, step by step: the thin edge between decisions, agents and the store.

Every function may be repeated, by the same holder of the lease or by the next: agents take a boot once
per epoch, the store changes a record only from the state the step was decided on.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from logging import DEBUG, WARNING
from pathlib import Path
from typing import Protocol

import structlog

from lifecycle.agent.contract import (
    Manifest,
    Report,
    Restore,
    SnapshotSpec,
    StartSpec,
    WarmSpec,
    WorkspaceReport,
)
from lifecycle.agents import AgentRefused, AgentUnreachable
from lifecycle.disks import PREFIX, DiskError, DiskGone, Disks
from lifecycle.model import Machine, MachineStatus, Workspace, WorkspaceStatus
from lifecycle.moving import stop_grace
from lifecycle.snapshots import SnapshotError, SnapshotTarget
from lifecycle.stores import Conflict
from lifecycle.stores.fleet import RedisFleet
from lifecycle.stores.redis import RedisStore
from lifecycle.volumes import Volumes, lost

log = structlog.get_logger(__name__)

_W = WorkspaceStatus


class Agents(Protocol):
    """What the loops ask of a machine. Raises AgentUnreachable, AgentRefused."""

    async def status(self, machine: Machine, since: int, wait: float) -> Report: ...

    async def start(
        self, machine: Machine, workspace_id: str, spec: StartSpec
    ) -> WorkspaceReport: ...

    async def stop(
        self, machine: Machine, workspace_id: str, epoch: int, grace: float
    ) -> WorkspaceReport: ...

    async def snapshot(
        self, machine: Machine, workspace_id: str, spec: SnapshotSpec
    ) -> Manifest: ...

    async def remove(self, machine: Machine, workspace_id: str, epoch: int) -> None: ...

    async def warm(self, machine: Machine, spec: WarmSpec) -> None: ...


@dataclass(frozen=True, slots=True)
class Plan:
    """How workspaces are run and kept: the settings that actions need. Times in seconds."""

    command: str
    ready_path: str
    upstream_header: str
    boot_timeout: float
    stop_grace: float
    snapshots: str
    snapshots_kept: int
    max_bytes: int
    max_files: int
    jobs_path: str = ""
    job_cpu: float = 20.0
    warm: int = 0
    """IDEs that each machine keeps started and empty."""
    reads: tuple[str, ...] | None = None
    """What the IDE reads of a person's files when it starts; see WarmSpec."""


class NotNow(Exception):
    """It cannot be done at the moment; nothing has changed, and it is tried again."""


class NoFiles(SnapshotError):
    """Its machine has no files of it: the boot that was to make them never came that far. Or its volume is
    gone: no attempt will ever find it again."""


class Actions:
    def __init__(
        self,
        store: RedisStore,
        fleet: RedisFleet,
        agents: Agents,
        plan: Plan,
        open_target: Callable[[str], SnapshotTarget],
        disks: Disks | None = None,
    ) -> None:
        """disks: gives each workspace a volume of its own; None: files are on the machines' disks."""
        self._store, self._fleet, self._agents, self._plan = store, fleet, agents, plan
        self._open_target = open_target
        self._volumes = Volumes(store, fleet, disks, self.halt) if disks else None
        self._cold: set[str] = set()  # machines whose agents refused to keep IDEs warm
        self.attaches = disks is not None
        """Files come along on volumes: none of them lie on a machine that sleeps."""

    async def boot(
        self, workspace: Workspace, machine: Machine, known_epoch: int, waited: bool = False
    ) -> None:
        """Take a slot, count the epoch up, and have the agent start it. waited: no slot was free before."""
        at_home = workspace.machine_id == machine.id
        restore = ""
        if self._volumes is not None and workspace.machine_id and not workspace.volume:
            # Its files are on a machine's disk, from before it was to have a volume: by way of a snapshot.
            await self.detach(workspace)
            return
        if self._volumes is not None:
            prepared = await self._prepare(self._volumes, workspace, machine)
            if prepared is None:
                return
            workspace, restore = prepared
            at_home = True  # as far as files go: they come along
        elif workspace.volume or workspace.snapshot_id.startswith(PREFIX):
            message = (
                f"its files are on EBS ({workspace.volume or workspace.snapshot_id}): set"
                " --workspace-disk ebs, then start it again"
            )
            await self.failed(workspace, "volume_unknown", message)
            return
        try:
            # A volume has newer files than any archive.
            unnoted = None if self._volumes else await self._unnoted(workspace)
        except SnapshotError as error:
            message = (
                f"whether a snapshot holds files of it cannot be told: {error}; start it again"
            )
            await self.failed(workspace, f"snapshot_{error.code}", message)
            return
        # A restore that was cut short left no files: it is due again, at home too.
        restore = restore or (workspace.restore if at_home else workspace.snapshot_id)
        noted = workspace.snapshot_id
        if unnoted and (not at_home or unnoted.epoch > workspace.epoch):
            restore = noted = unnoted.snapshot_id
            known_epoch = max(known_epoch, unnoted.epoch)
            log.warning("snapshot.found", workspace=workspace.id, snapshot=restore)
        fields = {
            "secret": secrets.token_urlsafe(24),
            "restore": restore,
            "snapshotId": noted,
            "step": "machine",
            "address": "",
            "reason": "",
        }
        try:
            placed = await self._store.change(
                workspace,
                _W.STARTING,
                fields=fields,
                place=machine.id,
                known_epoch=known_epoch,
                waited=waited,
            )
        except Conflict as conflict:
            log.info("boot.not_placed", workspace=workspace.id, why=str(conflict))
            return
        await self.start(placed, machine)

    async def _prepare(
        self, volumes: Volumes, workspace: Workspace, machine: Machine
    ) -> tuple[Workspace, str] | None:
        """The workspace with its volume, and the archive that is to be unpacked onto it; None when it
        cannot boot on that machine."""
        try:
            prepared = await volumes.prepare(workspace, machine)
        except DiskGone as error:
            await self._without_volume(workspace, error)
            return None
        except DiskError as error:
            raise NotNow(f"no volume for {workspace.id}: {error}") from error
        if prepared is None:
            return None
        workspace, volume = prepared
        if volume.zone != machine.zone:
            log.info("boot.other_zone", workspace=workspace.id, zone=volume.zone)
            return None  # its record says now where it can be placed
        untouched = volume.epoch > workspace.epoch and not workspace.snapshot_id.startswith(PREFIX)
        return workspace, workspace.snapshot_id if untouched else ""

    async def _without_volume(self, workspace: Workspace, error: DiskGone) -> None:
        await self.failed(workspace, "volume_gone", lost(workspace, error), volume="", zone="")

    async def _unnoted(self, workspace: Workspace) -> Manifest | None:
        """The newest snapshot of a workspace whose record notes none: the record that did may be lost.
        Its id is a function of user and name, so the files are that person's. Raises SnapshotError."""
        if workspace.snapshot_id:
            return None

        def newest() -> Manifest | None:
            target = self._open_target(self._plan.snapshots)
            found = target.list(workspace.id)
            return target.manifest(workspace.id, found[-1]) if found else None

        return await asyncio.to_thread(newest)

    async def start(self, workspace: Workspace, machine: Machine) -> None:
        """Ask the agent for this boot. An agent that has it already only says so. Raises NotNow."""
        plan = self._plan
        await self._store.secure(workspace)
        device = ""
        if workspace.volume and self._volumes is not None:
            try:
                device = await self._volumes.attach(workspace, machine)
            except DiskGone as error:
                await self._without_volume(workspace, error)
                return
            except DiskError as error:
                raise NotNow(f"the volume of {workspace.id}: {error}") from error
        restore = Restore(plan.snapshots, workspace.restore) if workspace.restore else None
        spec = StartSpec(
            epoch=workspace.epoch,
            command=plan.command,
            secret=workspace.secret,
            ready_path=plan.ready_path,
            ready_timeout=plan.boot_timeout,
            upstream_header=plan.upstream_header.replace("{secret}", workspace.secret),
            max_bytes=plan.max_bytes,
            max_files=plan.max_files,
            restore=restore,
            user_id=workspace.user_id,
            name=workspace.name,
            plan=workspace.plan,
            priority=workspace.priority,
            region=workspace.region,
            volume=workspace.volume if device else "",
            device=device,
            jobs_path=plan.jobs_path,
            job_cpu=plan.job_cpu,
        )
        try:
            await self._agents.start(machine, workspace.id, spec)
        except AgentUnreachable as error:
            # The start may or may not have arrived. The machine's next report tells.
            log.warning(
                "boot.unanswered", workspace=workspace.id, machine=machine.id, why=str(error)
            )
        except AgentRefused as error:
            if error.code == "no_slot":  # what held it is being stopped; asked again by the report
                log.info("boot.no_slot", workspace=workspace.id, machine=machine.id)
                return
            await self.failed(workspace, error.code, str(error))

    def warm_spec(self, machine: Machine) -> WarmSpec:
        """The IDEs that this machine is to keep warm: none where nothing new is to start, and none for people
        whose files come on volumes."""
        plan = self._plan
        leaving = machine.status is MachineStatus.DRAINING or machine.doomed_at_ms
        if not plan.warm or leaving or self.attaches:
            return WarmSpec()
        return WarmSpec(
            plan.warm, plan.command, plan.ready_path, plan.boot_timeout, plan.upstream_header,
            plan.reads,
        )  # fmt: skip

    async def keep_warm(self, machine: Machine, told: str) -> None:
        """Tell its agent, unless that is what it was told. told: name of a WarmSpec. Raises AgentUnreachable."""
        wanted = self.warm_spec(machine)
        if told == wanted.name():
            return
        try:
            await self._agents.warm(machine, wanted)
        except AgentRefused as error:  # one of an older version: its boots are cold
            level = DEBUG if machine.id in self._cold else WARNING
            self._cold.add(machine.id)
            log.log(level, "machine.not_warm", machine=machine.id, why=str(error))

    async def running(
        self, workspace: Workspace, address: str, secret: str = "", *, warm: bool = False
    ) -> None:
        """secret: what opens the IDE, if that is not what its boot was to have."""
        fields = {"address": address, "step": "ready", "restore": ""}
        fields |= {"secret": secret} if secret else {}
        await self._change(workspace, _W.RUNNING, fields, tell={"warm": "1"} if warm else None)

    async def failed(self, workspace: Workspace, code: str, message: str, **more: str) -> None:
        """more: other fields of its record."""
        log.warning(
            "workspace.failed",
            workspace=workspace.id,
            epoch=workspace.epoch,
            code=code,
            why=message,
        )
        fields = {"errorCode": code, "error": message, "address": "", "reason": code} | more
        await self._change(workspace, _W.FAILED, fields | _failed_at(workspace, code))

    async def stopped(self, workspace: Workspace, reason: str) -> None:
        """Its machine says that nothing of it runs there."""
        if workspace.volume and self._volumes is not None:
            # Not before its volume is detached: stop() sees to that, called for all that are stopping.
            if workspace.status is not _W.STOPPING:
                await self._change(workspace, _W.STOPPING, {"reason": reason})
            return
        await self._stopped(workspace, reason)

    async def _stopped(self, workspace: Workspace, reason: str, **more: str) -> bool:
        chain = () if workspace.status is _W.STOPPING else (_W.STOPPING,)
        fields = {"address": "", "step": "", "reason": reason} | more
        return await self._change(workspace, _W.STOPPED, fields, chain)

    async def stop(self, workspace: Workspace) -> None:
        """Finish a stop: workspace is stopping. Raises NotNow."""
        if workspace.volume and self._volumes is not None:
            left = await self._unplug(self._volumes, workspace)
            if await self._stopped(workspace, workspace.reason, machineId=""):
                await self._remove(left, workspace)
            return
        machine = await self._fleet.machine(workspace.machine_id)
        if machine is None:
            await self._stopped(workspace, workspace.reason)
            return
        await self.halt(machine, workspace.id, workspace.epoch)
        await self._stopped(workspace, workspace.reason)

    async def _unplug(self, volumes: Volumes, workspace: Workspace) -> Machine | None:
        """Detach its volume; the machine that it was on. Raises NotNow."""
        try:
            return await volumes.detach(workspace)
        except DiskError as error:
            raise NotNow(f"the volume of {workspace.id}: {error}") from error

    async def halt(self, machine: Machine, workspace_id: str, epoch: int) -> None:
        """Have the agent stop that boot. Raises NotNow."""
        grace = self._plan.stop_grace
        if machine.doomed_at_ms:
            grace = stop_grace(grace, machine, await self._store.now_ms())
        try:
            await self._agents.stop(machine, workspace_id, epoch, grace)
        except (AgentUnreachable, AgentRefused) as error:
            raise NotNow(f"machine {machine.id} did not stop {workspace_id}: {error}") from error

    async def snapshot(self, workspace: Workspace) -> Manifest:
        """Write a snapshot of its files, verify it, note it, prune older ones. Raises NotNow, SnapshotError."""
        if workspace.volume:
            return await self._snapshot_volume(workspace, await self._store.now_ms())
        machine = await self._fleet.machine(workspace.machine_id)
        if machine is None:
            raise SnapshotError("not_found", f"workspace {workspace.id} has no files on a machine")
        now = await self._store.now_ms()
        snapshot_id = f"{workspace.epoch:08d}-{now}"
        spec = SnapshotSpec(
            workspace.epoch, self._plan.snapshots, snapshot_id,
            self._plan.max_bytes, self._plan.max_files,
        )  # fmt: skip
        try:
            manifest = await self._agents.snapshot(machine, workspace.id, spec)
            target = await asyncio.to_thread(self._open_target, self._plan.snapshots)
            committed = await asyncio.to_thread(target.manifest, workspace.id, snapshot_id)
        except AgentUnreachable as error:
            raise NotNow(f"machine {machine.id} does not answer: {error}") from error
        except AgentRefused as error:
            kind = NoFiles if error.code == "not_found" else SnapshotError
            raise kind(error.code, str(error)) from error
        if committed != manifest:
            raise SnapshotError("corrupt", f"the manifest of {snapshot_id} is not what was written")
        fields = {
            "snapshotId": snapshot_id,
            "snapshotBytes": str(manifest.archive_bytes),
            "filesBytes": str(manifest.bytes),
        }
        if not await self._store.note(workspace, "workspace.snapshotted", fields):
            raise NotNow(f"workspace {workspace.id} was booted again meanwhile")
        await asyncio.to_thread(self._prune, target, workspace.id, snapshot_id)
        return manifest

    async def _snapshot_volume(self, workspace: Workspace, at_ms: int) -> Manifest:
        """at_ms: the same for every repetition of one attempt."""
        if self._volumes is None:
            message = f"its files are on volume {workspace.volume}: set --workspace-disk ebs"
            raise SnapshotError("unreachable", message)
        try:
            made = await self._volumes.snapshot(workspace, f"{workspace.epoch:08d}-{at_ms}")
        except DiskError as error:
            if isinstance(error, DiskGone):
                raise NoFiles("not_found", str(error)) from error
            raise SnapshotError("unreachable", str(error)) from error
        fields = {
            "snapshotId": made.snapshot_id,
            "snapshotBytes": str(made.archive_bytes),
            "filesBytes": str(made.bytes),
        }
        if not await self._store.note(workspace, "workspace.snapshotted", fields):
            raise NotNow(f"workspace {workspace.id} was booted again meanwhile")
        try:
            kept = self._plan.snapshots_kept
            await self._volumes.prune(workspace.id, made.snapshot_id, kept)
        except DiskError as error:
            log.warning("snapshots.left", workspace=workspace.id, why=str(error))
        return made

    def _prune(self, target: SnapshotTarget, workspace_id: str, noted: str) -> None:
        """Only what is older than the one just noted: the record never points at what was pruned."""
        older = [one for one in target.list(workspace_id) if one < noted]
        for old in older[: max(0, len(older) + 1 - self._plan.snapshots_kept)]:
            target.delete(workspace_id, old)

    async def terminate(self, workspace: Workspace) -> None:
        """Finish a termination: snapshot, verify, remove the files. Nothing is removed before that."""
        try:
            machine = await self._secure(workspace)
        except SnapshotError as error:
            await self._call_off(workspace, error)
            return
        fields = {"machineId": "", "address": "", "step": "", "errorCode": "", "error": ""}
        fields |= {"volume": "", "zone": ""}
        if await self._change(workspace, _W.TERMINATED, fields):
            await self._remove(machine, workspace)
            if workspace.volume and self._volumes is not None:
                await self._store.secure(workspace)
                await self._volumes.remove(workspace)

    async def detach(self, workspace: Workspace) -> None:
        """Move its files from its machine into a snapshot, or unplug its volume; workspace holds no slot."""
        if workspace.volume and self._volumes is not None:
            left = await self._unplug(self._volumes, workspace)
            if await self._store.note(workspace, "workspace.detached", {"machineId": ""}):
                await self._remove(left, workspace)
            return
        try:
            machine = await self._secure(workspace)
        except SnapshotError as error:
            raise NotNow(f"no snapshot of {workspace.id}: {error}") from error
        fields = {"machineId": "", "restore": ""}
        if await self._store.note(workspace, "workspace.detached", fields):
            await self._remove(machine, workspace)

    async def fetch(self, workspace: Workspace, into: Path) -> Manifest:
        """Write its newest snapshot's archive there, checked; its manifest. Raises SnapshotError."""
        if workspace.snapshot_id.startswith(PREFIX):
            message = (
                f"its snapshot {workspace.snapshot_id} is one of a whole disk: start it, and take"
                " the files from the IDE"
            )
            raise SnapshotError("not_found", message)

        def write() -> Manifest:
            target = self._open_target(self._plan.snapshots)
            manifest = target.manifest(workspace.id, workspace.snapshot_id)
            target.fetch(manifest, into)
            return manifest

        return await asyncio.to_thread(write)

    async def purge(self, workspace: Workspace) -> None:
        """Forget a terminated workspace and all its snapshots. Raises Conflict."""
        await self._store.delete(workspace.id)
        await self._store.secure(workspace)

        def remove() -> None:
            target = self._open_target(self._plan.snapshots)
            for snapshot_id in target.list(workspace.id):
                target.delete(workspace.id, snapshot_id)

        await asyncio.to_thread(remove)
        if self._volumes is not None:
            await self._volumes.purge(workspace.id)

    async def sweep_volumes(self) -> None:
        """Remove volumes whose removal was cut short. Raises DiskError."""
        if self._volumes is not None:
            await self._volumes.sweep()

    async def _secure(self, workspace: Workspace) -> Machine | None:
        """Make sure that a verified snapshot holds its files; the machine that still has them."""
        if workspace.volume and self._volumes is not None:
            left = await self._unplug(self._volumes, workspace)
            # Before its first boot nothing was written; after a restore that was cut short the snapshot
            # is newer than what is there.
            if workspace.epoch and not workspace.restore:
                try:
                    await self._snapshot_volume(workspace, workspace.status_since_ms)
                except NoFiles as error:
                    log.error("volume.gone", workspace=workspace.id, why=str(error))
            return left
        if workspace.volume:
            raise SnapshotError(
                "unreachable", f"volume {workspace.volume}: set --workspace-disk ebs"
            )
        machine = await self._fleet.machine(workspace.machine_id)
        if machine is None or workspace.epoch == 0:
            return None  # no machine has files of it: its last snapshot is all there is
        if workspace.restore:
            return machine  # a restore that was cut short: the snapshot is newer than what is there
        try:
            await self.snapshot(workspace)
        except NoFiles as error:
            log.warning("snapshot.nothing_there", workspace=workspace.id, why=str(error))
        return machine

    async def _remove(self, machine: Machine | None, workspace: Workspace) -> None:
        if machine is None:
            return
        await self._store.secure(workspace)
        try:
            await self._agents.remove(machine, workspace.id, workspace.epoch)
        except (AgentUnreachable, AgentRefused) as error:
            # The snapshot is whole; only disk space is lost until the machine goes.
            log.warning("files.left", workspace=workspace.id, machine=machine.id, why=str(error))

    async def _call_off(self, workspace: Workspace, error: SnapshotError) -> None:
        log.error("snapshot.failed", workspace=workspace.id, code=error.code, why=str(error))
        fields = {
            "errorCode": f"snapshot_{error.code}",
            "error": str(error),
            "reason": "snapshot failed",
        }
        await self._change(workspace, _W.STOPPED, fields)

    async def _change(
        self,
        workspace: Workspace,
        to: WorkspaceStatus,
        fields: dict[str, str],
        chain: tuple[WorkspaceStatus, ...] = (),
        tell: dict[str, str] | None = None,
    ) -> bool:
        try:
            await self._store.change(workspace, to, fields=fields, chain=chain, tell=tell)
        except Conflict as conflict:
            # Somebody else was faster; the records say what is true now.
            log.debug("change.overtaken", workspace=workspace.id, to=to, why=str(conflict))
            return False
        return True


def _failed_at(workspace: Workspace, code: str) -> dict[str, str]:
    """The step to show as failed: a quick failure is reported before the steps that led to it."""
    if workspace.status is not _W.STARTING:
        return {}
    if code.startswith("restore_"):
        return {"step": "restore"}
    return {"step": "ide"} if code in ("command_not_found", "exited", "not_ready") else {}
