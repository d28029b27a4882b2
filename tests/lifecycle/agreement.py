"""What always holds of the store, whatever happened: records, indexes, slots, files, queue, usage and events
tell the same story."""

from __future__ import annotations

from itertools import pairwise

from redis.asyncio import Redis

from lifecycle.model import OCCUPYING, WORKSPACE_TRANSITIONS, Workspace, WorkspaceStatus
from lifecycle.stores import keys
from lifecycle.stores.fleet import RedisFleet
from lifecycle.stores.metered import RedisUsage, Row
from lifecycle.stores.redis import RedisStore
from lifecycle.stores.signals import RedisSignals
from lifecycle.usage import (
    RUNNING,
    STORED,
    Interval,
    month_of,
    month_window,
    open_interval,
    pieces,
)

W = WorkspaceStatus


class Agreement:
    """check() after every step, check_story() at the end."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self.store, self.fleet, self.signals = (
            RedisStore(redis),
            RedisFleet(redis),
            RedisSignals(redis),
        )
        self.usage = RedisUsage(redis)
        self.epochs: dict[str, int] = {}

    async def check(self) -> None:
        records = await self._records()
        await self._check_indexes(records)
        await self._check_machines(records)
        await self._check_epochs(records)
        await self._check_usage(records)

    async def _records(self) -> dict[str, Workspace]:
        ids = [key.removeprefix("workspace:") async for key in self.redis.scan_iter("workspace:*")]
        return {w.id: w for w in await self.store.get_many(sorted(ids))}

    async def _users(self) -> set[str]:
        found = {key.split(":")[1] async for key in self.redis.scan_iter("user:*:workspaces")}
        metered = {key.removeprefix("usage:") async for key in self.redis.scan_iter("usage:*")}
        return found | metered

    async def metered(self) -> list[Row]:
        """Every closed interval, by when it began."""
        rows = [row for user in await self._users() for row in await self.usage.usage(user)]
        return sorted(rows, key=lambda row: (row[2], row[3]))

    async def _check_indexes(self, records: dict[str, Workspace]) -> None:
        for status in W:
            indexed = dict(await self.redis.zrange(keys.by_status(status), 0, -1, withscores=True))
            told = {w.id: w.status_since_ms for w in records.values() if w.status is status}
            assert indexed == told, status
        queued = {w.id for w in records.values() if w.status is W.QUEUED}
        assert set(await self.redis.zrange(keys.QUEUE, 0, -1)) == queued
        occupying = {w.id for w in records.values() if w.status in OCCUPYING}
        assert set(await self.redis.zrange(keys.WORKSPACES, 0, -1)) == occupying
        for user in await self._users():
            mine = {w.id for w in records.values() if w.user_id == user}
            assert await self.redis.smembers(keys.user_workspaces(user)) == mine

    async def _check_machines(self, records: dict[str, Workspace]) -> None:
        machines = {m.id: m for m in await self.fleet.machines()}
        homes = {w.machine_id for w in records.values()} - {""}
        assert homes <= machines.keys(), "files on a machine that is gone"
        for machine in machines.values():
            here = [w for w in records.values() if w.machine_id == machine.id]
            slots = {w.id for w in here if w.status in OCCUPYING}
            assert await self.redis.smembers(keys.machine_slots(machine.id)) == slots
            assert await self.redis.smembers(keys.machine_files(machine.id)) == {w.id for w in here}
            assert len(slots) <= machine.slots
            assert (machine.empty_since_ms == 0) == bool(slots), machine
        leftover = [key async for key in self.redis.scan_iter("machine:*:*")]
        assert {key.split(":")[1] for key in leftover} <= machines.keys()

    async def _check_epochs(self, records: dict[str, Workspace]) -> None:
        for workspace in records.values():
            assert workspace.epoch >= self.epochs.get(workspace.id, 0), "an epoch went back"
            self.epochs[workspace.id] = workspace.epoch

    async def _check_usage(self, records: dict[str, Workspace]) -> None:
        for workspace in records.values():
            assert (workspace.running_since_ms > 0) == (workspace.status is W.RUNNING)
            assert (workspace.stored_since_ms > 0) == (workspace.status is not W.RUNNING)
        by_workspace: dict[str, list[Row]] = {}
        for row in await self.metered():
            by_workspace.setdefault(row[0], []).append(row)
        for rows in by_workspace.values():
            assert all(start <= end for _, _, start, end, *_ in rows)
            boots = [row[1] for row in rows if row[4] == "running"]
            assert len(set(boots)) == len(boots), "one boot was metered twice"
            for before, after in pairwise(rows):
                assert before[3] <= after[2], "metered intervals overlap"

    async def check_tiles(self) -> None:
        """Of every workspace that there is, each millisecond since its creation is in one interval."""
        rows = await self.metered()
        for workspace in (await self._records()).values():
            reached = workspace.created_at_ms
            for _, _, start, end, *_ in (row for row in rows if row[0] == workspace.id):
                if end > workspace.created_at_ms:  # not of a life before
                    assert start == reached, "a gap between two intervals, or both count the same"
                    reached = end
            assert reached == workspace.running_since_ms + workspace.stored_since_ms

    async def check_sums(self) -> None:
        """The sums of everybody are those of their intervals."""
        now = await self.store.now_ms()
        going_on = [row for w in (await self._records()).values() if (row := open_interval(w))]
        ended = [Interval(*row) for row in await self.metered()]
        wanted: dict[tuple[str, str], int] = {}
        for one in pieces([*going_on, *ended], now, month_window(month_of(now))):
            what = (one.kind, one.machine_class)
            size = one.bytes if one.kind == STORED else 1
            wanted[what] = wanted.get(what, 0) + one.milliseconds * size
        found = await self.usage.totals(now)
        # Redis multiplies in floating point: a hundredth of a millisecond of the largest is allowed.
        most = max([1, *(row.bytes for row in [*going_on, *ended])]) / 100
        amounts = {row[:2]: row.amount for row in found}
        for what in {*amounts, *wanted}:
            assert abs(amounts.get(what, 0) - wanted.get(what, 0)) <= most, what
        sizes = {
            row.kind: sum(each.size for each in found if each.kind == row.kind) for row in found
        }
        stored = sum(row.bytes for row in going_on if row.kind == STORED)
        assert sizes.get(STORED, 0) == stored
        assert sizes.get(RUNNING, 0) == sum(row.kind == RUNNING for row in going_on)

    async def check_story(self) -> None:
        """The events alone are a walk through the tables."""
        at: dict[str, WorkspaceStatus] = {}
        statuses = {f"workspace.{status}": status for status in W}
        runs = ends = 0
        for event in await self.signals.history("0-0", 100_000):
            workspace = event.data.get("workspace", "")
            if event.type == "workspace.created":
                at[workspace] = W.STOPPED
            elif event.type in statuses:
                new = statuses[event.type]
                assert new in WORKSPACE_TRANSITIONS[at[workspace]], (at[workspace], new)
                runs += new is W.RUNNING
                ends += at[workspace] is W.RUNNING
                at[workspace] = new
            elif event.type == "workspace.deleted":
                assert at.pop(workspace) is W.TERMINATED
        assert at == {w.id: w.status for w in (await self._records()).values()}
        assert len([row for row in await self.metered() if row[4] == "running"]) == ends
        await self.check_tiles()
        await self.check_sums()
        assert runs - ends == sum(status is W.RUNNING for status in at.values())
