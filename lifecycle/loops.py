"""The loops: observe, decide, act. Whoever holds the lease runs them; everything may run twice.

Three clocks: every event wakes the work on what was asked for; every `scale_interval` the pool is
compared with its records and sized (machines.py); the sweeps run at their own intervals (sweeps.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

import structlog

from lifecycle import reconcile
from lifecycle.actions import Actions, Agents
from lifecycle.errands import Errands
from lifecycle.machines import Machines
from lifecycle.model import Event, Machine, MachineStatus, Workspace, WorkspaceStatus
from lifecycle.news import News
from lifecycle.placement import Detach, Place, place
from lifecycle.pools import Pool
from lifecycle.stores import StoreError
from lifecycle.stores.fleet import RedisFleet
from lifecycle.stores.redis import RedisStore
from lifecycle.stores.signals import RedisSignals
from lifecycle.sweeps import Sweeps
from lifecycle.ticks import Times, every

log = structlog.get_logger(__name__)

_W = WorkspaceStatus
_M = MachineStatus

GREET_TICK = 0.1  # somebody may be waiting for a machine that was just launched
CLOCK_TICK = 1.0


class Loops:
    def __init__(
        self,
        store: RedisStore,
        fleet: RedisFleet,
        signals: RedisSignals,
        news: News,
        pool: Pool,
        agents: Agents,
        actions: Actions,
        times: Times,
    ) -> None:
        self._store, self._fleet, self._actions, self._times = store, fleet, actions, times
        self._wake = asyncio.Event()
        self._errands = Errands()
        self.machines = Machines(store, fleet, signals, pool, agents, actions, self._errands, times)
        self.sweeps = Sweeps(store, fleet, signals, times)
        news.listen(self._on_event)

    def _on_event(self, event: Event) -> None:
        if event.type.startswith(("workspace.", "machine.")):
            self._wake.set()

    async def lead(self) -> None:
        """Run every loop until cancelled."""
        t = self._times
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(every(CLOCK_TICK, self.sweeps.clock))
                group.create_task(every(t.scale_interval, self.machines.tend))
                group.create_task(every(GREET_TICK, self.machines.greet))
                group.create_task(self._work_on_news())
                group.create_task(every(t.idle_sweep_interval, self.sweeps.idle))
                group.create_task(every(t.terminate_sweep_interval, self.sweeps.retention))
                group.create_task(every(min(5.0, t.session_timeout / 3), self.sweeps.sessions))
        finally:
            await self._errands.cancel()
            await self.machines.close()
            self.sweeps.forget()

    async def _work_on_news(self) -> None:
        """What was asked for is worked on at once; every scale_interval as well, news or not."""
        while True:
            self._wake.clear()
            try:
                await self.work()
            except StoreError as error:
                log.warning("loop.store_away", tick="work", why=str(error))
            except Exception:
                log.exception("loop.failed", tick="work")
            try:
                async with asyncio.timeout(self._times.scale_interval):
                    await self._wake.wait()
            except TimeoutError:
                continue

    # What people and the records ask for.

    async def work(self) -> None:
        """Boot the queue, finish stops and terminations, empty draining machines."""
        await self._work_queue()
        for workspace in await self._store.list(status=(_W.STOPPING,)):
            self._errand(workspace, self._actions.stop, "stop")
        for workspace in await self._store.list(status=(_W.TERMINATING,)):
            self._errand(workspace, self._actions.terminate, "terminate")
        for machine in await self._fleet.machines():
            if machine.status is _M.DRAINING:
                await self._drain(machine)

    async def _work_queue(self) -> None:
        queue = [w for w in await self._store.queued() if not self._errands.busy(w.id)]
        if not queue:
            return
        machines = await self._fleet.machines()
        if any(machine.unheard for machine in machines):
            now = await self._store.now_ms()
            if reconcile.unheard(machines, now, self._times.launch_timeout):
                return  # records were lost: it may run already, where nobody has heard from yet
        for command in place(queue, machines):
            if isinstance(command, Place):
                boot = partial(self._boot, machine=command.machine)
                self._errand(command.workspace, boot, "boot")
            elif isinstance(command, Detach):
                self._errand(command.workspace, self._actions.detach, "detach")
            else:
                self.machines.revive(command.machine)

    async def _boot(self, workspace: Workspace, machine: Machine) -> None:
        known = self.machines.known_epoch(machine, workspace)
        await self._actions.boot(workspace, machine, known)

    def _errand(
        self, workspace: Workspace, do: Callable[[Workspace], Awaitable[None]], kind: str
    ) -> None:
        self._errands.run(workspace.id, lambda: do(workspace), kind)

    async def _drain(self, machine: Machine) -> None:
        """Move what lies on a draining machine into snapshots; when nothing is left, remove it."""
        files = await self._store.get_many(await self._fleet.files_on(machine.id))
        for workspace in files:
            if workspace.status in (_W.STOPPED, _W.FAILED, _W.QUEUED):
                self._errand(workspace, self._actions.detach, "detach")
        if not files and not machine.occupied:
            self.machines.remove(machine, "drained", bare=True)
