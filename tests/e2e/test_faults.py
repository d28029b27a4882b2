"""What breaks while it runs: a clear error for who looks, the same start again, and every file still there."""

from __future__ import annotations

import asyncio
import contextlib
import html
import json
import random
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from websockets.exceptions import ConnectionClosed

from tests.e2e.harness import IDE_FLAGS, Client, Gateway, host_of

QUICK = (*IDE_FLAGS, "--scale-interval", "0.3")
PAGE = {"Accept": "text/html"}


async def created(client: Client, user: str = "ada") -> tuple[dict[str, Any], str]:
    """(a new workspace, a token for it); it may well fail."""
    status, workspace = await client.api("POST", "/api/workspaces", {"userId": user})
    assert status == 202
    return workspace, (await client.enter(workspace))["token"]


async def start(client: Client, workspace: dict[str, Any]) -> None:
    status, record = await client.api("POST", f"/api/workspaces/{workspace['workspaceId']}/start")
    assert status == 202, record


async def page(client: Client, workspace: dict[str, Any], token: str) -> tuple[int, str]:
    """What a person sees who opens it: (status, the page with its entities resolved)."""
    status, body = await client.ide(workspace, "GET", "/", token=token, headers=PAGE)
    return status, html.unescape(body.decode())


async def closed_with(ws: Any, timeout: float) -> tuple[int, str]:
    """Code and reason of the close that ends this session."""
    with pytest.raises(ConnectionClosed) as closed:
        await asyncio.wait_for(ws.recv(), timeout)
    assert closed.value.rcvd is not None, "no close frame: a page could not tell why"
    return closed.value.rcvd.code, closed.value.rcvd.reason


async def put(
    client: Client, workspace: dict[str, Any], token: str, name: str, data: bytes
) -> None:
    status, _ = await client.ide(workspace, "PUT", f"/files/{name}", token=token, data=data)
    assert status == 201


async def has(
    client: Client, workspace: dict[str, Any], token: str, name: str, data: bytes
) -> None:
    assert await client.ide(workspace, "GET", f"/files/{name}", token=token) == (200, data)


# The IDE.

BROKEN = [
    pytest.param(
        "no-such-ide --port {port}", 1, "command_not_found",
        ['the IDE command "no-such-ide" was not found on machine m-1', "set --workspace-command"],
        id="does not exist",
    ),
    pytest.param(
        "/etc/hostname {port}", 1, "command_not_found",
        ["/etc/hostname", "machine m-1"],
        id="cannot be run",
    ),
    pytest.param(
        "sh -c 'echo no licence for {port} >&2; exit 3'", 1, "exited",
        ["ended before it was ready (exit code 3)", "Check --workspace-command", "no licence for "],
        id="exits at once",
    ),
    pytest.param(
        "sh -c 'exec sleep 86399' {port}", 3, "not_ready",
        ["was not ready within 2 s", "Start it again, or set --boot-timeout higher"],
        id="is never ready",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("command", "seconds", "code", "words"), BROKEN)
async def test_an_ide_that_does_not_come_up(
    serve: Any,
    client_of: Any,
    until: Any,
    command: str,
    seconds: float,
    code: str,
    words: list[str],
) -> None:
    flags = ("--workspace-command", command, "--boot-timeout", "2", "--scale-interval", "0.3")
    gateway = await serve(*flags, "--workspace-user", "shared")
    client = client_of(gateway)
    if code == "command_not_found" and "no-such-ide" in command:
        said = gateway.log.read_text()
        assert '! IDE     the IDE command "no-such-ide" was not found; try: ' in said
    workspace, token = await created(client)
    began = time.monotonic()
    failed = await client.becomes(workspace, "failed")
    assert time.monotonic() - began < seconds + 4  # a machine has to come up first
    assert failed["error"]["code"] == code
    for word in words:
        assert word in failed["error"]["message"]

    # Looking does not start it again; what a person sees is the reason and a button.
    for _ in range(2):
        status, text = await page(client, workspace, token)
        assert status == 503
        assert "has failed" in text
        assert words[0].lower() in text.lower()  # there it begins a sentence
        assert 'data-step="ide" data-state="failed"' in text
        assert ">Start again</button>" in text
    assert (await client.status(workspace))["epoch"] == 1
    async with client.websocket(workspace, token=token) as ws:
        assert (await closed_with(ws, 2))[0] == 4500
    status, answer = await client.ide(workspace, "GET", "/files/a.txt", token=token)
    assert (status, json.loads(answer)["error"]["code"]) == (503, "workspace_crashed")

    # Nothing of it is left running, and its slot is free.
    await until(lambda: not leftovers(gateway), what="the IDE's processes end")
    _, (machine,) = await client.api("GET", "/api/machines")
    assert machine["occupied"] == 0

    # The button starts it; it fails again, as itself.
    status, _ = await client.ide(workspace, "POST", "/_gateway/start", token=token)
    assert status == 202
    again = await client.becomes(workspace, "failed")
    assert (again["epoch"], again["error"]["code"]) == (2, code)


def leftovers(gateway: Gateway) -> list[psutil.Process]:
    """What runs below its machines' agents."""
    return [child for agent in gateway.machines() for child in agent.children(recursive=True)]


async def test_an_ide_that_is_repaired(serve: Any, client_of: Any) -> None:
    """What failed under a wrong command starts under the right one, with the files it had."""
    first = await serve(*QUICK)
    client = client_of(first)
    workspace = await client.running()
    token = (await client.enter(workspace))["token"]
    await put(client, workspace, token, "a.txt", b"mine")
    assert first.stop() == 0

    second = await serve("--workspace-command", "no-such-ide {port}", "--workspace-user", "shared")
    client = client_of(second)
    await start(client, workspace)
    assert (await client.becomes(workspace, "failed"))["error"]["code"] == "command_not_found"
    assert second.stop() == 0

    third = await serve(*QUICK)
    client = client_of(third)
    assert (await client.status(workspace))["status"] == "failed"
    await start(client, workspace)
    workspace = await client.becomes(workspace, "running")
    assert workspace["error"] is None
    await has(client, workspace, token, "a.txt", b"mine")


@pytest.mark.parametrize("how", ["killed", "ended by itself"])
async def test_a_workspace_process_that_dies(serve: Any, client_of: Any, how: str) -> None:
    gateway = await serve(*IDE_FLAGS)
    client = client_of(gateway)
    workspace, token = await created(client)
    workspace = await client.becomes(workspace, "running")
    neighbour = await client.running("bob")
    theirs = (await client.enter(neighbour))["token"]
    await put(client, workspace, token, "a.txt", b"mine")
    _, seen = await client.ide(workspace, "GET", "/echo", token=token)
    async with (
        client.websocket(workspace, token=token) as ws,
        client.websocket(workspace, token=token) as second,
        client.websocket(neighbour, token=theirs) as other,
    ):
        ends = [asyncio.create_task(closed_with(each, 10)) for each in (ws, second)]
        died = time.monotonic()
        if how == "killed":
            psutil.Process(json.loads(seen)["pid"]).kill()
        else:
            await client.ide(workspace, "GET", "/die?code=3", token=token)
        assert {code for code, _ in await asyncio.gather(*ends)} <= {1011, 4500}
        assert time.monotonic() - died < 2
        failed = await client.becomes(workspace, "failed", timeout=2 - (time.monotonic() - died))
        await other.send("me not")
        assert await other.recv() == "me not"
    assert failed["error"]["code"] == "crashed"
    why = "killed by SIGKILL" if how == "killed" else "exit code 3"
    assert (
        f"ended by itself ({why}). Its files are kept; start it again" in failed["error"]["message"]
    )

    status, text = await page(client, workspace, token)
    assert status == 503
    assert f"ended by itself ({why})" in text
    assert ">Start again</button>" in text
    async with client.websocket(workspace, token=token) as ws:
        assert await closed_with(ws, 2) == (
            4500, "the workspace crashed; open its page to start it again",
        )  # fmt: skip
    # The button, as the page presses it: by cookie, from its own origin.
    entry = await client.enter(workspace)
    async with client.http.get(
        client.at("/" + entry["url"].split("/", 3)[3]),
        headers={"Host": host_of(workspace)},
        allow_redirects=False,
    ) as answer:
        cookie = answer.headers["Set-Cookie"].partition(";")[0]
    pressed = {"Cookie": cookie, "Origin": f"http://{host_of(workspace)}", **PAGE}
    status, _ = await client.ide(workspace, "POST", "/_gateway/start?next=/x", headers=pressed)
    assert status == 303
    again = await client.becomes(workspace, "running")
    assert (again["epoch"], again["error"], again["instanceId"]) == (2, None, "m-1")
    await has(client, workspace, token, "a.txt", b"mine")


# The machine.


async def test_a_machine_that_is_killed(serve: Any, client_of: Any, until: Any) -> None:
    gateway = await serve(*QUICK)
    client = client_of(gateway)
    workspace, token = await created(client)
    workspace = await client.becomes(workspace, "running")
    stopped, _ = await created(client, "bob")
    await client.becomes(stopped, "running")
    await client.api("POST", f"/api/workspaces/{stopped['workspaceId']}/stop")
    await client.becomes(stopped, "stopped")
    await put(client, workspace, token, "a.txt", b"mine")
    _, seen = await client.ide(workspace, "GET", "/echo", token=token)
    (agent,) = gateway.machines()
    async with client.websocket(workspace, token=token) as ws:
        agent.kill()
        code, _ = await closed_with(ws, 5)
    assert code in (1011, 4500)
    failed = await client.becomes(workspace, "failed")
    assert failed["error"]["code"] in ("machine_lost", "machine_restarted")
    assert "machine m-1" in failed["error"]["message"]
    assert "tart it again" in failed["error"]["message"]
    assert failed["instanceId"] == "m-1", "its files are there"
    assert (await client.status(stopped))["status"] == "stopped"

    # The machine comes back under its own name, and what ran on it before is over.
    async def ready() -> bool:
        _, machines = await client.api("GET", "/api/machines")
        return ("m-1", "ready") in [(m["instanceId"], m["status"]) for m in machines]

    await until(ready, what="m-1 is ready again")
    assert agent.pid not in [machine.pid for machine in gateway.machines()]
    old = json.loads(seen)["pid"]
    await until(lambda: not psutil.pid_exists(old), what="the IDE of the first boot ends")
    events = await client.events()
    assert events.count("machine.lost") == 1

    status, text = await page(client, workspace, token)
    assert status == 503
    assert "machine m-1" in text
    assert ">Start again</button>" in text
    await start(client, workspace)
    again = await client.becomes(workspace, "running")
    assert (again["epoch"], again["instanceId"]) == (2, "m-1")
    await has(client, workspace, token, "a.txt", b"mine")
    await start(client, stopped)
    await client.becomes(stopped, "running")


async def test_a_machine_that_is_lost_with_its_disk(serve: Any, client_of: Any, until: Any) -> None:
    """What a snapshot holds comes back on another machine. What never had one says so by being empty."""
    gateway = await serve(*QUICK)
    client = client_of(gateway)
    workspace, token = await created(client)
    workspace = await client.becomes(workspace, "running")
    await put(client, workspace, token, "a.txt", b"mine")
    status, manifest = await client.api("POST", f"{at(workspace)}/snapshot")
    assert (status, manifest["files"]) == (200, 1)
    destroy(gateway, "m-1")
    failed = await client.becomes(workspace, "failed")
    assert failed["error"]["code"] == "machine_lost"

    async def gone() -> bool:
        _, machines = await client.api("GET", "/api/machines")
        return "m-1" not in [m["instanceId"] for m in machines]

    await until(gone, what="m-1 is given up")
    await start(client, workspace)
    again = await client.becomes(workspace, "running")
    assert again["instanceId"] != "m-1"
    await has(client, workspace, token, "a.txt", b"mine")


def at(workspace: dict[str, Any]) -> str:
    return f"/api/workspaces/{workspace['workspaceId']}"


def destroy(gateway: Gateway, machine: str) -> None:
    """Its processes, and then its disk, without a word to anybody."""
    (agent,) = gateway.machines()
    children = agent.children(recursive=True)
    directory = gateway.data_dir / "machines" / machine
    directory.rename(directory.with_name(f".{machine}.destroyed"))
    for process in (agent, *children):
        process.kill()


# Snapshots.


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own for snapshots, of 256 KiB."""
    directory = tmp_path / "small"
    directory.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(directory)]
    try:
        mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount command for a small file system")
    if mounted.returncode != 0:
        pytest.skip(f"a small file system needs root: {mounted.stderr.strip()}")
    yield directory
    subprocess.run(["umount", "--lazy", str(directory)], check=True)


def kept_in(directory: Path) -> dict[str, bytes]:
    """Every file below it."""
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }


async def test_a_full_disk_during_a_snapshot(
    small_disk: Path, serve: Any, client_of: Any, until: Any
) -> None:
    gateway = await serve(*QUICK, "--snapshots", str(small_disk))
    client = client_of(gateway)
    workspace, token = await created(client)
    workspace = await client.becomes(workspace, "running")
    await put(client, workspace, token, "a.txt", b"mine")
    status, manifest = await client.api("POST", f"{at(workspace)}/snapshot")
    assert status == 200
    before = kept_in(small_disk)
    big = random.Random(1).randbytes(400_000)
    await put(client, workspace, token, "big.bin", big)

    # Asked for: a refusal that says what is full. The workspace does not notice.
    status, refused = await client.api("POST", f"{at(workspace)}/snapshot")
    assert status == 507
    assert refused["error"]["code"] == "snapshot_disk_full"
    assert str(small_disk) in refused["error"]["message"]
    assert kept_in(small_disk) == before
    assert (await client.status(workspace))["status"] == "running"

    # Put away: called off. It is stopped with the reason, its files where they were.
    status, _ = await client.api("DELETE", at(workspace))
    assert status == 202
    await client.becomes(workspace, "stopped")
    called_off = await with_error(client, workspace)
    assert called_off["error"]["code"] == "snapshot_disk_full"
    assert "No space left on device" in called_off["error"]["message"] or (
        "full" in called_off["error"]["message"]
    )
    assert called_off["reason"] == "snapshot failed"
    assert (called_off["instanceId"], called_off["snapshotId"]) == ("m-1", manifest["snapshotId"])
    assert kept_in(small_disk) == before
    await start(client, workspace)
    started = await client.becomes(workspace, "running")
    assert started["error"] is None
    await has(client, workspace, token, "big.bin", big)

    # And should the machine be lost now, the previous snapshot restores.
    destroy(gateway, "m-1")
    await client.becomes(workspace, "failed")
    await start(client, workspace)
    await client.becomes(workspace, "running")
    await has(client, workspace, token, "a.txt", b"mine")
    assert (await client.ide(workspace, "GET", "/files/big.bin", token=token))[0] == 404


async def with_error(client: Client, workspace: dict[str, Any]) -> dict[str, Any]:
    """Its record once it is stopped for good: a stop comes before the termination that fails."""
    deadline = time.monotonic() + 10
    while True:
        record = await client.status(workspace)
        if record["status"] == "stopped" and record["error"]:
            return record
        assert time.monotonic() < deadline, record
        await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def changed_byte(path: Path) -> AsyncIterator[None]:
    """One bit of it, in the middle of an archive or of the hash in a manifest."""
    whole = path.read_bytes()
    at = whole.index(b'"sha256": "') + 30 if path.suffix == ".json" else len(whole) // 2
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    yield
    path.write_bytes(whole)


@pytest.mark.parametrize("kind", ["archive", "manifest"])
async def test_a_snapshot_with_one_byte_changed(serve: Any, client_of: Any, kind: str) -> None:
    gateway = await serve(*QUICK)
    client = client_of(gateway)
    workspace, token = await created(client)
    workspace = await client.becomes(workspace, "running")
    await put(client, workspace, token, "a.txt", b"mine" * 1000)
    await client.api("DELETE", at(workspace))
    terminated = await client.becomes(workspace, "terminated")
    snapshots = gateway.data_dir / "snapshots" / workspace["workspaceId"]
    suffix = ".tar.zst" if kind == "archive" else ".json"
    (path,) = snapshots.glob(f"*{suffix}")
    assert path.name == terminated["snapshotId"] + suffix

    async with changed_byte(path):
        before = kept_in(snapshots)
        # A visit restores it; what the person sees is which snapshot is damaged, and what was left alone.
        status, text = await page(client, workspace, token)
        assert (status, "Bringing back" in text) == (202, True)
        failed = await client.becomes(workspace, "failed")
        assert failed["error"]["code"] == "restore_corrupt"
        assert terminated["snapshotId"] in failed["error"]["message"]
        assert failed["snapshotId"] == terminated["snapshotId"]
        status, text = await page(client, workspace, token)
        assert status == 503
        assert terminated["snapshotId"] in text
        assert 'data-step="restore" data-state="failed"' in text
        assert ">Start again</button>" in text

        # Nothing that anybody may press makes it worse.
        await start(client, workspace)
        again = await client.becomes(workspace, "failed")
        assert (again["epoch"], again["error"]["code"]) == (failed["epoch"] + 1, "restore_corrupt")
        status, refused = await client.api("POST", f"{at(workspace)}/snapshot")
        assert (status, refused["error"]["code"]) == (404, "snapshot_not_found")
        await client.api("DELETE", at(workspace))
        ended = await client.becomes(workspace, "terminated", "stopped")
        assert ended["snapshotId"] == terminated["snapshotId"]
        assert kept_in(snapshots) == before

    await start(client, workspace)
    back = await client.becomes(workspace, "running")
    assert back["error"] is None
    await has(client, workspace, token, "a.txt", b"mine" * 1000)
