from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from lifecycle.aws import client
from tests.aws import iam
from tests.aws.calls import Call


def call(service: str, action: str, **more: Any) -> Call:
    return Call(service, action, more.pop("role", "gateway"), 0.0, **more)


def policies(directory: Path, **actions: list[str]) -> Path:
    for role in iam.ROLES:
        policy = {"Statement": [{"Action": actions.get(role, [])}]}
        (directory / f"{role}.json").write_text(json.dumps(policy))
    return directory


@pytest.mark.parametrize(
    ("made", "needed"),
    [
        (call("ec2", "DescribeInstances"), {"ec2:DescribeInstances"}),
        (call("elbv2", "RegisterTargets"), {"elasticloadbalancing:RegisterTargets"}),
        (call("sqs", "DeleteMessageBatch"), {"sqs:DeleteMessage"}),
        (call("s3", "ListObjectsV2", method="GET"), {"s3:ListBucket"}),
        (call("s3", "UploadPart", method="PUT"), {"s3:PutObject"}),
        (
            call("s3", "PutObject", headers={"x-amz-tagging": "a=b"}),
            {"s3:PutObject", "s3:PutObjectTagging"},
        ),
        (call("s3", "HeadObject", status=404), {"s3:GetObject", "s3:ListBucket"}),
        (
            call(
                "ec2",
                "RunInstances",
                query="TagSpecification.1.ResourceType=instance&IamInstanceProfile.Name=x",
            ),
            {"ec2:RunInstances", "ec2:CreateTags", "iam:PassRole"},
        ),
    ],
    ids=lambda value: value.action if isinstance(value, Call) else "",
)
def test_what_a_call_needs(made: Call, needed: set[str]) -> None:
    assert iam.permissions(made) == needed


def test_a_call_that_its_roles_policy_lacks_is_missing(tmp_path: Path) -> None:
    where = policies(tmp_path, gateway=["ec2:DescribeInstances"])
    found = iam.seen(
        [
            call("ec2", "DescribeInstances"),
            call("ec2", "DescribeInstances", role="agent"),
            call("ec2", "RunInstances", role="operator"),
        ]
    )
    assert iam.missing(found, where) == [
        "deploy/iam/agent.json does not allow ec2:DescribeInstances"
    ]


def test_a_permission_that_no_process_needed_is_spare(tmp_path: Path) -> None:
    where = policies(
        tmp_path, gateway=["a:A", "a:B", "a:C"], agent=["a:A"], function=["a:A", "a:C"]
    )
    iam.note(tmp_path / "noted", "gw0", {("gateway", "a:A")})
    iam.note(tmp_path / "noted", "gw1", {("gateway", "a:B")})
    assert iam.spare(tmp_path / "noted", where) == [
        "deploy/iam/gateway.json allows a:C, which no test needs",
        "deploy/iam/agent.json allows a:A, which no test needs",
        "deploy/iam/function.json allows a:C, which no test needs",
    ]


async def test_calls_are_held_against_the_policies_we_deploy(aws: Any) -> None:
    async with client("ec2") as ec2:
        await ec2.describe_instances()
        assert iam.missing(aws.permissions()) == []
        await ec2.describe_vpcs()
    assert iam.missing(aws.permissions()) == [
        "deploy/iam/gateway.json does not allow ec2:DescribeVpcs"
    ]
    aws.held_to_policies = False


def test_the_function_may_what_gateways_may_but_for_their_target_group() -> None:
    more = iam.allowed("gateway") - iam.allowed("function")
    assert {name.partition(":")[0] for name in more} == {"elasticloadbalancing"}
    assert iam.allowed("function") <= iam.allowed("gateway")


@pytest.mark.parametrize("role", iam.ROLES)
def test_policies_are_narrow_and_their_placeholders_explained(role: str) -> None:
    text = (iam.POLICIES / f"{role}.json").read_text()
    readme = (iam.POLICIES / "README.md").read_text()
    assert all("*" not in action for action in iam.allowed(role))
    for statement in json.loads(text)["Statement"]:
        looks = all(re.search(":(Describe|List)", action) for action in statement["Action"])
        assert statement["Resource"] != "*" or looks or "Condition" in statement, statement["Sid"]
    assert [name for name in set(re.findall(r"\$\{\w+\}", text)) if name not in readme] == []
