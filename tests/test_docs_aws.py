"""docs/aws.md held against the source, the policies and the tests."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from botocore import xform_name
from botocore.loaders import Loader

from tests.aws import iam
from tests.aws.calls import Call

ROOT = Path(__file__).parents[1]
PAGES = ("docs/aws.md", "docs/deploy-aws.md")

CLIENTS = {
    "EC2": ("ec2",),
    "EBS": ("ec2",),
    "EC2 Auto Scaling": ("autoscaling", "ec2"),
    "EKS": ("eks",),
    "ECS": ("ecs",),
    "S3": ("s3",),
    "DynamoDB": ("dynamodb",),
    "SQS, filled by EventBridge": ("sqs",),
    "SNS": ("sns",),
    "CloudWatch": ("cloudwatch",),
    "Elastic Load Balancing": ("elbv2",),
}
"""Service as the table names it → clients of boto that its calls are of."""

FOLLOWS = {"ec2:CreateTags", "ecs:TagResource", "iam:PassRole", "s3:PutObjectTagging"}
"""Permissions that a call needs for one of its parameters."""

NEEDED_FOR_404 = {"s3:ListBucket"}


@dataclass(frozen=True)
class Row:
    service: str
    role: str
    calls: tuple[str, ...]
    permissions: tuple[str, ...]
    tests: tuple[str, ...]


@cache
def rows() -> tuple[Row, ...]:
    found = []
    for line in (ROOT / "docs/aws.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 6 and "tests/" in cells[5]:
            told = [tuple(re.findall(r"`([^`]+)`", cell)) for cell in cells[3:]]
            found.append(Row(cells[0], cells[2], *told))
    return tuple(found)


@cache
def operations(client: str) -> dict[str, str]:
    """Method of a client → the call."""
    model = Loader().load_service_model(client, "service-2")
    return {xform_name(name): name for name in model["operations"]}


def of(row: Row, call: str) -> str:
    """The client that makes it."""
    return next(c for c in CLIENTS[row.service] if call in operations(c).values())


@cache
def words() -> frozenset[str]:
    """Names and texts of every file that may call AWS."""
    found: set[str] = set()
    for path in [*(ROOT / "lifecycle").rglob("*.py"), *(ROOT / "gateway").rglob("*.py")]:
        text = path.read_text()
        if re.search(r"\b(lifecycle\.aws|ec2_calls|Ec2Calls)\b", text):
            found |= set(_words(ast.parse(text)))
    return frozenset(found)


def _words(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_there_is_a_table() -> None:
    assert len(rows()) > 15


@pytest.mark.parametrize("role", ["gateway", "agent"])
def test_it_has_every_permission_of_a_role_and_no_other(role: str) -> None:
    told = {permission for row in rows() if row.role == role for permission in row.permissions}
    assert told == iam.allowed(role)


def test_the_function_may_what_a_gateway_may_but_for_the_load_balancer() -> None:
    balancing = {each for each in iam.allowed("gateway") if each.startswith("elastic")}
    assert iam.allowed("function") == iam.allowed("gateway") - balancing


@pytest.mark.parametrize("row", rows(), ids=lambda row: f"{row.service}-{row.role}")
def test_a_row_needs_what_its_calls_need(row: Row) -> None:
    if not row.calls:
        return
    needed = {p for call in row.calls for p in iam.permissions(Call(of(row, call), call, "", 0))}
    assert needed <= set(row.permissions)
    assert set(row.permissions) - needed <= FOLLOWS | NEEDED_FOR_404


@pytest.mark.parametrize("row", rows(), ids=lambda row: f"{row.service}-{row.role}")
def test_the_source_makes_a_rows_calls(row: Row) -> None:
    assert [call for call in row.calls if xform_name(call) not in words()] == []


def test_every_call_of_the_source_is_in_the_table() -> None:
    clients = {client for known in CLIENTS.values() for client in known}
    made = {(c, name) for c in clients for method, name in operations(c).items() if method in words() and "_" in method}  # fmt: skip
    told = {(of(row, call), call) for row in rows() for call in row.calls}
    names = {name for _, name in told}
    # Other services have calls of the same name (DescribeSnapshots of a cache, say).
    assert {call for _, call in made} - names == set()


@pytest.mark.parametrize("row", rows(), ids=lambda row: f"{row.service}-{row.role}")
def test_the_tests_of_a_row_exist(row: Row) -> None:
    assert row.tests
    assert [test for test in row.tests if not (ROOT / test).is_file()] == []


@pytest.mark.parametrize("page", PAGES)
def test_every_file_and_flag_that_is_named_exists(page: str) -> None:
    from gateway.settings import Settings

    text = (ROOT / page).read_text()
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
    named = re.findall(r"`((?:deploy|tests|docs)/[\w./-]+)`", text)
    missing = [link for link in links if not (ROOT / page).parent.joinpath(link).exists()]
    missing += [name for name in named if not (ROOT / name).exists()]
    assert missing == []
    flags = {name.replace("_", "-") for name in Settings.model_fields}
    inline = re.findall(r"`--([a-z][a-z-]+)", text)
    assert [flag for flag in inline if flag not in flags] == []
