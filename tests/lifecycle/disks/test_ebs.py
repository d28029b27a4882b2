"""Volumes against moto's server: made once, found again, taken along, snapshotted, whatever is lost on the way."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from lifecycle.aws import Clients
from lifecycle.disks import DiskError, DiskGone, Elsewhere, ebs
from lifecycle.disks.ebs import EbsDisks
from lifecycle.model import WorkspaceStatus
from tests.lifecycle.fakes import workspace

ZONE = "eu-central-1a"
ONE = workspace("w1", WorkspaceStatus.QUEUED, epoch=3, status_since_ms=7)


@pytest.fixture
async def disks(aws: Any, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[EbsDisks]:
    monkeypatch.setattr(ebs, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(ebs, "PATIENCE", 5.0)
    clients = Clients()
    yield EbsDisks(clients, "fleet", 10)
    await clients.close()


def launch(aws: Any, count: int = 1) -> list[str]:
    ec2 = aws.client("ec2")
    image = ec2.register_image(Name="image", RootDeviceName="/dev/sda1")["ImageId"]
    made = ec2.run_instances(ImageId=image, MinCount=count, MaxCount=count)
    return [each["InstanceId"] for each in made["Instances"]]


def volumes(aws: Any) -> list[dict[str, Any]]:
    wanted = [{"Name": "tag:ide-gateway:workspace", "Values": ["w1"]}]
    return list(aws.client("ec2").describe_volumes(Filters=wanted)["Volumes"])


def calls(aws: Any, action: str) -> int:
    return sum(call.action == action for call in aws.calls)


async def test_a_volume_is_made_once_and_found_again(disks: EbsDisks, aws: Any) -> None:
    made = await disks.ensure(ONE, ZONE)
    assert (made.zone, made.epoch, made.state) == (ZONE, 4, "available")
    assert await disks.ensure(ONE, "eu-central-1b") == made, (
        "where it is, not where it was asked for"
    )
    assert await disks.ensure(replace(ONE, volume=made.id), ZONE) == made
    (row,) = volumes(aws)
    assert (row["Size"], row["VolumeType"], row["Encrypted"]) == (10, "gp3", True)
    tags = {tag["Key"]: tag["Value"] for tag in row["Tags"]}
    assert tags["ide-gateway:fleet"] == "fleet"


async def test_a_lost_answer_to_making_one_makes_no_second(disks: EbsDisks, aws: Any) -> None:
    with aws.fault("ec2", "CreateVolume", drop_reply=True, times=2):
        made = await disks.ensure(ONE, ZONE)
    assert [row["VolumeId"] for row in volumes(aws)] == [made.id]
    assert calls(aws, "CreateVolume") == 3


async def test_another_zone_after_a_lost_answer_finds_the_first(disks: EbsDisks, aws: Any) -> None:
    """Every answer is lost, the leader dies, and the descriptions of the next one are old."""
    first = await disks.ensure(ONE, ZONE)
    empty = b"<DescribeVolumesResponse><volumeSet/></DescribeVolumesResponse>"
    with aws.fault("ec2", "DescribeVolumes", answer=lambda call, reply: empty, times=2):
        assert await disks.ensure(ONE, "eu-central-1b") == first
    assert len(volumes(aws)) == 1


async def test_of_two_the_records_one_is_taken(disks: EbsDisks, aws: Any) -> None:
    first = await disks.ensure(ONE, ZONE)
    aws.client("ec2").create_volume(
        AvailabilityZone=ZONE,
        Size=1,
        TagSpecifications=[
            {
                "ResourceType": "volume",
                "Tags": [
                    {"Key": "ide-gateway:fleet", "Value": "fleet"},
                    {"Key": "ide-gateway:workspace", "Value": "w1"},
                    {"Key": "ide-gateway:epoch", "Value": "9"},
                ],
            }
        ],
    )
    assert await disks.ensure(replace(ONE, volume=first.id), ZONE) == first
    assert (await disks.ensure(ONE, ZONE)).epoch == 9, "without a record the newest"


async def test_a_volume_that_was_deleted_by_somebody_is_not_replaced_unasked(
    disks: EbsDisks, aws: Any
) -> None:
    made = await disks.ensure(ONE, ZONE)
    aws.client("ec2").delete_volume(VolumeId=made.id)
    with pytest.raises(DiskGone, match=f"{made.id} of workspace w1 is gone"):
        await disks.ensure(replace(ONE, volume=made.id), ZONE)


async def test_attaching_is_repeated_without_harm(disks: EbsDisks, aws: Any) -> None:
    (instance,) = launch(aws)
    made = await disks.ensure(ONE, ZONE)
    device = await disks.attach(made.id, instance)
    assert device.startswith("/dev/sd")
    assert await disks.attach(made.id, instance) == device
    assert calls(aws, "AttachVolume") == 1


async def test_throttled_and_lost_attachments_come_through(disks: EbsDisks, aws: Any) -> None:
    (instance,) = launch(aws)
    made = await disks.ensure(ONE, ZONE)
    throttled = aws.fault("ec2", "AttachVolume", error=("RequestLimitExceeded", 503), times=1)
    with throttled, aws.fault("ec2", "AttachVolume", drop_reply=True, times=1):
        await disks.attach(made.id, instance)
    assert volumes(aws)[0]["Attachments"][0]["InstanceId"] == instance


async def test_where_something_may_still_write_it_is_not_taken_away(
    disks: EbsDisks, aws: Any
) -> None:
    old, new = launch(aws, 2)
    made = await disks.ensure(ONE, ZONE)
    await disks.attach(made.id, old)
    with pytest.raises(Elsewhere, match=f"attached to {old}, which is running") as elsewhere:
        await disks.attach(made.id, new)
    assert elsewhere.value.instance == old
    with pytest.raises(DiskError, match="may write to it"):
        await disks.detach(made.id)
    await disks.detach(made.id, old, idle=True)
    await disks.detach(made.id, old, idle=True)
    await disks.attach(made.id, new)
    await disks.detach(made.id, old, idle=True)
    assert volumes(aws)[0]["Attachments"][0]["InstanceId"] == new, "a late call takes nothing away"


async def test_from_an_instance_that_is_down_it_is_taken(disks: EbsDisks, aws: Any) -> None:
    old, new = launch(aws, 2)
    made = await disks.ensure(ONE, ZONE)
    await disks.attach(made.id, old)
    aws.client("ec2").stop_instances(InstanceIds=[old])
    await disks.attach(made.id, new)
    assert volumes(aws)[0]["Attachments"][0]["InstanceId"] == new
    forced = [
        c.action for c in aws.calls if c.action == "DetachVolume" and "Force=true" in str(c.body)
    ]
    assert forced == []


async def test_a_snapshot_is_made_once_for_each_attempt(disks: EbsDisks, aws: Any) -> None:
    made = await disks.ensure(ONE, ZONE)
    one = replace(ONE, volume=made.id)
    first = await disks.snapshot(one, "00000003-7")
    assert (first.volume, first.epoch, first.complete) == (made.id, 3, True)
    assert first.id.startswith("ebs:snap-")
    assert await disks.snapshot(one, "00000003-7") == first
    second = await disks.snapshot(one, "00000003-8")
    assert [each.id for each in await disks.snapshots("w1")] == [first.id, second.id]


async def test_a_snapshot_whose_answer_was_lost_is_found(disks: EbsDisks, aws: Any) -> None:
    made = await disks.ensure(ONE, ZONE)
    one = replace(ONE, volume=made.id)
    with aws.fault("ec2", "CreateSnapshot", drop_reply=True, times=1):
        first = await disks.snapshot(one, "00000003-7")
    there = await disks.snapshots("w1")
    assert first in there
    assert {each.key for each in there} == {"00000003-7"}, (
        "boot asked twice: both are found by the key"
    )
    assert await disks.snapshot(one, "00000003-7") in there
    assert len(await disks.snapshots("w1")) == len(there)


async def test_it_comes_back_from_its_snapshot_in_another_zone(disks: EbsDisks, aws: Any) -> None:
    made = await disks.ensure(ONE, ZONE)
    kept = await disks.snapshot(replace(ONE, volume=made.id), "00000003-7")
    ended = replace(ONE, snapshot_id=kept.id, epoch=4)
    again = await disks.ensure(ended, "eu-central-1b", kept.id)
    assert (again.id != made.id, again.zone) == (True, "eu-central-1b"), (
        "what was given up stays so"
    )
    (row,) = [row for row in volumes(aws) if row["VolumeId"] == again.id]
    assert row["SnapshotId"] == kept.id.removeprefix("ebs:")
    for _ in range(2):
        await disks.remove(made.id)
        await disks.remove(kept.id)
    assert [v.id for v in await disks.volumes()] == [again.id]


async def test_what_is_attached_is_not_deleted(disks: EbsDisks, aws: Any) -> None:
    (instance,) = launch(aws)
    made = await disks.ensure(ONE, ZONE)
    await disks.attach(made.id, instance)
    with pytest.raises(DiskError, match=f"cannot delete {made.id}"):
        await disks.remove(made.id)
    assert volumes(aws)


async def test_errors_are_told_in_words(disks: EbsDisks, aws: Any) -> None:
    refused = aws.fault("ec2", "CreateVolume", error=("UnauthorizedOperation", 403))
    with refused, pytest.raises(DiskError, match=r"make a volume for workspace w1.*deploy/iam"):
        await disks.ensure(ONE, ZONE)
    with pytest.raises(DiskError, match="does not say in which availability zone"):
        await disks.ensure(ONE, "")
