"""Machines: compare their records with the pool, size the pool, and take every agent's reports."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import replace
from logging import DEBUG, WARNING

import structlog

from lifecycle import policy, reconcile
from lifecycle.actions import Actions, Agents
from lifecycle.agent.contract import Report
from lifecycle.agents import AgentUnreachable
from lifecycle.errands import Errands
from lifecycle.identifiers import machine_number
from lifecycle.model import Machine, MachineStatus, Workspace, WorkspaceStatus
from lifecycle.pools import Launch, Observed, Pool, PoolError
from lifecycle.scaler import Decision, scale
from lifecycle.stores import Conflict, StoreError
from lifecycle.stores.fleet import RedisFleet
from lifecycle.stores.redis import RedisStore
from lifecycle.stores.signals import RedisSignals
from lifecycle.ticks import Times

log = structlog.get_logger(__name__)

_W = WorkspaceStatus
_M = MachineStatus

STATUS_WAIT = 5.0  # seconds an agent may hold a status call until something changes
UNREACHABLE_RETRY = 1.0
GREETED = 5.0  # seconds after its launch; a slower one is found by tend()


class Machines:
    def __init__(
        self,
        store: RedisStore,
        fleet: RedisFleet,
        signals: RedisSignals,
        pool: Pool,
        agents: Agents,
        actions: Actions,
        errands: Errands,
        times: Times,
    ) -> None:
        self._store, self._fleet, self._signals = store, fleet, signals
        self._pool, self._agents, self._actions = pool, agents, actions
        self._errands, self._times = errands, times
        self._watchers: dict[str, asyncio.Task[None]] = {}
        self._expected: dict[str, float] = {}
        self._epochs: dict[str, dict[str, int]] = {}
        self._strange: set[str] = set()
        self._last_decision: Decision | None = None

    def known_epoch(self, machine: Machine, workspace: Workspace) -> int:
        """The newest boot of it that this machine has reported; 0 when it knows none."""
        return self._epochs.get(machine.id, {}).get(workspace.id, 0)

    async def close(self) -> None:
        """Watch no machine any more."""
        watchers = list(self._watchers.values())
        for task in watchers:
            task.cancel()
        await asyncio.gather(*watchers, return_exceptions=True)
        self._watchers.clear()

    async def tend(self) -> None:
        """Compare records with the pool, then size it."""
        machines = await self._fleet.machines()
        observed = await self._pool.describe()
        if await self._adopt(reconcile.adoptable(machines, observed)):
            machines = await self._fleet.machines()
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
        newest = max((machine_number(row.machine_id) for row in observed), default=0)
        await self._scale(now, newest, {machine.id for machine in machines})
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

    async def _adopt(self, found: list[Observed]) -> bool:
        """Write machines down again whose records are lost. One that is down is started: only it knows
        what lies on its disk."""
        adopted = False
        for seen in found:
            name = self._pool.name
            if not await self._fleet.adopt(name, seen.machine_id, seen.slots, seen.token):
                continue  # it has a record after all: launched, or removed, a moment ago
            adopted = True
            log.warning("machine.adopted", machine=seen.machine_id, pool=name)
            watcher = self._watchers.pop(seen.machine_id, None)
            if watcher is not None:
                watcher.cancel()  # it waits with what it read before the loss
            if seen.state == "stopped":
                self._start_again(Launch(seen.machine_id, seen.token, seen.slots))
        return adopted

    def _start_again(self, launch: Launch) -> None:
        async def start() -> None:
            await self._pool.start(launch)
            self._expect(launch.machine_id)

        self._errands.run(launch.machine_id, start, "adopt")

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
            self.revive(machine)
        elif isinstance(change, reconcile.Remove):
            self.remove(machine, change.reason, bare=not machine.holds_files)

    async def _lose(self, machine: Machine, reason: str) -> None:
        log.warning("machine.lost", machine=machine.id, why=reason)
        if machine.status is not _M.LOST and not await self._turn(machine, _M.LOST, reason):
            return
        records = await self._store.get_many(await self._fleet.files_on(machine.id))
        for failed in reconcile.failures(machine, records, reason):
            await self._actions.failed(failed.workspace, failed.code, failed.message)

    def revive(self, machine: Machine) -> None:
        async def revive() -> None:
            if await self._turn(machine, _M.LAUNCHING, "started again on its disk"):
                await self._pool.start(Launch(machine.id, machine.token, machine.slots))
            self._expect(machine.id)

        self._errands.run(machine.id, revive)

    def remove(self, machine: Machine, reason: str, *, bare: bool) -> None:
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

    async def _scale(self, now: int, newest: int, before: set[str]) -> None:
        """before: machines that had a record a moment ago."""
        t = self._times
        counts = await self._store.counts()
        users = counts["queued"] + counts["starting"] + counts["running"]
        machines = await self._fleet.machines()
        if before - {machine.id for machine in machines}:
            return  # removed meanwhile, or every record is lost: the next turn tells which
        if reconcile.unheard(machines, now, t.launch_timeout):
            return  # nobody knows yet how many workspaces there are
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
            self.revive(by_id[machine_id])
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
        # tend() starts the next watcher as long as the pool sees the machine run.
        await asyncio.sleep(UNREACHABLE_RETRY)
        del self._watchers[machine.id]

    async def _take_report(
        self, machine: Machine, records: list[Workspace], report: Report
    ) -> None:
        self._epochs[machine.id] = {row.workspace_id: row.epoch for row in report.workspaces}
        await self._fleet.report(report)
        # Before it is ready: the queue waits for what it has to say.
        await self._adopt_workspaces(machine, records, report)
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

    async def _adopt_workspaces(
        self, machine: Machine, records: list[Workspace], report: Report
    ) -> None:
        before = {record.id: record for record in records}
        for adopt in reconcile.adoptions(machine, report, before):
            # The records may be older than the report: the script looks at the one of now.
            row = adopt.row
            outcome = await self._store.adopt(machine.id, row, adopt.address)
            log.log(
                WARNING if outcome == "ok" else DEBUG,
                "workspace.adopted" if outcome == "ok" else "workspace.not_adopted",
                workspace=row.workspace_id,
                machine=machine.id,
                epoch=row.epoch,
                why=outcome,
            )

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
            boot = change.workspace
            self._errands.run(boot.id, lambda: actions.start(boot, machine), "start")
        else:
            self._errands.run(
                f"{machine.id}/{change.workspace_id}",
                lambda: actions.halt(machine, change.workspace_id, change.epoch),
            )


def _settled(records: list[Workspace], report: Report) -> bool:
    """Whether the records were as new as the report."""
    epochs = {record.id: record.epoch for record in records}
    return all(epochs.get(row.workspace_id, -1) >= row.epoch for row in report.workspaces)
