"""Calls of EC2's API, with its errors as PoolErrors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lifecycle.aws import Clients, code_of, failures
from lifecycle.pools import PoolError
from lifecycle.pools.ec2_instances import STATES, Instance, read
from lifecycle.pools.ec2_launch import AT_ONCE, FIRST, FLEET
from lifecycle.pools.refusals import pool_error

PAGE = 200
"""Instances per page. AWS gives up to 1,000, but nothing else runs while boto reads a page."""


class Ec2Calls:
    def __init__(self, clients: Clients, fleet: str) -> None:
        self._clients, self._fleet = clients, fleet

    async def ask(self, doing: str, verb: str, **asked: Any) -> Any:
        """doing: for the error's sentence. Raises PoolError; code() gives AWS's name for it."""
        try:
            return await getattr(await self._client(), verb)(**asked)
        except failures() as error:
            raise pool_error(error, doing) from error

    async def instances(self, numbers: Sequence[int] = ()) -> list[Instance]:
        """Ours that exist. numbers: only of launches that started with one of these machines."""
        filters = [
            {"Name": f"tag:{FLEET}", "Values": [self._fleet]},
            {"Name": "instance-state-name", "Values": list(STATES)},
        ]
        if numbers:
            filters.append({"Name": f"tag:{FIRST}", "Values": [str(each) for each in numbers]})
        try:
            paginator = (await self._client()).get_paginator("describe_instances")
            pages = paginator.paginate(Filters=filters, PaginationConfig={"PageSize": PAGE})
            rows = [
                row
                async for page in pages
                for reservation in page["Reservations"]
                for row in reservation["Instances"]
            ]
        except failures() as error:
            raise pool_error(error, f"list the machines of fleet {self._fleet}") from error
        found = (read(row) for row in rows)
        # A list that is put together while something changes may show what the filter should not.
        return [each for each in found if each is not None and each.state in STATES]

    async def region(self) -> str:
        return str((await self._client()).meta.region_name)

    async def _client(self) -> Any:
        ec2 = await self._clients.get("ec2")
        for operation in ("RunInstances", "StartInstances"):
            ec2.meta.events.register_first(
                f"needs-retry.ec2.{operation}", _settle, unique_id=f"{operation}-is-answered"
            )
        return ec2


def code(error: PoolError) -> str:
    """AWS's name for what a call failed with; "" when it was something else."""
    return code_of(error.__cause__) if error.__cause__ else ""


def _settle(response: Any = None, **_: Any) -> None:
    """Runs ahead of botocore's own look at an answer, which goes by its status."""
    if response is not None and response[1].get("Error", {}).get("Code") in AT_ONCE:
        response[0].status_code = 400
