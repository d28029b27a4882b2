"""What callers get: one model for each shape, camelCase outside. Never a secret, a token of
ours (but the one that a machine joins for), an address."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, RootModel
from pydantic.alias_generators import to_camel

from lifecycle.model import MachineStatus, WorkspaceStatus
from lifecycle.notices.deliveries import Status


class Answer(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


class Queue(Answer):
    """position: 1 is next, 0 is starting now."""

    position: int
    eta_seconds: int


class Failure(Answer):
    code: str
    message: str


class WorkspaceAnswer(Answer):
    """Times are milliseconds. instanceId: the machine that has its files. stopsAt: null while no clock decides.
    keptUntil: when a stopped or failed one is put away; null: no time does that."""

    workspace_id: str
    user_id: str
    name: str
    instance_id: str | None
    status: WorkspaceStatus
    step: str | None
    created_at: int
    last_active_at: int | None
    status_since: int
    region: str
    plan: str
    priority: str
    url: str
    epoch: int
    alive_because: str | None
    stops_at: int | None
    kept_until: int | None
    pinned: bool
    queue: Queue | None
    snapshot_id: str | None
    error: Failure | None
    reason: str | None


class PolicyAnswer(Answer):
    """values: what holds for it, seconds where it is a time. sources: "own", "plan" or "default"."""

    workspace_id: str
    plan: str
    pinned: bool
    values: dict[str, Any]
    sources: dict[str, Literal["own", "plan", "default"]]


class ManifestAnswer(Answer):
    workspace_id: str
    snapshot_id: str
    epoch: int
    created_at: int
    files: int
    bytes: int
    archive_bytes: int
    sha256: str
    format: str


class EntryAnswer(Answer):
    """url: one use, good until expiresAt. token: for clients that are no browser, this workspace only."""

    workspace_id: str
    url: str
    token: str
    expires_at: int


class Signal(Answer):
    kind: str
    last_at: int
    seconds_ago: int
    source: str | None
    counts: bool


class Step(Answer):
    what: str
    at: int | None
    unless: str | None


class ActivityAnswer(Answer):
    workspace_id: str
    status: WorkspaceStatus
    alive_because: str | None
    stops_at: int | None
    signals: list[Signal]
    next: list[Step]
    text: str


class MachineAnswer(Answer):
    instance_id: str
    pool: str
    status: MachineStatus
    status_since: int
    created_at: int
    last_report_at: int | None
    slots: int
    occupied: int
    holds_files: int
    cpu_percent: float
    memory_bytes: int
    memory_total_bytes: int
    disk_free_bytes: int
    warm: int
    reason: str | None


class JoinAnswer(Answer):
    """token: the machine's own; it is told to nobody else."""

    machine_id: str
    token: str
    slots: int


class Empty(Answer):
    """Done; there is nothing to say."""


class PoolAnswer(BaseModel):
    """The scaler's last decision with its inputs, as it wrote them down; empty before the first. need: what was
    reckoned; rates, promise, pace, window: what it remembers."""

    model_config = ConfigDict(extra="allow")


class PeakAnswer(Answer):
    """source: where it was declared, and can be changed. cron: when it repeats; at is one of its times. heldSlots: that
    the pool keeps free for it, as the scaler last reckoned; null before that. notice: what the pool cannot do for it."""

    name: str
    at: int
    users: int
    early_seconds: float
    late_seconds: float
    state: Literal["ahead", "open"]
    source: Literal["api", "file"]
    cron: str | None
    time_zone: str | None
    held_slots: int | None
    notice: str | None


class WorkspaceUsage(Answer):
    """seconds, minutes: that it ran. cost: null while there are no prices."""

    workspace_id: str
    seconds: float
    minutes: float
    stored_seconds: float
    stored_gib_hours: float
    cost: float | None


class ClassUsage(Answer):
    machine_class: str
    seconds: float
    minutes: float
    cost: float | None


class KindUsage(Answer):
    kind: str
    seconds: float
    minutes: float
    gib_hours: float | None
    cost: float | None


class UsageAnswer(Answer):
    """month: YYYY-MM, UTC. seconds, minutes: that workspaces ran. running: workspaces that count on."""

    user_id: str
    month: str
    seconds: float
    minutes: float
    running: int
    workspaces: list[WorkspaceUsage]
    kinds: list[KindUsage]
    classes: list[ClassUsage]
    cost: float | None
    currency: str | None


class UserUsage(Answer):
    user_id: str
    seconds: float
    minutes: float
    stored_gib_hours: float
    cost: float | None


class UsersUsage(Answer):
    """A page of users by name. next: give it as `after` for the following page; null on the last."""

    month: str
    currency: str | None
    users: list[UserUsage]
    next: str | None


class UsageReply(RootModel[UsageAnswer | UsersUsage]):
    """Of one user; of all of them when the operator names none."""


class QuotaStanding(Answer):
    """allowed: null is without a bound. freesAt: when what is used counts no more; null: not by waiting."""

    quota: str
    used: float
    allowed: float | None
    frees_at: int | None


class QuotaAnswer(Answer):
    """plan: whose quotas these are. Hours are of all the user's workspaces together, UTC."""

    user_id: str
    plan: str
    quotas: list[QuotaStanding]


class NoticeAnswer(Answer):
    """seq: counts up within its workspace. data: at (of what is announced), reason, …, as text."""

    seq: int
    type: str
    workspace_id: str
    at: int
    text: str
    data: dict[str, str]


class PreferencesAnswer(Answer):
    """optOut: type of notice → channels that it does not come by."""

    user_id: str
    email: str | None
    opt_out: dict[str, list[str]]


class DeliveryAnswer(Answer):
    """One notice by one channel. nextAttemptAt: null when there is none. durationMs, code, answer: of the last
    attempt. attempts: since it was last asked for; retried: how often an operator asked for it again."""

    id: str
    channel: str
    to: str | None
    workspace_id: str
    user_id: str
    type: str
    text: str
    status: Status
    attempts: int
    retried: int
    created_at: int
    attempted_at: int | None
    next_attempt_at: int | None
    duration_ms: int
    code: int | None
    answer: str


class EventAnswer(Answer):
    """data: what else is told, as text."""

    id: str
    type: str
    at: int
    workspace_id: str | None = None
    user_id: str | None = None
    instance_id: str | None = None
    session_id: str | None = None
    gateway: str | None = None
    epoch: int | None = None
    reason: str | None = None
    data: dict[str, str]


class GatewaySessions(Answer):
    gateway: str
    sessions: int
    last_seen_at: int


class LiveSessions(Answer):
    total: int
    gateways: list[GatewaySessions]


class Seat(Answer):
    """A workspace in a slot."""

    workspace_id: str
    user_id: str
    name: str
    status: WorkspaceStatus
    running_since: int | None
    pinned: bool


class MachineNow(MachineAnswer):
    """held: an operator drains it. doomedAt: its pool takes it away then."""

    machine_class: str
    held: bool
    doomed_at: int | None
    seats: list[Seat]


class Waiting(Answer):
    workspace_id: str
    user_id: str
    name: str
    priority: str
    since: int
    position: int
    eta_seconds: int


class CostNow(Answer):
    """perHour: of all that runs and is stored now. monthToDate: of everybody, until now."""

    currency: str
    per_hour: float
    month: str
    month_to_date: float


class Sample(Answer):
    """A point of the charts. slots: of ready machines."""

    at: int
    sessions: int
    running: int
    queued: int
    machines: int
    slots: int


class DashboardAnswer(Answer):
    """cost: null while there are no prices. events: newest first. series: of the gateway that answers, oldest
    first. machines, queue: bounded; machinesTotal counts them all."""

    at: int
    sessions: LiveSessions
    workspaces: dict[str, int]
    machines: list[MachineNow]
    machines_total: int
    queue: list[Waiting]
    scaler: PoolAnswer
    cost: CostNow | None
    events: list[EventAnswer]
    series: list[Sample]


class MeAnswer(Answer):
    user_id: str | None
    admin: bool


class HealthAnswer(Answer):
    status: Literal["ok"]


class ReadyAnswer(Answer):
    status: Literal["ok", "unavailable"]
    reasons: list[str]


class Problem(Answer):
    """retryAfter: seconds. limit, allowed, used: which quota or bound refused it; freesAt: when it frees.
    field: which one is wrong."""

    code: str
    message: str
    retry_after: int | None = None
    limit: str | None = None
    allowed: float | None = None
    used: float | None = None
    frees_at: int | None = None
    field: str | None = None
    status: str | None = None
    line: int | None = None
    column: int | None = None


class ErrorAnswer(Answer):
    error: Problem
