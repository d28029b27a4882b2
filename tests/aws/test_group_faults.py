"""Auto Scaling groups while AWS answers late, wrongly or not at all, and leaders change."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator

import pytest

from lifecycle.aws import Clients
from lifecycle.joining import Joining
from lifecycle.pools import Launch
from lifecycle.pools.asg import AsgConfig, AsgPool
from lifecycle.pools.bootstrap import Bootstrap
from lifecycle.pools.naming import LAG
from tests.aws.account import Account
from tests.aws.groups import GROUP, Clock, alive, group_of, make_group

JOINING = Joining("key")


def wanted(*numbers: int) -> list[Launch]:
    return [Launch(f"m-{number}", JOINING.token(f"m-{number}"), 5) for number in numbers]


@pytest.fixture
async def clients(aws: Account) -> AsyncIterator[Clients]:
    make_group(aws, most=40)
    clients = Clients()
    yield clients
    await clients.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


def leader(clients: Clients, clock: Clock) -> AsgPool:
    bootstrap = Bootstrap("https://ide.example.com", 7070, JOINING.code)
    return AsgPool(AsgConfig("lab", 5, GROUP), bootstrap, clients, clock)


async def names(pool: AsgPool) -> list[str]:
    return sorted(row.machine_id for row in await pool.describe())


async def test_reply_to_the_raise_lost(aws: Account, clients: Clients, clock: Clock) -> None:
    pool = leader(clients, clock)
    with aws.fault("autoscaling", "SetDesiredCapacity", drop_reply=True, times=2) as fault:
        await pool.launch(wanted(*range(1, 21)))
    assert fault.hits == 2
    await pool.launch(wanted(*range(1, 21)))  # and the loops, who saw none of it, ask again
    assert len(await names(pool)) == len(alive(aws)) == group_of(aws)["DesiredCapacity"] == 20
    assert len(set(alive(aws).values())) == 20


async def test_leader_gone_between_raise_and_naming(
    aws: Account, clients: Clients, clock: Clock
) -> None:
    await leader(clients, clock).launch(wanted(1, 2))
    heir = leader(clients, clock)
    assert await names(heir) == []
    await heir.launch(wanted(1, 2))  # what was never seen is launched again
    assert await names(heir) == []  # they may have names that EC2 does not tell yet
    clock.now += LAG
    assert await names(heir) == ["m-1", "m-2"]
    assert sorted(alive(aws).values()) == ["m-1", "m-2"]
    assert group_of(aws)["DesiredCapacity"] == 2


async def test_leader_gone_in_the_midst_of_naming(
    aws: Account, clients: Clients, clock: Clock
) -> None:
    pool = leader(clients, clock)
    await pool.launch(wanted(1, 2, 3))
    refused = {"hits": 0}

    def all_but_one(call: object) -> bool:
        refused["hits"] += 1
        return refused["hits"] > 1

    with aws.fault("ec2", "CreateTags", error=("UnauthorizedOperation", 403), when=all_but_one):
        await pool.describe()
    (done,) = [name for name in alive(aws).values() if name]
    heir = leader(clients, clock)
    assert await names(heir) == [done]
    await heir.launch(wanted(1, 2, 3))
    clock.now += LAG
    assert await names(heir) == ["m-1", "m-2", "m-3"]
    assert sorted(alive(aws).values()) == ["m-1", "m-2", "m-3"]


async def test_names_that_are_seen_late_are_given_once(
    aws: Account, clients: Clients, clock: Clock
) -> None:
    pool = leader(clients, clock)
    await pool.launch(wanted(1, 2))
    ids = {row.machine_id: row.instance for row in await pool.describe()}
    # A new leader, to whom EC2 does not tell the names for two minutes.
    heir = leader(clients, clock)
    with aws.fault(
        "ec2", "DescribeInstances", answer=lambda _, body: body.replace(b"ide-gateway:", b"x:")
    ):
        await heir.launch(wanted(3))
        for _ in range(4):
            assert ids.keys().isdisjoint(await names(heir))
            clock.now += LAG / 4 - 1
    assert await names(heir) == ["m-1", "m-2"]
    await heir.launch(wanted(3))
    assert await names(heir) == ["m-1", "m-2", "m-3"]
    assert {row.machine_id: row.instance for row in await heir.describe()}.items() >= ids.items()
    assert group_of(aws)["DesiredCapacity"] == len(alive(aws)) == 3


async def test_nobody_comes_back_for_what_was_raised(
    aws: Account, clients: Clients, clock: Clock
) -> None:
    await leader(clients, clock).launch(wanted(1, 2))
    heir = leader(clients, clock)
    await heir.describe()
    clock.now += 600
    await heir.describe()
    assert alive(aws) == {}
    assert group_of(aws)["DesiredCapacity"] == 0


async def test_throttled(aws: Account, clients: Clients, clock: Clock) -> None:
    pool = leader(clients, clock)
    plain = 1 + 1 + 2 + 20 + 1  # a look, one raise, a look, twenty names, the warm pool
    aws.calls.clear()
    with aws.fault(error=("RequestLimitExceeded", 503), share=0.3, seed=3) as fault:
        await pool.launch(wanted(*range(1, 21)))
        assert len(await names(pool)) == 20
    assert fault.hits > 3
    assert len(aws.calls) <= 2 * plain
    assert sorted(alive(aws).values()) == sorted(each.machine_id for each in wanted(*range(1, 21)))


async def test_reply_to_terminate_lost(aws: Account, clients: Clients, clock: Clock) -> None:
    pool = leader(clients, clock)
    await pool.launch(wanted(1, 2, 3))
    await pool.describe()
    action = "TerminateInstanceInAutoScalingGroup"
    lost = aws.fault("autoscaling", action, drop_reply=True, times=1)
    # Where moto would fall over with the client's second try, Auto Scaling says why it cannot.
    again = aws.fault(
        "autoscaling",
        action,
        when=lambda _: sum(call.action == action for call in aws.calls) > 1,
        error=("ValidationError", 400),
        answer=lambda _, body: body.replace(b"said the test", b"Instance Id not found"),
    )
    await pool.terminate("m-2")
    assert (lost.hits, again.hits) == (1, 1)
    assert await names(pool) == ["m-1", "m-3"]
    assert group_of(aws)["DesiredCapacity"] == len(alive(aws)) == 2


async def test_protection_is_never_off_while_there_are_sessions(
    aws: Account, clients: Clients, clock: Clock
) -> None:
    pool = leader(clients, clock)
    await pool.launch(wanted(*range(1, 7)))
    ids = {row.machine_id: row.instance for row in await pool.describe()}
    busy = {"m-1", "m-2", "m-3"}
    await pool.protect(busy)
    aws.calls.clear()
    dice = random.Random(1)
    with aws.fault("autoscaling", "SetInstanceProtection", drop_reply=True, share=0.3, seed=2):
        for _ in range(4):
            stay, come = dice.sample(sorted(busy), 2), dice.choice(sorted(ids.keys() - busy))
            busy = {*stay, come}
            before = len(aws.calls)
            await pool.protect(busy)
            held = {ids[name] for name in busy}
            changes = [c for c in aws.calls[before:] if c.action == "SetInstanceProtection"]
            for call in changes:
                asked = {v for k, v in call.params.items() if k.startswith("InstanceIds.")}
                assert call.params["ProtectedFromScaleIn"] == "true" or not asked & held
            order = [call.params["ProtectedFromScaleIn"] for call in changes]
            assert order == sorted(order, reverse=True), "first who is protected, then who is not"
            rows = group_of(aws)["Instances"]
            assert {row["InstanceId"] for row in rows if row["ProtectedFromScaleIn"]} == held
            await pool.describe()
