"""The roles of the template held against the policies that the suite's calls are held against."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.aws import iam

TEMPLATE = Path(__file__).parents[2] / "deploy" / "cloudformation.yaml"

OTHER_POOLS = ("autoscaling:", "ecs:", "eks:")
NOT_USED = {
    "gateway": {
        "ec2:CancelSpotInstanceRequests",  # its machines are on demand
        "ec2:DescribeImages",  # the launch template names image and groups
        "ec2:DescribeSecurityGroups",
        "kms:Decrypt",  # the bucket's key is AWS's own
    },
    "agent": {"kms:Decrypt", "kms:GenerateDataKey"},
}


def _actions(resource: str) -> set[str]:
    text = TEMPLATE.read_text()
    block = re.search(rf"^  {resource}:\n(.*?)(?=^  \w|\Z)", text, re.MULTILINE | re.DOTALL)
    assert block
    statements = re.findall(r"Action: (\[[^]]*\]|\"[^\"]+\")", block[1])
    return set(re.findall(r"\"([\w]+:[\w]+)\"", " ".join(statements))) - {"sts:AssumeRole"}


@pytest.mark.parametrize(("role", "resource"), [("gateway", "GatewayRole"), ("agent", "MachineRole")])  # fmt: skip
def test_a_role_may_what_the_templates_settings_need(role: str, resource: str) -> None:
    # ECS registers the gateways in the target group, with a role of its own.
    skipped = (*OTHER_POOLS, "elasticloadbalancing:")
    needed = {each for each in iam.allowed(role) if not each.startswith(skipped)}
    assert _actions(resource) == needed - NOT_USED[role]
