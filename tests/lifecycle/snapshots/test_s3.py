from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from lifecycle.agent.contract import Manifest
from lifecycle.snapshots import SnapshotError
from lifecycle.snapshots.manifests import dump
from lifecycle.snapshots.s3 import S3Target, measure

Packed = Callable[..., tuple[Manifest, Path]]
PART = 5 * 2**20  # S3's least, but for the last one
KEY = "arn:aws:kms:eu-central-1:123456789012:key/1"


@pytest.fixture
def bucket(aws: Any) -> str:
    where = {"LocationConstraint": aws.region}
    aws.client("s3").create_bucket(Bucket="bucket", CreateBucketConfiguration=where)
    return "bucket"


@pytest.fixture
def target(bucket: str, s3_target: Callable[..., S3Target]) -> S3Target:
    return s3_target(bucket, "prefix", part=PART)


@pytest.fixture(scope="module")
def noise() -> bytes:
    """Three parts of it: what is random does not compress."""
    return random.Random(1).randbytes(2 * PART + 1000)


def names(aws: Any) -> list[str]:
    listed = aws.client("s3").list_objects_v2(Bucket="bucket").get("Contents", [])
    return sorted(entry["Key"] for entry in listed)


def unfinished(aws: Any) -> list[Any]:
    return aws.client("s3").list_multipart_uploads(Bucket="bucket").get("Uploads", [])


def actions(aws: Any) -> list[str]:
    return [call.action for call in aws.calls]


def error_of(call: Callable[[], object]) -> SnapshotError:
    with pytest.raises(SnapshotError) as caught:
        call()
    return caught.value


BOTH = ["prefix/demo/s1.json", "prefix/demo/s1.tar.zst"]


def test_a_large_archive_goes_up_and_comes_back_in_parts(
    aws: Any, target: S3Target, packed: Packed, noise: bytes, tmp_path: Path
) -> None:
    manifest, archive = packed("s1", content=noise)
    target.put(manifest, archive)
    assert actions(aws).count("UploadPart") == 3
    assert actions(aws).count("CompleteMultipartUpload") == 1
    aws.calls.clear()
    target.fetch(manifest, tmp_path / "fetched")
    assert (tmp_path / "fetched").read_bytes() == archive.read_bytes()
    assert actions(aws) == ["GetObject"] * 3


def test_the_manifest_is_written_last_and_only_where_there_is_none(
    aws: Any, target: S3Target, packed: Packed
) -> None:
    target.put(*packed("s1"))
    assert actions(aws)[-3:] == ["PutObject", "HeadObject", "PutObject"]
    assert aws.calls[-1].path.endswith("s1.json")
    assert aws.calls[-1].headers["if-none-match"] == "*"
    assert aws.calls[-3].headers["if-none-match"] == "*"


def test_everything_is_encrypted_and_tagged(
    aws: Any, bucket: str, packed: Packed, noise: bytes, s3_target: Callable[..., S3Target]
) -> None:
    s3_target(bucket, "own", part=PART).put(*packed("s1"))
    keyed = s3_target(bucket, "key", part=PART, kms_key=KEY)
    keyed.put(*packed("s1"))
    assert keyed.list("demo") == ["s1"]
    s3_target(bucket, "many", part=PART, kms_key=KEY).put(*packed("s2", content=noise))
    s3 = aws.client("s3")
    seen = {}
    for key in names(aws):
        head = s3.head_object(Bucket=bucket, Key=key)
        tags = s3.get_object_tagging(Bucket=bucket, Key=key)["TagSet"]
        kind = {tag["Key"]: tag["Value"] for tag in tags}
        assert kind["ide-gateway:workspace"] == "demo"
        seen[key] = (
            head["ServerSideEncryption"],
            head.get("SSEKMSKeyId"),
            kind["ide-gateway:kind"],
        )
    assert seen == {
        "own/demo/s1.json": ("AES256", None, "manifest"),
        "own/demo/s1.tar.zst": ("AES256", None, "archive"),
        "key/demo/s1.json": ("aws:kms", KEY, "manifest"),
        "key/demo/s1.tar.zst": ("aws:kms", KEY, "archive"),
        "many/demo/s2.json": ("aws:kms", KEY, "manifest"),
        "many/demo/s2.tar.zst": ("aws:kms", KEY, "archive"),
    }


@pytest.mark.parametrize(
    "action",
    ["CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload", "HeadObject", "PutObject"],
)
def test_a_lost_answer_changes_nothing(
    aws: Any, target: S3Target, packed: Packed, noise: bytes, tmp_path: Path, action: str
) -> None:
    manifest, archive = packed("s1", content=noise)
    with aws.fault("s3", action, drop_reply=True, times=1) as fault:
        target.put(manifest, archive)
    assert fault.hits == 1
    assert names(aws) == BOTH
    target.fetch(manifest, tmp_path / "fetched")
    assert target.manifest("demo", "s1") == manifest


def test_a_small_archive_whose_answer_was_lost(
    aws: Any, target: S3Target, packed: Packed, tmp_path: Path
) -> None:
    """The repeat finds it there already: it is looked at, and is ours."""
    manifest, archive = packed("s1")
    with aws.fault("s3", "PutObject", drop_reply=True, times=1):
        target.put(manifest, archive)
    assert [call.status for call in aws.calls if call.action == "PutObject"] == [200, 412, 200]
    target.fetch(manifest, tmp_path / "fetched")


def test_put_again_after_the_answer_was_lost_touches_nothing(
    aws: Any, target: S3Target, packed: Packed
) -> None:
    manifest, archive = packed("s1")
    target.put(manifest, archive)
    aws.calls.clear()
    target.put(manifest, archive)
    assert actions(aws) == ["GetObject", "HeadObject"]


@pytest.mark.parametrize(
    "action",
    ["CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload", "HeadObject", "PutObject"],
)
def test_s3_down_at_any_step_commits_nothing(
    aws: Any, target: S3Target, packed: Packed, noise: bytes, action: str
) -> None:
    before = packed("s0")
    target.put(*before)
    with aws.fault("s3", action, error=("AccessDenied", 403)):
        error = error_of(lambda: target.put(*packed("s1", content=noise)))
    assert error.code == "unreachable"
    assert "s3://bucket/prefix/demo/s1.tar.zst" in str(error)
    assert "deploy/iam" in str(error) or action == "HeadObject"  # HEAD is refused without words
    assert target.list("demo") == ["s0"]
    assert target.manifest("demo", "s0") == before[0]
    assert error_of(lambda: target.manifest("demo", "s1")).code == "not_found"
    assert unfinished(aws) == []


def test_s3_away_is_said(aws: Any, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setattr("lifecycle.aws.ATTEMPTS", 2)
    error = error_of(lambda: S3Target(bucket).list("demo"))
    assert error.code == "unreachable"
    assert "cannot list s3://bucket/demo/: AWS does not answer" in str(error)


def test_throttled_calls_are_made_again(
    aws: Any, target: S3Target, packed: Packed, tmp_path: Path
) -> None:
    manifest, archive = packed("s1")
    with aws.fault("s3", share=0.3, seed=1, error=("SlowDown", 503)) as fault:
        target.put(manifest, archive)
        target.fetch(manifest, tmp_path / "fetched")
        calls = len(aws.calls)
    assert fault.hits >= 2
    assert calls <= 2 * (calls - fault.hits)
    assert names(aws) == BOTH


def test_a_body_that_breaks_off_is_asked_for_again(
    aws: Any, target: S3Target, packed: Packed, noise: bytes, tmp_path: Path
) -> None:
    manifest, archive = packed("s1", content=noise)
    target.put(manifest, archive)
    with aws.fault("s3", "GetObject", drop_reply=True, times=2) as fault:
        target.fetch(manifest, tmp_path / "fetched")
    assert fault.hits == 2


@pytest.mark.parametrize("size", [10, 2 * PART + 500], ids=["small", "parts"])
def test_what_s3_changed_is_not_committed(
    aws: Any, target: S3Target, packed: Packed, size: int
) -> None:
    def change(call: Any) -> None:
        key = unquote(call.path).removeprefix("/bucket/")
        body = aws.client("s3").get_object(Bucket="bucket", Key=key)["Body"].read()
        changed = body[:-1] + bytes([body[-1] ^ 1])
        aws.client("s3").put_object(
            Bucket="bucket", Key=key, Body=changed, ChecksumAlgorithm="SHA256"
        )

    with aws.fault("s3", "HeadObject", before=change):
        error = error_of(
            lambda: target.put(*packed("s1", content=random.Random(3).randbytes(size)))
        )
    assert error.code == "corrupt"
    assert target.list("demo") == []


def test_one_of_two_writers_commits(aws: Any, target: S3Target, packed: Packed) -> None:
    """The other one's manifest appears at the last moment: it stands, and this put says so."""
    manifest, archive = packed("s1")
    other = dataclasses.replace(manifest, epoch=9)

    def commit(_: object) -> None:
        aws.client("s3").put_object(Bucket="bucket", Key="prefix/demo/s1.json", Body=dump(other))

    with aws.fault("s3", "PutObject", before=commit, when=lambda call: "json" in call.path):
        error = error_of(lambda: target.put(manifest, archive))
    assert error.code == "corrupt"
    assert "committed another" in str(error)
    assert target.manifest("demo", "s1") == other


def test_a_flipped_byte_of_a_part_is_found(
    aws: Any, target: S3Target, packed: Packed, noise: bytes, tmp_path: Path
) -> None:
    manifest, archive = packed("s1", content=noise)
    target.put(manifest, archive)
    body = bytearray(archive.read_bytes())
    body[PART + 7] ^= 4
    aws.client("s3").put_object(Bucket="bucket", Key=BOTH[1], Body=bytes(body))
    assert error_of(lambda: target.fetch(manifest, tmp_path / "x")).code == "corrupt"
    assert not (tmp_path / "x").exists()


def test_lists_more_than_a_page(aws: Any, target: S3Target, packed: Packed) -> None:
    manifest, _ = packed("s")
    for number in range(25):
        one = dataclasses.replace(
            manifest,
            snapshot_id=f"s{number}",
            archive=f"s{number}.tar.zst",
            created_at_ms=number,
        )
        aws.client("s3").put_object(
            Bucket="bucket", Key=f"prefix/demo/s{number}.json", Body=dump(one)
        )

    def short(call: Any) -> None:
        call.query += "&max-keys=10"

    with aws.fault("s3", "ListObjectsV2", before=short):
        assert target.list("demo") == [f"s{number}" for number in range(25)]
    assert actions(aws).count("ListObjectsV2") == 3


def test_parts_grow_where_there_would_be_too_many(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 25_000)
    parts = measure(tmp_path / "a", 1)
    assert parts.part == 3
    assert len(parts.hashes) == 8334


def test_what_the_disk_refuses_is_said_of_the_disk(target: S3Target, packed: Packed) -> None:
    manifest, archive = packed("s1")
    target.put(manifest, archive)
    error = error_of(lambda: target.fetch(manifest, Path("/proc/none/x")))
    assert error.code == "unreachable"
    assert "/proc/none" in str(error)


def test_check_finds_the_bucket(aws: Any, bucket: str) -> None:
    S3Target(bucket).check()
    S3Target(bucket, region="eu-central-1").check()
    assert actions(aws) == ["HeadBucket", "HeadBucket"]


def test_check_says_that_the_bucket_is_missing(aws: Any) -> None:
    error = error_of(S3Target("nowhere").check)
    assert error.code == "unreachable"
    assert "cannot use the bucket nowhere: there is no such bucket: create it" in str(error)


def test_check_says_that_the_credentials_are_wrong(aws: Any, bucket: str) -> None:
    with aws.role("nobody"):
        assert "the credentials are wrong" in str(error_of(S3Target(bucket).check))


def test_check_says_that_the_region_is_wrong(aws: Any, bucket: str) -> None:
    error = error_of(S3Target(bucket, region="us-west-2").check)
    assert "is in eu-central-1, not in us-west-2: take one there" in str(error)


def test_check_says_that_the_role_may_not(aws: Any, bucket: str) -> None:
    with aws.fault("s3", error=("AccessDenied", 403)):
        assert "compare it with deploy/iam" in str(error_of(S3Target(bucket).check))
