"""EC2 as these tests have it: moto's instances with real agents, which call AWS through the test's proxy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from deploy.instances import Instances
from tests.aws.account import Account


class Cloud(Instances):
    """`run()` it beside the test. agents_join: False: instances come up and nothing of ours starts there."""

    def __init__(self, aws: Account, directory: Path) -> None:
        super().__init__(aws.client("ec2"), aws.env_for("agent"), directory)
        self.agents_join = True

    def _play(self, instance: str, row: dict[str, Any]) -> None:
        if self.agents_join or row["State"]["Name"] != "running":
            super()._play(instance, row)
