"""Every running machine's agent is asked what runs there, and the records and the machine are brought together."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import replace
from logging import DEBUG, WARNING

import structlog

from lifecycle import reconcile
from lifecycle.actions import Actions, Agents
from lifecycle.agent.contract import Report, WorkspaceReport
from lifecycle.agents import AgentUnreachable
from lifecycle.errands import Errands
from lifecycle.model import Machine, MachineStatus, Workspace
from lifecycle.stores import StoreError
from lifecycle.stores.fleet import RedisFleet
from lifecycle.stores.redis import RedisStore

log = structlog.get_logger(__name__)

_M = MachineStatus

STATUS_WAIT = 5.0  # seconds an agent may hold a status call until something changes
UNREACHABLE_RETRY = 1.0
RUNS = frozenset({"starting", "running"})
JOB_AGAIN = 8.0  # seconds until a job that goes on is written down once more


class Watching:
    def __init__(
        self,
        store: RedisStore,
        fleet: RedisFleet,
        agents: Agents,
        actions: Actions,
        errands: Errands,
    ) -> None:
        self._store, self._fleet = store, fleet
        self._agents, self._actions, self._errands = agents, actions, errands
        self._watchers: dict[str, asyncio.Task[None]] = {}
        self._reports: dict[str, Report] = {}  # machine → its newest
        self._jobs_noted: dict[str, float] = {}

    def __contains__(self, machine_id: str) -> bool:
        return machine_id in self._watchers

    def known_epoch(self, machine: Machine, workspace: Workspace) -> int:
        """The newest boot of it that this machine has reported; 0 when it knows none."""
        rows = self._rows(machine.id)
        return next((row.epoch for row in rows if row.workspace_id == workspace.id), 0)

    def on(self, machine_id: str) -> Collection[str]:
        """Ids of the workspaces that ran on this machine by its last report."""
        return [row.workspace_id for row in self._rows(machine_id) if row.status in RUNS]

    def _rows(self, machine_id: str) -> Sequence[WorkspaceReport]:
        report = self._reports.get(machine_id)
        return report.workspaces if report is not None else ()

    def watch(self, machine: Machine) -> None:
        """From now on, until it is gone. machine.address: its agent's."""
        if machine.id not in self._watchers:
            self._watchers[machine.id] = asyncio.create_task(self._watch(machine))

    def forget(self, machine_id: str) -> None:
        """A watcher that waits with what it read before the records were lost."""
        watcher = self._watchers.pop(machine_id, None)
        if watcher is not None:
            watcher.cancel()

    async def close(self) -> None:
        """Watch no machine any more."""
        watchers = list(self._watchers.values())
        for task in watchers:
            task.cancel()
        await asyncio.gather(*watchers, return_exceptions=True)
        self._watchers.clear()
        self._reports.clear()

    async def look(self, machine: Machine, since: int = 0, wait: float = 0.0) -> tuple[int, bool]:
        """Take one report: its version, and whether the records were as new as it is."""
        records = await self._store.get_many(await self._fleet.files_on(machine.id))
        report = await self._agents.status(machine, since=since, wait=wait)
        await self._take(machine, records, report)
        return report.version, _settled(records, report)

    async def _watch(self, machine: Machine) -> None:
        since, rechecked = 0, 0
        try:
            while True:
                current = await self._fleet.machine(machine.id)
                if current is None or current.status in (_M.TERMINATED, _M.STOPPED):
                    self._reports.pop(machine.id, None)
                    break
                here = replace(current, address=machine.address)
                since, settled = await self.look(here, since, STATUS_WAIT)
                if rechecked != since and not settled:
                    # The report tells of boots newer than the records read before it: look again.
                    since, rechecked = 0, since
        except AgentUnreachable as error:
            log.warning("machine.unreachable", machine=machine.id, why=str(error))
        except StoreError as error:
            log.warning("machine.unwatched", machine=machine.id, why=str(error))
        except Exception:
            log.exception("machine.watch_failed", machine=machine.id)
        # tend() starts the next watcher as long as the pool sees the machine run.
        await asyncio.sleep(UNREACHABLE_RETRY)
        del self._watchers[machine.id]

    async def _take(self, machine: Machine, records: list[Workspace], report: Report) -> None:
        self._reports[machine.id] = report
        await self._fleet.report(report)
        # Before it is ready: the queue waits for what it has to say.
        await self._adopt_workspaces(machine, records, report)
        if machine.status in (_M.LAUNCHING, _M.LOST):
            await self._fleet.change(machine, _M.READY, address=machine.address)
        for change in reconcile.converge(machine, records, report):
            await self._mend(machine, change)
        await self._note_jobs(records, report)
        known = {record.id for record in records}
        names = [row.workspace_id for row in report.workspaces if row.workspace_id not in known]
        others = {w.id: w for w in await self._store.get_many(names)}
        for halt in reconcile.strangers(machine.id, report, others):
            log.warning("machine.stranger", machine=machine.id, workspace=halt.workspace_id)
            await self._mend(machine, halt)
        await self._actions.keep_warm(machine, report.warm_spec)

    async def _note_jobs(self, records: list[Workspace], report: Report) -> None:
        """A job that goes on is written down now and then, one that began or ended at once."""
        now = asyncio.get_running_loop().time()
        for record, job in reconcile.jobs(records, report):
            if job and job == record.job and now - self._jobs_noted.get(record.id, 0.0) < JOB_AGAIN:
                continue
            self._jobs_noted[record.id] = now
            await self._store.job(record, job)
            if not job:
                del self._jobs_noted[record.id]

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
            await actions.running(change.workspace, change.address, change.secret, warm=change.warm)
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
