"""Workspaces' records in Redis, each change of them kept in records that outlast it.

A change is made in Redis by the same scripts as ever, with a stamp and noted as pending; then it is kept,
and only then does the verb return. What could not be kept is settled later by whoever leads; before an
agent is asked for anything that cannot be taken back, secure() makes sure of it.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from functools import partial
from itertools import islice
from typing import TypeVar, Unpack, cast

import structlog
from redis.asyncio import Redis

from lifecycle.agent.contract import WorkspaceReport
from lifecycle.identifiers import workspace_id_for
from lifecycle.model import Workspace, WorkspaceStatus
from lifecycle.stores import Conflict, StoreUnavailable, keys, scripts
from lifecycle.stores.connection import asked
from lifecycle.stores.records import DELETED, Record, Records, Succession, remembers, succession
from lifecycle.stores.redis import RedisStore, StoreBounds

log = structlog.get_logger(__name__)

T = TypeVar("T")

RACES = 10  # times that others may be faster before a change is left pending
AT_ONCE = 32  # records on their way at the same time
A_TURN = 512  # records settled in one turn of the loops


class Restored(Conflict):
    """Redis had lost changes: the record is again as it was kept, and what was asked for is not done."""


class RecordedStore(RedisStore):
    def __init__(self, redis: Redis, records: Records, **bounds: Unpack[StoreBounds]) -> None:
        super().__init__(redis, **bounds)
        self._records = records
        self._away = False

    async def open(self) -> None:
        await self._records.open()
        await self._durable()

    async def close(self) -> None:
        await self._records.close()

    # What people ask for: also of a record that Redis has lost.

    async def ensure(
        self,
        user_id: str,
        name: str = "",
        *,
        plan: str = "default",
        priority: str = "normal",
        region: str = "local",
    ) -> tuple[Workspace, bool]:
        ask = partial(super().ensure, user_id, name, plan=plan, priority=priority, region=region)
        return await self._again(workspace_id_for(user_id, name), ask)

    async def get(self, workspace_id: str) -> Workspace | None:
        found = await super().get(workspace_id)
        if found is not None or await self._rebuilt():
            return found
        theirs = await self._records.get(workspace_id)
        if theirs is not None:
            await self._restore(theirs, None)
        return await super().get(workspace_id)

    async def wake(self, workspace_id: str, priority: str = "") -> Workspace:
        return await self._again(workspace_id, partial(super().wake, workspace_id, priority))

    async def stop(self, workspace_id: str, reason: str, then: str = "") -> Workspace:
        return await self._again(workspace_id, partial(super().stop, workspace_id, reason, then))

    async def extend(self, workspace_id: str, seconds: float) -> Workspace:
        return await self._again(workspace_id, partial(super().extend, workspace_id, seconds))

    async def _again(self, workspace_id: str, ask: Callable[[], Awaitable[T]]) -> T:
        """People ask for something, whatever state it is in: it is asked of the restored record too."""
        await self.get(workspace_id)
        try:
            return await ask()
        except Restored:
            return await ask()

    # What the loops found out: they look again at a record that was restored.

    async def note(self, workspace: Workspace, event: str, fields: Mapping[str, str]) -> bool:
        try:
            return await super().note(workspace, event, fields)
        except Restored:
            return False

    async def job(self, workspace: Workspace, job: str) -> bool:
        try:
            return await super().job(workspace, job)
        except Restored:
            return False

    async def adopt(self, machine_id: str, row: WorkspaceReport, address: str) -> str:
        try:
            return await super().adopt(machine_id, row, address)
        except Restored:
            return "restored"

    # Keeping

    async def _keep(self, workspace_id: str, stamp: str) -> None:
        if stamp:
            await self._bring_together(workspace_id, int(stamp))

    async def secure(self, workspace: Workspace) -> None:
        ours = await self._bring_together(workspace.id)
        if ours is not None and ours.epoch < workspace.epoch:
            raise Conflict(f"Redis has lost boot {workspace.epoch} of {workspace.id}", ours.status)

    async def _bring_together(self, workspace_id: str, stamp: int = 0) -> Record | None:
        """Keep the record that Redis has, or restore the kept one where Redis has lost changes, the one
        with that stamp among them. Returns what both are now. Raises Restored, StoreUnavailable."""
        for _ in range(RACES):
            theirs = await self._records.get(workspace_id)
            ours, trail = await self._ours(workspace_id)
            step = succession(theirs, ours, trail, scripts.TRAIL)
            if step is Succession.RESTORE and theirs is not None:
                if await self._restore(theirs, ours):
                    log.warning("workspace.restored", workspace=workspace_id, status=theirs.status)
                    raise _lost(workspace_id, theirs.status)
                continue
            kept_already = theirs is not None and theirs.stamp == stamp
            if stamp and not kept_already and not remembers(trail, stamp, scripts.TRAIL):
                raise _lost(workspace_id, ours.status if ours else "")
            write = step is Succession.WRITE and ours is not None
            if write and not await self._records.put(cast(Record, ours), theirs):
                continue  # somebody was faster, or it is there and only the answer was lost
            await self._scripts.run(scripts.KEPT, workspace_id, ours.stamp if ours else 0)
            return ours
        raise StoreUnavailable(f"{self._records.name} takes no change of {workspace_id} in turn")

    async def _ours(self, workspace_id: str) -> tuple[Record | None, list[int]]:
        """What Redis has of it, perhaps only that it was deleted, and the stamps that led there."""
        async with self.redis.pipeline(transaction=True) as pipe:
            pipe.hgetall(keys.workspace(workspace_id))
            pipe.hgetall(keys.deleted(workspace_id))
            live, left = await asked(pipe.execute())
        row = live or left
        if not row:
            return None, []
        trail = [int(one) for one in row.pop("trail", "").split()]
        return Record.of({"stamp": "0"} | row), trail

    async def _restore(self, theirs: Record, ours: Record | None) -> bool:
        """Put theirs in the place of ours; False when Redis has another one by now."""
        replaced = str(ours.stamp or "") if ours and ours.status != DELETED else "gone"
        return bool(
            await self._scripts.run(
                scripts.RESTORE, theirs.workspace_id, replaced, json.dumps(theirs.row())
            )
        )

    async def settle(self) -> int:
        waiting: list[str] = await asked(self.redis.srandmember(keys.PENDING, A_TURN))
        for some in batches(waiting, AT_ONCE):
            keep = (self._bring_together(workspace_id) for workspace_id in some)
            outcomes = await asyncio.gather(*keep, return_exceptions=True)
            failed = [one for one in outcomes if isinstance(one, BaseException)]
            failed = [one for one in failed if not isinstance(one, Restored)]
            self._tell_of(failed[0] if failed else None)
            if failed:
                break
        return int(await asked(self.redis.scard(keys.PENDING))) if waiting else 0

    def _tell_of(self, failed: BaseException | None) -> None:
        """Once, not every turn. What is no outage is raised."""
        if failed is not None and not isinstance(failed, StoreUnavailable):
            raise failed
        if (failed is not None) is not self._away:
            self._away = failed is not None
            if failed is None:
                log.info("records.back", records=self._records.name)
            else:
                log.warning("records.away", records=self._records.name, why=str(failed))

    # After a loss of everything

    async def rebuild(self) -> int:
        if await self._rebuilt():
            return 0
        durable = await self._durable()
        restored: set[str] = set()
        async for page in pages(self._records.scan(), AT_ONCE):
            done = await asyncio.gather(*(self._restore(record, None) for record in page))
            restored |= {record.workspace_id for record, put in zip(page, done, strict=True) if put}
        there = await self.ids(tuple(WorkspaceStatus))
        await self._pend(one for one in there if one not in restored)
        count = len(restored.intersection(there))
        if not await self._scripts.run(scripts.REBUILT, durable, self._records.name, count):
            raise StoreUnavailable("Redis lost its data while it was rebuilt; once more")
        if count:
            log.warning("store.rebuilt", records=self._records.name, restored=count)
        return count

    async def _pend(self, workspace_ids: Iterable[str]) -> None:
        """Redis has them, and what is kept of them may be older, or nothing: settle() finds out."""
        for some in batches(workspace_ids, A_TURN):
            await self._scripts.run(scripts.PEND, *some)

    async def _rebuilt(self) -> bool:
        return bool(await asked(self.redis.get(keys.REBUILT)) == self._records.name)

    async def _durable(self) -> str:
        """From now on every change is noted as pending; a token that this Redis has until it is empty."""
        await asked(self.redis.set(keys.DURABLE, secrets.token_hex(8), nx=True))
        return str(await asked(self.redis.get(keys.DURABLE)))


def _lost(workspace_id: str, status: str) -> Restored:
    return Restored(f"Redis had lost changes of workspace {workspace_id}: look again", status)


def batches(rows: Iterable[str], size: int) -> Iterable[list[str]]:
    left = iter(rows)
    while some := list(islice(left, size)):
        yield some


async def pages(records: AsyncIterator[Record], size: int) -> AsyncIterator[list[Record]]:
    page: list[Record] = []
    async for record in records:
        page.append(record)
        if len(page) == size:
            yield page
            page = []
    if page:
        yield page
