"""Workspaces on disks of their own: what is done to them between the records, the machines and the Disks.

A volume is attached where its workspace boots, detached once nothing of it runs there, and given up only
for a snapshot that is complete and noted. One that was given up is never used again, so whoever deletes it
late deletes nothing that is needed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

import structlog

from lifecycle.agent.contract import Manifest
from lifecycle.disks import PREFIX, DiskError, DiskGone, Disks, Elsewhere, Volume, VolumeSnapshot
from lifecycle.model import Machine, MachineStatus, Workspace
from lifecycle.stores.fleet import RedisFleet
from lifecycle.stores.redis import RedisStore

log = structlog.get_logger(__name__)

_M = MachineStatus
ANSWERING = (_M.READY, _M.DRAINING, _M.LAUNCHING)

Halt = Callable[[Machine, str, int], Awaitable[None]]


class Volumes:
    """halt: has a machine's agent stop a boot, and returns once nothing of it runs or is mounted there."""

    def __init__(self, store: RedisStore, fleet: RedisFleet, disks: Disks, halt: Halt) -> None:
        self._store, self._fleet, self._disks, self._halt = store, fleet, disks, halt

    async def prepare(
        self, workspace: Workspace, machine: Machine
    ) -> tuple[Workspace, Volume] | None:
        """See that it has a volume, and that its record names it; None when the record has moved on.
        Raises DiskError."""
        source, epoch = workspace.snapshot_id, workspace.epoch
        if not workspace.volume and not source and (newest := await self._newest(workspace.id)):
            source, epoch = newest.id, max(epoch, newest.epoch)
            log.warning("snapshot.found", workspace=workspace.id, snapshot=source)
        of_volume = source if source.startswith(PREFIX) else ""
        volume = await self._disks.ensure(workspace, machine.zone, of_volume)
        fields = {"volume": volume.id, "zone": volume.zone, "snapshotId": source}
        prepared = replace(workspace, volume=volume.id, zone=volume.zone, snapshot_id=source)
        noted = prepared == workspace or await self._store.note(
            workspace, "workspace.volume", fields
        )
        return (prepared, volume) if noted else None

    async def _newest(self, workspace_id: str) -> VolumeSnapshot | None:
        found = [each for each in await self._disks.snapshots(workspace_id) if each.complete]
        return found[-1] if found else None

    async def attach(self, workspace: Workspace, machine: Machine) -> str:
        """Its device's name on that machine. Raises DiskError."""
        if not machine.instance:
            raise DiskError(
                f"machine {machine.id} does not say which instance it is: --workspace-disk ebs needs"
                " machines of EC2"
            )
        try:
            return await self._disks.attach(workspace.volume, machine.instance)
        except Elsewhere as elsewhere:
            await self._take_from(workspace, elsewhere)
        return await self._disks.attach(workspace.volume, machine.instance)

    async def _take_from(self, workspace: Workspace, elsewhere: Elsewhere) -> None:
        """A leader died between a boot there and its end: end it."""
        there = [m for m in await self._fleet.machines() if m.instance == elsewhere.instance]
        if not there:
            raise elsewhere
        await self._halt(there[0], workspace.id, workspace.epoch)
        await self._disks.detach(workspace.volume, elsewhere.instance, idle=True)

    async def detach(self, workspace: Workspace) -> Machine | None:
        """Have it stopped and detach its volume; the machine it was on. Raises DiskError and what halt
        raises."""
        machine = await self._fleet.machine(workspace.machine_id)
        if machine is not None and machine.status in ANSWERING:
            await self._halt(machine, workspace.id, workspace.epoch)
            await self._disks.detach(workspace.volume, machine.instance, idle=True)
        else:
            await self._disks.detach(workspace.volume)
        return machine

    async def snapshot(self, workspace: Workspace, key: str) -> Manifest:
        """Complete when it returns. Raises DiskError."""
        made = await self._disks.snapshot(workspace, key)
        if not made.complete or made.volume != workspace.volume:
            raise DiskError(f"{made.id} is not a whole snapshot of {workspace.volume}: try again")
        return Manifest(
            workspace.id, made.id, workspace.epoch, made.created_at_ms, 0, made.gib * 2**30,
            made.id.removeprefix(PREFIX), made.gib * 2**30, "", PREFIX.rstrip(":"),
        )  # fmt: skip

    async def prune(self, workspace_id: str, noted: str, kept: int) -> None:
        """Only what is not newer than the one just noted: that one, and so many, stay."""
        found = await self._disks.snapshots(workspace_id)
        key = next((each.key for each in found if each.id == noted), "")
        older = [each for each in found if each.key <= key and each.id != noted]
        for old in older[: max(0, len(older) + 1 - kept)]:
            await self._disks.remove(old.id)

    async def remove(self, workspace: Workspace) -> None:
        """The volume of a workspace that was given up. What is left the next sweep removes."""
        try:
            await self._disks.remove(workspace.volume)
        except DiskError as error:
            log.warning(
                "volume.left", workspace=workspace.id, volume=workspace.volume, why=str(error)
            )

    async def purge(self, workspace_id: str) -> None:
        """Everything of a forgotten workspace. Raises DiskError."""
        for volume in await self._disks.volumes(workspace_id):
            await self._disks.remove(volume.id)
        for snapshot in await self._disks.snapshots(workspace_id):
            await self._disks.remove(snapshot.id)

    async def sweep(self) -> None:
        """Remove volumes whose removal was cut short: given up for the snapshot that the record notes."""
        for volume in await self._disks.volumes():
            record = await self._store.get(volume.workspace_id)
            if record is None or record.volume or volume.instance:
                continue  # in use, or nobody knows: unknown is no reason to delete
            noted = [
                s for s in await self._disks.snapshots(record.id) if s.id == record.snapshot_id
            ]
            if noted and noted[0].complete and noted[0].volume == volume.id:
                await self.remove(replace(record, volume=volume.id))


def lost(workspace: Workspace, error: DiskGone) -> str:
    """What to say of a workspace whose volume is gone."""
    if workspace.snapshot_id:
        return (
            f"{error}, with everything since its snapshot {workspace.snapshot_id}."
            " Start it again to go on from there."
        )
    return f"{error}, and there is no snapshot of it. Start it again to begin anew."
