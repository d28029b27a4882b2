"""Idle means idle, and the person knows: the real JupyterLab in the shell, in a real browser."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgpack
import pytest

from tests.e2e.harness import Client, Gateway

pytest.importorskip("jupyterlab", reason="needs the extra ide: pip install -e '.[ide]'")

IDLE = 16
FLAGS = (
    "--idle-timeout", str(IDLE), "--countdown", "5", "--idle-sweep-interval", "1",
    "--scale-interval", "0.5",
)  # fmt: skip
JOB = 35  # seconds that a kernel works: seen at every other look, it has to be seen at work after it would have been idle
LOOKS = 5  # seconds between two looks of an agent for jobs
SLOW = 60_000  # milliseconds a page may take on a busy machine
POLL = 11.0  # seconds: JupyterLab's slowest poll of a tab that is looked at comes every ten


RUN = """async (code) => {
  const [, token] = document.cookie.match(/_xsrf=([^;]*)/);
  const asked = { method: "POST", headers: { "X-XSRFToken": token } };
  const { id } = await (await fetch("/api/kernels", asked)).json();
  const socket = new WebSocket(`${location.origin.replace("http", "ws")}/api/kernels/${id}/channels`);
  await new Promise((resolve, reject) => Object.assign(socket, { onopen: resolve, onerror: reject }));
  const header = { msg_id: "1", msg_type: "execute_request", username: "", session: "s", version: "5.3" };
  const content = { code, silent: false, store_history: false, user_expressions: {}, allow_stdin: false };
  socket.send(JSON.stringify({ header, parent_header: {}, metadata: {}, content, channel: "shell", buffers: [] }));
}"""
"""Has a kernel of its own run that, as a notebook does."""


class Socket:
    """What goes over the control channel of a page, as maps."""

    def __init__(self, page: Any) -> None:
        self.up: list[dict[str, Any]] = []
        self.closed = False
        page.on("websocket", self._opened)

    def _opened(self, websocket: Any) -> None:
        if websocket.url.endswith("/_gateway/control"):
            websocket.on("framesent", lambda frame: self.up.append(msgpack.unpackb(frame)))
            websocket.on("close", lambda _: setattr(self, "closed", True))


async def visit(context: Any, client: Client, user: str) -> tuple[Any, dict[str, Any], Socket]:
    workspace = await client.running(user)
    _, entry = await client.api("POST", f"/api/workspaces/{workspace['workspaceId']}/enter", {})
    page = await context.new_page()
    socket = Socket(page)
    await page.goto(entry["url"], wait_until="commit")
    return page, workspace, socket


async def is_open(page: Any) -> None:
    """JupyterLab has come up in it."""
    await page.frame_locator("iframe").first.locator(".jp-LauncherCard").first.wait_for()


async def test_a_tab_left_alone_is_stopped_and_one_with_keys_is_not(
    browser: Any, tmp_path: Path, until: Any
) -> None:
    gateway = Gateway(tmp_path / "data", *FLAGS)
    await gateway.start()
    client = Client(gateway)
    context = await browser.new_context(viewport={"width": 1000, "height": 700})
    context.set_default_timeout(SLOW)
    try:
        await _left_alone_beside_one_with_keys(context, client, until)
    except BaseException:
        for number, page in enumerate(context.pages):
            await page.screenshot(path=tmp_path / f"failed-{number}.png")
        print(gateway.log.read_text()[-8000:])
        raise
    finally:
        await client.http.close()
        gateway.stop()
        gateway.clean_up()


async def _left_alone_beside_one_with_keys(context: Any, client: Client, until: Any) -> None:
    # One after another: three of them that load at once take longer than nobody may be seen.
    busy, at_work, keys = await visit(context, client, "ada")
    typing = asyncio.create_task(_press_now_and_then(busy))
    await is_open(busy)
    page, with_a_job, _ = await visit(context, client, "kim")
    await is_open(page)
    computing = asyncio.create_task(_left_alone_with_a_job(page, with_a_job, client, until))
    left, alone, _ = await visit(context, client, "bob")
    await is_open(left)
    assert left.url.startswith(alone["url"])
    assert await left.title() != ""

    # The countdown appears although the tab polls, and one press stays.
    await left.wait_for_selector("#countdown:not([hidden])")
    assert await left.get_by_role("dialog", name="This workspace stops in").is_visible()
    warned_ms = await _stops_at(client, alone)
    await left.get_by_role("button", name="Stay").click()
    await left.wait_for_selector("#countdown", state="hidden")

    async def extended() -> int:
        at_ms = await _stops_at(client, alone)
        return at_ms if at_ms > warned_ms else 0

    # The page hides the countdown with the press, before the gateway has heard of it.
    stays_ms = await until(extended, what="the stop is put off")

    # Left alone again, it is stopped at its time, and says so.
    await left.wait_for_selector("#stopped:not([hidden])")
    _, stopped = await client.api("GET", f"/api/workspaces/{alone['workspaceId']}")
    assert (stopped["status"], stopped["reason"]) == ("stopped", "idle")
    assert -500 <= stopped["statusSince"] - stays_ms <= 5000

    # Nothing in that tab sends anything any more.
    asked: list[str] = []
    left.on("request", lambda request: asked.append(request.url))
    left.on("websocket", lambda websocket: asked.append(websocket.url))
    _, running = await client.api("GET", f"/api/workspaces/{at_work['workspaceId']}")
    assert running["status"] == "running", "keys were pressed in it all the while"
    assert [one["kind"] for one in keys.up if one["t"] == "seen"] != []
    assert {frozenset(one) for one in keys.up} <= {
        frozenset({"t", "seq", "client"}), frozenset({"t", "kind"})
    }, "nothing of what was typed"  # fmt: skip
    quiet_until = asyncio.get_running_loop().time() + POLL
    await until(lambda: asyncio.get_running_loop().time() > quiet_until, timeout=POLL + 5)
    assert asked == []
    typing.cancel()
    await computing

    # A press starts it again.
    await left.get_by_role("button", name="Start again").click()
    await left.wait_for_selector("iframe")
    assert await left.is_hidden("#stopped")


async def _stops_at(client: Client, workspace: dict[str, Any]) -> int:
    _, shown = await client.api("GET", f"/api/workspaces/{workspace['workspaceId']}")
    return int(shown["stopsAt"])


async def _left_alone_with_a_job(
    page: Any, workspace: dict[str, Any], client: Client, until: Any
) -> None:
    """A kernel that is busy keeps its workspace, and no longer than it is."""
    path = f"/api/workspaces/{workspace['workspaceId']}"
    (lab,) = [frame for frame in page.frames if frame.parent_frame == page.main_frame]
    await lab.evaluate(RUN, f"import time; time.sleep({JOB})")

    async def signal() -> dict[str, Any]:
        _, said = await client.api("GET", f"{path}/activity")
        found = {one["kind"]: one for one in said["signals"]}
        return dict(found.get("job", {}), status=said["status"], at_work=said["aliveBecause"])

    await until(lambda: _is(signal(), lambda s: "kernel" in s.get("source", "")), timeout=30)
    begun_ms = (await signal())["lastAt"]
    await until(
        lambda: _is(signal(), lambda s: s["lastAt"] >= begun_ms + (IDLE + 3) * 1000 or _over(s)),
        timeout=60,
    )
    assert not _over(await signal()), "it would have been idle by now"
    await until(lambda: _is(signal(), _over), timeout=90)
    _, stopped = await client.api("GET", path)
    ended_ms = (await signal())["lastAt"]
    assert stopped["reason"] == "idle"
    assert ended_ms >= begun_ms + (JOB - 2 * LOOKS - 2) * 1000
    assert IDLE - 1 <= (stopped["statusSince"] - ended_ms) / 1000 <= IDLE + 2 * LOOKS + 5


def _over(signal: dict[str, Any]) -> bool:
    return signal["status"] in ("stopping", "stopped")


async def _is(found: Any, wanted: Any) -> bool:
    return bool(wanted(await found))


async def _press_now_and_then(page: Any) -> None:
    """A key that does nothing, well within the idle timeout."""
    while True:
        await page.keyboard.press("Shift")
        await asyncio.sleep(IDLE / 4)
