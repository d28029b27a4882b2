"""What a test has of AWS: moto's server behind the proxy, and clients past it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import boto3
import botocore.session
from botocore.config import Config
from botocore.loaders import create_loader

from tests.aws import iam
from tests.aws.calls import Call
from tests.aws.faults import Fault
from tests.aws.proxy import Proxy
from tests.aws.server import Moto

REGION = "eu-central-1"


class Account:
    """One per test process; `reset()` before each test."""

    region = REGION

    def __init__(self) -> None:
        # Every client's session reads the services' descriptions anew: 0.2 s each that tests can share.
        shared = create_loader()
        self._own_loaders = botocore.session.create_loader
        botocore.session.create_loader = lambda *_, **__: shared
        self._moto = Moto()
        self.proxy = Proxy(self._moto.url)
        self.direct = self._moto.url
        self.url = self.proxy.url
        self._clients: dict[str, Any] = {}
        self.held_to_policies = True

    @property
    def calls(self) -> list[Call]:
        """Every call through the proxy since the test began, in the order they came."""
        return self.proxy.calls

    @property
    def env(self) -> dict[str, str]:
        """For processes: the whole environment, as role gateway."""
        return self.env_for("gateway")

    def env_for(self, role: str) -> dict[str, str]:
        return {**os.environ, **self.settings(role)}

    def settings(self, role: str) -> dict[str, str]:
        """What points an SDK here; the access key id is the role's name."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": role,
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    @contextlib.contextmanager
    def role(self, name: str) -> Iterator[None]:
        """Clients made within are of that role."""
        before = os.environ.get("AWS_ACCESS_KEY_ID", "")
        os.environ["AWS_ACCESS_KEY_ID"] = name
        try:
            yield
        finally:
            os.environ["AWS_ACCESS_KEY_ID"] = before

    def fault(self, service: str | None = None, action: str | None = None, **how: Any) -> Fault:
        """A fault from now on, in `with` or until its remove(): see Fault for what it can be."""
        made = Fault(service, action, **how)
        self.proxy.faults.append(made)
        return made

    def client(self, service: str) -> Any:
        """A plain boto3 client straight to moto, not recorded: to arrange and to look."""
        if service not in self._clients:
            self._clients[service] = boto3.client(
                service,
                endpoint_url=self.direct,
                region_name=REGION,
                aws_access_key_id="operator",
                aws_secret_access_key="secret",
                config=Config(s3={"addressing_style": "path"}),
            )
        return self._clients[service]

    def permissions(self) -> set[tuple[str, str]]:
        """What the calls so far needed of IAM, by role; nothing where a test plays with calls itself."""
        return iam.seen(self.calls) if self.held_to_policies else set()

    def reset(self) -> None:
        self._moto.reset()
        self.reset_proxy()

    def reset_proxy(self) -> None:
        self.proxy.reset()
        self.held_to_policies = True

    def close(self) -> None:
        botocore.session.create_loader = self._own_loaders
        for client in self._clients.values():
            client.close()
        self.proxy.close()
        self._moto.close()
