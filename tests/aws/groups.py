"""Auto Scaling groups and node groups in moto, and the parts of them that moto does not play."""

from __future__ import annotations

import re
from typing import Any

from tests.aws.account import Account
from tests.aws.calls import Call
from tests.aws.faults import Fault

GROUP, CLUSTER, NODES = "machines", "lab", "ide"
HOOKS = {
    "born": "autoscaling:EC2_INSTANCE_LAUNCHING",
    "dying": "autoscaling:EC2_INSTANCE_TERMINATING",
}
_DONE = b"<%(a)sResponse><%(a)sResult/><ResponseMetadata/></%(a)sResponse>"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def make_group(
    aws: Account, name: str = GROUP, *, desired: int = 0, least: int = 0, most: int = 10
) -> None:
    ec2, autoscaling = aws.client("ec2"), aws.client("autoscaling")
    if not ec2.describe_launch_templates()["LaunchTemplates"]:
        data = {"ImageId": "ami-12345678", "InstanceType": "t3.micro"}
        ec2.create_launch_template(LaunchTemplateName="machine", LaunchTemplateData=data)
    autoscaling.create_auto_scaling_group(
        AutoScalingGroupName=name,
        LaunchTemplate={"LaunchTemplateName": "machine", "Version": "$Latest"},
        MinSize=least,
        MaxSize=most,
        DesiredCapacity=desired,
        AvailabilityZones=[f"{aws.region}a"],
    )


def make_node_group(aws: Account, *, least: int = 0, most: int = 10) -> str:
    """Name of its Auto Scaling group. Whatever asks for a desired size then gets it there, as EKS does it."""
    eks = aws.client("eks")
    role = "arn:aws:iam::123456789012:role/eks"
    eks.create_cluster(name=CLUSTER, roleArn=role, resourcesVpcConfig={"subnetIds": ["subnet-1"]})
    eks.create_nodegroup(
        clusterName=CLUSTER,
        nodegroupName=NODES,
        nodeRole=role,
        subnets=["subnet-1"],
        scalingConfig={"minSize": least, "maxSize": most, "desiredSize": 0},
    )
    told = eks.describe_nodegroup(clusterName=CLUSTER, nodegroupName=NODES)["nodegroup"]
    group: str = told["resources"]["autoScalingGroups"][0]["name"]
    make_group(aws, group, most=most)

    def grow(call: Call, body: bytes) -> bytes:
        if call.status == 200:
            aws.client("autoscaling").set_desired_capacity(
                AutoScalingGroupName=group,
                DesiredCapacity=call.params["scalingConfig"]["desiredSize"],
            )
        return body

    aws.fault("eks", "UpdateNodegroupConfig", answer=grow)
    return group


def group_of(aws: Account, name: str = GROUP) -> dict[str, Any]:
    found = aws.client("autoscaling").describe_auto_scaling_groups(AutoScalingGroupNames=[name])
    return dict(found["AutoScalingGroups"][0])


def alive(aws: Account) -> dict[str, str]:
    """Instances that are not terminated → the machine that each is named after."""
    kept = [
        {"Name": "instance-state-name", "Values": ["pending", "running", "stopping", "stopped"]}
    ]
    return {
        host["InstanceId"]: {tag["Key"]: tag["Value"] for tag in host.get("Tags", [])}.get(
            "ide-gateway:machine", ""
        )
        for row in aws.client("ec2").describe_instances(Filters=kept)["Reservations"]
        for host in row["Instances"]
    }


def take(aws: Account, action: str, taken: list[tuple[str, str]]) -> Fault:
    """Calls of that action succeed without reaching moto; `taken` gets (hook, instance) of each."""

    def answer(call: Call, body: bytes) -> bytes:
        taken.append((call.params.get("LifecycleHookName", ""), call.params["InstanceId"]))
        return _DONE % {b"a": action.encode()}

    return aws.fault("autoscaling", action, error=("", 200), answer=answer)


class States:
    """Lifecycle states that moto has not, told in its place: `states.of[instance] = "Terminating:Wait"`.

    Answers to hooks are taken, as moto has not got them: `completed` and `kept` are (hook, instance).
    """

    def __init__(self, aws: Account) -> None:
        self.of: dict[str, str] = {}
        self.completed: list[tuple[str, str]] = []
        self.kept: list[tuple[str, str]] = []
        for name, transition in HOOKS.items():
            aws.client("autoscaling").put_lifecycle_hook(
                LifecycleHookName=name, AutoScalingGroupName=GROUP, LifecycleTransition=transition
            )
        aws.fault("autoscaling", "DescribeAutoScalingGroups", answer=self._tell)
        take(aws, "CompleteLifecycleAction", self.completed)
        take(aws, "RecordLifecycleActionHeartbeat", self.kept)

    def _tell(self, call: Call, body: bytes) -> bytes:
        text = body.decode()
        for instance, state in self.of.items():
            told = rf"(<InstanceId>{instance}</InstanceId>.*?<LifecycleState>)[^<]*"
            text = re.sub(told, rf"\g<1>{state}", text)
        return text.encode()
