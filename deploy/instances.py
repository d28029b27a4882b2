"""Plays EC2 where moto ends: each instance that moto starts is given a real agent, with a metadata service
of its own; stopped, its agent ends and its disk stays; terminated, both are gone."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil

LOOK = 0.1  # seconds between two looks at what moto runs


class Metadata:
    """IMDSv2 of every instance: http://…/{instance} is its endpoint. facts: path → answer, by instance."""

    def __init__(self) -> None:
        self.facts: dict[str, dict[str, str]] = {}
        metadata = self

        class Handler(BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                self._answer(200, "token" if self.path.endswith("/latest/api/token") else "")

            def do_GET(self) -> None:
                if self.headers.get("X-aws-ec2-metadata-token") != "token":
                    self._answer(401, "")
                    return
                instance, _, path = self.path[1:].partition("/latest")
                found = metadata.facts.get(instance, {}).get(path)
                self._answer(404 if found is None else 200, found or "")

            def _answer(self, status: int, text: str) -> None:
                body = text.encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)


class Instances:
    """`run()` it. agents: of the instances that run. dead: instances whose host is gone without a word.

    ec2: a client of boto3. environment: of the agents. tell: (instance, what became of it) → None.
    """

    def __init__(
        self,
        ec2: Any,
        environment: Mapping[str, str],
        directory: Path,
        tell: Callable[[str, str], None] = lambda instance, what: None,
    ) -> None:
        self._ec2, self._environment, self._directory = ec2, environment, directory
        self._tell = tell
        self.metadata = Metadata()
        self.agents: dict[str, subprocess.Popen[bytes]] = {}
        self.dead: set[str] = set()

    def disk(self, instance: str) -> Path:
        return self._directory / instance

    def instances(self) -> dict[str, dict[str, Any]]:
        """Id → what moto says of it, terminated ones too."""
        found = self._ec2.describe_instances()["Reservations"]
        return {row["InstanceId"]: row for group in found for row in group["Instances"]}

    def user_data(self, instance: str) -> str:
        told = self._ec2.describe_instance_attribute(InstanceId=instance, Attribute="userData")
        return base64.b64decode(told["UserData"].get("Value", "")).decode()

    async def run(self) -> None:
        while True:
            for instance, row in (await asyncio.to_thread(self.instances)).items():
                await asyncio.to_thread(self._play, instance, row)
            await asyncio.sleep(LOOK)

    def _play(self, instance: str, row: dict[str, Any]) -> None:
        state = row["State"]["Name"]
        agent = self.agents.get(instance)
        if state == "running" and agent is None and instance not in self.dead:
            self.agents[instance] = self._boot(instance, row)
            self._tell(instance, "runs")
        elif state in ("stopped", "terminated") and agent is not None:
            del self.agents[instance]
            self._end(agent)
            self._tell(instance, state)
        if state == "terminated" and self.disk(instance).exists():
            shutil.rmtree(self.disk(instance))

    def _boot(self, instance: str, row: dict[str, Any]) -> subprocess.Popen[bytes]:
        self.metadata.facts[instance] = {
            "/user-data": self.user_data(instance),
            "/meta-data/instance-id": instance,
            "/meta-data/local-ipv4": "127.0.0.1",
            "/meta-data/ami-launch-index": str(row["AmiLaunchIndex"]),
        }
        disk = self.disk(instance)
        disk.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "lifecycle.agent", "--join", "imds", "--dir", str(disk)]
        environment = {
            name: value
            for name, value in self._environment.items()
            if not name.startswith("IDE_GATEWAY_")
        }
        environment["AWS_EC2_METADATA_SERVICE_ENDPOINT"] = f"{self.metadata.url}/{instance}"
        with (self._directory / f"{instance}.log").open("ab") as log:
            return subprocess.Popen(
                [*command, "--workspace-user", "shared"],
                env=environment,
                cwd=os.getcwd(),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _end(self, agent: subprocess.Popen[bytes]) -> None:
        """In order; what hangs is killed."""
        agent.send_signal(signal.SIGTERM)
        try:
            agent.wait(20)
        except subprocess.TimeoutExpired:
            _kill(agent)

    def kill(self, instance: str) -> None:
        """The machine goes without a word, as a host that fails."""
        self.dead.add(instance)
        _kill(self.agents.pop(instance))

    def logs(self) -> str:
        return "\n".join(path.read_text() for path in sorted(self._directory.glob("i-*.log")))

    def close(self) -> None:
        for instance in list(self.agents):
            self.kill(instance)
        self.metadata.close()


def _kill(agent: subprocess.Popen[bytes]) -> None:
    for process in _family(agent.pid):
        with contextlib.suppress(psutil.Error):
            process.kill()
    agent.wait(10)


def _family(pid: int) -> Iterator[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        parent = psutil.Process(pid)
        yield from parent.children(recursive=True)
        yield parent
