"""Machines that nobody needs are emptied: what nobody is connected to moves to machines in use.

A machine drains first, so that nothing new comes to it and what left it does not go back; then each of its workspaces is
asked to stop and to start again, in one step with the look that nobody is there. Should somebody come back before, or
files not get away, the machine is ready again. All of it follows from the records, so whoever leads next goes on where one died.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Sequence

import structlog

from lifecycle.defragment import movable, moves, went_back
from lifecycle.model import Machine, MachineStatus, Workspace, WorkspaceStatus
from lifecycle.moving import MOVING
from lifecycle.placement import takes_work
from lifecycle.plans import KINDS
from lifecycle.stores import Conflict
from lifecycle.stores.fleet import RedisFleet
from lifecycle.stores.redis import RedisStore
from lifecycle.stores.signals import RedisSignals
from lifecycle.sweeps import LATE_GATEWAY, SILENT_GATEWAY

log = structlog.get_logger(__name__)

_W, _M = WorkspaceStatus, MachineStatus

EVERY = 10.0  # seconds between two looks for what can move
QUIET_MAX = 1000  # that may move, of one look: those that were seen least lately are enough
LOOKED_AT_MAX = 10_000
"""Workspaces read for them. Those that stay where they are stand before the others for as long as they run: who is
connected and does nothing, who is pinned."""
EMPTIED = "emptied: what runs there moves to machines in use"
"""Reason of a machine's drain."""
CAME_BACK = "somebody came back to it"
REASON = MOVING + "its machine is not needed any more"
"""Reason of a workspace's stop."""


class Emptying:
    def __init__(
        self, store: RedisStore, fleet: RedisFleet, signals: RedisSignals, move_after: float
    ) -> None:
        """move_after: seconds without a session, and without activity; 0: nothing moves."""
        self._store, self._fleet, self._signals = store, fleet, signals
        self._after_ms = int(move_after * 1000)
        self._not_before = float("-inf")

    async def tick(self, spare: int, machines: Sequence[Machine], now_ms: int) -> None:
        """spare: machines beyond what is wanted. machines: all there are."""
        # Nobody runs on the others any more: what is left there are files, and they are no concern of this.
        begun = [
            m for m in machines if m.status is _M.DRAINING and m.reason == EMPTIED and m.occupied
        ]
        at = asyncio.get_running_loop().time()
        if not begun and (not self._after_ms or spare <= 0 or at < self._not_before):
            return
        self._not_before = at + EVERY
        sessions = await self._sessions(now_ms)
        for machine in begun:
            await self._go_on(machine, sessions, now_ms)
        spare -= sum(1 for m in machines if takes_work(m) and not m.occupied)  # given back anyway
        if begun or spare <= 0 or sessions is None:
            return
        quiet = await self._quiet(sessions, now_ms)
        reasons = {m.id: m.reason for m in machines}
        by_machine = defaultdict(list)
        for one in quiet.values():
            if not went_back(one, reasons.get(one.machine_id, "")):
                by_machine[one.machine_id].append(one.id)
        wanted = dict.fromkeys(m.machine_id for m in moves(spare, machines, by_machine))
        for machine in [m for m in machines if m.id in wanted]:
            await self._empty(machine, [quiet[each] for each in by_machine[machine.id]])

    async def _sessions(self, now_ms: int) -> Counter[str] | None:
        """Workspace → its open sessions; None while it is not known who is there, or nothing is to move."""
        gateways, trusted = await self._signals.gateways(), await self._signals.trusted_since_ms()
        late = any(LATE_GATEWAY * 1000 <= now_ms - at < SILENT_GATEWAY * 1000 for at in gateways.values())  # fmt: skip
        if not self._after_ms or late or trusted is None or trusted > now_ms - self._after_ms:
            return None
        sessions: Counter[str] = Counter()
        for gateway in gateways:
            sessions.update(await self._signals.connections(gateway))
        return sessions

    async def _quiet(self, sessions: Counter[str], now_ms: int) -> dict[str, Workspace]:
        """Those that may move, but for few beyond QUIET_MAX."""
        ids = await self._store.not_seen_since(now_ms - self._after_ms, LOOKED_AT_MAX)
        quiet: dict[str, Workspace] = {}
        for start in range(0, len(ids), QUIET_MAX):
            found = await self._store.get_many(ids[start : start + QUIET_MAX])
            quiet |= {w.id: w for w in found if self._may_move(w, sessions, now_ms)}
            if len(quiet) >= QUIET_MAX:
                break
        return quiet

    def _may_move(self, one: Workspace, sessions: Counter[str], now_ms: int) -> bool:
        return movable(one, sessions[one.id], now_ms - self._after_ms, now_ms)

    async def _empty(self, machine: Machine, workspaces: Sequence[Workspace]) -> None:
        try:
            await self._fleet.change(machine, _M.DRAINING, reason=EMPTIED)
        except Conflict as conflict:
            log.info("machine.overtaken", machine=machine.id, why=str(conflict))
            return
        log.info("machine.emptied", machine=machine.id, workspaces=[w.id for w in workspaces])
        for workspace in workspaces:
            if not await self._move(workspace):
                await self._ready_again(machine.id, CAME_BACK)
                return

    async def _go_on(self, machine: Machine, sessions: Counter[str] | None, now_ms: int) -> None:
        """With one whose emptying was begun: move what has yet to, or let it work on."""
        for one in await self._store.get_many(await self._fleet.files_on(machine.id)):
            if one.status not in (_W.STARTING, _W.RUNNING):
                continue
            quiet = sessions is not None and self._may_move(one, sessions, now_ms)
            if not quiet or not await self._move(one):
                await self._ready_again(machine.id, CAME_BACK)
                return

    async def _move(self, one: Workspace) -> bool:
        """Unless anybody has come back to it."""
        seen = {kind: one.seen.get(kind, 0) for kind in (*KINDS, "boot")}
        fields = {"reason": REASON, "next": "start", "step": ""}
        try:
            stopping = await self._store.change(
                one, _W.STOPPING, fields=fields, unless_seen=seen,
                unless_extended_ms=one.extend_until_ms, unless_connected=True,
            )  # fmt: skip
        except Conflict as conflict:
            log.info("move.overtaken", workspace=one.id, why=str(conflict))
            return False
        said = {"workspace": one.id, "user": one.user_id, "machine": one.machine_id}
        said |= {"epoch": str(stopping.epoch), "reason": REASON}
        await self._signals.tell("workspace.moving", said)
        return True

    async def _ready_again(self, machine_id: str, why: str) -> None:
        machine = await self._fleet.machine(machine_id)
        if machine is None or machine.status is not _M.DRAINING or machine.held_by:
            return
        if machine.doomed_at_ms:
            return
        try:
            await self._fleet.change(machine, _M.READY, reason=why)
        except Conflict as conflict:
            log.info("machine.overtaken", machine=machine_id, why=str(conflict))
