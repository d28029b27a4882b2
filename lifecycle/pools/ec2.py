"""Machines on EC2: instances that join by themselves, found again by their tags.

RunInstances may be called 1,000 instances' worth at once, and then for 2 more every second (its resource
bucket), so machines come in batches, a few calls at a time. What is throttled, botocore asks again after a
jittered pause (lifecycle.aws).

No machine comes twice: what the tags show is left alone, every call carries a client token that is a
function of what it asks for, and a call of which nobody knows how it ended is never tried elsewhere.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Sequence

from lifecycle.aws import Clients
from lifecycle.identifiers import machine_number
from lifecycle.pools import Launch, NoCapacity, Observed, PoolError, Traits
from lifecycle.pools import ec2_check as checks
from lifecycle.pools.bootstrap import Bootstrap
from lifecycle.pools.ec2_calls import Ec2Calls, code
from lifecycle.pools.ec2_instances import Instance, Recent, show
from lifecycle.pools.ec2_launch import LARGEST_BATCH, Ec2Config, Run, runs
from lifecycle.pools.ec2_placing import Placing
from lifecycle.pools.refusals import all_in_one

log = logging.getLogger(__name__)

LAG = 120.0
AT_ONCE = 4
"""Calls of RunInstances under way at a time."""
STOPPED_TOGETHER = 50

_NOT_HIBERNATED = {
    "UnsupportedHibernationConfiguration",  # not launched for it
    "UnsupportedOperation",
    "IncorrectInstanceState",  # not ready for it: it came up a moment ago
}
_NOT_NOW = {"InsufficientInstanceCapacity", "InsufficientHostCapacity", "IncorrectSpotRequestState"}
_GONE = {"InvalidInstanceID.NotFound", "InvalidInstanceID.Malformed"}


class Ec2Pool:
    """A Pool. clock: seconds, for how far a list may be behind and how long to pass over an offering."""

    name = "ec2"

    def __init__(
        self,
        config: Ec2Config,
        bootstrap: Bootstrap,
        clients: Clients,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.traits = Traits(lag=LAG, keeps_disks=config.can_stop, joins=True)
        self._config, self._clock = config, clock
        self._calls = Ec2Calls(clients, config.fleet)
        self._recent = Recent(LAG)
        self._placing = Placing(config, bootstrap, self._calls, self._recent, clock)

    async def check(self) -> None:
        """Ask whether it can work at all: credentials, region, and everything that the settings name.
        Raises PoolError with what to do."""
        self._placing.zones = await checks.check(self._calls, self._config)

    async def launch(self, launches: Sequence[Launch]) -> list[str]:
        """See Pool. What is wanted anew after an end that nobody knows of is the same call again."""
        for launch in launches:
            if not machine_number(launch.machine_id):
                raise PoolError(f"{launch.machine_id[:70]!r} is no machine's name: use m-1, m-2, …")
        there = {each.machine_id for each in await self._instances()}
        missing = [launch for launch in launches if launch.machine_id not in there]
        bound = asyncio.Semaphore(AT_ONCE)

        async def place(run: Run) -> list[str]:
            async with bound:
                return await self._placing.place(run)

        ends = await asyncio.gather(
            *(place(run) for run in runs(missing, self._config.batch)), return_exceptions=True
        )
        return _together(ends)

    async def describe(self) -> list[Observed]:
        return show(await self._instances())

    async def start(self, launch: Launch) -> None:
        machine_id = launch.machine_id
        found = await self._find(machine_id)
        shown = {row.instance: row.state for row in show(found)}
        if not shown:
            raise PoolError(f"machine {machine_id} has no instance any more; launch another one")
        ((instance_id, state),) = shown.items()
        if state == "stopping":
            raise PoolError(f"machine {machine_id} is still stopping; start it once it is stopped")
        if state != "stopped":
            return
        doing = f"start machine {machine_id} ({instance_id})"
        try:
            await self._calls.ask(doing, "start_instances", InstanceIds=[instance_id])
        except PoolError as error:
            if code(error) in _NOT_NOW:
                raise NoCapacity(str(error)) from error
            raise

    async def stop(self, machine_id: str) -> None:
        """See Pool. Nothing runs of a machine that is gone: that is success too."""
        running = [each.id for each in await self._find(machine_id) if _runs(each)]
        if running:
            await self._stop(machine_id, running)

    async def terminate(self, machine_id: str) -> None:
        """Every instance that bears its name."""
        for each in await self._find(machine_id):
            await self._terminate(each)

    async def protect(self, machine_ids: Collection[str]) -> None:
        """Nothing to do: EC2 takes no machine away by itself but a spot one, and that no call prevents."""

    async def close(self, stop_machines: bool) -> None:
        if not stop_machines:
            return
        running = [each for each in await self._instances() if _runs(each)]
        if running and not self._config.can_stop:
            log.warning("%d spot machines run on: they cannot be stopped", len(running))
            return
        failed = []
        for start in range(0, len(running), STOPPED_TOGETHER):
            failed += await self._stop_each(running[start : start + STOPPED_TOGETHER])
        if failed:
            raise PoolError("; ".join(failed))

    async def _instances(self) -> list[Instance]:
        return self._recent.correct(await self._calls.instances(), self._clock())

    async def _find(self, machine_id: str) -> list[Instance]:
        """Instances of that machine."""
        number = machine_number(machine_id)
        if not number:
            return []
        firsts = range(max(1, number - LARGEST_BATCH + 1), number + 1)
        listed = await self._calls.instances(firsts)
        found = self._recent.correct(listed, self._clock())
        return [each for each in found if each.number == number]

    async def _stop_each(self, instances: Sequence[Instance]) -> list[str]:
        """Together, or one by one when one of them stands in the way; what could not be stopped and why."""
        names = ", ".join(each.machine_id for each in instances)
        try:
            await self._stop(names, [each.id for each in instances])
        except PoolError as error:
            if len(instances) == 1:
                return [str(error)]
            ends = [await self._stop_each([each]) for each in instances]
            return [why for end in ends for why in end]
        return []

    async def _stop(self, names: str, instance_ids: list[str]) -> None:
        doing = f"stop {names} ({', '.join(instance_ids)})"
        if self._config.hibernate:
            try:
                await self._calls.ask(
                    doing, "stop_instances", InstanceIds=instance_ids, Hibernate=True
                )
                return
            except PoolError as error:
                if code(error) not in _NOT_HIBERNATED:
                    raise
                log.warning("stopped without its memory: %s", error)
        await self._calls.ask(doing, "stop_instances", InstanceIds=instance_ids)

    async def _terminate(self, instance: Instance) -> None:
        """One call each: EC2 does nothing at all when one of several ids is unknown to it."""
        doing = f"terminate machine {instance.machine_id} ({instance.id})"
        if instance.spot_request:
            # A persistent request would put another instance in its place.
            try:
                await self._calls.ask(
                    doing,
                    "cancel_spot_instance_requests",
                    SpotInstanceRequestIds=[instance.spot_request],
                )
            except PoolError as error:
                if not code(error).startswith("InvalidSpotInstanceRequestID"):
                    raise
        try:
            await self._calls.ask(doing, "terminate_instances", InstanceIds=[instance.id])
        except PoolError as error:
            if code(error) not in _GONE:
                raise
            if self._recent.knows(instance.id, self._clock()):
                raise PoolError(f"cannot {doing}: EC2 does not show it yet; ask again") from error
        self._recent.terminated(instance.id, self._clock())


def _runs(instance: Instance) -> bool:
    return instance.state in ("pending", "running")


def _together(ends: Sequence[list[str] | BaseException]) -> list[str]:
    """Everyone's notices, each once; or everyone's errors in one."""
    notices = [notice for end in ends if isinstance(end, list) for notice in end]
    errors = [end for end in ends if isinstance(end, BaseException)]
    for notice in notices if errors else []:
        log.warning("%s", notice)
    for error in errors:
        if not isinstance(error, PoolError):
            raise error
    words = "; ".join(dict.fromkeys(map(str, errors)))
    short = [error for error in errors if isinstance(error, NoCapacity)]
    if short:
        raise NoCapacity(words, [each for error in short for each in error.machine_ids])
    if errors:
        raise all_in_one(words, errors) from errors[0]
    return list(dict.fromkeys(notices))
