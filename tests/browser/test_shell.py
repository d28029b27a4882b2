"""The shell in a real browser: the IDE in its frame works as it does without."""

from __future__ import annotations

import asyncio
import shlex
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgpack
import pytest

from tests.e2e.harness import Client, Gateway

pytestmark = pytest.mark.browser
SITE = Path(__file__).with_name("site.py")
FLAGS = (
    "--workspace-command", f"{shlex.quote(sys.executable)} {shlex.quote(str(SITE))} {{port}}",
    "--workspace-ready-path", "/", "--workspace-user", "shared",
)  # fmt: skip


REWRITE = """() => {
  const { contentDocument: page } = document.getElementById("written");
  page.open();
  page.write("<input id=field>");
  page.close();
}"""
"""As VS Code fills its webviews: what listened in that window is gone, and the document is the same."""


@dataclass
class Tab:
    page: Any
    origin: str
    up: list[dict[str, Any]]
    """What went up the control channel."""
    client: Client
    path: str

    @property
    def ide(self) -> Any:
        return self.page.frame_locator("body > iframe")

    async def at(self, path: str) -> None:
        """Both the address of the tab and the page in the frame say so."""
        await self.page.wait_for_url(self.origin + path)
        where = path.partition("?")[0].partition("#")[0]
        await self.ide.get_by_role("heading", name=f"At {where}", exact=True).wait_for()

    def seen(self) -> int:
        return sum(one["t"] == "seen" for one in self.up)


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gateway, dict[str, Any]]]:
    """A gateway with one running workspace, for all tests here."""
    gateway = Gateway(tmp_path_factory.mktemp("shell") / "data", *FLAGS)

    async def start() -> dict[str, Any]:
        await gateway.start()
        client = Client(gateway)
        try:
            return await client.running()
        finally:
            await client.http.close()

    try:
        yield gateway, asyncio.run(start())
    finally:
        gateway.clean_up()


@pytest.fixture
async def tab(browser: Any, started: tuple[Gateway, dict[str, Any]]) -> AsyncIterator[Tab]:
    gateway, workspace = started
    client = Client(gateway)
    context = await browser.new_context(viewport={"width": 900, "height": 700})
    context.set_default_timeout(15_000)
    try:
        page, up = await context.new_page(), []

        def opened(websocket: Any) -> None:
            if websocket.url.endswith("/_gateway/control"):
                websocket.on("framesent", lambda frame: up.append(msgpack.unpackb(frame)))

        page.on("websocket", opened)
        path = f"/api/workspaces/{workspace['workspaceId']}"
        _, entry = await client.api("POST", f"{path}/enter", {"next": "/a/page?x=1"})
        await page.goto(entry["url"])
        yield Tab(page, workspace["url"].rstrip("/"), up, client, path)
    finally:
        await context.close()
        await client.http.close()


async def test_a_tab_with_the_shell_behaves_like_one_without(tab: Tab, until: Any) -> None:
    page, ide, context = tab.page, tab.ide, tab.page.context
    # Deep links, title, icon; back, forward, hashes, states that a page pushes; reload.
    await tab.at("/a/page?x=1")
    assert await page.title() == "At /a/page"
    icon = 'document.querySelector("link[rel=icon]").href'
    assert await page.evaluate(icon) == f"{tab.origin}/icon.svg"
    await ide.locator("#next").click()
    await tab.at("/b/page?y=2#there")
    await ide.locator("#hash").click()
    await tab.at("/b/page?y=2#part")
    await ide.locator("#push").click()
    await page.wait_for_url(f"{tab.origin}/pushed")
    await page.go_back()
    await tab.at("/b/page?y=2#part")
    await page.go_back()
    await tab.at("/b/page?y=2#there")
    await page.go_back()
    await tab.at("/a/page?x=1")
    await page.go_forward()
    await tab.at("/b/page?y=2#there")
    await page.reload()
    await tab.at("/b/page?y=2#there")

    # The keyboard is the IDE's from the start.
    assert await page.evaluate("document.activeElement.nodeName") == "IFRAME"

    async with page.expect_download() as download:
        await ide.locator("#file").click()
    assert (await download.value).suggested_filename == "notes.txt"
    await tab.at("/b/page?y=2#there")
    await context.grant_permissions(["clipboard-read", "clipboard-write"], origin=tab.origin)
    await ide.locator("#copy").click()
    await ide.get_by_text("copied", exact=True).wait_for()
    await ide.locator("#full").click()
    await ide.get_by_text("full", exact=True).first.wait_for()
    await page.evaluate("document.exitFullscreen()")

    # Other tabs are tabs of their own, with a shell and no shell in it.
    for link, path in (("#blank", "/blank"), ("#open", "/opened")):
        async with context.expect_page() as other:
            await ide.locator(link).click()
        new = await other.value
        await new.wait_for_url(f"{tab.origin}{path}")
        inner = new.frame_locator("body > iframe")
        await inner.get_by_role("heading", name=f"At {path}").wait_for()
        assert await inner.locator("#stay").count() == 0
        await new.close()
    await ide.locator("#top").click()
    await tab.at("/top")
    await ide.locator("#picture").click()
    await page.wait_for_url(f"{tab.origin}/icon.svg")
    await page.go_back()
    await tab.at("/top")

    # What no frame may hold gets the tab, once and without a loop.
    visits: list[str] = []
    page.on("request", lambda r: visits.append(r.url) if r.is_navigation_request() else None)
    await ide.locator("#refused").click()
    await page.get_by_role("heading", name="No frame holds me").wait_for()
    assert page.url == f"{tab.origin}/refused"
    await page.wait_for_load_state("networkidle")
    assert visits == [f"{tab.origin}/refused"] * 2, "in the frame, then in its place"
    assert await page.locator("iframe").count() == 0
    await page.go_back()
    await tab.at("/top")


async def test_input_is_told_from_every_frame_and_nothing_of_it(tab: Tab, until: Any) -> None:
    page, ide = tab.page, tab.ide
    await tab.at("/a/page?x=1")
    await until(lambda: tab.up, what="the channel is open")
    fields = {
        "the IDE's page": ide.locator("#text"),
        "a frame in it": ide.frame_locator("#view").locator("#inside"),
        "a frame that was written anew": ide.frame_locator("#written").locator("#field"),
    }
    await ide.locator("body").evaluate(REWRITE)
    for number, (where, field) in enumerate(fields.items(), 1):
        await field.focus()
        # The throttle is set back: ten seconds are too long for a test, and its own is below.
        await page.evaluate(f"performance.now = () => {number * 20_000}")
        await page.keyboard.type("s3cret")
        await until(lambda number=number: tab.seen() == number, what=f"a key in {where}")
    assert {frozenset(one) for one in tab.up} == {
        frozenset({"t", "seq", "client"}), frozenset({"t", "kind"})
    }  # fmt: skip
    assert "s3cret" not in str(tab.up)
    # Within ten seconds of the last one nothing more is told, whatever is done.
    await page.evaluate("performance.now = () => 69_000")
    await page.keyboard.type("more")
    await page.mouse.click(300, 300)
    await page.evaluate("performance.now = () => 70_001")
    await page.keyboard.type("x")
    await until(lambda: tab.seen() == 4, what="the next one")
    _, said = await tab.client.api("GET", f"{tab.path}/activity")
    signals = {one["kind"]: one for one in said["signals"]}
    assert "input" in signals


async def test_msgpack_is_what_python_makes_of_it(tab: Tab) -> None:
    values: list[Any] = [
        None, True, False, 0, 1, 127, 128, 255, 256, 65_535, 65_536, 2**32 - 1, 2**32, 2**53 - 1,
        -1, -32, -33, -128, -129, -32_768, -32_769, -(2**31), -(2**31) - 1, -(2**53) + 1, 0.5, -1e300,
        "", "ä€𝄞", "x" * 31, "x" * 32, "x" * 255, "x" * 256, "x" * 65_536, [0] * 300, [], [1, [2, [3]]],
        list(range(20)), {}, {"a": {"b": [None, "c"]}}, {f"k{i}": i for i in range(20)},
    ]  # fmt: skip
    packed = [list(msgpack.packb(value)) for value in values]
    read, written = await tab.page.evaluate(
        """async ([packed, values]) => {
          const { decode, encode } = await import("/_gateway/static/msgpack.js");
          return [packed.map((one) => decode(Uint8Array.from(one).buffer)), values.map((one) => [...encode(one)])];
        }""",
        [packed, values],
    )
    assert read == values
    assert [msgpack.unpackb(bytes(one)) for one in written] == values
    size = await tab.page.evaluate(
        """async (packed) => (await import("/_gateway/static/msgpack.js"))
          .decode(Uint8Array.from(packed).buffer).length""",
        list(msgpack.packb(bytes(300))),
    )
    assert size == 300
