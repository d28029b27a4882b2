"""A headless Chromium for each test, and a way to serve an app of the test's own."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from tests import prompt

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@dataclass
class Console:
    """What a page complained about. Violations of the Content-Security-Policy are errors here, too."""

    errors: list[str] = field(default_factory=list)

    def watch(self, page: Any) -> None:
        def note(said: Any) -> None:
            # Chromium also reports a page's own status above 399 here; that is the answer, no mistake.
            if said.type == "error" and said.location["url"] != page.url:
                self.errors.append(said.text)

        page.on("console", note)
        page.on("pageerror", lambda error: self.errors.append(str(error)))


@pytest.fixture
async def browser() -> AsyncIterator[Any]:
    """A playwright Browser. Make contexts and pages of it; they end with the test."""
    if not CHROMIUM.exists():
        pytest.skip(f"needs {CHROMIUM}: apt-get install chromium")
    playwright = pytest.importorskip("playwright.async_api", reason="needs pip install playwright")
    async with playwright.async_playwright() as started:
        chromium = await started.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        yield chromium
        await chromium.close()


@pytest.fixture
async def page(browser: Any) -> AsyncIterator[Any]:
    """A page of 1280 × 800 whose waits give up after ten seconds."""
    context = await browser.new_context(viewport={"width": 1280, "height": 800})
    context.set_default_timeout(10_000)
    yield await context.new_page()
    await context.close()


@pytest.fixture
def console(page: Any) -> Console:
    """Errors of `page`, from its first moment on."""
    said = Console()
    said.watch(page)
    return said


@contextlib.asynccontextmanager
async def serving(make_app: Callable[[int], Any]) -> AsyncIterator[int]:
    """Serve make_app(port) on a free loopback port; the port."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    port: int = listener.getsockname()[1]
    config = uvicorn.Config(
        make_app(port), log_config=None, lifespan="off", timeout_graceful_shutdown=1
    )
    server = prompt.Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        while not server.started:
            await asyncio.sleep(0.01)
            if task.done():
                task.result()
        yield port
    finally:
        server.should_exit = True
        await task
        listener.close()


@pytest.fixture(name="serving")
def serving_fixture() -> Callable[[Callable[[int], Any]], AbstractAsyncContextManager[int]]:
    return serving
