"""Start-ups on AWS that cannot work: each ends with one clear line that says what to do, and starts nothing.

The first ones are real starts, one for each part that may be wrong; the others ask what a start asks of
the parts, in this process.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import boto3
import pytest
from redis.asyncio import Redis

from gateway import assembly
from gateway.assembly import Manager
from gateway.exits import ConfigurationError, DependencyMissing
from gateway.settings import Settings
from lifecycle.snapshots import s3
from tests.aws.account import Account
from tests.aws.answers import wrong_key

QUEUE = "http://sqs.eu-central-1.amazonaws.com/123456789012/nothing"
TOPIC = "arn:aws:sns:eu-central-1:123456789012:nothing"
GROUP = (
    "arn:aws:elasticloadbalancing:eu-central-1:123456789012:targetgroup/nothing/73e2d6bc24d8a067"
)
ROLE = "check AWS_ACCESS_KEY_ID or the instance's role"
LISTED = "cannot list the machines of fleet ide-gateway: "
TABLE = "--store: cannot use the DynamoDB table workspaces (describe_table): "
BUCKET = "--snapshots: cannot use the bucket snapshots: "
NONE = "there is none of that name in this account and region: create it, or correct the name or --aws-region"


@pytest.fixture
def good(aws: Account) -> dict[str, str]:
    """Settings that work, by what is there."""
    where = {"LocationConstraint": aws.region}
    aws.client("s3").create_bucket(Bucket="snapshots", CreateBucketConfiguration=where)
    aws.client("dynamodb").create_table(
        TableName="workspaces",
        KeySchema=[{"AttributeName": "workspaceId", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "workspaceId", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    image = aws.client("ec2").register_image(Name="ide-gateway", RootDeviceName="/dev/xvda")
    return {
        "join_url": "https://ide.example.com", "pool": "ec2", "machine_image": image["ImageId"],
        "instance_types": "t3.micro", "snapshots": "s3://snapshots/ide",
        "store": "dynamodb:workspaces",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (
            {"store": "dynamodb:nothing"},
            "--store: cannot use the DynamoDB table nothing (describe_table): "
            f"{NONE} (ResourceNotFoundException)",
        ),
        (
            {"store": "redis", "snapshots": "s3://nothing/ide"},
            "--snapshots: cannot use the bucket nothing: there is no such bucket: create it, or correct"
            " --snapshots (NoSuchBucket)",
        ),
        (
            {"store": "redis", "launch_template": "nothing"},
            "--pool: there is no launch template nothing in eu-central-1: create it, or correct"
            " --launch-template or --aws-region",
        ),
        (
            {"store": "redis", "target_group": GROUP},
            f"--target-group: cannot look at target group {GROUP}: there is none in this account and"
            " region; correct --target-group or --aws-region",
        ),
        (
            {"aws_region": ""},
            f"{TABLE}no AWS region is set; set --aws-region or AWS_REGION",
        ),
    ],
)  # fmt: skip
async def test_a_start_that_says_what_is_wrong(
    aws: Account,
    good: dict[str, str],
    valkey: str,
    redis: Redis,
    tmp_path: Path,
    wrong: dict[str, str],
    words: str,
) -> None:
    asked = good | wrong | {"redis_url": valkey, "data_dir": str(tmp_path / "data"), "port": "0"}
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in asked.items() if value]
    env = {name: value for name, value in aws.env.items() if not name.startswith("IDE_GATEWAY_")}
    if "aws_region" in wrong:
        env = {name: value for name, value in env.items() if not name.endswith("_REGION")}
    command = [sys.executable, "-m", "gateway", "serve", *flags]
    ended = subprocess.run(  # noqa: ASYNC221 (nothing else runs here)
        command, env=env, capture_output=True, text=True, timeout=30, check=False
    )
    assert (ended.returncode, ended.stderr.strip()) == (78, f"error: {words}")
    assert "Open http" not in ended.stdout
    assert not [call for call in aws.calls if call.action == "RunInstances"]
    assert await redis.get("lease:lifecycle") is None
    assert await redis.smembers("machines") == set()
    assert not (tmp_path / "data" / "url").exists()


async def opened(valkey: str, tmp_path: Path, settings: dict[str, str]) -> str:
    """What a start says of its parts, "" when it goes on."""
    manager = Manager(Settings(data_dir=tmp_path, **settings), valkey, "key", "test")  # type: ignore[arg-type]
    try:
        await manager.open()
    except ConfigurationError as error:
        return str(error)
    finally:
        await manager.close()
    return ""


async def test_what_is_set_up_rightly_starts(
    aws: Account, good: dict[str, str], valkey: str, tmp_path: Path
) -> None:
    queue = aws.client("sqs").create_queue(QueueName="notices")["QueueUrl"]
    topic = aws.client("sns").create_topic(Name="life")["TopicArn"]
    assert await opened(valkey, tmp_path, good | {"aws_queue": queue, "aws_topic": topic}) == ""


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"machine_image": "ami-0123456789abcdef0"}, "there is no image ami-0123456789abcdef0 in"),
        ({"subnets": "subnet-0123"}, "there is no subnet subnet-0123 in eu-central-1: create it, or correct --subnets or --aws-region"),
        ({"security_groups": "sg-0123"}, "there is no security group sg-0123 in eu-central-1: create it, or correct --security-groups"),
        ({"aws_queue": QUEUE}, "there is no such queue; create it in this account and region, or correct the address"),
        ({"aws_topic": TOPIC}, f"there is no SNS topic {TOPIC} in this account and region: create it, or correct --aws-topic or --aws-region"),
        ({"pool": "asg", "asg": "nothing"}, "there is no Auto Scaling group nothing in eu-central-1: create it (deploy/ has a template), or correct"),
        (
            {"pool": "ecs", "ecs_cluster": "nothing", "ecs_task_definition": "machine", "subnets": "subnet-1"},
            "there is no such task definition; register it, or correct --ecs-task-definition",
        ),
        (
            {"pool": "eks", "eks_cluster": "nothing", "eks_node_group": "machines"},
            "--pool: cannot look at node group machines of EKS cluster nothing: there is none in this account and"
            " region: create it, or correct --eks-cluster, --eks-node-group or --aws-region",
        ),
        ({"store": "dynamodb:workspaces", "aws_region": "us-east-1"}, f"{TABLE}{NONE}"),
    ],
)  # fmt: skip
async def test_what_is_missing_is_named(
    aws: Account,
    good: dict[str, str],
    valkey: str,
    tmp_path: Path,
    wrong: dict[str, str],
    words: str,
) -> None:
    said = await opened(valkey, tmp_path, good | {"store": "redis"} | wrong)
    assert words in said
    assert "\n" not in said
    assert not [call for call in aws.calls if call.action.startswith(("Run", "Create", "Update"))]


async def test_a_cluster_that_is_missing_is_named(
    aws: Account, good: dict[str, str], valkey: str, tmp_path: Path
) -> None:
    aws.client("ecs").register_task_definition(
        family="machine", containerDefinitions=[{"name": "machine", "image": "x", "memory": 512}]
    )
    ecs = {"pool": "ecs", "ecs_cluster": "nothing", "ecs_task_definition": "machine"}
    ecs |= {"ecs_launch_type": "EC2"}
    said = await opened(valkey, tmp_path, good | ecs | {"store": "redis", "subnets": "subnet-1"})
    assert said == (
        "--pool: there is no active ECS cluster nothing in this account and region: create it, or"
        " correct --ecs-cluster or --aws-region"
    )


@pytest.mark.parametrize(
    ("service", "error", "words"),
    [
        ("ec2", None, f"--pool: {LISTED}the credentials are wrong, or not for this region: check them and --aws-region (AuthFailure)"),
        ("s3", None, f"{BUCKET}the credentials are wrong: {ROLE} (InvalidAccessKeyId)"),
        ("dynamodb", None, f"{TABLE}the credentials are wrong: {ROLE} (UnrecognizedClientException)"),
        ("sqs", None, f"the credentials are wrong: {ROLE} (InvalidClientTokenId)"),
        ("sns", None, f"the credentials are wrong: {ROLE} (InvalidClientTokenId)"),
        ("ec2", ("ExpiredToken", 400), f"--pool: {LISTED}the credentials have expired: renew them (ExpiredToken)"),
        (
            "ec2", ("UnauthorizedOperation", 403),
            f"--pool: {LISTED}the role may not do this, compare it with deploy/iam (UnauthorizedOperation: said the test)",
        ),
        ("s3", ("AccessDenied", 403), f"{BUCKET}the role may not do this, compare it with deploy/iam (AccessDenied: said the test)"),
        ("s3", ("PermanentRedirect", 301), f"{BUCKET}it is in another region: set --aws-region to the bucket's (PermanentRedirect)"),
        ("s3", ("AuthorizationHeaderMalformed", 400), f"{BUCKET}it is in another region: set --aws-region to the bucket's"),
    ],
)  # fmt: skip
async def test_credentials_and_regions_that_are_wrong_are_said(
    aws: Account,
    good: dict[str, str],
    valkey: str,
    tmp_path: Path,
    service: str,
    error: tuple[str, int] | None,
    words: str,
) -> None:
    more = {
        "aws_queue": aws.client("sqs").create_queue(QueueName="notices")["QueueUrl"],
        "aws_topic": aws.client("sns").create_topic(Name="life")["TopicArn"],
    }
    with aws.fault(service, error=error or wrong_key(service)):
        said = await opened(valkey, tmp_path, good | more)
    assert words in said
    assert "\n" not in said


async def test_a_bucket_in_another_region_is_said_with_its_region(
    aws: Account, good: dict[str, str], valkey: str, tmp_path: Path
) -> None:
    """AWS would serve it all the same, from far away and for money."""
    there = boto3.client(
        "s3", "us-west-2", endpoint_url=aws.direct,
        aws_access_key_id="operator", aws_secret_access_key="secret",
    )  # fmt: skip
    west = {"LocationConstraint": "us-west-2"}
    there.create_bucket(Bucket="west", CreateBucketConfiguration=west)
    far = good | {"snapshots": "s3://west/ide"}
    said = await opened(valkey, tmp_path, far)
    assert said.startswith("--snapshots: the bucket west is in us-west-2, not in eu-central-1")
    wanted = good | {"snapshots": "s3://west/ide?region=us-west-2"}
    assert await opened(valkey, tmp_path, wanted) == ""


async def test_no_credentials_at_all(
    aws: Account, good: dict[str, str], valkey: str, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    said = await opened(valkey, tmp_path, good)
    assert "there are no AWS credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in said


async def test_an_aws_that_does_not_answer_is_not_waited_for_long(
    aws: Account, good: dict[str, str], valkey: str, tmp_path: Path, monkeypatch: Any
) -> None:
    """A region that is misspelt has no address; botocore alone would try for minutes."""
    monkeypatch.setattr(assembly, "PATIENCE", 0.3)
    monkeypatch.setattr(s3, "PATIENCE", 0.3)
    with aws.fault("ec2", delay=2), pytest.raises(DependencyMissing) as missing:
        await opened(valkey, tmp_path, good | {"store": "redis"})
    assert str(missing.value) == "--pool: no answer in 0.3 s"
    assert "--aws-region" in missing.value.hint
    monkeypatch.setattr(assembly, "PATIENCE", 10)
    with aws.fault("s3", delay=2):
        said = await opened(valkey, tmp_path, good | {"store": "redis"})
    assert said.startswith(f"{BUCKET}AWS gave no answer in time; check --aws-region")
