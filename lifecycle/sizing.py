"""How many machines there are: the scaler's decision carried out, and launches told to the pool."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from itertools import zip_longest

import structlog

from lifecycle import reconcile
from lifecycle.errands import Errands
from lifecycle.model import Machine, MachineStatus
from lifecycle.placement import Shortage, shortage
from lifecycle.pools import Launch, NoCapacity, Pool, PoolError
from lifecycle.scaler import Decision, scale
from lifecycle.stores import Conflict
from lifecycle.stores.fleet import RedisFleet
from lifecycle.stores.redis import RedisStore
from lifecycle.stores.signals import RedisSignals
from lifecycle.ticks import Times

log = structlog.get_logger(__name__)

_M = MachineStatus

LAUNCHING = "pool/launch"  # the errands' key
REPEAT_PAUSE = 10.0  # seconds until launches that were not seen are told again
NO_CAPACITY_PAUSE = 10.0  # seconds until a pool that has nothing to give is asked again
AT_ONCE = 1000  # machines of one decision: what EC2 grants at once


class Sizing:
    def __init__(
        self,
        store: RedisStore,
        fleet: RedisFleet,
        signals: RedisSignals,
        pool: Pool,
        errands: Errands,
        times: Times,
        token_of: Callable[[str], str],
        revive: Callable[[Machine], None],
        parks: bool = True,
    ) -> None:
        """token_of: machine id → the token of its agent. revive: starts a stopped machine. parks: a
        dedicated machine is stopped with its workspace, whose files are on it."""
        self._store, self._fleet, self._signals = store, fleet, signals
        self._pool, self._errands, self._times = pool, errands, times
        self._token_of, self._revive = token_of, revive
        self._parks = parks
        self._last: Decision | None = None
        self.evicted: frozenset[str] = frozenset()
        """Dedicated machines of sleepers that others need: to be emptied, not parked."""
        self._not_before = 0.0
        self._again_at = float("-inf")
        self.expect: Callable[[str], None] = lambda machine_id: None

    async def scale(
        self, now: int, newest: int, before: Collection[str], returning: Collection[str]
    ) -> Mapping[str, int]:
        """Size the pool; returns how many workspaces are in each status. newest: the highest number of a
        machine that the pool has. before: machines that had a record a moment ago. returning: those whose
        files somebody waits for."""
        t = self._times
        counts = await self._store.counts()
        users = counts["queued"] + counts["starting"] + counts["running"]
        # After the counts and before the machines: who is counted either waits here, or is seated there.
        queue = await self._store.queued() if counts["queued"] else []
        machines = await self._fleet.machines()
        if set(before) - {machine.id for machine in machines}:
            return counts  # removed meanwhile, or every record is lost: the next turn tells which
        if reconcile.unheard(machines, now, t.launch_timeout):
            return counts  # nobody knows yet how many workspaces there are
        decision = scale(
            users,
            machines,
            now,
            slots=t.slots,
            warm_slots=t.warm_slots,
            max_machines=t.max_machines,
            scale_in_delay=t.scale_in_delay,
            parks=self._parks,
            returning={*returning, *(workspace.machine_id for workspace in queue)},
        )
        short = shortage(queue, machines, t.slots)
        decision = where_volumes_wait(decision, short, t.max_machines - len(machines))
        await self._fleet.decided(decision.to_json())
        self.evicted = frozenset(decision.evict)
        by_id = {machine.id: machine for machine in machines}
        for machine_id in decision.undrain:
            await self.turn(by_id[machine_id], _M.READY, "wanted again")
        for machine_id in decision.revive:
            self._revive(by_id[machine_id])
        for machine_id in decision.drain:
            await self.turn(by_id[machine_id], _M.DRAINING, decision.reason, only_empty=True)
        if decision.launch:
            await self._launch(decision.launch, newest, short.zones)
        self._tell(decision)
        return counts

    async def turn(
        self,
        machine: Machine,
        to: MachineStatus,
        reason: str,
        *,
        only_empty: bool = False,
        bare: bool = False,
    ) -> bool:
        """Change a machine's status unless somebody else was faster; whether it was changed."""
        try:
            await self._fleet.change(machine, to, reason=reason, only_empty=only_empty, bare=bare)
        except Conflict as conflict:
            log.info("machine.overtaken", machine=machine.id, why=str(conflict))
            return False
        return True

    def repeat(self, machines: Sequence[Machine]) -> None:
        """Their launches were written down and nothing was seen of them: who was to launch them is gone,
        or was refused. All in one, and not with every turn: the pool may be short of answers."""
        now = asyncio.get_running_loop().time()
        if not machines or self._errands.busy(LAUNCHING) or now < self._again_at:
            return
        self._again_at = now + REPEAT_PAUSE
        launches = [Launch(each.id, each.token, each.slots, each.zone) for each in machines]
        self._errands.run(LAUNCHING, lambda: self._tell_pool(launches))

    def _tell(self, decision: Decision) -> None:
        last, self._last = self._last, decision
        if last is None or (last.want, last.have) != (decision.want, decision.have):
            log.info("pool.scaled", want=decision.want, have=decision.have, why=decision.reason)

    async def _launch(self, count: int, newest: int, zones: Sequence[str]) -> None:
        """Write each intent down, then ask the pool. An answer that is lost is found by describe().
        zones: where the first of them have to be; in their records at once, or the next turn would want
        others there."""
        if self._errands.busy(LAUNCHING) or asyncio.get_running_loop().time() < self._not_before:
            return
        t = self._times
        ids = await self._fleet.intend(
            self._pool.name, t.slots, min(count, AT_ONCE), t.max_machines, newest, t.machine_class
        )
        wanted = dict(zip_longest(ids, zones[: len(ids)], fillvalue=""))
        for machine_id, zone in wanted.items():
            if zone:
                await self._fleet.observe(machine_id, "", zone)
            self.expect(machine_id)
        launches = [
            Launch(each, self._token_of(each), t.slots, zone) for each, zone in wanted.items()
        ]
        if launches:
            self._errands.run(LAUNCHING, lambda: self._tell_pool(launches))

    async def _tell_pool(self, launches: Sequence[Launch]) -> None:
        try:
            notices = await self._pool.launch(launches)
        except NoCapacity as error:
            notices = [str(error)]
            self._not_before = asyncio.get_running_loop().time() + NO_CAPACITY_PAUSE
            await self._give_up(error)
        except PoolError as error:
            # Whether it was launched is unknown: describe() tells, or its time runs out.
            notices = [f"no new machine yet: the {self._pool.name} pool is asked again"]
            ids = [launch.machine_id for launch in launches]
            log.error("pool.launch_failed", machines=ids, why=str(error))
        if notices:
            log.warning("pool.notice", pool=self._pool.name, why="; ".join(notices))
            await self._signals.notice("; ".join(notices))

    async def _give_up(self, error: NoCapacity) -> None:
        """What certainly was not launched frees its place under the bound at once."""
        for machine_id in error.machine_ids:
            machine = await self._fleet.machine(machine_id)
            if machine is not None and machine.status is _M.LAUNCHING:
                await self.turn(machine, _M.TERMINATED, "no capacity", bare=True)


def where_volumes_wait(decision: Decision, short: Shortage, room: int) -> Decision:
    """The decision with machines where volumes wait, wanted by their number or not. room: machines that may
    be added. At the bound empty ones that nobody who waits can use are given back first. Pure."""
    if not short.zones:
        return decision
    wanted = len(short.zones)
    reason = (
        f"{decision.reason}; volumes wait for {wanted} in {', '.join(sorted(set(short.zones)))}"
    )
    if wanted <= room:
        return replace(decision, launch=max(decision.launch, wanted), reason=reason)
    back = {machine.id for machine in short.idle[: wanted - max(0, room)]}
    return replace(
        decision,
        launch=max(0, room),
        undrain=(),  # they are given back for those that are wanted
        drain=tuple(dict.fromkeys((*decision.drain, *sorted(back)))),
        reason=reason,
    )
