"""Calls about one workspace, in every status that matters, on both stores."""

from __future__ import annotations

from typing import Any

import pytest

from lifecycle.model import WorkspaceStatus as W
from lifecycle.snapshots import SnapshotError
from lifecycle.stores import Conflict

DAY = 86_400_000


async def test_one_workspace(world: Any) -> None:
    workspace = await world.bring("ada", W.RUNNING, "Thesis")
    shown = (await world.call("GET", f"/api/workspaces/{workspace.id}")).json
    assert shown["workspaceId"] == workspace.id
    assert shown["instanceId"] == "m-1"
    assert shown["createdAt"] <= shown["statusSince"] <= shown["lastActiveAt"]
    assert shown["stopsAt"] == shown["lastActiveAt"] + 3_600_000
    assert shown["aliveBecause"].startswith("boot, ")
    assert (shown["step"], shown["reason"], shown["snapshotId"]) == (None, None, None)


async def test_a_failed_one_says_why(world: Any) -> None:
    workspace = await world.bring("ada", W.FAILED)
    shown = (await world.call("GET", f"/api/workspaces/{workspace.id}")).json
    assert shown["error"] == {"code": "boot_failed", "message": "the IDE exited at once"}
    assert shown["stopsAt"] is None


async def test_lists_filter_by_user_and_status(world: Any) -> None:
    running = await world.bring("ada", W.RUNNING)
    stopped = await world.bring("ada", W.STOPPED, "b")
    other = await world.bring("bob", W.RUNNING)

    async def ids(query: str, user: str = "admin") -> set[str]:
        answer = await world.call("GET", f"/api/workspaces{query}", user=user)
        assert answer.status == 200
        return {row["workspaceId"] for row in answer.json}

    assert await ids("") == {running.id, stopped.id, other.id}
    assert await ids("?userId=ada") == {running.id, stopped.id}
    assert await ids("?status=running") == {running.id, other.id}
    assert await ids("?userId=ada&status=running") == {running.id}
    assert await ids("?userId=&status=") == {running.id, stopped.id, other.id}
    assert await ids("?userId=nobody") == set()
    assert await ids("", user="ada") == {running.id, stopped.id}
    assert await ids("?status=stopped", user="ada") == {stopped.id}
    assert await ids("?userId=bob", user="ada") == set()


async def test_newest_first(world: Any, until: Any) -> None:
    old = await world.bring("ada", W.STOPPED, "old")

    async def later() -> bool:
        return bool(await world.store.now_ms() > old.created_at_ms)

    await until(later)
    new = await world.bring("ada", W.STOPPED, "new")
    rows = (await world.call("GET", "/api/workspaces")).json
    assert [row["workspaceId"] for row in rows] == [new.id, old.id]


@pytest.mark.parametrize(
    ("status", "code", "then"),
    [
        (W.STOPPED, 202, "queued"),
        (W.FAILED, 202, "queued"),
        (W.TERMINATED, 202, "queued"),
        (W.QUEUED, 202, "queued"),
        (W.STARTING, 202, "starting"),
        (W.RUNNING, 200, "running"),
        (W.STOPPING, 202, "stopping"),
        (W.TERMINATING, 202, "terminating"),
    ],
)
async def test_start(world: Any, status: W, code: int, then: str) -> None:
    workspace = await world.bring("ada", status)
    answer = await world.call("POST", f"/api/workspaces/{workspace.id}/start", {}, user="ada")
    assert (answer.status, answer.json["status"]) == (code, then)


@pytest.mark.parametrize(
    ("status", "code", "then"),
    [
        (W.RUNNING, 202, "stopping"),
        (W.STARTING, 202, "stopping"),
        (W.STOPPING, 202, "stopping"),
        (W.QUEUED, 200, "stopped"),
        (W.STOPPED, 200, "stopped"),
        (W.FAILED, 200, "failed"),
        (W.TERMINATED, 200, "terminated"),
    ],
)
async def test_stop(world: Any, status: W, code: int, then: str) -> None:
    workspace = await world.bring("ada", status)
    answer = await world.call("POST", f"/api/workspaces/{workspace.id}/stop", user="ada")
    assert (answer.status, answer.json["status"]) == (code, then)
    if status is not W(then):
        assert answer.json["reason"] == "requested"


@pytest.mark.parametrize(
    ("status", "then"),
    [
        (W.RUNNING, "stopping"),
        (W.STOPPED, "terminating"),
        (W.FAILED, "terminating"),
        (W.QUEUED, "terminating"),
        (W.TERMINATED, "terminated"),
    ],
)
async def test_delete_terminates(world: Any, status: W, then: str) -> None:
    workspace = await world.bring("ada", status)
    answer = await world.call("DELETE", f"/api/workspaces/{workspace.id}", user="ada")
    assert (answer.status, answer.json["status"]) == (202, then)
    if status is W.RUNNING:
        assert (await world.store.get(workspace.id)).next == "terminate"
    assert world.purged == []


async def test_purge_forgets_a_terminated_one(world: Any) -> None:
    workspace = await world.bring("ada", W.TERMINATED)
    path = f"/api/workspaces/{workspace.id}"
    answer = await world.call("DELETE", f"{path}?purge=true", user="ada")
    assert (answer.status, answer.text) == (204, "")
    assert world.purged == [workspace.id]
    assert (await world.call("GET", path)).refusal == (404, "not_found")


@pytest.mark.parametrize("status", [W.RUNNING, W.STOPPED, W.TERMINATING])
async def test_purge_loses_nothing_that_is_not_terminated(world: Any, status: W) -> None:
    workspace = await world.bring("ada", status)
    answer = await world.call("DELETE", f"/api/workspaces/{workspace.id}?purge=true")
    assert answer.refusal == (409, "conflict")
    assert answer.error["status"] == status
    assert world.purged == []
    assert (await world.store.get(workspace.id)).status is status


async def test_a_purge_that_was_overtaken_is_a_conflict(world: Any) -> None:
    workspace = await world.bring("ada", W.TERMINATED)
    world.fails = Conflict(f"workspace {workspace.id} is queued", "queued")
    answer = await world.call("DELETE", f"/api/workspaces/{workspace.id}?purge=1")
    assert answer.refusal == (409, "conflict")
    assert answer.error["status"] == "queued"


async def test_extend(world: Any) -> None:
    workspace = await world.bring("ada", W.RUNNING)
    path = f"/api/workspaces/{workspace.id}"
    before = await world.store.now_ms()
    answer = await world.call("POST", f"{path}/extend", {"seconds": 86400}, user="ada")
    assert answer.status == 200
    assert before + DAY <= answer.json["stopsAt"] <= await world.store.now_ms() + DAY
    assert answer.json["aliveBecause"].startswith("extended, ")
    shorter = await world.call("POST", f"{path}/extend", {"seconds": 7200}, user="ada")
    assert shorter.json["stopsAt"] == answer.json["stopsAt"]


async def test_extend_without_a_length_is_by_the_idle_timeout(world: Any) -> None:
    workspace = await world.bring("ada", W.RUNNING)
    before = await world.store.now_ms()
    assert (await world.call("POST", f"/api/workspaces/{workspace.id}/extend")).status == 200
    until = (await world.store.get(workspace.id)).extend_until_ms
    assert before + 3_600_000 <= until <= await world.store.now_ms() + 3_600_000


@pytest.mark.parametrize("status", [W.STOPPED, W.STOPPING, W.TERMINATED, W.FAILED])
async def test_extend_is_for_what_runs(world: Any, status: W) -> None:
    workspace = await world.bring("ada", status)
    answer = await world.call("POST", f"/api/workspaces/{workspace.id}/extend", {"seconds": 60})
    assert answer.refusal == (409, "conflict")
    assert (await world.store.get(workspace.id)).extend_until_ms == 0


async def test_snapshot(world: Any) -> None:
    workspace = await world.bring("ada", W.RUNNING)
    answer = await world.call("POST", f"/api/workspaces/{workspace.id}/snapshot", user="ada")
    assert answer.status == 200
    assert answer.json == {
        "workspaceId": workspace.id, "snapshotId": "snap-2", "epoch": 1, "createdAt": 2000,
        "files": 3, "bytes": 4096, "archiveBytes": 512, "sha256": "0" * 64, "format": "tar+zstd",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (SnapshotError("disk_full", "no space left; the previous one is whole"), 507, "disk_full"),
        (SnapshotError("unreachable", "the bucket does not answer"), 503, "unreachable"),
        (SnapshotError("too_large", "more than 10 GiB"), 413, "too_large"),
        (SnapshotError("corrupt", "the archive's hash is wrong"), 500, "corrupt"),
    ],
)
async def test_a_snapshot_that_failed_says_how(
    alone: Any, error: SnapshotError, status: int, code: str
) -> None:
    workspace = await alone.bring("ada", W.RUNNING)
    alone.fails = error
    answer = await alone.call("POST", f"/api/workspaces/{workspace.id}/snapshot")
    assert answer.refusal == (status, f"snapshot_{code}")
    assert answer.error["message"] == str(error)


@pytest.mark.parametrize("status", [W.QUEUED, W.STARTING, W.STOPPING, W.TERMINATING])
async def test_no_snapshot_of_what_is_on_its_way(world: Any, status: W) -> None:
    workspace = await world.bring("ada", status)
    answer = await world.call("POST", f"/api/workspaces/{workspace.id}/snapshot")
    assert answer.refusal == (409, "conflict")
    assert answer.error["retryAfter"] > 0


async def test_no_snapshot_where_there_are_no_files(world: Any) -> None:
    workspace = await world.bring("ada", W.STOPPED)
    answer = await world.call("POST", f"/api/workspaces/{workspace.id}/snapshot")
    assert answer.refusal == (409, "conflict")
    assert "no files on a machine" in answer.error["message"]


HEARTBEATS = ["/api/workspaces/{id}/heartbeat", "/heartbeat", "/workspace/update"]


def beat(path: str, workspace_id: str, **body: str) -> tuple[str, dict[str, str]]:
    named = {} if "{id}" in path else {"workspaceId": workspace_id}
    return path.replace("{id}", workspace_id), {**named, **body}


@pytest.mark.parametrize("path", HEARTBEATS)
async def test_a_heartbeat_is_activity(world: Any, path: str) -> None:
    workspace = await world.bring("ada", W.RUNNING)
    answer = await world.call("POST", *beat(path, workspace.id, kind="input"), user="ada")
    assert answer.status == 200
    record = await world.store.get(workspace.id)
    assert answer.json["lastActiveAt"] == record.seen["input"] >= workspace.last_active_at_ms
    await world.call("POST", *beat(path, workspace.id), user="ada")
    assert "api" in (await world.store.get(workspace.id)).seen


@pytest.mark.parametrize("path", HEARTBEATS)
@pytest.mark.parametrize("status", [W.STOPPED, W.QUEUED, W.STOPPING, W.TERMINATED])
async def test_a_heartbeat_wakes_nothing(world: Any, path: str, status: W) -> None:
    workspace = await world.bring("ada", status)
    answer = await world.call("POST", *beat(path, workspace.id), user="ada")
    assert answer.refusal == (409, "conflict")
    record = await world.store.get(workspace.id)
    assert (record.status, record.next) == (status, "")


@pytest.mark.parametrize("path", HEARTBEATS[1:])
async def test_a_heartbeat_names_its_workspace(world: Any, path: str) -> None:
    answer = await world.call("POST", path, {"kind": "api"})
    assert answer.refusal == (422, "invalid")
    assert answer.error["field"] == "workspaceId"


async def test_enter(world: Any) -> None:
    workspace = await world.bring("ada", W.STOPPED)
    path = f"/api/workspaces/{workspace.id}/enter"
    answer = await world.call("POST", path, {"next": "/lab/tree/a%20b?c=1"}, user="ada")
    assert answer.status == 200
    assert answer.json == {
        "workspaceId": workspace.id,
        "url": f"http://{workspace.id}.localhost:8000/_gateway/enter?code=c&next=/lab/tree/a%20b?c=1",
        "token": "igw_token",
        "expiresAt": 5000,
    }
    assert answer.headers["Cache-Control"] == "no-store"
    assert (await world.call("POST", path)).json["url"].endswith("next=/")
    assert (await world.store.get(workspace.id)).status is W.STOPPED


@pytest.mark.parametrize(
    "path",
    [
        "//evil.example",
        "/\\evil.example",
        "https://evil.example",
        "lab",
        "",
        "/a\nb",
        "/ä",
        "/a\\b",
        "/a b",
    ],
)
async def test_enter_leads_nowhere_else(alone: Any, path: str) -> None:
    workspace = await alone.bring("ada", W.RUNNING)
    answer = await alone.call("POST", f"/api/workspaces/{workspace.id}/enter", {"next": path})
    assert answer.refusal == (422, "invalid")
    assert answer.error["field"] == "next"


async def test_activity(world: Any) -> None:
    workspace = await world.bring("ada", W.RUNNING)
    await world.call("POST", f"/api/workspaces/{workspace.id}/heartbeat", user="ada")
    answer = await world.call("GET", f"/api/workspaces/{workspace.id}/activity", user="ada")
    assert answer.status == 200
    said = answer.json
    assert (said["workspaceId"], said["status"]) == (workspace.id, "running")
    assert {signal["kind"] for signal in said["signals"]} == {"boot", "api"}
    assert [step["what"] for step in said["next"]] == ["stop", "terminate"]
    assert said["next"][0]["at"] == said["stopsAt"]
    assert said["next"][1]["at"] == said["stopsAt"] + DAY
    assert said["aliveBecause"] in said["text"]
