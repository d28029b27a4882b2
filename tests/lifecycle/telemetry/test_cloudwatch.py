from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from lifecycle.aws import Clients
from lifecycle.telemetry import Datum, SinkError, cloudwatch
from lifecycle.telemetry.cloudwatch import BYTES_MAX, CloudWatch, batches, rows

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
NOW_MS = int(NOW.timestamp() * 1000)


@pytest.fixture
async def sink(aws: Any) -> AsyncIterator[CloudWatch]:
    clients = Clients()
    yield CloudWatch("IdeGateway", "blue", clients)
    await clients.close()


def datum(name: str, *values: float, status: str = "", unit: str = "Count") -> Datum:
    return Datum(name, unit, values, NOW_MS, status)


def statistics(aws: Any, name: str, **dimensions: str) -> dict[str, Any]:
    points = aws.client("cloudwatch").get_metric_statistics(
        Namespace="IdeGateway", MetricName=name, Period=60,
        StartTime=NOW - timedelta(minutes=1), EndTime=NOW + timedelta(minutes=1),
        Statistics=["Sum", "Minimum", "Maximum", "SampleCount"],
        Dimensions=[{"Name": key, "Value": value} for key, value in dimensions.items()],
    )["Datapoints"]  # fmt: skip
    assert len(points) == 1
    return dict(points[0])


async def test_what_was_sent_can_be_asked_for(aws: Any, sink: CloudWatch) -> None:
    await sink.check()
    assert aws.calls == []
    await sink.put(
        [
            datum("Sessions", 7),
            datum("Machines", 2, status="ready"),
            datum("Machines", 1, status="lost"),
            datum("BootTime", 2.5, 9.5, 2.5, unit="Seconds"),
        ]
    )
    assert statistics(aws, "Sessions", Fleet="blue")["Sum"] == 7
    assert statistics(aws, "Machines", Fleet="blue", Status="ready")["Sum"] == 2
    assert statistics(aws, "Machines", Fleet="blue", Status="lost")["Sum"] == 1
    boots = statistics(aws, "BootTime", Fleet="blue")
    assert (boots["SampleCount"], boots["Minimum"], boots["Maximum"]) == (3, 2.5, 9.5)
    assert (boots["Sum"], boots["Unit"]) == (14.5, "Seconds")
    assert [call.action for call in aws.calls] == ["PutMetricData"]


def test_many_go_in_batches_of_what_a_call_takes() -> None:
    many = [datum(f"Figure{n}", n) for n in range(2_500)]
    assert [len(batch) for batch in batches(rows(many, "blue"))] == [1000, 1000, 500]


async def test_a_lost_answer_is_asked_again(aws: Any, sink: CloudWatch) -> None:
    with aws.fault("cloudwatch", drop_request=True, times=1) as lost:
        await sink.put([datum("Sessions", 7)])
    assert lost.hits == 1
    assert statistics(aws, "Sessions", Fleet="blue")["Sum"] == 7


async def test_a_batch_that_fails_takes_no_other_with_it(
    aws: Any, sink: CloudWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cloudwatch, "DATA_MAX", 10)  # moto takes 10 s to read 1,000
    aws.fault("cloudwatch", error=("AccessDenied", 403), times=1)
    with pytest.raises(SinkError, match=r"role may not do this.*\(10 figures lost\)"):
        await sink.put([datum(f"Figure{n}", n) for n in range(25)])
    assert [call.action for call in aws.calls] == ["PutMetricData"] * 3
    assert statistics(aws, "Figure21", Fleet="blue")["Sum"] == 21


def test_equal_values_are_told_once_and_no_more_than_150_at_a_time() -> None:
    told = list(rows([datum("BootTime", *[float(n % 400) for n in range(800)])], "blue"))
    assert [len(row["Values"]) for row in told] == [150, 150, 100]
    assert sum(count for row in told for count in row["Counts"]) == 800
    assert {row["StorageResolution"] for row in told} == {60}


def test_a_call_stays_below_what_cloudwatch_takes() -> None:
    many = [datum("B" * 200, *[n + 0.123456789 for n in range(150)]) for _ in range(999)]
    found = list(batches(rows(many, "blue")))
    assert len(found) > 1
    assert sum(map(len, found)) == 999
    assert all(len(str(batch)) < BYTES_MAX for batch in found)


@pytest.mark.parametrize("namespace", ["AWS/EC2", ""])
async def test_a_namespace_of_awss_own_is_refused_at_start(aws: Any, namespace: str) -> None:
    clients = Clients()
    with pytest.raises(SinkError, match="--cloudwatch-namespace"):
        await CloudWatch(namespace, "blue", clients).check()
    await clients.close()
