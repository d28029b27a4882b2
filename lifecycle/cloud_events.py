"""What EventBridge says, as notices about machines. Pure.

Queues deliver late, twice and out of order, and hold whatever a rule lets through: what says nothing
about a machine gives no notice and a reason to log, never an error.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

SPOT_NOTICE_MS = 120_000
"""From a spot notice until the machine is taken: two minutes, of EC2 and of Fargate alike."""

ENTITIES_MAX = 1000  # machines one event may name; EventBridge's own bound is 256 KiB a message


class Kind(StrEnum):
    SPOT = "spot"  # it is taken back at at_ms
    REBALANCE = "rebalance"  # it is likely to be taken back, nobody says when
    MAINTENANCE = "maintenance"  # it will be stopped, rebooted or retired, from at_ms on
    CHANGED = "changed"  # it goes, or went, down: the pool's describe() says what is true
    SCALED = "scaled"  # its group adds, removes or could not add machines: likewise


@dataclass(frozen=True, slots=True)
class Notice:
    """instance: the technology's own name ("i-…", a task's ARN); "" where the event names none.
    at_ms: by the wall clock: when the machine goes, for a change when that happened. detail: in words."""

    kind: Kind
    instance: str
    at_ms: int
    detail: str


@dataclass(frozen=True, slots=True)
class Heard:
    """why: the reason to log where there are no notices. malformed: it is no event of EventBridge's."""

    notices: tuple[Notice, ...] = ()
    why: str = ""
    malformed: bool = False


def parse(body: str, sent_at_ms: int = 0) -> Heard:
    """One message's body. sent_at_ms: when the queue took it, for an event that does not say its time."""
    try:
        event = json.loads(body)
    except (ValueError, RecursionError):
        return Heard(why="not JSON", malformed=True)
    if not isinstance(event, dict) or not isinstance(event.get("detail"), dict):
        return Heard(why="not an event of EventBridge", malformed=True)
    kind, source = _text(event, "detail-type"), _text(event, "source")
    reader = _READERS.get((source, kind))
    if reader is None:
        return Heard(
            why=f"{kind[:80] or 'an event'} of {source[:40] or 'nobody'} is of no use here"
        )
    at_ms = _time(event.get("time")) or sent_at_ms
    return reader(event["detail"], at_ms)


def _spot(detail: Mapping[str, Any], at_ms: int) -> Heard:
    does = _text(detail, "instance-action") or "terminate"
    said = f"spot interruption, to {does} it"
    return _one(Kind.SPOT, _text(detail, "instance-id"), at_ms + SPOT_NOTICE_MS, said)


def _rebalance(detail: Mapping[str, Any], at_ms: int) -> Heard:
    return _one(Kind.REBALANCE, _text(detail, "instance-id"), at_ms, "rebalance recommendation")


def _state(detail: Mapping[str, Any], at_ms: int) -> Heard:
    state = _text(detail, "state")
    if state in ("pending", "running"):
        return Heard(why=f"an instance is {state}: its agent says so itself")
    return _one(Kind.CHANGED, _text(detail, "instance-id"), at_ms, f"is {state or 'changed'}")


def _health(detail: Mapping[str, Any], at_ms: int) -> Heard:
    code = _text(detail, "eventTypeCode")
    if (_text(detail, "service"), _text(detail, "eventTypeCategory")) != ("EC2", "scheduledChange"):
        return Heard(why=f"{code or 'a health event'} is no scheduled change of EC2")
    if _text(detail, "statusCode") == "closed":
        return Heard(why=f"{code} is over")
    starts_ms = _time(detail.get("startTime"))
    if not starts_ms:
        return Heard(why=f"{code} does not say when it starts")
    ends = _clock(_time(detail.get("endTime")))
    said = f"scheduled maintenance {code}" + (f", until {ends}" if ends else "")
    entities = detail.get("affectedEntities")
    rows = entities[:ENTITIES_MAX] if isinstance(entities, list) else []
    named = [_text(row, "entityValue") for row in rows if isinstance(row, dict)]
    notices = tuple(Notice(Kind.MAINTENANCE, name, starts_ms, said) for name in named if name)
    return Heard(notices) if notices else Heard(why=f"{code} names no instance")


def _scaling(detail: Mapping[str, Any], at_ms: int) -> Heard:
    # A launch that failed names no instance; the pool is looked at all the same.
    group = _text(detail, "AutoScalingGroupName")
    does = _text(detail, "LifecycleTransition") or _text(detail, "StatusCode") or "changed"
    said = f"Auto Scaling group {group}: {does}"
    return Heard((Notice(Kind.SCALED, _text(detail, "EC2InstanceId"), at_ms, said),))


def _task(detail: Mapping[str, Any], at_ms: int) -> Heard:
    arn, why = _text(detail, "taskArn"), _text(detail, "stoppedReason")
    if _text(detail, "lastStatus") in ("STOPPED", "DELETED"):
        return _one(Kind.CHANGED, arn, at_ms, f"stopped: {why or 'no reason was given'}")
    if _text(detail, "desiredStatus") != "STOPPED":
        return Heard(why="a task goes on")
    if _text(detail, "stopCode") == "SpotInterruption":
        return _one(Kind.SPOT, arn, at_ms + SPOT_NOTICE_MS, "spot interruption of its task")
    return _one(Kind.CHANGED, arn, at_ms, f"is being stopped: {why or 'no reason was given'}")


def _one(kind: Kind, instance: str, at_ms: int, detail: str) -> Heard:
    if not instance:
        return Heard(why=f"a {kind} notice names no instance")
    return Heard((Notice(kind, instance, at_ms, detail[:300]),))


_READERS: Mapping[tuple[str, str], Callable[[Mapping[str, Any], int], Heard]] = {
    ("aws.ec2", "EC2 Spot Instance Interruption Warning"): _spot,
    ("aws.ec2", "EC2 Instance Rebalance Recommendation"): _rebalance,
    ("aws.ec2", "EC2 Instance State-change Notification"): _state,
    ("aws.health", "AWS Health Event"): _health,
    ("aws.autoscaling", "EC2 Instance-launch Lifecycle Action"): _scaling,
    ("aws.autoscaling", "EC2 Instance-terminate Lifecycle Action"): _scaling,
    ("aws.autoscaling", "EC2 Instance Launch Unsuccessful"): _scaling,
    ("aws.autoscaling", "EC2 Instance Terminate Unsuccessful"): _scaling,
    ("aws.ecs", "ECS Task State Change"): _task,
}


def _text(row: Mapping[str, Any], name: str) -> str:
    """At most 300 characters of it: names are shorter, and what is longer ends in a log."""
    value = row.get(name)
    return value[:300] if isinstance(value, str) else ""


_YEAR_10000 = 253_402_300_800  # what `datetime` can still say, with room for no time zone


def _time(value: object) -> int:
    """Milliseconds of "2026-11-23T12:00:00Z" or "Mon, 23 Nov 2026 12:00:00 GMT"; 0 for anything else."""
    if not isinstance(value, str):
        return 0
    for read in (datetime.fromisoformat, _rfc_1123):
        try:
            at = read(value)
            seconds = (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
            return int(seconds * 1000) if 0 < seconds < _YEAR_10000 else 0
        except (ValueError, OverflowError):
            continue
    return 0


def _rfc_1123(value: str) -> datetime:
    return datetime.strptime(value, "%a, %d %b %Y %H:%M:%S GMT")


def _clock(at_ms: int) -> str:
    return f"{datetime.fromtimestamp(at_ms / 1000, UTC):%Y-%m-%d %H:%M} UTC" if at_ms else ""
