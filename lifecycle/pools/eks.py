"""Machines that are nodes of an EKS managed node group: `--pool eks`.

The node group's desired size is raised; its nodes are found through its Auto Scaling groups and get their
names as there (see lifecycle.pools.groups). The agent runs on the node beside the kubelet, from the node
group's launch template; workspaces are the agent's, not pods.

Down: the instance of a chosen node is terminated in its Auto Scaling group, and the desired capacity with
it. terminate() is called for machines that the gateway has drained. Kubernetes' own side, cordoning and
evicting pods, is what the node group does by itself with every instance that Auto Scaling terminates; its
lifecycle hooks are EKS's and are left to it.

A stopped node would be replaced, so there is no stopping: files move into snapshots.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from lifecycle.aws import Clients, code_of, failures
from lifecycle.pools import Launch, PoolError
from lifecycle.pools.bootstrap import Bootstrap
from lifecycle.pools.groups import GroupPool, grouped
from lifecycle.pools.members import Group
from lifecycle.pools.refusals import pool_error


@dataclass(frozen=True, slots=True)
class EksConfig:
    fleet: str
    slots: int
    cluster: str
    node_group: str


class EksPool(GroupPool):
    """A Pool."""

    name = "eks"

    def __init__(
        self,
        config: EksConfig,
        bootstrap: Bootstrap,
        clients: Clients,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(config.fleet, bootstrap, clients, clock)
        self._where = {"clusterName": config.cluster, "nodegroupName": config.node_group}
        self._title = f"node group {config.node_group} of EKS cluster {config.cluster}"

    async def start(self, launch: Launch) -> None:
        if await self._member(launch.machine_id) is None:
            raise PoolError(
                f"machine {launch.machine_id} is no node of {self._title}, and stopped ones are not"
                " kept; launch another one"
            )

    async def stop(self, machine_id: str) -> None:
        if await self._member(machine_id) is None:
            return
        raise PoolError(
            f"cannot stop machine {machine_id}: {self._title} would replace a stopped node;"
            " terminate it once its files are in snapshots"
        )

    async def _find(self) -> Group:
        """Bounds are the node group's; what is desired its Auto Scaling groups know best: terminating a
        node lowers it there first."""
        told = await self._node_group()
        names = [group["name"] for group in told.get("resources", {}).get("autoScalingGroups", [])]
        bounds = told["scalingConfig"]
        if not names:
            raise PoolError(
                f"{self._title} has no Auto Scaling group (it is {told['status']}): wait until it is"
                " ACTIVE, or see its health issues in the console"
            )
        group = await grouped(self._clients, names, self._title)
        return replace(group, least=bounds["minSize"], most=bounds["maxSize"])

    async def _node_group(self) -> dict[str, Any]:
        doing = f"look at {self._title}"
        try:
            eks = await self._clients.get("eks")
            return dict((await eks.describe_nodegroup(**self._where))["nodegroup"])
        except failures() as error:
            if code_of(error) == "ResourceNotFoundException":
                raise PoolError(
                    f"cannot {doing}: there is none in this account and region: create it, or"
                    " correct --eks-cluster, --eks-node-group or --aws-region"
                ) from error
            raise pool_error(error, doing) from error

    async def _raise(self, desired: int) -> None:
        eks = await self._clients.get("eks")
        await eks.update_nodegroup_config(**self._where, scalingConfig={"desiredSize": desired})
