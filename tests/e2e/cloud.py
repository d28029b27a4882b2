"""EC2 as these tests have it: moto's instances with real agents, which call AWS through the test's proxy."""

from __future__ import annotations

from pathlib import Path

from deploy.instances import Instances
from tests.aws.account import Account


class Cloud(Instances):
    """`run()` it beside the test."""

    def __init__(self, aws: Account, directory: Path) -> None:
        super().__init__(aws.client("ec2"), aws.env_for("agent"), directory)
