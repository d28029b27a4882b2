"""When a tab gets the shell, when it gets what the IDE answered, and that a frame always gets the IDE."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from gateway import shell
from lifecycle.model import WorkspaceStatus
from tests.gateway.inside import HOST, ORIGIN, World, cookie, served
from tests.gateway.proxying import (
    Answer,
    Upstream,
    answer_bytes,
    answering,
    client,
    ok,
    request,
    upstream,
)

W = WorkspaceStatus
HTML = "Content-Type: text/html; charset=utf-8"
TAB = ("Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document", "Accept: text/html")
BY_HAND = (*TAB, "Sec-Fetch-User: ?1")
FRAME = ("Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: iframe", "Accept: text/html")
CSP = "content-security-policy"


@pytest.mark.parametrize(
    ("answered", "may"),
    [
        ([], True),
        ([("x-frame-options", "SAMEORIGIN")], True),
        ([("x-frame-options", "sameorigin, SAMEORIGIN")], True),
        ([("x-frame-options", "DENY")], False),
        ([("x-frame-options", "deny"), ("x-frame-options", "sameorigin")], False),
        ([("x-frame-options", "sameorigin, deny")], False),
        ([("x-frame-options", "ALLOW-FROM http://other.test")], True),  # no browser knows it
        ([("x-frame-options", "")], True),
        ([(CSP, "default-src 'self'; object-src 'none'")], True),
        ([(CSP, "frame-ancestors 'self'")], True),
        ([(CSP, "default-src 'none'; FRAME-ANCESTORS 'SELF' https://a.test")], True),
        ([(CSP, "frame-ancestors *")], True),
        ([(CSP, "frame-ancestors 'none'")], False),
        ([(CSP, "frame-ancestors")], False),
        ([(CSP, "frame-ancestors https://a.test")], False),
        ([(CSP, "frame-ancestors 'none'; frame-ancestors 'self'")], False),  # the first one holds
        ([(CSP, "frame-ancestors 'self'"), (CSP, "frame-ancestors 'none'")], False),
        ([(CSP, "frame-ancestors 'self', frame-ancestors https://a.test")], False),
        ([(CSP, "frame-ancestors 'self', default-src 'none'")], True),
        ([("content-security-policy-report-only", "frame-ancestors 'none'")], True),
        ([("x-frame-options", "DENY"), (CSP, "frame-ancestors 'self'")], True),  # browsers ask CSP
        ([("x-frame-options", "DENY"), (CSP, "default-src *")], False),
        ([("x-frame-options", "SAMEORIGIN"), (CSP, "frame-ancestors 'none'")], False),
        ([(CSP, "frame-ancestors http://w1.localhost:8000")], True),
        ([(CSP, "frame-ancestors w1.localhost:8000/")], True),
        ([(CSP, "frame-ancestors *.localhost:8000")], True),
        ([(CSP, "frame-ancestors *.localhost:*")], True),
        ([(CSP, "frame-ancestors http:")], True),
        ([(CSP, "frame-ancestors https:")], False),
        ([(CSP, "frame-ancestors w1.localhost")], False),  # that is port 80
        ([(CSP, "frame-ancestors https://w1.localhost:8000")], False),
        ([(CSP, "frame-ancestors *.w1.localhost:8000")], False),
        ([(CSP, "sandbox allow-scripts")], False),
        ([(CSP, "sandbox allow-scripts allow-same-origin")], True),
        ([("cross-origin-embedder-policy", "require-corp")], False),
        ([("cross-origin-embedder-policy", "unsafe-none")], True),
    ],
)
def test_a_frame_is_allowed_as_browsers_read_it(answered: list[tuple[str, str]], may: bool) -> None:
    headers = [(name.encode(), value.encode()) for name, value in answered]
    assert shell.frameable(headers, ORIGIN) is may


def test_a_scheme_may_be_upgraded_and_a_port_be_its_own() -> None:
    headers = [(b"content-security-policy", b"frame-ancestors http://w1.ide.test")]
    assert shell.frameable(headers, "https://w1.ide.test")
    assert not shell.frameable(headers, "https://w1.ide.test:8443")


def test_only_a_tab_that_is_filled_asks_for_the_shell() -> None:
    tab = {"sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    assert shell.is_asked(tab, "GET")
    assert not shell.is_asked(tab, "HEAD")
    assert not shell.is_asked({**tab, "sec-fetch-mode": "no-cors"}, "GET")
    assert not shell.is_asked({"sec-fetch-mode": "navigate"}, "GET")


@asynccontextmanager
async def ide(*answers: bytes, on: bool = True) -> AsyncIterator[tuple[World, Upstream]]:
    async with upstream(answering(*answers)) as up, served(up.port, on) as world:
        yield world, up


async def get(world: World, *lines: str, method: str = "GET", path: str = "/lab?a=1") -> Answer:
    asked = request(method, path, f"Cookie: {cookie()}; theirs=1", *lines)
    async with client(world.port) as browser:
        await browser.send(asked.replace(b"Host: w1.localhost", f"Host: {HOST}".encode()))
        return await browser.answer(method)


PAGE = ok(b"<p>the IDE", HTML, "X-Frame-Options: SAMEORIGIN", "Set-Cookie: a=1; Domain=localhost",
          "Set-Cookie: b=2", "Set-Cookie: ide-gateway=theirs", "ETag: x", "Content-Language: en")  # fmt: skip


async def test_a_tab_gets_the_shell_with_the_ides_cookies() -> None:
    async with ide(PAGE) as (world, up):
        answer = await get(world, *TAB, "If-None-Match: x", "Range: bytes=0-1")
        assert (answer.status, b"the IDE" in answer.body) == (200, False)
        assert b"thesis" in answer.body
        assert b"&quot;workspace&quot;: &quot;w1&quot;" in answer.body
        assert answer.values("set-cookie") == ["a=1", "b=2"]
        assert answer.values("cache-control") == ["no-store"]
        assert "sec-fetch-dest" in answer.values("vary")[0]
        assert answer.values("etag") == answer.values("permissions-policy") == []
        (policy,) = answer.values(CSP)
        assert "frame-src 'self'; connect-src 'self' ws://w1.localhost:8000;" in policy
        assert "default-src 'none'; script-src 'self';" in policy
        asked = bytes(up.received[0])
        assert asked.startswith(b"GET /lab?a=1 HTTP/1.1\r\n")
        assert not re.search(rb"(?i)if-none-match|\r\nrange", asked)


async def test_a_long_page_is_not_read_for_the_shell() -> None:
    """The connection is let go instead of taking what nobody sees."""
    endless = answer_bytes("200 OK", HTML, "Content-Length: 1000000000")
    async with ide(endless) as (world, up):
        answer = await get(world, *TAB)
        assert (answer.status, answer.whole) == (200, True)
        await up.closed.wait()


@pytest.mark.parametrize(
    "answer",
    [
        answer_bytes("302 Found", "Location: /lab", HTML, "Content-Length: 0"),
        answer_bytes("404 Not Found", HTML, "Content-Length: 2") + b"no",
        ok(b"%PDF", "Content-Type: application/pdf"),
        ok(b"GIF8", "Content-Type: image/gif"),
        ok(b"<p>", "Content-Type: application/xhtml+xml"),
        ok(b"<p>"),
        ok(b"<p>", HTML, "Content-Disposition: Attachment; filename=a.html"),
        ok(b"<p>", HTML, "X-Frame-Options: DENY"),
        ok(b"<p>", HTML, "Content-Security-Policy: frame-ancestors 'none'"),
    ],
)
async def test_what_is_no_page_for_a_frame_passes_unchanged(answer: bytes) -> None:
    async with ide(answer) as (world, _):
        with_shell = await get(world, *TAB)
    async with ide(answer, on=False) as (world, _):
        without = await get(world, *TAB)

    def told(one: Answer) -> list[tuple[str, str]]:
        return [header for header in one.headers if header[0] != "date"]

    assert (with_shell.status, with_shell.body) == (without.status, without.body)
    assert told(with_shell) == told(without)
    assert answer.endswith(with_shell.body)


@pytest.mark.parametrize(
    ("lines", "method"),
    [
        (FRAME, "GET"),
        (("Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: embed"), "GET"),
        (("Sec-Fetch-Mode: cors", "Sec-Fetch-Dest: empty", "Sec-Fetch-Site: same-origin"), "GET"),
        (("Accept: text/html",), "GET"),  # an older browser, or a tool
        ((*TAB, f"Origin: {ORIGIN}", "Content-Length: 0"), "POST"),
    ],
)
async def test_everything_else_gets_the_ide(lines: tuple[str, ...], method: str) -> None:
    async with ide(PAGE) as (world, _):
        answer = await get(world, *lines, method=method)
        assert answer.body == b"<p>the IDE"
        assert answer.values("etag") == ["x"]
        vary = [shell.VARY.decode()] if lines is FRAME else []
        assert answer.values("vary") == vary
        assert world.sightings == []


async def test_without_the_shell_a_tab_gets_the_ide() -> None:
    async with ide(PAGE, on=False) as (world, _):
        assert (await get(world, *TAB)).body == b"<p>the IDE"


async def test_who_opens_it_by_hand_was_there() -> None:
    async with ide(PAGE) as (world, _):
        await get(world, *BY_HAND, "Sec-Purpose: prefetch")
        await get(world, *TAB)  # a page that reloads itself
        assert world.sightings == []
        await get(world, *BY_HAND)
        assert world.sightings == [("w1", "input", "visit")]


@pytest.mark.parametrize("status", [W.STOPPED, W.FAILED, W.TERMINATED, W.STOPPING, W.STARTING])
async def test_a_frame_wakes_nothing(status: W) -> None:
    async with served() as world:
        world.becomes(status)
        framed = await get(world, *FRAME)
        assert (framed.status, world.visits) == (503, [])
        assert f"“thesis” is {status}" in framed.body.decode()
        assert "frame-ancestors 'self'" in framed.values(CSP)[0]
        assert (await get(world, *TAB)).status == 202
        assert world.visits == ["/lab"]


async def test_a_frame_of_an_ide_that_does_not_answer_says_so() -> None:
    async with served(ide=1) as world:
        framed = await get(world, *FRAME)
        assert (framed.status, world.visits) == (502, [])
        await get(world, *TAB)
        assert world.visits == ["/lab"]
