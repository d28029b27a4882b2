from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from lifecycle.snapshots import SnapshotError
from lifecycle.snapshots.local import LocalTarget
from lifecycle.snapshots.registry import open_target, s3_parts
from lifecycle.snapshots.s3 import S3Target


@pytest.mark.parametrize("form", ["{}", "file://{}", "file://localhost{}", "FILE://{}"])
def test_a_directory_by_path_or_url(form: str, tmp_path: Path) -> None:
    (tmp_path / "a b" / "demo").mkdir(parents=True)
    (tmp_path / "a b" / "demo" / "s1.json").write_text("{")
    path = str(tmp_path / "a b")
    url = form.format(path.replace(" ", "%20") if ":" in form else path)
    target = open_target(url)
    assert isinstance(target, LocalTarget)
    with pytest.raises(SnapshotError) as caught:
        target.manifest("demo", "s1")
    assert caught.value.code == "corrupt"  # it found the one in that directory


def test_opening_touches_nothing(tmp_path: Path) -> None:
    open_target(str(tmp_path / "later"))
    assert list(tmp_path.iterdir()) == []


def test_a_relative_path_is_of_the_directory_at_opening(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "kept" / "demo").mkdir(parents=True)
    (tmp_path / "kept" / "demo" / "s1.json").write_text("{")
    monkeypatch.chdir(tmp_path)
    target = open_target("kept")
    monkeypatch.chdir("/")
    with pytest.raises(SnapshotError, match="cannot be trusted"):
        target.manifest("demo", "s1")


@pytest.mark.parametrize("url", ["", "gs://x", "file://host/x", "file://", "file:///x?y", "a\0b"])
def test_others_are_refused_with_what_is_supported(url: str) -> None:
    with pytest.raises(SnapshotError, match="supported are a directory's path, file:") as caught:
        open_target(url)
    assert caught.value.code == "unreachable"


def test_a_bucket_with_its_prefix_key_and_region() -> None:
    assert s3_parts("s3://b-1.x/a/b/?kms=arn:aws:kms:eu:1:key/2&region=eu-west-1") == (
        "b-1.x",
        "a/b",
        "arn:aws:kms:eu:1:key/2",
        "eu-west-1",
    )
    assert s3_parts("s3://bucket") == ("bucket", "", "", "")
    assert isinstance(open_target("s3://bucket/prefix"), S3Target)


@pytest.mark.parametrize(
    "url",
    ["s3://", "s3:///x", "s3://a@b/x", "s3://bucket:80", "s3://bucket/a b", "s3://bucket/a//b", "s3://bucket/..", "s3://bucket?a", "s3://bucket?kms=k&x=y", "s3://bucket/#a"],
)  # fmt: skip
def test_what_is_no_bucket_is_refused_with_the_form(url: str) -> None:
    with pytest.raises(SnapshotError, match="--snapshots must be s3://BUCKET") as caught:
        open_target(url)
    assert caught.value.code == "unreachable"


def test_a_target_is_imported_when_it_is_opened() -> None:
    code = "import sys, lifecycle.snapshots.registry as r; print('lifecycle.snapshots.local' in sys.modules or 'lifecycle.snapshots.s3' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"
