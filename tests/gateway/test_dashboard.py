"""The dashboard's account and its door."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from redis.asyncio import Redis
from starlette.applications import Starlette
from starlette.routing import Route

from gateway import auth
from gateway.dashboard import Dashboard
from gateway.entrance import DASHBOARD, Entrance
from gateway.entry import Codes
from gateway.hosts import PublicUrl
from gateway.operators import TRIES, Operators
from lifecycle.model import Machine, MachineStatus, WorkspaceStatus
from lifecycle.pricing import read
from lifecycle.stores import Conflict
from lifecycle.stores.fleet import RedisFleet
from lifecycle.stores.metered import RedisUsage
from lifecycle.stores.redis import RedisStore
from lifecycle.stores.signals import Flush, RedisSignals

W, M = WorkspaceStatus, MachineStatus
KEYS = auth.Keys("s" * 32, "the key")
ORIGIN = "http://localhost:8000"
PRICES = read('currency = "EUR"\n[running]\ndefault = 0.25\n[stored]\ngib-month = 730')


async def eta(position: int) -> float:
    return 4.2 * position


class World:
    def __init__(self, redis: Redis) -> None:
        self.store, self.fleet = RedisStore(redis), RedisFleet(redis)
        self.signals, self.usage = RedisSignals(redis), RedisUsage(redis)
        self.dashboard = Dashboard(
            self.store, self.fleet, self.signals, self.usage, eta, PRICES, look=0.05
        )

    async def machine(self, name: str = "m-1") -> Machine:
        found = await self.fleet.machine(name)
        assert found is not None
        return found

    async def fill(self) -> None:
        """ada runs, bob waits, and one machine is ready."""
        await self.fleet.intend("fake", 2, 1, bound=5, machine_class="standard")
        await self.fleet.change(await self.machine(), M.READY)
        ada, _ = await self.store.ensure("ada")
        ada = await self.store.wake(ada.id)
        ada = await self.store.change(ada, W.STARTING, place="m-1")
        ada = await self.store.change(ada, W.RUNNING)
        bob, _ = await self.store.ensure("bob")
        await self.store.wake(bob.id)
        await self.signals.flush("g1", Flush(connections={ada.id: 3}))


@pytest.fixture
async def world(redis: Redis) -> World:
    world = World(redis)
    await world.fill()
    return world


async def test_one_account_of_everything(world: World) -> None:
    await world.fleet.decided({"want": 2, "have": 1, "reason": "because", "at_ms": 5})
    await world.dashboard.sample()
    said = (await world.dashboard.account()).model_dump(by_alias=True)
    assert said["sessions"]["total"] == 3
    assert (said["workspaces"]["running"], said["workspaces"]["queued"]) == (1, 1)
    [machine] = said["machines"]
    assert (machine["instanceId"], machine["machineClass"]) == ("m-1", "standard")
    assert [seat["userId"] for seat in machine["seats"]] == ["ada"]
    [waiting] = said["queue"]
    assert (waiting["userId"], waiting["position"], waiting["etaSeconds"]) == ("bob", 1, 5)
    assert (said["scaler"]["reason"], said["scaler"]["at"]) == ("because", 5)
    assert (said["cost"]["currency"], said["cost"]["perHour"]) == ("EUR", 0.25)
    assert said["cost"]["monthToDate"] >= 0
    assert said["events"][0]["at"] >= said["events"][-1]["at"], "newest first"
    [point] = said["series"]
    assert (point["sessions"], point["running"], point["slots"]) == (3, 1, 2)


async def test_what_is_stored_costs_too(world: World) -> None:
    [bob] = await world.store.list("bob")
    await world.store.note(bob, "workspace.snapshotted", {"filesBytes": str(2**30)})
    cost = (await world.dashboard.account()).cost
    assert cost is not None
    assert cost.per_hour == 1.25


async def test_all_who_look_share_one_computation(world: World) -> None:
    async def look() -> list[int]:
        accounts = world.dashboard.follow()
        found = [(await anext(accounts)).at for _ in range(4)]
        await accounts.aclose()
        return found

    looks = await asyncio.gather(*(look() for _ in range(20)))
    assert all(rows == sorted(rows) and len(set(rows)) > 1 for rows in looks)
    assert world.dashboard.computed <= 6
    # Nobody looks any more: nothing is computed any more.
    task = world.dashboard._looking
    assert task is not None
    await asyncio.wait_for(task, 5)
    done = world.dashboard.computed
    assert (await world.dashboard.account()).at > 0
    assert world.dashboard.computed <= done + 1


async def test_an_operators_drain_lasts(world: World) -> None:
    await world.fleet.hold("m-1", True)
    await world.fleet.hold("m-1", True)
    machine = await world.machine()
    assert (machine.status, machine.held_by) == (M.DRAINING, "operator")
    with pytest.raises(Conflict):
        await world.store.change((await world.store.list("bob"))[0], W.STARTING, place="m-1")
    await world.fleet.hold("m-1", False)
    machine = await world.machine()
    assert (machine.status, machine.held_by) == (M.READY, "")
    for wrong in ("m-2", "m-9"):
        with pytest.raises(Conflict):
            await world.fleet.hold(wrong, True)
    await world.fleet.doom(machine, 5, "spot")
    with pytest.raises(Conflict, match="taken away"):
        await world.fleet.hold("m-1", False)


# The door


@pytest.fixture
async def door(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Any]:
    monkeypatch.setattr("gateway.operators.WAIT", 0)
    public = PublicUrl.parse(ORIGIN)
    entrance = Entrance(Codes(redis), KEYS, public, entry_ttl=60, code_ttl=30)
    operators = Operators(entrance)
    app = Starlette(
        routes=[
            Route("/dashboard", operators.page),
            Route("/dashboard/enter", operators.enter, methods=["POST"]),
            Route("/dashboard/leave", operators.leave, methods=["POST"]),
        ]
    )
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url=ORIGIN) as client:
        client.entrance = entrance  # type: ignore[attr-defined]
        yield client


async def enter(door: Any, key: str, origin: str | None = ORIGIN) -> httpx.Response:
    headers = {"content-type": "application/x-www-form-urlencoded"}
    headers |= {"origin": origin} if origin else {}
    answer: httpx.Response = await door.post(
        "/dashboard/enter", content=urlencode({"key": key}), headers=headers
    )
    return answer


async def test_the_key_opens_the_dashboard_once_and_for_all(door: Any) -> None:
    assert (await door.get("/dashboard")).status_code == 401
    answer = await enter(door, "the key")
    assert (answer.status_code, answer.headers["location"]) == (303, "/dashboard")
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly; SameSite=Strict" in cookie
    assert "Domain" not in cookie
    assert "the key" not in cookie
    page = await door.get("/dashboard")
    assert page.status_code == 200
    assert "dashboard.js" in page.text
    left = await door.post("/dashboard/leave", headers={"origin": ORIGIN})
    assert "Max-Age=0" in left.headers["set-cookie"]
    assert (await door.get("/dashboard")).status_code == 401


@pytest.mark.parametrize("origin", [None, "null", "http://ada.localhost:8000", f"{ORIGIN}/"])
async def test_only_its_own_page_enters(door: Any, origin: str | None) -> None:
    answer = await enter(door, "the key", origin)
    assert answer.status_code == 403
    assert "set-cookie" not in answer.headers


async def test_who_guesses_waits(door: Any) -> None:
    for wrong in ["wrong", "", "the key" * 1000, "\ud83d".encode("utf-16", "surrogatepass").hex()]:
        assert (await enter(door, wrong)).status_code == 403
    for _ in range(TRIES - 4):
        assert (await enter(door, "wrong")).status_code == 403
    late = await enter(door, "the key")
    assert (late.status_code, late.headers["retry-after"]) == (429, "60")


def identified(door: Any, cookie: str, path: str = DASHBOARD, **more: str) -> Any:
    from starlette.requests import Request

    headers = [(name.replace("_", "-").encode(), value.encode()) for name, value in more.items()]
    scope = {
        "type": "http", "method": "GET", "path": path, "query_string": b"",
        "headers": [(b"host", b"localhost:8000"), (b"cookie", cookie.encode()), *headers],
    }  # fmt: skip
    return door.entrance.identify(Request(scope))


async def test_whom_the_cookie_makes(door: Any) -> None:
    cookie = (await enter(door, "the key")).headers["set-cookie"].partition(";")[0]
    home = f"{auth.HOME_COOKIE}={auth.make_home_cookie('ada', KEYS, now=2**31)}"
    assert identified(door, cookie) == auth.Admin(by_cookie=True)
    assert identified(door, cookie, "/api/pool", x_ide_gateway_operator="1") == auth.Admin(True)
    assert identified(door, cookie, "/api/workspaces") == auth.Nobody(), (
        "the home page is a person's"
    )
    assert identified(door, home) == auth.Person("ada")
    assert identified(door, f"{home}; {cookie}", "/api/workspaces") == auth.Person("ada")
    assert identified(door, f"{home}; {cookie}") == auth.Admin(True)
    assert identified(door, cookie, origin="http://ada.localhost:8000") == auth.Nobody()
    assert identified(door, cookie, sec_fetch_site="same-site") == auth.Nobody()
    assert identified(door, cookie, authorization="Bearer wrong") == auth.Nobody()
    assert identified(door, f"{cookie}x") == auth.Nobody()
    with pytest.raises(auth.BadCookies):
        identified(door, f"{cookie}; {cookie}")
    other = auth.make_operator_cookie(auth.Keys(KEYS.signing_key, "another key"), now=2**31)
    name = auth.OPERATOR_COOKIE
    assert identified(door, f"{name}={other}") == auth.Nobody(), "a changed key ends it"
