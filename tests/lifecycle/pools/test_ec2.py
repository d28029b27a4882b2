"""The ec2 pool: what it asks of EC2, what stands there then, and what EC2's answers lead to."""

from __future__ import annotations

import base64
import re
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest

from lifecycle.aws import Clients
from lifecycle.joining import Joining
from lifecycle.pools import Launch, NoCapacity, PoolError
from lifecycle.pools import ec2_calls as calls_of_ec2
from lifecycle.pools.bootstrap import Bootstrap
from lifecycle.pools.ec2 import LAG, Ec2Pool
from lifecycle.pools.ec2_instances import Instance, show
from lifecycle.pools.ec2_launch import Ec2Config, Run, client_token, runs
from lifecycle.pools.offerings import Offering

JOINING = Joining("the gateways' key")
IMAGE = "ami-12345678"
ONE = Launch("m-1", JOINING.token("m-1"), 5)


def launches(*numbers: int, slots: int = 5, zone: str = "") -> list[Launch]:
    return [Launch(f"m-{n}", JOINING.token(f"m-{n}"), slots, zone) for n in numbers]


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


Make = Callable[..., Ec2Pool]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def make(aws: Any, clock: Clock) -> AsyncIterator[Make]:
    """A pool of fleet blue; keyword arguments change its settings."""
    clients = Clients()
    bootstrap = Bootstrap("https://ide.example.com", 7070, JOINING.code)

    def pool(**more: Any) -> Ec2Pool:
        plain = {"image": IMAGE, "instance_types": ("t3.micro",)}
        config = Ec2Config(**({"fleet": "blue", "slots": 5} | plain | more))
        return Ec2Pool(config, bootstrap, clients, clock=clock)

    yield pool
    await clients.close()


def instances(aws: Any) -> list[dict[str, Any]]:
    pages = aws.client("ec2").get_paginator("describe_instances").paginate()
    return [i for p in pages for r in p["Reservations"] for i in r["Instances"]]


def asked(aws: Any, action: str) -> list[dict[str, str]]:
    return [call.params for call in aws.calls if call.action == action]


def subnets(aws: Any, *zones: str) -> tuple[str, ...]:
    """One in each zone."""
    ec2 = aws.client("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.1.0.0/16")["Vpc"]["VpcId"]
    made = (
        ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.1.{n}.0/24", AvailabilityZone=zone)
        for n, zone in enumerate(zones)
    )
    return tuple(each["Subnet"]["SubnetId"] for each in made)


def not_on(*types: str) -> Callable[[Any], bool]:
    return lambda call: call.params["InstanceType"] in types


async def states(pool: Ec2Pool) -> dict[str, str]:
    return {row.machine_id: row.state for row in await pool.describe()}


# What is asked for


def test_runs_are_of_consecutive_numbers_and_like_slots() -> None:
    assert runs(launches(7, 1, 2, 3, 9, 8, 2), 50) == [Run(1, 3, 5), Run(7, 3, 5)]
    assert runs(launches(*range(1, 8)), 3) == [Run(1, 3, 5), Run(4, 3, 5), Run(7, 1, 5)]
    assert runs([*launches(1, 2), *launches(3, slots=1)], 50) == [Run(1, 2, 5), Run(3, 1, 1)]
    assert runs([], 50) == []
    there = [*launches(1, 2), *launches(3, zone="a"), *launches(4, zone="b")]
    assert runs(there, 50) == [Run(1, 2, 5), Run(3, 1, 5, "a"), Run(4, 1, 5, "b")]


def test_a_token_says_what_is_asked_for_and_nothing_else() -> None:
    run, offering = Run(1, 50, 5), Offering("t3.micro", "subnet-a")
    token = client_token("blue", run, offering)
    assert token == client_token("blue", Run(1, 50, 5), Offering("t3.micro", "subnet-a"))
    assert re.fullmatch(r"[0-9a-f]{64}", token)
    others = {
        client_token("green", run, offering),
        client_token("blue", Run(2, 50, 5), offering),
        client_token("blue", Run(1, 49, 5), offering),
        client_token("blue", run, Offering("t3.micro", "subnet-b")),
        client_token("blue", run, Offering("t3.small", "subnet-a")),
        client_token("blue", run, offering, "another join code"),
    }
    assert len(others | {token}) == 7


def test_a_batch_too_large_to_find_again_is_refused() -> None:
    with pytest.raises(ValueError, match="batch must be 1 to 100"):
        Ec2Config("blue", 5, batch=101)


async def test_user_data_is_an_address_and_a_join_code_only(aws: Any, make: Make) -> None:
    await make().launch(launches(7, 8))
    (asking,) = asked(aws, "RunInstances")
    user_data = base64.b64decode(asking["UserData"]).decode()
    assert user_data == (
        f"IDE_GATEWAY_URL=https://ide.example.com\nIDE_GATEWAY_JOIN={JOINING.code(7, 2)}\n"
    )
    code = user_data.splitlines()[1].partition("=")[2]
    assert [JOINING.machine(code, i["AmiLaunchIndex"]) for i in instances(aws)] == ["m-7", "m-8"]
    everything = " ".join(asking.values())
    assert not any(JOINING.token(f"m-{n}") in everything + user_data for n in (7, 8))
    assert "the gateways' key" not in everything


async def test_metadata_needs_a_token_and_goes_one_hop(aws: Any, make: Make) -> None:
    await make().launch([ONE])
    (instance,) = instances(aws)
    options = instance["MetadataOptions"]
    assert (options["HttpTokens"], options["HttpPutResponseHopLimit"]) == ("required", 1)
    assert options["HttpEndpoint"] == "enabled"
    assert asked(aws, "RunInstances")[0]["MetadataOptions.HttpPutResponseHopLimit"] == "1"


async def test_instances_and_disks_carry_the_intent(aws: Any, make: Make) -> None:
    await make(batch=2).launch(launches(1, 2, 3))
    ec2 = aws.client("ec2")
    marks = {"ide-gateway:fleet": "blue", "ide-gateway:slots": "5"}
    for instance in instances(aws):
        tags = {tag["Key"]: tag["Value"] for tag in instance["Tags"]}
        first = tags.pop("ide-gateway:first")
        assert tags.pop("Name") == {"1": "blue m-1 to m-2", "3": "blue m-3"}[first]
        assert tags == marks
    for volume in ec2.describe_volumes()["Volumes"]:
        tags = {tag["Key"]: tag["Value"] for tag in volume["Tags"]}
        assert tags.items() >= marks.items()
    assert len(ec2.describe_volumes()["Volumes"]) == 3


async def test_plain_parameters(aws: Any, make: Make) -> None:
    (subnet,) = subnets(aws, "eu-central-1b")
    ec2 = aws.client("ec2")
    group = ec2.create_security_group(
        GroupName="g", Description="g", VpcId=ec2.describe_subnets(SubnetIds=[subnet])["Subnets"][0]["VpcId"]
    )["GroupId"]  # fmt: skip
    iam = aws.client("iam")
    iam.create_instance_profile(InstanceProfileName="machine")
    pool = make(subnets=(subnet,), security_groups=(group,), instance_profile="machine")
    await pool.launch([ONE])
    (instance,) = instances(aws)
    assert (instance["InstanceType"], instance["SubnetId"]) == ("t3.micro", subnet)
    assert [each["GroupId"] for each in instance["SecurityGroups"]] == [group]
    assert instance["IamInstanceProfile"]["Arn"].endswith("instance-profile/machine")
    (row,) = await pool.describe()
    assert (row.instance, row.zone, row.slots) == (instance["InstanceId"], "eu-central-1b", 5)
    assert (row.address, row.token, row.leaving) == ("", "", "")


async def test_a_launch_template_whose_type_is_overridden(aws: Any, make: Make) -> None:
    data = {"ImageId": IMAGE, "InstanceType": "t3.large"}
    made = aws.client("ec2").create_launch_template(
        LaunchTemplateName="machine", LaunchTemplateData=data
    )
    bare = {"image": "", "instance_types": ()}
    await make(launch_template="machine", **bare).launch(launches(1))
    name = made["LaunchTemplate"]["LaunchTemplateId"]
    await make(launch_template=f"{name}:1", image="", instance_types=("t3.nano",)).launch(
        launches(2)
    )
    first, second = asked(aws, "RunInstances")
    assert first["LaunchTemplate.LaunchTemplateName"] == "machine"
    assert first["LaunchTemplate.Version"] == "$Default"
    assert not {"ImageId", "InstanceType", "SubnetId"} & first.keys()
    assert second["LaunchTemplate.LaunchTemplateId"] == name
    assert (second["LaunchTemplate.Version"], second["InstanceType"]) == ("1", "t3.nano")


@pytest.mark.parametrize(
    ("settings", "kind", "end"),
    [
        ({"slots": 5}, "one-time", "terminate"),
        ({"slots": 1}, "persistent", "stop"),
        ({"slots": 1, "hibernate": True}, "persistent", "hibernate"),
    ],
)
async def test_spot(aws: Any, make: Make, settings: dict[str, Any], kind: str, end: str) -> None:
    """A machine that must be stopped needs a persistent request."""
    pool = make(market="spot", **settings)
    await pool.launch([ONE])
    (asking,) = asked(aws, "RunInstances")
    assert asking["InstanceMarketOptions.MarketType"] == "spot"
    assert asking["InstanceMarketOptions.SpotOptions.SpotInstanceType"] == kind
    assert asking["InstanceMarketOptions.SpotOptions.InstanceInterruptionBehavior"] == end
    assert instances(aws)[0]["InstanceLifecycle"] == "spot"
    assert pool.traits.keeps_disks == (kind == "persistent")


async def test_a_persistent_spot_request_is_cancelled_before_its_instance_ends(
    aws: Any, make: Make
) -> None:
    pool = make(market="spot", slots=1)
    await pool.launch([ONE])

    def tell(_: Any, reply: bytes) -> bytes:
        request = b"<spotInstanceRequestId>sir-1</spotInstanceRequestId></item></instancesSet>"
        return reply.replace(b"</item></instancesSet>", request)

    aws.fault("ec2", "DescribeInstances", answer=tell)
    aws.fault("ec2", "CancelSpotInstanceRequests", error=("InvalidSpotInstanceRequestID.NotFound", 400))  # fmt: skip
    await pool.terminate("m-1")
    ends = [call.action for call in aws.calls if call.action.startswith(("Cancel", "Terminate"))]
    assert ends == ["CancelSpotInstanceRequests", "TerminateInstances"]
    assert asked(aws, "CancelSpotInstanceRequests")[0]["SpotInstanceRequestId.1"] == "sir-1"


async def test_shared_spot_machines_run_on_when_the_pool_is_closed(aws: Any, make: Make) -> None:
    pool = make(market="spot")
    await pool.launch([ONE])
    await pool.close(stop_machines=True)
    assert asked(aws, "StopInstances") == []
    assert await states(pool) == {"m-1": "running"}


async def test_hibernate(aws: Any, make: Make) -> None:
    pool = make(hibernate=True)
    await pool.launch([ONE])
    assert asked(aws, "RunInstances")[0]["HibernationOptions.Configured"] == "true"
    await pool.stop("m-1")
    assert asked(aws, "StopInstances")[0]["Hibernate"] == "true"
    assert await states(pool) == {"m-1": "stopped"}


@pytest.mark.parametrize("code", ["UnsupportedHibernationConfiguration", "IncorrectInstanceState"])
async def test_what_cannot_hibernate_is_stopped(aws: Any, make: Make, code: str) -> None:
    pool = make(hibernate=True)
    await pool.launch([ONE])
    aws.fault("ec2", "StopInstances", error=(code, 400), when=lambda c: "Hibernate" in c.params)
    await pool.stop("m-1")
    assert ["Hibernate" in each for each in asked(aws, "StopInstances")] == [True, False]
    assert await states(pool) == {"m-1": "stopped"}


# What stands there


async def test_pages(aws: Any, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls_of_ec2, "PAGE", 5)
    pool = make(batch=1)
    await pool.launch(launches(*range(1, 13)))
    aws.calls.clear()
    assert list(await states(pool)) == [f"m-{n}" for n in range(1, 13)]
    assert [each["MaxResults"] for each in asked(aws, "DescribeInstances")] == ["5", "5", "5"]


async def test_only_what_is_ours_is_seen(aws: Any, make: Make) -> None:
    await make(fleet="green").launch([ONE])
    tags = [{"Key": "ide-gateway:fleet", "Value": "blue"}]
    aws.client("ec2").run_instances(
        ImageId=IMAGE, MinCount=1, MaxCount=1,
        TagSpecifications=[{"ResourceType": "instance", "Tags": tags}],
    )  # fmt: skip
    pool = make()
    assert await pool.describe() == []
    await pool.terminate("m-1")
    assert [each["State"]["Name"] for each in instances(aws)] == ["running", "running"]


async def test_another_gateway_leaves_alone_what_is_there(aws: Any, make: Make) -> None:
    await make().launch(launches(1, 2, 3))
    await make(instance_types=("t3.small",)).launch(launches(2, 3, 4))
    assert sorted(i["InstanceType"] for i in instances(aws)) == ["t3.micro"] * 3 + ["t3.small"]
    assert await states(make()) == dict.fromkeys(("m-1", "m-2", "m-3", "m-4"), "running")


async def test_a_stopped_one_is_not_launched_again(aws: Any, make: Make) -> None:
    await make().launch([ONE])
    await make().stop("m-1")
    await make().launch([ONE])
    assert await states(make()) == {"m-1": "stopped"}
    assert len(instances(aws)) == 1


def test_the_older_of_two_instances_shows_whatever_the_order() -> None:
    old = Instance("i-9", 1, 5, "running", "a", "2026-11-23T21:00:00+00:00")
    new = Instance("i-1", 1, 5, "running", "b", "2026-11-23T21:00:01+00:00")
    twin = Instance("i-2", 1, 5, "running", "b", old.since)
    assert [row.instance for row in show([old, new])] == ["i-9"]
    assert [row.instance for row in show([new, old])] == ["i-9"]
    assert [row.instance for row in show([old, twin])] == ["i-2"]
    assert [row.instance for row in show([twin, old])] == ["i-2"]


async def test_two_instances_of_one_machine_show_once(aws: Any, make: Make) -> None:
    pool = make()
    await pool.launch([ONE])
    (first,) = instances(aws)
    tags = [tag for tag in first["Tags"] if tag["Key"] != "Name"]
    twin = aws.client("ec2").run_instances(
        ImageId=IMAGE, MinCount=1, MaxCount=1,
        TagSpecifications=[{"ResourceType": "instance", "Tags": tags}],
    )["Instances"][0]  # fmt: skip
    shown = [row.instance for _ in range(2) for row in await make().describe()]
    assert len(shown) == 2
    assert shown[0] == shown[1]
    assert [i["State"]["Name"] for i in instances(aws)] == ["running", "running"], "no guess"
    await pool.terminate("m-1")
    assert {i["InstanceId"]: i["State"]["Name"] for i in instances(aws)} == dict.fromkeys(
        (first["InstanceId"], twin["InstanceId"]), "terminated"
    )


async def test_numbers_used_again_do_not_get_instances_that_are_gone(aws: Any, make: Make) -> None:
    """The token is good for longer than its instances: EC2 answers with what it made then."""
    await make().launch(launches(1, 2))
    await make().terminate("m-1")
    await make().terminate("m-2")
    aws.fault(
        "ec2", "RunInstances", times=1,
        answer=lambda _, reply: reply.replace(b"<name>running<", b"<name>terminated<").replace(b"<name>pending<", b"<name>terminated<"),
    )  # fmt: skip
    pool = make()
    await pool.launch(launches(1, 2))
    tokens = [each["ClientToken"] for each in asked(aws, "RunInstances")]
    assert tokens[0] == tokens[1] != tokens[2]
    assert await states(make()) == {"m-1": "running", "m-2": "running"}


async def test_only_our_names_are_launched(aws: Any, make: Make) -> None:
    for name in ("m-0", "x-1", "m-", "m-1;"):
        with pytest.raises(PoolError, match="no machine's name"):
            await make().launch([Launch(name, "token", 1)])
        await make().terminate(name)
        await make().stop(name)
    assert instances(aws) == []


# What EC2 has none of


async def test_the_second_type_is_taken_and_the_first_left_in_peace(
    aws: Any, make: Make, clock: Clock
) -> None:
    pool = make(instance_types=("m5.large", "t3.micro"))
    short = aws.fault("ec2", "RunInstances", error=("InsufficientInstanceCapacity", 500), when=not_on("m5.large"))  # fmt: skip
    assert await pool.launch(launches(1)) == ["no capacity for m5.large: took t3.micro"]
    assert await pool.launch(launches(2)) == ["no capacity for m5.large: took t3.micro"]
    assert short.hits == 1
    clock.now += 30
    await pool.launch(launches(3))
    assert short.hits == 2
    clock.now += 59
    await pool.launch(launches(4))
    assert short.hits == 2, "the pause has grown"
    short.remove()
    clock.now += 1
    assert await pool.launch(launches(5)) == []
    assert [i["InstanceType"] for i in instances(aws)] == ["t3.micro"] * 4 + ["m5.large"]


async def test_what_one_zone_does_not_give_comes_from_the_next(aws: Any, make: Make) -> None:
    near, far = subnets(aws, "eu-central-1a", "eu-central-1b")
    image = aws.client("ec2").register_image(Name="machine")["ImageId"]
    pool = make(image=image, subnets=(near, far))
    await pool.check()
    aws.fault("ec2", "RunInstances", times=1, before=lambda call: setattr(call, "at_most", 3))
    assert await pool.launch(launches(*range(1, 11))) == [
        "no capacity for t3.micro in eu-central-1a: took t3.micro in eu-central-1b"
    ]
    zones = {row.machine_id: row.zone[-1] for row in await make().describe()}
    assert zones == {f"m-{n}": "a" if n < 4 else "b" for n in range(1, 11)}
    first, rest = asked(aws, "RunInstances")
    assert JOINING.code(4, 7) in base64.b64decode(rest["UserData"]).decode()
    assert (first["MaxCount"], rest["MaxCount"]) == ("10", "7")


@pytest.mark.parametrize(
    ("code", "taken"),
    [
        ("InsufficientInstanceCapacity", ["m5.large", "eu-central-1b"]),
        ("SpotMaxPriceTooLow", ["m5.large", "eu-central-1b"]),
        ("Unsupported", ["m5.large", "eu-central-1b"]),
        ("VcpuLimitExceeded", ["t3.micro", "eu-central-1a"]),
        ("MaxSpotInstanceCountExceeded", ["t3.micro", "eu-central-1a"]),
        ("InsufficientFreeAddressesInSubnet", ["m5.large", "eu-central-1b"]),
    ],
)
async def test_where_it_goes_on_after_a_refusal(
    aws: Any, make: Make, code: str, taken: Sequence[str]
) -> None:
    pool = make(
        instance_types=("m5.large", "t3.micro"),
        subnets=subnets(aws, "eu-central-1a", "eu-central-1b"),
    )
    aws.fault("ec2", "RunInstances", times=1, error=(code, 400))
    await pool.launch([ONE])
    (instance,) = instances(aws)
    assert [instance["InstanceType"], instance["Placement"]["AvailabilityZone"]] == taken
    assert len(asked(aws, "RunInstances")) == 2


def zones(aws: Any) -> list[str]:
    return [each["Placement"]["AvailabilityZone"] for each in instances(aws)]


async def test_a_zone_that_is_asked_for_is_the_only_one(aws: Any, make: Make) -> None:
    near, far, off = "eu-central-1a", "eu-central-1b", "eu-central-1c"
    pool = make(subnets=subnets(aws, near, far))
    await pool.launch([*launches(1), *launches(2, 3, zone=far)])
    assert sorted(zones(aws)) == [near, far, far]
    with pytest.raises(NoCapacity, match=f"volume in {off}: none of --subnets") as none:
        await pool.launch([*launches(4, zone=off), *launches(5)])
    assert none.value.machine_ids == ("m-4",), "the other one came"
    assert sorted(await states(pool)) == ["m-1", "m-2", "m-3", "m-5"]
    full = aws.fault("ec2", "RunInstances", error=("InsufficientInstanceCapacity", 500))
    with full, pytest.raises(NoCapacity, match=rf"m-6 in any of: t3.micro in {far} \(Insuff"):
        await pool.launch(launches(6, zone=far))
    await pool.launch(launches(7))
    assert zones(aws).count(near) == 3, "nothing is held against the other zone"


async def test_without_subnets_the_zone_itself_is_asked_for(aws: Any, make: Make) -> None:
    pool = make()
    await pool.launch(launches(1, zone="eu-central-1b"))
    assert zones(aws) == ["eu-central-1b"]
    await pool.launch(launches(1, zone="eu-central-1c"))
    assert zones(aws) == ["eu-central-1b"], "it is there already"


async def test_nothing_left_anywhere(aws: Any, make: Make) -> None:
    pool = make(instance_types=("m5.large", "t3.micro"), batch=2)
    aws.fault("ec2", "RunInstances", error=("InsufficientInstanceCapacity", 500), when=lambda c: "m-5" not in c.params["TagSpecification.1.Tag.1.Value"])  # fmt: skip
    with pytest.raises(NoCapacity) as short:
        await pool.launch(launches(1, 2, 5))
    assert set(short.value.machine_ids) == {"m-1", "m-2"}
    assert "m-1 to m-2" in str(short.value)
    # m-5, launched beside it, may have shown by now that there is an m5.large to be had after all.
    assert "t3.micro (InsufficientInstanceCapacity)" in str(short.value)
    assert "--instance-types" in str(short.value)
    assert await states(make()) == {"m-5": "running"}


async def test_while_all_are_passed_over_nobody_is_asked(
    aws: Any, make: Make, clock: Clock
) -> None:
    pool = make()
    aws.fault("ec2", "RunInstances", error=("InsufficientInstanceCapacity", 500))
    for _ in range(5):
        with pytest.raises(NoCapacity, match=r"asked again in \d+ s"):
            await pool.launch([ONE])
        clock.now += 5
    assert len(asked(aws, "RunInstances")) == 1


async def test_what_no_other_offering_helps_against_is_an_error(aws: Any, make: Make) -> None:
    pool = make(instance_types=("m5.large", "t3.micro"))
    aws.fault("ec2", "RunInstances", error=("UnauthorizedOperation", 403))
    with pytest.raises(PoolError, match=r"cannot launch m-1 .*compare it with deploy/iam") as error:
        await pool.launch([ONE])
    assert not isinstance(error.value, NoCapacity)
    assert len(asked(aws, "RunInstances")) == 1


# Start, stop, terminate


async def test_start_while_it_still_stops(aws: Any, make: Make) -> None:
    pool = make(slots=1)
    await pool.launch([ONE])
    await pool.stop("m-1")
    with aws.fault("ec2", "DescribeInstances", answer=lambda _, reply: reply.replace(b"<name>stopped<", b"<name>stopping<")):  # fmt: skip
        assert await states(pool) == {"m-1": "stopping"}
        with pytest.raises(PoolError, match="m-1 is still stopping"):
            await pool.start(ONE)
        await pool.stop("m-1")
    await pool.start(ONE)
    assert await states(pool) == {"m-1": "running"}
    assert len(asked(aws, "StopInstances")) == 1


@pytest.mark.parametrize("code", ["InsufficientInstanceCapacity", "IncorrectSpotRequestState"])
async def test_no_capacity_to_start(aws: Any, make: Make, code: str) -> None:
    pool = make(slots=1)
    await pool.launch([ONE])
    await pool.stop("m-1")
    fault = aws.fault("ec2", "StartInstances", error=(code, 500))
    with pytest.raises(NoCapacity, match="m-1"):
        await pool.start(ONE)
    assert fault.hits == 1, "asked once: a repeat changes nothing"
    assert await states(pool) == {"m-1": "stopped"}


async def test_closing_stops_what_can_be_stopped(aws: Any, make: Make) -> None:
    pool = make()
    await pool.launch(launches(1, 2, 3))
    stuck = next(row.instance for row in await pool.describe() if row.machine_id == "m-2")
    aws.fault("ec2", "StopInstances", error=("IncorrectInstanceState", 400), when=lambda c: stuck in c.params.values())  # fmt: skip
    with pytest.raises(PoolError, match="cannot stop m-2"):
        await pool.close(stop_machines=True)
    assert await states(pool) == {"m-1": "stopped", "m-2": "running", "m-3": "stopped"}


async def test_terminating_what_ec2_does_not_know_any_more(
    aws: Any, make: Make, clock: Clock
) -> None:
    pool = make()
    await pool.launch([ONE])
    unknown = aws.fault("ec2", "TerminateInstances", error=("InvalidInstanceID.NotFound", 400))
    with pytest.raises(PoolError, match="EC2 does not show it yet; ask again"):
        await pool.terminate("m-1")
    assert await states(pool) == {"m-1": "running"}
    clock.now += LAG
    await pool.terminate("m-1")  # known for long, and not there: gone
    assert unknown.hits == 2


async def test_a_termination_that_is_refused(aws: Any, make: Make) -> None:
    pool = make()
    await pool.launch([ONE])
    aws.fault("ec2", "TerminateInstances", error=("UnauthorizedOperation", 403))
    with pytest.raises(PoolError, match=r"cannot terminate machine m-1 \(i-.*deploy/iam"):
        await pool.terminate("m-1")
    assert await states(pool) == {"m-1": "running"}


# Said at start


async def test_a_check_that_finds_everything(aws: Any, make: Make) -> None:
    data = {"ImageId": IMAGE, "InstanceType": "t3.large"}
    ec2 = aws.client("ec2")
    ec2.create_launch_template(LaunchTemplateName="machine", LaunchTemplateData=data)
    image = ec2.register_image(Name="machine")["ImageId"]
    group = ec2.describe_security_groups()["SecurityGroups"][0]["GroupId"]
    nets = subnets(aws, "eu-central-1a", "eu-central-1b")
    for version in ("", ":1", ":$Latest"):
        await make(
            launch_template=f"machine{version}", image=image, security_groups=(group,), subnets=nets
        ).check()
    assert {call.action for call in aws.calls} == {
        "DescribeInstances", "DescribeLaunchTemplates", "DescribeImages", "DescribeSecurityGroups",
        "DescribeSubnets",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image": ""}, "set --launch-template, or --machine-image and --instance-types"),
        ({"instance_types": ()}, "set --launch-template, or --machine-image and --instance-types"),
        ({"image": "ami-00000000"}, "no image ami-00000000 in eu-central-1: .*--machine-image"),
        ({"subnets": ("subnet-1",)}, "no subnet subnet-1 in eu-central-1: .*--subnets or --aws-reg"),
        ({"security_groups": ("sg-1",)}, "no security group sg-1 in eu-.*--security-groups"),
        ({"launch_template": "none"}, "no launch template none in eu-central-1.*--launch-template"),
        ({"launch_template": "lt-0123456789abcdef0:3"}, "no launch template lt-0123456789abcdef0 "),
        ({"launch_template": "machine:2"}, "machine has no version '2', its newest is 1"),
        ({"launch_template": "machine:x"}, "machine has no version 'x'"),
    ],
)  # fmt: skip
async def test_what_is_missing_is_said(
    aws: Any, make: Make, settings: dict[str, Any], message: str
) -> None:
    data = {"ImageId": IMAGE, "InstanceType": "t3.large"}
    ec2 = aws.client("ec2")
    ec2.create_launch_template(LaunchTemplateName="machine", LaunchTemplateData=data)
    image = ec2.register_image(Name="machine")["ImageId"]
    with pytest.raises(PoolError, match=message):
        await make(**({"image": image} | settings)).check()


async def test_wrong_credentials_are_said(aws: Any, make: Make) -> None:
    with (
        aws.role("nobody"),
        pytest.raises(PoolError, match="machines of fleet blue: the credentials are wrong"),
    ):
        await make().check()


async def test_no_credentials_are_said(
    aws: Any, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(PoolError, match="there are no AWS credentials; set AWS_ACCESS_KEY_ID"):
        await make().check()


async def test_no_region_is_said(aws: Any, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_REGION")
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    with pytest.raises(PoolError, match="no AWS region is set; set --aws-region"):
        await make().describe()
