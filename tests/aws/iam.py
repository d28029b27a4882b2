"""The calls that tests made, held against deploy/iam: nothing missing, nothing spare."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from tests.aws.calls import Call

POLICIES = Path(__file__).parents[2] / "deploy" / "iam"
ROLES = ("gateway", "agent", "function")

_SAME_CODE = {"function": "gateway"}
"""The function runs the gateway's loops: what those need in a gateway is needed in the function."""

_PREFIX = {"elbv2": "elasticloadbalancing"}
_OTHER_NAMES = {
    ("s3", "HeadBucket"): "s3:ListBucket",
    ("s3", "ListObjectsV2"): "s3:ListBucket",
    ("s3", "HeadObject"): "s3:GetObject",
    ("s3", "CreateMultipartUpload"): "s3:PutObject",
    ("s3", "UploadPart"): "s3:PutObject",
    ("s3", "CompleteMultipartUpload"): "s3:PutObject",
    ("sqs", "DeleteMessageBatch"): "sqs:DeleteMessage",
    ("sqs", "SendMessageBatch"): "sqs:SendMessage",
    ("sns", "PublishBatch"): "sns:Publish",
}
"""Where a call needs another permission than its name."""


def permissions(call: Call) -> set[str]:
    """What IAM asks for before it lets this call through."""
    same = f"{_PREFIX.get(call.service, call.service)}:{call.action}"
    needed = {_OTHER_NAMES.get((call.service, call.action), same)}
    if call.service == "s3":
        return needed | _of_objects(call)
    if call.service == "ec2" and any(name.startswith("TagSpecification") for name in call.params):
        needed.add("ec2:CreateTags")
    if call.action == "RunInstances" and any("IamInstanceProfile" in name for name in call.params):
        needed.add("iam:PassRole")
    if call.service == "ecs" and call.action == "RunTask":
        needed |= {"iam:PassRole"} | ({"ecs:TagResource"} if call.params.get("tags") else set())
    return needed


def _of_objects(call: Call) -> set[str]:
    needed = set()
    if "x-amz-tagging" in call.headers:
        needed.add("s3:PutObjectTagging")
    if call.headers.get("x-amz-server-side-encryption") == "aws:kms":
        needed |= {"kms:GenerateDataKey", "kms:Decrypt"}  # Decrypt: to join the parts
    if call.answered.get("x-amz-server-side-encryption") == "aws:kms":
        needed.add("kms:Decrypt")  # to read it, and HEAD of it for its checksum
    if call.status == 404 and call.action in ("GetObject", "HeadObject"):
        needed.add("s3:ListBucket")  # without it, what is not there is a 403
    return needed


def allowed(role: str, policies: Path = POLICIES) -> set[str]:
    """Every action of its policy."""
    statements = json.loads((policies / f"{role}.json").read_text())["Statement"]
    found: set[str] = set()
    for statement in statements:
        actions = statement["Action"]
        found |= {actions} if isinstance(actions, str) else set(actions)
    return found


def seen(calls: Iterable[Call]) -> set[tuple[str, str]]:
    """(role, permission) of the calls of our own roles."""
    return {(c.role, each) for c in calls if c.role in ROLES for each in permissions(c)}


def missing(found: Iterable[tuple[str, str]], policies: Path = POLICIES) -> list[str]:
    rows = sorted(found)
    may = {role: allowed(role, policies) for role, _ in rows}
    return [f"deploy/iam/{role}.json does not allow {what}" for role, what in rows if what not in may[role]]  # fmt: skip


def note(directory: Path, worker: str, found: set[tuple[str, str]]) -> None:
    """For the end of the run: each process writes a file of its own."""
    directory.mkdir(exist_ok=True)
    with (directory / f"{worker}.jsonl").open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in sorted(found))


def spare(directory: Path, policies: Path = POLICIES) -> list[str]:
    """What the policies allow and no test of the whole run needed."""
    lines = [line for path in directory.glob("*.jsonl") for line in path.read_text().splitlines()]
    used = {tuple(json.loads(line)) for line in lines}
    return [
        f"deploy/iam/{role}.json allows {what}, which no test needs"
        for role in ROLES
        for what in sorted(allowed(role, policies))
        if not {(role, what), (_SAME_CODE.get(role, role), what)} & used
    ]
