"""A trial of the AWS side on this machine alone: `make trial`.

Runs moto's server, which answers as AWS does; makes what an operator would have made (a bucket, a table,
an image, a queue that EventBridge fills); prints the `ide-gateway serve` that uses it all; and gives each
instance that the gateway launches a real agent, as a process on this machine. Ctrl-C ends everything and
removes it. Nothing is sent to AWS and no account is needed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shlex
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from deploy.instances import Instances

REGION = "eu-central-1"
BUCKET, TABLE, QUEUE = "ide-gateway-trial", "ide-gateway-trial", "ide-gateway-trial"
LOOPBACK = "127.0.0.1"


def main() -> int:
    arguments = _parse()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    directory = Path(tempfile.mkdtemp(prefix="ide-gateway-trial-"))
    (directory / "instances").mkdir()
    try:
        with _moto(arguments.port) as url:
            environment = _environment(url)
            os.environ.update(environment)
            flags = _account(_client("ec2"), _taken_by_gateway(arguments.gateway_port))
            _explain(environment, [*flags, "--data-dir", str(directory / "gateway")])
            played = Instances(_client("ec2"), _agents(), directory / "instances", _tell)
            try:
                asyncio.run(played.run())
            except KeyboardInterrupt:
                print("\nEnding every instance", flush=True)
            finally:
                played.close()
    finally:
        _remove(directory)
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make trial", description=__doc__)
    parser.add_argument("--port", default=0, type=int, help="moto's port; 0 takes a free one")
    parser.add_argument(
        "--gateway-port", default=8000, type=int, help="the gateway's; 0 takes a free one"
    )
    return parser.parse_args()


@contextmanager
def _moto(port: int) -> Iterator[str]:
    """URL of a server that knows no account yet."""
    os.environ["MOTO_EC2_LOAD_DEFAULT_AMIS"] = "false"
    from moto.moto_server.werkzeug_app import (
        DomainDispatcherApplication,
        MotoRequestHandler,
        create_backend_app,
    )
    from werkzeug.serving import make_server

    class Quiet(MotoRequestHandler):
        def log(self, type: str, message: str, *args: Any) -> None:
            pass

    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((LOOPBACK, port))
        except OSError as error:
            sys.exit(f"cannot listen on port {port}: {error.strerror}; take another --port")
        listening.listen(128)
        app = DomainDispatcherApplication(create_backend_app)
        server = make_server(
            LOOPBACK, 0, app, threaded=True, request_handler=Quiet, fd=listening.fileno()
        )
        bound = listening.getsockname()[1]
        os.environ["MOTO_PORT"] = str(bound)  # the queue's address has it
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://{LOOPBACK}:{bound}"
        server.shutdown()
        server.server_close()


def _environment(url: str) -> dict[str, str]:
    """What points every SDK of AWS at moto, and at no account of yours."""
    return {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "trial",
        "AWS_SECRET_ACCESS_KEY": "trial",
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }


def _agents() -> Mapping[str, str]:
    """Agents find IDEs that are installed beside this Python."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    return {**os.environ, "PATH": path}


def _client(service: str) -> Any:
    import boto3

    return boto3.client(service, region_name=REGION)


def _taken_by_gateway(port: int) -> int:
    """The port, which has to be known before the gateway takes it: machines are told it."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError as error:
            sys.exit(f"port {port} is not free ({error.strerror}); take another --gateway-port")
        return int(probe.getsockname()[1])


def _account(ec2: Any, port: int) -> list[str]:
    """Make what a fleet needs; the flags that name it."""
    where = {"LocationConstraint": REGION}
    _client("s3").create_bucket(Bucket=BUCKET, CreateBucketConfiguration=where)
    _client("dynamodb").create_table(
        TableName=TABLE,
        KeySchema=[{"AttributeName": "workspaceId", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "workspaceId", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    image = ec2.register_image(Name="ide-gateway", RootDeviceName="/dev/xvda")["ImageId"]
    subnet = ec2.describe_subnets()["Subnets"][0]["SubnetId"]
    return [
        "--pool", "ec2", "--machine-image", image, "--instance-types", "m7i.large",
        "--subnets", subnet, "--snapshots", f"s3://{BUCKET}/snapshots",
        "--store", f"dynamodb:{TABLE}", "--aws-queue", _queue(),
        "--port", str(port), "--join-url", f"http://{LOOPBACK}:{port}",
    ]  # fmt: skip


def _queue() -> str:
    """Filled by EventBridge with what it says of EC2."""
    sqs, events = _client("sqs"), _client("events")
    url = str(sqs.create_queue(QueueName=QUEUE)["QueueUrl"])
    told = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
    events.put_rule(Name=QUEUE, EventPattern=json.dumps({"source": ["aws.ec2"]}))
    target = {"Id": "queue", "Arn": told["Attributes"]["QueueArn"]}
    events.put_targets(Rule=QUEUE, Targets=[target])
    return url


def _explain(environment: Mapping[str, str], flags: list[str]) -> None:
    exports = " ".join(f"{name}={shlex.quote(value)}" for name, value in environment.items())
    program = Path(sys.executable).with_name("ide-gateway")
    if program.is_relative_to(Path.cwd()):
        program = program.relative_to(Path.cwd())
    rows = [
        f"moto answers for AWS at {environment['AWS_ENDPOINT_URL']}; bucket, table, image and queue are there.",
        "",
        "In a second terminal, in this directory:",
        "",
        f"export {exports}",
        f"{program} serve {shlex.join(flags)}",
        "",
        "Then open the address that it prints. Stop it with Ctrl-C before you stop this.",
        "What becomes of instances is told here:",
    ]
    print("\n".join(rows), flush=True)


def _tell(instance: str, what: str) -> None:
    words = {
        "runs": "runs: an agent was started",
        "stopped": "is stopped: its agent has ended, its disk stays",
        "terminated": "is terminated: its agent has ended, its disk is gone",
    }
    print(f"{time.strftime('%H:%M:%S')}  {instance} {words[what]}", flush=True)


def _remove(directory: Path) -> None:
    if (directory / "gateway" / "url").exists():
        print(f"The gateway still runs: stop it with Ctrl-C, and remove {directory}", flush=True)
        return
    shutil.rmtree(directory)


if __name__ == "__main__":
    raise SystemExit(main())
