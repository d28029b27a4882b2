"""Pictures of the pages for docs/: `make screenshots`. A real gateway, a real JupyterLab, a real Chromium.

Writes docs/screenshots/PAGE-{light,dark,narrow}.png.
"""

from __future__ import annotations

import re
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

from bench.serving import Gateway

HERE = Path(__file__).parent
CHROMIUM = "/usr/bin/chromium"
CHROMIUM_FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"]
SERVE = (
    "--idle-timeout", "45", "--countdown", "40,20", "--idle-sweep-interval", "1",
    "--prices", str(HERE.parent / "deploy" / "prices.example.toml"), "--warm-slots", "2",
)  # fmt: skip
LOOKS: dict[str, tuple[int, int, Any]] = {
    "light": (1280, 800, "light"),
    "dark": (1280, 800, "dark"),
    "narrow": (360, 740, "light"),
}
SLOW = 60_000  # milliseconds


def main() -> int:
    directory = HERE / "screenshots"
    directory.mkdir(exist_ok=True)
    with ExitStack() as stack:
        gateway = Gateway(stack, *SERVE)
        playwright = stack.enter_context(sync_playwright())
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_FLAGS)
        stack.callback(browser.close)
        context = browser.new_context()
        context.set_default_timeout(SLOW)
        Visit(gateway, context.new_page(), directory).all()
    return 0


class Visit:
    """One person's tab, and then the operator's."""

    def __init__(self, gateway: Gateway, page: Any, directory: Path) -> None:
        self.gateway, self.page, self.directory = gateway, page, directory

    def take(self, name: str, ready: str = "", whole: bool = False) -> None:
        for look, (width, height, scheme) in LOOKS.items():
            self.page.set_viewport_size({"width": width, "height": height})
            self.page.emulate_media(color_scheme=scheme)
            if ready:
                self.page.wait_for_selector(ready)
            path = self.directory / f"{name}-{look}.png"
            self.page.screenshot(path=path, animations="disabled", full_page=whole)
            print(f"{name}-{look}.png", flush=True)

    def all(self) -> None:
        home = re.search(r"Open (http\S+)", self.gateway.log.read_text())
        assert home is not None
        self.page.goto(home[1])
        user = self.page.inner_text("#user")
        thesis = self.create(user, "thesis")
        self.ide(thesis)
        self.gateway.api("POST", f"workspaces/{thesis}/snapshot")
        self.home(user)
        self.dashboard()

    def create(self, user: str, name: str) -> str:
        body = {"userId": user, "name": name}
        return str(self.gateway.api("POST", "workspaces", body)["workspaceId"])

    def ide(self, workspace: str) -> None:
        """Waiting page, countdown and stopped page of a workspace that nobody touches."""
        self.page.goto(self.gateway.api("POST", f"workspaces/{workspace}/enter")["url"])
        # The boot does not wait for the camera: the page is stopped from following it.
        self.page.wait_for_selector('li[data-state="now"]')
        self.page.evaluate("window.stop()")
        self.take("waiting", 'li[data-state="now"]')
        self.page.reload()
        self.page.frame_locator("iframe").first.locator(".jp-LauncherCard").first.wait_for()
        self.page.wait_for_selector("#countdown:not([hidden])")
        self.take("countdown", "#countdown:not([hidden])")
        self.page.wait_for_selector("#stopped:not([hidden])")
        self.take("stopped", "#stopped:not([hidden])")

    def home(self, user: str) -> None:
        for name in ("numerics", "website"):
            self.gateway.becomes(self.create(user, name), "running")
        self.create(user, "seminar")
        self.page.goto(f"http://localhost:{self.gateway.port}/")
        self.page.wait_for_selector('[data-status="stopped"]')
        self.page.get_by_text("What you are told").click()
        self.page.wait_for_selector("#types tr")
        self.take("home", '[data-status="stopped"]', whole=True)

    def dashboard(self) -> None:
        self.page.goto(f"http://localhost:{self.gateway.port}/dashboard")
        self.page.fill("#key", self.gateway.key)
        self.page.keyboard.press("Enter")
        self.page.wait_for_selector("#workspaces tr")
        self.page.wait_for_selector("#charts svg")
        self.take("dashboard", whole=True)


if __name__ == "__main__":
    sys.exit(main())
