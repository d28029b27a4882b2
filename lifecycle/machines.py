"""Machines: compare their records with the pool, and bring the two together."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import structlog

from lifecycle import policy, reconcile
from lifecycle.actions import Actions, Agents
from lifecycle.agents import AgentUnreachable
from lifecycle.emptying import Emptying
from lifecycle.errands import Errands
from lifecycle.evacuation import Evacuation
from lifecycle.identifiers import machine_number
from lifecycle.model import OCCUPYING, Machine, MachineStatus, Workspace, WorkspaceStatus
from lifecycle.peaks import Peak
from lifecycle.pools import Launch, NoCapacity, Observed, Pool, PoolError
from lifecycle.sizing import Sizing
from lifecycle.stores.fleet import RedisFleet
from lifecycle.stores.redis import RedisStore
from lifecycle.stores.signals import RedisSignals
from lifecycle.ticks import Times
from lifecycle.watching import Watching

log = structlog.get_logger(__name__)

_W = WorkspaceStatus
_M = MachineStatus

GREETED = 5.0  # seconds after its launch; a slower one is found by tend()
TELL_AWAY = 60.0  # seconds between two words to who waits that the pool does not answer
PARKED = "its workspace is stopped"
HOMELESS = 10.0  # seconds that a machine which nobody knows may take to turn up again


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
        token_of: Callable[[str], str],
        evacuation: Evacuation | None = None,
        peaks: Callable[[], Sequence[Peak]] = lambda: (),
    ) -> None:
        """token_of: machine id → its agent's token. evacuation: what follows when the pool takes machines
        away; without it no new work comes to them. peaks: those that were declared."""
        self._store, self._fleet, self._signals, self._pool = store, fleet, signals, pool
        self._actions, self._errands, self._times = actions, errands, times
        self._token_of, self._evacuation = token_of, evacuation
        self._parks = pool.traits.keeps_disks and not actions.attaches
        self._watching = Watching(store, fleet, agents, actions, errands)
        self._sizing = Sizing(
            store, fleet, signals, pool, errands, times, token_of, lambda m: self.revive(m),
            self._parks, peaks,
        )  # fmt: skip
        self._sizing.expect = self._expect
        self._emptying = Emptying(store, fleet, signals, times.move_after)
        self._expected: dict[str, float] = {}
        self._joined: set[str] = set()
        self._strange: set[str] = set()
        self._homeless: dict[str, float] = {}
        self._homeless_at = self._told_away = float("-inf")
        self._shown: dict[str, float] = {}
        self.clock: Callable[[], float] = time.monotonic
        self.stays = True
        """Whether this process looks again and again, and can wait for what a pool is behind."""
        self._seen: dict[str, Observed] = {}

    def known_epoch(self, machine: Machine, workspace: Workspace) -> int:
        """The newest boot of it that this machine has reported; 0 when it knows none."""
        return self._watching.known_epoch(machine, workspace)

    def on(self, machine_id: str) -> Collection[str]:
        """Ids of the workspaces that ran on this machine by its last report."""
        return self._watching.on(machine_id)

    async def close(self) -> None:
        """Watch no machine any more."""
        await self._watching.close()
        self._sizing.forget()

    async def tend(self) -> None:
        """Compare records with the pool, then size it."""
        await self._store.rebuild()
        machines = await self._fleet.machines()
        observed = await self._describe(machines)
        self._seen = {row.machine_id: row for row in observed}
        traits = self._pool.traits
        if await self._adopt(reconcile.adoptable(machines, observed, joins=traits.joins)):
            machines = await self._fleet.machines()
        await self._note(machines)
        if self._evacuation is not None:  # before anything is said of a machine that is gone by now
            # Read again: the pool took its time, and a notice may have come meanwhile.
            await self._evacuation.tick(await self._fleet.machines())
        now = await self._store.now_ms()
        under_way = await self._store.list(status=(_W.QUEUED, _W.STARTING, _W.TERMINATING))
        starting = [w for w in under_way if w.status is _W.STARTING]
        needed = frozenset(
            w.machine_id
            for w in under_way
            if w.machine_id and w.status in (_W.QUEUED, _W.TERMINATING)
        )
        outlook = reconcile.Outlook(
            self._times.launch_timeout,
            traits.lag,
            self._parks,
            traits.joins,
            needed | self._sizing.evicted,
            self._times.durable,
            self._shown_lately(machines),
            reconcile.standby(machines, self._times.standby_machines),
        )
        changes = reconcile.converge_machines(machines, observed, now, outlook)
        for change in changes:
            await self._mend(change)
        self._sizing.repeat([c.machine for c in changes if isinstance(c, reconcile.Repeat)])
        for machine_id in reconcile.without_record(machines, observed):
            await self._remove_again(machine_id)
        newest = max((machine_number(row.machine_id) for row in observed), default=0)
        before = {machine.id for machine in machines}
        counts = await self._sizing.scale(now, newest, before, needed, self.stays)
        await self._emptying.tick(self._sizing.spare, machines, now)
        for machine in machines:
            if machine.id in self._sizing.evicted and machine.status is _M.READY:
                await self._empty(machine)
        await self._fail_overdue(starting, now)
        await self._fail_homeless(counts, machines, observed)
        # What sleeps on a machine is lost with it as well, and what lies on one nobody knows yet.
        held = {m.id for m in machines if m.occupied or m.holds_files or m.unheard}
        await self._pool.protect(held)

    async def _describe(self, machines: list[Machine]) -> list[Observed]:
        try:
            return await self._pool.describe()
        except PoolError:
            await self._go_on(machines)
            raise

    async def _go_on(self, machines: list[Machine]) -> None:
        """The pool does not say what there is. What reports is there, and boots go on; who waits for a
        new machine is told."""
        now = await self._store.now_ms()
        for machine in reconcile.reporting(machines, now):
            self._watching.watch(machine)
        await self._fail_overdue(await self._store.list(status=(_W.STARTING,)), now)
        at = asyncio.get_running_loop().time()
        if at >= self._told_away + TELL_AWAY and (await self._store.counts())[_W.QUEUED]:
            self._told_away = at
            text = f"no new machines just now: the {self._pool.name} pool does not answer"
            await self._signals.notice(text)

    def _shown_lately(self, machines: list[Machine]) -> frozenset[str]:
        """Those that the pool may still have: one incomplete list is no reason to give up a disk."""
        now, lag = self.clock(), self._pool.traits.lag
        known = {m.id: self._shown.get(m.id, now) for m in machines}
        self._shown = known | dict.fromkeys(self._seen, now)
        return frozenset(each for each in known if self.stays and now - self._shown[each] < lag)

    async def look(self) -> None:
        """Take one report of every machine that runs, for whoever does not stay to watch."""
        for machine in await self._fleet.machines():
            seen = self._seen.get(machine.id)
            joins = self._pool.traits.joins
            address = machine.address if joins else (seen.address if seen else "")
            if seen is None or seen.state != "running" or not address:
                continue
            try:
                await self._watching.look(replace(machine, address=address))
            except AgentUnreachable as error:
                log.warning("machine.unreachable", machine=machine.id, why=str(error))

    def joined(self, machine_id: str) -> None:
        """Its agent has just come: look at it without waiting for the next turn."""
        self._joined.add(machine_id)

    async def greet(self) -> None:
        """Look closely for machines that were launched a moment ago."""
        joined, self._joined = self._joined, set()
        for machine_id in joined:
            machine = await self._fleet.machine(machine_id)
            if machine is not None and machine.address and machine.status is _M.LAUNCHING:
                self._watching.watch(machine)
        now = asyncio.get_running_loop().time()
        self._expected = {
            machine_id: until
            for machine_id, until in self._expected.items()
            if now < until and machine_id not in self._watching
        }
        if not self._expected or self._pool.traits.joins:
            return
        up = {seen.machine_id: seen for seen in await self._pool.describe()}
        for machine in await self._fleet.machines():
            seen = up.get(machine.id)
            if machine.id in self._expected and seen is not None and seen.state == "running":
                self._watching.watch(replace(machine, address=seen.address))

    async def _empty(self, machine: Machine) -> None:
        """Somebody who waits needs the machine of somebody who sleeps: the files go into a snapshot."""
        for workspace in await self._store.get_many(await self._fleet.files_on(machine.id)):
            if workspace.status in (_W.STOPPED, _W.FAILED):
                detach = partial(self._actions.detach, workspace)
                self._errands.run(workspace.id, detach, "detach")

    def _expect(self, machine_id: str) -> None:
        self._expected[machine_id] = asyncio.get_running_loop().time() + GREETED

    async def _adopt(self, found: list[Observed]) -> bool:
        """Write machines down again whose records are lost. One that is down is started: only it knows
        what lies on its disk."""
        adopted = False
        for seen in found:
            name = self._pool.name
            if not await self._fleet.adopt(
                name, seen.machine_id, seen.slots, seen.token, seen.instance, seen.zone,
                seen.machine_class or self._times.machine_class,
            ):  # fmt: skip
                continue  # it has a record after all: launched, or removed, a moment ago
            adopted = True
            log.warning("machine.adopted", machine=seen.machine_id, pool=name)
            self._watching.forget(seen.machine_id)
            if seen.state == "stopped":
                token = seen.token or self._token_of(seen.machine_id)
                self._start_again(Launch(seen.machine_id, token, seen.slots))
        return adopted

    async def _note(self, machines: Iterable[Machine]) -> None:
        """What the pool calls them, where their disks are, and what they are billed as."""
        for machine in machines:
            seen = self._seen.get(machine.id)
            if seen is None:
                continue
            kind = seen.machine_class or machine.machine_class
            known = (machine.instance, machine.zone, machine.machine_class)
            if (seen.instance, seen.zone, kind) != known:
                await self._fleet.observe(machine.id, seen.instance, seen.zone, kind)

    def _start_again(self, launch: Launch) -> None:
        async def start() -> None:
            await self._pool.start(launch)
            self._expect(launch.machine_id)

        self._errands.run(launch.machine_id, start, "adopt")

    async def _mend(self, change: reconcile.MachineChange) -> None:
        machine = change.machine
        if isinstance(change, reconcile.Watch):
            self._watching.watch(machine)
        elif isinstance(change, reconcile.Lost):
            await self._lose(machine, change.reason)
        elif isinstance(change, reconcile.Revive):
            if await self._holds_disks(machine):
                self.revive(machine)
        elif isinstance(change, reconcile.Remove):
            self.remove(machine, change.reason, bare=not machine.holds_files)
        elif isinstance(change, reconcile.Park):
            self.park(machine, machine.reason if machine.status is _M.STOPPED else PARKED)
        elif isinstance(change, reconcile.Await):
            await self._tell_waiting(machine)
        elif isinstance(change, reconcile.Down):
            if not self._errands.busy(machine.id):
                await self._sizing.turn(machine, _M.STOPPED, "it did not start")
        elif isinstance(change, reconcile.Repeat):
            pass  # all of them in one launch: tend() does
        else:
            await self._leave(machine, change.reason)

    async def _lose(self, machine: Machine, reason: str) -> None:
        log.warning("machine.lost", machine=machine.id, why=reason)
        if machine.status is not _M.LOST and not await self._sizing.turn(machine, _M.LOST, reason):
            return
        records = await self._store.get_many(await self._fleet.files_on(machine.id))
        for failed in reconcile.failures(machine, records, reason):
            await self._actions.failed(failed.workspace, failed.code, failed.message)

    async def _holds_disks(self, machine: Machine) -> bool:
        """Whether anything is on its own disk, as far as anybody knows: volumes are taken from it."""
        files = await self._store.get_many(await self._fleet.files_on(machine.id))
        if not self._actions.attaches:
            return True
        # Nothing there: it was taken off since its record was read, or nobody has heard yet what there is.
        return any(not each.volume for each in files) if files else machine.unheard

    def revive(self, machine: Machine) -> None:
        """Start a stopped machine on its disk; one that is still stopping is waited for."""
        seen = self._seen.get(machine.id)
        if seen is not None and seen.state == "stopping":
            return

        async def revive() -> None:
            if await self._sizing.turn(machine, _M.LAUNCHING, "started again on its disk"):
                await self._start(Launch(machine.id, machine.token, machine.slots))
            self._expect(machine.id)

        self._errands.run(machine.id, revive)

    async def _start(self, launch: Launch) -> None:
        try:
            await self._pool.start(launch)
        except NoCapacity as error:
            await self._signals.notice(str(error))  # whoever waits for its files reads why
            raise

    async def keep(self, machine: Machine, why: str) -> None:
        """Call its drain off."""
        await self._sizing.turn(machine, _M.READY, why)

    def remove(self, machine: Machine, reason: str, *, bare: bool) -> None:
        """The record goes first: from then on nobody calls the drain off or boots anything there.
        bare: only if no files are there."""

        async def remove() -> None:
            turned = await self._sizing.turn(
                machine, _M.TERMINATED, reason, only_empty=True, bare=bare
            )
            # One that is gone leaves nothing to remove, or we look for it in the wrong place.
            if turned and reason != reconcile.GONE:
                await self._pool.terminate(machine.id)

        self._errands.run(machine.id, remove)

    def park(self, machine: Machine, reason: str, *, bare: bool = False) -> None:
        """The record goes first: from then on nothing is booted there. bare: only if no files are there."""

        async def park() -> None:
            stopped = machine.status is _M.STOPPED or await self._sizing.turn(
                machine, _M.STOPPED, reason, only_empty=True, bare=bare
            )
            if stopped:
                await self._pool.stop(machine.id)

        self._errands.run(machine.id, park)

    async def _tell_waiting(self, machine: Machine) -> None:
        """Who waits for its files is told what they wait for."""
        for workspace in await self._store.get_many(await self._fleet.files_on(machine.id)):
            if workspace.status is _W.QUEUED and workspace.step != "machine-stopping":
                fields = {"step": "machine-stopping"}
                await self._store.note(workspace, "workspace.progress", fields)

    async def _remove_again(self, machine_id: str) -> None:
        """The pool has it and no live record names it: finish a removal that was cut short. One that no
        record speaks of at all is left alone, and so is one that was given up as gone and is not: the
        pool was looked for in the wrong place for a while, and people's files may be on its disk."""
        record = await self._fleet.machine(machine_id)
        came_back = record is not None and record.reason == reconcile.GONE
        if record is not None and record.status is _M.TERMINATED and not came_back:
            self._errands.run(machine_id, lambda: self._pool.terminate(machine_id))
        elif (record is None or came_back) and machine_id not in self._strange:
            self._strange.add(machine_id)
            event = "machine.came_back" if came_back else "machine.unknown"
            log.warning(event, machine=machine_id, pool=self._pool.name)

    async def _leave(self, machine: Machine, reason: str) -> None:
        if self._evacuation is not None:
            await self._evacuation.leaving(machine, reason)
            return
        await self._fleet.doom(machine, await self._store.now_ms(), reason)

    async def _fail_overdue(self, starting: list[Workspace], now: int) -> None:
        if not starting:
            return
        trusted = await self._signals.trusted_since_ms()
        for workspace in policy.overdue_boots(starting, now, self._times.boot_timeout, trusted):
            message = (
                f"its machine {workspace.machine_id} said nothing of it in time; start it again"
            )
            await self._actions.failed(workspace, "boot_timeout", message)

    async def _fail_homeless(
        self, counts: Mapping[str, int], machines: list[Machine], observed: list[Observed]
    ) -> None:
        """Records that came back after a loss, of machines that are gone for good. counts: of workspaces by
        status, a moment ago."""
        seated = sum(machine.occupied for machine in machines)
        if seated == sum(counts[status] for status in OCCUPYING):
            self._homeless.clear()
            return  # everybody has a slot of a machine that is known: no need to read them all
        now = asyncio.get_running_loop().time()
        if now < self._homeless_at:
            return
        # With boots under way the two counts seldom agree, and this reads every record.
        self._homeless_at = now + HOMELESS / 2
        held = await self._store.list(status=OCCUPYING)
        patience = max(HOMELESS, self._pool.traits.lag)
        found = {w.id: w for w in reconcile.homeless(held, machines, observed)}
        self._homeless = {each: self._homeless.get(each, now) for each in found}
        for workspace_id, since in self._homeless.items():
            if now - since >= patience:
                lost = found[workspace_id]
                message = f"its machine {lost.machine_id} is gone, and its record with it. Start it again."
                await self._actions.failed(lost, "machine_lost", message)
