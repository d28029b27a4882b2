"""The loops: observe, decide, act. Whoever holds the lease runs them; everything may run twice.

Three clocks: every event wakes the work on what was asked for; every `scale_interval` the pool is
compared with its records and sized; the sweeps run at their own intervals.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial

import structlog

from lifecycle import policy, reconcile
from lifecycle.actions import Actions, Agents
from lifecycle.agent.contract import Report
from lifecycle.agents import AgentUnreachable
from lifecycle.errands import Errands
from lifecycle.identifiers import machine_number
from lifecycle.model import Event, Machine, MachineStatus, Workspace, WorkspaceStatus
from lifecycle.news import News
from lifecycle.placement import Detach, Place, place
from lifecycle.pools import Launch, Pool, PoolError
from lifecycle.scaler import Decision, scale
from lifecycle.stores import Conflict, StoreError
from lifecycle.stores.fleet import RedisFleet
from lifecycle.stores.redis import RedisStore
from lifecycle.stores.signals import RedisSignals

log = structlog.get_logger(__name__)

_W = WorkspaceStatus
_M = MachineStatus

STATUS_WAIT = 5.0  # seconds an agent may hold a status call until something changes
UNREACHABLE_RETRY = 1.0
SILENT_AGENT = 15.0  # seconds without a report: what happens on that machine is unknown
LATE_GATEWAY = 2.5  # seconds without a flush, one a second being due: it has something to tell
SILENT_GATEWAY = 10.0  # seconds without a flush: what happens on that gateway is unknown
GATEWAY_FORGOTTEN = 3600.0
GREET_TICK = 0.1  # somebody may be waiting for a machine that was just launched
GREETED = 5.0  # seconds after its launch; a slower one is found by tend_pool
CLOCK_TICK = 1.0
CLOCK_JUMP = 5.0  # seconds Redis's clock may differ from our own progress before it is strange


@dataclass(frozen=True, slots=True)
class Times:
    """Intervals and limits of the loops, in seconds, and the pool's bounds."""

    idle_timeout: float
    retention: float
    idle_sweep_interval: float
    terminate_sweep_interval: float
    session_timeout: float
    boot_timeout: float
    scale_interval: float
    scale_in_delay: float
    launch_timeout: float
    slots: int
    warm_slots: int
    max_machines: int


async def every(interval: float, tick: Callable[[], Awaitable[None]]) -> None:
    """One shape for every loop: a tick that fails is logged and tried again; cancellation passes."""
    while True:
        try:
            await tick()
        except StoreError as error:
            log.warning("loop.store_away", tick=tick.__name__, why=str(error), next_try_s=interval)
        except Exception:
            log.exception("loop.failed", tick=tick.__name__, next_try_s=interval)
        await asyncio.sleep(interval)


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
        self._store, self._fleet, self._signals = store, fleet, signals
        self._pool, self._agents, self._actions = pool, agents, actions
        self._times = times
        self._news = news
        self._wake = asyncio.Event()
        self._errands = Errands()
        self._watchers: dict[str, asyncio.Task[None]] = {}
        self._expected: dict[str, float] = {}
        self._epochs: dict[str, dict[str, int]] = {}
        self._strange: set[str] = set()
        self._last_decision: Decision | None = None
        self._clock: tuple[float, int] | None = None
        news.listen(self._on_event)

    def _on_event(self, event: Event) -> None:
        if event.type.startswith(("workspace.", "machine.")):
            self._wake.set()

    async def lead(self) -> None:
        """Run every loop until cancelled."""
        t = self._times
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(every(CLOCK_TICK, self.watch_clock))
                group.create_task(every(t.scale_interval, self.tend_pool))
                group.create_task(every(GREET_TICK, self.greet))
                group.create_task(self._work_on_news())
                group.create_task(every(t.idle_sweep_interval, self.sweep_idle))
                group.create_task(every(t.terminate_sweep_interval, self.sweep_retention))
                group.create_task(every(min(5.0, t.session_timeout / 3), self.sweep_sessions))
        finally:
            await self._errands.cancel()
            for task in self._watchers.values():
                task.cancel()
            await asyncio.gather(*self._watchers.values(), return_exceptions=True)
            self._watchers.clear()
            self._clock = None

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
        for command in place(queue, machines):
            if isinstance(command, Place):
                boot = partial(self._boot, machine=command.machine)
                self._errand(command.workspace, boot, "boot")
            elif isinstance(command, Detach):
                self._errand(command.workspace, self._actions.detach, "detach")
            else:
                self._revive(command.machine)

    async def _boot(self, workspace: Workspace, machine: Machine) -> None:
        known = self._epochs.get(machine.id, {}).get(workspace.id, 0)
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
            self._remove(machine, "drained", bare=True)

    # Machines.

    async def tend_pool(self) -> None:
        """Compare records with the pool, then size it."""
        machines = await self._fleet.machines()
        observed = await self._pool.describe()
        now = await self._store.now_ms()
        waiting = await self._store.list(status=(_W.QUEUED, _W.TERMINATING))
        needed = frozenset(w.machine_id for w in waiting if w.machine_id)
        for change in reconcile.converge_machines(
            machines,
            observed,
            now,
            launch_timeout=self._times.launch_timeout,
            needed=needed,
        ):
            await self._mend_machine(change)
        for machine_id in reconcile.without_record(machines, observed):
            await self._remove_again(machine_id)
        await self._scale(now, max((machine_number(row.machine_id) for row in observed), default=0))
        for workspace in policy.overdue_boots(
            await self._store.list(status=(_W.STARTING,)),
            now,
            self._times.boot_timeout,
            await self._signals.trusted_since_ms(),
        ):
            message = (
                f"its machine {workspace.machine_id} said nothing of it in time; start it again"
            )
            await self._actions.failed(workspace, "boot_timeout", message)

    async def greet(self) -> None:
        """Look closely for machines that were launched a moment ago."""
        now = asyncio.get_running_loop().time()
        self._expected = {
            machine_id: until
            for machine_id, until in self._expected.items()
            if now < until and machine_id not in self._watchers
        }
        if not self._expected:
            return
        up = {seen.machine_id: seen for seen in await self._pool.describe()}
        for machine in await self._fleet.machines():
            seen = up.get(machine.id)
            if machine.id in self._expected and seen is not None and seen.state == "running":
                await self._mend_machine(reconcile.Watch(replace(machine, address=seen.address)))

    def _expect(self, machine_id: str) -> None:
        self._expected[machine_id] = asyncio.get_running_loop().time() + GREETED

    async def _mend_machine(self, change: reconcile.MachineChange) -> None:
        machine = change.machine
        if isinstance(change, reconcile.Watch):
            if machine.id not in self._watchers:
                self._watchers[machine.id] = asyncio.create_task(self._watch(machine))
        elif isinstance(change, reconcile.Lost):
            await self._lose(machine, change.reason)
        elif isinstance(change, reconcile.Revive):
            self._revive(machine)
        elif isinstance(change, reconcile.Remove):
            self._remove(machine, change.reason, bare=not machine.holds_files)

    async def _lose(self, machine: Machine, reason: str) -> None:
        log.warning("machine.lost", machine=machine.id, why=reason)
        if machine.status is not _M.LOST and not await self._turn(machine, _M.LOST, reason):
            return
        records = await self._store.get_many(await self._fleet.files_on(machine.id))
        for failed in reconcile.failures(machine, records, reason):
            await self._actions.failed(failed.workspace, failed.code, failed.message)

    def _revive(self, machine: Machine) -> None:
        async def revive() -> None:
            if await self._turn(machine, _M.LAUNCHING, "started again on its disk"):
                await self._pool.start(Launch(machine.id, machine.token, machine.slots))
            self._expect(machine.id)

        self._errands.run(machine.id, revive)

    def _remove(self, machine: Machine, reason: str, *, bare: bool) -> None:
        """The record goes first: from then on nobody calls the drain off or boots anything there.
        bare: only if no files are there."""

        async def remove() -> None:
            if await self._turn(machine, _M.TERMINATED, reason, only_empty=True, bare=bare):
                await self._pool.terminate(machine.id)

        self._errands.run(machine.id, remove)

    async def _remove_again(self, machine_id: str) -> None:
        """The pool has it and no live record names it: finish a removal that was cut short. One that no
        record speaks of at all is left alone."""
        record = await self._fleet.machine(machine_id)
        if record is not None and record.status is _M.TERMINATED:
            self._errands.run(machine_id, lambda: self._pool.terminate(machine_id))
        elif record is None and machine_id not in self._strange:
            self._strange.add(machine_id)
            log.warning("machine.unknown", machine=machine_id, pool=self._pool.name)

    async def _scale(self, now: int, newest: int) -> None:
        t = self._times
        counts = await self._store.counts()
        users = counts["queued"] + counts["starting"] + counts["running"]
        machines = await self._fleet.machines()
        decision = scale(
            users,
            machines,
            now,
            slots=t.slots,
            warm_slots=t.warm_slots,
            max_machines=t.max_machines,
            scale_in_delay=t.scale_in_delay,
        )
        await self._fleet.decided(decision.to_json())
        by_id = {machine.id: machine for machine in machines}
        for machine_id in decision.undrain:
            await self._turn(by_id[machine_id], _M.READY, "wanted again")
        for machine_id in decision.revive:
            self._revive(by_id[machine_id])
        for machine_id in decision.drain:
            await self._turn(by_id[machine_id], _M.DRAINING, decision.reason, only_empty=True)
        if decision.launch:
            await self._launch(decision.launch, newest)
        self._tell_decision(decision)

    def _tell_decision(self, decision: Decision) -> None:
        last, self._last_decision = self._last_decision, decision
        if last is None or (last.want, last.have) != (decision.want, decision.have):
            log.info("pool.scaled", want=decision.want, have=decision.have, why=decision.reason)

    async def _turn(
        self,
        machine: Machine,
        to: MachineStatus,
        reason: str,
        *,
        only_empty: bool = False,
        bare: bool = False,
    ) -> bool:
        try:
            await self._fleet.change(machine, to, reason=reason, only_empty=only_empty, bare=bare)
        except Conflict as conflict:
            log.info("machine.overtaken", machine=machine.id, why=str(conflict))
            return False
        return True

    async def _launch(self, count: int, newest: int) -> None:
        """Write each intent down, then ask the pool. An answer that is lost is found by describe()."""
        launches = []
        for _ in range(count):
            token = secrets.token_urlsafe(24)
            machine_id = await self._fleet.intend(
                self._pool.name, self._times.slots, token, self._times.max_machines, newest
            )
            if machine_id:
                launches.append(Launch(machine_id, token, self._times.slots))
        for launch in launches:
            self._expect(launch.machine_id)
        try:
            await self._pool.launch(launches)
        except PoolError as error:
            log.error(
                "pool.launch_failed", machines=[x.machine_id for x in launches], why=str(error)
            )

    async def _watch(self, machine: Machine) -> None:
        """Take one agent's reports, and bring records and machine together, until the machine is gone."""
        since, rechecked = 0, 0
        try:
            while True:
                current = await self._fleet.machine(machine.id)
                if current is None or current.status in (_M.TERMINATED, _M.STOPPED):
                    break
                here = replace(current, address=machine.address)
                records = await self._store.get_many(await self._fleet.files_on(machine.id))
                report = await self._agents.status(here, since=since, wait=STATUS_WAIT)
                await self._take_report(here, records, report)
                since = report.version
                if rechecked != since and not _settled(records, report):
                    # The report tells of boots newer than the records read before it: look again.
                    since, rechecked = 0, report.version
        except AgentUnreachable as error:
            log.warning("machine.unreachable", machine=machine.id, why=str(error))
        except StoreError as error:
            log.warning("machine.unwatched", machine=machine.id, why=str(error))
        except Exception:
            log.exception("machine.watch_failed", machine=machine.id)
        # tend_pool starts the next watcher as long as the pool sees the machine run.
        await asyncio.sleep(UNREACHABLE_RETRY)
        del self._watchers[machine.id]

    async def _take_report(
        self, machine: Machine, records: list[Workspace], report: Report
    ) -> None:
        self._epochs[machine.id] = {row.workspace_id: row.epoch for row in report.workspaces}
        await self._fleet.report(report)
        if machine.status in (_M.LAUNCHING, _M.LOST):
            await self._fleet.change(machine, _M.READY, address=machine.address)
        for change in reconcile.converge(machine, records, report):
            await self._mend(machine, change)
        known = {record.id for record in records}
        names = [row.workspace_id for row in report.workspaces if row.workspace_id not in known]
        others = {w.id: w for w in await self._store.get_many(names)}
        for halt in reconcile.strangers(machine.id, report, others):
            log.warning("machine.stranger", machine=machine.id, workspace=halt.workspace_id)
            await self._mend(machine, halt)

    async def _mend(self, machine: Machine, change: reconcile.Change) -> None:
        actions = self._actions
        if isinstance(change, reconcile.Running):
            await actions.running(change.workspace, change.address)
        elif isinstance(change, reconcile.Failed):
            await actions.failed(change.workspace, change.code, change.message)
        elif isinstance(change, reconcile.Stopped):
            await actions.stopped(change.workspace, change.reason)
        elif isinstance(change, reconcile.Progress):
            await self._store.note(change.workspace, "workspace.progress", {"step": change.step})
        elif isinstance(change, reconcile.Boot):
            self._errand(change.workspace, lambda w: actions.start(w, machine), "start")
        else:
            self._errands.run(
                f"{machine.id}/{change.workspace_id}",
                lambda: actions.halt(machine, change.workspace_id, change.epoch),
            )

    # Sweeps.

    async def sweep_idle(self) -> None:
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
                    unless_active_since_ms=stop.unless_active_since_ms,
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

    async def sweep_retention(self) -> None:
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

    async def sweep_sessions(self) -> None:
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

    async def watch_clock(self) -> None:
        """Redis's clock against our own progress: after a jump, idleness is counted anew."""
        loop = asyncio.get_running_loop()
        mine, theirs = loop.time(), await self._store.now_ms()
        last, self._clock = self._clock, (mine, theirs)
        if last is not None:
            jump = (theirs - last[1]) / 1000 - (mine - last[0])
            if abs(jump) > CLOCK_JUMP:
                log.warning("clock.jumped", seconds=round(jump, 1))
                await self._signals.distrust(f"Redis's clock jumped by {jump:.0f} s")


def _settled(records: list[Workspace], report: Report) -> bool:
    """Whether the records were as new as the report."""
    epochs = {record.id: record.epoch for record in records}
    return all(epochs.get(row.workspace_id, -1) >= row.epoch for row in report.workspaces)
