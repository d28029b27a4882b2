"""Instances of Auto Scaling groups, as Auto Scaling and EC2 tell of them together."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from lifecycle.aws import Clients
from lifecycle.pools import State

FLEET, MACHINE, SLOTS = "ide-gateway:fleet", "ide-gateway:machine", "ide-gateway:slots"
JOIN = "ide-gateway:join"

COUNTED = frozenset({"Pending", "Pending:Wait", "Pending:Proceed", "InService"})
"""What the desired capacity counts: neither who stands by nor who goes."""

USABLE = frozenset({"Pending:Wait", "Pending:Proceed", "InService"})
PROTECTABLE = frozenset({"InService", "EnteringStandby", "Standby"})
ALIVE = ("pending", "running", "stopping", "stopped")


@dataclass(frozen=True, slots=True)
class Member:
    """lifecycle: Auto Scaling's word ("InService", "Standby", …). power: EC2's ("running", …); "" when
    EC2 does not know it (yet, or any more). machine_id, slots, fleet: its tags. kind: "m7i.large"."""

    instance: str
    group: str
    lifecycle: str
    power: str = ""
    healthy: bool = True
    protected: bool = False
    zone: str = ""
    fleet: str = ""
    machine_id: str = ""
    slots: int = 0
    kind: str = ""

    @property
    def warm(self) -> bool:
        return self.lifecycle.startswith("Warmed:")

    @property
    def counted(self) -> bool:
        return self.lifecycle in COUNTED

    @property
    def usable(self) -> bool:
        """It can become a machine: Auto Scaling has it and EC2 tells its tags."""
        return self.lifecycle in USABLE and self.power in ("pending", "running")

    @property
    def exists(self) -> bool:
        return not self.warm and (self.power in ALIVE or (not self.power and self.counted))

    @property
    def state(self) -> State:
        if self.power == "stopping":
            return "stopping"
        if self.power == "stopped":
            return "stopped"
        starts = self.lifecycle.startswith("Pending") or self.power != "running"
        return "launching" if starts else "running"

    @property
    def leaving(self) -> str:
        if not self.lifecycle.startswith("Terminating"):
            return ""
        why = "its group scales in or renews it" if self.healthy else "it was found unhealthy"
        return f"Auto Scaling takes it away: {why}"


@dataclass(frozen=True, slots=True)
class Group:
    """title: what people call it. least, most: bounds of the desired capacity. missing: names of groups
    that there are none of."""

    title: str
    desired: int
    least: int
    most: int
    members: list[Member]
    names: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


def protection(
    members: Iterable[Member], machine_ids: Collection[str]
) -> tuple[list[Member], list[Member]]:
    """Whom to protect from scale-in, and whom no more, so that exactly those machines are."""
    able = [member for member in members if member.lifecycle in PROTECTABLE]
    on = [each for each in able if each.machine_id in machine_ids and not each.protected]
    off = [each for each in able if each.machine_id not in machine_ids and each.protected]
    return on, off


async def read(clients: Clients, names: Sequence[str], title: str) -> Group:
    autoscaling = await clients.get("autoscaling")
    pages = autoscaling.get_paginator("describe_auto_scaling_groups")
    groups = [
        group
        async for page in pages.paginate(AutoScalingGroupNames=list(names))
        for group in page["AutoScalingGroups"]
    ]
    found = tuple(group["AutoScalingGroupName"] for group in groups)
    hosts = await _hosts(clients, found) if any(group["Instances"] for group in groups) else {}
    return Group(
        title,
        desired=sum(group["DesiredCapacity"] for group in groups),
        least=sum(group["MinSize"] for group in groups),
        most=sum(group["MaxSize"] for group in groups),
        members=[
            _member(row, group["AutoScalingGroupName"], hosts.get(row["InstanceId"], {}))
            for group in groups
            for row in group["Instances"]
        ],
        names=found,
        missing=tuple(name for name in names if name not in found),
    )


async def _hosts(clients: Clients, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Instance id → what EC2 tells of it. By filter, not by id: one id that EC2 does not know yet would
    fail the whole call."""
    ec2 = await clients.get("ec2")
    asked = {"Name": "tag:aws:autoscaling:groupName", "Values": list(names)}
    return {
        host["InstanceId"]: host
        async for page in ec2.get_paginator("describe_instances").paginate(Filters=[asked])
        for reservation in page["Reservations"]
        for host in reservation["Instances"]
    }


def _member(row: dict[str, Any], group: str, host: dict[str, Any]) -> Member:
    tags = {tag["Key"]: tag["Value"] for tag in host.get("Tags", [])}
    slots = tags.get(SLOTS, "")
    return Member(
        row["InstanceId"],
        group,
        row["LifecycleState"],
        power=host.get("State", {}).get("Name", ""),
        healthy=row.get("HealthStatus") != "Unhealthy",
        protected=row.get("ProtectedFromScaleIn", False),
        zone=row.get("AvailabilityZone", ""),
        fleet=tags.get(FLEET, ""),
        machine_id=tags.get(MACHINE, ""),
        slots=int(slots) if slots.isdecimal() else 0,
        kind=host.get("InstanceType", ""),
    )
