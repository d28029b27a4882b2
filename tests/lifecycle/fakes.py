"""Records with the usual fields filled in, a pool and its machines' agents, all in this process.

The agents keep the contract of lifecycle.agent.contract: a boot is taken once per epoch, older epochs are
refused, what was stopped or removed is not started again by a call that comes late. Files are a dict that
lives on the machine; snapshots are copies of it in the target.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from lifecycle.agent.contract import (
    Manifest,
    Report,
    SnapshotSpec,
    StartSpec,
    WarmSpec,
    WorkspaceReport,
)
from lifecycle.agent.workspace import ORIGIN
from lifecycle.agents import AgentRefused, AgentUnreachable
from lifecycle.model import Machine, MachineStatus, Workspace, WorkspaceStatus
from lifecycle.pools import Launch, Observed, PoolError, State, Traits
from lifecycle.snapshots import SnapshotError

W, M = WorkspaceStatus, MachineStatus


def workspace(id: str = "w1", status: WorkspaceStatus = W.RUNNING, **fields: Any) -> Workspace:
    usual = {"user_id": "ada", "created_at_ms": 0, "status_since_ms": 0}
    return Workspace(id=id, status=status, **(usual | fields))


def machine(id: str = "m-1", status: MachineStatus = M.READY, **fields: Any) -> Machine:
    usual = {"pool": "fake", "status_since_ms": 0, "slots": 5, "address": "10.0.0.1:7000"}
    return Machine(id=id, status=status, **(usual | fields))


@dataclass
class Files:
    """What lies on one machine's disk; survives its agent."""

    of: dict[str, dict[str, str]] = field(default_factory=dict)
    newest: dict[str, int] = field(default_factory=dict)
    """Workspace → newest epoch this machine ever heard of."""
    rows: dict[str, WorkspaceReport] = field(default_factory=dict)
    """What the agent wrote down of each."""


class FakeTarget:
    """Snapshots' place: manifests and what the archives hold."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str], tuple[Manifest, dict[str, str]]] = {}
        self.failing: SnapshotError | None = None

    def open(self, url: str) -> FakeTarget:
        return self

    def manifest(self, workspace_id: str, snapshot_id: str) -> Manifest:
        try:
            return self.kept[workspace_id, snapshot_id][0]
        except KeyError:
            raise SnapshotError("not_found", f"no snapshot {snapshot_id}") from None

    def list(self, workspace_id: str) -> list[str]:
        return sorted(snapshot for one, snapshot in self.kept if one == workspace_id)

    def delete(self, workspace_id: str, snapshot_id: str) -> None:
        self.kept.pop((workspace_id, snapshot_id), None)

    def put(self, manifest: Manifest, archive: Path) -> None:
        raise NotImplementedError("agents write with write()")

    def fetch(self, manifest: Manifest, into: Path) -> None:
        raise NotImplementedError("agents read `kept`")

    def write(self, workspace_id: str, spec: SnapshotSpec, files: dict[str, str]) -> Manifest:
        if self.failing is not None:
            raise AgentRefused(self.failing.code, str(self.failing))
        manifest = Manifest(
            workspace_id, spec.snapshot_id, spec.epoch, 0, len(files), 0, "a", len(files), "hash"
        )
        self.kept[workspace_id, spec.snapshot_id] = (manifest, dict(files))
        return manifest


class FakeAgent:
    """One agent process. `up`: it answers. `hung`: calls arrive, answers never do."""

    def __init__(self, machine_id: str, token: str, slots: int, disk: Files, port: int) -> None:
        self.machine_id, self.token, self.slots, self.disk = machine_id, token, slots, disk
        self.address = f"10.0.0.1:{port}"
        self.up = True
        self.hung = False
        self.boots_by_themselves = True
        self.rows = disk.rows
        self.version = 1
        self._changed = asyncio.Event()
        self.warm_spec = WarmSpec()

    def change(self, row: WorkspaceReport) -> None:
        self.rows[row.workspace_id] = row
        self.bump()

    def bump(self) -> None:
        self.version += 1
        self._changed.set()
        self._changed = asyncio.Event()

    def running(self) -> set[str]:
        return {row.workspace_id for row in self.rows.values() if row.status == "running"}

    def report(self) -> Report:
        rows = tuple(self.rows.values())
        told = self.warm_spec.name()
        return Report(
            self.machine_id, "boot", self.version, self.slots, warm_spec=told, workspaces=rows
        )

    async def status(self, since: int, wait: float) -> Report:
        deadline = asyncio.get_running_loop().time() + wait
        while self.version == since and self.up:
            changed = self._changed
            try:
                async with asyncio.timeout_at(deadline):
                    await changed.wait()
            except TimeoutError:
                break
        return self.report()

    def start(self, workspace_id: str, spec: StartSpec, target: FakeTarget) -> WorkspaceReport:
        newest = self.disk.newest.get(workspace_id, 0)
        row = self.rows.get(workspace_id)
        if spec.epoch < newest or (spec.epoch == newest and row is None):
            raise AgentRefused("stale_epoch", f"epoch {spec.epoch} is over, {newest} is known")
        if row is not None and row.epoch == spec.epoch:
            return row
        others = [r for r in self.rows.values() if r.workspace_id != workspace_id]
        if sum(r.status in ("starting", "running") for r in others) >= self.slots:
            raise AgentRefused("no_slot", "every slot is taken")
        if spec.restore is not None:
            kept = target.kept.get((workspace_id, spec.restore.snapshot_id))
            if kept is None:
                raise AgentRefused("not_found", "no such snapshot")
            self.disk.of[workspace_id] = dict(kept[1])
        self.disk.of.setdefault(workspace_id, {})
        self.disk.newest[workspace_id] = spec.epoch
        origin = {name: getattr(spec, name) for name in ORIGIN}
        restore = spec.restore.snapshot_id if spec.restore else ""
        self.change(
            WorkspaceReport(
                workspace_id, spec.epoch, "starting", step="ide", restore=restore, **origin
            )
        )
        if self.boots_by_themselves:
            self.ready(workspace_id)
        return self.rows[workspace_id]

    def recover(self) -> None:
        """What ran under the last agent of this disk is over."""
        for row in list(self.rows.values()):
            if row.status in ("starting", "running"):
                self.fail(row.workspace_id, "machine_restarted")

    def ready(self, workspace_id: str) -> None:
        row = self.rows[workspace_id]
        self.change(replace(row, status="running", step="", port=9000 + row.epoch, restore=""))

    def fail(self, workspace_id: str, code: str = "crashed") -> None:
        self.change(replace(self.rows[workspace_id], status="failed", error_code=code, error=code))

    def stop(self, workspace_id: str, epoch: int) -> WorkspaceReport:
        self._refuse_older(workspace_id, epoch)
        self.disk.newest[workspace_id] = epoch
        row = self.rows.get(workspace_id)
        if row is None:
            return WorkspaceReport(workspace_id, epoch, "stopped")
        if row.status != "stopped":
            self.change(replace(row, epoch=epoch, status="stopped", step="", port=0))
        return self.rows[workspace_id]

    def remove(self, workspace_id: str, epoch: int) -> None:
        self._refuse_older(workspace_id, epoch)
        self.disk.newest[workspace_id] = epoch
        self.disk.of.pop(workspace_id, None)
        if self.rows.pop(workspace_id, None) is not None:
            self.bump()

    def snapshot(self, workspace_id: str, spec: SnapshotSpec, target: FakeTarget) -> Manifest:
        self._refuse_older(workspace_id, spec.epoch)
        if workspace_id not in self.disk.of:
            raise AgentRefused("not_found", f"{workspace_id} is not here")
        return target.write(workspace_id, spec, self.disk.of[workspace_id])

    def _refuse_older(self, workspace_id: str, epoch: int) -> None:
        newest = self.disk.newest.get(workspace_id, 0)
        if epoch < newest:
            raise AgentRefused("stale_epoch", f"epoch {epoch} is over, {newest} is known")


Call = tuple[str, str, str]
"""(verb, machine, workspace)"""


class FakePool:
    """A Pool and the Agents behind it. gate: awaited before and after every call, for tests that let
    somebody die or come first there."""

    name = "fake"

    def __init__(self, traits: Traits | None = None) -> None:
        self.traits = traits or Traits()
        self.slow_stops = False
        self.stopping: set[str] = set()
        self.notices: list[str] = []
        self.protected: set[str] = set()
        self.agents: dict[str, FakeAgent] = {}
        self.launched: dict[str, Launch] = {}
        self.disks: dict[str, Files] = {}
        self.target = FakeTarget()
        self.calls: list[Call] = []
        self.slow_machines = False
        self.on_boot: Callable[[FakeAgent], None] = lambda agent: None
        self.refuses: PoolError | None = None
        self.gate: Callable[[Literal["before", "after"], Call], Any] | None = None
        self.most_running: dict[str, int] = {}
        self._ports = 7000

    # Pool

    async def launch(self, launches: Sequence[Launch]) -> list[str]:
        for launch in launches:
            await self._pass("before", ("launch", launch.machine_id, ""))
            if self.refuses is not None:
                raise self.refuses
            if launch.machine_id not in self.disks:
                self.disks[launch.machine_id] = Files()
                self.launched[launch.machine_id] = launch
                if not self.slow_machines:
                    self.power_on(launch)
            await self._pass("after", ("launch", launch.machine_id, ""))
        return self.notices

    async def describe(self) -> list[Observed]:
        return [self._observe(machine_id) for machine_id in sorted(self.disks)]

    def _observe(self, machine_id: str) -> Observed:
        agent = self.agents.get(machine_id)
        launch = self.launched.get(machine_id)
        known = (launch.token, launch.slots) if launch else ("", 0)
        if agent is None:
            state: State = "launching" if self.slow_machines else "stopped"
            if machine_id in self.stopping:
                state = "stopping"
            return Observed(machine_id, state, "", *known)
        return Observed(machine_id, "running", agent.address, *known)

    async def start(self, launch: Launch) -> None:
        await self._pass("before", ("power", launch.machine_id, ""))
        if launch.machine_id not in self.disks:
            raise PoolError(f"machine {launch.machine_id} is gone")
        if launch.machine_id in self.stopping:
            raise PoolError(f"machine {launch.machine_id} is still stopping")
        if launch.machine_id not in self.agents:
            self.power_on(launch)
        await self._pass("after", ("power", launch.machine_id, ""))

    async def stop(self, machine_id: str) -> None:
        await self._pass("before", ("halt", machine_id, ""))
        if machine_id in self.agents:
            self.kill(machine_id)
            if self.slow_stops:
                self.stopping.add(machine_id)
        await self._pass("after", ("halt", machine_id, ""))

    async def protect(self, machine_ids: Collection[str]) -> None:
        self.protected = set(machine_ids)

    async def terminate(self, machine_id: str) -> None:
        await self._pass("before", ("terminate", machine_id, ""))
        agent = self.agents.pop(machine_id, None)
        if agent is not None:
            agent.up = False
            agent.bump()
        self.disks.pop(machine_id, None)
        self.launched.pop(machine_id, None)
        await self._pass("after", ("terminate", machine_id, ""))

    async def close(self, stop_machines: bool) -> None:
        for machine_id in list(self.agents) if stop_machines else []:
            self.kill(machine_id)

    def power_on(self, launch: Launch) -> None:
        self._ports += 1
        disk = self.disks[launch.machine_id]
        agent = FakeAgent(launch.machine_id, launch.token, launch.slots, disk, self._ports)
        agent.recover()
        self.agents[launch.machine_id] = agent
        self.on_boot(agent)

    def kill(self, machine_id: str) -> None:
        """The machine goes down with all that runs on it; its disk stays."""
        agent = self.agents.pop(machine_id)
        agent.up = False
        agent.bump()

    # Agents

    async def status(self, machine: Machine, since: int, wait: float) -> Report:
        agent = self._reach(machine)
        report = await agent.status(since, wait)
        if not agent.up or agent.hung:
            raise AgentUnreachable(f"machine {machine.id} broke off")
        return report

    async def start_workspace(
        self, machine: Machine, workspace_id: str, spec: StartSpec
    ) -> WorkspaceReport:
        return await self._call("start", machine, workspace_id, spec, self.target)

    async def stop_workspace(
        self, machine: Machine, workspace_id: str, epoch: int, grace: float
    ) -> WorkspaceReport:
        return await self._call("stop", machine, workspace_id, epoch)

    async def snapshot(self, machine: Machine, workspace_id: str, spec: SnapshotSpec) -> Manifest:
        return await self._call("snapshot", machine, workspace_id, spec, self.target)

    async def remove(self, machine: Machine, workspace_id: str, epoch: int) -> None:
        await self._call("remove", machine, workspace_id, epoch)

    async def warm(self, machine: Machine, spec: WarmSpec) -> None:
        await self._pass("before", ("warm", machine.id, ""))
        self.calls.append(("warm", machine.id, ""))
        agent = self._reach(machine)
        agent.warm_spec = spec
        agent.bump()

    async def _call(self, verb: str, machine: Machine, workspace_id: str, *args: Any) -> Any:
        call = (verb, machine.id, workspace_id)
        await self._pass("before", call)
        self.calls.append(call)
        answer = getattr(self._reach(machine), verb)(workspace_id, *args)
        for one in self.everywhere():
            self.most_running[one] = max(self.most_running.get(one, 0), len(self.where(one)))
        await self._pass("after", call)
        return answer

    async def _pass(self, when: Literal["before", "after"], call: Call) -> None:
        await asyncio.sleep(0)  # a real call would let others run
        if self.gate is not None:
            await self.gate(when, call)

    def _reach(self, machine: Machine) -> FakeAgent:
        agent = self.agents.get(machine.id)
        if agent is None or agent.hung or agent.address != machine.address:
            raise AgentUnreachable(f"machine {machine.id} does not answer at {machine.address}")
        if agent.token != machine.token:
            raise AgentRefused("unauthorized", f"machine {machine.id} has another token")
        return agent

    # What a test looks at.

    def where(self, workspace_id: str) -> list[str]:
        """Machines on which it runs."""
        return [a.machine_id for a in self.agents.values() if workspace_id in a.running()]

    def everywhere(self) -> set[str]:
        return {one for agent in self.agents.values() for one in agent.running()}

    def files(self, workspace_id: str) -> list[dict[str, str]]:
        """Its files on every disk that has some."""
        return [disk.of[workspace_id] for disk in self.disks.values() if workspace_id in disk.of]


class FakeAgents:
    """The pool's machines as lifecycle.actions.Agents sees them (its `start` and `stop` are a workspace's)."""

    def __init__(self, pool: FakePool) -> None:
        self.status, self.stop = pool.status, pool.stop_workspace
        self.snapshot, self.remove = pool.snapshot, pool.remove
        self.start, self.warm = pool.start_workspace, pool.warm
