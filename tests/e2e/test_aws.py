"""`serve --pool ec2 --snapshots s3://… --store dynamodb:…` with real agents on the instances that moto starts."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.aws.account import Account
from tests.e2e.cloud import Cloud
from tests.e2e.harness import IDE_FLAGS

QUICK = (
    *IDE_FLAGS,
    "--idle-timeout", "3", "--idle-sweep-interval", "0.3",
    "--terminate-sweep-interval", "0.3", "--scale-interval", "0.3", "--scale-in-delay", "1",
    "--wait-probability", "0",  # so often nobody comes back
)  # fmt: skip


@pytest.fixture
async def cloud(aws: Account, tmp_path: Path) -> AsyncIterator[Cloud]:
    played = Cloud(aws, tmp_path / "instances")
    (tmp_path / "instances").mkdir()
    playing = asyncio.create_task(played.run())
    yield played
    playing.cancel()
    await asyncio.gather(playing, return_exceptions=True)
    played.close()


@pytest.fixture
def flags(aws: Account) -> tuple[str, ...]:
    """A bucket, a table and an image, and what makes a gateway use them."""
    aws.client("s3").create_bucket(
        Bucket="snapshots", CreateBucketConfiguration={"LocationConstraint": aws.region}
    )
    aws.client("dynamodb").create_table(
        TableName="workspaces",
        KeySchema=[{"AttributeName": "workspaceId", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "workspaceId", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    ec2 = aws.client("ec2")
    subnet = ec2.describe_subnets()["Subnets"][0]["SubnetId"]
    image = ec2.register_image(Name="ide-gateway", RootDeviceName="/dev/xvda")["ImageId"]
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    return (
        "--port", str(port), "--join-url", f"http://127.0.0.1:{port}",
        "--pool", "ec2", "--machine-image", image, "--instance-types", "m7i.large",
        "--subnets", subnet, "--snapshots", "s3://snapshots/ide", "--store", "dynamodb:workspaces",
    )  # fmt: skip


def item(aws: Account, workspace: dict[str, Any]) -> dict[str, str]:
    """Its record in DynamoDB."""
    key = {"workspaceId": {"S": workspace["workspaceId"]}}
    told = aws.client("dynamodb").get_item(TableName="workspaces", Key=key, ConsistentRead=True)
    return {name: str(next(iter(value.values()))) for name, value in told["Item"].items()}


async def written(client: Any, workspace: dict[str, Any], text: bytes = b"mine") -> str:
    """A file in it, and a conversation with it; the token that opens it."""
    token = (await client.enter(workspace))["token"]
    status, _ = await client.ide(workspace, "PUT", "/files/a.txt", token=token, data=text)
    assert status == 201
    async with client.websocket(workspace, token=token) as ws:
        await ws.send("hello")
        assert await ws.recv() == "hello"
    return str(token)


async def test_a_whole_life_on_ec2_s3_and_dynamodb(
    aws: Account, cloud: Cloud, flags: tuple[str, ...], serve: Any, client_of: Any, until: Any
) -> None:
    gateway = await serve(*QUICK, *flags, "--retention", "4", env=aws.env)
    client = client_of(gateway)
    workspace = await client.running()
    (instance,) = cloud.agents
    lines = cloud.user_data(instance).splitlines()
    assert [line.partition("=")[0] for line in lines] == ["IDE_GATEWAY_URL", "IDE_GATEWAY_JOIN"]
    await until(lambda: item(aws, workspace)["status"] == "running")
    token = await written(client, workspace)

    # Idle: stopped, its files in S3, its slot free.
    stopped = await client.becomes(workspace, "stopped", timeout=20)
    assert stopped["reason"] == "idle"

    def held() -> Any:
        prefix = f"ide/{workspace['workspaceId']}/"
        return aws.client("s3").list_objects_v2(Bucket="snapshots", Prefix=prefix).get("KeyCount")

    await until(held, what="a snapshot in S3")
    resumed = await client.running()
    assert resumed["epoch"] == 2
    assert await client.ide(resumed, "GET", "/files/a.txt", token=token) == (200, b"mine")

    # Away past the retention: terminated, the pool drained; a visit restores it on a new machine.
    terminated = await client.becomes(workspace, "terminated", timeout=30)
    assert terminated["snapshotId"]
    await until(lambda: item(aws, workspace)["status"] == "terminated")
    restored = await client.running()
    assert restored["epoch"] == 3
    assert await client.ide(restored, "GET", "/files/a.txt", token=token) == (200, b"mine")

    # A gateway that ends leaves machines elsewhere to the next one.
    before = [each for each, row in cloud.instances().items() if row["State"]["Name"] == "running"]
    assert gateway.stop() == 0
    after = [each for each, row in cloud.instances().items() if row["State"]["Name"] == "running"]
    assert before
    assert before == after


async def test_a_dedicated_machine_stops_and_resumes_in_place(
    aws: Account, cloud: Cloud, flags: tuple[str, ...], serve: Any, client_of: Any, until: Any
) -> None:
    dedicated = ("--slots", "1", "--warm-slots", "0", "--idle-timeout", "600")
    gateway = await serve(*QUICK, *flags, *dedicated, env=aws.env)
    client = client_of(gateway)
    workspace = await client.running()
    (instance,) = cloud.agents
    token = await written(client, workspace)
    await client.api("POST", f"/api/workspaces/{workspace['workspaceId']}/stop")
    state = lambda: cloud.instances()[instance]["State"]["Name"]  # noqa: E731
    await until(lambda: state() == "stopped", timeout=20, what="the instance is stopped")
    await until(lambda: instance not in cloud.agents, what="its agent has ended")
    resumed = await client.running()
    assert (resumed["instanceId"], resumed["epoch"]) == (workspace["instanceId"], 2)
    assert list(cloud.agents) == [instance], "the same instance, the same disk"
    assert await client.ide(resumed, "GET", "/files/a.txt", token=token) == (200, b"mine")
    assert not aws.client("s3").list_objects_v2(Bucket="snapshots").get("KeyCount"), "no snapshot"


async def test_everything_comes_back_after_redis_lost_everything(
    aws: Account,
    cloud: Cloud,
    flags: tuple[str, ...],
    server: Any,
    state: Any,
    serve: Any,
    client_of: Any,
    until: Any,
) -> None:
    quiet = ("--redis-url", server.url, "--idle-timeout", "600")
    gateway = await serve(*QUICK, *flags, *quiet, env=aws.env)
    client = client_of(gateway)
    ada = await client.running("ada")
    token = await written(client, ada)
    asleep = await client.running("ben")
    await client.api("POST", f"/api/workspaces/{asleep['workspaceId']}/stop")
    await client.becomes(asleep, "stopped")
    async with client.websocket(ada, token=token) as ws:
        await state.flushall()

        async def back() -> bool:
            status, rows = await client.api("GET", "/api/workspaces")
            return status == 200 and {row["userId"]: row["status"] for row in rows} == {
                "ada": "running", "ben": "stopped",
            }  # fmt: skip

        await until(back, timeout=30, what="both records are back")

        async def heard() -> bool:
            machine = await state.hgetall(f"machine:{ada['instanceId']}")
            return (machine.get("pool"), machine.get("status")) == ("ec2", "ready")

        await until(heard, timeout=30, what="its machine is known and ready again")
        await ws.send("still there?")
        assert await ws.recv() == "still there?", "nobody was stopped meanwhile"
    record = await client.status(ada)
    assert (record["epoch"], record["createdAt"]) == (ada["epoch"], ada["createdAt"])


async def test_a_spot_notice_moves_the_work_and_the_page_says_so(
    aws: Account, cloud: Cloud, flags: tuple[str, ...], serve: Any, client_of: Any, until: Any
) -> None:
    queue = aws.client("sqs").create_queue(QueueName="fleet")["QueueUrl"]
    quiet = ("--idle-timeout", "600", "--aws-queue", queue, "--market", "spot")
    gateway = await serve(*QUICK, *flags, *quiet, env=aws.env)
    client = client_of(gateway)
    workspace = await client.running()
    (doomed,) = cloud.agents
    token = await written(client, workspace)
    began = time.monotonic()
    notice = {
        "source": "aws.ec2", "detail-type": "EC2 Spot Instance Interruption Warning",
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "region": aws.region,
        "detail": {"instance-id": doomed, "instance-action": "terminate"},
    }  # fmt: skip
    aws.client("sqs").send_message(QueueUrl=queue, MessageBody=json.dumps(notice))
    said: set[str] = set()
    page = {"Accept": "text/html"}

    async def moved() -> bool:
        _, html = await client.ide(workspace, "GET", "/", token=token, headers=page)
        said.update(re.findall(r"[Mm]oving[^<]*", html.decode()))
        record = await client.status(workspace)
        return record["status"] == "running" and record["epoch"] == 2

    await until(moved, timeout=60, what="it runs elsewhere")
    assert time.monotonic() - began < 120
    assert said, "the page said that it moves"
    record = await client.status(workspace)
    assert record["instanceId"] != workspace["instanceId"]
    assert await client.ide(record, "GET", "/files/a.txt", token=token) == (200, b"mine")
    assert {"workspace.moving", "machine.doomed", "machine.evacuated"} <= set(await client.events())


async def test_a_gateway_is_in_its_target_group_while_it_takes_traffic(
    aws: Account, serve: Any, client_of: Any, until: Any
) -> None:
    ec2, elb = aws.client("ec2"), aws.client("elbv2")
    vpc = ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
    made = elb.create_target_group(
        Name="gateways", Protocol="HTTP", Port=80, VpcId=vpc, TargetType="ip",
        HealthCheckPath="/readyz",
    )  # fmt: skip
    group = made["TargetGroups"][0]["TargetGroupArn"]
    slow = {"Key": "deregistration_delay.timeout_seconds", "Value": "1"}
    elb.modify_target_group_attributes(TargetGroupArn=group, Attributes=[slow])
    gateway = await serve(*IDE_FLAGS, "--target-group", group, env=aws.env)

    def targets() -> list[tuple[str, int]]:
        told = elb.describe_target_health(TargetGroupArn=group)["TargetHealthDescriptions"]
        return [(row["Target"]["Id"], row["Target"]["Port"]) for row in told]

    await until(lambda: targets() == [("127.0.0.1", gateway.port)], what="it is registered")
    assert await asyncio.to_thread(gateway.stop) == 0
    assert targets() == []
    asked = [call.action for call in aws.calls if call.service.startswith("el")]
    assert asked.index("DeregisterTargets") > asked.index("RegisterTargets")


async def test_who_waits_reads_within_ten_seconds_that_there_are_no_machines(
    aws: Account, flags: tuple[str, ...], serve: Any, client_of: Any, until: Any
) -> None:
    """Two offerings have none, the third is taken; nothing ever joins: they wait, and are told why."""
    types = ("m7i.large", "m6i.large", "m5.large")
    short = aws.fault(
        "ec2", "RunInstances", error=("InsufficientInstanceCapacity", 500),
        when=lambda call: call.params["InstanceType"] in types[:2],
    )  # fmt: skip
    gateway = await serve(
        *QUICK, *flags, "--instance-types", ",".join(types), "--warm-slots", "0", env=aws.env
    )
    client = client_of(gateway)
    _, workspace = await client.api("POST", "/api/workspaces", {"userId": "ada"})
    token = (await client.enter(workspace))["token"]
    began = time.monotonic()
    words = ""

    async def read() -> bool:
        nonlocal words
        page = {"Accept": "text/html"}
        words = (await client.ide(workspace, "GET", "/", token=token, headers=page))[1].decode()
        return "no capacity" in words.lower()

    await until(read, timeout=10, what="the page says what is short")
    assert time.monotonic() - began < 10
    assert "m7i.large" in words
    assert "m5.large" in words, "and what was taken instead"
    asked = [c.params["InstanceType"] for c in aws.calls if c.action == "RunInstances"]
    assert asked == list(types)
    short.remove()


async def test_a_machine_that_does_not_join_in_time_is_found_and_terminated(
    aws: Account, cloud: Cloud, flags: tuple[str, ...], serve: Any, client_of: Any, until: Any
) -> None:
    cloud.agents_join = False
    gateway = await serve(*QUICK, *flags, "--launch-timeout", "3", env=aws.env)
    client = client_of(gateway)
    await until(cloud.instances, what="an instance was launched")
    (first,) = cloud.instances()
    _, workspace = await client.api("POST", "/api/workspaces", {"userId": "ada"})
    gone = lambda: cloud.instances()[first]["State"]["Name"] == "terminated"  # noqa: E731
    await until(gone, timeout=20, what="the one that did not join is terminated")
    cloud.agents_join = True
    running = await client.becomes(workspace, "running", timeout=30)
    assert running["instanceId"] != "m-1"
    assert "did not join after 3 s" in gateway.log.read_text()


async def test_nothing_goes_while_s3_refuses_the_snapshot(
    aws: Account, cloud: Cloud, flags: tuple[str, ...], serve: Any, client_of: Any, until: Any
) -> None:
    gateway = await serve(*QUICK, *flags, "--idle-timeout", "600", env=aws.env)
    client = client_of(gateway)
    workspace = await client.running()
    token = await written(client, workspace)
    (instance,) = cloud.agents
    with aws.fault("s3", "PutObject", error=("AccessDenied", 403)) as down:
        await client.api("DELETE", f"/api/workspaces/{workspace['workspaceId']}")

        async def called_off() -> bool:
            record = await client.status(workspace)
            return record["status"] == "stopped" and bool(record["error"])

        await until(called_off, timeout=20, what="the termination is called off, with words")
        assert down.hits
        assert cloud.instances()[instance]["State"]["Name"] == "running"
    resumed = await client.running()
    assert await client.ide(resumed, "GET", "/files/a.txt", token=token) == (200, b"mine")


async def test_another_gateway_goes_on_with_the_same_machines(
    aws: Account,
    cloud: Cloud,
    flags: tuple[str, ...],
    server: Any,
    state: Any,
    serve: Any,
    client_of: Any,
    until: Any,
    tmp_path: Path,
) -> None:
    """Machines report to the address they joined at: that gateway is gone, and nobody takes them for lost."""
    quiet = ("--redis-url", server.url, "--idle-timeout", "600", "--lease-ttl", "1")
    first = await serve(*QUICK, *flags, *quiet, env=aws.env)
    workspace = await client_of(first).running()
    second = await serve(
        *QUICK, *flags, *quiet, "--port", "0", data_dir=tmp_path / "second", env=aws.env
    )
    leader = await state.get("lease:lifecycle")
    first.kill()

    async def taken_over() -> bool:
        holder = await state.get("lease:lifecycle")
        return holder is not None and holder != leader

    await until(taken_over, timeout=20, what="the second one leads")
    client = client_of(second)
    token = await written(client, workspace)
    await client.running("ben")
    assert await client.ide(workspace, "GET", "/files/a.txt", token=token) == (200, b"mine")
    assert (await client.status(workspace))["epoch"] == 1
    launched = [call for call in aws.calls if call.action == "RunInstances"]
    assert len(launched) == len(cloud.instances()) == 1
    assert "machine.lost" not in await client.events()
