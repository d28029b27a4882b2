"""The pool of an Auto Scaling group, against moto; what moto does not play is told in its place."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest

from lifecycle.aws import Clients
from lifecycle.joining import Joining
from lifecycle.pools import Launch, NoCapacity, PoolError
from lifecycle.pools.asg import AsgConfig, AsgPool
from lifecycle.pools.bootstrap import Bootstrap
from tests.aws.account import Account
from tests.aws.groups import GROUP, Clock, States, alive, group_of, make_group, take

JOINING = Joining("key")
BOOTSTRAP = Bootstrap("https://ide.example.com", 7070, JOINING.code)


def wanted(*numbers: int) -> list[Launch]:
    return [Launch(f"m-{number}", JOINING.token(f"m-{number}"), 5) for number in numbers]


@pytest.fixture
async def clients() -> AsyncIterator[Clients]:
    clients = Clients()
    yield clients
    await clients.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def pool(aws: Account, clients: Clients, clock: Clock) -> AsgPool:
    make_group(aws)
    return AsgPool(AsgConfig("lab", 5, GROUP), BOOTSTRAP, clients, clock)


@pytest.fixture
def up(pool: AsgPool) -> Callable[..., object]:
    """Launch these and see them run; machine → instance."""

    async def launch(*numbers: int) -> dict[str, str]:
        await pool.launch(wanted(*numbers))
        rows = await pool.describe()
        assert {row.state for row in rows} == {"running"}
        return {row.machine_id: row.instance for row in rows}

    return launch


def tags(aws: Account, instance: str) -> dict[str, str]:
    (row,) = aws.client("ec2").describe_instances(InstanceIds=[instance])["Reservations"]
    return {tag["Key"]: tag["Value"] for tag in row["Instances"][0]["Tags"]}


def count(aws: Account, action: str) -> int:
    return sum(call.action == action for call in aws.calls)


async def test_an_instance_learns_by_tags_which_machine_it_is(aws: Account, up) -> None:
    instance = (await up(7))["m-7"]
    found = tags(aws, instance)
    assert found["ide-gateway:fleet"] == "lab"
    assert found["ide-gateway:machine"] == "m-7"
    assert found["ide-gateway:slots"] == "5"
    assert JOINING.machine(found["ide-gateway:join"]) == "m-7"
    assert JOINING.token("m-7") not in str(found)


async def test_what_is_shown(aws: Account, pool: AsgPool, up) -> None:
    instances = await up(1)
    (row,) = await pool.describe()
    assert (row.instance, row.zone, row.slots) == (instances["m-1"], f"{aws.region}a", 5)
    assert (row.token, row.leaving) == ("", "")


async def test_capacity_is_raised_in_one_call_and_to_a_total(
    aws: Account, pool: AsgPool, up
) -> None:
    await up(1, 2, 3)
    assert count(aws, "SetDesiredCapacity") == 1
    await pool.launch(wanted(2, 3, 4))
    await pool.launch(wanted(4))
    assert group_of(aws)["DesiredCapacity"] == 4
    assert count(aws, "SetDesiredCapacity") == 2
    assert {row.machine_id for row in await pool.describe()} == {"m-1", "m-2", "m-3", "m-4"}


async def test_going_down_takes_the_chosen_one_and_lowers_the_capacity(
    aws: Account, pool: AsgPool, up
) -> None:
    instances = await up(1, 2, 3)
    await pool.terminate("m-2")
    assert {row.machine_id for row in await pool.describe()} == {"m-1", "m-3"}
    assert group_of(aws)["DesiredCapacity"] == 2
    assert alive(aws) == {instances["m-1"]: "m-1", instances["m-3"]: "m-3"}
    sizes = [c.params["DesiredCapacity"] for c in aws.calls if c.action == "SetDesiredCapacity"]
    assert sizes == ["3"], "never lowered by a number: Auto Scaling would choose"


async def test_no_room_under_the_groups_maximum(aws: Account, clients: Clients) -> None:
    make_group(aws, most=2)
    pool = AsgPool(AsgConfig("lab", 5, GROUP), BOOTSTRAP, clients)
    with pytest.raises(NoCapacity, match=r"maximum of 2 instances: no room for m-3.*raise") as told:
        await pool.launch(wanted(1, 2, 3))
    assert told.value.machine_ids == ("m-3",)
    assert {row.machine_id for row in await pool.describe()} == {"m-1", "m-2"}
    assert group_of(aws)["DesiredCapacity"] == 2


async def test_an_instance_that_nobody_asked_for_goes(
    aws: Account, pool: AsgPool, up, clock: Clock
) -> None:
    instances = await up(1)
    aws.client("autoscaling").set_desired_capacity(AutoScalingGroupName=GROUP, DesiredCapacity=2)
    assert [row.machine_id for row in await pool.describe()] == ["m-1"]
    clock.now += 599
    await pool.describe()
    assert len(alive(aws)) == 2
    clock.now += 1
    await pool.describe()
    assert alive(aws) == {instances["m-1"]: "m-1"}
    assert group_of(aws)["DesiredCapacity"] == 1


async def test_a_stopped_machine_keeps_its_instance_and_comes_back(
    aws: Account, pool: AsgPool, up
) -> None:
    instances = await up(1, 2)
    await pool.stop("m-1")
    await pool.stop("m-1")
    rows = {row.machine_id: row for row in await pool.describe()}
    assert (rows["m-1"].state, rows["m-2"].state) == ("stopped", "running")
    assert group_of(aws)["DesiredCapacity"] == 1, "it is not replaced"
    await pool.start(wanted(1)[0])
    rows = {row.machine_id: row for row in await pool.describe()}
    assert (rows["m-1"].state, rows["m-1"].instance) == ("running", instances["m-1"])
    group = group_of(aws)
    assert {each["LifecycleState"] for each in group["Instances"]} == {"InService"}
    assert group["DesiredCapacity"] == len(alive(aws)) == 2


async def test_it_is_stopped_only_once_it_stands_by(aws: Account, pool: AsgPool, up) -> None:
    instance = (await up(1))["m-1"]
    states = States(aws)
    states.of[instance] = "EnteringStandby"
    await pool.stop("m-1")
    assert count(aws, "StopInstances") == 0
    states.of[instance] = "Standby"
    await pool.stop("m-1")
    assert [row.state for row in await pool.describe()] == ["stopped"]


async def test_terminating_a_stopped_one_lowers_nothing_twice(
    aws: Account, pool: AsgPool, up
) -> None:
    instances = await up(1, 2)
    await pool.stop("m-1")
    await pool.terminate("m-1")
    assert [row.machine_id for row in await pool.describe()] == ["m-2"]
    assert alive(aws) == {instances["m-2"]: "m-2"}
    assert group_of(aws)["DesiredCapacity"] == 1


async def test_protection_from_scale_in(aws: Account, pool: AsgPool, up) -> None:
    instances = await up(1, 2, 3)

    def protected() -> set[str]:
        rows = group_of(aws)["Instances"]
        return {row["InstanceId"] for row in rows if row["ProtectedFromScaleIn"]}

    await pool.protect({"m-1", "m-2"})
    assert protected() == {instances["m-1"], instances["m-2"]}
    made = count(aws, "SetInstanceProtection")
    await pool.protect({"m-1", "m-2"})
    assert count(aws, "SetInstanceProtection") == made, "nothing to change"
    await pool.protect({"m-2", "m-3"})
    assert protected() == {instances["m-2"], instances["m-3"]}
    await pool.protect(set())
    assert protected() == set()


async def test_protection_in_batches_of_fifty(aws: Account, clients: Clients) -> None:
    make_group(aws, most=60)
    pool = AsgPool(AsgConfig("lab", 5, GROUP), BOOTSTRAP, clients)
    await pool.launch(wanted(*range(1, 53)))
    ids = {row.machine_id for row in await pool.describe()}
    await pool.protect(ids)
    assert all(row["ProtectedFromScaleIn"] for row in group_of(aws)["Instances"])
    sizes = [
        sum(name.startswith("InstanceIds.") for name in call.params)
        for call in aws.calls
        if call.action == "SetInstanceProtection"
    ]
    assert sorted(sizes) == [2, 50]


async def test_the_warm_pool_is_kept_at_its_size(
    aws: Account, clients: Clients, clock: Clock
) -> None:
    make_group(aws)
    ask = aws.client("autoscaling")
    sized = AsgPool(AsgConfig("lab", 5, GROUP, 3, "Hibernated"), BOOTSTRAP, clients, clock)
    await sized.describe()
    found = ask.describe_warm_pool(AutoScalingGroupName=GROUP)["WarmPoolConfiguration"]
    assert (found["MinSize"], found["MaxGroupPreparedCapacity"]) == (3, 3)
    assert found["PoolState"] == "Hibernated"
    assert found["InstanceReusePolicy"] == {"ReuseOnScaleIn": False}
    await sized.describe()
    clock.now += 60
    await sized.describe()
    assert (count(aws, "DescribeWarmPool"), count(aws, "PutWarmPool")) == (2, 1)
    ask.put_warm_pool(AutoScalingGroupName=GROUP, MinSize=9, PoolState="Stopped")
    clock.now += 60
    await sized.describe()
    found = ask.describe_warm_pool(AutoScalingGroupName=GROUP)["WarmPoolConfiguration"]
    assert (found["MinSize"], found["PoolState"]) == (3, "Hibernated")
    await AsgPool(AsgConfig("lab", 5, GROUP), BOOTSTRAP, clients, clock).describe()
    assert "WarmPoolConfiguration" not in ask.describe_warm_pool(AutoScalingGroupName=GROUP)


async def test_warm_instances_are_no_machines(aws: Account, pool: AsgPool) -> None:
    states = States(aws)
    await pool.describe()
    aws.client("autoscaling").set_desired_capacity(AutoScalingGroupName=GROUP, DesiredCapacity=1)
    (instance,) = alive(aws)
    states.of[instance] = "Warmed:Stopped"
    await pool.launch(wanted(1))
    assert await pool.describe() == []
    states.of[instance] = "InService"
    assert [row.instance for row in await pool.describe()] == [instance]


async def test_a_new_instance_waits_for_its_name(aws: Account, pool: AsgPool) -> None:
    states = States(aws)
    await pool.launch(wanted(1))
    (instance,) = alive(aws)
    states.of[instance] = "Pending:Wait"
    with aws.fault("ec2", "CreateTags", error=("UnauthorizedOperation", 403)):
        await pool.describe()
    assert states.completed == [], "it has no name yet"
    (row,) = await pool.describe()
    assert (row.machine_id, row.state) == ("m-1", "launching")
    assert states.completed == [("born", instance)]


async def test_what_auto_scaling_takes_away_waits_until_it_is_drained(
    aws: Account, pool: AsgPool, up, clock: Clock
) -> None:
    instance = (await up(1))["m-1"]
    states = States(aws)
    states.of[instance] = "Terminating:Wait"
    for _ in range(3):
        (row,) = await pool.describe()
        assert row.state == "running"
        assert row.leaving.startswith("Auto Scaling takes it away: ")
    assert states.kept == [("dying", instance)]
    clock.now += 60
    await pool.describe()
    assert states.kept == [("dying", instance)] * 2
    assert states.completed == []
    await pool.terminate("m-1")
    assert states.completed == [("dying", instance)]
    assert count(aws, "TerminateInstanceInAutoScalingGroup") == 0
    assert await pool.describe() == []


async def test_a_hook_does_not_hold_what_we_terminated(aws: Account, pool: AsgPool, up) -> None:
    instances = await up(1, 2)
    states = States(aws)
    # Auto Scaling takes the call, and its hook then holds the instance.
    take(aws, "TerminateInstanceInAutoScalingGroup", [])
    await pool.terminate("m-1")
    states.of[instances["m-1"]] = "Terminating:Wait"
    assert [row.machine_id for row in await pool.describe()] == ["m-2"]
    assert states.completed == [("dying", instances["m-1"])]


async def test_an_instance_that_leaves_the_group_is_no_machine(
    aws: Account, pool: AsgPool, up
) -> None:
    instance = (await up(1, 2))["m-1"]
    aws.client("autoscaling").detach_instances(
        AutoScalingGroupName=GROUP, InstanceIds=[instance], ShouldDecrementDesiredCapacity=True
    )
    assert [row.machine_id for row in await pool.describe()] == ["m-2"]


async def test_what_a_check_says(aws: Account, clients: Clients, monkeypatch) -> None:
    make_group(aws)
    await AsgPool(AsgConfig("lab", 5, GROUP), BOOTSTRAP, clients).check()
    missing = AsgPool(AsgConfig("lab", 5, "elsewhere"), BOOTSTRAP, clients)
    with pytest.raises(PoolError, match="no Auto Scaling group elsewhere in eu-central-1: create"):
        await missing.check()
    make_group(aws, "kept", least=1, desired=1)
    with pytest.raises(PoolError, match=r"minimum of 1 instances.*set its minimum to 0"):
        await AsgPool(AsgConfig("lab", 5, "kept"), BOOTSTRAP, clients).check()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    strange = Clients()
    try:
        with pytest.raises(PoolError, match="group machines: the credentials are wrong"):
            await AsgPool(AsgConfig("lab", 5, GROUP), BOOTSTRAP, strange).check()
    finally:
        await strange.close()
