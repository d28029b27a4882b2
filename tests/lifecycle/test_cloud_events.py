"""What EventBridge delivers, as AWS documents it, and everything else."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifecycle.cloud_events import Heard, Kind, Notice, parse

AT = "2026-11-23T12:00:00Z"
AT_MS = int(datetime(2026, 11, 23, 12, tzinfo=UTC).timestamp() * 1000)


def event(source: str, kind: str, detail: object, **more: object) -> str:
    usual: dict[str, object] = {
        "version": "0", "id": "12345678-1234", "detail-type": kind, "source": source, "time": AT,
        "account": "123456789012", "region": "eu-central-1", "resources": [], "detail": detail,
    }  # fmt: skip
    return json.dumps(usual | more)


def notice(body: str) -> Notice:
    heard = parse(body)
    assert (len(heard.notices), heard.why, heard.malformed) == (1, "", False)
    return heard.notices[0]


def test_a_spot_notice_is_two_minutes_before_the_end() -> None:
    detail = {"instance-id": "i-0a1b", "instance-action": "terminate"}
    said = notice(event("aws.ec2", "EC2 Spot Instance Interruption Warning", detail))
    assert (said.kind, said.instance, said.at_ms) == (Kind.SPOT, "i-0a1b", AT_MS + 120_000)
    assert "terminate" in said.detail


def test_a_rebalance_recommendation_names_no_time() -> None:
    body = event("aws.ec2", "EC2 Instance Rebalance Recommendation", {"instance-id": "i-0a1b"})
    assert notice(body) == Notice(Kind.REBALANCE, "i-0a1b", AT_MS, "rebalance recommendation")


@pytest.mark.parametrize("state", ["stopping", "stopped", "shutting-down", "terminated"])
def test_an_instance_that_goes_down_is_a_reason_to_look(state: str) -> None:
    detail = {"instance-id": "i-0a1b", "state": state}
    said = notice(event("aws.ec2", "EC2 Instance State-change Notification", detail))
    assert said == Notice(Kind.CHANGED, "i-0a1b", AT_MS, f"is {state}")


@pytest.mark.parametrize("state", ["pending", "running"])
def test_one_that_comes_up_says_so_itself(state: str) -> None:
    detail = {"instance-id": "i-0a1b", "state": state}
    heard = parse(event("aws.ec2", "EC2 Instance State-change Notification", detail))
    assert (heard.notices, heard.malformed) == ((), False)
    assert state in heard.why


HEALTH: dict[str, Any] = {
    "eventArn": "arn:aws:health:eu-central-1::event/EC2/X/X_1",
    "service": "EC2",
    "eventTypeCode": "AWS_EC2_INSTANCE_STOP_SCHEDULED",
    "eventTypeCategory": "scheduledChange",
    "startTime": "Tue, 24 Nov 2026 08:30:00 GMT",
    "endTime": "Tue, 24 Nov 2026 10:30:00 GMT",
    "statusCode": "upcoming",
    "affectedEntities": [{"entityValue": "i-0a"}, {"entityValue": "i-0b", "tags": {"a": "b"}}],
}


def test_scheduled_maintenance_names_every_instance_and_its_start() -> None:
    heard = parse(event("aws.health", "AWS Health Event", HEALTH))
    starts = int(datetime(2026, 11, 24, 8, 30, tzinfo=UTC).timestamp() * 1000)
    assert [(n.kind, n.instance, n.at_ms) for n in heard.notices] == [
        (Kind.MAINTENANCE, "i-0a", starts),
        (Kind.MAINTENANCE, "i-0b", starts),
    ]
    assert heard.notices[0].detail == (
        "scheduled maintenance AWS_EC2_INSTANCE_STOP_SCHEDULED, until 2026-11-24 10:30 UTC"
    )


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"service": "RDS"}, "no scheduled change of EC2"),
        ({"eventTypeCategory": "accountNotification"}, "no scheduled change of EC2"),
        ({"statusCode": "closed"}, "is over"),
        ({"startTime": "soon"}, "does not say when"),
        ({"affectedEntities": []}, "names no instance"),
        ({"affectedEntities": [7, {"entityValue": None}]}, "names no instance"),
    ],
)
def test_other_health_events_are_none_of_ours(changed: dict[str, Any], why: str) -> None:
    heard = parse(event("aws.health", "AWS Health Event", HEALTH | changed))
    assert heard.notices == ()
    assert why in heard.why


@pytest.mark.parametrize(
    ("kind", "detail", "instance"),
    [
        (
            "EC2 Instance-launch Lifecycle Action",
            {"EC2InstanceId": "i-0a", "LifecycleTransition": "autoscaling:EC2_INSTANCE_LAUNCHING"},
            "i-0a",
        ),
        (
            "EC2 Instance-terminate Lifecycle Action",
            {
                "EC2InstanceId": "i-0a",
                "LifecycleTransition": "autoscaling:EC2_INSTANCE_TERMINATING",
            },
            "i-0a",
        ),
        ("EC2 Instance Launch Unsuccessful", {"StatusCode": "Failed", "EC2InstanceId": ""}, ""),
    ],
)
def test_auto_scaling_is_a_reason_to_look(kind: str, detail: dict[str, Any], instance: str) -> None:
    said = notice(event("aws.autoscaling", kind, detail | {"AutoScalingGroupName": "ides"}))
    assert (said.kind, said.instance) == (Kind.SCALED, instance)
    assert said.detail.startswith("Auto Scaling group ides: ")


TASK = "arn:aws:ecs:eu-central-1:123456789012:task/ides/0a1b"


@pytest.mark.parametrize(
    ("detail", "kind", "at_ms"),
    [
        (
            {"lastStatus": "STOPPED", "desiredStatus": "STOPPED", "stoppedReason": "it exited"},
            Kind.CHANGED,
            AT_MS,
        ),
        (
            {
                "lastStatus": "RUNNING",
                "desiredStatus": "STOPPED",
                "stopCode": "ServiceSchedulerInitiated",
            },
            Kind.CHANGED,
            AT_MS,
        ),
        (
            {"lastStatus": "RUNNING", "desiredStatus": "STOPPED", "stopCode": "SpotInterruption"},
            Kind.SPOT,
            AT_MS + 120_000,
        ),
    ],
)
def test_a_task_that_ends_or_is_about_to(detail: dict[str, Any], kind: Kind, at_ms: int) -> None:
    said = notice(event("aws.ecs", "ECS Task State Change", detail | {"taskArn": TASK}))
    assert (said.kind, said.instance, said.at_ms) == (kind, TASK, at_ms)


def test_a_task_that_goes_on_is_nothing_to_act_on() -> None:
    detail = {"lastStatus": "RUNNING", "desiredStatus": "RUNNING", "taskArn": TASK}
    assert parse(event("aws.ecs", "ECS Task State Change", detail)).notices == ()


def test_what_others_send_is_ignored_with_a_reason() -> None:
    detail = {"instance-id": "i-0a1b"}
    forged = parse(event("my.app", "EC2 Spot Instance Interruption Warning", detail))
    assert (forged.notices, forged.malformed) == ((), False)
    assert "my.app" in forged.why
    assert (
        "no instance" in parse(event("aws.ec2", "EC2 Spot Instance Interruption Warning", {})).why
    )


@pytest.mark.parametrize("body", ["", "{", "[]", "7", "null", '{"detail": 7}', '"x"', "[" * 50_000])
def test_what_is_no_event_is_malformed(body: str) -> None:
    heard = parse(body)
    assert (heard.notices, heard.malformed) == ((), True)
    assert heard.why


@pytest.mark.parametrize(
    "time", [None, 7, "soon", "9999-12-31T23:59:59-12:00", "0001-01-01T00:00:00Z"]
)
def test_without_a_time_the_queues_own_counts(time: object) -> None:
    body = event(
        "aws.ec2", "EC2 Instance Rebalance Recommendation", {"instance-id": "i"}, time=time
    )
    assert parse(body, sent_at_ms=5).notices[0].at_ms == 5


# Anything

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)
FIELDS = [
    "instance-id", "instance-action", "state", "service", "eventTypeCode", "eventTypeCategory", "startTime",
    "endTime", "statusCode", "affectedEntities", "EC2InstanceId", "taskArn", "lastStatus", "desiredStatus",
    "stopCode", "entityValue",
]  # fmt: skip
TYPES = [
    ("aws.ec2", "EC2 Spot Instance Interruption Warning"),
    ("aws.ec2", "EC2 Instance Rebalance Recommendation"),
    ("aws.ec2", "EC2 Instance State-change Notification"),
    ("aws.health", "AWS Health Event"),
    ("aws.autoscaling", "EC2 Instance-terminate Lifecycle Action"),
    ("aws.ecs", "ECS Task State Change"),
]
VALUES = (
    JSON
    | st.sampled_from(["EC2", "scheduledChange", "RUNNING", "STOPPED", "SpotInterruption", "i-0a"])
    | st.datetimes().map(lambda d: d.isoformat())
    | st.lists(st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=2), max_size=3)
)


def sound(heard: Heard) -> None:
    assert bool(heard.notices) != bool(heard.why), "either something to do or a reason"
    for one in heard.notices:
        assert one.at_ms >= 0
        assert len(one.detail) <= 800
        assert one.instance or one.kind is Kind.SCALED


@given(st.binary(max_size=200))
def test_no_bytes_raise(data: bytes) -> None:
    heard = parse(data.decode("latin-1"))
    sound(heard)


@given(JSON)
def test_no_json_raises(value: object) -> None:
    sound(parse(json.dumps(value)))


@given(st.sampled_from(TYPES), st.dictionaries(st.sampled_from(FIELDS), VALUES), VALUES)
def test_no_event_raises_whatever_its_fields_hold(
    of: tuple[str, str], detail: dict[str, Any], time: object
) -> None:
    sound(parse(event(*of, detail, time=time)))
