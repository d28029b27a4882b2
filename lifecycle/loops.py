"""The loops: observe, decide, act. Whoever holds the lease runs them; everything may run twice.

Three clocks: every event wakes the work on what was asked for; every `scale_interval` the pool is
compared with its records and sized (machines.py); the sweeps run at their own intervals (sweeps.py).
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import structlog

from lifecycle import reconcile
from lifecycle.actions import Actions, Agents
from lifecycle.defragment import cannot_leave
from lifecycle.disks import DiskError
from lifecycle.errands import Errands
from lifecycle.evacuation import Evacuation
from lifecycle.machines import Machines
from lifecycle.model import STANDBY, Event, Machine, MachineStatus, Workspace, WorkspaceStatus
from lifecycle.news import News
from lifecycle.notices import Teller
from lifecycle.peaks import Peak
from lifecycle.placement import Detach, Place, at_once, place, without_room
from lifecycle.plans import Policy
from lifecycle.pools import Pool
from lifecycle.presence import Presence
from lifecycle.stores.fleet import RedisFleet
from lifecycle.stores.redis import RedisStore
from lifecycle.stores.signals import RedisSignals
from lifecycle.sweeps import Sweeps
from lifecycle.ticks import Times, every, once

log = structlog.get_logger(__name__)

_W = WorkspaceStatus
_M = MachineStatus

GREET_TICK = 0.1  # somebody may be waiting for a machine that was just launched
CLOCK_TICK = 2.0
STUCK = 60.0
"""Seconds that somebody may wait for their files to leave a machine that drains. Where they cannot (too many for a
snapshot, no room for one) it works on, or they would wait for ever; unless it is to go in any case."""


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
        token_of: Callable[[str], str] = lambda _: secrets.token_urlsafe(24),
        evacuation: Evacuation | None = None,
        policy_of: Callable[[Workspace], Policy] | None = None,
        teller: Teller | None = None,
        peaks: Callable[[], Sequence[Peak]] = lambda: (),
    ) -> None:
        """token_of: machine id → its agent's token. evacuation: what follows when the pool takes machines
        away. policy_of: how long a workspace lives. teller: writes notices down. peaks: those that were
        declared."""
        self._store, self._fleet, self._actions, self._times = store, fleet, actions, times
        self._wake, self._hurry = asyncio.Event(), asyncio.Event()
        self._errands = Errands()
        self._without: frozenset[str] = frozenset()  # who has found no slot free
        self.machines = Machines(
            store, fleet, signals, pool, agents, actions, self._errands, times, token_of,
            evacuation, peaks,
        )  # fmt: skip
        self._presence = Presence(store, self.machines.on)
        self._evacuation = evacuation
        self.sweeps = Sweeps(store, fleet, signals, times, policy_of, teller)
        news.listen(self._on_event)

    def _on_event(self, event: Event) -> None:
        if event.type.startswith(("workspace.", "machine.")):
            self._wake.set()
        if event.type == "machine.joined":
            self.machines.joined(event.data.get("machine", ""))

    def hurry(self) -> None:
        """Something was heard of the pool: compare it with the records at once."""
        self._hurry.set()

    async def lead(self) -> None:
        """Run every loop until cancelled."""
        t = self._times
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(every(CLOCK_TICK, self.sweeps.clock))
                group.create_task(self._tend())
                group.create_task(every(GREET_TICK, self.machines.greet))
                group.create_task(self._work_on_news())
                group.create_task(every(t.look_interval, self.sweeps.look))
                group.create_task(every(t.terminate_sweep_interval, self.sweeps.repair))
                if self._actions.attaches:
                    group.create_task(every(t.terminate_sweep_interval, self.sweep_volumes))
                group.create_task(every(min(5.0, t.session_timeout / 3), self.sweeps.sessions))
        finally:
            await self._errands.cancel()
            await self.machines.close()
            self.sweeps.forget()

    async def _work_on_news(self) -> None:
        """What was asked for is worked on at once; every scale_interval as well, news or not."""
        await every(self._times.scale_interval, self.work, self._wake)

    async def _tend(self) -> None:
        await every(self._times.scale_interval, self.machines.tend, self._hurry)

    async def once(self) -> None:
        """One turn of every loop, and everything it has begun finished: for whoever does not stay."""
        self.machines.stays = False
        for tick in (
            self.machines.tend,
            self.machines.look,
            self.work,
            self.sweeps.repair,
            self.sweeps.look,
            self.sweeps.sessions,
            self.work,
            *([self.sweep_volumes] if self._actions.attaches else []),
        ):
            await once(tick)
            await self._errands.finished()

    async def sweep_volumes(self) -> None:
        """Remove volumes whose removal was cut short."""
        try:
            await self._actions.sweep_volumes()
        except DiskError as error:
            log.warning("volumes.not_swept", why=str(error))

    # What people and the records ask for.

    async def work(self) -> None:
        """Boot the queue, finish stops and terminations, empty draining machines."""
        await self._store.settle()
        await self._work_queue()
        for workspace in await self._store.list(status=(_W.STOPPING, _W.TERMINATING)):
            if workspace.status is _W.STOPPING:
                self._errand(workspace, self._actions.stop, "stop")
            elif workspace.status is _W.TERMINATING:
                self._errand(workspace, self._actions.terminate, "terminate")
        machines = await self._fleet.machines()
        for machine in machines:
            if machine.status is _M.DRAINING:
                await self._drain(machine)
            elif machine.holds_files > machine.occupied:
                await self._clear(machine)
        if self._evacuation is not None:
            await self._evacuation.tick(await self._fleet.machines())

    async def _work_queue(self) -> None:
        waiting = await self._store.queued()
        queue = [w for w in waiting if not self._errands.busy(w.id)]
        if not queue:
            self._without = frozenset()
            return
        # Who is on the way from the queue to a machine boots as well.
        booting = (await self._store.counts())[_W.STARTING] + len(waiting) - len(queue)
        room = max(0, self._times.max_starting - booting)
        machines = await self._fleet.machines()
        if any(machine.unheard for machine in machines):
            now = await self._store.now_ms()
            if reconcile.unheard(machines, now, self._times.launch_timeout):
                return  # records were lost: it may run already, where nobody has heard from yet
        commands = place(queue, machines, await self._presence.idle_ms(machines))
        waited = self._without & {
            w.id for w in queue
        }  # also those whose turn to boot has yet to come
        self._without = waited | without_room(queue, machines, commands)
        for command in at_once(commands, room):
            if isinstance(command, Place):
                self._presence.placed(command.machine.id)
                known = command.workspace.id in waited
                boot = partial(self._boot, machine=command.machine, waited=known)
                self._errand(command.workspace, boot, "boot")
            elif isinstance(command, Detach):
                self._errand(command.workspace, self._actions.detach, "detach")
            else:
                self.machines.revive(command.machine)

    async def _boot(self, workspace: Workspace, machine: Machine, waited: bool) -> None:
        known = self.machines.known_epoch(machine, workspace)
        await self._actions.boot(workspace, machine, known, waited)

    def _errand(
        self, workspace: Workspace, do: Callable[[Workspace], Awaitable[None]], kind: str
    ) -> None:
        self._errands.run(workspace.id, lambda: do(workspace), kind)

    async def _clear(self, machine: Machine) -> None:
        """Move what was stopped there into snapshots: its machine may go, and take others meanwhile.
        Volumes are let go of wherever their workspaces ended, also by a machine that is lost or stopped:
        nothing has to come back for what is on them."""
        moves = self._times.snapshot_on_stop and machine.status is _M.READY
        if not moves and not self._actions.attaches:
            return
        for workspace in await self._store.get_many(await self._fleet.files_on(machine.id)):
            unplugs = bool(workspace.volume) and self._actions.attaches
            if (workspace.status is _W.STOPPED and (moves or unplugs)) or (
                workspace.status is _W.FAILED and unplugs
            ):
                self._errand(workspace, self._actions.detach, "detach")

    async def _stuck(self, machine: Machine, files: Sequence[Workspace]) -> Workspace | None:
        """Whose person has waited for too long for files that do not leave; those that are on their way will."""
        waiting = [w for w in files if w.status is _W.QUEUED and not self._errands.busy(w.id)]
        if not waiting:
            return None
        late = await self._store.now_ms() - STUCK * 1000
        since = machine.status_since_ms
        return next((w for w in waiting if max(w.status_since_ms, since) < late), None)

    async def _drain(self, machine: Machine) -> None:
        """Move what lies on a draining machine into snapshots; when nothing is left, remove it, or stop
        it to start faster than a new one would."""
        files = await self._store.get_many(await self._fleet.files_on(machine.id))
        if not (machine.held_by or machine.doomed_at_ms):
            stuck = await self._stuck(machine, files)
            if stuck is not None:
                await self.machines.keep(machine, cannot_leave(stuck.id))
                return
        for workspace in files:
            if workspace.status in (_W.STOPPED, _W.FAILED, _W.QUEUED):
                self._errand(workspace, self._actions.detach, "detach")
        if files or machine.occupied:
            return
        if machine.reason == STANDBY and not (machine.doomed_at_ms or machine.held_by):
            self.machines.park(machine, STANDBY, bare=True)
        else:
            self.machines.remove(machine, "drained", bare=True)
