from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from lifecycle.joining import Joining
from lifecycle.pools import Launch, NoCapacity, PoolError
from lifecycle.pools.ecs import client_token, started_by
from lifecycle.pools.ecs_answers import is_gone, translated
from tests.aws.ecs import JOINING, Cluster

ONE, TWO = Launch("m-1", "token-1", 2), Launch("m-2", "token-2", 1)


@pytest.fixture
async def cluster(aws: Any) -> AsyncIterator[Cluster]:
    cluster = Cluster(aws)
    yield cluster
    await cluster.clients.close()


def asked(cluster: Cluster, action: str) -> list[dict[str, Any]]:
    return [call.params for call in cluster.aws.calls if call.action == action]


def telling(**task: Any) -> Any:
    """An answer of DescribeTasks in which every task is like this."""

    def change(_: object, reply: bytes) -> bytes:
        answer = json.loads(reply)
        answer["tasks"] = [each | task for each in answer["tasks"]]
        return json.dumps(answer).encode()

    return change


async def test_a_machine_is_a_task_that_can_be_found_again(cluster: Cluster) -> None:
    assert await cluster.pool().launch([ONE, TWO]) == []
    tags = {tag["key"]: tag["value"] for tag in cluster.tasks()[0]["tags"]}
    assert tags == {
        "ide-gateway:fleet": "fleet one",
        "ide-gateway:machine": tags["ide-gateway:machine"],
        "ide-gateway:slots": tags["ide-gateway:slots"],
    }
    rows = {row.machine_id: row for row in await cluster.pool().describe()}
    assert {(row.machine_id, row.state, row.slots) for row in rows.values()} == {
        ("m-1", "running", 2),
        ("m-2", "running", 1),
    }
    assert rows["m-1"].address.endswith(":7070")
    assert rows["m-1"].address.count(".") == 3
    assert rows["m-1"].instance.startswith("arn:aws:ecs:")
    assert all(row.token == "" and row.leaving == "" for row in rows.values())


async def test_a_container_is_told_where_to_go_and_its_code_and_nothing_else(
    cluster: Cluster,
) -> None:
    await cluster.pool().launch([ONE])
    (request,) = asked(cluster, "RunTask")
    assert request["overrides"] == {
        "containerOverrides": [
            {
                "name": "agent",
                "environment": [
                    {"name": "IDE_GATEWAY_URL", "value": "https://ide.example.com"},
                    {"name": "IDE_GATEWAY_JOIN", "value": JOINING.code(1)},
                ],
            }
        ]
    }
    assert (request["startedBy"], request["count"]) == ("fleet-one", 1)
    everything = json.dumps(request)
    assert ONE.token not in everything
    assert JOINING.token("m-1") not in everything
    assert Joining("the gateways' key").machine(JOINING.code(1)) == "m-1"


async def test_the_environment_goes_to_the_container_that_is_named(cluster: Cluster) -> None:
    await cluster.pool(container="beside").launch([ONE])
    (request,) = asked(cluster, "RunTask")
    assert [c["name"] for c in request["overrides"]["containerOverrides"]] == ["beside"]


async def test_the_same_machine_is_the_same_request_for_every_leader(cluster: Cluster) -> None:
    empty = json.dumps({"taskArns": []}).encode()
    with cluster.aws.fault("ecs", "ListTasks", answer=lambda *_: empty):  # has not seen it yet
        await cluster.pool().launch([ONE])
        await cluster.pool().launch([ONE])
        # One that was set otherwise asks for something else under that token, and leaves it alone.
        await cluster.pool(container="beside").launch([ONE])
    first, second, third = asked(cluster, "RunTask")
    assert first == second != third
    assert len(cluster.tasks()) == 1
    assert len(first["clientToken"]) == 64


def test_names_for_ecs_are_as_it_wants_them() -> None:
    assert started_by("a fleet.of/ours" * 5) == "a-fleet-of/oursa-fleet-of/oursa-flee"
    assert client_token("a", "m-1") != client_token("a", "m-2") != client_token("b", "m-2")


async def test_of_other_fleets_nothing_is_seen(cluster: Cluster) -> None:
    """Even where ListTasks cannot tell them apart."""
    await cluster.pool().launch([ONE])
    other = cluster.pool(fleet="fleet-one")
    assert await other.describe() == []
    await other.terminate("m-1")
    await other.launch([ONE])
    assert len(cluster.tasks()) == 2


async def test_hundreds_are_described_in_batches(cluster: Cluster) -> None:
    launches = [Launch(f"m-{n}", "t", 5) for n in range(1, 131)]
    pool = cluster.pool()
    await pool.launch(launches)
    cluster.aws.calls.clear()
    assert {row.machine_id for row in await pool.describe()} == {e.machine_id for e in launches}
    assert [len(request["tasks"]) for request in asked(cluster, "DescribeTasks")] == [100, 30]


async def test_every_page_is_read(cluster: Cluster) -> None:
    """moto has no pages, so the proxy makes them."""
    pool = cluster.pool()
    await pool.launch([Launch(f"m-{n}", "t", 5) for n in range(1, 8)])

    def page(call: Any, reply: bytes) -> bytes:
        arns = json.loads(reply)["taskArns"]
        at = int(call.params.get("nextToken", 0))
        after = {"nextToken": str(at + 3)} if at + 3 < len(arns) else {}
        return json.dumps({"taskArns": arns[at : at + 3], **after}).encode()

    with cluster.aws.fault("ecs", "ListTasks", answer=page):
        assert len(await pool.describe()) == 7


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("PROVISIONING", "launching"),
        ("PENDING", "launching"),
        ("ACTIVATING", "launching"),
        ("RUNNING", "running"),
    ],
)
async def test_states(cluster: Cluster, status: str, state: str) -> None:
    pool = cluster.pool()
    await pool.launch([ONE])
    with cluster.aws.fault("ecs", "DescribeTasks", answer=telling(lastStatus=status)):
        (row,) = await pool.describe()
    assert (row.state, row.leaving) == (state, "")


@pytest.mark.parametrize("status", ["RUNNING", "DEACTIVATING", "STOPPING"])
async def test_what_ecs_takes_away_is_said_while_it_still_runs(
    cluster: Cluster, status: str
) -> None:
    pool = cluster.pool()
    await pool.launch([ONE])
    spot = telling(
        lastStatus=status, desiredStatus="STOPPED", stopCode="SpotInterruption",
        stoppedReason="Your Spot Task was interrupted.",
    )  # fmt: skip
    with cluster.aws.fault("ecs", "DescribeTasks", answer=spot):
        (row,) = await pool.describe()
        assert (row.state, row.leaving) == ("running", "Your Spot Task was interrupted.")
        with pytest.raises(PoolError, match="m-1"):
            await pool.start(ONE)
    mine = telling(lastStatus=status, desiredStatus="STOPPED", stopCode="UserInitiated")
    with cluster.aws.fault("ecs", "DescribeTasks", answer=mine):
        assert await pool.describe() == []


@pytest.mark.parametrize("status", ["DEPROVISIONING", "STOPPED", "DELETED"])
async def test_what_ended_is_gone(cluster: Cluster, status: str) -> None:
    pool = cluster.pool()
    await pool.launch([ONE])
    with cluster.aws.fault("ecs", "DescribeTasks", answer=telling(lastStatus=status)):
        assert await pool.describe() == []


async def test_on_an_instances_network_only_the_agent_knows_its_address(cluster: Cluster) -> None:
    cluster.define("bridge", "EC2")
    cluster.add_instance()
    pool = cluster.pool(launch_type="EC2", subnets=())
    await pool.check()
    await pool.launch([ONE])
    (request,) = asked(cluster, "RunTask")
    assert request["launchType"] == "EC2"
    assert "networkConfiguration" not in request
    (row,) = await pool.describe()
    assert (row.state, row.address) == ("running", "")


async def test_a_stop_that_keeps_the_disk_does_not_exist(cluster: Cluster) -> None:
    pool = cluster.pool()
    assert not pool.traits.keeps_disks
    assert pool.traits.joins
    await pool.launch([ONE])
    with pytest.raises(PoolError, match="tasks of ECS keep no disk"):
        await pool.stop("m-1")
    await pool.protect(["m-1"])
    await pool.close(stop_machines=True)
    assert len(cluster.tasks()) == 1


async def test_terminating_tells_ecs_why(cluster: Cluster) -> None:
    pool = cluster.pool()
    await pool.launch([ONE, TWO])
    await pool.terminate("m-1")
    (request,) = asked(cluster, "StopTask")
    assert request["reason"].startswith("ide-gateway: ")
    assert [row.machine_id for row in await pool.describe()] == ["m-2"]
    cluster.aws.fault("ecs", "StopTask", error=("InvalidParameterException", 400))
    with pytest.raises(PoolError, match="stop the task of machine m-2"):
        await pool.terminate("m-2")


async def test_check_passes_where_machines_could_be_launched(cluster: Cluster) -> None:
    await cluster.pool().check()


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"cluster": "nowhere"}, "no active ECS cluster nowhere .* --ecs-cluster"),
        ({"task_definition": "nothing"}, "task definition nothing.* --ecs-task-definition"),
        ({"container": "ide"}, "has no container ide: it has agent, beside"),
        ({"subnets": ()}, "name --subnets"),
        ({"launch_type": "EC2"}, "is for FARGATE, not for EC2"),
    ],
)
async def test_check_says_what_to_do(cluster: Cluster, changed: Any, words: str) -> None:
    cluster.aws.fault("ecs", "DescribeTaskDefinition", answer=telling_definition("FARGATE"))
    with pytest.raises(PoolError, match=words):
        await cluster.pool(**changed).check()


def telling_definition(compatible: str) -> Any:
    """moto says EC2 with everything."""

    def change(call: Any, reply: bytes) -> bytes:
        answer = json.loads(reply)
        if "taskDefinition" in answer:
            answer["taskDefinition"]["compatibilities"] = [compatible]
        return json.dumps(answer).encode()

    return change


async def test_wrong_credentials_are_said(cluster: Cluster) -> None:
    wrong = pytest.raises(PoolError, match=r"credentials are wrong.*AWS_ACCESS_KEY_ID")
    with cluster.aws.role("nobody"), wrong:
        await cluster.pool().check()


def refused(code: str, message: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": message}}, "StopTask")


def test_a_task_that_ended_long_ago_is_told_from_other_refusals() -> None:
    assert is_gone(refused("InvalidParameterException", "The referenced task was not found."))
    assert not is_gone(refused("InvalidParameterException", "Invalid task identifier."))
    assert not is_gone(refused("ClusterNotFoundException", "Cluster not found."))
    assert not is_gone(None)


def test_refusals_in_words() -> None:
    empty = refused(
        "InvalidParameterException", "No Container Instances were found in your cluster."
    )
    assert isinstance(translated(empty, "launch", "machines"), NoCapacity)
    nowhere = translated(refused("ClusterNotFoundException", "no"), "list the tasks", "machines")
    assert str(nowhere) == (
        "cannot list the tasks: there is no ECS cluster machines; correct --ecs-cluster or"
        " --aws-region"
    )
    assert not isinstance(nowhere, NoCapacity)
