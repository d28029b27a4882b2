"""The ec2 pool against an EC2 that loses answers, throttles, has no machines and is behind."""

from __future__ import annotations

import asyncio
import re
import time
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from lifecycle import aws as clients_of_aws
from lifecycle.aws import Clients
from lifecycle.joining import Joining
from lifecycle.pools import Launch, NoCapacity, PoolError
from lifecycle.pools import ec2 as ec2_pool
from lifecycle.pools.bootstrap import Bootstrap
from lifecycle.pools.ec2 import LAG, Ec2Pool
from lifecycle.pools.ec2_launch import Ec2Config

LAUNCHES = [Launch(f"m-{n}", "token", 5) for n in range(1, 1001)]
ALL = {launch.machine_id for launch in LAUNCHES}
ONE = LAUNCHES[0]


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
    made: list[Clients] = []
    bootstrap = Bootstrap("https://ide.example.com", 7070, Joining("the gateways' key").code)

    def pool(**more: Any) -> Ec2Pool:
        """Each is another gateway's: with clients and a memory of its own."""
        made.append(Clients())
        plain: dict[str, Any] = {"image": "ami-12345678", "instance_types": ("t3.micro",)}
        return Ec2Pool(Ec2Config("blue", 5, **(plain | more)), bootstrap, made[-1], clock=clock)

    yield pool
    for clients in made:
        await clients.close()


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that botocore would make before it asks again; they are noted instead of made."""
    from aiobotocore import endpoint

    noted: list[float] = []

    class Hasty:
        async def sleep(self, seconds: float) -> None:
            noted.append(seconds)
            await asyncio.sleep(0)

        def __getattr__(self, name: str) -> Any:
            return getattr(asyncio, name)

    monkeypatch.setattr(endpoint, "asyncio", Hasty())
    return noted


def machines(aws: Any) -> Counter[str]:
    """Machine id → instances, from moto's own list; of a thousand, boto would read for seconds."""
    query = urllib.parse.urlencode({"Action": "DescribeInstances", "Version": "2016-11-15"})
    signed = f"AWS4-HMAC-SHA256 Credential=operator/20260101/{aws.region}/ec2/aws4_request"
    asking = urllib.request.Request(f"{aws.direct}/?{query}", headers={"Authorization": signed})
    with urllib.request.urlopen(asking) as answer:
        text = answer.read().decode()
    assert "<nextToken>" not in text, "more than a page"
    firsts = re.findall(r"<key>ide-gateway:first</key><value>(\d+)</value>", text)
    indices = re.findall(r"<amiLaunchIndex>(\d+)<", text)
    assert len(firsts) == len(indices) == text.count("<instanceId>")
    return Counter(f"m-{int(n) + int(index)}" for n, index in zip(firsts, indices, strict=True))


def count(aws: Any, action: str) -> int:
    return sum(call.action == action for call in aws.calls)


def first(times: int) -> Callable[[Any], bool]:
    """Whether a call is one of the first ones of its client token."""
    seen: Counter[str] = Counter()

    def early(call: Any) -> bool:
        seen[call.params["ClientToken"]] += 1
        return seen[call.params["ClientToken"]] <= times

    return early


async def test_every_reply_to_a_thousand_launches_is_lost_once(
    aws: Any, make: Make, pauses: list[float]
) -> None:
    lost = aws.fault("ec2", "RunInstances", drop_reply=True, when=first(1))
    pool = make()
    assert await pool.launch(LAUNCHES) == []
    assert lost.hits == 20
    assert machines(aws) == Counter(dict.fromkeys(ALL, 1))
    assert count(aws, "RunInstances") == 40
    assert len(pauses) == 20


async def test_replies_that_are_lost_again_and_again(
    aws: Any, make: Make, pauses: list[float]
) -> None:
    lost = aws.fault("ec2", "RunInstances", drop_reply=True, when=first(5))
    pool = make(batch=1)
    await pool.launch(LAUNCHES[:20])
    assert lost.hits == 100
    assert machines(aws) == Counter(dict.fromkeys((f"m-{n}" for n in range(1, 21)), 1))


async def test_without_a_client_token_the_tags_tell_what_was_launched(
    aws: Any, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No call is repeated under its token here: each reply is lost, and the next one looks first."""
    monkeypatch.setattr(clients_of_aws, "ATTEMPTS", 1)
    with aws.fault("ec2", "RunInstances", drop_reply=True) as lost:
        with pytest.raises(PoolError, match="cannot launch m-1 to m-10") as error:
            await make(batch=10).launch(LAUNCHES[:100])
        assert lost.hits == 10
    assert not isinstance(error.value, NoCapacity)
    aws.calls.clear()
    assert await make(instance_types=("t3.small",)).launch(LAUNCHES[:100]) == []
    assert count(aws, "RunInstances") == 0
    assert machines(aws) == Counter(dict.fromkeys((x.machine_id for x in LAUNCHES[:100]), 1))


async def test_an_end_that_nobody_knows_is_not_tried_elsewhere(
    aws: Any, make: Make, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even while nothing shows: asked anew, it is the same call, and that tells."""
    monkeypatch.setattr(clients_of_aws, "ATTEMPTS", 1)
    pool = make(instance_types=("m5.large", "t3.micro"))
    empty = await seen_now(aws, make())
    with aws.fault("ec2", "RunInstances", drop_reply=True), pytest.raises(PoolError):
        await pool.launch([ONE])
    with aws.fault("ec2", "DescribeInstances", answer=lambda *_: empty):
        assert await pool.describe() == []
        await pool.launch([ONE])
        assert [row.machine_id for row in await pool.describe()] == ["m-1"]
    asked = [call.params["InstanceType"] for call in aws.calls if call.action == "RunInstances"]
    assert asked == ["m5.large", "m5.large"]
    assert machines(aws) == Counter({"m-1": 1})


async def test_throttling_on_a_third_of_all_calls(
    aws: Any, make: Make, pauses: list[float]
) -> None:
    pool = make(batch=2)
    throttled = aws.fault(error=("RequestLimitExceeded", 503), share=0.3, seed=7)
    await pool.launch(LAUNCHES[:80])
    for launch in LAUNCHES[:20]:
        await pool.terminate(launch.machine_id)
    left = {launch.machine_id for launch in LAUNCHES[20:80]}
    assert {row.machine_id for row in await pool.describe()} == left
    throttled.remove()
    needed = 1 + 40 + 2 * 20 + 1
    assert needed < len(aws.calls) <= 2 * needed
    assert throttled.hits == len(aws.calls) - needed
    assert len(set(pauses)) == len(pauses) == throttled.hits, "jittered: no two alike"
    assert max(pauses) < 20
    assert machines(aws) == Counter(dict.fromkeys((x.machine_id for x in LAUNCHES[:80]), 1))


async def test_two_offerings_have_none_and_the_third_is_taken(aws: Any, make: Make) -> None:
    """EC2 says so with status 500: botocore alone would ask for a minute before anybody hears of it."""
    pool = make(instance_types=("m7i.large", "m7a.large", "t3.micro"))
    short = aws.fault(
        "ec2", "RunInstances", error=("InsufficientInstanceCapacity", 500),
        when=lambda call: call.params["InstanceType"].startswith("m7"),
    )  # fmt: skip
    began = time.monotonic()
    assert await pool.launch(LAUNCHES[:10]) == [
        "no capacity for m7i.large, m7a.large: took t3.micro"
    ]
    assert short.hits == 2
    assert time.monotonic() - began < 5, "a person hears of it within 10 s"
    assert machines(aws) == Counter(dict.fromkeys((x.machine_id for x in LAUNCHES[:10]), 1))


async def test_no_capacity_anywhere_is_said_at_once(aws: Any, make: Make) -> None:
    aws.fault("ec2", "RunInstances", error=("InsufficientInstanceCapacity", 500))
    began = time.monotonic()
    with pytest.raises(NoCapacity) as short:
        await make(instance_types=("m7i.large", "t3.micro")).launch([ONE])
    assert time.monotonic() - began < 5
    assert short.value.machine_ids == ("m-1",)
    assert count(aws, "RunInstances") == 2


async def test_no_more_than_four_launches_are_under_way(aws: Any, make: Make) -> None:
    under_way, most = 0, 0

    def come(_: Any) -> None:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        time.sleep(0.05)  # in the proxy's thread, not in our loop: a slow EC2

    def go(_: Any, reply: bytes) -> bytes:
        nonlocal under_way
        under_way -= 1
        return reply

    aws.fault("ec2", "RunInstances", before=come, answer=go)
    await make(batch=1).launch(LAUNCHES[:12])
    assert most == ec2_pool.AT_ONCE


async def seen_now(aws: Any, pool: Ec2Pool) -> bytes:
    """The reply that EC2 gives now, to be given again later."""
    kept: list[bytes] = []
    with aws.fault("ec2", "DescribeInstances", answer=lambda _, reply: kept.append(reply) or reply):
        await pool.describe()
    return kept[-1]


async def test_a_list_that_is_two_minutes_behind(aws: Any, make: Make, clock: Clock) -> None:
    """Nothing is launched twice, shown after its end, or ended again and again."""
    pool = make()
    await pool.launch(LAUNCHES[:2])
    old = await seen_now(aws, make())
    with aws.fault("ec2", "DescribeInstances", answer=lambda *_: old):
        await pool.launch(LAUNCHES[1:3])
        await pool.terminate("m-1")
        for _ in range(4):
            assert [row.machine_id for row in await pool.describe()] == ["m-2", "m-3"]
            await pool.launch(LAUNCHES[1:3])
            await pool.terminate("m-1")
            await pool.start(LAUNCHES[2])
            clock.now += 29
        assert count(aws, "TerminateInstances") == 1
        assert count(aws, "RunInstances") == 2
        await pool.terminate("m-3")  # which the list has never shown
        assert [row.machine_id for row in await pool.describe()] == ["m-2"]
        clock.now += LAG
        # What is shown for that long after its end did not end: it is shown, and ended again.
        assert [row.machine_id for row in await pool.describe()] == ["m-1", "m-2"]
        await pool.terminate("m-1")
        assert count(aws, "TerminateInstances") == 3
    assert machines(aws) == Counter({"m-1": 1, "m-2": 1, "m-3": 1})
    assert [row.machine_id for row in await make().describe()] == ["m-2"]


async def test_replies_to_start_stop_and_terminate_are_lost(
    aws: Any, make: Make, pauses: list[float]
) -> None:
    pool = make()
    await pool.launch([ONE])
    for action in ("StopInstances", "StartInstances", "TerminateInstances"):
        aws.fault("ec2", action, drop_reply=True, times=2)
    await pool.stop("m-1")
    assert [row.state for row in await pool.describe()] == ["stopped"]
    await pool.start(ONE)
    assert [row.state for row in await pool.describe()] == ["running"]
    await pool.terminate("m-1")
    assert await make().describe() == []


async def test_nothing_is_launched_where_it_cannot_be_seen_what_is_there(
    aws: Any, make: Make, pauses: list[float]
) -> None:
    aws.fault("ec2", "DescribeInstances", error=("Unavailable", 503))
    with pytest.raises(PoolError, match="cannot list the machines of fleet blue"):
        await make().launch([ONE])
    assert count(aws, "RunInstances") == 0
