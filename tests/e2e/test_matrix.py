"""Who × what × how: every credential on every way in, and every Origin on what changes or connects.

One serving process for the module. A check that one way has and its twin has not fails here: each row is
asked for by HTTP, by WebSocket, on a workspace's own host and on its ports' hosts, and over the API.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway import api, auth
from tests.e2e import raw
from tests.e2e.harness import IDE_FLAGS, Gateway, host_of

PAGE = "Accept: text/html"
UNKNOWN = "no-such-workspace"
DAY = 86400.0


class Workspace:
    def __init__(self, row: dict[str, Any], machine: Path) -> None:
        self.id, self.user = str(row["workspaceId"]), str(row["userId"])
        self.host = host_of(row)
        state = json.loads((machine / "workspaces" / self.id / "state.json").read_text())
        self.ide_port = int(state["port"])

    def at_port(self, port: int) -> str:
        return f"{port}--{self.host}"


class World:
    """ada has two workspaces, eve has one that runs and one that is stopped."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway, self.port = gateway, gateway.port
        self.base, self.origin = f"localhost:{gateway.port}", f"http://localhost:{gateway.port}"
        signing = (gateway.data_dir / "signing-key").read_text().strip()
        self.keys = auth.Keys(signing, gateway.key)
        machine = gateway.data_dir / "machines" / "m-1"
        rows = [self.running(u, n) for u, n in (("ada", ""), ("ada", "two"), ("eve", ""))]
        self.mine, self.second, self.hers = (Workspace(row, machine) for row in rows)
        self.agent_port = int(json.loads((machine / "agent.json").read_text())["port"])
        asleep = self.running("eve", "asleep")
        self.asleep = Workspace(asleep, machine)
        self.key("POST", f"/api/workspaces/{self.asleep.id}/stop")
        self.until(self.asleep.id, "stopped")

    def ask(self, host: str, method: str, target: str, *headers: str, body: bytes = b"") -> Any:
        return raw.request(self.port, method, target, f"Host: {host}", *headers, body=body)

    def shake(self, host: str, target: str, *headers: str) -> raw.Answer:
        return raw.handshake(self.port, target, f"Host: {host}", *headers)

    def opens(self, host: str, *headers: str) -> bool:
        return raw.opens(self.port, "/ws", f"Host: {host}", *headers)

    def key(self, method: str, path: str, body: Any = None) -> Any:
        data = b"" if body is None else json.dumps(body).encode()
        sent = f"Authorization: Bearer {self.gateway.key}"
        return self.ask(self.base, method, path, sent, body=data)

    def show(self, workspace_id: str) -> dict[str, Any]:
        return dict(json.loads(self.key("GET", f"/api/workspaces/{workspace_id}").body))

    def running(self, user: str, name: str) -> dict[str, Any]:
        row = json.loads(self.key("POST", "/api/workspaces", {"userId": user, "name": name}).body)
        return self.until(row["workspaceId"], "running")

    def until(self, workspace_id: str, status: str) -> dict[str, Any]:
        deadline = time.monotonic() + 20
        while (row := self.show(workspace_id))["status"] != status:
            assert time.monotonic() < deadline, row
            time.sleep(0.05)
        return row

    def truth(self) -> dict[str, tuple[str, int]]:
        rows = json.loads(self.key("GET", "/api/workspaces").body)
        return {row["workspaceId"]: (row["status"], row["epoch"]) for row in rows}

    # Credentials, as header lines. age: seconds since they were given.

    def home(self, user: str, age: float = 0) -> str:
        return f"Cookie: {auth.HOME_COOKIE}={self._home(user, age)}"

    def _home(self, user: str, age: float = 0) -> str:
        return auth.make_home_cookie(user, self.keys, now=time.time() - age)

    def cookie(self, workspace: Workspace, user: str = "", age: float = 0) -> str:
        return f"Cookie: {auth.WORKSPACE_COOKIE}={self._cookie(workspace, user, age)}"

    def _cookie(self, workspace: Workspace, user: str = "", age: float = 0) -> str:
        by = user or workspace.user
        return auth.make_workspace_cookie(workspace.id, by, self.keys, now=time.time() - age)

    def token(self, workspace: Workspace, user: str = "", age: float = 0) -> str:
        return f"Authorization: Bearer {self._token(workspace, user, age)}"

    def _token(self, workspace: Workspace, user: str = "", age: float = 0) -> str:
        by = user or workspace.user
        return auth.make_workspace_token(workspace.id, by, self.keys, now=time.time() - age)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    data = tmp_path_factory.mktemp("matrix") / "data"
    data.mkdir(mode=0o755)  # made by an operator: nobody else may read what is in it all the same
    data.chmod(0o755)
    gateway = Gateway(data, *IDE_FLAGS, "--api-rate", "100000")
    try:
        asyncio.run(gateway.start())
        yield World(gateway)
        assert gateway.stop() == 0
    finally:
        gateway.clean_up()


@pytest.fixture(autouse=True)
def nothing_moves(world: World) -> Iterator[None]:
    """Whatever was asked: the same workspaces are in the same boots."""
    before = world.truth()
    yield
    assert world.truth() == before


# Into a workspace.

STRANGER, NOT_HIS, PLANTED = (401, 4401), (404, 4404), (400, 400)
"""(HTTP status, close code of a WebSocket or the status of its refusal)."""


def forge(signed: str) -> str:
    """One character of the signature is another; not its last, which holds bits that nobody reads."""
    return signed[:-10] + ("A" if signed[-10] != "A" else "B") + signed[-9:]


def credentials(w: World) -> dict[str, tuple[list[str], tuple[int, int]]]:
    """What somebody may hold who comes to ada's first workspace, other than what opens it."""
    forged = forge(w.cookie(w.mine))
    name, other_key = auth.WORKSPACE_COOKIE, auth.Keys("another key", "")
    strange = auth.make_workspace_cookie(w.mine.id, "ada", other_key, now=time.time())
    return {
        "none": ([], STRANGER),
        "empty cookie": ([f"Cookie: {name}="], STRANGER),
        "forged cookie": ([forged], STRANGER),
        "another gateway's cookie": ([f"Cookie: {name}={strange}"], STRANGER),
        "expired cookie": ([w.cookie(w.mine, age=2 * DAY)], STRANGER),
        "cookie of his other workspace": ([w.cookie(w.second)], STRANGER),
        "cookie of her workspace": ([w.cookie(w.hers)], STRANGER),
        "cookie under another case": (
            [f"Cookie: {name.upper()}={w._cookie(w.mine)}"], STRANGER),
        "cookie under the https name": ([f"Cookie: __Host-{name}={w._cookie(w.mine)}"], STRANGER),
        "home cookie": ([w.home("ada")], STRANGER),
        "home cookie by this name": ([f"Cookie: {name}={w._home('ada')}"], STRANGER),
        "token as cookie": ([f"Cookie: {name}={w._token(w.mine)}"], STRANGER),
        "cookie as token": ([f"Authorization: Bearer {w._cookie(w.mine)}"], STRANGER),
        "cookie as igw token": ([f"Authorization: Bearer igw_{w._cookie(w.mine)}"], STRANGER),
        "expired token": ([w.token(w.mine, age=2 * DAY)], STRANGER),
        "token of his other workspace": ([w.token(w.second)], STRANGER),
        "token of her workspace": ([w.token(w.hers)], STRANGER),
        "wrong token is not saved by a cookie": (
            [w.token(w.hers), w.cookie(w.mine)], STRANGER),
        "api key": ([f"Authorization: Bearer {w.gateway.key}"], STRANGER),
        "api key is not saved by a cookie": (
            [f"Authorization: Bearer {w.gateway.key}", w.cookie(w.mine)], STRANGER),
        "api key as cookie": ([f"Cookie: {name}={w.gateway.key}"], STRANGER),
        "api key as basic": ([f"Authorization: Basic {w.gateway.key}"], STRANGER),
        "her name in his cookie": ([w.cookie(w.mine, "eve")], NOT_HIS),
        "her name in his token": ([w.token(w.mine, "eve")], NOT_HIS),
        "two cookies": ([w.cookie(w.mine), w.cookie(w.hers)], PLANTED),
        "the same cookie twice": ([w.cookie(w.mine)] * 2, PLANTED),
        "two cookies in one line": (
            [w.cookie(w.mine) + f"; {name}={w._cookie(w.mine)}"], PLANTED),
        "two tokens": ([w.token(w.mine)] * 2, PLANTED),
    }  # fmt: skip


HOLDERS = [
    "none", "empty cookie", "forged cookie", "another gateway's cookie", "expired cookie",
    "cookie of his other workspace", "cookie of her workspace", "cookie under another case",
    "cookie under the https name", "home cookie", "home cookie by this name", "token as cookie",
    "cookie as token", "cookie as igw token", "expired token", "token of his other workspace",
    "token of her workspace", "wrong token is not saved by a cookie", "api key",
    "api key is not saved by a cookie", "api key as cookie", "api key as basic",
    "her name in his cookie", "her name in his token", "two cookies", "the same cookie twice",
    "two cookies in one line", "two tokens",
]  # fmt: skip

CALLS = [
    ("GET", "/files/kept.txt"), ("HEAD", "/files/kept.txt"), ("OPTIONS", "/files/kept.txt"),
    ("PUT", "/files/stolen.txt"), ("DELETE", "/files/kept.txt"), ("POST", "/die"), ("GET", "/die"),
    ("GET", "/_gateway/progress"), ("POST", "/_gateway/start"), ("GET", "/_gateway/no-such"),
    ("GET", "//_gateway/progress"), ("GET", "/_gateway%2fprogress"), ("GET", "/%5fgateway/progress"),
    ("GET", "/_gateway/../die"), ("GET", "/_gateway/static/../../die"),
]  # fmt: skip


@pytest.mark.parametrize("holder", HOLDERS)
def test_nobody_enters_a_workspace_without_its_own_credential(world: World, holder: str) -> None:
    w = world
    lines, (status, close) = credentials(w)[holder]
    planted = holder == "two tokens"  # refused before anybody looks at the path
    for host in (w.mine.host, w.mine.at_port(w.mine.ide_port), w.mine.at_port(w.port)):
        origin = f"Origin: http://{host}"
        for method, target in CALLS:
            answer = w.ask(host, method, target, origin, *lines)
            # Styles are anybody's; what else is asked for among them is not there.
            expected = 404 if "/static/" in target and not planted else status
            assert answer.status == expected, (host, method, target, answer)
            assert b"kept" not in answer.body
        for target in ("/ws", "/_gateway/ws", "/_gateway/progress", "//ws"):
            answer = w.shake(host, target, origin, *lines)
            got = answer.status if answer.status != 101 else answer.close[0]
            assert got == close, (host, target, answer)
        if status == 401:  # a person is sent where they can prove who they are
            page = w.ask(host, "GET", "/lab?a=1", PAGE, *lines)
            label = host.partition(".")[0]
            there = f"{w.origin}/open/{label}?next=%2Flab%3Fa%3D1"
            assert (page.status, page.header("location")) == (303, there)


def test_the_list_of_holders_is_whole(world: World) -> None:
    assert list(credentials(world)) == HOLDERS


@pytest.mark.parametrize("how", ["cookie", "token"])
def test_its_own_credential_opens_it_in_every_way(world: World, how: str) -> None:
    w = world
    line = w.cookie(w.mine) if how == "cookie" else w.token(w.mine)
    origin = f"Origin: http://{w.mine.host}"
    assert w.ask(w.mine.host, "GET", "/echo", line).status == 200
    assert w.ask(w.mine.host, "PUT", "/files/own.txt", line, origin, body=b"x").status == 201
    assert w.ask(w.mine.host, "GET", "/_gateway/progress", line).status == 200
    assert w.ask(w.mine.host, "POST", "/_gateway/start", line, origin).status == 202
    assert w.opens(w.mine.host, line, origin)


def test_her_sleeping_workspace_is_not_woken_by_others(world: World) -> None:
    w = world
    host, origin = w.asleep.host, f"Origin: http://{w.asleep.host}"
    for line in (w.cookie(w.asleep, "ada"), w.token(w.asleep, "ada")):
        for method, target in (("GET", "/"), ("POST", "/_gateway/start")):
            assert w.ask(host, method, target, line, origin, PAGE).status == 404
    for line in (w.cookie(w.mine), w.home("eve"), w.home("ada"), "X: y"):
        assert w.ask(host, "POST", "/_gateway/start", line, origin).status == 401
        assert w.ask(host, "GET", "/", line, PAGE).status == 303
    # Not even her own page's reconnects, reads and pictures do.
    own = w.cookie(w.asleep)
    assert w.shake(host, "/ws", own, origin).close[0] == 4410
    assert w.ask(host, "GET", "/x.png", own).status == 503
    assert w.ask(host, "GET", "/", own, PAGE, "Sec-Purpose: prefetch").status == 503


# The IDE behind it.


def test_what_opens_the_gateway_stops_at_the_gateway(world: World) -> None:
    w = world
    dirty = f"Cookie: a=1; {auth.HOME_COOKIE}={w._home('ada')}; b=2; __Host-ide-gateway=x"
    for lines in ([w.cookie(w.mine), dirty], [w.token(w.mine), dirty], [dirty, w.cookie(w.mine)]):
        lines += ["X-IDE-Secret: guessed", "Connection: x-ide-secret, cookie-2, upgrade"]
        seen = w.ask(w.mine.host, "GET", "/echo", *lines)
        text = raw.exchange(
            w.port, "/ws", b"headers", f"Host: {w.mine.host}", *lines[:2],
            f"Origin: http://{w.mine.host}",
        )  # fmt: skip
        for headers in (json.loads(seen.body)["headers"], json.loads(text)):
            named = {name.lower(): value for name, value in headers}
            assert "authorization" not in named
            assert named["cookie"] == "a=1; b=2"
            assert named["x-ide-secret"] not in ("", "guessed")


@pytest.mark.parametrize("how", ["cookie", "token"])
def test_a_ports_host_leads_to_the_workspaces_own_ports_and_past_no_lock(
    world: World, how: str
) -> None:
    w = world
    line = w.cookie(w.mine) if how == "cookie" else w.token(w.mine)
    for port in (w.port, w.agent_port, w.hers.ide_port, w.second.ide_port, 1, 65535):
        host = w.mine.at_port(port)
        answer = w.ask(host, "GET", "/", line)
        assert (answer.status, answer.error["code"]) == (404, "nothing_listens"), (port, answer)
        assert w.shake(host, "/ws", line, f"Origin: http://{host}").status == 404
    own = w.mine.at_port(w.mine.ide_port)
    for answer in (
        w.ask(own, "GET", "/files/kept.txt", line),
        w.shake(own, "/ws", line, f"Origin: http://{own}"),
    ):
        assert (answer.status, answer.body) == (403, b"wrong secret\n"), (
            "the gateway adds it not here"
        )
    for host in (f"0--{w.mine.host}", f"65536--{w.mine.host}", f"080--{w.mine.host}"):
        assert w.ask(host, "GET", "/", line).status == 421


def test_an_entry_code_is_good_for_one_host(world: World) -> None:
    w = world
    labels = [w.mine.id, f"8080--{w.mine.id}", f"8081--{w.mine.id}", w.second.id]
    for label in labels:
        for elsewhere in labels:
            opened = w.ask(w.base, "GET", f"/open/{label}", w.home("ada"), PAGE)
            url = opened.header("location")
            assert url.startswith(f"http://{label}.{w.base}/_gateway/enter?code=")
            answer = w.ask(f"{elsewhere}.{w.base}", "GET", "/" + url.split("/", 3)[3])
            cookie = answer.header("set-cookie")
            if elsewhere == label:
                assert (answer.status, answer.header("location")) == (303, "/")
                assert cookie.endswith("Path=/; Max-Age=86400; HttpOnly; SameSite=Lax")
                assert answer.header("referrer-policy") == "no-referrer"
            else:
                assert (answer.status, cookie) == (401, None)
    for user, label in (("eve", w.mine.id), ("ada", w.hers.id), ("ada", UNKNOWN)):
        answer = w.ask(w.base, "GET", f"/open/{label}", w.home(user), PAGE)
        assert (answer.status, answer.header("location")) == (404, None)


@pytest.mark.parametrize(
    "following",
    [
        "//evil.example", "///evil.example", "/%5Cevil.example", "%5C%5Cevil.example", "/%09/evil.example",
        "https://evil.example", "javascript:alert(1)", "/%0d%0aSet-Cookie:x=y", "evil.example", "/%2e%2e//x",
        "@evil.example", ".evil.example", "/%C3%A9", "%00/",
    ],
)  # fmt: skip
def test_one_lands_on_the_host_one_entered(world: World, following: str) -> None:
    w = world
    opened = w.ask(w.base, "GET", f"/open/{w.mine.id}?next={following}", w.home("ada"), PAGE)
    inside = "/" + opened.header("location").split("/", 3)[3]
    for target in (inside, f"{inside}&next={following}"):
        landed = w.ask(w.mine.host, "GET", target)
        where = landed.header("location")
        assert where in (None, "/", "/..//x"), landed
        assert [name for name, _ in landed.headers].count("set-cookie") <= 1
    asleep = w.ask(w.mine.host, "POST", f"/_gateway/start?next={following}", w.token(w.mine), PAGE)
    assert (asleep.status, asleep.header("location")) in ((303, "/"), (303, "/..//x"))
    astray = w.ask(f"127.0.0.1:{w.port}", "GET", f"/{following}", PAGE)
    assert (astray.header("location") or w.origin).startswith(w.origin)


# The API and the base host's pages.


def operations(*access: str) -> list[tuple[str, str]]:
    """Every call of the API with this access, so that none added later is left out."""
    return [(o.method, o.path) for o in api.operations() if o.access in access]


def base_credentials(w: World) -> dict[str, tuple[list[str], int]]:
    forged = forge(w.home("ada"))
    name = auth.HOME_COOKIE
    return {
        "none": ([], 401),
        "forged": ([forged], 401),
        "expired": ([w.home("ada", age=2 * DAY)], 401),
        "a workspace's cookie": ([w.cookie(w.mine)], 401),
        "a workspace's cookie by this name": ([f"Cookie: {name}={w._cookie(w.mine)}"], 401),
        "a workspace's token": ([w.token(w.mine)], 401),
        "the home cookie as bearer": ([f"Authorization: Bearer {w._home('ada')}"], 401),
        "a wrong key": (["Authorization: Bearer wrong"], 401),
        "no key": (["Authorization: Bearer "], 401),
        "a wrong key is not saved by a cookie": (
            ["Authorization: Bearer wrong", w.home("ada")], 401),
        "the key by another scheme": ([f"Authorization: Basic {w.gateway.key}"], 401),
        "the key twice": ([f"Authorization: Bearer {w.gateway.key}"] * 2, 400),
        "two cookies": ([w.home("ada"), w.home("eve")], 400),
    }  # fmt: skip


@pytest.mark.parametrize(("method", "path"), operations("person", "admin"))
def test_nobody_calls_the_api_without_its_credential(world: World, method: str, path: str) -> None:
    w = world
    target = path.replace("{id}", w.mine.id)
    for holder, (lines, status) in base_credentials(w).items():
        for accept in ("Accept: */*", "Accept: text/event-stream", PAGE):
            answer = w.ask(w.base, method, target, f"Origin: {w.origin}", accept, *lines)
            assert answer.status == status, (holder, answer)
    for how in ("HEAD", "GET") if method == "GET" else ():
        assert w.ask(w.base, how, target).status == 401


@pytest.mark.parametrize("target", ["/", f"/open/{UNKNOWN}"])
def test_nobody_sees_the_home_page_without_its_cookie(world: World, target: str) -> None:
    for holder, (lines, status) in base_credentials(world).items():
        answer = world.ask(world.base, "GET", target, PAGE, *lines)
        assert answer.status in (401, status), (holder, answer)
        assert b"ada" not in answer.body


@pytest.mark.parametrize(("method", "path"), operations("admin"))
def test_the_operators_calls_are_the_operators(world: World, method: str, path: str) -> None:
    assert world.ask(world.base, method, path, world.home("ada")).status == 403
    assert world.key(method, path).status == let_in(method, path)


def let_in(method: str, path: str) -> int:
    """What a call answers that may be made, of something that is not there or without a body."""
    return 404 if "{" in path else 422 if (method, path) == ("POST", "/api/peaks") else 200


def test_the_operators_cookie_opens_the_dashboards_calls_and_no_workspace(world: World) -> None:
    w = world
    value = auth.make_operator_cookie(w.keys, now=time.time())
    cookie, says = f"Cookie: {auth.OPERATOR_COOKIE}={value}", "X-Ide-Gateway-Operator: 1"
    for method, path in operations("admin"):
        own = w.ask(w.base, method, path, cookie, says, f"Origin: {w.origin}")
        assert own.status == let_in(method, path)
        for line in (forge(cookie), f"Cookie: {auth.OPERATOR_COOKIE}={w._home('ada')}"):
            assert w.ask(w.base, method, path, line, says).status == 401
        for origin in foreign(w, w.origin):
            status = w.ask(w.base, method, path, cookie, says, f"Origin: {origin}").status
            assert status in (401, 403), origin
        if method != "GET":
            assert w.ask(w.base, method, path, cookie, says).status == 403
    assert w.ask(w.base, "GET", "/api/workspaces", cookie).status == 401
    assert w.ask(w.base, "GET", "/", PAGE, cookie).status == 401
    assert w.ask(w.mine.host, "GET", "/", cookie, says).status == 401


@pytest.mark.parametrize(("method", "path"), [o for o in operations("person") if "{id}" in o[1]])
def test_what_is_hers_is_unknown_to_him(world: World, method: str, path: str) -> None:
    w = world
    origin = f"Origin: {w.origin}"
    for workspace in (w.hers, w.asleep):
        hers, unknown = (
            w.ask(w.base, method, path.replace("{id}", name), w.home("ada"), origin)
            for name in (workspace.id, UNKNOWN)
        )
        assert (hers.status, hers.error["code"]) == (404, "not_found")
        assert hers.body == unknown.body


WITH_QUERY = [
    ("GET", "/api/workspaces?userId=eve", b"", 200, b"[]"),
    ("GET", "/api/usage?user=eve", b"", 404, b"no such user"),
    ("GET", "/api/events?workspaceId={hers}", b"", 404, b"no such workspace"),
    ("POST", "/api/workspaces", b'{"userId": "eve"}', 403, b"for yourself only"),
    ("POST", "/api/createWorkspace", b'{"userId": "eve"}', 403, b"for yourself only"),
    ("POST", "/heartbeat", b'{"workspaceId": "{hers}"}', 404, b"no such workspace"),
    ("POST", "/workspace/update", b'{"workspaceId": "{hers}"}', 404, b"no such workspace"),
    ("DELETE", "/api/workspaces/{hers}?purge=true", b"", 404, b"no such workspace"),
]


@pytest.mark.parametrize(("method", "path", "body", "status", "words"), WITH_QUERY)
def test_nor_does_he_reach_it_by_another_name(
    world: World, method: str, path: str, body: bytes, status: int, words: bytes
) -> None:
    w = world
    for name in (w.hers.id, w.asleep.id):
        sent = body.replace(b"{hers}", name.encode())
        target = path.replace("{hers}", name)
        for accept in ("Accept: */*", "Accept: text/event-stream"):
            answer = w.ask(
                w.base, method, target, w.home("ada"), f"Origin: {w.origin}", accept, body=sent
            )
            assert answer.status == status, answer
            assert words in answer.body
            assert name.encode() not in answer.body


def test_he_sees_his_own_and_nothing_of_hers(world: World) -> None:
    w = world
    for path, count in (("/api/workspaces", 2), ("/api/events?limit=1000", 1), ("/api/usage", 1)):
        answer = w.ask(w.base, "GET", path, w.home("ada"))
        text = answer.body.decode()
        assert answer.status == 200
        assert text.count(w.mine.id) >= 1
        assert len(json.loads(text)) >= count
        for hers in (w.hers.id, w.asleep.id, '"eve"'):
            assert hers not in text


# Origins.


def foreign(w: World, own: str) -> list[str]:
    """Origins that are not this one, however near: siblings, ports, suffixes, cases, no origin."""
    host = own.removeprefix("http://")
    name, _, port = host.partition(":")
    return [
        "null", "", "*", "https://evil.example", f"http://{host}.evil.example", f"http://evil{host}",
        f"http://{name}", f"http://{name}:{int(port) + 1}", f"https://{host}", f"HTTP://{host}",
        f"http://{host.upper()}", f"{own}/", f"http://{name}.:{port}", f"{own}, {own}", f"http://x.{host}",
        *({f"http://{h}" for h in (w.base, w.mine.host, w.hers.host, w.mine.at_port(8080))} - {own}),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("method", "path"),
    [(o.method, o.path) for o in api.operations() if o.method != "GET"],
)
def test_every_changing_call_asks_for_the_origin(world: World, method: str, path: str) -> None:
    w = world
    target = path.replace("{id}", w.mine.id)
    key = f"Authorization: Bearer {w.gateway.key}"
    for origin in foreign(w, w.origin):
        for line in (w.home("ada"), key, "X: y"):
            answer = w.ask(w.base, method, target, line, f"Origin: {origin}")
            # Machines come without a person's credentials: the Origin alone gives a page away.
            unknown = 403 if path in MACHINES else 401
            assert answer.status == (unknown if line == "X: y" else 403), (origin, answer)
    # A person's cookie opens nothing without an Origin, and is none of a machine's credentials.
    refused = (401, 422) if path in MACHINES else (403,)
    assert w.ask(w.base, method, target, w.home("ada")).status in refused


MACHINES = ("/api/machines/join", "/api/machines/{id}/report")
CHANGING = ["POST", "PUT", "PATCH", "DELETE", "PROPFIND", "LOCK"]


@pytest.mark.parametrize("how", ["cookie", "token"])
def test_every_changing_request_to_a_workspace_asks_for_the_origin(world: World, how: str) -> None:
    w = world
    line = w.cookie(w.mine) if how == "cookie" else w.token(w.mine)
    for host in (w.mine.host, w.mine.at_port(w.mine.ide_port)):
        calls = [(method, "/files/stolen.txt") for method in CHANGING]
        calls += [("POST", "/_gateway/start"), ("POST", "/_gateway/no-such")]
        for method, target in calls:
            for origin in foreign(w, f"http://{host}"):
                answer = w.ask(host, method, target, line, f"Origin: {origin}")
                assert (answer.status, answer.error["code"]) == (403, "bad_origin"), origin
            if how == "cookie":
                assert w.ask(host, method, target, line).status == 403
    assert w.ask(w.mine.host, "GET", "/files/stolen.txt", line).status == 404


@pytest.mark.parametrize("how", ["cookie", "token", "nothing"])
def test_every_websocket_asks_for_the_origin(world: World, how: str) -> None:
    w = world
    line = {"cookie": w.cookie(w.mine), "token": w.token(w.mine), "nothing": "X: y"}[how]
    for host in (w.mine.host, w.mine.at_port(w.mine.ide_port), w.mine.at_port(w.port)):
        for target in ("/ws", "/_gateway/progress", "/no-such"):
            for origin in foreign(w, f"http://{host}"):
                answer = w.shake(host, target, line, f"Origin: {origin}")
                assert answer.status == 403, (target, origin, answer)
                assert not answer.rest, "not even a close code"
            if how == "cookie":
                assert w.shake(host, target, line).status == 403
    assert w.shake(w.base, "/api/events", w.home("ada"), f"Origin: {w.origin}").close[0] == 4404


@pytest.mark.parametrize("how", ["cookie", "token"])
def test_a_siblings_page_reads_and_embeds_nothing(world: World, how: str) -> None:
    """All workspaces are one site, so the browser sends the cookie; a script or picture would load."""
    w = world
    line = w.cookie(w.mine) if how == "cookie" else w.token(w.mine)
    for host in (w.mine.host, w.mine.at_port(w.mine.ide_port)):
        for target in ("/echo", "/_gateway/progress"):
            for origin in foreign(w, f"http://{host}"):
                answer = w.ask(host, "GET", target, line, f"Origin: {origin}")
                assert (answer.status, answer.error["code"]) == (403, "bad_origin"), origin
            for site in ("same-site", "cross-site"):
                for mode in ("no-cors", "cors", "websocket"):
                    fetch = (f"Sec-Fetch-Site: {site}", f"Sec-Fetch-Mode: {mode}")
                    for method in ("GET", "HEAD", "OPTIONS"):
                        assert w.ask(host, method, target, line, *fetch).status == 403
    # A person may follow a link, and the workspace's own page may load what it likes.
    follows = ("Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document")
    loads = ("Sec-Fetch-Site: same-origin", "Sec-Fetch-Mode: no-cors", "Sec-Fetch-Dest: script")
    for fetch in (follows, loads):
        assert w.ask(w.mine.host, "GET", "/echo", line, *fetch).status == 200


# What others on the host may read.

OPEN_TO_ALL = {"lock", "passwd", "group"}
"""Files without a secret: a pid, and the accounts that a workspace sees."""


def reachable(directory: Path) -> Iterator[Path]:
    """What lies in it and in those below that let others pass through."""
    for path in directory.iterdir():
        yield path
        if path.is_dir() and path.stat().st_mode & 0o011:
            yield from reachable(path)


def test_the_data_directory_tells_other_users_nothing(world: World) -> None:
    w = world
    key = f"/api/workspaces/{w.mine.id}/snapshot"
    assert w.key("POST", key).status == 200
    for path in reachable(w.gateway.data_dir):
        if path.name not in OPEN_TO_ALL:
            assert path.lstat().st_mode & 0o077 in ((0, 0o011) if path.is_dir() else (0,)), path
    for path in w.gateway.data_dir.glob("machines/*/workspaces/*/home"):
        assert path.stat().st_mode & 0o777 == 0o700


# What a path may say.


@pytest.mark.parametrize(
    "path",
    [
        "/_gateway/static/../gateway/auth.py", "/_gateway/static/..%2f..%2fgateway%2fauth.py",
        "/_gateway/static/%2e%2e/%2e%2e/pyproject.toml", "/_gateway/static//etc/passwd",
        "/_gateway/static/home.html", "/_gateway/static/__init__.py", "/_gateway/static/",
        "/_gateway/static/..%2fgateway%2fx.js", "/_gateway/static/%00.js",
    ],
)  # fmt: skip
def test_styles_are_anybodys_and_nothing_else_is(world: World, path: str) -> None:
    for host, target in ((world.mine.host, path), (world.base, path.removeprefix("/_gateway"))):
        answer = world.ask(host, "GET", target)
        assert answer.status == 404, answer
        assert b"import" not in answer.body


def test_what_is_the_gateways_is_never_the_workspaces_however_it_is_spelled(world: World) -> None:
    w = world
    for target in ("/_gateway/x", "/_gateway%2fx", "/%5fgateway/x", "/_gateway/../echo"):
        assert w.ask(w.mine.host, "GET", target, w.token(w.mine)).status == 404
    # What is not, arrives as it was sent: nothing is resolved, decoded or lost on the way.
    for target in ("/echo?a=%2F..%2f&b", "/echo?x=//y", "/echo?q=%00"):
        seen = json.loads(w.ask(w.mine.host, "GET", target, w.token(w.mine)).body)
        assert seen["path"] == target


@pytest.mark.parametrize(
    "target", ["/echo?x=\xe9", "/\xe9", "/echo?\xff\xfe", "/%ff", "/echo#x", "//x:y@z"]
)
def test_a_strange_target_breaks_nothing(world: World, target: str) -> None:
    w = world
    for host, line in ((w.mine.host, w.token(w.mine)), (w.base, w.home("ada"))):
        assert w.ask(host, "GET", target, line).status in (200, 400, 404), target
        assert w.shake(host, target, line).status in (101, 200, 400, 404), target
    assert "Traceback" not in w.gateway.log.read_text()
