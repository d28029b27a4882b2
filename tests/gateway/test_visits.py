"""Who comes by, what that wakes, and how somebody gets in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from starlette.requests import Request

from gateway import visits
from gateway.entry import Grant
from gateway.progress import Progress
from gateway.visits import is_navigation
from lifecycle.model import Workspace, WorkspaceStatus
from lifecycle.stores import Conflict, LimitReached, StoreUnavailable

W = WorkspaceStatus
HTML = "text/html,application/xhtml+xml,*/*;q=0.8"
NAVIGATE = {"sec-fetch-mode": "navigate", "sec-fetch-dest": "document", "accept": HTML}
HOME = "http://localhost:8000/"


@pytest.mark.parametrize(
    ("headers", "method", "person"),
    [
        (NAVIGATE, "GET", True),
        ({**NAVIGATE, "sec-fetch-dest": "iframe"}, "GET", True),
        ({**NAVIGATE, "sec-fetch-user": "?1"}, "GET", True),
        (NAVIGATE, "HEAD", False),
        (NAVIGATE, "POST", False),
        ({**NAVIGATE, "sec-purpose": "prefetch"}, "GET", False),
        ({**NAVIGATE, "sec-purpose": "prefetch;prerender"}, "GET", False),
        ({**NAVIGATE, "purpose": "prefetch"}, "GET", False),
        ({**NAVIGATE, "x-moz": "prefetch"}, "GET", False),
        ({**NAVIGATE, "sec-fetch-dest": "embed"}, "GET", False),
        ({**NAVIGATE, "sec-fetch-dest": "empty"}, "GET", False),
        ({"sec-fetch-mode": "navigate"}, "GET", False),
        ({"sec-fetch-mode": "no-cors", "sec-fetch-dest": "script", "accept": "*/*"}, "GET", False),
        ({"sec-fetch-mode": "cors", "sec-fetch-dest": "empty", "accept": HTML}, "GET", False),
        ({"sec-fetch-mode": "websocket", "sec-fetch-dest": "websocket"}, "GET", False),
        ({"accept": HTML}, "GET", True),
        ({"accept": HTML}, "HEAD", False),
        ({"accept": HTML, "x-requested-with": "XMLHttpRequest"}, "GET", False),
        ({"accept": HTML, "purpose": "Prefetch"}, "GET", False),
        ({"accept": "*/*"}, "GET", False),
        ({"accept": "application/json"}, "GET", False),
        ({}, "GET", False),
    ],
)
def test_only_a_person_opening_a_page_is_a_visit(
    headers: Mapping[str, str], method: str, person: bool
) -> None:
    assert is_navigation(headers, method) is person


def request(path: str = "/", method: str = "GET", accept: str = HTML, **extra: Any) -> Request:
    where, _, query = path.partition("?")
    headers = [(b"accept", accept.encode()), *extra.get("headers", [])]
    scope = {
        "type": "http", "method": method, "path": where, "raw_path": where.encode(),
        "query_string": query.encode(), "headers": headers, "path_params": extra.get("params", {}),
    }  # fmt: skip
    return Request(scope)


class World:
    def __init__(self, status: WorkspaceStatus | None, error: Exception | None = None) -> None:
        self.record = (
            None if status is None
            else Workspace("w1", "ada", status, 1, 2, name="thesis", error="it broke")
        )  # fmt: skip
        self.error = error
        self.wakes = 0
        self.codes = {
            "home": Grant("home", "ada", "", "/"),
            "w1": Grant("workspace", "ada", "w1", "/lab?a=1"),
            "bare": Grant("workspace", "ada", "w1", "/"),
            "w2": Grant("workspace", "ada", "w2", "/"),
            "port": Grant("workspace", "ada", "8080--w1", "/"),
        }
        self.away = False
        self.progress = Progress(self, self, self.eta, self.log)  # type: ignore[arg-type]

    async def now_ms(self) -> int:
        return 9

    async def get(self, workspace_id: str) -> Workspace | None:
        if self.away:
            raise StoreUnavailable("Redis did not answer")
        return self.record if workspace_id == "w1" else None

    async def wake(self, workspace_id: str, priority: str = "") -> Workspace:
        if self.error:
            raise self.error
        self.wakes += 1
        assert self.record is not None
        self.record = replace(self.record, moved=False)
        if self.record.status in {W.STOPPED, W.TERMINATED, W.FAILED}:
            self.record = replace(self.record, status=W.QUEUED)
        else:
            self.record = replace(self.record, next="start")
        return self.record

    async def eta(self, workspace: Workspace) -> tuple[int | None, float | None]:
        return 1, 4.0

    async def log(self, workspace: Workspace) -> str:
        return "last line"

    async def redeem(self, code: str) -> Grant | None:
        if self.away:
            raise StoreUnavailable("Redis did not answer")
        return self.codes.pop(code, None)

    async def mint(self, user: str, workspace: str, next: str) -> str:
        return f"{user}-{workspace}-{next}"


@pytest.mark.parametrize(
    ("status", "woken", "code", "words"),
    [
        (W.STOPPED, 1, 202, "your visit starts it"),
        (W.TERMINATED, 1, 202, "come back from the snapshot"),
        (W.STOPPING, 1, 202, "then it starts again"),
        (W.TERMINATING, 1, 202, "then it starts again"),
        (W.QUEUED, 0, 202, "place 1"),
        (W.STARTING, 0, 202, "Finding a machine"),
        (W.FAILED, 0, 503, "last line"),
        (W.RUNNING, 0, 202, "Opening"),
        (None, 0, 404, "no such page"),
    ],
)
async def test_a_visit_wakes_what_sleeps_and_never_what_failed(
    status: W | None, woken: int, code: int, words: str
) -> None:
    world = World(status)
    response = await visits.visit(world, world.progress, HOME)(request("/lab"), "w1")
    assert (response.status_code, world.wakes) == (code, woken)
    assert words in bytes(response.body).decode()


@pytest.mark.parametrize("status", [W.QUEUED, W.STARTING, W.RUNNING])
async def test_a_visit_to_what_was_moved_says_once_that_somebody_waits(status: W) -> None:
    world = World(status)
    assert world.record is not None
    world.record = replace(world.record, moved=True)
    for _ in range(2):
        await visits.visit(world, world.progress, HOME)(request("/lab"), "w1")
    assert (world.wakes, world.record.status) == (1, status)


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (LimitReached("max_queue", 1000, 1000), 429, "1000 workspaces are waiting"),
        (LimitReached("running", 2, 2), 403, "stop one first"),
        (LimitReached("hours_a_day", 8, 8, 1_795_564_800_000, 60), 429, "00:00 UTC on 25 November"),
        (Conflict("it is gone"), 404, "no such page"),
        (StoreUnavailable("Redis did not answer"), 503, "few seconds"),
    ],
)
async def test_a_visit_that_cannot_wake_says_why(error: Exception, code: int, words: str) -> None:
    world = World(W.STOPPED, error)
    response = await visits.visit(world, world.progress, HOME)(request("/lab"), "w1")
    assert response.status_code == code
    assert words in bytes(response.body).decode()


async def test_unanswered_tells_a_dead_ide_from_a_failed_one() -> None:
    for status, words in ((W.RUNNING, "does not answer"), (W.FAILED, "has failed")):
        world = World(status)
        endpoint = visits.visit(world, world.progress, HOME, unanswered=True)
        assert words in bytes((await endpoint(request(), "w1")).body).decode()


async def test_start_answers_scripts_with_json_and_forms_with_their_page() -> None:
    world = World(W.FAILED)
    start = visits.start(world, world.progress, HOME)
    response = await start(request(method="POST", accept="application/json"), "w1")
    assert response.status_code == 202
    assert b'"status":"queued"' in bytes(response.body)
    form = await start(request("/_gateway/start?next=%2Flab%3Fa%3D1", "POST"), "w1")
    assert (form.status_code, form.headers["location"]) == (303, "/lab?a=1")
    away = await start(request("/_gateway/start?next=%2F%2Fevil.test", "POST"), "w1")
    assert away.headers["location"] == "/"


@pytest.mark.parametrize("accept", [HTML, "application/json"])
@pytest.mark.parametrize(
    ("error", "code"),
    [
        (LimitReached("max_queue", 10, 10), 429),
        (Conflict("it is gone"), 404),
        (StoreUnavailable("Redis did not answer"), 503),
    ],
)
async def test_a_start_that_is_refused_says_why(error: Exception, code: int, accept: str) -> None:
    world = World(W.FAILED, error)
    response = await visits.start(world, world.progress, HOME)(request("/", "POST", accept), "w1")
    assert response.status_code == code
    assert ("text/html" in response.headers["content-type"]) == (accept == HTML)
    assert ("retry-after" in response.headers) == (code != 404)


async def test_a_home_code_is_good_once() -> None:
    world = World(None)
    enter = visits.enter(world.redeem, lambda user: f"home={user}; HttpOnly")
    response = await enter(request("/enter?code=home"))
    assert (response.status_code, response.headers["location"]) == (303, "/")
    assert response.headers["set-cookie"] == "home=ada; HttpOnly"
    assert response.headers["cache-control"] == "no-store"
    for path in ("/enter?code=home", "/enter?code=", "/enter", "/enter?code=w1"):
        again = await enter(request(path))
        assert again.status_code == 401
        assert "set-cookie" not in again.headers


async def test_a_workspace_code_opens_that_workspace_only() -> None:
    world = World(W.RUNNING)
    enter = visits.workspace_enter(world.redeem, lambda w, user: f"ws={w},{user}", HOME)
    good = await enter(request("/_gateway/enter?code=w1&next=/ignored"), "w1")
    assert (good.status_code, good.headers["location"]) == (303, "/lab?a=1")
    assert good.headers["set-cookie"] == "ws=w1,ada"
    for code in ("w1", "w2", "home", "port", "x"):
        refused = await enter(request(f"/_gateway/enter?code={code}"), "w1")
        assert refused.status_code == 401
        assert "set-cookie" not in refused.headers


async def test_a_ports_code_opens_that_port_only() -> None:
    """What listens there may catch it, with a service worker: it must not lead into the IDE."""
    world = World(W.RUNNING)
    enter = visits.workspace_enter(world.redeem, lambda w, user: f"ws={w},{user}", HOME)
    good = await enter(request("/_gateway/enter?code=port"), "8080--w1")
    assert (good.status_code, good.headers["set-cookie"]) == (303, "ws=w1,ada")
    assert (await enter(request("/_gateway/enter?code=w1"), "8080--w1")).status_code == 401
    opened = visits.open_workspace(world, lambda _: "ada", world.mint, lambda place: "http://x")
    response = await opened(request("/open/8080--w1", params={"id": "8080--w1"}))
    assert response.headers["location"] == "http://x/_gateway/enter?code=ada-8080--w1-%2F"


@pytest.mark.parametrize(
    ("next_path", "lands"),
    [("%2Flab%2Ftree%2Fa", "/lab/tree/a"), ("%2F%2Fevil.test", "/"), ("https:%2F%2Fevil.test", "/"),
     ("%2F%5Cevil.test", "/"), ("%2F%09%2Fevil.test", "/"), ("%0D%0AX:1", "/")],
)  # fmt: skip
async def test_entering_lands_on_this_host_only(next_path: str, lands: str) -> None:
    world = World(W.RUNNING)
    enter = visits.workspace_enter(world.redeem, lambda w, user: "c=1", HOME)
    response = await enter(request(f"/_gateway/enter?code=bare&next={next_path}"), "w1")
    assert response.headers["location"] == lands


@pytest.mark.parametrize(
    ("method", "headers"), [("HEAD", []), ("GET", [(b"sec-purpose", b"prefetch")])]
)
async def test_looking_ahead_uses_no_code_up(
    method: str, headers: list[tuple[bytes, bytes]]
) -> None:
    world = World(W.RUNNING)
    looking = {"method": method, "headers": headers}
    home = visits.enter(world.redeem, lambda user: "c=1")
    inside = visits.workspace_enter(world.redeem, lambda w, user: "c=1", HOME)
    assert "set-cookie" not in (await home(request("/enter?code=home", **looking))).headers
    assert "set-cookie" not in (await inside(request("/x?code=w1", **looking), "w1")).headers
    assert {"home", "w1"} <= world.codes.keys()


async def test_codes_while_the_store_is_away() -> None:
    world = World(W.RUNNING)
    world.away = True
    for response in (
        await visits.enter(world.redeem, lambda user: "c=1")(request("/enter?code=home")),
        await visits.workspace_enter(world.redeem, lambda w, u: "c=1", HOME)(
            request("/?code=w1"), "w1"
        ),
    ):
        assert response.status_code == 503
        assert "code=" not in bytes(response.body).decode()


@pytest.mark.parametrize(
    ("user", "workspace_id", "code"),
    [("ada", "w1", 303), ("bob", "w1", 404), ("ada", "w9", 404), (None, "w1", 401)],
)
async def test_open_mints_for_the_owner_and_knows_nothing_for_others(
    user: str | None, workspace_id: str, code: int
) -> None:
    world = World(W.STOPPED)
    endpoint = visits.open_workspace(
        world, lambda _: user, world.mint, lambda place: f"http://{place.workspace}.localhost:8000"
    )
    asked = request(f"/open/{workspace_id}?next=/lab%3Fa", params={"id": workspace_id})
    response = await endpoint(asked)
    assert response.status_code == code
    if code == 303:
        wanted = "http://w1.localhost:8000/_gateway/enter?code=ada-w1-%2Flab%3Fa"
        assert response.headers["location"] == wanted
    assert world.wakes == 0


async def test_somebody_elses_answers_exactly_like_an_unknown_one() -> None:
    world = World(W.STOPPED)
    endpoint = visits.open_workspace(world, lambda _: "bob", world.mint, lambda w: "")
    theirs = await endpoint(request("/open/w1", params={"id": "w1"}))
    unknown = await endpoint(request("/open/w9", params={"id": "w9"}))
    assert bytes(theirs.body) == bytes(unknown.body)
    assert theirs.raw_headers == unknown.raw_headers


async def test_home_is_for_those_who_entered() -> None:
    shown = await visits.home(lambda _: "ada<b>")(request())
    assert (shown.status_code, b"ada&lt;b&gt;" in bytes(shown.body)) == (200, True)
    assert (await visits.home(lambda _: None)(request())).status_code == 401
