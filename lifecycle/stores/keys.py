"""Every Redis key, spelled once. Scores are milliseconds by Redis's own clock; members and fields are text."""

from __future__ import annotations

SESSIONS = "heartbeat:sessions"  # zset  {workspace}/{session} → last frame or pong
WORKSPACES = "heartbeat:workspaces"  # zset  workspace → last activity, while it holds a slot
MACHINES = "heartbeat:machines"  # zset  machine → last report
GATEWAYS = "heartbeat:gateways"  # zset  gateway process → last flush
SINCE = "heartbeat:since"  # string  heartbeats have come without a gap since then
LAST = "heartbeat:last"  # string  the newest flush of any gateway
DUE = "workspaces:due"  # zset  workspace → when the lifecycle has to look at it next
QUEUE = "boot:queue"  # zset  workspace → its place
LEASE = "lease:lifecycle"  # string  "holder token"
FENCE = "lease:lifecycle:token"  # string  the newest fencing token given out
EVENTS = "events"  # stream
MACHINE_IDS = "machines"  # set  every machine that is not terminated
MACHINE_NUMBER = "machines:last"  # string  the newest machine's number
BOOTS = "boot:seconds"  # list  the newest boots' durations, newest first
USAGE_USERS = "metered:users"  # zset  user → newest end of their usage; inf while any is open
USED_OPEN = (
    "used:open"  # hash  "2026-11 running/standard" (or stored) → how many, bytes, that began then
)
USED_SINCE = "used:open:since"  # hash  the same → since when, ms of that month times size, summed
SIGNING_KEY = (
    "gateway:signing-key"  # string  signs cookies and tokens of every gateway on this Redis
)
POOL_DIRECTORY = (
    "pool:directory"  # string  "id path" of the data directory with the local pool's machines
)
TOLD = "function:told"  # string  the newest event that a scheduled function has told of
NOTICE = "pool:notice"  # string  what the pool could not do as asked, JSON {text}; goes by itself
DECISION = "pool:decision"  # string  the scaler's last decision and its inputs, JSON
PEAKS = (
    "peaks"  # hash  name → a peak that the API declared, JSON {at, users, early, late}; ms, seconds
)
DURABLE = "store:durable"  # string  records are kept elsewhere too, since this Redis was last empty
REBUILT = (
    "store:rebuilt"  # string  where they are kept, once all that is kept there is here as well
)
DELIVERIES = "deliveries"  # zset  delivery → when it was made; the newest 10,000 of 7 days
DELIVERIES_DUE = "deliveries:due"  # zset  delivery → its next attempt
NOTICES_CURSOR = "notices:cursor"  # string  the newest event that notices were made from
QUOTA_DUE = "quota:due"  # zset  user → when their running hours have to be looked at next
LAUNCHES = "launch:seconds"  # list  the newest launches' durations, newest first
STARTS = "start:seconds"  # list  the same of stopped machines that were started again
FLOW = "pool:flow"  # hash  "arrivals", "departures", "waits" → how many so far
RUNS = "run:seconds"  # list  how long the newest 300 runs took, ms, newest first
ARRIVALS = "boot:arrivals"  # list  "{ms} {boost}" of the newest 500 that were queued, newest first
PENDING = "store:pending"  # set  workspaces with changes that are not kept there yet


def workspace(workspace_id: str) -> str:
    return f"workspace:{workspace_id}"


def machine(machine_id: str) -> str:
    return f"machine:{machine_id}"


def machine_slots(machine_id: str) -> str:
    """Set of the workspaces that hold a slot there."""
    return f"machine:{machine_id}:slots"


def machine_files(machine_id: str) -> str:
    """Set of the workspaces whose files are there."""
    return f"machine:{machine_id}:files"


def by_status(status: str) -> str:
    """Zset: workspace → since when it is in that status."""
    return f"workspaces:{status}"


def last_epoch(workspace_id: str) -> str:
    """String: the epoch of a deleted workspace; one of that id made again goes on from there."""
    return f"epoch:{workspace_id}"


def deleted(workspace_id: str) -> str:
    """Hash: what is left of a deleted workspace until its deletion is kept elsewhere."""
    return f"deleted:{workspace_id}"


def user_workspaces(user_id: str) -> str:
    return f"user:{user_id}:workspaces"


def usage(user_id: str) -> str:
    """Zset: "{workspace}/{epoch}/{kind}/{class}/{bytes}/{start}/{end}" → end of the metered interval. kind:
    "running" (class: what its machine is billed as) or "stored" (bytes: its files')."""
    return f"usage:{user_id}"


def used(month: str) -> str:
    """Hash: "running/{class}" → ms that ran, "stored" → ms times bytes, of everybody; what has ended."""
    return f"used:{month}"


def connections(gateway_id: str) -> str:
    """Hash: workspace → open sessions on that gateway."""
    return f"connections:{gateway_id}"


def code(digest: str) -> str:
    """String: what the one-use entry code with this hash is good for, JSON."""
    return f"code:{digest}"


def idempotency(digest: str) -> str:
    """String: the fingerprint of what the Idempotency-Key with this hash was used for."""
    return f"idempotency:{digest}"


def notices(workspace_id: str) -> str:
    """List: the newest 50 notices of a workspace, JSON, oldest first."""
    return f"notices:{workspace_id}"


def preferences(user_id: str) -> str:
    """Hash: "email" → address, "optOut:{type}" → channels in words."""
    return f"preferences:{user_id}"


def delivery(delivery_id: str) -> str:
    """Hash: one notice on its way by one channel, and what came of it."""
    return f"delivery:{delivery_id}"


def hours(user_id: str) -> str:
    """Hash: "d20000" (days since 1970), "m2026-11" → running time in ms, UTC; "told:{quota}" → the period and
    threshold that its person was told of."""
    return f"hours:{user_id}"


def starts(user_id: str) -> str:
    """List: the newest moments at which they asked for a start, newest first."""
    return f"starts:{user_id}"


def sessions(user_id: str) -> str:
    """Zset: "{workspace}/{session}" → when it was let in, where a plan bounds sessions."""
    return f"sessions:{user_id}"
