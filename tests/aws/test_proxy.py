from __future__ import annotations

import asyncio
from typing import Any

import pytest

from lifecycle.aws import client, code_of, failures


@pytest.fixture(autouse=True)
def _any_call(aws: Any) -> None:
    """These tests call what nobody of ours calls."""
    aws.held_to_policies = False


async def run_instances(count: int = 1, token: str = "", **more: Any) -> list[str]:
    async with client("ec2") as ec2:
        answer = await ec2.run_instances(
            ImageId="ami-12345678", MinCount=count, MaxCount=count, ClientToken=token, **more
        )
        return [instance["InstanceId"] for instance in answer["Instances"]]


def instances(aws: Any) -> list[str]:
    pages = aws.client("ec2").get_paginator("describe_instances").paginate()
    return [i["InstanceId"] for p in pages for r in p["Reservations"] for i in r["Instances"]]


def actions(aws: Any) -> list[str]:
    return [call.action for call in aws.calls]


async def test_records_calls_of_every_protocol_with_their_role(aws: Any) -> None:
    async with client("ec2") as ec2, client("ecs") as ecs, client("autoscaling") as asg:
        await ec2.describe_instances(Filters=[{"Name": "tag:a", "Values": ["b"]}])
        await ecs.list_clusters()
        await asg.describe_auto_scaling_groups()
    with aws.role("agent"):
        async with client("cloudwatch") as cloudwatch, client("elbv2") as elb:
            many = [{"MetricName": f"{n}" * 100, "Value": 1.0} for n in range(300)]
            await cloudwatch.put_metric_data(Namespace="x", MetricData=many)
            await elb.describe_target_groups()
    with aws.role("operator"):
        async with client("dynamodb") as db, client("eks") as eks, client("sqs") as sqs:
            await db.list_tables()
            await eks.list_clusters()
            with pytest.raises(failures()):
                await eks.describe_nodegroup(clusterName="c", nodegroupName="n")
            await sqs.list_queues()
    assert [(c.service, c.action, c.role, c.status) for c in aws.calls] == [
        ("ec2", "DescribeInstances", "gateway", 200),
        ("ecs", "ListClusters", "gateway", 200),
        ("autoscaling", "DescribeAutoScalingGroups", "gateway", 200),
        ("cloudwatch", "PutMetricData", "agent", 200),
        ("elbv2", "DescribeTargetGroups", "agent", 200),
        ("dynamodb", "ListTables", "operator", 200),
        ("eks", "ListClusters", "operator", 200),
        ("eks", "DescribeNodegroup", "operator", 404),
        ("sqs", "ListQueues", "operator", 200),
    ]
    assert aws.calls[0].params["Filter.1.Name"] == "tag:a"
    assert aws.calls[0].region == "eu-central-1"


async def test_what_goes_straight_to_moto_is_not_recorded(aws: Any) -> None:
    aws.client("s3").list_buckets()
    assert aws.calls == []


async def test_a_lost_reply_was_done(aws: Any) -> None:
    with aws.fault("ec2", "RunInstances", drop_reply=True, times=1) as fault:
        async with client("ec2") as ec2:
            await ec2.run_instances(ImageId="ami-12345678", MinCount=2, MaxCount=2, ClientToken="t")
    assert fault.hits == 1
    assert [(c.action, c.status) for c in aws.calls] == [("RunInstances", 200)] * 2
    assert len(instances(aws)) == 2


async def test_a_lost_request_was_not_done(aws: Any) -> None:
    with aws.fault("ec2", "RunInstances", drop_request=True, times=1):
        await run_instances(token="")
    assert [c.status for c in aws.calls] == [0, 200]
    assert len(instances(aws)) == 1


async def test_the_same_token_gets_the_same_answer(aws: Any) -> None:
    both = await asyncio.gather(run_instances(3, "t"), run_instances(3, "t"))
    assert both[0] == both[1] == await run_instances(3, "t")
    assert sorted(instances(aws)) == sorted(both[0])
    assert await run_instances(3, "u") != both[0]
    with pytest.raises(failures()) as caught:
        await run_instances(4, "t")
    assert code_of(caught.value) == "IdempotentParameterMismatch"


async def test_a_refused_request_uses_up_no_token(aws: Any) -> None:
    with aws.fault("ec2", "RunInstances", error=("InsufficientInstanceCapacity", 400), times=1):
        with pytest.raises(failures()) as caught:
            await run_instances(1, "t")
        assert code_of(caught.value) == "InsufficientInstanceCapacity"
    assert await run_instances(1, "t") == instances(aws)


async def test_errors_only_for_some_calls(aws: Any) -> None:
    aws.fault(
        "ec2",
        "RunInstances",
        error=("InsufficientInstanceCapacity", 400),
        when=lambda call: call.params["InstanceType"] == "m7i.large",
    )
    assert await run_instances(InstanceType="t3.micro")
    with pytest.raises(failures(), match="InsufficientInstanceCapacity"):
        await run_instances(InstanceType="m7i.large")


@pytest.mark.parametrize(
    ("service", "method"),
    [
        ("ec2", "describe_instances"),
        ("s3", "list_buckets"),
        ("autoscaling", "describe_auto_scaling_groups"),
        ("ecs", "list_clusters"),
        ("dynamodb", "list_tables"),
        ("eks", "list_clusters"),
        ("sqs", "list_queues"),
        ("sns", "list_topics"),
        ("cloudwatch", "list_metrics"),
    ],
)
async def test_an_error_is_read_in_every_protocol(aws: Any, service: str, method: str) -> None:
    async with client(service) as made:
        with aws.fault(error=("AccessDenied", 403)), pytest.raises(failures()) as caught:
            await getattr(made, method)()
        assert code_of(caught.value) == "AccessDenied"
        await getattr(made, method)()


async def test_a_share_is_drawn_by_its_seed(aws: Any) -> None:
    async def hits(seed: int) -> list[int]:
        aws.calls.clear()
        with aws.fault("ec2", share=0.3, seed=seed, error=("AccessDenied", 403)):
            async with client("ec2") as ec2:
                for _ in range(40):
                    await asyncio.gather(ec2.describe_regions(), return_exceptions=True)
        return [call.status for call in aws.calls]

    first = await hits(1)
    assert 5 <= first.count(403) <= 20
    assert await hits(1) == first != await hits(2)


async def test_delays(aws: Any) -> None:
    async with client("sqs") as sqs:
        await sqs.list_queues()
        started = asyncio.get_running_loop().time()
        with aws.fault("sqs", delay=0.2):
            await sqs.list_queues()
    assert asyncio.get_running_loop().time() - started >= 0.2


async def test_lies(aws: Any) -> None:
    """An answer of a while ago, whatever happened since."""
    seen: list[bytes] = []

    def stale(_: object, reply: bytes) -> bytes:
        seen.append(reply)
        return seen[0]

    async with client("ec2") as ec2:
        with aws.fault("ec2", "DescribeInstances", answer=stale):
            assert (await ec2.describe_instances())["Reservations"] == []
            await run_instances()
            assert (await ec2.describe_instances())["Reservations"] == []
        assert len((await ec2.describe_instances())["Reservations"]) == 1


async def test_something_happens_just_before_a_call(aws: Any) -> None:
    """In a thread of its own: it may call AWS itself."""
    made: list[str] = []

    def before(_: object) -> None:
        made.append(aws.client("sqs").create_queue(QueueName="q")["QueueUrl"])

    async with client("sqs") as sqs:
        with aws.fault("sqs", "ListQueues", before=before):
            listed = (await sqs.list_queues())["QueueUrls"]
    assert [url.rpartition("/")[2] for url in listed] == ["q"]


async def test_what_happens_to_objects_goes_by_its_name(aws: Any) -> None:
    aws.client("s3").create_bucket(
        Bucket="bucket", CreateBucketConfiguration={"LocationConstraint": aws.region}
    )
    key: Any = {"Bucket": "bucket", "Key": "a b/ü+%2F"}
    part = b"x" * (5 * 2**20)
    async with client("s3") as s3:
        await s3.head_bucket(Bucket="bucket")
        await s3.put_object(**key, Body=b"1", ChecksumAlgorithm="SHA256")
        assert await (await s3.get_object(**key))["Body"].read() == b"1"
        assert (await s3.head_object(**key))["ContentLength"] == 1
        upload = (await s3.create_multipart_upload(**key))["UploadId"]
        tag = await s3.upload_part(**key, UploadId=upload, PartNumber=1, Body=part)
        await s3.list_parts(**key, UploadId=upload)
        await s3.list_multipart_uploads(Bucket="bucket")
        await s3.complete_multipart_upload(
            **key,
            UploadId=upload,
            MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": tag["ETag"]}]},
        )
        listed = await s3.list_objects_v2(Bucket="bucket", Prefix="a b/")
        assert [(o["Key"], o["Size"]) for o in listed["Contents"]] == [(key["Key"], len(part))]
        gone = (await s3.create_multipart_upload(**key))["UploadId"]
        await s3.abort_multipart_upload(**key, UploadId=gone)
        await s3.get_object_tagging(**key)
        await s3.delete_object(**key)
        await s3.delete_objects(Bucket="bucket", Delete={"Objects": [{"Key": "z"}]})
        await s3.list_buckets()
    assert actions(aws) == [
        "HeadBucket",
        "PutObject",
        "GetObject",
        "HeadObject",
        "CreateMultipartUpload",
        "UploadPart",
        "ListParts",
        "ListMultipartUploads",
        "CompleteMultipartUpload",
        "ListObjectsV2",
        "CreateMultipartUpload",
        "AbortMultipartUpload",
        "GetObjectTagging",
        "DeleteObject",
        "DeleteObjects",
        "ListBuckets",
    ]


@pytest.mark.parametrize("service", ["ec2", "s3", "sqs", "dynamodb"])
async def test_unknown_credentials_are_refused(aws: Any, service: str) -> None:
    ask = {"ec2": "describe_instances", "s3": "list_buckets", "sqs": "list_queues"}
    with aws.role("nobody"):
        async with client(service) as made:
            with pytest.raises(failures()) as caught:
                await getattr(made, ask.get(service, "list_tables"))()
    assert code_of(caught.value) in (
        "AuthFailure",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "UnrecognizedClientException",
    )


def test_a_test_begins_with_nothing(aws: Any) -> None:
    assert aws.calls == []
    assert instances(aws) == []
    assert aws.client("s3").list_buckets()["Buckets"] == []
    assert aws.client("sqs").list_queues().get("QueueUrls", []) == []
