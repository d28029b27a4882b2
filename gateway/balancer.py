"""This gateway in a load balancer's target group: in when it is ready, out before it ends.

With `serve` at its end: deregister first, so that nothing new is sent here; serve on while what is open
ends by itself; go once the group says that this target is drained, or its deregistration delay is over.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Mapping
from typing import Any

import structlog

from lifecycle.aws import Clients, code_of, explain, failures

log = structlog.get_logger(__name__)

POLL = 1.0  # seconds between two looks while draining
DELAY_ATTRIBUTE = "deregistration_delay.timeout_seconds"
DELAY_DEFAULT = 300.0  # of a group whose attributes cannot be read; AWS's own default
METADATA = "http://169.254.169.254"
METADATA_WITHIN = 5.0  # seconds for the instance's metadata to answer

_GONE = frozenset({"unused", "unavailable"})
"""States of a target that gets no requests and has none left."""


class BalancerError(Exception):
    """str(error) says what is wrong with the target group, or with our place in it, and what to do."""


class NoTargetGroup(BalancerError):
    """There is none of that name: nothing comes from it either."""


class TargetGroup:
    """host: the address that the balancer is to call; "" finds it out. port: where this gateway listens."""

    def __init__(self, arn: str, clients: Clients, port: int, host: str = "") -> None:
        self._arn, self._clients, self._port, self._host = arn, clients, port, host
        self._target: dict[str, Any] = {}
        self._in = False

    async def check(self) -> None:
        """For the start: the group is there, and takes what we are. Raises BalancerError."""
        self._target = await self._own()

    async def register(self) -> None:
        """Once this gateway is ready. Safe to repeat. Raises BalancerError."""
        if not self._target:
            self._target = await self._own()
        await self._ask("register_targets", "register in", Targets=[self._target])
        known, self._in = self._in, True
        if not known:
            log.info("balancer.registered", target=self._target["Id"], port=self._port)

    async def leave(self, at_most: float = 3600.0) -> None:
        """Deregister and return when nothing comes from there any more: serve on meanwhile. Never
        raises, and never takes longer than the group's deregistration delay or `at_most` seconds."""
        if not self._in:
            return
        loop = asyncio.get_running_loop()
        until = loop.time() + at_most
        try:
            async with asyncio.timeout_at(until) as limit:
                until = min(until, loop.time() + await self._delay())
                limit.reschedule(until)
                await self._drained()
        except TimeoutError:
            log.info("balancer.delay_over", target=self._target["Id"])
        self._in = False

    async def _drained(self) -> None:
        """Ask until it is so. While the balancer cannot be told, its health checks find 503 at /readyz."""
        asked = said = False
        while True:
            try:
                if not asked:
                    await self._ask("deregister_targets", "deregister from", Targets=[self._target])
                    asked = True
                if await self._is_gone():
                    log.info("balancer.drained", target=self._target["Id"])
                    return
            except NoTargetGroup as error:
                log.warning("balancer.no_group", why=str(error))
                return
            except BalancerError as error:
                if not said:
                    log.warning("balancer.not_drained", why=str(error))
                said = True
            await asyncio.sleep(POLL)

    async def _own(self) -> dict[str, Any]:
        found = await self._ask("describe_target_groups", "look at", one=False)
        kind = found["TargetGroups"][0]["TargetType"]
        if kind == "ip":
            return {"Id": self._host or own_ip(), "Port": self._port}
        if kind == "instance":
            return {"Id": self._host or await own_instance(), "Port": self._port}
        raise BalancerError(
            f"target group {self._arn} takes targets of the type {kind}: --target-group needs one"
            " of the type ip or instance"
        )

    async def _delay(self) -> float:
        """Seconds the balancer lets open requests end."""
        try:
            found = await self._ask("describe_target_group_attributes", "read the attributes of")
        except BalancerError as error:
            log.warning("balancer.delay_unknown", why=str(error), taken_s=DELAY_DEFAULT)
            return DELAY_DEFAULT
        values = {row["Key"]: row["Value"] for row in found["Attributes"]}
        return float(values.get(DELAY_ATTRIBUTE, DELAY_DEFAULT))

    async def _is_gone(self) -> bool:
        found = await self._ask("describe_target_health", "look at our health in", Targets=[self._target])  # fmt: skip
        return is_gone(found, self._target)

    async def _ask(self, method: str, doing: str, one: bool = True, **asked: Any) -> Any:
        which: dict[str, Any] = (
            {"TargetGroupArn": self._arn} if one else {"TargetGroupArns": [self._arn]}
        )
        try:
            return await getattr(await self._clients.get("elbv2"), method)(**which, **asked)
        except failures() as error:
            raise self._translated(error, doing) from error

    def _translated(self, error: BaseException, doing: str) -> BalancerError:
        code = code_of(error)
        if code in ("TargetGroupNotFound", "ValidationError"):
            return NoTargetGroup(
                f"cannot {doing} target group {self._arn}: there is none in this account and region;"
                " correct --target-group or --aws-region"
            )
        if code == "InvalidTarget":
            return BalancerError(
                f"cannot {doing} target group {self._arn}: it does not take {self._target.get('Id')};"
                " it must be in the group's VPC, and run"
            )
        return BalancerError(explain(error, f"{doing} target group {self._arn}"))


def is_gone(health: Mapping[str, Any], target: Mapping[str, Any]) -> bool:
    """Whether DescribeTargetHealth says that nothing of ours is open any more."""
    rows = [
        row["TargetHealth"]["State"]
        for row in health.get("TargetHealthDescriptions") or []
        if row["Target"]["Id"] == target["Id"] and row["Target"].get("Port") == target["Port"]
    ]
    return all(state in _GONE for state in rows)


def own_ip() -> str:
    """The address of the interface that leads to the world: a socket knows it without sending anything."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
            return str(probe.getsockname()[0])
        except OSError as error:
            raise BalancerError(
                f"cannot tell this host's own address ({error}): name it with --host"
            ) from error


async def own_instance() -> str:
    """The id of the EC2 instance that this runs on, as its metadata service (version 2) says."""
    base = os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT") or METADATA
    try:
        return await asyncio.to_thread(_instance_id, base.rstrip("/"))
    except OSError as error:
        raise BalancerError(
            f"cannot tell which instance this is, {base} does not answer ({error}): run on EC2 with"
            " IMDSv2, or use a target group of the type ip"
        ) from error


def _instance_id(base: str) -> str:
    from urllib.request import ProxyHandler, Request, build_opener

    opener = build_opener(ProxyHandler({}))  # it is on this host's own link, never behind a proxy

    def ask(method: str, path: str, **headers: str) -> str:
        request = Request(f"{base}/latest/{path}", method=method, headers=headers)
        with opener.open(request, timeout=METADATA_WITHIN) as answer:
            return str(answer.read(200).decode())

    token = ask("PUT", "api/token", **{"X-aws-ec2-metadata-token-ttl-seconds": "60"})
    return ask("GET", "meta-data/instance-id", **{"X-aws-ec2-metadata-token": token})
