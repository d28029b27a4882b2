"""Instances as EC2 tells of them, set right by what this process knows better. Pure: times are seconds
by the caller's clock."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lifecycle.pools import Observed, State
from lifecycle.pools.ec2_launch import FIRST, SLOTS

STATES: Mapping[str, State] = {
    "pending": "launching",
    "running": "running",
    "stopping": "stopping",
    "stopped": "stopped",
}
"""What EC2 calls an instance that exists → what we call it. In any other state it is gone or going."""


@dataclass(frozen=True, slots=True)
class Instance:
    """state: EC2's own word. since: when its disk was attached, which no restart changes. spot_request: ""
    when it is none. kind: "m7i.large"."""

    id: str
    number: int
    slots: int
    state: str
    zone: str
    since: str
    spot_request: str = ""
    kind: str = ""

    @property
    def machine_id(self) -> str:
        return f"m-{self.number}"


def read(row: Mapping[str, Any]) -> Instance | None:
    """None for one that carries our fleet's tag and not the others: somebody else's doing."""
    tags = {tag["Key"]: tag["Value"] for tag in row.get("Tags", [])}
    first, slots = tags.get(FIRST, ""), tags.get(SLOTS, "")
    if not (first.isdecimal() and int(first) > 0):
        return None
    attached = [
        disk["Ebs"]["AttachTime"]
        for disk in row.get("BlockDeviceMappings", [])
        if disk.get("Ebs", {}).get("AttachTime")
    ]
    born = [time for time in [row.get("LaunchTime"), *attached] if time is not None]
    return Instance(
        row["InstanceId"],
        int(first) + int(row.get("AmiLaunchIndex", 0)),
        int(slots) if slots.isdecimal() else 0,
        row["State"]["Name"],
        row.get("Placement", {}).get("AvailabilityZone", ""),
        min(born).isoformat() if born else "",
        row.get("SpotInstanceRequestId", ""),
        row.get("InstanceType", ""),
    )


def show(instances: Iterable[Instance]) -> list[Observed]:
    """One row per machine. Two instances of one machine are a fault that nobody can mend by a guess:
    whoever asks sees the older one, always the same."""
    oldest: dict[int, Instance] = {}
    for each in sorted(instances, key=lambda each: (each.since, each.id), reverse=True):
        oldest[each.number] = each
    return [
        Observed(
            each.machine_id,
            STATES[each.state],
            slots=each.slots,
            instance=each.id,
            zone=each.zone,
            machine_class=each.kind,
        )
        for _, each in sorted(oldest.items())
    ]


@dataclass
class Recent:
    """What this process launched and terminated itself, for as long as a list may be behind.

    lag: seconds.
    """

    lag: float
    _born: dict[str, tuple[float, Instance]] = field(default_factory=dict)
    _ended: dict[str, float] = field(default_factory=dict)

    def launched(self, instance: Instance, now: float) -> None:
        self._born[instance.id] = (now, instance)

    def terminated(self, instance_id: str, now: float) -> None:
        self._ended[instance_id] = now

    def knows(self, instance_id: str, now: float) -> bool:
        """Launched a moment ago: EC2 may say that it does not exist."""
        born = self._born.get(instance_id)
        return born is not None and now - born[0] < self.lag

    def has_ended(self, instance_id: str, now: float) -> bool:
        return now - self._ended.get(instance_id, float("-inf")) < self.lag

    def correct(self, listed: Iterable[Instance], now: float) -> list[Instance]:
        """The list as it would be without the lag."""
        self._born = {i: row for i, row in self._born.items() if now - row[0] < self.lag}
        self._ended = {i: at for i, at in self._ended.items() if now - at < self.lag}
        found = {each.id: each for _, each in self._born.values()}
        found |= {each.id: each for each in listed}
        return [each for each in found.values() if each.id not in self._ended]
