"""Machines that are instances of Auto Scaling groups: what `asg` and `eks` share.

Auto Scaling starts instances without names. The pool raises the desired capacity to what is needed, and
gives each instance that comes up the name of a machine that waits for one (lifecycle.pools.naming), by
tags on it:

    ide-gateway:fleet, ide-gateway:machine, ide-gateway:slots, ide-gateway:join

The agent reads the last one through IMDS (the launch template allows instance tags there, and its user
data holds nothing but the gateway's address) and joins with it. The tag stays: used, it opens nothing.

Capacity is never lowered by a number, because then Auto Scaling would choose who goes: machines go one
by one, each by its own name. An instance that nobody waits for goes after ten minutes. So a group belongs
to one fleet alone, with a minimum of 0. A machine that is launching is not protected from scale-in: what
is lost there is launched again.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from lifecycle.aws import Clients, code_of, explain, failures
from lifecycle.identifiers import machine_number
from lifecycle.pools import Launch, NoCapacity, Observed, PoolError, Traits
from lifecycle.pools.bootstrap import Bootstrap
from lifecycle.pools.members import FLEET, JOIN, MACHINE, SLOTS, Group, Member, protection, read
from lifecycle.pools.naming import LAG, Naming
from lifecycle.pools.refusals import pool_error

log = logging.getLogger(__name__)

TAGGED_AT_ONCE = 10
PROTECTED_AT_ONCE = 50  # instances in one call: Auto Scaling's own limit

BUSY = ("ScalingActivityInProgress", "ResourceContention", "ResourceInUseException")
"""The group does something else just now; describe() asks again."""

_GONE = re.compile(r"not found|no managed instance", re.IGNORECASE)


class GroupPool:
    """A Pool but for start and stop. Subclasses say where the group is and how it grows."""

    name = "group"
    traits = Traits(lag=LAG, keeps_disks=False, joins=True)

    def __init__(
        self,
        fleet: str,
        bootstrap: Bootstrap,
        clients: Clients,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """clock: seconds that only grow."""
        self._fleet, self._code, self._clients, self._clock = fleet, bootstrap.code, clients, clock
        self._turn = asyncio.Lock()  # one at a time looks who is free and gives names
        self._naming = Naming(fleet)
        self._seen: list[Member] = []

    async def _find(self) -> Group:
        """The group as AWS tells it now. Raises PoolError when there is none."""
        raise NotImplementedError

    async def _raise(self, desired: int) -> None:
        """Have it grow to that many instances. Raises what the client raises."""
        raise NotImplementedError

    async def _attend(self, members: Sequence[Member]) -> None:
        """What else is to be done about the instances with every look."""

    async def _end(self, member: Member) -> None:
        """Terminate it, and lower the desired capacity with it."""
        if member.lifecycle.startswith("Terminating"):
            return
        autoscaling = await self._clients.get("autoscaling")
        await autoscaling.terminate_instance_in_auto_scaling_group(
            InstanceId=member.instance, ShouldDecrementDesiredCapacity=True
        )

    async def launch(self, launches: Sequence[Launch]) -> list[str]:
        """See Pool. A launch's zone is not honoured: the group balances its zones by itself, so the one
        that has the fewest machines is next."""
        async with self._turn:
            group = await self._look()
            new = self._naming.want(launches, group.members)
            over = max(0, self._naming.needed(group.members, self._clock()) - group.most)
            refused = new[max(0, len(new) - over) :]
            for machine_id in refused:
                self._naming.give_up(machine_id)
            await self._grow(group)
            await self._name_free(group)
        if refused:
            raise NoCapacity(
                f"{group.title} is at its maximum of {group.most} instances: no room for"
                f" {' '.join(refused)}; raise its maximum, or lower --max-machines",
                refused,
            )
        return []

    async def describe(self) -> list[Observed]:
        async with self._turn:
            group = await self._look()
            try:
                await self._grow(group)
            except PoolError as error:
                log.warning("%s; next try with the next look", error)
            members = await self._name_free(group)
            await self._end_spare(members)
            await self._attend(members)
            self._seen = members
        now = self._clock()
        return [_observed(each) for each in members if self._naming.shows(each, now)]

    async def terminate(self, machine_id: str) -> None:
        self._naming.give_up(machine_id)
        with said(f"terminate machine {machine_id}"):
            member = await self._member(machine_id)
            if member is not None:
                await self._end_once(member)

    async def protect(self, machine_ids: Collection[str]) -> None:
        if not self._seen:
            self._seen = (await self._read()).members
        on, off = protection([m for m in self._seen if self._naming.is_ours(m)], machine_ids)
        # First on: a failure in between leaves one protected too many.
        for members, protected in ((on, True), (off, False)):
            await self._set_protection(members, protected)

    async def close(self, stop_machines: bool) -> None:
        """Machines outlive the gateway: a stopped one would be replaced."""

    async def check(self) -> None:
        """Raise PoolError with what to do, unless the group can be used."""
        group = await self._find()
        if group.least > 0:
            raise PoolError(
                f"{group.title} has a minimum of {group.least} instances, which would run and be"
                " replaced whatever is needed; set its minimum to 0"
            )

    async def _read(self) -> Group:
        group = await self._find()
        return replace(group, members=self._naming.known(group.members))

    async def _look(self) -> Group:
        """Read it, and keep in mind what is seen. Only under the lock: an older answer would forget."""
        group = await self._find()
        return replace(group, members=self._naming.see(group.members, self._clock()))

    async def _member(self, machine_id: str) -> Member | None:
        now = self._clock()
        found = [m for m in (await self._read()).members if m.machine_id == machine_id]
        return next((m for m in found if self._naming.shows(m, now)), None)

    async def _grow(self, group: Group) -> None:
        """Raise the desired capacity where it does not do. Safe to repeat: it is a total."""
        desired = min(self._naming.needed(group.members, self._clock()), group.most)
        if desired <= group.desired:
            return
        try:
            await self._raise(desired)
        except failures() as error:
            if code_of(error) not in BUSY:
                doing = f"raise {group.title} to {desired} instances"
                raise pool_error(error, doing) from error
            log.info("%s is busy; it is raised to %s with the next look", group.title, desired)

    async def _name_free(self, group: Group) -> list[Member]:
        members = self._naming.name(group.members, self._clock())
        limit = asyncio.Semaphore(TAGGED_AT_ONCE)
        due = self._naming.to_tag()
        await asyncio.gather(*(self._tag(instance, launch, limit) for instance, launch in due))
        return members

    async def _tag(self, instance: str, launch: Launch, limit: asyncio.Semaphore) -> None:
        tags = {
            FLEET: self._fleet,
            MACHINE: launch.machine_id,
            SLOTS: str(launch.slots),
            JOIN: self._code(machine_number(launch.machine_id), 1),
        }
        try:
            async with limit:
                ec2 = await self._clients.get("ec2")
                pairs = [{"Key": key, "Value": value} for key, value in tags.items()]
                await ec2.create_tags(Resources=[instance], Tags=pairs)
            self._naming.tagged(instance)
        except failures() as error:
            doing = f"name instance {instance} machine {launch.machine_id}"
            log.warning("%s; next try with the next look", explain(error, doing))

    async def _end_spare(self, members: Sequence[Member]) -> None:
        for member in self._naming.spare(members, self._clock()):
            log.warning("instance %s is nobody's machine: it is terminated", member.instance)
            try:
                await self._end_once(member)
            except failures() as error:
                log.warning("%s", explain(error, f"terminate instance {member.instance}"))

    async def _end_once(self, member: Member) -> None:
        try:
            await self._end(member)
        except failures() as error:
            if code_of(error) != "ValidationError" or not _GONE.search(str(error)):
                raise
        self._naming.ended(member, self._clock())

    async def _set_protection(self, members: Sequence[Member], protected: bool) -> None:
        for group in {member.group for member in members}:
            instances = [member.instance for member in members if member.group == group]
            for start in range(0, len(instances), PROTECTED_AT_ONCE):
                some = instances[start : start + PROTECTED_AT_ONCE]
                with said(f"protect machines of Auto Scaling group {group} from scale-in"):
                    autoscaling = await self._clients.get("autoscaling")
                    await autoscaling.set_instance_protection(
                        AutoScalingGroupName=group,
                        InstanceIds=some,
                        ProtectedFromScaleIn=protected,
                    )
                self._seen = [
                    replace(each, protected=protected) if each.instance in some else each
                    for each in self._seen
                ]


def _observed(member: Member) -> Observed:
    return Observed(
        member.machine_id,
        member.state,
        slots=member.slots,
        instance=member.instance,
        zone=member.zone,
        leaving=member.leaving,
        machine_class=member.kind,
    )


@contextmanager
def said(doing: str) -> Iterator[None]:
    """AWS's errors as PoolErrors."""
    try:
        yield
    except failures() as error:
        raise pool_error(error, doing) from error


async def grouped(clients: Clients, names: Sequence[str], title: str) -> Group:
    """These Auto Scaling groups as one; PoolError when one is missing."""
    with said(f"look at {title}"):
        found = await read(clients, names, title)
    if found.missing:
        region = (await clients.get("autoscaling")).meta.region_name
        raise PoolError(
            f"there is no Auto Scaling group {' '.join(found.missing)} in {region}: create it"
            " (deploy/ has a template), or correct the setting and --aws-region"
        )
    return found
