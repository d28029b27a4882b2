"""Sweeps: what has been silent, idle or asleep for too long, and whether the clock can be believed."""

from __future__ import annotations

import asyncio

import structlog

from lifecycle import policy
from lifecycle.activity import COUNTING
from lifecycle.model import WorkspaceStatus
from lifecycle.stores import Conflict
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
CLOCK_JUMP = 5.0  # seconds Redis's clock may differ from our own progress before it is strange


class Sweeps:
    def __init__(
        self, store: RedisStore, fleet: RedisFleet, signals: RedisSignals, times: Times
    ) -> None:
        self._store, self._fleet, self._signals, self._times = store, fleet, signals, times
        self._last_look: tuple[float, int] | None = None

    def forget(self) -> None:
        """Somebody else led meanwhile: the next look at the clock is a first one."""
        self._last_look = None

    async def idle(self) -> None:
        """Stop what has been idle for the idle timeout."""
        now = await self._store.now_ms()
        due = await self._store.idle_since(now - int(self._times.idle_timeout * 1000))
        if not due or await self._one_is_late(now):
            return
        silent = {
            machine.id
            for machine in await self._fleet.machines()
            if now - machine.last_report_ms >= SILENT_AGENT * 1000
        }
        for stop in policy.stop_idle(
            due,
            now,
            self._times.idle_timeout,
            await self._signals.trusted_since_ms(),
            await self._unheard(now),
            silent,
        ):
            try:
                await self._store.change(
                    stop.workspace,
                    _W.STOPPING,
                    fields={"reason": stop.reason},
                    unless_seen=dict.fromkeys(COUNTING, stop.unless_active_since_ms),
                    unless_extended_ms=now,
                )
            except Conflict as conflict:
                log.info("stop.called_off", workspace=stop.workspace.id, why=str(conflict))

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

    async def retention(self) -> None:
        """Terminate what has been stopped or failed for the retention."""
        now = await self._store.now_ms()
        before = now - int(self._times.retention * 1000)
        due = await self._store.in_status_since(_W.STOPPED, before)
        due += await self._store.in_status_since(_W.FAILED, before)
        for terminate in policy.terminate_stale(due, now, self._times.retention):
            try:
                await self._store.change(
                    terminate.workspace, _W.TERMINATING, fields={"reason": terminate.reason}
                )
            except Conflict as conflict:
                log.info("terminate.called_off", why=str(conflict))

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
