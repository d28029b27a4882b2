"""Machines that the pool takes back: notices come in, what lies there moves elsewhere in time, or is said to be lost.

Nothing here stops, snapshots or boots: a doomed machine drains, its workspaces are asked to stop and to
start again, and the loops do with them what they always do. The deadline is in the machine's record, so
whoever leads next goes on with it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from lifecycle import moving
from lifecycle.cloud_events import Kind
from lifecycle.model import Machine, MachineStatus, Workspace, WorkspaceStatus
from lifecycle.stores import Conflict
from lifecycle.stores.fleet import RedisFleet
from lifecycle.stores.redis import RedisStore
from lifecycle.stores.signals import RedisSignals

log = structlog.get_logger(__name__)

_W = WorkspaceStatus

FRESH = 1.0  # seconds that the fleet is believed to be as it was, for what only hurries the loops

_BEFORE_FAILED: dict[WorkspaceStatus, tuple[WorkspaceStatus, ...]] = {
    # The tables know no way from asleep to failed, for nothing fails in its sleep; only its disk does.
    _W.STOPPED: (_W.QUEUED,),
    _W.TERMINATING: (_W.STOPPED, _W.QUEUED),
}


@dataclass(slots=True)
class _Leaving:
    """A doomed machine, as long as it has a record. told: that it was emptied. failed: something was not
    moved in time."""

    since_ms: int
    told: bool = False
    failed: bool = False


class Evacuation:
    def __init__(
        self,
        store: RedisStore,
        fleet: RedisFleet,
        signals: RedisSignals,
        hurry: Callable[[], None] = lambda: None,
    ) -> None:
        """hurry: wake the loops."""
        self._store, self._fleet, self._signals, self._hurry = store, fleet, signals, hurry
        self._leaving: dict[str, _Leaving] = {}
        self._machines: list[Machine] = []
        self._read_at = float("-inf")
        self._turn = asyncio.Lock()
        # (workspace, machine) → its newest snapshot when it was given up; gone with the machine.
        self._given_up: dict[tuple[str, str], str] = {}

    async def notice(self, kind: str, instance_or_machine: str, at_ms: int, detail: str) -> None:
        """Something was said of a machine, by its own id or by the pool's name for it; any gateway may
        hear it. kind: of cloud_events.Kind. Repeating one changes nothing. Raises StoreError."""
        machine = await self._find(instance_or_machine, kind in (Kind.CHANGED, Kind.SCALED))
        if machine is None and kind != Kind.SCALED:
            # An account has other instances, too.
            log.debug("notice.of_no_machine", instance=instance_or_machine, kind=kind)
        elif machine is None or kind in (Kind.CHANGED, Kind.SCALED):
            log.info("machine.changed", instance=instance_or_machine, why=detail)
            self._hurry()
        else:
            at_ms = moving.NO_DEADLINE_MS if kind == Kind.REBALANCE else at_ms
            await self._doom(machine, at_ms, await self._store.now_ms(), detail)

    async def leaving(self, machine: Machine, reason: str) -> None:
        """The pool itself says that it is about to take the machine away, and not when. Raises StoreError."""
        now = await self._store.now_ms()
        await self._doom(machine, now + moving.LEAVING_MS, now, reason)

    async def _doom(self, machine: Machine, at_ms: int, now: int, reason: str) -> None:
        until = moving.deadline(machine, at_ms, now)
        if until is None:
            log.debug("notice.changes_nothing", machine=machine.id, why=reason)
            return
        log.warning("machine.doomed", machine=machine.id, until=moving.clock(until), why=reason)
        await self._fleet.doom(machine, until, reason)
        self._hurry()

    async def _find(self, named: str, lately: bool) -> Machine | None:
        """lately: as of a moment ago will do. An account's other instances change as often as ours, and
        each look reads the whole fleet."""
        now = asyncio.get_running_loop().time()
        if not lately or now >= self._read_at + FRESH:
            self._machines, self._read_at = await self._fleet.machines(), now
        mine = (
            m for m in self._machines if m.id == named or moving.same_instance(m.instance, named)
        )
        return next(mine, None)

    async def tick(self, machines: Sequence[Machine]) -> None:
        """Ask what runs on doomed machines to move, and watch their deadlines. machines: all there are.

        Two loops call it, one turn at a time: what one of them gave up the other does not give up again."""
        async with self._turn:
            await self._tick(machines)

    async def _tick(self, machines: Sequence[Machine]) -> None:
        doomed = [machine for machine in machines if machine.doomed_at_ms]
        if not doomed and not self._leaving:
            return
        now = await self._store.now_ms()
        sessions = await self._sessions()
        for machine in doomed:
            self._leaving.setdefault(machine.id, _Leaving(now))
            if machine.status is MachineStatus.READY:  # it came up, or back, only now: drain it
                await self._fleet.doom(machine, machine.doomed_at_ms, machine.reason)
            files = await self._store.get_many(await self._fleet.files_on(machine.id))
            for step in moving.steps(machine, files, sessions, now):
                await self._take(step)
        await self._tell_saved()
        await self._tell_emptied({machine.id: machine for machine in machines}, now)

    async def _sessions(self) -> Counter[str]:
        """Workspace → open sessions, on all gateways."""
        found: Counter[str] = Counter()
        for gateway in await self._signals.gateways():
            found.update(await self._signals.connections(gateway))
        return found

    async def _take(self, step: moving.Step) -> None:
        try:
            if isinstance(step, moving.Move):
                await self._move(step)
            elif isinstance(step, moving.Explain):
                one = step.workspace
                await self._store.note(one, "workspace.progress", {"reason": step.reason})
            elif (step.workspace.id, step.machine.id) not in self._given_up:
                await self._give_up(step)
        except Conflict as conflict:
            log.info("move.overtaken", workspace=step.workspace.id, why=str(conflict))

    async def _move(self, step: moving.Move) -> None:
        one, until = step.workspace, step.machine.doomed_at_ms
        fields = {"reason": step.reason, "next": "start", "step": ""}
        stopping = await self._store.change(one, _W.STOPPING, fields=fields)
        await self._tell("workspace.moving", stopping, reason=step.reason, until=str(until))

    async def _give_up(self, step: moving.GiveUp) -> None:
        """Told in the step that writes the error's code: whoever finds it without is to tell it."""
        one = step.workspace
        log.error("move.failed", workspace=one.id, machine=step.machine.id, why=step.message)
        if one.status is not _W.FAILED:
            fields = {"error": step.message, "errorCode": "machine_lost", "reason": "machine_lost"}
            fields |= {"address": ""}
            chain = _BEFORE_FAILED.get(one.status, ())
            one = await self._store.change(one, _W.FAILED, fields=fields, chain=chain)
        failed = {"error": step.message, "errorCode": moving.LOST, "reason": step.message}
        if await self._store.note(one, "workspace.move_failed", failed):
            self._given_up[one.id, step.machine.id] = one.snapshot_id
            self._leaving[step.machine.id].failed = True

    async def _tell_saved(self) -> None:
        """What was given up and got away after all, for its machine stayed longer than was said."""
        for (workspace_id, machine_id), snapshot_id in list(self._given_up.items()):
            one = await self._store.get(workspace_id)
            if one is not None and one.machine_id == machine_id:
                continue
            del self._given_up[workspace_id, machine_id]
            words = moving.saved_late(one, snapshot_id) if one is not None else ""
            if one is not None and words:
                await self._store.note(one, "workspace.saved", {"error": words, "reason": words})

    async def _tell_emptied(self, machines: dict[str, Machine], now: int) -> None:
        """The loops remove an empty machine at once: one that is gone was emptied, unless something on it
        was given up."""
        for machine_id, leaving in list(self._leaving.items()):
            machine = machines.get(machine_id)
            if machine is not None and not moving.emptied(machine):
                continue
            if not (leaving.told or leaving.failed):
                leaving.told = True
                seconds = f"{max(0, now - leaving.since_ms) / 1000:.1f}"
                fields = {"machine": machine_id, "seconds": seconds}
                await self._signals.tell("machine.evacuated", fields)
            if machine is None:
                del self._leaving[machine_id]

    async def _tell(self, kind: str, one: Workspace, **more: str) -> None:
        said = {"workspace": one.id, "user": one.user_id, "machine": one.machine_id}
        await self._signals.tell(kind, said | {"epoch": str(one.epoch)} | more)
