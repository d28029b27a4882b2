from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from gateway import balancer
from gateway.balancer import BalancerError, TargetGroup, is_gone, own_instance, own_ip
from lifecycle.aws import Clients

HERE = "10.0.0.7"


class Group:
    """A target group in moto."""

    def __init__(self, aws: Any, kind: str = "ip", delay: int = 300) -> None:
        self.aws, self.elb, ec2 = aws, aws.client("elbv2"), aws.client("ec2")
        vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        made = self.elb.create_target_group(
            Name="gateways", Protocol="HTTP", Port=8000, VpcId=vpc, TargetType=kind
        )
        self.arn = made["TargetGroups"][0]["TargetGroupArn"]
        row = {"Key": "deregistration_delay.timeout_seconds", "Value": str(delay)}
        self.elb.modify_target_group_attributes(TargetGroupArn=self.arn, Attributes=[row])

    def targets(self) -> list[tuple[str, int]]:
        found = self.elb.describe_target_health(TargetGroupArn=self.arn)
        rows = [row["Target"] for row in found["TargetHealthDescriptions"]]
        return [(row["Id"], row["Port"]) for row in rows]

    def draining(self, states: list[str]) -> Any:
        """A lie about our health: these, one an answer, the last for ever."""

        def answer(_: object, reply: bytes) -> bytes:
            state = states.pop(0) if len(states) > 1 else states[0]
            return reply.replace(b"<State>unused", f"<State>{state}".encode())

        return self.aws.fault("elbv2", "DescribeTargetHealth", answer=answer)


@pytest.fixture
async def clients(aws: Any, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Clients]:
    monkeypatch.setattr(balancer, "POLL", 0.02)
    clients = Clients()
    yield clients
    await clients.close()


async def test_in_when_ready_and_again_is_the_same(aws: Any, clients: Clients) -> None:
    group = Group(aws)
    here = TargetGroup(group.arn, clients, 8000, HERE)
    for _ in range(2):
        await here.register()
        assert group.targets() == [(HERE, 8000)]


async def test_out_once_the_group_says_that_nothing_is_left(aws: Any, clients: Clients) -> None:
    group = Group(aws)
    here = TargetGroup(group.arn, clients, 8000, HERE)
    await here.register()
    with group.draining(["draining", "draining", "unused"]) as looks:
        await here.leave()
    assert looks.hits == 3
    assert group.targets() == []
    await here.leave()  # again is nothing
    assert [c.action for c in aws.calls].count("DeregisterTargets") == 1


async def test_waits_no_longer_than_the_groups_delay(aws: Any, clients: Clients) -> None:
    group = Group(aws, delay=1)
    here = TargetGroup(group.arn, clients, 8000, HERE)
    await here.register()
    began = time.monotonic()
    with group.draining(["draining"]) as looks:
        await here.leave()
    assert 1 <= time.monotonic() - began < 5
    assert looks.hits > 3


async def test_waits_no_longer_than_it_is_told(aws: Any, clients: Clients) -> None:
    group = Group(aws, delay=300)
    here = TargetGroup(group.arn, clients, 8000, HERE)
    await here.register()
    began = time.monotonic()
    with group.draining(["draining"]):
        await here.leave(at_most=0.5)
    assert 0.5 <= time.monotonic() - began < 5


async def test_a_deregistration_that_fails_is_tried_again(aws: Any, clients: Clients) -> None:
    group = Group(aws)
    here = TargetGroup(group.arn, clients, 8000, HERE)
    await here.register()
    with aws.fault("elbv2", "DeregisterTargets", error=("AccessDenied", 403), times=2):
        await here.leave()
    assert group.targets() == []


async def test_a_deregistration_that_never_works_holds_up_the_end_for_the_delay_at_most(
    aws: Any, clients: Clients
) -> None:
    group = Group(aws, delay=1)
    here = TargetGroup(group.arn, clients, 8000, HERE)
    await here.register()
    began = time.monotonic()
    with aws.fault("elbv2", "DeregisterTargets", error=("AccessDenied", 403)):
        await here.leave()
        # Looked at here: its last try may still be on its way, and is refused like the others.
        assert time.monotonic() - began < 5
        assert group.targets() == [(HERE, 8000)]


async def test_a_balancer_that_does_not_answer_holds_up_the_end_no_longer_than_told(
    aws: Any, clients: Clients
) -> None:
    group = Group(aws)
    here = TargetGroup(group.arn, clients, 8000, HERE)
    await here.register()
    began = time.monotonic()
    with aws.fault("elbv2", delay=3):
        await here.leave(at_most=0.3)
    assert time.monotonic() - began < 2


async def test_a_group_that_is_gone_holds_up_nothing(aws: Any, clients: Clients) -> None:
    group = Group(aws)
    here = TargetGroup(group.arn, clients, 8000, HERE)
    await here.register()
    group.elb.delete_target_group(TargetGroupArn=group.arn)
    async with asyncio.timeout(10):
        await here.leave()


async def test_who_never_registered_does_not_deregister(aws: Any, clients: Clients) -> None:
    await TargetGroup(Group(aws).arn, clients, 8000, HERE).leave()
    assert aws.calls == []


async def test_its_own_address_is_the_one_that_leads_to_the_world(
    aws: Any, clients: Clients
) -> None:
    group = Group(aws)
    await TargetGroup(group.arn, clients, 8000).register()
    assert group.targets() == [(own_ip(), 8000)]
    assert own_ip().count(".") == 3


class Metadata:
    """An instance's metadata service, version 2: nothing without a token."""

    def __init__(self, instance: str) -> None:
        self._instance, self.asked = instance, [""]

    async def serve(self, request: web.BaseRequest) -> web.Response:
        self.asked.append(f"{request.method} {request.path}")
        if request.method == "PUT":
            assert int(request.headers["X-aws-ec2-metadata-token-ttl-seconds"]) > 0
            return web.Response(text="session")
        known = request.headers.get("X-aws-ec2-metadata-token") == "session"
        return web.Response(text=self._instance) if known else web.Response(status=401)

    async def open(self) -> str:
        self.runner = web.ServerRunner(web.Server(self.serve))
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", 0).start()
        return f"http://127.0.0.1:{self.runner.addresses[0][1]}"


async def test_an_instance_is_registered_by_its_id(
    aws: Any, clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = Group(aws, kind="instance")
    made = aws.client("ec2").run_instances(ImageId="ami-12345678", MinCount=1, MaxCount=1)
    instance = made["Instances"][0]["InstanceId"]
    metadata = Metadata(instance)
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", await metadata.open())
    try:
        await TargetGroup(group.arn, clients, 8000).register()
    finally:
        await metadata.runner.cleanup()
    assert group.targets() == [(instance, 8000)]
    assert metadata.asked[1:] == ["PUT /latest/api/token", "GET /latest/meta-data/instance-id"]


async def test_elsewhere_it_says_that_there_is_no_instance(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(BalancerError, match="IMDSv2, or use a target group of the type ip"):
        await own_instance()


async def test_errors_say_what_to_do(aws: Any, clients: Clients) -> None:
    group = Group(aws)
    nowhere = group.arn.replace("gateways", "nobody")
    with pytest.raises(BalancerError, match=r"there is none in .* --target-group"):
        await TargetGroup(nowhere, clients, 8000, HERE).register()
    aws.fault("elbv2", "RegisterTargets", error=("InvalidTarget", 400))
    with pytest.raises(BalancerError, match=f"does not take {HERE}; it must be in the group's VPC"):
        await TargetGroup(group.arn, clients, 8000, HERE).register()


def test_another_port_of_this_host_is_another_gateway() -> None:
    def told(*rows: tuple[str, int, str]) -> dict[str, Any]:
        made = [{"Target": {"Id": i, "Port": p}, "TargetHealth": {"State": s}} for i, p, s in rows]
        return {"TargetHealthDescriptions": made}

    here = {"Id": HERE, "Port": 8000}
    assert is_gone(told(), here)
    assert is_gone(told((HERE, 8000, "unused")), here)
    assert not is_gone(told((HERE, 8000, "draining")), here)
    assert not is_gone(told((HERE, 8000, "unhealthy.draining")), here)
    assert is_gone(told((HERE, 8000, "unused"), (HERE, 8001, "healthy")), here)
