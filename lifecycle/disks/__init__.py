"""Disks: a volume of its own for each workspace. One file per technology behind the Protocol below.

DiskError          it was not done; str(error) says what, to what, and what to do next
├── DiskGone       there is no such volume any more
└── Elsewhere      it is attached to another instance, which runs; .instance names it
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from lifecycle.model import Workspace

PREFIX = "ebs:"
"""What the id of a volume's snapshot begins with in a record; ids of other snapshots have no colon."""


class DiskError(Exception):
    """Nothing is known to have changed; every verb may be repeated."""


class DiskGone(DiskError):
    """The volume does not exist."""


class Elsewhere(DiskError):
    """Detach it there first, once nothing of it runs there. instance: where it is."""

    def __init__(self, message: str, instance: str) -> None:
        super().__init__(message)
        self.instance = instance


@dataclass(frozen=True, slots=True)
class Volume:
    """zone: where it can be attached. epoch: of the boot it was made for. state: "creating", "available",
    "in-use", "deleting", …. instance: where it is attached, "" when it is not; device: its name there."""

    id: str
    workspace_id: str
    zone: str
    epoch: int = 0
    state: str = "available"
    instance: str = ""
    device: str = ""


@dataclass(frozen=True, slots=True)
class VolumeSnapshot:
    """id: as records note it. key: of the attempt that made it, "{epoch:08d}-{milliseconds}"; in its order
    they are older and newer. complete: it holds everything that was on the volume."""

    id: str
    workspace_id: str
    key: str
    epoch: int
    volume: str
    gib: int
    created_at_ms: int
    complete: bool


class Disks(Protocol):
    """Asked by the actions. Every verb is safe to repeat: an answer may have been lost. Raises DiskError."""

    async def ensure(self, workspace: Workspace, zone: str, snapshot: str = "") -> Volume:
        """Its volume: the one its record names (DiskGone if that is no more), else one that was made for
        it and never noted, else a new one in `zone`, with the files of `snapshot` if that is given. Where
        there is one already, it is in its own zone, whatever was asked for."""

    async def attach(self, volume: str, instance: str) -> str:
        """Its device's name there. Attached there already is success. Where it is still attached to an
        instance that is down it is taken from there; to one that runs: Elsewhere."""

    async def detach(self, volume: str, instance: str = "", *, idle: bool = False) -> None:
        """Return once it is attached nowhere, or not to `instance` any more. idle: the caller knows that
        nothing there uses it; without that only an instance that is down lets go of it."""

    async def snapshot(self, workspace: Workspace, key: str) -> VolumeSnapshot:
        """Of the volume that its record names; return once it is complete. The same key again is the same
        snapshot."""

    async def remove(self, thing: str) -> None:
        """A volume that is attached nowhere, or a snapshot. Removing one that is gone is success."""

    async def volumes(self, workspace_id: str = "") -> list[Volume]:
        """Every one of the fleet, or of one workspace."""

    async def snapshots(self, workspace_id: str) -> list[VolumeSnapshot]:
        """Of that workspace, oldest first, incomplete ones too."""
