"""ECS at its worst: answers lost, throttled, half refused; tasks taken away."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest

from lifecycle.pools import Launch, NoCapacity, PoolError
from tests.aws.ecs import Cluster


@pytest.fixture
async def cluster(aws: Any) -> AsyncIterator[Cluster]:
    cluster = Cluster(aws)
    yield cluster
    await cluster.clients.close()


def launches(count: int) -> list[Launch]:
    return [Launch(f"m-{n}", f"token-{n}", 5) for n in range(1, count + 1)]


def machines(cluster: Cluster) -> Counter[str]:
    rows = [{tag["key"]: tag["value"] for tag in task["tags"]} for task in cluster.tasks()]
    return Counter(row["ide-gateway:machine"] for row in rows)


def refusing(reason: str, *numbers: int) -> Any:
    """RunTask's answer to those machines: no task, a reason, and no error."""

    def answer(call: Any, reply: bytes) -> bytes:
        tags = {tag["key"]: tag["value"] for tag in call.params["tags"]}
        if tags["ide-gateway:machine"] not in {f"m-{n}" for n in numbers}:
            return reply
        return json.dumps({"tasks": [], "failures": [{"arn": "arn", "reason": reason}]}).encode()

    return answer


async def test_answers_that_are_lost_make_no_machine_twice(cluster: Cluster) -> None:
    with cluster.aws.fault("ecs", "RunTask", drop_reply=True, share=0.5, seed=3) as lost:
        await cluster.pool().launch(launches(30))
    assert lost.hits > 5
    assert machines(cluster) == {f"m-{n}": 1 for n in range(1, 31)}


async def test_a_launch_given_up_is_found_by_the_next_leader(cluster: Cluster) -> None:
    """Not one answer came, nor was any token kept: the tags tell."""
    cluster.aws.fault("ecs", "RunTask", answer=lambda *_: b"no json")
    with pytest.raises(PoolError, match="launch machine m-1"):
        await cluster.pool().launch(launches(5))
    cluster.aws.proxy.reset()  # takes the fault away, and forgets every token
    await cluster.pool().launch(launches(8))
    assert machines(cluster) == {f"m-{n}": 1 for n in range(1, 9)}
    assert [call.action for call in cluster.aws.calls].count("RunTask") == 3


async def test_throttled_for_a_while(cluster: Cluster) -> None:
    with cluster.aws.fault("ecs", error=("ThrottlingException", 400), share=0.3, seed=1) as fault:
        await cluster.pool().launch(launches(20))
    assert fault.hits
    assert machines(cluster) == {f"m-{n}": 1 for n in range(1, 21)}
    assert len([c for c in cluster.aws.calls if c.action == "RunTask"]) <= 2 * 20


async def test_no_room_for_some_names_those(cluster: Cluster) -> None:
    said = "Capacity is unavailable at this time. Please try again later"
    cluster.aws.fault("ecs", "RunTask", answer=refusing(said, 2, 4))
    with pytest.raises(NoCapacity, match="Capacity is unavailable") as caught:
        await cluster.pool().launch(launches(5))
    assert sorted(caught.value.machine_ids) == ["m-2", "m-4"]


@pytest.mark.parametrize("reason", ["RESOURCE:MEMORY", "RESOURCE:ENI", "AGENT"])
async def test_a_cluster_without_room(cluster: Cluster, reason: str) -> None:
    cluster.aws.fault("ecs", "RunTask", answer=refusing(reason, 1))
    with pytest.raises(NoCapacity, match=f"no room for machine m-1: {reason}"):
        await cluster.pool().launch(launches(1))


async def test_other_refusals_say_what_they_mean(cluster: Cluster) -> None:
    with (
        cluster.aws.fault("ecs", "RunTask", answer=refusing("ATTRIBUTE", 1)),
        pytest.raises(PoolError, match=r"ATTRIBUTE \(no instance of the cluster has") as caught,
    ):
        await cluster.pool().launch(launches(1))
    assert not isinstance(caught.value, NoCapacity)


async def test_a_task_that_ecs_stopped_is_a_machine_that_is_gone(cluster: Cluster) -> None:
    pool = cluster.pool()
    await pool.launch(launches(2))
    task = next(
        task
        for task in cluster.tasks()
        if {"key": "ide-gateway:machine", "value": "m-1"} in task["tags"]
    )
    cluster.ecs.stop_task(cluster="machines", task=task["taskArn"], reason="host retired")
    assert [row.machine_id for row in await pool.describe()] == ["m-2"]
    with pytest.raises(PoolError, match="m-1 has no task"):
        await pool.start(launches(1)[0])
    await pool.terminate("m-1")


async def test_a_stop_whose_answer_is_lost_is_asked_again(cluster: Cluster) -> None:
    pool = cluster.pool()
    await pool.launch(launches(1))
    with cluster.aws.fault("ecs", "StopTask", drop_reply=True, times=1):
        await pool.terminate("m-1")
    assert cluster.tasks() == []


async def test_a_task_that_ended_before_it_was_stopped_is_gone_all_the_same(
    cluster: Cluster,
) -> None:
    pool = cluster.pool()
    await pool.launch(launches(1))

    def gone(_: object, reply: bytes) -> bytes:
        answer = json.loads(reply)
        answer["taskArns"] = [arn[:-4] + "0000" for arn in answer["taskArns"]]
        return json.dumps(answer).encode()

    with cluster.aws.fault("ecs", "ListTasks", answer=gone):  # it lists what is not there any more
        await pool.terminate("m-1")
        assert await pool.describe() == []
