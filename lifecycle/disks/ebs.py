"""Volumes of EBS, found again by their tags.

Calls may be repeated, by boto or by the next leader: a volume is made with a client token that every
repetition of the same boot makes anew; snapshots have no such token, so each carries the key of its
attempt as a tag, and that is looked for first. Descriptions may be older than what is true: what a call
has said is believed, and descriptions are asked until they agree.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
import zlib
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any, TypeVar

from lifecycle.aws import Clients, code_of, explain, failures
from lifecycle.disks import PREFIX, DiskError, DiskGone, Elsewhere, Volume, VolumeSnapshot
from lifecycle.model import Workspace

FLEET = "ide-gateway:fleet"
WORKSPACE = "ide-gateway:workspace"
EPOCH = "ide-gateway:epoch"
KEY = "ide-gateway:snapshot"

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 10.0  # seconds between two looks
PATIENCE = 120.0  # seconds for a volume to come, to be attached or detached
SNAPSHOT_PATIENCE = 3600.0  # a first snapshot copies every block that was ever written

DOWN = frozenset({"", "stopped", "terminated"})
"""States of an instance in which nothing on it writes any more; "" is one that does not exist."""
GONE = frozenset({"", "terminated"})
LEAVING = frozenset({"deleting", "deleted", "error"})
"""States of a volume that nothing can be done with any more."""

DEVICES = tuple(f"/dev/sd{letter}" for letter in "fghijklmnopqrstuvwxyz")
"""Names to ask for. On machines of today the kernel calls it otherwise; the agent finds it by its id."""

_T = TypeVar("_T")


class EbsDisks:
    """Disks. gib: size of a new volume; one from a larger snapshot is as large as that."""

    def __init__(
        self,
        clients: Clients,
        fleet: str,
        gib: int,
        *,
        volume_type: str = "gp3",
        encrypted: bool = True,
    ) -> None:
        self._clients, self._fleet, self._gib = clients, fleet, gib
        self._volume_type, self._encrypted = volume_type, encrypted

    async def ensure(self, workspace: Workspace, zone: str, snapshot: str = "") -> Volume:
        if workspace.volume:
            found = await self._find(workspace.volume)
            if found is None or found.state in LEAVING:
                raise DiskGone(f"volume {workspace.volume} of workspace {workspace.id} is gone")
            return found
        spent = await self._spent(workspace)
        made = [
            v for v in await self.volumes(workspace.id) if v.state not in LEAVING and v.id != spent
        ]
        if made:
            return max(made, key=lambda volume: (volume.epoch, volume.id))
        return await self._create(workspace, zone, snapshot)

    async def _spent(self, workspace: Workspace) -> str:
        """The volume that was given up for the snapshot its record notes. Whoever gave it up may still be
        about to delete it: it is never used again."""
        if not workspace.snapshot_id.startswith(PREFIX):
            return ""
        found = await self._find_snapshot(workspace.snapshot_id)
        return found.volume if found else ""

    async def _create(self, workspace: Workspace, zone: str, snapshot: str) -> Volume:
        if not zone:
            raise DiskError(
                f"cannot make a volume for workspace {workspace.id}: its machine does not say in which"
                " availability zone it is; --workspace-disk ebs needs machines of EC2"
            )
        epoch = workspace.epoch + 1
        boot = f"{self._fleet} {workspace.id} {epoch} {workspace.status_since_ms}"
        asked: dict[str, Any] = {
            "AvailabilityZone": zone,
            "Size": self._gib,
            "VolumeType": self._volume_type,
            "Encrypted": self._encrypted,
            "ClientToken": hashlib.sha256(boot.encode()).hexdigest(),
            "TagSpecifications": [
                {"ResourceType": "volume", "Tags": self._tags(workspace.id, {EPOCH: str(epoch)})}
            ],
        }
        if snapshot:
            source = await self._find_snapshot(snapshot)
            if source is None or not source.complete:
                raise DiskError(
                    f"snapshot {snapshot} of workspace {workspace.id} is not to be found in this"
                    " account and region: look for it there, and start the workspace again"
                )
            asked |= {"SnapshotId": _bare(snapshot), "Size": max(self._gib, source.gib)}
        doing = f"make a volume for workspace {workspace.id} in {zone}"
        try:
            row = await self._call(doing, "create_volume", **asked)
        except DiskError as error:
            # An earlier attempt of this boot asked for another zone, and its answer was lost.
            if code_of(error.__cause__ or error) != "IdempotentParameterMismatch":
                raise
            found = await self._until(
                lambda: self._made_for(workspace.id, epoch),
                lambda volume: volume is not None,
                doing,
            )
            assert found is not None
            return found
        return await self._reaches(row["VolumeId"], "available", doing)

    async def _made_for(self, workspace_id: str, epoch: int) -> Volume | None:
        found = [v for v in await self.volumes(workspace_id) if v.epoch == epoch]
        return next((v for v in found if v.state in ("available", "in-use")), None)

    async def attach(self, volume: str, instance: str) -> str:
        doing = f"attach volume {volume} to instance {instance}"

        async def attempt() -> Volume | None:
            found = await self._require(volume)
            if found.instance and found.instance != instance:
                state = await self._state(found.instance)
                if state not in DOWN:
                    where = f"it is attached to {found.instance}, which is {state}"
                    raise Elsewhere(f"cannot {doing}: {where}", found.instance)
                await self.detach(volume, found.instance)
            elif not found.instance:
                await self._attach(volume, instance, doing)
            return await self._find(volume)

        def there(found: Volume | None) -> bool:
            return found is not None and found.instance == instance and found.state == "in-use"

        found = await self._until(attempt, there, doing)
        assert found is not None
        return found.device

    async def _attach(self, volume: str, instance: str, doing: str) -> None:
        names = await self._free_names(volume, instance)
        if not names:
            raise DiskError(f"cannot {doing}: no name for another device is left there")
        try:
            await self._call(
                doing, "attach_volume", VolumeId=volume, InstanceId=instance, Device=names[0]
            )
        except DiskError as error:
            code = code_of(error.__cause__ or error)
            taken = code == "InvalidParameterValue" and "in use" in str(error.__cause__)
            # It was attached a moment ago, or another volume took the name: look again.
            if code not in ("VolumeInUse", "IncorrectState") and not taken:
                raise

    async def _free_names(self, volume: str, instance: str) -> list[str]:
        """Each volume begins at another one: two that are attached at once seldom want the same."""
        row = await self._instance(instance)
        taken = {mapping["DeviceName"] for mapping in row.get("BlockDeviceMappings", ())}
        first = zlib.crc32(volume.encode()) % len(DEVICES)
        return [name for name in DEVICES[first:] + DEVICES[:first] if name not in taken]

    async def detach(self, volume: str, instance: str = "", *, idle: bool = False) -> None:
        found = await self._find(volume)
        if found is None or not found.instance or (instance and found.instance != instance):
            return
        instance = found.instance
        doing = f"detach volume {volume} from instance {instance}"
        state = await self._state(instance)
        if not idle and state not in DOWN:
            raise DiskError(f"cannot {doing}: it is {state}, and something there may write to it")
        asked = {"VolumeId": volume, "InstanceId": instance}
        try:
            # Named with its instance: a call that comes late must not take it from the next one.
            await self._call(doing, "detach_volume", **asked, Force=state in GONE)
        except DiskError as error:
            code = code_of(error.__cause__ or error)
            if code not in (
                "IncorrectState",
                "InvalidAttachment.NotFound",
                "InvalidVolume.NotFound",
            ):
                raise
        await self._until(
            lambda: self._find(volume), lambda now: now is None or now.instance != instance, doing
        )

    async def snapshot(self, workspace: Workspace, key: str) -> VolumeSnapshot:
        volume, doing = workspace.volume, f"snapshot volume {workspace.volume}"
        there = [
            s for s in await self.snapshots(workspace.id) if (s.key, s.volume) == (key, volume)
        ]
        snapshot_id = there[0].id if there else await self._create_snapshot(workspace, key, doing)
        found = await self._until(
            lambda: self._find_snapshot(snapshot_id),
            lambda now: now is not None and now.complete,
            doing,
            SNAPSHOT_PATIENCE,
        )
        assert found is not None
        if (found.volume, found.workspace_id, found.key) != (volume, workspace.id, key):
            raise DiskError(f"cannot {doing}: {snapshot_id} is of {found.volume} and {found.key}")
        return found

    async def _create_snapshot(self, workspace: Workspace, key: str, doing: str) -> str:
        tags = self._tags(workspace.id, {EPOCH: str(workspace.epoch), KEY: key})
        asked = {
            "VolumeId": workspace.volume,
            "Description": f"workspace {workspace.id}, {key}",
            "TagSpecifications": [{"ResourceType": "snapshot", "Tags": tags}],
        }
        try:
            row = await self._call(doing, "create_snapshot", **asked)
        except DiskError as error:
            if code_of(error.__cause__ or error) != "InvalidVolume.NotFound":
                raise
            raise DiskGone(
                f"volume {workspace.volume} of workspace {workspace.id} is gone"
            ) from error
        return str(PREFIX + row["SnapshotId"])

    async def remove(self, thing: str) -> None:
        bare = _bare(thing)
        verb, name = ("delete_snapshot", "SnapshotId")
        if not thing.startswith(PREFIX):
            verb, name = ("delete_volume", "VolumeId")
        try:
            await self._call(f"delete {bare}", verb, **{name: bare})
        except DiskError as error:
            if not code_of(error.__cause__ or error).endswith(".NotFound"):
                raise

    async def volumes(self, workspace_id: str = "") -> list[Volume]:
        rows = await self._list(
            "describe_volumes", "Volumes", Filters=self._filters(workspace_id), MaxResults=500
        )
        return sorted((_volume(row) for row in rows), key=lambda volume: volume.id)

    async def snapshots(self, workspace_id: str) -> list[VolumeSnapshot]:
        rows = await self._list(
            "describe_snapshots",
            "Snapshots",
            Filters=self._filters(workspace_id),
            OwnerIds=["self"],
            MaxResults=500,
        )
        return sorted((_snapshot(row) for row in rows), key=lambda each: (each.key, each.id))

    # What AWS says.

    async def _require(self, volume: str) -> Volume:
        found = await self._find(volume)
        if found is None:
            raise DiskGone(f"volume {volume} is gone")
        return found

    async def _find(self, volume: str) -> Volume | None:
        rows = await self._list("describe_volumes", "Volumes", VolumeIds=[volume])
        return _volume(rows[0]) if rows else None

    async def _find_snapshot(self, snapshot_id: str) -> VolumeSnapshot | None:
        rows = await self._list("describe_snapshots", "Snapshots", SnapshotIds=[_bare(snapshot_id)])
        if rows and rows[0]["State"] == "error":
            raise DiskError(
                f"snapshot {_bare(snapshot_id)} has failed ({rows[0].get('StateMessage') or 'no reason'}):"
                " delete it and try again"
            )
        return _snapshot(rows[0]) if rows else None

    async def _instance(self, instance: str) -> Mapping[str, Any]:
        rows = await self._list("describe_instances", "Reservations", InstanceIds=[instance])
        found: list[dict[str, Any]] = [each for row in rows for each in row["Instances"]]
        return found[0] if found else {}

    async def _state(self, instance: str) -> str:
        row = await self._instance(instance)
        return str(row["State"]["Name"]) if row else ""

    async def _reaches(self, volume: str, state: str, doing: str) -> Volume:
        found = await self._until(
            lambda: self._find(volume), lambda now: now is not None and now.state == state, doing
        )
        assert found is not None
        return found

    async def _until(
        self,
        look: Callable[[], Awaitable[_T]],
        done: Callable[[_T], bool],
        doing: str,
        patience: float = 0.0,
    ) -> _T:
        """Look again, with growing pauses, until it is so."""
        patience = patience or PATIENCE
        pause, loop = FIRST_PAUSE, asyncio.get_running_loop()
        deadline = loop.time() + patience
        while True:
            found = await look()
            if done(found):
                return found
            if loop.time() >= deadline:
                raise DiskError(
                    f"cannot {doing}: not done within {patience:g} s; it is tried again"
                )
            await asyncio.sleep(pause * random.uniform(0.5, 1))
            pause = min(LONGEST_PAUSE, pause * 1.5)

    async def _list(self, verb: str, rows: str, **asked: Any) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        with _explained(f"{verb.replace('_', ' ')} of fleet {self._fleet}"):
            ec2 = await self._clients.get("ec2")
            try:
                async for page in ec2.get_paginator(verb).paginate(**asked):
                    found += page[rows]
            except failures() as error:
                if not code_of(error).endswith(".NotFound"):
                    raise
                return []
        return found

    async def _call(self, doing: str, verb: str, **asked: Any) -> dict[str, Any]:
        with _explained(doing):
            ec2 = await self._clients.get("ec2")
            answer: dict[str, Any] = await getattr(ec2, verb)(**asked)
            return answer

    def _tags(self, workspace_id: str, more: Mapping[str, str]) -> list[dict[str, str]]:
        tags = {FLEET: self._fleet, WORKSPACE: workspace_id, "Name": workspace_id, **more}
        return [{"Key": key, "Value": value} for key, value in tags.items()]

    def _filters(self, workspace_id: str) -> list[dict[str, Any]]:
        wanted = {FLEET: self._fleet} | ({WORKSPACE: workspace_id} if workspace_id else {})
        return [{"Name": f"tag:{key}", "Values": [value]} for key, value in wanted.items()]


@contextlib.contextmanager
def _explained(doing: str) -> Iterator[None]:
    try:
        yield
    except failures() as error:
        raise DiskError(explain(error, doing)) from error


def _bare(snapshot_id: str) -> str:
    return snapshot_id.removeprefix(PREFIX)


def _volume(row: Mapping[str, Any]) -> Volume:
    tags = _read(row)
    held = [each for each in row.get("Attachments", ()) if each.get("State") != "detached"]
    state = str(row["State"])
    if held and held[0].get("State") != "attached":
        state = str(held[0]["State"])  # attaching, detaching: it cannot be used yet, or any more
    return Volume(
        row["VolumeId"],
        tags.get(WORKSPACE, ""),
        row["AvailabilityZone"],
        int(tags.get(EPOCH) or 0),
        state,
        held[0].get("InstanceId", "") if held else "",
        held[0].get("Device", "") if held else "",
    )


def _snapshot(row: Mapping[str, Any]) -> VolumeSnapshot:
    tags = _read(row)
    return VolumeSnapshot(
        PREFIX + row["SnapshotId"],
        tags.get(WORKSPACE, ""),
        tags.get(KEY, ""),
        int(tags.get(EPOCH) or 0),
        row["VolumeId"],
        int(row["VolumeSize"]),
        int(row["StartTime"].timestamp() * 1000),
        row["State"] == "completed",
    )


def _read(row: Mapping[str, Any]) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in row.get("Tags", ())}
