"""What ECS says of tasks, read as machines, and its refusals in words. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lifecycle.aws import code_of
from lifecycle.pools import NoCapacity, Observed, PoolError, State
from lifecycle.pools.refusals import all_in_one, pool_error

FLEET, MACHINE, SLOTS = "ide-gateway:fleet", "ide-gateway:machine", "ide-gateway:slots"
"""Tags of a task."""

_STATES: Mapping[str, State] = {
    "PROVISIONING": "launching", "PENDING": "launching", "ACTIVATING": "launching",
    "RUNNING": "running",
}  # fmt: skip
_ENDING = frozenset({"DEACTIVATING", "STOPPING"})
_NO_ROOM = re.compile(r"(?i)^(RESOURCE|AGENT)\b|capacity|limit on the number of")
_REASONS = {
    "MISSING": "there is no such thing",
    "INACTIVE": "the instance is not active",
    "ATTRIBUTE": "no instance of the cluster has what the task definition asks for",
    "LOCATION": "no instance is in an availability zone of the subnets",
}


def observed(machine_id: str, task: Mapping[str, Any], port: int) -> Observed | None:
    """None for a task that ends because it was asked to: it is as good as gone. port: of its agent."""
    ending = is_ending(task) or task.get("desiredStatus") == "STOPPED"
    if ending and task.get("stopCode") == "UserInitiated":
        return None
    ip = _private_ip(task)
    slots = _tags(task).get(SLOTS, "")
    return Observed(
        machine_id,
        _STATES.get(task["lastStatus"], "running"),
        address=f"{ip}:{port}" if ip else "",
        slots=int(slots) if slots.isdecimal() else 0,
        instance=task["taskArn"],
        zone=task.get("availabilityZone", ""),
        leaving=(task.get("stoppedReason") or "ECS stops the task") if ending else "",
    )


def is_ending(task: Mapping[str, Any]) -> bool:
    return task["lastStatus"] in _ENDING


def _tags(task: Mapping[str, Any]) -> dict[str, str]:
    return {tag["key"]: tag["value"] for tag in task.get("tags") or []}


def ours(tasks: Sequence[dict[str, Any]], fleet: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(machine, task) of what has not ended."""
    for task in tasks:
        tags = _tags(task)
        known = task["lastStatus"] in _STATES or task["lastStatus"] in _ENDING
        if tags.get(FLEET) == fleet and tags.get(MACHINE) and known:
            yield tags[MACHINE], task


def _private_ip(task: Mapping[str, Any]) -> str:
    """Of the task's own network interface; "" while there is none, and on an instance's network."""
    details = [row for each in task.get("attachments") or [] for row in each.get("details") or []]
    return next((row["value"] for row in details if row["name"] == "privateIPv4Address"), "")


def refusal(machine_id: str, refused: Sequence[Mapping[str, Any]]) -> PoolError:
    """What RunTask said in an answer that is no error."""
    reason = refused[0].get("reason", "") if refused else "ECS gave neither a task nor a reason"
    detail = refused[0].get("detail") or _REASONS.get(reason, "") if refused else ""
    said = f"{reason} ({detail})" if detail else reason
    if _NO_ROOM.search(reason):
        return NoCapacity(f"ECS has no room for machine {machine_id}: {said}", [machine_id])
    return PoolError(f"ECS did not launch machine {machine_id}: {said}; see the cluster's events")


def translated(error: BaseException, doing: str, cluster: str) -> PoolError:
    code, words = code_of(error), str(error)
    if code == "ClusterNotFoundException":
        return PoolError(
            f"cannot {doing}: there is no ECS cluster {cluster}; correct --ecs-cluster or --aws-region"
        )
    if code == "InvalidParameterException" and "No Container Instances" in words:
        return NoCapacity(f"cannot {doing}: no instance is in the ECS cluster {cluster}; add some")
    if code == "ClientException" and "task definition" in words:
        return PoolError(
            f"cannot {doing}: there is no such task definition; register it, or correct"
            " --ecs-task-definition"
        )
    return pool_error(error, doing)


def is_gone(error: BaseException | None) -> bool:
    """Whether that is ECS's answer about a task that ended long ago."""
    if error is None or code_of(error) != "InvalidParameterException":
        return False
    return "not found" in str(error)


def raise_worst(errors: Sequence[PoolError]) -> None:
    """All in one: what there is no room for certainly does not exist, and so can be given up."""
    if not errors:
        return
    full = [error for error in errors if isinstance(error, NoCapacity)]
    others = [error for error in errors if error not in full]
    words = "; ".join(dict.fromkeys(str(error) for error in [*full[:3], *others[:3]]))
    words += f" (and {len(errors) - 6} more)" if len(errors) > 6 else ""
    if full:
        raise NoCapacity(words, [each for error in full for each in error.machine_ids])
    raise all_in_one(words, errors)
