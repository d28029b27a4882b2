"""The alarms in deploy/ watch figures that are really sent, and CloudWatch takes them as they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lifecycle.aws import Clients
from lifecycle.telemetry.cloudwatch import CloudWatch, rows
from lifecycle.telemetry.figures import Facts, Happened, measure

ALARMS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[3] / "deploy" / "alarms.json").read_text()
)
QUIET = measure(Facts({}, (), {}, 0, (), 4, Happened()), 0)
by_name = pytest.mark.parametrize("alarm", ALARMS, ids=lambda alarm: alarm["AlarmName"])


def test_cloudwatch_takes_them(aws: Any) -> None:
    cloudwatch = aws.client("cloudwatch")
    for alarm in ALARMS:
        cloudwatch.put_metric_alarm(**alarm)
    found = cloudwatch.describe_alarms()["MetricAlarms"]
    assert {each["AlarmName"] for each in found} == {
        "ide-gateway-queue-wait",
        "ide-gateway-failed-boots",
        "ide-gateway-lost-machines",
        "ide-gateway-no-leader",
        "ide-gateway-at-max-machines",
        "ide-gateway-idle-stop-flood",
    }
    kept = {each["AlarmName"]: each for each in found}
    for alarm in ALARMS:
        assert kept[alarm["AlarmName"]].items() >= alarm.items()


@by_name
def test_each_watches_a_figure_that_is_sent(alarm: dict[str, Any]) -> None:
    """By name, dimensions and unit: CloudWatch takes a figure that differs in one of them for another."""
    sent = {
        row["MetricName"]: (row["Dimensions"], row["Unit"]) for row in rows(QUIET, "ide-gateway")
    }
    assert sent[alarm["MetricName"]] == (alarm["Dimensions"], alarm["Unit"])


@by_name
def test_each_says_what_to_look_at(alarm: dict[str, Any]) -> None:
    assert "Look" in alarm["AlarmDescription"] or "look" in alarm["AlarmDescription"]
    assert len(alarm["AlarmDescription"]) <= 1024
    assert alarm["DatapointsToAlarm"] <= alarm["EvaluationPeriods"]
    assert alarm["Period"] % 60 == 0


def test_only_silence_of_the_leader_is_an_alarm_by_itself() -> None:
    silent = [a["AlarmName"] for a in ALARMS if a["TreatMissingData"] == "breaching"]
    assert silent == ["ide-gateway-no-leader"]


async def test_a_quiet_fleet_sets_none_off(aws: Any) -> None:
    """What a leader sends when nothing happens is on the good side of every threshold."""
    clients = Clients()
    await CloudWatch("IdeGateway", "ide-gateway", clients).put(QUIET)
    await clients.close()
    metrics = aws.client("cloudwatch").list_metrics(Namespace="IdeGateway")["Metrics"]
    assert {alarm["MetricName"] for alarm in ALARMS} <= {each["MetricName"] for each in metrics}
    values = {datum.name: datum.values[0] for datum in QUIET}
    for alarm in ALARMS:
        value = 1.0 if alarm["Statistic"] == "SampleCount" else values[alarm["MetricName"]]
        bad = {
            "GreaterThanThreshold": value > alarm["Threshold"],
            "GreaterThanOrEqualToThreshold": value >= alarm["Threshold"],
            "LessThanThreshold": value < alarm["Threshold"],
        }
        assert not bad[alarm["ComparisonOperator"]], alarm["AlarmName"]
