"""No resident leader: gateways with `--lifecycle off`, and a function that somebody calls now and then."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.aws.account import Account
from tests.e2e.cloud import Cloud
from tests.e2e.harness import IDE_FLAGS

CALL = "import json; from gateway.function import handler; print(json.dumps(handler({}, None)))"


@pytest.fixture
async def cloud(aws: Account, tmp_path: Path) -> AsyncIterator[Cloud]:
    played = Cloud(aws, tmp_path / "instances")
    (tmp_path / "instances").mkdir()
    playing = asyncio.create_task(played.run())
    yield played
    playing.cancel()
    await asyncio.gather(playing, return_exceptions=True)
    played.close()


async def test_a_few_calls_boot_a_workspace_and_stop_it(
    aws: Account, cloud: Cloud, server: Any, state: Any, serve: Any, client_of: Any, until: Any
) -> None:
    ec2 = aws.client("ec2")
    aws.client("s3").create_bucket(
        Bucket="snapshots", CreateBucketConfiguration={"LocationConstraint": aws.region}
    )
    flags = (
        "--redis-url", server.url, "--pool", "ec2", "--instance-types", "m7i.large",
        "--machine-image", ec2.register_image(Name="i", RootDeviceName="/dev/xvda")["ImageId"],
        "--subnets", ec2.describe_subnets()["Subnets"][0]["SubnetId"],
        "--snapshots", "s3://snapshots/ide", "--warm-slots", "0", "--wait-probability", "0", "--scale-in-delay", "600",
    )  # fmt: skip
    # It launches nothing, so nobody is told that address; its own is known once it listens.
    gateway = await serve(
        *IDE_FLAGS, *flags, "--lifecycle", "off", "--join-url", "http://127.0.0.1:1", env=aws.env
    )
    words = [*flags, *IDE_FLAGS, "--join-url", f"http://127.0.0.1:{gateway.port}"]
    settings = {
        "IDE_GATEWAY_" + name.removeprefix("--").upper().replace("-", "_"): value
        for name, value in zip(words[::2], words[1::2], strict=True)
    }

    async def call() -> dict[str, Any]:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", CALL, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE, env=aws.env_for("function") | settings,
        )  # fmt: skip
        out, err = await process.communicate()
        assert process.returncode == 0, err.decode()
        return dict(json.loads(out))

    client = client_of(gateway)
    status, workspace = await client.api("POST", "/api/workspaces", {"userId": "ada"})
    assert status == 202
    assert (await call())["workspaces"]["queued"] == 1
    await until(lambda: state.hget("machine:m-1", "address"), what="the machine has joined")
    assert (await call())["workspaces"]["starting"] == 1

    async def runs() -> bool:
        return bool((await call())["workspaces"]["running"])

    await until(runs, timeout=15, what="the workspace runs")
    token = (await client.enter(workspace))["token"]
    status, _ = await client.ide(workspace, "PUT", "/files/a.txt", token=token, data=b"mine")
    assert status == 201
    await client.api("POST", f"/api/workspaces/{workspace['workspaceId']}/stop")
    assert (await call())["workspaces"]["stopped"] == 1
    held = aws.client("s3").list_objects_v2(Bucket="snapshots").get("KeyCount")
    assert held, "the same call moved its files into S3"
