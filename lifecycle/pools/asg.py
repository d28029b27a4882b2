"""Machines of an Auto Scaling group: `--pool asg`. See lifecycle.pools.groups for how they get names.

Stopping: the instance is put on standby, which takes it out of the desired capacity, of health checks and
of replacement, and is stopped; its disk stays. Started again it goes back into service once it runs. After
a change of leader in between it stays on standby and runs all the same; nothing of ours depends on it.
Zone rebalancing (AZRebalance) should be suspended: machines on standby make zones look unequal.

Warm pool: kept at the size of the setting, looked at once a minute; 0 deletes it. Instances never return
to it: on their disks are people's files. Terminating is always for good.

Lifecycle hooks, whatever their names: one for launching is completed as soon as the instance has its
machine's name (one that prepares for the warm pool, at once); one for terminating once the machine was
drained and terminate() is called, and is kept from timing out until then. So the group's hooks must be
for this gateway alone. Without one for terminating, what Auto Scaling takes away is gone at once.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from lifecycle.aws import Clients, code_of, explain, failures
from lifecycle.pools import Launch, NoCapacity, PoolError, Traits
from lifecycle.pools.bootstrap import Bootstrap
from lifecycle.pools.groups import GroupPool, grouped, said
from lifecycle.pools.hooks import Hooks, WarmPool
from lifecycle.pools.members import Group, Member
from lifecycle.pools.naming import LAG
from lifecycle.pools.refusals import pool_error

log = logging.getLogger(__name__)

WARM_EVERY = 60.0  # seconds between two looks at the warm pool
STANDBY_WAIT = 30.0  # seconds that close() waits for machines to go on standby

_NO_CAPACITY = ("InsufficientInstanceCapacity", "InsufficientHostCapacity", "InstanceLimitExceeded")


@dataclass(frozen=True, slots=True)
class AsgConfig:
    """group: the Auto Scaling group's name. warm_pool: instances kept ready, 0 for none."""

    fleet: str
    slots: int
    group: str
    warm_pool: int = 0
    warm_pool_state: Literal["Stopped", "Hibernated"] = "Stopped"


class AsgPool(GroupPool):
    """A Pool."""

    name = "asg"
    traits = Traits(lag=LAG, keeps_disks=True, joins=True)

    def __init__(
        self,
        config: AsgConfig,
        bootstrap: Bootstrap,
        clients: Clients,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(config.fleet, bootstrap, clients, clock)
        self._group = config.group
        self._title = f"Auto Scaling group {config.group}"
        self._hooks = Hooks(clients, config.group)
        self._warm = WarmPool(clients, config.group, config.warm_pool, config.warm_pool_state)
        self._warm_at: float | None = None
        self._returning: set[str] = set()

    async def start(self, launch: Launch) -> None:
        member = await self._member(launch.machine_id)
        if member is None:
            raise PoolError(
                f"machine {launch.machine_id} is no instance of {self._title}; launch another one"
            )
        if member.state == "stopping":
            raise PoolError(f"machine {launch.machine_id} still stops; start it once it is stopped")
        if member.lifecycle == "Standby":
            self._returning.add(member.instance)
        if member.state == "stopped":
            ec2 = await self._clients.get("ec2")
            try:
                await ec2.start_instances(InstanceIds=[member.instance])
            except failures() as error:
                why = pool_error(error, f"start machine {launch.machine_id}")
                raise (NoCapacity(str(why)) if code_of(error) in _NO_CAPACITY else why) from error

    async def stop(self, machine_id: str) -> None:
        """Asked again until describe() shows it stopped: it may take a while to go on standby."""
        member = await self._member(machine_id)
        if member is None or member.state in ("stopping", "stopped"):
            return
        self._returning.discard(member.instance)
        with said(f"stop machine {machine_id}"):
            if member.lifecycle == "InService":
                autoscaling = await self._clients.get("autoscaling")
                await autoscaling.enter_standby(
                    AutoScalingGroupName=member.group,
                    InstanceIds=[member.instance],
                    ShouldDecrementDesiredCapacity=True,
                )
                member = await self._member(machine_id)
            # Stopped before it stands by, it would be found unhealthy and be replaced.
            if member is not None and member.lifecycle == "Standby":
                ec2 = await self._clients.get("ec2")
                await ec2.stop_instances(InstanceIds=[member.instance])

    async def close(self, stop_machines: bool) -> None:
        left = await self._running() if stop_machines else []
        deadline = self._clock() + STANDBY_WAIT
        while left and self._clock() < deadline:
            for machine_id in left:
                await self.stop(machine_id)
            left = await self._running()
            await asyncio.sleep(1 if left else 0)

    async def _running(self) -> list[str]:
        rows = await self.describe()
        return [row.machine_id for row in rows if row.state in ("launching", "running")]

    async def _find(self) -> Group:
        return await grouped(self._clients, [self._group], self._title)

    async def _raise(self, desired: int) -> None:
        autoscaling = await self._clients.get("autoscaling")
        await autoscaling.set_desired_capacity(
            AutoScalingGroupName=self._group, DesiredCapacity=desired, HonorCooldown=False
        )

    async def _end(self, member: Member) -> None:
        if member.lifecycle == "Terminating:Wait":
            await self._hooks.let_go([member])
        elif member.lifecycle in ("Standby", "EnteringStandby"):
            # The desired capacity does not count it any more: it must not be lowered once again.
            ec2 = await self._clients.get("ec2")
            await ec2.terminate_instances(InstanceIds=[member.instance])
        else:
            await super()._end(member)

    async def _attend(self, members: Sequence[Member]) -> None:
        steps: list[Callable[[Sequence[Member]], Awaitable[None]]]
        steps = [self._answer_hooks, self._return, self._keep_warm]
        for step in steps:
            try:
                await step(members)
            except failures() as error:
                log.warning(
                    "%s; next try with the next look", explain(error, f"tend {self._title}")
                )

    async def _answer_hooks(self, members: Sequence[Member]) -> None:
        now, naming = self._clock(), self._naming
        born = [m for m in members if m.lifecycle == "Pending:Wait" and naming.is_tagged(m)]
        dying = [m for m in members if m.lifecycle == "Terminating:Wait"]
        # One without a name may be a machine whose tags are not seen yet: its time runs out by itself.
        await self._hooks.let_go(born + [m for m in dying if naming.is_ended(m, now)])
        await self._hooks.hold([m for m in dying if naming.shows(m, now)], now)

    async def _return(self, members: Sequence[Member]) -> None:
        """Back into service, once they run: a stopped one would be replaced there."""
        self._returning &= {member.instance for member in members}
        standing = [m for m in members if m.lifecycle == "Standby" and m.power == "running"]
        ready = [m.instance for m in standing if m.instance in self._returning]
        if ready:
            self._returning.difference_update(ready)  # asked once: on standby they run as well
            autoscaling = await self._clients.get("autoscaling")
            await autoscaling.exit_standby(AutoScalingGroupName=self._group, InstanceIds=ready)

    async def _keep_warm(self, members: Sequence[Member]) -> None:
        now = self._clock()
        if self._warm_at is None or now - self._warm_at >= WARM_EVERY:
            # Those that prepare for the warm pool, or leave it, hold nothing to wait for.
            await self._hooks.let_go(await self._warm.look())
            self._warm_at = now
