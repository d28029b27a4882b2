"""The pages in a real browser, over a real server, with a store made of a dictionary."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict, replace
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route

from gateway import pages, visits
from gateway.progress import Progress
from lifecycle.model import Event, Workspace, WorkspaceStatus
from lifecycle.stores import StoreUnavailable

pytestmark = pytest.mark.browser
W = WorkspaceStatus
NOW = 1_700_000_000_000
DAY = 86_400_000


class World:
    """Store and news at once: a change is told to everybody who follows."""

    def __init__(self, *workspaces: Workspace) -> None:
        self.records = {workspace.id: workspace for workspace in workspaces}
        self.now = NOW
        self.place: int | None = 3
        self.away = False
        self.full = False
        self.streams = True
        self.wakes: list[str] = []
        self.opt_out: dict[str, list[str]] = {"workspace.stopped": ["webhook"]}
        self._followers: set[asyncio.Queue[Event]] = set()

    async def now_ms(self) -> int:
        return self.now

    async def get(self, workspace_id: str) -> Workspace | None:
        if self.away:
            raise StoreUnavailable("Redis did not answer")
        return self.records.get(workspace_id)

    async def wake(self, workspace_id: str) -> Workspace:
        workspace = await self.get(workspace_id)
        assert workspace is not None
        self.wakes.append(workspace_id)
        if workspace.status in {W.STOPPED, W.FAILED, W.TERMINATED}:
            self.set(workspace_id, W.QUEUED, error="", error_code="", step="")
        elif workspace.status in {W.STOPPING, W.TERMINATING}:
            self.set(workspace_id, workspace.status, next="start")
        return self.records[workspace_id]

    def set(
        self, workspace_id: str, status: WorkspaceStatus, passed: int = 1500, **fields: Any
    ) -> None:
        self.now += passed
        old = self.records[workspace_id]
        since = old.status_since_ms if old.status is status else self.now
        self.records[workspace_id] = replace(old, status=status, status_since_ms=since, **fields)
        self.tell(f"workspace.{status}", workspace_id)

    def tell(self, kind: str, workspace_id: str) -> None:
        for queue in self._followers:
            queue.put_nowait(Event(f"{self.now}-0", kind, {"workspace": workspace_id}))

    async def follow(self, workspace: str | None = None) -> AsyncIterator[Event]:
        queue: asyncio.Queue[Event] = asyncio.Queue()
        self._followers.add(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            self._followers.discard(queue)

    async def eta(self, workspace: Workspace) -> tuple[int | None, float | None]:
        return self.place, 38.0

    async def log(self, workspace: Workspace) -> str:
        return "Traceback (most recent call last):\n  ModuleNotFoundError: No module named 'jupyterlab'"


def workspace(status: WorkspaceStatus, **fields: Any) -> Workspace:
    known = {
        "id": "ada-x2k4",
        "user_id": "ada",
        "name": "thesis",
        "created_at_ms": NOW - 86_400_000,
    }
    return Workspace(**{**known, "status": status, "status_since_ms": NOW, **fields})


IDE = "<!doctype html><title>IDE</title><link rel=icon href=data:,><h1>IDE at {}</h1>"


def app_of(world: World) -> Callable[[int], Starlette]:
    """Base host and workspace host in one, told apart as the gateway does it: by the Host header."""

    def make(port: int) -> Starlette:
        base = f"http://localhost:{port}"
        progress = Progress(world, world, world.eta, world.log)
        visit = visits.visit(world, progress, f"{base}/")
        unanswered = visits.visit(world, progress, f"{base}/", unanswered=True)
        start = visits.start(world, progress, f"{base}/")

        def id_of(request: Request) -> str:
            host: str = request.headers["host"].partition(".")[0]
            return host

        def shown(w: Workspace) -> dict[str, Any]:
            error = {"code": w.error_code, "message": w.error} if w.error else None
            return {
                "workspaceId": w.id,
                "name": w.name,
                "status": w.status,
                "error": error,
                "queue": None,
                "lastActiveAt": w.last_active_at_ms or None,
                "stopsAt": w.extend_until_ms or None,
                "keptUntil": w.keep_until_ms or None,
                "snapshotId": w.snapshot_id or None,
            }

        async def listing(request: Request) -> Response:
            return JSONResponse([shown(w) for w in world.records.values()])

        async def create(request: Request) -> Response:
            name = (await request.json())["name"]
            if name == "full":
                error = {"code": "quota_exceeded", "message": "20 of 20 workspaces are used"}
                return JSONResponse({"error": error}, 403)
            new = workspace(W.QUEUED, id="new-1", name=name)
            world.records[new.id] = new
            return JSONResponse(shown(new), 202)

        async def enter(request: Request) -> Response:
            return JSONResponse({"url": f"http://{request.path_params['id']}.localhost:{port}/lab"})

        async def change(request: Request) -> Response:
            which = request.path_params["id"]
            verb = request.path_params["verb"]
            if verb == "start":
                await world.wake(which)
            elif verb == "keep":
                world.set(which, W.STOPPED, keep_until_ms=world.records[which].keep_until_ms + DAY)
            else:
                world.set(which, W.STOPPING)
            return JSONResponse(shown(world.records[which]), 202)

        async def preferences(request: Request) -> Response:
            if request.method == "PUT":
                world.opt_out = (await request.json())["optOut"]
            answer = {"userId": "ada", "email": "ada@example.org", "optOut": world.opt_out}
            return JSONResponse(answer)

        async def archive(request: Request) -> Response:
            name = {"content-disposition": 'attachment; filename="thesis.tar.gz"'}
            return Response(b"files", headers=name)

        async def events(request: Request) -> Response:
            async def lines() -> AsyncIterator[str]:
                yield ": hello\n\n"
                async for event in world.follow():
                    yield f"event: {event.type}\ndata: {json.dumps(asdict(event))}\n\n"

            if not world.streams:
                return Response(status_code=204)
            return StreamingResponse(lines(), media_type="text/event-stream")

        async def follow(request: Request) -> Response:
            return await progress.respond(request, id_of(request))

        async def begin(request: Request) -> Response:
            return await start(request, id_of(request))

        async def root(request: Request) -> Response:
            if request.headers["host"] == f"localhost:{port}":
                return await visits.home(lambda _: "ada")(request)
            record = world.records.get(id_of(request))
            if record is not None and record.status is W.RUNNING and not world.away:
                if record.address == "dead":
                    return await unanswered(request, record.id)
                return HTMLResponse(IDE.format(request.url.path))
            return await visit(request, id_of(request))

        return Starlette(
            routes=[
                Route("/api/workspaces", listing),
                Route("/api/workspaces", create, methods=["POST"]),
                Route("/api/workspaces/{id}/enter", enter, methods=["POST"]),
                Route("/api/workspaces/{id}/download", archive),
                Route("/api/preferences", preferences, methods=["GET", "PUT"]),
                Route("/api/workspaces/{id}/{verb}", change, methods=["POST"]),
                Route("/api/events", events),
                Mount("/static", pages.Assets()),
                Mount("/_gateway/static", pages.Assets()),
                Route("/_gateway/progress", follow),
                Route("/_gateway/start", begin, methods=["POST"]),
                Route("/{path:path}", root),
            ]
        )

    return make


async def says(page: Any, selector: str, text: str) -> None:
    """Wait until the first such element that is seen holds the text."""
    await page.locator(selector, has_text=text).first.wait_for()


async def state(page: Any, step: str) -> str:
    found: str = await page.locator(f'li[data-step="{step}"]').get_attribute("data-state")
    return found


async def test_a_visit_wakes_follows_every_step_and_lands_where_it_was_going(
    page: Any, console: Any, serving: Any
) -> None:
    world = World(workspace(W.STOPPED, snapshot_id="s1"))
    async with serving(app_of(world)) as port:
        deep = f"http://ada-x2k4.localhost:{port}/lab/tree/a%20b.ipynb?reset"
        await page.goto(deep)
        assert world.wakes == ["ada-x2k4"]
        await says(page, "h1", "Waking “thesis”")
        await says(page, "#message", "place 3, about 40 s to go")
        assert await page.locator("#message").get_attribute("role") == "status"

        world.place = 1
        world.tell("workspace.progress", "ada-x2k4")
        await says(page, "#message", "place 1")
        for step, words in (
            ("machine", "machine"),
            ("restore", "Restoring"),
            ("ide", "Starting the IDE"),
        ):
            world.set("ada-x2k4", W.STARTING, step=step)
            await says(page, "#message", words)
            assert await state(page, step) == "now"
        await says(page, 'li[data-step="queue"]', "done in 1 s")
        await says(page, 'li[data-step="restore"]', "done in 1 s")
        assert await page.locator('[aria-current="step"]').count() == 1

        world.set("ada-x2k4", W.RUNNING)
        await says(page, "h1", "IDE at /lab/tree/a")
        assert page.url == deep
        assert console.errors == []


async def test_a_failure_says_why_and_starts_again_by_keyboard(
    page: Any, console: Any, serving: Any
) -> None:
    world = World(workspace(W.STARTING, step="ide"))
    async with serving(app_of(world)) as port:
        await page.goto(f"http://ada-x2k4.localhost:{port}/lab")
        await says(page, "#message", "Starting the IDE")
        world.set("ada-x2k4", W.FAILED, error="the IDE exited with status 1", error_code="exited")
        await says(page, "#message", "The IDE exited with status 1.")
        assert await state(page, "ide") == "failed"
        assert not await page.locator("#log pre").is_visible()
        await page.locator("summary").focus()
        await page.keyboard.press("Enter")
        await says(page, "#log pre", "No module named 'jupyterlab'")
        assert world.wakes == []

        await page.locator("#start button").focus()
        await page.keyboard.press("Enter")
        await says(page, "#message", "In the queue")
        assert await page.evaluate("document.activeElement.id") == "heading"
        assert not await page.locator("#start").is_visible()
        world.set("ada-x2k4", W.RUNNING)
        await says(page, "h1", "IDE at /lab")
        assert world.wakes == ["ada-x2k4"]
        assert console.errors == []


async def test_opening_a_failed_one_again_does_not_start_it_and_diagnostics_can_be_copied(
    page: Any, console: Any, serving: Any
) -> None:
    world = World(workspace(W.FAILED, error="out of disk", error_code="disk_full", epoch=4))
    async with serving(app_of(world)) as port:
        await page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        await page.goto(f"http://ada-x2k4.localhost:{port}/lab?token=hush")
        await page.get_by_role("button", name="Copy diagnostics").click()
        await says(page, "#copied", "Copied")
        copied = await page.evaluate("navigator.clipboard.readText()")
        assert "error: disk_full: out of disk" in copied
        assert "epoch: 4" in copied
        assert "No module named" in copied
        assert "hush" not in copied
        assert world.wakes == []
        assert console.errors == []


async def test_a_stop_under_way_is_finished_first(page: Any, console: Any, serving: Any) -> None:
    world = World(workspace(W.STOPPING))
    async with serving(app_of(world)) as port:
        await page.goto(f"http://ada-x2k4.localhost:{port}/")
        await says(page, "h1", "“thesis” is stopping")
        await says(page, "#message", "Finishing the stop, then it starts again.")
        assert await state(page, "stop") == "now"
        world.set("ada-x2k4", W.STOPPED, next="")
        world.set("ada-x2k4", W.QUEUED)
        await says(page, 'li[data-step="stop"][data-state="done"]', "done in")
        await says(page, "h1", "Starting “thesis”")
        assert console.errors == []


async def test_trouble_with_the_records_is_said_and_passes(
    page: Any, console: Any, serving: Any
) -> None:
    world = World(workspace(W.STARTING, step="ide"))
    async with serving(app_of(world)) as port:
        await page.goto(f"http://ada-x2k4.localhost:{port}/")
        await says(page, 'li[data-step="ide"]', "Starting the IDE")
        world.away = True
        world.tell("workspace.progress", "ada-x2k4")
        await says(page, "#problem", "cannot reach its records")
        world.away = False
        world.set("ada-x2k4", W.RUNNING)
        await says(page, "h1", "IDE at /")
        assert console.errors == []


async def test_an_ide_that_does_not_answer_is_tried_again_without_hammering(
    page: Any, console: Any, serving: Any
) -> None:
    world = World(workspace(W.RUNNING, address="dead"))
    async with serving(app_of(world)) as port:
        requests: list[str] = []
        page.on("request", lambda r: r.is_navigation_request() and requests.append(r.url))
        await page.goto(f"http://ada-x2k4.localhost:{port}/lab")
        await says(page, "h1", "“thesis” does not answer")
        assert await page.locator("#retry").is_visible()
        assert len(requests) == 1
        world.set("ada-x2k4", W.RUNNING, address="127.0.0.1:1")
        await says(page, "h1", "IDE at /lab")
        assert len(requests) == 2
        assert console.errors == []


async def test_a_hidden_tab_holds_no_stream(page: Any, serving: Any, until: Any) -> None:
    world = World(workspace(W.STARTING, step="ide"))
    async with serving(app_of(world)) as port:
        await page.add_init_script(
            "window.hides = true; Object.defineProperty(document, 'hidden', {get: () => window.hides})"
        )
        async with page.expect_response("**/_gateway/progress") as polled:
            await page.goto(f"http://ada-x2k4.localhost:{port}/")
        assert (await (await polled.value).json())["step"] == "ide"
        assert not world._followers
        await page.evaluate(
            "window.hides = false; document.dispatchEvent(new Event('visibilitychange'))"
        )
        await until(lambda: world._followers, what="the stream opened")


async def test_the_waiting_page_works_without_scripts(browser: Any, serving: Any) -> None:
    context = await browser.new_context(java_script_enabled=False)
    page = await context.new_page()
    world = World(workspace(W.STOPPED), workspace(W.FAILED, id="fail-1", error="it broke"))
    async with serving(app_of(world)) as port:
        await page.goto(f"http://ada-x2k4.localhost:{port}/lab?a=1")
        await says(page, "#message", "It was stopped; your visit starts it. In the queue, place 3")
        assert await state(page, "queue") == "now"
        world.set("ada-x2k4", W.RUNNING)
        await page.get_by_role("link", name="See whether it is ready").click()
        await says(page, "h1", "IDE at /lab")

        await page.goto(f"http://fail-1.localhost:{port}/lab?a=1")
        await page.get_by_role("button", name="Start again").click()
        await says(page, "#message", "In the queue")
        assert page.url == f"http://fail-1.localhost:{port}/lab?a=1"
    await context.close()


async def test_home_creates_a_workspace_and_goes_to_its_waiting_page(
    page: Any, console: Any, serving: Any
) -> None:
    world = World(workspace(W.RUNNING, name=""))
    async with serving(app_of(world)) as port:
        await page.goto(f"http://localhost:{port}/")
        await says(page, ".workspace", "Running")
        await page.get_by_role("button", name="New workspace").click()
        await says(page, "h1", "Starting “Workspace 2”")
        assert page.url == f"http://new-1.localhost:{port}/lab"
        assert console.errors == []


async def test_home_refuses_in_words(page: Any, serving: Any) -> None:
    world = World(workspace(W.RUNNING))
    async with serving(app_of(world)) as port:
        await page.goto(f"http://localhost:{port}/")
        await page.get_by_label("Name").fill("thesis")
        await page.keyboard.press("Enter")
        await says(page, "#create-problem", "You have a workspace named thesis.")
        await page.get_by_label("Name").fill("full")
        await page.keyboard.press("Enter")
        await says(page, "#create-problem", "20 of 20 workspaces are used.")
        assert await page.evaluate("document.activeElement.id") == "name"


async def test_home_is_live_and_stops_and_starts(
    page: Any, console: Any, serving: Any, until: Any
) -> None:
    world = World(workspace(W.STARTING), workspace(W.FAILED, id="f-1", name="f", error="it broke"))
    async with serving(app_of(world)) as port:
        await page.goto(f"http://localhost:{port}/")
        await says(page, '[data-workspace="f-1"] .error', "It broke.")
        await until(lambda: world._followers, what="the stream opened")
        world.set("ada-x2k4", W.RUNNING)
        await says(page, '[data-workspace="ada-x2k4"] .word', "Running")
        await says(page, "#news", "thesis: Running")

        await page.get_by_role("button", name="Stop thesis").click()
        await says(page, "#stop-heading", "Stop thesis?")
        await page.keyboard.press("Escape")
        await until(lambda: page.locator("#stop").is_hidden(), what="the dialog closed")
        assert world.records["ada-x2k4"].status is W.RUNNING
        await page.get_by_role("button", name="Stop thesis").click()
        await page.get_by_role("button", name="Stop it").click()
        await says(page, '[data-workspace="ada-x2k4"] .word', "Stopping")

        await page.get_by_role("button", name="Start again f", exact=True).click()
        await says(page, '[data-workspace="f-1"] .word', "In the queue")
        assert await page.evaluate("document.activeElement.className") == "open"
        await page.get_by_role("button", name="Open f", exact=True).click()
        await says(page, "h1", "Starting “f”")
        assert console.errors == []


async def test_home_keeps_longer_and_gives_the_files(
    page: Any, console: Any, serving: Any, until: Any
) -> None:
    soon = int(time.time() * 1000) + 2 * 3_600_000
    world = World(workspace(W.STOPPED, keep_until_ms=soon, snapshot_id="s"))
    async with serving(app_of(world)) as port:
        await page.goto(f"http://localhost:{port}/")
        await says(page, ".keeping.soon", "2 h")
        async with page.expect_download() as download:
            await page.get_by_role("link", name="Download thesis").click()
        assert (await download.value).suggested_filename == "thesis.tar.gz"
        await page.get_by_role("button", name="Keep thesis").click()
        await says(page, ".keeping:not(.soon)", "26 h")
        await says(page, "#news", "thesis is kept until")
        world.set("ada-x2k4", W.STOPPED, keep_until_ms=0, snapshot_id="")
        await says(page, ".keeping", "always")
        assert await page.locator(".keep, .download").filter(visible=True).count() == 0
        assert console.errors == []


async def test_home_asks_what_one_wants_to_be_told(page: Any, console: Any, serving: Any) -> None:
    world = World()
    async with serving(app_of(world)) as port:
        await page.goto(f"http://localhost:{port}/")
        await page.get_by_text("What you are told").click()
        await says(page, "#mail", "E-mail goes to ada@example.org.")
        assert await page.get_by_label("A workspace stops soon: in the IDE").is_disabled()
        await page.get_by_label("It has stopped: by e-mail").click()
        await page.get_by_label("It has failed: in the IDE").click()
        await says(page, "#notices-news", "It has failed: not told in the IDE.")
        opted = {"workspace.stopped": ["webhook", "email"], "workspace.failed": ["ide"]}
        assert world.opt_out == opted
        await page.get_by_label("It has failed: in the IDE").click()
        await says(page, "#notices-news", "It has failed: told in the IDE.")
        assert world.opt_out == opted | {"workspace.failed": []}
        assert console.errors == []


async def test_home_polls_when_streams_do_not_get_through(page: Any, serving: Any) -> None:
    world = World(workspace(W.STARTING))
    world.streams = False
    async with serving(app_of(world)) as port:
        await page.goto(f"http://localhost:{port}/")
        await says(page, ".word", "Starting")
        world.set("ada-x2k4", W.RUNNING)
        await says(page, ".word", "Running")


LOOK = """() => {
  const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const channel = (value) => (value /= 255) <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const ground = (element) => {
    for (; element; element = element.parentElement) {
      const colour = numbers(getComputedStyle(element).backgroundColor);
      if ((colour[3] ?? 1) === 1) return colour;
    }
    return [255, 255, 255];
  };
  const seen = (element) => element.checkVisibility({ visibilityProperty: true });
  const own = (element) => [...element.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
  const faint = [...document.querySelectorAll("body *")].filter((e) => seen(e) && own(e)).map((element) => {
    const pair = [light(numbers(getComputedStyle(element).color)), light(ground(element))];
    return [element.textContent.trim().slice(0, 40), (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05)];
  });
  return {
    texts: faint.length,
    faint: faint.filter(([, ratio]) => ratio < 4.5),
    wide: document.documentElement.scrollWidth - innerWidth,
    small: [...document.querySelectorAll("button, .button")].filter(seen)
      .filter((e) => e.getBoundingClientRect().height < 24).length,
    headings: document.querySelectorAll("h1").length,
    lang: document.documentElement.lang,
    ids: [...document.querySelectorAll("[id]")].length - new Set([...document.querySelectorAll("[id]")].map((e) => e.id)).size,
  };
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_every_page_is_readable_on_a_small_screen(
    browser: Any, serving: Any, scheme: str
) -> None:
    long = "a" * 64
    world = World(
        workspace(W.RUNNING, id="run-1", name=long),
        workspace(W.QUEUED, id="queue-1"),
        workspace(W.STARTING, id="ide-1", step="ide", snapshot_id="s"),
        workspace(W.FAILED, id="fail-1", name=long, step="ide", error="x" * 200),
        workspace(W.STOPPING, id="stop-1"),
        workspace(W.STOPPED, id="kept-1", keep_until_ms=2 * NOW, snapshot_id="s"),
        workspace(W.RUNNING, id="dead-1", address="dead"),
    )
    context = await browser.new_context(viewport={"width": 360, "height": 740}, color_scheme=scheme)
    page = await context.new_page()
    async with serving(app_of(world)) as port:
        await page.goto(f"http://localhost:{port}/")
        await says(page, ".workspace", "Failed")
        await page.get_by_text("What you are told").click()
        await says(page, "#types", "It has failed")
        looks = {"home": await page.evaluate(LOOK)}
        for host in ("queue-1", "ide-1", "fail-1", "stop-1", "dead-1", "nobody"):
            await page.goto(f"http://{host}.localhost:{port}/lab")
            await page.locator("h1").wait_for()
            looks[host] = await page.evaluate(LOOK)
    await context.close()
    for name, look in looks.items():
        assert look.pop("texts") >= 3, name
        assert look == {
            "faint": [],
            "wide": 0,
            "small": 0,
            "headings": 1,
            "lang": "en",
            "ids": 0,
        }, name
