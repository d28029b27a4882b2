"""Agents in processes of their own join a real gateway API on a real Valkey."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import uvicorn
from redis.asyncio import Redis
from starlette.applications import Starlette

from gateway import api
from gateway.auth import Nobody
from lifecycle.agent.contract import StartSpec
from lifecycle.agents import Agents
from lifecycle.joining import Joining
from lifecycle.model import Machine
from lifecycle.pools.bootstrap import Bootstrap
from lifecycle.stores import keys
from lifecycle.stores.fleet import RedisFleet
from tests import prompt
from tests.lifecycle.agent.metadata import Metadata, metadata_service

JOINING = Joining("the signing key")
IDE = f"{shlex.quote(sys.executable)} -m http.server --bind {{host}} {{port}}"


@dataclass
class Gateway:
    """The two calls that machines make; joined: how often one of them joined."""

    redis: Redis
    fleet: RedisFleet
    until: Callable[..., Any]
    url: str = ""
    notices: list[tuple[str, str, int]] = field(default_factory=list)

    @property
    def bootstrap(self) -> Bootstrap:
        return Bootstrap(self.url, 0, JOINING.code)

    async def noticed(self, machine_id: str, kind: str, at_ms: int) -> None:
        self.notices.append((machine_id, kind, at_ms))

    async def machine(self, machine_id: str = "m-1") -> Machine:
        found = await self.fleet.machine(machine_id)
        assert found is not None
        return found

    async def reported(self, machine_id: str = "m-1") -> Machine:
        """The machine, once its figures are there."""

        async def there() -> Machine | None:
            found = await self.fleet.machine(machine_id)
            return found if found is not None and found.memory_total_bytes else None

        return await self.until(there, timeout=30, what=f"a report of {machine_id}")


@pytest.fixture
async def gateway(redis: Redis, until: Callable[..., Any]) -> AsyncIterator[Gateway]:
    fleet = RedisFleet(redis, JOINING.token)
    gateway = Gateway(redis, fleet, until)
    nothing: Any = None
    parts = api.Parts(
        store=nothing, fleet=fleet, history=nothing, subscription=nothing, usage=nothing,
        health=nothing, keys=nothing, identify=lambda _: Nobody(),
        origin_allowed=lambda *_: True, url_of=nothing, eta=nothing, enter=nothing,
        snapshot=nothing, download=nothing, purge=nothing, joining=JOINING, metrics=nothing, openapi=nothing,
        noticed=gateway.noticed, dashboard=nothing, notices=nothing, deliveries=nothing, peaks=nothing,
    )  # fmt: skip
    app = Starlette(routes=api.routes(parts))
    server = prompt.Server(uvicorn.Config(app, lifespan="off", ws="none", log_config=None))
    listener = socket.create_server(("127.0.0.1", 0))
    gateway.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    yield gateway
    server.should_exit = True
    await serving
    listener.close()


@pytest.fixture
def metadata() -> Iterator[Metadata]:
    with metadata_service() as served:
        served.rows |= {
            "/meta-data/instance-id": "i-0a", "/meta-data/local-ipv4": "127.0.0.1",
            "/meta-data/ami-launch-index": "0",
        }  # fmt: skip
        yield served


class Agent:
    def __init__(self, directory: Path, *options: str, **environment: str) -> None:
        self.directory = directory
        directory.mkdir(exist_ok=True)
        argv = [sys.executable, "-m", "lifecycle.agent", "--dir", str(directory), *options]
        argv += ["--stop-grace", "1", "--report-interval", "0.2"]
        with (directory / "agent.log").open("ab") as log:
            self.process = subprocess.Popen(
                argv, env=os.environ | environment, stdout=log, stderr=log
            )

    @property
    def log(self) -> str:
        return (self.directory / "agent.log").read_text()

    @property
    def kept(self) -> dict[str, Any]:
        return json.loads((self.directory / "joined.json").read_text())

    async def exit_code(self) -> int:
        return await asyncio.to_thread(self.process.wait, 20)


Launch = Callable[..., Agent]


@pytest.fixture
async def launch(tmp_path: Path) -> AsyncIterator[Launch]:
    started: list[Agent] = []

    def launch(*options: str, name: str = "one", **environment: str) -> Agent:
        started.append(Agent(tmp_path / name, *options, **environment))
        return started[-1]

    yield launch
    for agent in started:
        agent.process.terminate()
    for agent in started:
        await asyncio.to_thread(agent.process.wait, 20)


async def test_a_container_joins_and_takes_calls_with_its_token(
    gateway: Gateway, launch: Launch
) -> None:
    await gateway.fleet.intend("ecs", 3, 1, bound=9)
    environment = gateway.bootstrap.environment(1)
    assert JOINING.token("m-1") not in str(environment)
    agent = launch("--join", "env", **environment)
    machine = await gateway.reported()
    assert (machine.joined, machine.slots) == (True, 3)
    async with Agents() as agents:
        report = await agents.status(machine)
    assert (report.machine_id, report.slots) == ("m-1", 3)
    assert agent.kept["token"] == JOINING.token("m-1")
    assert (agent.directory / "joined.json").stat().st_mode & 0o777 == 0o600
    argv = Path(f"/proc/{agent.process.pid}/cmdline").read_text()
    assert agent.kept["token"] not in argv + agent.log


async def test_its_ides_listen_where_the_machine_is_reached(
    gateway: Gateway, launch: Launch
) -> None:
    await gateway.fleet.intend("ecs", 2, 1, bound=9)
    launch("--join", "env", "--advertise", "127.0.0.9", **gateway.bootstrap.environment(1))
    machine = await gateway.reported()
    assert machine.address.startswith("127.0.0.9:")
    async with Agents() as agents:
        await agents.start(machine, "demo", StartSpec(1, IDE, "secret", ready_path="/"))

        async def running() -> int:
            (row,) = (await agents.status(machine)).workspaces
            assert row.status != "failed", row.error
            return row.port if row.status == "running" else 0

        port = await gateway.until(running, timeout=20, what="demo running")
        assert await agents.ports(machine, "demo") == [port]
    async with aiohttp.ClientSession() as http:
        async with http.get(f"http://127.0.0.9:{port}/") as answer:
            assert answer.status == 200
        with pytest.raises(aiohttp.ClientConnectionError):
            await http.get(f"http://127.0.0.1:{port}/")


async def test_a_machine_that_comes_back_is_the_one_it_was(
    gateway: Gateway, launch: Launch
) -> None:
    await gateway.fleet.intend("ec2", 2, 1, bound=9)
    agent = launch("--join", "env", **gateway.bootstrap.environment(1))
    await gateway.reported()
    kept = agent.kept
    agent.process.terminate()
    assert await agent.exit_code() == 0
    await gateway.redis.hdel(keys.machine("m-1"), "memoryTotalBytes")
    again = launch("--join", "env", **gateway.bootstrap.environment(1))
    await gateway.reported()
    assert again.kept == kept
    events = [row[1]["type"] for row in await gateway.redis.xrange(keys.EVENTS)]
    assert events.count("machine.joined") == 1


async def test_a_lost_redis_is_told_again(gateway: Gateway, launch: Launch) -> None:
    await gateway.fleet.intend("ec2", 2, 1, bound=9)
    agent = launch("--join", "env", **gateway.bootstrap.environment(1))
    before = await gateway.reported()
    await gateway.redis.flushall()
    await gateway.until(lambda: "answers 404" in agent.log, timeout=30, what="it is told")
    assert await gateway.fleet.adopt("ec2", "m-1", 2, instance="i-1")
    machine = await gateway.reported()
    assert (machine.unheard, machine.address) == (True, before.address)
    await gateway.until(lambda: "reports arrive again" in agent.log, timeout=30, what="it notices")
    async with Agents() as agents:
        assert (await agents.status(machine)).machine_id == "m-1"


async def test_who_is_refused_ends_and_says_so(gateway: Gateway, launch: Launch) -> None:
    await gateway.fleet.intend("ec2", 2, 1, bound=9)
    environment = gateway.bootstrap.environment(1)
    launch("--join", "env", **environment)
    await gateway.reported()
    second = launch("--join", "env", name="two", **environment)
    wrong = environment | {"IDE_GATEWAY_JOIN": Joining("another key").code(1)}
    third = launch("--join", "env", name="three", **wrong)
    fourth = launch("--join", "env", name="four", IDE_GATEWAY_URL="")
    assert await second.exit_code() == await third.exit_code() == await fourth.exit_code() == 77
    assert "has joined as m-1 before" in second.log
    assert "no join code of this gateway's" in third.log
    assert "has no line IDE_GATEWAY_URL" in fourth.log
    assert "token" not in second.kept


async def test_a_gateway_that_is_away_is_waited_for(gateway: Gateway, launch: Launch) -> None:
    environment = gateway.bootstrap.environment(1)
    agent = launch("--join", "env", **environment)
    await gateway.until(lambda: "cannot join" in agent.log, timeout=30, what="it was told 404")
    nonce = agent.kept["nonce"]
    await gateway.fleet.intend("ec2", 2, 1, bound=9)
    await gateway.reported()
    assert agent.kept["nonce"] == nonce


async def test_an_instance_joins_as_the_one_of_its_launch_that_it_is(
    gateway: Gateway, launch: Launch, metadata: Metadata
) -> None:
    await gateway.fleet.intend("ec2", 2, 3, bound=9)
    user_data = gateway.bootstrap.user_data(1, 3)
    metadata.rows |= {"/user-data": user_data, "/meta-data/ami-launch-index": "2"}
    launch("--join", "imds", AWS_EC2_METADATA_SERVICE_ENDPOINT=metadata.url)
    machine = await gateway.reported("m-3")
    assert machine.instance == "i-0a"
    assert machine.address.startswith("127.0.0.1:")
    assert metadata.unsigned == 0, "version 2 only"


async def test_a_notice_of_the_cloud_arrives_at_once(
    gateway: Gateway, launch: Launch, metadata: Metadata
) -> None:
    await gateway.fleet.intend("ec2", 2, 1, bound=9)
    metadata.rows["/user-data"] = gateway.bootstrap.user_data(1)
    launch("--join", "imds", AWS_EC2_METADATA_SERVICE_ENDPOINT=metadata.url)
    await gateway.reported()
    assert gateway.notices == []
    metadata.rows["/meta-data/spot/instance-action"] = json.dumps(
        {"action": "terminate", "time": "2027-09-18T08:22:00Z"}
    )
    metadata.rows["/meta-data/events/recommendations/rebalance"] = json.dumps(
        {"noticeTime": "2027-09-18T08:20:00Z"}
    )
    await gateway.until(lambda: len(gateway.notices) == 2, timeout=30, what="both notices")
    spot, rebalance = 1_821_255_720_000, 1_821_255_600_000
    assert sorted(gateway.notices) == [("m-1", "rebalance", rebalance), ("m-1", "spot", spot)]
    metadata.tokens.clear()  # as after a resume
    before = (await gateway.machine()).last_report_ms

    async def again() -> bool:
        return (await gateway.machine()).last_report_ms > before + 500

    await gateway.until(again, timeout=30, what="further reports")
    assert len(gateway.notices) == 2, "each is told once"


async def test_an_instance_of_a_group_waits_for_its_tag(
    gateway: Gateway, launch: Launch, metadata: Metadata
) -> None:
    metadata.rows["/user-data"] = f"#!/bin/sh\nIDE_GATEWAY_URL={gateway.url}\n"
    agent = launch("--join", "imds", AWS_EC2_METADATA_SERVICE_ENDPOINT=metadata.url)
    await gateway.until(lambda: "waiting for the tag" in agent.log, timeout=30, what="it waits")
    await gateway.fleet.intend("asg", 2, 2, bound=9)
    metadata.rows["/meta-data/ami-launch-index"] = "7"  # of Auto Scaling's launch: none of ours
    metadata.rows["/meta-data/tags/instance/ide-gateway:join"] = JOINING.code(2)
    assert (await gateway.reported("m-2")).instance == "i-0a"


async def test_a_copy_of_its_disk_is_another_machine(
    gateway: Gateway, launch: Launch, metadata: Metadata, tmp_path: Path
) -> None:
    await gateway.fleet.intend("ec2", 2, 2, bound=9)
    metadata.rows["/user-data"] = gateway.bootstrap.user_data(1, 2)
    endpoint = {"AWS_EC2_METADATA_SERVICE_ENDPOINT": metadata.url}
    first = launch("--join", "imds", **endpoint)
    await gateway.reported()
    first.process.terminate()
    await first.exit_code()
    (tmp_path / "two").mkdir()
    shutil.copy(first.directory / "joined.json", tmp_path / "two")
    metadata.rows |= {"/meta-data/instance-id": "i-0b", "/meta-data/ami-launch-index": "1"}
    second = launch("--join", "imds", name="two", **endpoint)
    assert (await gateway.reported("m-2")).instance == "i-0b"
    assert second.kept["nonce"] != first.kept["nonce"]


async def test_where_there_is_no_metadata_service_it_says_what_to_do(launch: Launch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{taken.getsockname()[1]}"
        agent = launch("--join", "imds", AWS_EC2_METADATA_SERVICE_ENDPOINT=nowhere)
        assert await agent.exit_code() == 77
    assert "run on an EC2 instance with IMDSv2" in agent.log


async def test_it_is_one_or_the_other(launch: Launch) -> None:
    both = launch("--join", "env", "--machine", "m-1", "--slots", "2")
    neither = launch(name="two")
    assert (await both.exit_code(), await neither.exit_code()) == (2, 2)
    assert "let it --join" in neither.log
