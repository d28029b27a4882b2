"""Lifecycle hooks of an Auto Scaling group: what holds an instance while it comes or goes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lifecycle.aws import Clients, code_of, failures
from lifecycle.pools.members import Member

BEAT = 60.0  # seconds between two words that an instance is still waited for

_LAUNCHING = "autoscaling:EC2_INSTANCE_LAUNCHING"
_TERMINATING = "autoscaling:EC2_INSTANCE_TERMINATING"


class Hooks:
    """Every hook of the group is ours to answer, whatever its name."""

    def __init__(self, clients: Clients, group: str) -> None:
        self._clients, self._group = clients, group
        self._beats: dict[str, float] = {}

    async def let_go(self, members: Iterable[Member]) -> None:
        """What holds them need not any more. Again is success."""
        for member, hook in await self._held(members):
            autoscaling = await self._clients.get("autoscaling")
            try:
                await autoscaling.complete_lifecycle_action(
                    LifecycleHookName=hook,
                    AutoScalingGroupName=self._group,
                    InstanceId=member.instance,
                    LifecycleActionResult="CONTINUE",
                )
            except failures() as error:
                # "No active Lifecycle Action found": somebody, or a lost answer, was faster.
                if code_of(error) != "ValidationError":
                    raise

    async def hold(self, members: Iterable[Member], now: float) -> None:
        """Their time must not run out yet."""
        ours = list(members)
        self._beats = {m.instance: self._beats.get(m.instance, now - BEAT) for m in ours}
        due = [member for member in ours if now - self._beats[member.instance] >= BEAT]
        for member, hook in await self._held(due):
            self._beats[member.instance] = now
            autoscaling = await self._clients.get("autoscaling")
            await autoscaling.record_lifecycle_action_heartbeat(
                LifecycleHookName=hook,
                AutoScalingGroupName=self._group,
                InstanceId=member.instance,
            )

    async def _held(self, members: Iterable[Member]) -> list[tuple[Member, str]]:
        """Each with the names of the hooks that hold it."""
        waiting = list(members)
        if not waiting:
            return []
        autoscaling = await self._clients.get("autoscaling")
        answer = await autoscaling.describe_lifecycle_hooks(AutoScalingGroupName=self._group)
        return [
            (member, hook["LifecycleHookName"])
            for member in waiting
            for hook in answer["LifecycleHooks"]
            if hook["LifecycleTransition"] == _transition(member)
        ]


def _transition(member: Member) -> str:
    return _TERMINATING if "Terminating" in member.lifecycle else _LAUNCHING


class WarmPool:
    """Instances that wait, stopped or hibernated, to come into service sooner than new ones."""

    def __init__(self, clients: Clients, group: str, size: int, state: str) -> None:
        self._clients, self._group, self._size, self._state = clients, group, size, state

    async def look(self) -> list[Member]:
        """Bring it to its size. Returns its instances that a hook holds."""
        autoscaling = await self._clients.get("autoscaling")
        pages = autoscaling.get_paginator("describe_warm_pool")
        found: dict[str, Any] = {}
        instances: list[dict[str, Any]] = []
        async for page in pages.paginate(AutoScalingGroupName=self._group):
            found = page.get("WarmPoolConfiguration") or found
            instances += page.get("Instances", [])
        await self._resize(found)
        rows = [Member(row["InstanceId"], self._group, row["LifecycleState"]) for row in instances]
        return [row for row in rows if row.lifecycle.endswith(":Wait")]

    async def _resize(self, found: dict[str, Any]) -> None:
        autoscaling = await self._clients.get("autoscaling")
        if found.get("Status") == "PendingDelete":
            return
        if self._size == 0:
            if found:
                await autoscaling.delete_warm_pool(AutoScalingGroupName=self._group)
            return
        # Both the same: the size is absolute, not what the group leaves of its maximum.
        wanted: dict[str, Any] = {"MinSize": self._size, "MaxGroupPreparedCapacity": self._size}
        wanted["PoolState"] = self._state
        wanted["InstanceReusePolicy"] = {"ReuseOnScaleIn": False}
        if any(found.get(key) != value for key, value in wanted.items()):
            await autoscaling.put_warm_pool(AutoScalingGroupName=self._group, **wanted)
