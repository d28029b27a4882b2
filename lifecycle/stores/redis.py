"""Workspaces' records in Redis. Every change is one script of scripts.py; reading is plain."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Iterable, Mapping
from itertools import pairwise
from typing import Any, TypedDict

from redis.asyncio import Redis

from lifecycle.agent.contract import WorkspaceReport
from lifecycle.identifiers import workspace_id_for
from lifecycle.model import Workspace, WorkspaceStatus, check_transition
from lifecycle.pace import Census, Flow
from lifecycle.plans import Quota
from lifecycle.queueing import boost_ms
from lifecycle.quota import HOUR_MS, hours
from lifecycle.stores import Conflict, LimitReached, keys, scripts
from lifecycle.stores.connection import Scripts, asked, pairs
from lifecycle.stores.pace import seconds

READ_BATCH = 500  # records a pipeline: bounds the answer held in memory at once


class StoreBounds(TypedDict, total=False):
    """What a store holds people to. quota_of: plan → what its users may have; max_workspaces_per_user for
    all if left out. max_queue: how many may wait; 0: nobody, and no more than max_starting boot at once.
    start_rate: starts of a user in a minute; 0: without a bound."""

    max_workspaces_per_user: int
    max_queue: int
    max_starting: int
    start_rate: float
    quota_of: Callable[[str], Quota]


class RedisStore:
    """WorkspaceStore, and the compare-and-set changes that the lifecycle loops make."""

    def __init__(
        self,
        redis: Redis,
        *,
        max_workspaces_per_user: int = 20,
        max_queue: int = 1000,
        max_starting: int = 100,
        start_rate: float = 0,
        quota_of: Callable[[str], Quota] | None = None,
    ) -> None:
        """As StoreBounds says."""
        self.redis = redis
        self._scripts = Scripts(redis)
        everybodys = Quota(workspaces=max_workspaces_per_user)
        self._quota_of = quota_of or (lambda plan: everybodys)
        count = max(1, int(start_rate)) if start_rate else 0
        self._bounds = {
            "queue": max_queue,
            "atOnce": max_starting,
            "starts": (count, math.ceil(60_000 * count / start_rate) if count else 0),
        }

    async def now_ms(self) -> int:
        seconds, micros = await asked(self.redis.time())
        return int(seconds) * 1000 + int(micros) // 1000

    async def ensure(
        self,
        user_id: str,
        name: str = "",
        *,
        plan: str = "default",
        priority: str = "normal",
        region: str = "local",
    ) -> tuple[Workspace, bool]:
        workspace_id = workspace_id_for(user_id, name)
        fields = {
            "workspaceId": workspace_id, "userId": user_id, "name": name, "plan": plan,
            "priority": priority, "region": region, "machineId": "", "address": "",
            "lastActiveAt": "0", "runningSince": "0", "extendUntil": "0",
        }  # fmt: skip
        pairs = [part for pair in fields.items() for part in pair]
        allowed = self._quota_of(plan).workspaces
        outcome, used, stamp = await self._scripts.run(
            scripts.ENSURE, workspace_id, allowed, *pairs
        )
        if outcome == "limit":
            raise LimitReached("workspaces", allowed, int(used))
        await self._keep(workspace_id, stamp)
        return await self._require(workspace_id), outcome == "made"

    async def get(self, workspace_id: str) -> Workspace | None:
        found = await self.get_many([workspace_id])
        return found[0] if found else None

    async def get_many(self, workspace_ids: Iterable[str]) -> list[Workspace]:
        """Those that exist, in the order asked for."""
        ids = list(workspace_ids)
        found: list[Workspace] = []
        for start in range(0, len(ids), READ_BATCH):
            batch = ids[start : start + READ_BATCH]
            rows = await self._scripts.run(scripts.WORKSPACES_READ, *batch)
            found += [workspace_from(pairs(row), float(seen or 0)) for row, seen in rows if row]
        return found

    async def ids(self, status: Collection[WorkspaceStatus]) -> list[str]:
        """Ids in any of these statuses, longest in it first."""
        return [str(each) for each in await self._scripts.run(scripts.IN_STATUS, *status)]

    async def due(self, now_ms: int, limit: int) -> dict[str, int]:
        """Workspaces that have to be looked at, most urgent first → since when: O(log n + found)."""
        rows = await asked(
            self.redis.zrangebyscore(keys.DUE, "-inf", now_ms, start=0, num=limit, withscores=True)
        )
        return {str(row[0]): int(float(row[1])) for row in rows}

    async def not_seen_since(self, before_ms: int, limit: int) -> list[str]:
        """Ids of workspaces with a slot whose last activity was before; the longest ago first."""
        found = await asked(
            self.redis.zrangebyscore(keys.WORKSPACES, "-inf", before_ms, start=0, num=limit)
        )
        return [str(each) for each in found]

    async def last_active(self, workspace_ids: list[str]) -> dict[str, int]:
        """Workspace → its last activity; those without a slot are left out."""
        found: dict[str, int] = {}
        for start in range(0, len(workspace_ids), READ_BATCH):
            some = workspace_ids[start : start + READ_BATCH]
            scores = await asked(self.redis.zmscore(keys.WORKSPACES, some))
            found |= {
                each: int(at) for each, at in zip(some, scores, strict=True) if at is not None
            }
        return found

    async def schedule(self, looks: Mapping[str, tuple[int, int | None]]) -> None:
        """When to look again; None: not before a change. Each with the time it was due at: one that has
        become due anew meanwhile is left as it is."""
        rows = [
            part
            for workspace_id, (seen, again) in looks.items()
            for part in (workspace_id, str(seen), "" if again is None else str(again))
        ]
        for start in range(0, len(rows), 3 * READ_BATCH):
            await self._scripts.run(scripts.SCHEDULE, *rows[start : start + 3 * READ_BATCH])

    async def warned(self, workspace: Workspace, at_ms: int) -> bool:
        """Note the stop that its person was warned of; 0: it is off. False once this boot is over."""
        return bool(await self._scripts.run(scripts.WARNED, workspace.id, workspace.epoch, at_ms))

    async def put_on_due(self) -> int:
        """Make due whatever time changes and is on no list; how many."""
        return int(await self._scripts.run(scripts.PUT_ON_DUE))

    async def queued(self) -> list[Workspace]:
        """The boot queue, next first."""
        return await self.get_many(await asked(self.redis.zrange(keys.QUEUE, 0, -1)))

    async def counts(self) -> dict[str, int]:
        """How many workspaces are in each status."""
        found = await self._scripts.run(scripts.COUNTS, *WorkspaceStatus)
        return dict(zip(map(str, WorkspaceStatus), found, strict=True))

    async def census(self, durations: bool = False) -> Census:
        """How many workspaces are in each status, and the counters of who came and left, in one step;
        with `durations` also how long machines take."""
        found, flow, took = await self._scripts.run(
            scripts.CENSUS, "1" if durations else "", *WorkspaceStatus
        )
        return Census(
            dict(zip(map(str, WorkspaceStatus), found, strict=True)),
            Flow(*(int(each or 0) for each in flow)),
            *(tuple(seconds(rows)) for rows in took),
        )

    async def wake(self, workspace_id: str, priority: str = "") -> Workspace:
        record = await self._require(workspace_id)
        quota = self._quota_of(record.plan)
        hourly = [int(each * HOUR_MS) for each in (quota.hours_a_day, quota.hours_a_month)]
        bounds = json.dumps(self._bounds | {"quota": [quota.running, *hourly]})
        outcome, refusal, stamp = await self._scripts.run(
            scripts.WAKE, workspace_id, boost_ms(priority or record.priority), priority, bounds
        )
        if outcome == "limit":
            raise refused(json.loads(refusal))
        await self._keep(workspace_id, stamp)
        return await self._require(workspace_id)

    async def stop(self, workspace_id: str, reason: str, then: str = "") -> Workspace:
        _, stamp = await self._scripts.run(scripts.STOP, workspace_id, reason, then)
        await self._keep(workspace_id, stamp)
        return await self._require(workspace_id)

    async def terminate(self, workspace_id: str, reason: str) -> Workspace:
        return await self.stop(workspace_id, reason, then="terminate")

    async def delete(self, workspace_id: str) -> None:
        outcome, status, stamp = await self._scripts.run(scripts.DELETE, workspace_id)
        if outcome != "ok":
            raise Conflict(
                f"workspace {workspace_id} is {status or 'unknown'}; only a terminated one can be "
                "forgotten",
                status,
            )
        await self._keep(workspace_id, stamp)

    async def touch(self, workspace_id: str, kind: str, source: str = "api") -> bool:
        return bool(await self._scripts.run(scripts.TOUCH, workspace_id, kind, source))

    async def job(self, workspace: Workspace, job: str) -> bool:
        """What works in this boot now, in words; "" when nothing does. Whether that is new."""
        new, stamp = await self._scripts.run(scripts.JOB, workspace.id, workspace.epoch, job)
        await self._keep(workspace.id, stamp)
        return bool(new)

    async def extend(self, workspace_id: str, seconds: float) -> Workspace:
        _, stamp = await self._scripts.run(scripts.EXTEND, workspace_id, int(seconds * 1000))
        await self._keep(workspace_id, stamp)
        return await self._require(workspace_id)

    async def set_policy(self, workspace_id: str, text: str) -> Workspace:
        return await self._lives(workspace_id, "policy", text)

    async def keep(self, workspace_id: str, seconds: float) -> Workspace:
        return await self._lives(workspace_id, "keep", str(int(seconds * 1000)))

    async def pin(self, workspace_id: str, pinned: bool) -> Workspace:
        return await self._lives(workspace_id, "pin", "1" if pinned else "")

    async def _lives(self, workspace_id: str, what: str, value: str) -> Workspace:
        _, stamp = await self._scripts.run(scripts.LIVES, workspace_id, what, value)
        await self._keep(workspace_id, stamp)
        return await self._require(workspace_id)

    async def queue_position(self, workspace_id: str) -> int | None:
        rank = await asked(self.redis.zrank(keys.QUEUE, workspace_id))
        return None if rank is None else int(rank) + 1

    async def change(
        self,
        workspace: Workspace,
        to: WorkspaceStatus,
        *,
        chain: tuple[WorkspaceStatus, ...] = (),
        fields: Mapping[str, str] | None = None,
        unless_seen: Mapping[str, int] | None = None,
        unless_extended_ms: int | None = None,
        place: str = "",
        known_epoch: int | None = None,
        waited: bool = False,
        unless_connected: bool = False,
        tell: Mapping[str, str] | None = None,
    ) -> Workspace:
        """Compare-and-set on what `workspace` says of status and epoch. place: take a slot of that
        machine and count the epoch up, beyond known_epoch. unless_seen: kind of signal → not when one
        came later; unless_extended_ms: nor when it is extended beyond that. unless_connected: nor while a
        session of it is open. waited: there was no slot for it before. tell: more fields of the event.
        Raises Conflict."""
        path = (workspace.status, *chain, to)
        for old, new in pairwise(path):
            check_transition(old, new)
        options: dict[str, Any] = {"from": [workspace.status], "epoch": workspace.epoch}
        options |= {"set": dict(fields or {}), "chain": list(chain)}
        if unless_seen:
            options["unlessSeen"] = dict(unless_seen)
        if unless_extended_ms is not None:
            options["unlessExtended"] = unless_extended_ms
        if place:
            options |= {"place": place, "bump": known_epoch or 0, "waited": waited}
        if unless_connected:
            options["unlessConnected"] = True
        if tell:
            options["tell"] = dict(tell)
        outcome, status, stamp = await self._scripts.run(
            scripts.CHANGE, workspace.id, to, json.dumps(options)
        )
        if outcome != "ok":
            raise Conflict(f"workspace {workspace.id} not {to}: {outcome} ({status})", status)
        await self._keep(workspace.id, stamp)
        return await self._require(workspace.id)

    async def adopt(self, machine_id: str, row: WorkspaceReport, address: str) -> str:
        """Write a record as that machine says, if there is none or an older one that holds no slot:
        "ok", or what stood in the way."""
        new = {
            "workspaceId": row.workspace_id, "userId": row.user_id, "name": row.name,
            "plan": row.plan, "priority": row.priority, "region": row.region, "machineId": "",
            "runningSince": "0", "extendUntil": "0", "snapshotId": row.restore,
        }  # fmt: skip
        said = {
            "status": row.status, "epoch": str(row.epoch), "address": address, "step": row.step,
            "secret": row.secret, "restore": row.restore, "errorCode": row.error_code,
            "error": row.error, "reason": "adopted", "next": "",
        }  # fmt: skip
        outcome, stamp = await self._scripts.run(
            scripts.ADOPT, machine_id, json.dumps(new), json.dumps(said)
        )
        await self._keep(row.workspace_id, stamp)
        return str(outcome)

    async def note(self, workspace: Workspace, event: str, fields: Mapping[str, str]) -> bool:
        """Write facts about this boot and tell them; False when the boot is over or the files that
        `workspace` speaks of are elsewhere by now."""
        pairs = [part for pair in fields.items() for part in pair]
        noted, stamp = await self._scripts.run(
            scripts.NOTE, workspace.id, workspace.epoch, workspace.machine_id, event, *pairs
        )
        await self._keep(workspace.id, stamp)
        return bool(noted)

    async def list(
        self,
        user_id: str | None = None,
        status: Collection[WorkspaceStatus] | None = None,
    ) -> list[Workspace]:
        if user_id is not None:
            ids = list(await asked(self.redis.smembers(keys.user_workspaces(user_id))))
        else:
            ids = await self.ids(status or tuple(WorkspaceStatus))
        rows = await self.get_many(ids)
        wanted = [row for row in rows if status is None or row.status in status]
        return sorted(wanted, key=lambda row: (-row.created_at_ms, row.id))

    # Where records outlast Redis (recorded.py) these do what they say; here there is nothing to do.

    async def open(self) -> None:
        """Make sure that records can be kept. Raises StoreError with what to do."""

    async def close(self) -> None:
        """Let go of what open() took."""

    async def rebuild(self) -> int:
        """Put back what a Redis that lost its data lacks; how many records. Before anything else in a
        leader's turn: until then what is missing may exist. Raises StoreUnavailable."""
        return 0

    async def settle(self) -> int:
        """Keep the changes that could not be kept when they were made; how many are left."""
        return 0

    async def secure(self, workspace: Workspace) -> None:
        """Make sure that its record is kept, before something is done that cannot be taken back: a boot,
        a removal of files. Raises StoreUnavailable, Conflict when Redis had lost it."""

    async def _keep(self, workspace_id: str, stamp: str) -> None:
        """The change with that stamp was made ("": none was)."""

    async def _require(self, workspace_id: str) -> Workspace:
        record = await self.get(workspace_id)
        if record is None:
            raise Conflict(f"there is no workspace {workspace_id}")
        return record


def refused(row: Mapping[str, Any]) -> LimitReached:
    """What a script's refusal says: milliseconds of running become hours."""
    shown: Callable[[int], float] = hours if row["limit"].startswith("hours_") else int
    frees_at_ms = int(row["freesAt"])
    wait = max(0, frees_at_ms - int(row["now"])) / 1000 if frees_at_ms else 0
    return LimitReached(
        row["limit"], shown(row["allowed"]), shown(row["used"]), frees_at_ms or None, wait
    )


def workspace_from(row: Mapping[str, str], active_ms: float = 0) -> Workspace:
    """A record from its hash and its score in heartbeat:workspaces (0 when it holds no slot)."""
    return Workspace(
        id=row["workspaceId"],
        user_id=row["userId"],
        status=WorkspaceStatus(row["status"]),
        created_at_ms=int(row.get("createdAt", 0)),
        status_since_ms=int(row.get("statusSince", 0)),
        name=row.get("name", ""),
        epoch=int(row.get("epoch", 0)),
        machine_id=row.get("machineId", ""),
        address=row.get("address", ""),
        secret=row.get("secret", ""),
        restore=row.get("restore", ""),
        plan=row.get("plan", "default"),
        priority=row.get("priority", "normal"),
        region=row.get("region", "local"),
        step=row.get("step", ""),
        reason=row.get("reason", ""),
        error_code=row.get("errorCode", ""),
        error=row.get("error", ""),
        snapshot_id=row.get("snapshotId", ""),
        volume=row.get("volume", ""),
        zone=row.get("zone", ""),
        next=row.get("next", ""),
        last_active_at_ms=int(active_ms or float(row.get("lastActiveAt", 0))),
        left_at_ms=int(row.get("left") or 0),
        running_since_ms=int(row.get("runningSince", 0)),
        moved=row.get("moved", "") == "1",
        extend_until_ms=int(row.get("extendUntil", 0)),
        seen={
            name.removeprefix("seen:"): int(float(value))
            for name, value in row.items()
            if name.startswith("seen:")
        },
        sources={
            name.removeprefix("source:"): value
            for name, value in row.items()
            if name.startswith("source:")
        },
        job=row.get("job", ""),
        job_since_ms=int(row.get("jobSince") or 0),
        own_policy=row.get("policy", ""),
        pinned=row.get("pinned", "") == "1",
        keep_until_ms=int(row.get("keepUntil") or 0),
        warned_ms=int(row.get("warned") or 0),
        stop_by_ms=int(row.get("stopBy") or 0),
        stop_by=row.get("stopByReason", ""),
        files_bytes=int(row.get("filesBytes") or 0),
        running_class=row.get("runningClass", ""),
        stored_since_ms=int(row.get("storedSince") or 0),
        stored_bytes=int(row.get("storedBytes") or 0),
    )
