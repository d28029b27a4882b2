"""How many machines there are: the scaler's decision carried out, and launches told to the pool."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import zip_longest

import structlog

from lifecycle import reconcile
from lifecycle.errands import Errands
from lifecycle.model import STANDBY, Machine, MachineStatus
from lifecycle.pace import Census, Flow
from lifecycle.peaks import Peak
from lifecycle.placement import Shortage, shortage
from lifecycle.pools import Launch, NoCapacity, Pool, PoolError, Throttled
from lifecycle.remembering import FRESH, TURNS, flow_recalled, recalled
from lifecycle.scaler import scale
from lifecycle.scaling.memory import begin
from lifecycle.scaling.records import Decision, Facts, Memory, Rule
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
TELL = 60.0  # seconds between two lines in the log about what is only wanted
TIMED = 30.0  # seconds until it is read again how long machines take


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
        peaks: Callable[[], Sequence[Peak]] = lambda: (),
    ) -> None:
        """token_of: machine id → the token of its agent. revive: starts a stopped machine. parks: a
        dedicated machine is stopped with its workspace, whose files are on it. peaks: those that were
        declared."""
        self._store, self._fleet, self._signals = store, fleet, signals
        self._pool, self._errands, self._times = pool, errands, times
        self._token_of, self._revive = token_of, revive
        self._rule, self._peaks = rule_of(times, parks), peaks
        self._last: Decision | None = None
        self._told_at = float("-inf")
        self._memory: Memory | None = None
        self._flow: Flow | None = None
        self._took: tuple[Sequence[float], Sequence[float]] = ((), ())
        self._took_at = float("-inf")
        self._throttled = False
        self.spare = 0
        """Machines beyond what was wanted of late; 0 while that cannot be told."""
        self.evicted: frozenset[str] = frozenset()
        """Dedicated machines of sleepers that others need: to be emptied, not parked."""
        self._not_before = 0.0
        self._again_at = float("-inf")
        self.expect: Callable[[str], None] = lambda machine_id: None

    def forget(self) -> None:
        """Somebody else leads from now on, and remembers more than we do."""
        self._memory, self._flow, self.spare = None, None, 0

    async def scale(
        self,
        now: int,
        newest: int,
        before: Collection[str],
        returning: Collection[str],
        stays: bool = True,
    ) -> Mapping[str, int]:
        """Size the pool; returns how many workspaces are in each status. newest: the highest number of a
        machine that the pool has. before: machines that had a record a moment ago. returning: those whose
        files somebody waits for. stays: whether this process decides again and again."""
        t, self.spare = self._times, 0
        census = await self._census()
        counts = census.counts
        # After the counts and before the machines: who is counted either waits here, or is seated there.
        queue = await self._store.queued() if counts["queued"] else []
        machines = await self._fleet.machines()
        if set(before) - {machine.id for machine in machines}:
            return counts  # removed meanwhile, or every record is lost: the next turn tells which
        if reconcile.unheard(machines, now, t.launch_timeout):
            return counts  # nobody knows yet how many workspaces there are
        memory = self._memory or await self._recall(now, stays)
        facts = self._facts(census, machines, {*returning, *(w.machine_id for w in queue)})
        decision, memory = scale(facts, self._rule, memory, now)
        self._memory, self._flow = memory, census.flow
        rush = decision.need is not None and decision.need.panic
        settled = memory.at - memory.since >= self._rule.settle
        self.spare = decision.spare if settled and not rush else 0
        own, short = decision.launch, shortage(queue, machines, t.slots)
        decision = where_volumes_wait(decision, short, t.max_machines - len(machines))
        await self._fleet.decided(decision.to_json(), asdict(memory), asdict(census.flow))
        self.evicted = frozenset(decision.evict)
        await self._carry_out(decision, {machine.id: machine for machine in machines})
        launched = 0
        if decision.launch:
            launched = await self._launch(decision.launch, newest, short.zones)
        self._spend(own, launched)
        self._tell(decision)
        return counts

    async def _census(self) -> Census:
        """How many there are, and now and then how long machines took."""
        at = asyncio.get_running_loop().time()
        census = await self._store.census(durations=at >= self._took_at + TIMED)
        if census.launches is not None:
            self._took, self._took_at = (census.launches, census.starts or ()), at
        return census

    async def _recall(self, now: int, stays: bool) -> Memory:
        """What whoever led before remembered, if that was a moment ago. Who has just begun to lead gives
        nothing back before things have settled; who comes by a schedule began with its first turn."""
        try:
            written = await self._fleet.pool_decision()
        except (TypeError, ValueError):
            written = {}  # not what we wrote
        found = recalled(written.get("memory"), now, self._rule, FRESH if stays else TURNS)
        if found is None:
            return begin(now, self._rule)
        self._flow = flow_recalled(written.get("flow"))
        return replace(found, since=now / 1000) if stays else found

    def _facts(
        self, census: Census, machines: Sequence[Machine], returning: Collection[str]
    ) -> Facts:
        counts, came = census.counts, census.flow.since(self._flow)
        throttled, self._throttled = self._throttled, False
        launches, starts = self._took
        return Facts(
            users=counts["queued"] + counts["starting"] + counts["running"],
            machines=machines,
            arrivals=came.arrivals,
            departures=came.departures,
            waits=came.waits,
            boots=launches,
            starts=starts,
            peaks=self._peaks(),
            returning=returning,
            throttled=throttled,
        )

    async def _carry_out(self, decision: Decision, by_id: Mapping[str, Machine]) -> None:
        """All of it but the launches."""
        for machine_id in decision.undrain:
            await self.turn(by_id[machine_id], _M.READY, "wanted again")
        for machine_id in decision.revive:
            self._revive(by_id[machine_id])
        for machine_id in decision.drain:
            await self.turn(by_id[machine_id], _M.DRAINING, decision.reason, only_empty=True)
        for machine_id in decision.park:
            # Emptied first, as any other; it is stopped once no files are there.
            await self.turn(by_id[machine_id], _M.DRAINING, STANDBY, only_empty=True)

    def _spend(self, decided: int, launched: int) -> None:
        """Launches that were not asked for after all are still granted; those beyond what the scaler decided are not any
        more."""
        memory = self._memory
        if memory is not None and self._rule.burst:
            tokens = max(0.0, min(memory.burst, memory.tokens + decided - launched))
            self._memory = replace(memory, tokens=tokens)

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
        """What is wanted moves with every forecast: what is done about it is told, and the rest now and then."""
        last, at = self._last, asyncio.get_running_loop().time()
        d = decision
        if last is not None and (last.want, last.have) == (d.want, d.have):
            return
        if d.launch or d.undrain or d.revive or d.drain or d.park or at >= self._told_at + TELL:
            self._last, self._told_at = d, at
            log.info("pool.scaled", want=d.want, have=d.have, why=d.reason)

    async def _launch(self, count: int, newest: int, zones: Sequence[str]) -> int:
        """Write each intent down, then ask the pool; of how many. An answer that is lost is found by
        describe().
        zones: where the first of them have to be; in their records at once, or the next turn would want
        others there."""
        if self._errands.busy(LAUNCHING) or asyncio.get_running_loop().time() < self._not_before:
            return 0
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
        return len(launches)

    async def _tell_pool(self, launches: Sequence[Launch]) -> None:
        try:
            notices = await self._pool.launch(launches)
        except NoCapacity as error:
            notices = [str(error)]
            self._not_before = asyncio.get_running_loop().time() + NO_CAPACITY_PAUSE
            await self._give_up(error)
        except PoolError as error:
            # Whether it was launched is unknown: describe() tells, or its time runs out.
            self._throttled |= isinstance(error, Throttled)
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


def rule_of(t: Times, parks: bool) -> Rule:
    """The scaler's rule, from settings."""
    return Rule(
        slots=t.slots,
        warm_slots=t.warm_slots,
        max_machines=t.max_machines,
        scale_in_delay=t.scale_in_delay,
        wait_probability=t.wait_probability,
        settle=t.settle,
        standby=t.standby_machines,
        burst=t.launch_burst,
        rate=t.launch_rate,
        parks=parks,
        boot_guess=t.boot_guess,
        wait_cost=t.wait_cost,
        machine_hour=t.machine_hour,
    )


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
