"""`make trial`, and the command that it prints."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import psutil
import pytest

from tests.e2e.harness import IDE_FLAGS


class Trial:
    """lines: what it has said so far."""

    def __init__(self, *flags: str, env: dict[str, str] | None = None) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "deploy.local_trial", *flags],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
            env=env,
        )  # fmt: skip
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout
        with self.process.stdout as stream:
            for line in stream:
                self.lines.append(line.rstrip("\n"))

    def said(self, words: str) -> str:
        return next((line for line in list(self.lines) if words in line), "")

    def end(self) -> int:
        self.process.send_signal(signal.SIGINT)
        code = self.process.wait(20)
        self._reader.join(5)
        return code


@pytest.fixture
def trial(tmp_path: Path) -> Iterator[Trial]:
    started = Trial("--gateway-port", "0", env={**os.environ, "TMPDIR": str(tmp_path)})
    yield started
    if started.process.poll() is None:
        started.end()


async def test_what_it_prints_serves_a_workspace_and_its_end_removes_everything(
    trial: Trial, serve: Any, client_of: Any, until: Any, tmp_path: Path
) -> None:
    await until(lambda: trial.said("is told here"), timeout=20, what="\n".join(trial.lines))
    exported = shlex.split(trial.said("export "))[1:]
    environment = dict(word.split("=", 1) for word in exported)
    program, verb, *flags = shlex.split(trial.said(" serve "))
    assert Path(program).exists()
    assert verb == "serve"
    data_dir = Path(flags[flags.index("--data-dir") + 1])
    quick = (*IDE_FLAGS, "--scale-interval", "0.3")
    gateway = await serve(*flags, *quick, data_dir=data_dir, env=environment)
    client = client_of(gateway)

    workspace = await client.running()
    assert trial.said(" runs: an agent was started")
    token = (await client.enter(workspace))["token"]
    status, _ = await client.ide(workspace, "PUT", "/files/a.txt", token=token, data=b"mine")
    assert status == 201
    await client.api("POST", f"/api/workspaces/{workspace['workspaceId']}/stop")

    url, region = environment["AWS_ENDPOINT_URL"], environment["AWS_REGION"]
    keys = {"aws_access_key_id": "trial", "aws_secret_access_key": "trial"}
    s3 = boto3.client("s3", endpoint_url=url, region_name=region, **keys)
    held = lambda: s3.list_objects_v2(Bucket="ide-gateway-trial").get("KeyCount")  # noqa: E731
    await until(held, timeout=15, what="its files are in S3")
    s3.close()

    agents = [p for p in psutil.Process(trial.process.pid).children() if p.is_running()]
    assert agents
    assert gateway.stop() == 0
    assert trial.end() == 0
    assert not any(agent.is_running() for agent in agents)
    assert not data_dir.parent.exists()


def test_a_taken_port_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for flag in ("--port", "--gateway-port"):
            done = subprocess.run(
                [sys.executable, "-m", "deploy.local_trial", flag, port],
                capture_output=True, text=True, timeout=30,
            )  # fmt: skip
            assert done.returncode == 1
            assert f"take another {flag}" in done.stderr
