"""Which page for which workspace, and how pages are written."""

from __future__ import annotations

import asyncio
import html
import json
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import uvicorn
from aiohttp import ClientResponse, ClientSession
from starlette.applications import Starlette
from starlette.routing import Mount
from yarl import URL

from gateway import pages
from lifecycle.model import Workspace, WorkspaceStatus
from tests import prompt

W = WorkspaceStatus


def workspace(status: WorkspaceStatus, **fields: object) -> Workspace:
    known: dict[str, object] = {"id": "ada-x2k4", "user_id": "ada", "name": "thesis"}
    return Workspace(
        **{**known, "status": status, "created_at_ms": 1, "status_since_ms": 2, **fields}
    )  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("status", "found", "variant", "code", "heading", "message"),
    [
        (W.QUEUED, W.QUEUED, "waiting", 202, "Starting “thesis”", "In the queue."),
        (W.QUEUED, W.STOPPED, "waiting", 202, "Waking “thesis”", "It was stopped; your visit"),
        (W.QUEUED, W.TERMINATED, "waiting", 202, "Bringing back “thesis”", "from the snapshot"),
        (W.STARTING, W.STARTING, "waiting", 202, "Starting “thesis”", "Finding a machine for it."),
        (W.STOPPING, W.STOPPING, "waiting", 202, "“thesis” is stopping", "then it starts again"),
        (W.TERMINATING, W.TERMINATING, "waiting", 202, "“thesis” is stopping", "then it starts"),
        (W.RUNNING, W.STARTING, "waiting", 202, "Opening “thesis”", "Ready. Opening it."),
        (W.STOPPED, None, "asleep", 503, "“thesis” is stopped", "Its files are kept."),
        (W.TERMINATED, None, "asleep", 503, "“thesis” is put away", "restores its files"),
        (W.FAILED, W.FAILED, "failed", 503, "“thesis” has failed", "It burnt down."),
    ],
)
def test_the_page_says_what_state_it_is_in(
    status: W, found: W | None, variant: str, code: int, heading: str, message: str
) -> None:
    page = pages.page_for(workspace(status, error="it burnt down", next="start"), found=found)
    assert (page.fields["variant"], page.status) == (variant, code)
    assert page.fields["heading"] == heading
    assert message in page.fields["message"]


@pytest.mark.parametrize("status", [W.STOPPING, W.QUEUED])
def test_one_that_moves_is_neither_stopping_nor_woken(status: W) -> None:
    moving = workspace(status, reason="moving: its machine is taken away at noon", next="start")
    page = pages.page_for(moving, found=W.STOPPING)
    assert (page.fields["heading"], page.status) == ("“thesis” is moving", 202)
    assert page.fields["message"].startswith(
        "Moving to another machine: its machine is taken away at noon."
    )
    assert json.loads(page.fields["account"])["moving"] is True
    assert page.fields["queue_state"] == ("now" if status is W.QUEUED else "todo")


def test_files_that_did_not_get_away_are_told_on_the_page_with_the_button() -> None:
    said = "its files could not be moved off machine m-1 in time: nothing newer than noon is left"
    lost = workspace(W.FAILED, error=said, error_code="move_failed", reason=said)
    page = pages.page_for(lost)
    assert (page.fields["variant"], page.fields["start_hidden"]) == ("failed", "")
    assert page.fields["message"] == "I" + said[1:] + "."


def test_every_status_has_a_page() -> None:
    for status in W:
        assert pages.render(pages.page_for(workspace(status))).status_code >= 200


def test_a_running_one_that_does_not_answer_is_told_from_one_that_just_got_ready() -> None:
    page = pages.page_for(workspace(W.RUNNING), unanswered=True)
    assert (page.fields["variant"], page.status) == ("unanswered", 502)
    assert "does not answer" in page.fields["heading"]


def test_a_failed_one_seen_by_the_proxy_is_failed_not_unanswered() -> None:
    assert pages.page_for(workspace(W.FAILED), unanswered=True).fields["variant"] == "failed"


def test_only_sleeping_and_failed_ones_show_the_button() -> None:
    shown = {s for s in W if not pages.page_for(workspace(s)).fields["start_hidden"]}
    assert shown == {W.STOPPED, W.TERMINATED, W.FAILED}


def test_no_workspace_is_not_found_and_leads_home() -> None:
    page = pages.page_for(None, home="http://localhost:8000/")
    assert page.status == 404
    assert page.fields["link"] == "http://localhost:8000/"


def test_what_users_and_programs_wrote_is_text_and_nothing_else() -> None:
    evil = '"><script>alert(1)</script>&'
    page = pages.page_for(
        workspace(W.FAILED, name=evil, error=evil), account=None, here='/a"><script>'
    )
    body = bytes(pages.render(page).body).decode()
    assert "<script>alert" not in body
    assert re.findall(r"<script[^>]*>", body) == [
        '<script type="module" src="/_gateway/static/waiting.js">'
    ]
    account = json.loads(html.unescape(re.search(r'data-account="([^"]*)"', body)[1]))  # type: ignore[index]
    assert account["error"] == evil


@pytest.mark.parametrize(
    "here", ["//evil.test/", "/\\evil.test", "https://evil.test/", "/a\nb", "é"]
)
def test_no_address_of_another_host_gets_into_a_page(here: str) -> None:
    page = pages.page_for(workspace(W.FAILED), here=here)
    assert (page.fields["here"], page.fields["start"]) == ("/", "/_gateway/start?next=%2F")
    assert pages.unavailable(here).fields["link"] == "/"


def test_the_start_button_keeps_the_whole_address() -> None:
    page = pages.page_for(workspace(W.FAILED), here="/lab/tree/a%20b?x=1&y=2")
    assert page.fields["start"] == "/_gateway/start?next=%2Flab%2Ftree%2Fa%2520b%3Fx%3D1%26y%3D2"


SMALL: list[tuple[Callable[[], pages.Page], int, str]] = [
    (pages.sign_in, 401, "ide-gateway open"),
    (lambda: pages.enter_hint("http://localhost/open/w"), 401, "http://localhost/open/w"),
    (lambda: pages.not_found("/"), 404, "belongs to somebody else"),
    (lambda: pages.code_expired("/"), 401, "works once"),
    (lambda: pages.too_many("1000 are waiting.", "/lab"), 429, "1000 are waiting."),
    (lambda: pages.unavailable("/lab"), 503, "go on working"),
    (lambda: pages.home_page("ada"), 200, "Signed in as"),
]


@pytest.mark.parametrize(("make", "status", "words"), SMALL)
def test_small_pages_say_what_to_do(
    make: Callable[[], pages.Page], status: int, words: str
) -> None:
    response = pages.render(make(), pages.BASE_ASSETS)
    assert response.status_code == status
    body = bytes(response.body).decode()
    assert words in body
    assert 'href="/static/gateway.css"' in body
    assert ("retry-after" in response.headers) == (status in {429, 503})
    assert ("www-authenticate" in response.headers) == (status == 401)


@pytest.mark.parametrize("make", [make for make, _, _ in SMALL])
def test_pages_carry_nothing_inline_and_nothing_from_elsewhere(
    make: Callable[[], pages.Page],
) -> None:
    response = pages.render(make())
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["referrer-policy"] == "same-origin"
    assert response.headers["x-content-type-options"] == "nosniff"
    body = bytes(response.body).decode()
    assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:|http-equiv", body)
    assert re.findall(r"<script[^>]*>(?!</script>)", body) == []
    assert all(src.startswith("/_gateway/static/") for src in re.findall(r'src="([^"]*)"', body))


Get = Callable[..., Awaitable[ClientResponse]]


@pytest.fixture
async def get(until: Any) -> AsyncIterator[Get]:
    """get(name, **headers) of the assets on a real server."""
    app = Starlette(routes=[Mount("/static", pages.Assets())])
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = prompt.Server(uvicorn.Config(app, log_config=None, lifespan="off"))
        task = asyncio.create_task(server.serve(sockets=[listener]))
        base = f"http://127.0.0.1:{listener.getsockname()[1]}/static/"
        await until(lambda: server.started, what="the server is up")
        async with ClientSession() as session:

            async def ask(name: str, **headers: str) -> ClientResponse:
                response = await session.get(URL(base + name, encoded=True), headers=headers)
                await response.read()  # one left unread keeps its connection until it is collected
                return response

            yield ask
        server.should_exit = True
        await task


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("gateway.css", "text/css"),
        ("waiting.js", "javascript"),
        ("home.js", "javascript"),
        ("live.js", "javascript"),
        ("words.js", "javascript"),
        ("icon.svg", "image/svg+xml"),
    ],
)
async def test_assets_are_served_and_asked_again(get: Get, name: str, kind: str) -> None:
    response = await get(name)
    assert response.status == 200
    assert kind in response.headers["content-type"]
    assert response.headers["cache-control"] == "no-cache"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert (await get(name, **{"if-none-match": response.headers["etag"]})).status == 304


@pytest.mark.parametrize(
    "name",
    ["__init__.py", "home.html", "waiting.html", "", "..%2fpyproject.toml", "none.js", "%00.js"],
)
async def test_nothing_else_of_the_folder_is_served(get: Get, name: str) -> None:
    assert (await get(name)).status == 404
