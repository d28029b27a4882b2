"""Sweeps: what has been silent, idle or asleep for too long, and whether the clock can be believed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from lifecycle import policy
from lifecycle.model import Workspace, WorkspaceStatus
from lifecycle.notices import STAYS, STOPPING_SOON, TERMINATING_SOON, Teller, words
from lifecycle.plans import Policy
from lifecycle.stores import Conflict, LimitReached
from lifecycle.stores.fleet import RedisFleet
from lifecycle.stores.redis import RedisStore
from lifecycle.stores.signals import RedisSignals
from lifecycle.ticks import Times

log = structlog.get_logger(__name__)

_W = WorkspaceStatus

SILENT_AGENT = 15.0  # seconds without a report: what happens on that machine is unknown
LATE_GATEWAY = 2.5  # seconds without a flush, one a second being due: it has something to tell
SILENT_GATEWAY = 10.0  # seconds without a flush: what happens on that gateway is unknown
GATEWAY_FORGOTTEN = 3600.0
DUE_MAX = 500  # looks of one turn; the others come with the next
_NOTHING = policy.Facts(None)
CLOCK_JUMP = 5.0  # seconds Redis's clock may differ from our own progress before it is strange


class Sweeps:
    def __init__(
        self,
        store: RedisStore,
        fleet: RedisFleet,
        signals: RedisSignals,
        times: Times,
        policy_of: Callable[[Workspace], Policy] | None = None,
        teller: Teller | None = None,
    ) -> None:
        """policy_of: what holds for a workspace; the times' if left out. teller: writes notices down."""
        self._policy_of, self._teller = policy_of or _policy_from(times), teller
        self._store, self._fleet, self._signals, self._times = store, fleet, signals, times
        self._last_look: tuple[float, int] | None = None

    def forget(self) -> None:
        """Somebody else led meanwhile: the next look at the clock is a first one."""
        self._last_look = None

    async def look(self) -> None:
        """Look at every workspace that is due: stop, warn, terminate or start it, and say when to look
        again. O(log n + what is due)."""
        now = await self._store.now_ms()
        due = await self._store.due(now, DUE_MAX)
        if not due:
            return
        found = {one.id: one for one in await self._store.get_many(due)}
        running = [one for one in found.values() if one.status is _W.RUNNING]
        facts = await self._facts(running, now) if running else {}
        looks = {
            each.id: policy.look(each, self._policy_of(each), facts.get(each.id, _NOTHING), now)
            for each in found.values()
        }
        # Before anything is done: a change of status makes it due once more.
        await self._store.schedule(
            {
                each: (seen, looks[each].next_ms if each in looks else None)
                for each, seen in due.items()
            }
        )
        for each in looks.values():
            for command in each.commands:
                await self._do(command)

    async def _facts(self, running: list[Workspace], now: int) -> dict[str, policy.Facts]:
        trusted, unheard = await self._signals.trusted_since_ms(), await self._unheard(now)
        late = await self._one_is_late(now)
        silent = {
            machine_id: await self._is_silent(machine_id, now)
            for machine_id in {each.machine_id for each in running}
        }
        return {
            each.id: policy.Facts(trusted, unheard.get(each.id, 0), silent[each.machine_id], late)
            for each in running
        }

    async def _is_silent(self, machine_id: str, now: int) -> bool:
        machine = await self._fleet.machine(machine_id)
        return machine is None or now - machine.last_report_ms >= SILENT_AGENT * 1000

    async def _do(self, command: policy.Command) -> None:
        workspace = command.workspace
        try:
            match command:
                case policy.Stop():
                    await self._store.change(
                        workspace,
                        _W.STOPPING,
                        fields={"reason": command.reason},
                        unless_seen=command.unless_seen,
                        unless_extended_ms=command.unless_extended_ms,
                    )
                case policy.Warn():
                    await self._warn(command)
                case policy.Stays():
                    if await self._store.warned(workspace, 0):
                        key = f"stays/{workspace.epoch}/{workspace.warned_ms}"
                        await self._tell(workspace, STAYS, key, words.stays(workspace), {})
                case policy.Terminate():
                    await self._store.change(
                        workspace, _W.TERMINATING, fields={"reason": command.reason}
                    )
                case policy.WarnEnd():
                    key = f"end/{workspace.epoch}/{command.at_ms}/{command.lead:g}"
                    text = words.terminating_soon(workspace, command.lead)
                    data = {"at": str(command.at_ms), "lead": f"{command.lead:g}"}
                    await self._tell(workspace, TERMINATING_SOON, key, text, data)
                case policy.Start():
                    await self._store.wake(workspace.id)
        except Conflict as conflict:
            log.info("look.overtaken", workspace=workspace.id, why=str(conflict))
        except LimitReached as limit:
            log.warning("autostart.refused", workspace=workspace.id, why=str(limit))

    async def _warn(self, warn: policy.Warn) -> None:
        workspace = warn.workspace
        if workspace.warned_ms != warn.at_ms and not await self._store.warned(
            workspace, warn.at_ms
        ):
            return
        key = f"stop/{workspace.epoch}/{warn.at_ms}/{warn.lead:g}"
        reason = policy.reason_of(workspace, self._policy_of(workspace), warn.bound)
        data = {
            "at": str(warn.at_ms), "lead": f"{warn.lead:g}", "reason": reason,
            "canStay": "" if warn.bound.hard else "1",
        }  # fmt: skip
        counting = {"boot", *self._policy_of(workspace).signals}
        last_ms = max((workspace.seen.get(kind, 0) for kind in counting), default=0)
        quiet = (warn.at_ms - last_ms) / 1000 - warn.lead if last_ms else 0
        text = words.stopping_soon(workspace, reason, warn.lead, quiet)
        await self._tell(workspace, STOPPING_SOON, key, text, data)

    async def _tell(
        self, workspace: Workspace, type: str, key: str, text: str, data: dict[str, str]
    ) -> None:
        if self._teller is not None:
            await self._teller.tell(workspace, type, key, text, data)

    async def repair(self) -> None:
        """Whatever should be looked at and is on no list: records of before there was one."""
        if lost := await self._store.put_on_due():
            log.warning("looks.repaired", workspaces=lost)

    async def _unheard(self, now: int) -> dict[str, int]:
        """Workspace → last word of a silent gateway that holds sessions of it."""
        unheard: dict[str, int] = {}
        for gateway, seen in (await self._signals.gateways()).items():
            if now - seen < SILENT_GATEWAY * 1000:
                continue
            for workspace in await self._signals.connections(gateway):
                unheard[workspace] = max(seen, unheard.get(workspace, 0))
        return unheard

    async def _one_is_late(self, now: int) -> bool:
        """Whether a gateway has yet to tell what it saw, as all of them have after Redis was away for
        a moment. Sessions that were opened meanwhile are not even known of."""
        seen = (await self._signals.gateways()).values()
        return any(LATE_GATEWAY * 1000 <= now - at < SILENT_GATEWAY * 1000 for at in seen)

    async def sessions(self) -> None:
        """Evict sessions without a heartbeat; forget gateways that never came back."""
        now = await self._store.now_ms()
        timeout = self._times.session_timeout
        quiet = await self._signals.sessions_seen_before(now - int(timeout * 1000))
        trusted = await self._signals.trusted_since_ms()
        if quiet and await self._one_is_late(now):
            quiet = []
        for evict in policy.evict_sessions(quiet, now, timeout, trusted):
            await self._signals.evict(evict.member, evict.unless_seen_since_ms, evict.reason)
        for gateway, seen in (await self._signals.gateways()).items():
            if now - seen > max(GATEWAY_FORGOTTEN, 2 * self._times.idle_timeout) * 1000:
                await self._signals.forget_gateway(gateway, seen)

    async def clock(self) -> None:
        """Redis's clock against our own progress: after a jump, idleness is counted anew."""
        loop = asyncio.get_running_loop()
        mine, theirs = loop.time(), await self._store.now_ms()
        last, self._last_look = self._last_look, (mine, theirs)
        if last is not None:
            jump = (theirs - last[1]) / 1000 - (mine - last[0])
            if abs(jump) > CLOCK_JUMP:
                log.warning("clock.jumped", seconds=round(jump, 1))
                await self._signals.distrust(f"Redis's clock jumped by {jump:.0f} s")


def _policy_from(times: Times) -> Callable[[Workspace], Policy]:
    everywhere = Policy(idle_timeout=times.idle_timeout, retention=times.retention)
    return lambda workspace: everywhere
