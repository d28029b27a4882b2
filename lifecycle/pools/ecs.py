"""Machines as tasks of Amazon ECS, on Fargate or on instances of the cluster: one task a machine.

A task has no disk that outlives it: a task that ended, whoever ended it, is a machine that is gone.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from lifecycle.aws import Clients, code_of, failures
from lifecycle.identifiers import machine_number
from lifecycle.pools import Launch, Observed, PoolError, Traits
from lifecycle.pools.bootstrap import Bootstrap
from lifecycle.pools.ecs_answers import (
    FLEET,
    MACHINE,
    SLOTS,
    is_ending,
    is_gone,
    observed,
    ours,
    raise_worst,
    refusal,
    translated,
)

log = logging.getLogger(__name__)

AT_ONCE = 10  # RunTask calls under way: Fargate takes bursts of 100, and 20 a second from then on
BATCH = 100  # tasks that one DescribeTasks takes


@dataclass(frozen=True, slots=True)
class EcsConfig:
    """fleet: marks our tasks. container: which container of the task gets the environment; "" is the
    first. subnets, security_groups: of tasks with a network interface of their own (all of Fargate's)."""

    fleet: str
    cluster: str
    task_definition: str
    launch_type: Literal["FARGATE", "EC2"] = "FARGATE"
    subnets: tuple[str, ...] = ()
    security_groups: tuple[str, ...] = ()
    container: str = ""


class EcsPool:
    """A Pool. What it starts finds the gateway by the two variables of Bootstrap and joins by itself."""

    name = "ecs"
    traits = Traits(lag=30.0, keeps_disks=False, joins=True)

    def __init__(self, config: EcsConfig, bootstrap: Bootstrap, clients: Clients) -> None:
        self._config, self._bootstrap, self._clients = config, bootstrap, clients
        self._definition: dict[str, Any] = {}

    async def check(self) -> None:
        """Raise PoolError with what to do, if nothing could ever be launched like this."""
        config = self._config
        definition = await self._defined()
        fits = definition.get("compatibilities") or [config.launch_type]
        if config.launch_type not in fits:
            raise PoolError(
                f"task definition {config.task_definition} is for {', '.join(fits)}, not for"
                f" {config.launch_type}: change it or --ecs-launch-type"
            )
        names = [each["name"] for each in definition["containerDefinitions"]]
        if config.container and config.container not in names:
            raise PoolError(
                f"task definition {config.task_definition} has no container {config.container}:"
                f" it has {', '.join(names)}"
            )
        if definition.get("networkMode") == "awsvpc" and not config.subnets:
            raise PoolError(
                f"tasks of {config.task_definition} need a network interface: name --subnets"
            )
        found = await self._ask(
            "describe_clusters", f"look at the ECS cluster {config.cluster}", clusters=[config.cluster]
        )  # fmt: skip
        if not any(each["status"] == "ACTIVE" for each in found["clusters"]):
            raise PoolError(
                f"there is no active ECS cluster {config.cluster} in this account and region:"
                " create it, or correct --ecs-cluster or --aws-region"
            )

    async def launch(self, launches: Sequence[Launch]) -> list[str]:
        """See Pool. A launch's zone is not honoured: ECS spreads tasks over its subnets, and nothing on a
        task can have a volume of EBS attached later."""
        wanted = {launch.machine_id: launch for launch in launches}
        # By tag first: a client token is remembered for a while only, and a task may run for weeks.
        there = {machine_id for machine_id, _ in await self._tasks()} if wanted else set()
        gate = asyncio.Semaphore(AT_ONCE)

        async def run(launch: Launch) -> PoolError | None:
            async with gate:
                try:
                    await self._run(launch)
                except PoolError as error:
                    return error
            return None

        missing = [launch for machine_id, launch in wanted.items() if machine_id not in there]
        outcomes = await asyncio.gather(*(run(launch) for launch in missing))
        raise_worst([error for error in outcomes if error])
        return []

    async def describe(self) -> list[Observed]:
        found: dict[str, Observed] = {}
        for machine_id, task in await self._tasks():
            row = observed(machine_id, task, self._bootstrap.port)
            if row and machine_id not in found:
                found[machine_id] = row
        return list(found.values())

    async def start(self, launch: Launch) -> None:
        rows = {row.machine_id: row for row in await self.describe()}
        row = rows.get(launch.machine_id)
        if row is None or row.leaving:
            raise PoolError(
                f"machine {launch.machine_id} has no task that could go on: a task of ECS that ended"
                " is gone with its disk; launch another machine"
            )

    async def stop(self, machine_id: str) -> None:
        """Never asked of what keeps no disk; a task that is there goes on."""
        if any(row.machine_id == machine_id for row in await self.describe()):
            raise PoolError(
                f"machine {machine_id} cannot be stopped and kept: tasks of ECS keep no disk; move"
                " its workspaces into snapshots and terminate it"
            )

    async def terminate(self, machine_id: str) -> None:
        for owner, task in await self._tasks():
            if owner != machine_id or is_ending(task):
                continue
            try:
                await self._ask(
                    "stop_task", f"stop the task of machine {machine_id}", cluster=self._config.cluster,
                    task=task["taskArn"], reason="ide-gateway: the machine is not needed any more",
                )  # fmt: skip
            except PoolError as error:
                if not is_gone(error.__cause__):
                    raise

    async def protect(self, machine_ids: Collection[str]) -> None:
        """Nothing to do: ECS scales in tasks of services only, and ours are of none."""

    async def close(self, stop_machines: bool) -> None:
        """Tasks go on even with stop_machines: files on them would be gone with their end."""
        if stop_machines:
            log.info("tasks of ECS go on: they keep no disk; the next gateway finds them")

    async def _run(self, launch: Launch) -> None:
        answer = await self._ask(
            "run_task", f"launch machine {launch.machine_id} as a task", **await self._request(launch)
        )  # fmt: skip
        refused = answer.get("failures") or []
        if refused or not answer.get("tasks"):
            raise refusal(launch.machine_id, refused)

    async def _request(self, launch: Launch) -> dict[str, Any]:
        """RunTask's parameters: the same for the same machine, whichever leader asks."""
        config, definition = self._config, await self._defined()
        environment = self._bootstrap.environment(machine_number(launch.machine_id)).items()
        tags = {FLEET: config.fleet, MACHINE: launch.machine_id, SLOTS: str(launch.slots)}
        request: dict[str, Any] = {
            "cluster": config.cluster,
            "taskDefinition": config.task_definition,
            "launchType": config.launch_type,
            "count": 1,
            "startedBy": started_by(config.fleet),
            "clientToken": client_token(config.fleet, launch.machine_id),
            "tags": [{"key": key, "value": value} for key, value in tags.items()],
            "overrides": {
                "containerOverrides": [
                    {
                        "name": config.container or definition["containerDefinitions"][0]["name"],
                        "environment": [{"name": n, "value": v} for n, v in environment],
                    }
                ]
            },
        }
        if definition.get("networkMode") == "awsvpc":
            request["networkConfiguration"] = {
                "awsvpcConfiguration": {
                    "subnets": list(config.subnets),
                    "securityGroups": list(config.security_groups),
                }
            }
        return request

    async def _defined(self) -> dict[str, Any]:
        """The task definition, asked for once: containers and the mode of the network stay."""
        if not self._definition:
            name = self._config.task_definition
            answer = await self._ask(
                "describe_task_definition", f"read the task definition {name}", taskDefinition=name
            )
            self._definition = answer["taskDefinition"]
        return self._definition

    async def _tasks(self) -> list[tuple[str, dict[str, Any]]]:
        """(machine, task) of every task of ours that has not ended, oldest first."""
        arns = [arn for wish in ("RUNNING", "STOPPED") for arn in await self._arns(wish)]
        found: list[tuple[str, dict[str, Any]]] = []
        for batch in (arns[at : at + BATCH] for at in range(0, len(arns), BATCH)):
            answer = await self._ask(
                "describe_tasks", f"describe the tasks of fleet {self._config.fleet}",
                cluster=self._config.cluster, tasks=batch, include=["TAGS"],
            )  # fmt: skip
            found += ours(answer["tasks"], self._config.fleet)
        return sorted(found, key=lambda row: (str(row[1].get("createdAt", "")), row[1]["taskArn"]))

    async def _arns(self, wish: str) -> list[str]:
        """wish: STOPPED lists what ended within the last hour or is about to."""
        doing = f"list the tasks of fleet {self._config.fleet} in cluster {self._config.cluster}"
        asked = {
            "cluster": self._config.cluster,
            "startedBy": started_by(self._config.fleet),
            "desiredStatus": wish,
        }
        arns: list[str] = []
        page = await self._ask("list_tasks", doing, **asked)
        arns += page["taskArns"]
        while page.get("nextToken"):
            page = await self._ask("list_tasks", doing, **asked, nextToken=page["nextToken"])
            arns += page["taskArns"]
        return arns

    async def _ask(self, method: str, doing: str, **asked: Any) -> Any:
        try:
            return await getattr(await self._clients.get("ecs"), method)(**asked)
        except failures() as error:
            if method == "run_task" and code_of(error) == "ConflictException":
                return {"tasks": [{}]}  # that token made a task already, if with other settings
            raise translated(error, doing, self._config.cluster) from error


def client_token(fleet: str, machine_id: str) -> str:
    return hashlib.sha256(f"{fleet}\0{machine_id}".encode()).hexdigest()


def started_by(fleet: str) -> str:
    """The fleet as ListTasks can filter by it; tags then tell apart what this makes the same."""
    return re.sub(r"[^A-Za-z0-9_/-]", "-", fleet)[:36]
