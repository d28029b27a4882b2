"""A fleet on moto's EC2: the real pool over the network, loops, and a fake agent on each instance that joins,
reports and goes down with it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from redis.asyncio import Redis

from lifecycle.actions import Actions
from lifecycle.aws import Clients
from lifecycle.evacuation import Evacuation
from lifecycle.joining import Joining
from lifecycle.loops import Loops
from lifecycle.news import News
from lifecycle.pools import Launch
from lifecycle.pools.bootstrap import Bootstrap
from lifecycle.pools.ec2 import Ec2Pool
from lifecycle.pools.ec2_launch import Ec2Config
from tests.lifecycle.fakes import FakeAgents, Files
from tests.lifecycle.world import PLAN, TIMES, Leader, World, token_of

CHANGES = {"RunInstances", "StartInstances", "StopInstances", "TerminateInstances"}
QUICK = {
    "scale_interval": 0.03, "slots": 1, "launch_timeout": 1.0, "scale_in_delay": 0.0,
}  # fmt: skip


class Cloud(World):
    """Its machines are instances; self.pool only has their agents and disks. dead: instances that never
    join."""

    def __init__(
        self,
        redis: Redis,
        aws: Any,
        *,
        slots: int = 1,
        lag: float = 0.3,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """lag: of the pool; two minutes, in a test of seconds. clock: the pool's."""
        super().__init__(redis)
        self.aws, self.ec2 = aws, aws.client("ec2")
        self.slots, self.lag, self.clock = slots, lag, clock
        self.dead: set[str] = set()
        self._clients: list[Clients] = []
        self._seen = -1

    def leader(self, **times: Any) -> Leader:
        """Each with a pool of its own, as in a process of its own."""
        self._clients.append(Clients())
        pool = Ec2Pool(
            Ec2Config("blue", self.slots, image="ami-12345678", instance_types=("t3.micro",)),
            Bootstrap("https://ide.example.com", 7070, Joining("key").code),
            self._clients[-1],
            clock=self.clock,
        )
        pool.traits = replace(pool.traits, lag=self.lag)
        agents, news = FakeAgents(self.pool), News(self.signals)
        actions = Actions(self.store, self.fleet, agents, PLAN, self.pool.target.open)
        loops = Loops(
            self.store, self.fleet, self.signals, news, pool, agents, actions,
            replace(TIMES, **(QUICK | {"slots": self.slots} | times)), token_of, Evacuation(self.store, self.fleet, self.signals),
        )  # fmt: skip
        self.leaders.append(Leader(loops, news))
        return self.leaders[-1]

    async def close(self) -> None:
        await super().close()
        for clients in self._clients:
            await clients.close()

    async def instances(self) -> dict[str, tuple[str, str]]:
        """Instance → (machine, state), of those that exist."""
        answer = await asyncio.to_thread(self.ec2.describe_instances)
        rows = [row for found in answer["Reservations"] for row in found["Instances"]]
        return {
            row["InstanceId"]: (machine_of(row), row["State"]["Name"])
            for row in rows
            if row["State"]["Name"] != "terminated"
        }

    async def live(self) -> None:
        """What happens on the instances: agents come up and say so, and go down with them."""
        while True:
            changes = sum(c.action in CHANGES and c.status > 0 for c in self.aws.calls)
            if changes != self._seen:
                self._seen = changes
                await self._follow(await self.instances())
            for agent in list(self.pool.agents.values()):
                await self.fleet.heard(agent.machine_id, agent.address)
            await self.flush()
            await asyncio.sleep(0.03)

    async def _follow(self, there: dict[str, tuple[str, str]]) -> None:
        up = {machine: each for each, (machine, state) in there.items() if state == "running"}
        for machine_id in set(self.pool.agents) - up.keys():
            self.pool.kill(machine_id)
        for machine_id in set(self.pool.disks) - {machine for machine, _ in there.values()}:
            del self.pool.disks[machine_id]
        for machine_id, instance in up.items():
            if machine_id not in self.pool.agents and instance not in self.dead:
                self.pool.disks.setdefault(machine_id, Files())
                self.pool.power_on(Launch(machine_id, token_of(machine_id), self.slots))
                address = self.pool.agents[machine_id].address
                await self.fleet.join(machine_id, instance, address, instance)

    async def check_no_orphan(self) -> None:
        """Every instance is a machine's that somebody still wants, and no machine has two."""
        found = [machine for machine, _ in (await self.instances()).values()]
        known = {machine.id for machine in await self.fleet.machines()}
        assert set(found) <= known, "an orphan"
        assert len(found) == len(set(found)), "launched twice"


def machine_of(row: dict[str, Any]) -> str:
    tags = {tag["Key"]: tag["Value"] for tag in row["Tags"]}
    return f"m-{int(tags['ide-gateway:first']) + row['AmiLaunchIndex']}"
