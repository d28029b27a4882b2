"""What RunInstances is asked, and what its refusals mean. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from lifecycle.identifiers import machine_number
from lifecycle.pools import Launch
from lifecycle.pools.offerings import Offering

FLEET, FIRST, SLOTS = "ide-gateway:fleet", "ide-gateway:first", "ide-gateway:slots"
"""Tags of every instance and its disks. FIRST: number of the first machine of its launch."""

LARGEST_BATCH = 100
"""A machine's launch is looked up by the numbers that it may have started with, and AWS takes 200 values
in all filters of a call."""


@dataclass(frozen=True, slots=True)
class Ec2Config:
    """What to launch: a launch template, plain parameters, or both (the parameters win).

    fleet: the tag's value that marks what is ours. slots: workspaces per machine; 1 makes machines
    dedicated: they are stopped and started again. launch_template: "NAME-OR-ID[:VERSION]".
    instance_types, subnets: in order of preference; empty leaves it to the template. instance_profile:
    by name. hibernate: keep a stopped machine's memory. batch: machines per call at most.

    Spot machines that are shared come by a one-time request: interrupted, they are gone, and they cannot
    be stopped. Dedicated ones come by a persistent request, as only those can be stopped; an interruption
    stops (or hibernates) them, and EC2 starts them again when it can.
    """

    fleet: str
    slots: int
    launch_template: str = ""
    image: str = ""
    instance_types: tuple[str, ...] = ()
    subnets: tuple[str, ...] = ()
    security_groups: tuple[str, ...] = ()
    instance_profile: str = ""
    market: Literal["on-demand", "spot"] = "on-demand"
    hibernate: bool = False
    batch: int = 50

    def __post_init__(self) -> None:
        if not 1 <= self.batch <= LARGEST_BATCH:
            raise ValueError(f"batch must be 1 to {LARGEST_BATCH}, not {self.batch}")

    @property
    def can_stop(self) -> bool:
        return self.market == "on-demand" or self.slots == 1

    @property
    def template(self) -> dict[str, str]:
        """The template, as calls of EC2 name it."""
        name, _, version = self.launch_template.partition(":")
        kind = "LaunchTemplateId" if name.startswith("lt-") else "LaunchTemplateName"
        return {kind: name, "Version": version or "$Default"}


@dataclass(frozen=True, slots=True)
class Run:
    """Machines of consecutive numbers that one call asks for. zone: where they have to be; "" is anywhere."""

    first: int
    count: int
    slots: int
    zone: str = ""

    @property
    def numbers(self) -> range:
        return range(self.first, self.first + self.count)

    def __str__(self) -> str:
        last = self.first + self.count - 1
        return f"m-{self.first}" + (f" to m-{last}" if self.count > 1 else "")


def runs(launches: Iterable[Launch], batch: int) -> list[Run]:
    """The launches in as few calls as can be, each with at most `batch` machines. One that is named
    twice is one."""
    wanted = {machine_number(each.machine_id): (each.slots, each.zone) for each in launches}
    return consecutive(wanted, batch)


def consecutive(wanted: Mapping[int, tuple[int, str]], batch: int) -> list[Run]:
    """wanted: machine number → its slots and its zone."""
    found: list[Run] = []
    for number in sorted(wanted):
        slots, zone = wanted[number]
        last = found[-1] if found else Run(0, 0, 0)
        follows = number == last.first + last.count and (slots, zone) == (last.slots, last.zone)
        if follows and last.count < batch:
            found[-1] = replace(last, count=last.count + 1)
        else:
            found.append(Run(number, 1, slots, zone))
    return found


def request(
    config: Ec2Config, run: Run, offering: Offering, user_data: str, after: str = ""
) -> dict[str, Any]:
    """Parameters of RunInstances. after: the instance that an earlier call of the same token made, and
    that is gone."""
    tags = {
        "Name": f"{config.fleet} {run}",
        FLEET: config.fleet,
        FIRST: str(run.first),
        SLOTS: str(run.slots),
    }
    named = [{"Key": key, "Value": value} for key, value in tags.items()]
    kinds = ["instance", "volume"]
    if config.market == "spot":
        kinds.append("spot-instances-request")  # the policy lets us cancel only what bears our tag
    asked: dict[str, Any] = {
        "MinCount": 1,
        "MaxCount": run.count,
        "ClientToken": client_token(config.fleet, run, offering, user_data, after),
        "UserData": user_data,
        "TagSpecifications": [{"ResourceType": kind, "Tags": named} for kind in kinds],
        # Hop limit 1: what runs in a container or behind a forwarded port gets no credentials.
        "MetadataOptions": {
            "HttpTokens": "required",
            "HttpPutResponseHopLimit": 1,
            "HttpEndpoint": "enabled",
        },
    }
    optional = {
        "LaunchTemplate": config.template if config.launch_template else None,
        "ImageId": config.image,
        "InstanceType": offering.instance_type,
        "SubnetId": offering.subnet,
        "Placement": {"AvailabilityZone": offering.zone} if offering.zone else {},
        "SecurityGroupIds": list(config.security_groups),
        "IamInstanceProfile": {"Name": config.instance_profile} if config.instance_profile else {},
        "InstanceMarketOptions": _market(config),
        "HibernationOptions": {"Configured": True} if config.hibernate else {},
    }
    return asked | {name: value for name, value in optional.items() if value}


def _market(config: Ec2Config) -> dict[str, Any]:
    if config.market == "on-demand":
        return {}
    kind, end = "one-time", "terminate"
    if config.can_stop:
        kind, end = "persistent", "hibernate" if config.hibernate else "stop"
    options = {"SpotInstanceType": kind, "InstanceInterruptionBehavior": end}
    return {"MarketType": "spot", "SpotOptions": options}


def client_token(
    fleet: str, run: Run, offering: Offering, user_data: str = "", after: str = ""
) -> str:
    """The same for whoever asks for the same. A token is good for a day longer than its instances, so the
    join code is in it: another Redis counts from m-1 again, and makes other codes."""
    words = (
        fleet, run.first, run.count, offering.instance_type, offering.subnet, offering.zone,
        user_data, after,
    )  # fmt: skip
    return hashlib.sha256("\0".join(map(str, words)).encode()).hexdigest()


Scope = Literal["offering", "type", "subnet"]

REFUSALS: Mapping[str, Scope] = {
    "InsufficientInstanceCapacity": "offering",
    "InsufficientHostCapacity": "offering",
    "InsufficientCapacity": "offering",
    "SpotMaxPriceTooLow": "offering",
    "Unsupported": "offering",
    # Quotas are counted per family of types and region, so another zone does not help.
    "MaxSpotInstanceCountExceeded": "type",
    "InstanceLimitExceeded": "type",
    "VcpuLimitExceeded": "type",
    "InsufficientFreeAddressesInSubnet": "subnet",
}
"""What another offering may help against → what else is refused with it."""

LASTING = frozenset({"Unsupported"})

AT_ONCE = frozenset({*REFUSALS, "IncorrectSpotRequestState"})
"""Answers that a repeat does not change. Some come with status 500, which botocore would take for a
passing fault and ask again for a minute."""


def refused_with(choices: Sequence[Offering], offering: Offering, code: str) -> list[Offering]:
    """Every offering that the refusal of this one speaks of."""
    scope = REFUSALS[code]
    if scope == "type":
        return [each for each in choices if each.instance_type == offering.instance_type]
    if scope == "subnet":
        return [each for each in choices if each.subnet == offering.subnet]
    return [offering]
