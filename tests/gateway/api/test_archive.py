"""A workspace's files for its person to take away."""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest

from lifecycle.model import WorkspaceStatus as W
from lifecycle.snapshots import SnapshotError


async def test_it_comes_as_a_file_with_a_name(alone: Any) -> None:
    workspace = await alone.bring("ada", W.TERMINATED, name="my thesis / ü")
    path = f"/api/workspaces/{workspace.id}/download"
    answer = await alone.call("GET", path, user="ada")
    assert (answer.status, answer.text) == (200, "one two")
    assert answer.headers["Content-Type"] == "application/gzip"
    disposition = 'attachment; filename="my-thesis-2023-11-14-2213.tar.gz"'
    assert answer.headers["Content-Disposition"] == disposition
    assert answer.headers["Last-Modified"] == "Tue, 14 Nov 2023 22:13:20 GMT"
    head = await alone.call("HEAD", path, user="ada")
    assert (head.status, head.text) == (200, "")


async def test_without_a_snapshot_it_says_how_to_get_one(alone: Any) -> None:
    workspace = await alone.bring("ada", W.STOPPED)
    answer = await alone.call("GET", f"/api/workspaces/{workspace.id}/download", user="ada")
    assert answer.refusal == (404, "not_found")
    assert "/snapshot" in answer.error["message"]


async def test_one_that_cannot_be_read_is_said(alone: Any) -> None:
    workspace = await alone.bring("ada", W.TERMINATED)
    alone.fails = SnapshotError("unreachable", "the bucket does not answer")
    answer = await alone.call("GET", f"/api/workspaces/{workspace.id}/download", user="ada")
    assert answer.refusal == (503, "snapshot_unreachable")


async def test_one_that_breaks_off_looks_broken(alone: Any) -> None:
    workspace = await alone.bring("ada", W.TERMINATED)
    alone.breaks = OSError("the disk went away")
    with pytest.raises(aiohttp.ClientPayloadError):
        await alone.call("GET", f"/api/workspaces/{workspace.id}/download", user="ada")
