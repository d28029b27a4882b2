"""What travels between the lifecycle loops and an agent. Both sides import this and nothing else of each other.

Every call carries `Authorization: Bearer {machine token}`. Times are milliseconds of the agent's own
clock and are only ever shown, never compared with another clock.

    GET    /status?since=VERSION&wait=SECONDS   Report, as soon as its version is above `since`
    PUT    /workspaces/{id}            StartSpec     → 202 WorkspaceReport; idempotent per epoch
    POST   /workspaces/{id}/stop       {epoch, grace}→ 200 WorkspaceReport once it is down
    POST   /workspaces/{id}/snapshot   SnapshotSpec  → 200 Manifest once written and verified
    DELETE /workspaces/{id}            {epoch}       → 200 {} once stopped and its files are gone
    GET    /workspaces/{id}/ports                    → 200 {"ports": [8080]} it listens on
    GET    /workspaces/{id}/log?tail=N               → 200 text, the IDE's own output
    PUT    /warm                       WarmSpec      → 200 {}; from now on, until told otherwise
    POST   /shutdown                                 → 202; stops every workspace, then itself

Errors are `{"error": {"code", "message", "hint"}}`; a call with an epoch below the newest one this
machine has seen for that workspace answers 409 `stale_epoch`.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Restore:
    """Where the files come from when they are not on this machine yet."""

    target: str
    """The snapshots' place: a directory, or s3://bucket/prefix."""
    snapshot_id: str


@dataclass(frozen=True, slots=True)
class StartSpec:
    epoch: int
    command: str
    """Template with {host} {port} {workspace} {dir} {base_url} {secret}; leading NAME=value words become environment."""
    secret: str = field(repr=False)
    base_url: str = "/"
    ready_path: str = ""
    """Ready once this answers 2xx/3xx; "" = ready once the port accepts."""
    ready_timeout: float = 120.0
    upstream_header: str = ""
    """"Name: value", already filled in; sent with the readiness probe."""
    max_bytes: int = 10 * 2**30
    max_files: int = 1_000_000
    restore: Restore | None = None
    user_id: str = ""
    name: str = ""
    plan: str = "default"
    priority: str = "normal"
    region: str = "local"
    """Whose it is, kept beside the files: should the store lose its records, reports tell."""
    jobs_path: str = ""
    """Jupyter's list of kernels at the IDE's port: a busy one is a job. "" = CPU alone tells."""
    job_cpu: float = 20.0
    """Percent of a core above which a process is a job."""
    volume: str = ""
    """Its files are on this volume (an EBS volume's id), which is attached; "" = on the machine's disk."""
    device: str = ""
    """The name that the volume was attached as."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> StartSpec:
        restore = data.get("restore")
        return cls(**{**data, "restore": Restore(**restore) if restore else None})


@dataclass(frozen=True, slots=True)
class WarmSpec:
    """IDEs to keep started and empty: count at most, and never more than there are free slots."""

    count: int = 0
    command: str = ""
    """As in a StartSpec. One that names the {workspace} cannot be started before it is known whose it is."""
    ready_path: str = ""
    ready_timeout: float = 120.0
    upstream_header: str = ""
    """"Name: value", with {secret}: each has one of its own."""
    reads: tuple[str, ...] | None = None
    """What this IDE reads in a home when it starts, as patterns of paths there: files that have any of it need
    an IDE that starts with them. None: nobody knows, so all files do."""

    def name(self) -> str:
        """Tells it from another one; "" of one that keeps none."""
        said = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(said.encode()).hexdigest()[:16] if self.count else ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> WarmSpec:
        reads = data.get("reads")
        return cls(**{**data, "reads": None if reads is None else tuple(reads)})


@dataclass(frozen=True, slots=True)
class SnapshotSpec:
    epoch: int
    target: str
    snapshot_id: str
    max_bytes: int = 10 * 2**30
    max_files: int = 1_000_000


@dataclass(frozen=True, slots=True)
class Manifest:
    """Proof that a snapshot is whole. Written last: a snapshot without one does not exist."""

    workspace_id: str
    snapshot_id: str
    epoch: int
    created_at_ms: int
    files: int
    bytes: int
    """Of the files, unpacked."""
    archive: str
    """The archive's name beside the manifest."""
    archive_bytes: int
    sha256: str
    """Of the archive."""
    format: str = "tar+zstd"


@dataclass(frozen=True, slots=True)
class WorkspaceReport:
    """status: starting, running, stopping, stopped or failed. step: "restore", "ide", "ready" while starting."""

    workspace_id: str
    epoch: int
    status: str
    step: str = ""
    port: int = 0
    pid: int = 0
    cpu_percent: float = 0.0
    memory_bytes: int = 0
    error_code: str = ""
    error: str = ""
    """What happened and what to do next, for a person."""
    user_id: str = ""
    """This and what follows is what its StartSpec said; "" of a boot that did not say."""
    name: str = ""
    plan: str = "default"
    priority: str = "normal"
    region: str = "local"
    secret: str = field(default="", repr=False)
    """Opens the IDE: its StartSpec's, or that of the warm one it was given."""
    restore: str = ""
    """The snapshot this boot starts from, until it runs."""
    job: str = ""
    """What works in it although nobody may be there, in words; "" while nothing does."""
    warm: bool = False
    """This boot was given an IDE that had been started before."""


@dataclass(frozen=True, slots=True)
class Report:
    machine_id: str
    boot_id: str
    """New with every start of the agent."""
    version: int
    """Grows whenever a workspace's epoch, status, step or job changes, or the number of warm IDEs."""
    slots: int
    cpu_percent: float = 0.0
    memory_bytes: int = 0
    memory_total_bytes: int = 0
    disk_free_bytes: int = 0
    warm: int = 0
    """IDEs that are started, empty and ready."""
    warm_spec: str = ""
    """Name of the WarmSpec that it was told; "" of none."""
    workspaces: tuple[WorkspaceReport, ...] = field(default=())

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Report:
        rows = tuple(WorkspaceReport(**row) for row in data.get("workspaces", ()))
        return cls(**{**data, "workspaces": rows})
