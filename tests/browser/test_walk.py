"""The walk a person takes, in a real browser with the real JupyterLab, from the first press to the way back.

New workspace → notebook, terminal, file → away: stopped → back: woken → away: snapshot, terminated →
back: restored. Every step is also looked for where an operator would look.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.harness import Client, Gateway

pytest.importorskip("jupyterlab", reason="needs the extra ide: pip install -e '.[ide]'")

IDLE = 22
FLAGS = (
    "--idle-timeout", str(IDLE), "--idle-sweep-interval", "0.5",
    "--retention", "6", "--terminate-sweep-interval", "0.5",
    "--scale-interval", "0.5",
    "--shell", "off",  # the page is the IDE itself
)  # fmt: skip
SLOW = 60_000  # milliseconds a page may take on a busy machine


class Frames:
    """What the page's WebSockets received, as text."""

    def __init__(self, page: Any) -> None:
        self.received: list[str] = []
        page.on("websocket", lambda ws: ws.on("framereceived", self._note))

    def _note(self, payload: Any) -> None:
        self.received.append(payload if isinstance(payload, str) else payload.decode("latin-1"))

    def has(self, text: str) -> bool:
        return any(text in frame for frame in self.received)


async def test_the_walk(browser: Any, tmp_path: Path, until: Any) -> None:
    gateway = Gateway(tmp_path / "data", *FLAGS)
    await gateway.start()
    client = Client(gateway)
    context = await browser.new_context(viewport={"width": 1280, "height": 800})
    context.set_default_timeout(SLOW)
    try:
        await _walk(await context.new_page(), gateway, client, until)
        assert gateway.stop() == 0
        assert gateway.machines() == []
    except BaseException:
        for number, page in enumerate(context.pages):
            await page.screenshot(path=tmp_path / f"failed-{number}.png")
        print(gateway.log.read_text()[-8000:])
        raise
    finally:
        await client.http.close()
        gateway.clean_up()


async def _walk(page: Any, gateway: Gateway, client: Client, until: Any) -> None:
    frames = Frames(page)

    # One press, and the page lands in the IDE by itself.
    await page.goto(gateway.entry)
    await page.get_by_role("button", name="New workspace").click()
    await page.wait_for_selector(".jp-LauncherCard")
    _, workspaces = await client.api("GET", "/api/workspaces")
    (workspace,) = workspaces
    assert page.url.startswith(workspace["url"])
    assert workspace["status"] == "running"
    (home,) = gateway.data_dir.glob("machines/*/workspaces/*/home")
    if os.geteuid() == 0:
        assert home.stat().st_uid >= 200_000, "the workspace runs as a Linux user of its own"

    # A notebook cell runs, and the notebook is saved.
    await page.locator('.jp-LauncherCard[data-category="Notebook"]').first.click()
    await page.get_by_text("Python 3 (ipykernel) | Idle").wait_for()
    cell = page.locator(".jp-Notebook .jp-CodeCell .cm-content").first
    await cell.click()
    await page.keyboard.type("print('cell says', 6 * 7)")
    await until(lambda: _runs(page, cell), timeout=60, what="the cell's output")
    await page.keyboard.press("Control+s")
    rename = page.get_by_role("button", name="Rename")
    await until(
        lambda: _saved_or_asked(rename, home), timeout=30, what="the notebook is saved or named"
    )
    if await rename.count():
        await rename.click()
    await until(lambda: _says_42(home / "Untitled.ipynb"), timeout=30, what="the notebook on disk")

    # A terminal answers; what it writes is a file.
    await page.keyboard.press("Control+Shift+l")
    await page.locator('.jp-LauncherCard[title*="terminal" i]').last.click()
    await page.locator(".xterm-helper-textarea").wait_for(state="attached")
    await until(lambda: frames.has("setup"), timeout=30, what="the terminal's shell")
    await page.locator(".jp-Terminal").click()
    # As a person types: a burst of frames within a moment is none.
    await page.keyboard.type("echo shell-says-$((6*7)) | tee shell.txt\n", delay=150)
    await until(lambda: frames.has("shell-says-42"), timeout=30, what="the terminal's echo")
    await until(lambda: (home / "shell.txt").exists(), what="the terminal's file")

    # Typing is what keeps it alive, and the gateway says so.
    await until(lambda: _because(client, workspace, "frames"), what="typing was noticed")
    assert await _redis(gateway, "ZSCORE", "heartbeat:workspaces", workspace["workspaceId"])

    # The tab stays open and polls, yet nobody is there: it is stopped, its files kept.
    stopped = await client.becomes(workspace, "stopped", timeout=IDLE + 40)
    assert stopped["reason"] == "idle"
    assert _says_42(home / "Untitled.ipynb")

    # The tab's own traffic does not wake it; the person coming back does, and the file is there.
    assert (await page.evaluate("fetch('/api/contents').then(r => r.status)")) == 503
    assert (await client.status(workspace))["status"] == "stopped"
    await page.goto(workspace["url"])
    await page.wait_for_selector('.jp-DirListing-item >> text="shell.txt"')
    woken = await client.status(workspace)
    assert (woken["status"], woken["epoch"], woken["snapshotId"]) == ("running", 2, None)

    # They leave: the tab's sessions go with it, then the workspace stops.
    await page.goto("about:blank")
    await until(lambda: _no_session(gateway), timeout=20, what="no session is left")
    terminated = await client.becomes(workspace, "terminated", timeout=IDLE + 40)

    # Away past the retention: a snapshot, verified, and no file left on the machine.
    snapshot = terminated["snapshotId"]
    folder = gateway.data_dir / "snapshots" / workspace["workspaceId"]
    manifest = json.loads((folder / f"{snapshot}.json").read_text())
    assert manifest["files"] >= 2
    assert (folder / manifest["archive"]).stat().st_size == manifest["archive_bytes"]
    await until(lambda: not home.exists(), what="its files are gone from the machine")

    # Back again: restored from it.
    await page.goto(workspace["url"])
    await page.wait_for_selector('.jp-DirListing-item >> text="shell.txt"')
    await page.wait_for_selector('.jp-DirListing-item >> text="Untitled.ipynb"')
    record = await client.status(workspace)
    assert (record["status"], record["epoch"]) == ("running", 3)


async def _runs(page: Any, cell: Any) -> bool:
    """Run the cell. JupyterLab drops a run that comes while it still sets its kernel up."""
    from playwright.async_api import TimeoutError as NotYet

    await cell.click()
    await page.keyboard.press("Control+Enter")
    try:
        output = page.locator(".jp-OutputArea-output", has_text="cell says 42").first
        await output.wait_for(timeout=3000)
    except NotYet:
        return False
    return True


async def _no_session(gateway: Gateway) -> bool:
    return bool(await _redis(gateway, "ZCARD", "heartbeat:sessions") == 0)


async def _redis(gateway: Gateway, *command: str) -> Any:
    """What `redis-cli` would answer on the embedded server."""
    from redis.asyncio import Redis

    folder = gateway.data_dir / "redis"
    password = (folder / "password").read_text().strip()
    async with Redis(
        unix_socket_path=str(folder / "valkey.sock"), password=password, decode_responses=True
    ) as redis:
        return await redis.execute_command(*command)


async def _saved_or_asked(rename: Any, home: Path) -> bool:
    return bool(await rename.count()) or _says_42(home / "Untitled.ipynb")


def _says_42(notebook: Path) -> bool:
    return notebook.exists() and "cell says 42" in notebook.read_text()


async def _because(client: Any, workspace: dict[str, Any], kind: str) -> bool:
    record = await client.status(workspace)
    return str(record["aliveBecause"]).startswith(kind)
