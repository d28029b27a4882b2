"""The pool of an EKS node group, against moto; the test starts the nodes, as EKS does."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from lifecycle.aws import Clients
from lifecycle.joining import Joining
from lifecycle.pools import Launch, NoCapacity, PoolError
from lifecycle.pools.bootstrap import Bootstrap
from lifecycle.pools.eks import EksConfig, EksPool
from tests.aws.account import Account
from tests.aws.groups import CLUSTER, NODES, alive, group_of, make_node_group, take

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
def group(aws: Account) -> str:
    """The node group's Auto Scaling group; its maximum is 3."""
    return make_node_group(aws, most=3)


@pytest.fixture
def pool(group: str, clients: Clients) -> EksPool:
    return EksPool(EksConfig("lab", 5, CLUSTER, NODES), BOOTSTRAP, clients)


def sizes(aws: Account) -> list[dict[str, int]]:
    """What the node group was asked to scale to."""
    asked = [call for call in aws.calls if call.action == "UpdateNodegroupConfig"]
    return [call.params["scalingConfig"] for call in asked]


async def test_nodes_come_by_the_node_groups_size_and_get_names(
    aws: Account, pool: EksPool, group: str
) -> None:
    await pool.launch(wanted(1, 2))
    rows = await pool.describe()
    assert [(row.machine_id, row.state, row.slots) for row in rows] == [
        ("m-1", "running", 5),
        ("m-2", "running", 5),
    ]
    assert alive(aws) == {row.instance: row.machine_id for row in rows}
    await pool.launch(wanted(2, 3))
    assert sizes(aws) == [{"desiredSize": 2}, {"desiredSize": 3}]
    assert not any(call.action == "SetDesiredCapacity" for call in aws.calls)


async def test_going_down_terminates_the_chosen_node(
    aws: Account, pool: EksPool, group: str
) -> None:
    await pool.launch(wanted(1, 2, 3))
    gone = {row.machine_id: row.instance for row in await pool.describe()}["m-2"]
    await pool.terminate("m-2")
    assert [row.machine_id for row in await pool.describe()] == ["m-1", "m-3"]
    assert gone not in alive(aws)
    assert group_of(aws, group)["DesiredCapacity"] == 2
    assert sizes(aws) == [{"desiredSize": 3}], "the node group's size is never lowered"
    await pool.launch(
        wanted(4)
    )  # moto's node group still says 3: its Auto Scaling group knows better
    assert [row.machine_id for row in await pool.describe()] == ["m-1", "m-3", "m-4"]


async def test_no_room_under_the_node_groups_maximum(aws: Account, pool: EksPool) -> None:
    with pytest.raises(NoCapacity, match=r"ide of EKS cluster lab is at its maximum of 3.*m-4"):
        await pool.launch(wanted(1, 2, 3, 4))
    assert len(await pool.describe()) == 3


async def test_a_node_group_that_updates_is_asked_again(aws: Account, pool: EksPool) -> None:
    with aws.fault("eks", "UpdateNodegroupConfig", error=("ResourceInUseException", 409)):
        await pool.launch(wanted(1))
        assert await pool.describe() == []
    await pool.describe()
    assert [row.machine_id for row in await pool.describe()] == ["m-1"]


async def test_hooks_are_left_to_eks(aws: Account, pool: EksPool, group: str) -> None:
    await pool.launch(wanted(1))
    await pool.describe()
    taken: list[tuple[str, str]] = []
    take(aws, "CompleteLifecycleAction", taken)
    aws.fault(
        "autoscaling",
        "DescribeAutoScalingGroups",
        answer=lambda call, body: body.replace(b">InService<", b">Terminating:Wait<"),
    )
    (row,) = await pool.describe()
    assert row.leaving.startswith("Auto Scaling takes it away")
    await pool.terminate("m-1")
    assert await pool.describe() == []
    assert taken == []


async def test_a_node_is_not_stopped(pool: EksPool) -> None:
    await pool.launch(wanted(1))
    await pool.describe()
    with pytest.raises(PoolError, match="would replace a stopped node; terminate it"):
        await pool.stop("m-1")
    await pool.close(stop_machines=True)
    assert [row.state for row in await pool.describe()] == ["running"]
    assert not pool.traits.keeps_disks


async def test_protection_reaches_the_auto_scaling_group(
    aws: Account, pool: EksPool, group: str
) -> None:
    await pool.launch(wanted(1, 2))
    rows = {row.machine_id: row.instance for row in await pool.describe()}
    await pool.protect(["m-2"])
    kept = [x["InstanceId"] for x in group_of(aws, group)["Instances"] if x["ProtectedFromScaleIn"]]
    assert kept == [rows["m-2"]]


async def test_what_a_check_says(aws: Account, pool: EksPool, group: str, clients: Clients) -> None:
    await pool.check()
    cases = [("elsewhere", NODES, "elsewhere"), (CLUSTER, "others", "others")]
    for cluster, nodes, named in cases:
        other = EksPool(EksConfig("lab", 5, cluster, nodes), BOOTSTRAP, clients)
        with pytest.raises(PoolError, match=rf"{named}.*correct --eks-cluster, --eks-node-group"):
            await other.check()
    aws.client("autoscaling").delete_auto_scaling_group(AutoScalingGroupName=group)
    with pytest.raises(PoolError, match=f"no Auto Scaling group {group}"):
        await pool.check()
