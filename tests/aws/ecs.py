"""A cluster of ECS to launch machines in, and what stands in it."""

from __future__ import annotations

import json
from typing import Any
from urllib.request import Request, urlopen

from lifecycle.aws import Clients
from lifecycle.joining import Joining
from lifecycle.pools.bootstrap import Bootstrap
from lifecycle.pools.ecs import EcsConfig, EcsPool

JOINING = Joining("the gateways' key")


class Cluster:
    """With a task definition that gives each task a network interface."""

    def __init__(self, aws: Any, **more: Any) -> None:
        self.aws, self.ecs, ec2 = aws, aws.client("ecs"), aws.client("ec2")
        vpc = ec2.create_vpc(CidrBlock="10.1.0.0/16")["Vpc"]["VpcId"]
        # moto trips over a network interface of a VPC without host names.
        ec2.modify_vpc_attribute(VpcId=vpc, EnableDnsHostnames={"Value": True})
        self.subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.1.0.0/20")["Subnet"]["SubnetId"]
        self.group = ec2.create_security_group(GroupName="g", Description="g", VpcId=vpc)["GroupId"]
        self.ecs.create_cluster(clusterName="machines")
        # moto's tasks end after a few looks at them, unless told to stay.
        stay = {"model_name": "ecs::task", "transition": {"progression": "time", "seconds": 86_400}}
        asked = Request(f"{aws.direct}/moto-api/state-manager/set-transition", method="POST")
        urlopen(asked, json.dumps(stay).encode(), timeout=10).close()
        self.define("awsvpc", "FARGATE")
        self.clients = Clients()
        self.config = EcsConfig(
            fleet="fleet one", cluster="machines", task_definition="machine",
            subnets=(self.subnet,), security_groups=(self.group,),
        )  # fmt: skip

    def define(self, network: str, compatible: str) -> None:
        container = {"name": "agent", "image": "ide-gateway", "memory": 64}
        self.ecs.register_task_definition(
            family="machine",
            networkMode=network,
            requiresCompatibilities=[compatible],
            cpu="256",
            memory="512",
            containerDefinitions=[container, container | {"name": "beside"}],
        )

    def add_instance(self) -> None:
        """For tasks that are not Fargate's."""
        ec2 = self.aws.client("ec2")
        made = ec2.run_instances(ImageId="ami-12345678", MinCount=1, MaxCount=1)["Instances"][0]
        document = {
            "instanceId": made["InstanceId"], "region": self.aws.region, "accountId": "123456789012",
        }  # fmt: skip
        self.ecs.register_container_instance(
            cluster="machines", instanceIdentityDocument=json.dumps(document)
        )

    def pool(self, **changed: Any) -> EcsPool:
        config = EcsConfig(
            **{name: getattr(self.config, name) for name in EcsConfig.__slots__} | changed
        )
        bootstrap = Bootstrap("https://ide.example.com", 7070, JOINING.code)
        return EcsPool(config, bootstrap, self.clients)

    def tasks(self) -> list[dict[str, Any]]:
        """That run."""
        arns = self.ecs.list_tasks(cluster="machines", desiredStatus="RUNNING")["taskArns"]
        batches = (arns[at : at + 100] for at in range(0, len(arns), 100))
        return [
            task
            for batch in batches
            for task in self.ecs.describe_tasks(cluster="machines", tasks=batch, include=["TAGS"])[
                "tasks"
            ]
        ]
