"""An operator's visit to the dashboard, in a real browser over the real parts."""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import Any

import pytest
from redis.asyncio import Redis
from starlette.applications import Starlette
from starlette.routing import Mount, Route

from gateway import api, auth, pages
from gateway.api.idempotency import RedisIdempotencyKeys
from gateway.dashboard import Dashboard
from gateway.entrance import Entrance
from gateway.entry import Codes
from gateway.front import not_found
from gateway.hosts import PublicUrl
from gateway.operators import Operators
from lifecycle.model import Machine, MachineStatus, WorkspaceStatus
from lifecycle.news import News
from lifecycle.pricing import read
from lifecycle.stores.fleet import RedisFleet
from lifecycle.stores.metered import RedisUsage
from lifecycle.stores.redis import RedisStore
from lifecycle.stores.signals import Flush, RedisSignals

pytestmark = pytest.mark.browser
W, M = WorkspaceStatus, MachineStatus
KEYS = auth.Keys("s" * 32, "the-operators-key")
PRICES = read('currency = "EUR"\n[running]\ndefault = 0.25')


async def eta(position: int) -> float:
    return 7.0 * position


class Place:
    """The base host's own parts on a real Redis."""

    def __init__(self, redis: Redis) -> None:
        self.redis, self.store, self.fleet = redis, RedisStore(redis), RedisFleet(redis)
        self.signals, self.usage = RedisSignals(redis), RedisUsage(redis)
        self.dashboard = Dashboard(
            self.store, self.fleet, self.signals, self.usage, eta, PRICES, look=0.2
        )

    def app(self, port: int) -> Starlette:
        public = PublicUrl.parse(f"http://localhost:{port}")
        entrance = Entrance(Codes(self.redis), KEYS, public, entry_ttl=60, code_ttl=30)
        operators = Operators(entrance)
        given: dict[str, Any] = dict(
            store=self.store, fleet=self.fleet, history=self.signals.history,
            subscription=News(self.signals).subscription, usage=self.usage,
            keys=RedisIdempotencyKeys(self.redis), identify=entrance.identify,
            origin_allowed=entrance.origin_allowed, url_of=lambda name: f"http://{name}.localhost/",
            eta=eta, dashboard=self.dashboard, prices=PRICES,
        )  # fmt: skip
        others = {field.name for field in fields(api.Parts) if field.default is MISSING}
        others -= {
            field.name for field in fields(api.Parts) if field.default_factory is not MISSING
        }
        parts = api.Parts(**(dict.fromkeys(others) | given))
        return Starlette(
            routes=[
                *api.routes(parts),
                Route("/dashboard", operators.page),
                Route("/dashboard/enter", operators.enter, methods=["POST"]),
                Route("/dashboard/leave", operators.leave, methods=["POST"]),
                Mount(pages.BASE_ASSETS, pages.Assets()),
            ],
            exception_handlers={404: not_found},
        )

    async def machine(self, name: str) -> Machine:
        found = await self.fleet.machine(name)
        assert found is not None
        return found

    async def fill(self) -> None:
        for name in await self.fleet.intend("local", 2, 2, bound=5, machine_class="standard"):
            await self.fleet.change(await self.machine(name), M.READY)
        ada, _ = await self.store.ensure("ada", "thesis")
        ada = await self.store.change(await self.store.wake(ada.id), W.STARTING, place="m-1")
        await self.store.change(ada, W.RUNNING)
        bob, _ = await self.store.ensure("bob")
        await self.store.wake(bob.id)
        await self.signals.flush("g1", Flush(connections={ada.id: 2}))
        exam = {"peak": {"name": "exam", "at_ms": 1_796_112_000_000}, "slots": 1250}
        later = {"peak": {"name": "later", "at_ms": 1_796_212_000_000}, "slots": 0}
        need = {"risk": 0.00123456, "peaks": [exam, later]}
        await self.fleet.decided({"at_ms": 5, "users": 123456, "reason": "so", "need": need})
        for _ in range(3):
            await self.dashboard.sample()


async def test_an_operators_visit(
    page: Any, console: Any, serving: Any, redis: Redis, until: Any
) -> None:
    place = Place(redis)
    await place.fill()
    async with serving(place.app) as port:
        await page.goto(f"http://localhost:{port}/dashboard")
        await page.get_by_label("API key").fill("wrong")
        await page.keyboard.press("Enter")
        await page.get_by_role("alert").get_by_text("That is not the API key").wait_for()
        await page.get_by_label("API key").fill(KEYS.api_key)
        await page.keyboard.press("Enter")
        row = page.locator("#workspaces tr", has_text="thesis")
        await row.wait_for()
        assert KEYS.api_key not in page.url
        assert await page.evaluate("localStorage.length + sessionStorage.length") == 0
        assert await page.locator("#sessions").inner_text() == "2"
        assert "€" in await page.locator("#cost-hour").inner_text()
        assert "7 s" in await page.locator("#queue tr").inner_text()
        held = await page.locator("#scaler-peaks").inner_text()
        assert held.startswith("Held for exam (")
        assert held.endswith("): 1250 slots")
        inputs = await page.locator("#scaler").inner_text()
        assert "123456" in inputs
        assert "0.00123" in inputs
        assert "object" not in inputs
        charts = page.get_by_role("img", name="Live sessions: now 2")
        assert await charts.count() == 1

        # Live: a look later what changed is there, without a reload.
        carl, _ = await place.store.ensure("carl")
        await place.store.wake(carl.id)
        await page.locator("#queue tr", has_text="carl").wait_for()

        # A stop is asked for twice, and done once.
        stop = row.get_by_role("button", name="Stop")
        await stop.click()
        dialog = page.get_by_role("dialog")
        assert "ada is interrupted" in await dialog.inner_text()
        await page.keyboard.press("Escape")
        [ada] = await place.store.list("ada")
        assert ada.status is W.RUNNING
        await stop.click()
        await dialog.get_by_role("button", name="Stop it").click()
        await row.get_by_text("Stopping").wait_for()

        # So is a drain; it lasts until a person ends it.
        machine = page.locator("#machines tr", has_text="m-2")
        await machine.get_by_role("button", name="Drain").click()
        await dialog.get_by_role("button", name="Drain it").click()
        await machine.get_by_text("held by an operator").wait_for()
        assert (await place.machine("m-2")).held_by == "operator"
        await machine.get_by_role("button", name="Undrain").click()
        await machine.get_by_text("Ready").wait_for()

        await row.get_by_role("button", name="Why").click()
        await page.get_by_role("heading", name="Why thesis is alive").wait_for()
        await page.keyboard.press("Escape")

        # On a telephone, by night.
        await page.emulate_media(color_scheme="dark")
        await page.set_viewport_size({"width": 360, "height": 740})
        assert await page.evaluate("document.documentElement.scrollWidth") <= 360
        dark = "getComputedStyle(document.body).backgroundColor"
        assert await page.evaluate(dark) == "rgb(18, 21, 26)"

        await page.get_by_role("button", name="Sign out").click()
        await page.get_by_label("API key").wait_for()
    assert console.errors == []
