"""Bad requests against a gateway that serves: each gets a clear error, and nothing is lost by it.

One serving process for the whole module, with a workspace of one's own and one of somebody else's. After
every test both still run their first boot and hold their file.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import psutil
import pytest

from tests.e2e import raw
from tests.e2e.harness import IDE_FLAGS, Gateway, host_of

UNKNOWN = "no-such-workspace"
PAGE = "Accept: text/html"


@dataclass(frozen=True)
class Workspace:
    id: str
    host: str
    user: str
    token: str
    cookie: str

    @property
    def origin(self) -> str:
        return f"http://{self.host}"

    @property
    def by_token(self) -> tuple[str, str]:
        return f"Host: {self.host}", f"Authorization: Bearer {self.token}"

    @property
    def by_cookie(self) -> tuple[str, str]:
        return f"Host: {self.host}", f"Cookie: {self.cookie}"


class Place:
    """A serving gateway and what one person, one other person and the operator hold."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway, self.port = gateway, gateway.port
        self.base = f"Host: localhost:{gateway.port}"
        self.origin = f"http://localhost:{gateway.port}"
        self.key = gateway.key
        entered = self.ask("GET", gateway.entry.removeprefix(self.origin), self.base)
        self.home = cookie_of(entered)
        me = self.ask("GET", "/api/me", self.base, f"Cookie: {self.home}")
        self.me = str(json.loads(me.body)["userId"])
        rows = [self.create(user) for user in (self.me, "eve")]
        self.mine, self.other = (self.entered(self.running(row)) for row in rows)

    def ask(self, method: str, target: str, *headers: str, body: bytes = b"") -> raw.Answer:
        return raw.request(self.port, method, target, *headers, body=body)

    def api(self, method: str, path: str, body: Any = None, *headers: str) -> raw.Answer:
        """A call with the API key. body: bytes as they are, anything else as JSON."""
        data = (
            body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        )
        key = f"Authorization: Bearer {self.key}"
        return self.ask(method, path, self.base, key, *headers, body=data)

    def person(self, method: str, path: str, *headers: str, body: bytes = b"") -> raw.Answer:
        """A call on the base host by the home cookie. headers: the Origin, if there is one."""
        return self.ask(method, path, self.base, f"Cookie: {self.home}", *headers, body=body)

    def create(self, user: str, name: str = "") -> dict[str, Any]:
        answer = self.api("POST", "/api/workspaces", {"userId": user, "name": name})
        assert answer.status == 202, answer
        return dict(json.loads(answer.body))

    def show(self, workspace_id: str) -> dict[str, Any]:
        return dict(json.loads(self.api("GET", f"/api/workspaces/{workspace_id}").body))

    def becomes(self, workspace_id: str, status: str) -> dict[str, Any]:
        deadline = time.monotonic() + 20
        while (row := self.show(workspace_id))["status"] != status:
            assert time.monotonic() < deadline, row
            time.sleep(0.05)
        return row

    def running(self, row: dict[str, Any]) -> dict[str, Any]:
        return self.becomes(row["workspaceId"], "running")

    def code(self, workspace_id: str) -> tuple[str, str]:
        """A fresh entry: (path with its code, token)."""
        entry = json.loads(self.api("POST", f"/api/workspaces/{workspace_id}/enter").body)
        return "/" + entry["url"].split("/", 3)[3], entry["token"]

    def entered(self, row: dict[str, Any]) -> Workspace:
        path, token = self.code(row["workspaceId"])
        host = host_of(row)
        cookie = cookie_of(self.ask("GET", path, f"Host: {host}"))
        return Workspace(row["workspaceId"], host, row["userId"], token, cookie)

    def all(self) -> list[str]:
        return sorted(
            row["workspaceId"] for row in json.loads(self.api("GET", "/api/workspaces").body)
        )


def cookie_of(answer: raw.Answer) -> str:
    assert answer.status == 303, answer
    return (answer.header("set-cookie") or "").partition(";")[0]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    # The log at its most talkative: what must not be in it is not in it even then.
    gateway = Gateway(
        tmp_path_factory.mktemp("bad") / "data",
        *IDE_FLAGS,
        "--log-level",
        "debug",
        "--api-rate",
        "100000",
    )  # more than any caller may make is no bad input
    try:
        asyncio.run(gateway.start())
        found = Place(gateway)
        for workspace in (found.mine, found.other):
            kept = found.ask("PUT", "/files/kept.txt", *workspace.by_token, body=b"kept")
            assert kept.status == 201
        yield found
        assert gateway.stop() == 0
    finally:
        gateway.clean_up()


@pytest.fixture(autouse=True)
def nothing_is_lost(place: Place) -> Iterator[None]:
    before = place.all()
    yield
    assert place.all() == before
    for workspace in (place.mine, place.other):
        row = place.show(workspace.id)
        assert (row["status"], row["epoch"]) == ("running", 1)
        assert place.ask("GET", "/files/kept.txt", *workspace.by_token).body == b"kept"


# What the API is sent.


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b'{"userId": "ada"', 400, "at line 1, column 17"),
        (b'{"userId": "ada"} {}', 400, "Extra data at line 1, column 19"),
        (b"{'userId': 'ada'}", 400, "at line 1, column 2"),
        (b'{"userId": NaN}', 400, "NaN is not JSON"),
        (b'{"userId": "\xff"}', 400, "byte 12 is not UTF-8"),
        (b'{"userId": "a\nb"}', 400, "control character"),
        (b"[" * 50_000, 400, "not JSON that can be read"),
        (b'[{"userId": "ada"}]', 422, "must be a JSON object"),
        (b"null", 422, "must be a JSON object"),
        (b'"ada"', 422, "must be a JSON object"),
        (b'{"userId": 5}', 422, "userId: input should be a valid string"),
        (b'{"userId": null}', 422, "userId: field required"),
        (b"{}", 422, "userId: field required"),
        (b'{"userId": "ada", "name": "a\\nb"}', 422, "name: must consist of printable characters"),
        (b'{"userId": "ada", "name": "' + b"n" * 10_000 + b'"}', 422, "name: string should have"),
        (b'{"userId": "ada", "priority": "now"}', 422, "priority: must be one of"),
        (b'{"userId": "ada", "priority": 1e400}', 422, "priority"),
        (b'{"userId": "' + b"a" * 70_000 + b'"}', 413, "larger than 65536 bytes"),
    ],
)  # fmt: skip
def test_a_body_that_cannot_be_used(place: Place, body: bytes, status: int, words: str) -> None:
    for path in ("/api/workspaces", "/api/createWorkspace"):
        answer = place.api("POST", path, body)
        assert answer.status == status, answer
        assert words in answer.error["message"]
        assert len(answer.body) < 500


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/workspaces", {"userId": "ada", "user_id": "ada"}),
        ("/api/createWorkspace", {"userId": "ada", "colour": "red"}),
        ("/api/workspaces/{id}/start", {"colour": "red"}),
        ("/api/workspaces/{id}/stop", {"force": True}),
        ("/api/workspaces/{id}/extend", {"minutes": 5}),
        ("/api/workspaces/{id}/snapshot", {"colour": "red"}),
        ("/api/workspaces/{id}/heartbeat", {"workspaceId": "x"}),
        ("/api/workspaces/{id}/enter", {"ttl": 10**6}),
        ("/heartbeat", {"workspaceId": "{id}", "colour": "red"}),
        ("/workspace/update", {"workspaceId": "{id}", "status": "terminated"}),
    ],
)
def test_an_unknown_field_is_named(place: Place, path: str, body: dict[str, Any]) -> None:
    sent = json.loads(json.dumps(body).replace("{id}", place.mine.id))
    answer = place.api("POST", path.replace("{id}", place.mine.id), sent)
    assert answer.status == 422, answer
    assert answer.error["code"] == "unknown_field"
    assert answer.error["field"] in body
    assert f"unknown field {answer.error['field']}; known: " in answer.error["message"]


@pytest.mark.parametrize(
    ("target", "field"),
    [
        ("GET /api/workspaces?user=ada", "user"),
        ("GET /api/workspaces?status=asleep", "status"),
        ("GET /api/workspaces?status=running&status=failed", "status"),
        ("GET /api/usage?month=2026-13", "month"),
        ("GET /api/events?limit=100000", "limit"),
        ("GET /api/events?after=*", "after"),
        ("DELETE /api/workspaces/{id}?purge=maybe", "purge"),
        ("DELETE /api/workspaces/{id}?Purge=true", "Purge"),
    ],
)
def test_a_query_that_cannot_be_used(place: Place, target: str, field: str) -> None:
    method, path = target.replace("{id}", place.mine.id).split(" ")
    answer = place.api(method, path)
    assert answer.status == 422, answer
    assert answer.error["field"] == field


USER_IDS = [
    "a" * 10_000, "a" * 129, "a/b", "/", "../../etc/passwd", "a..b", "..", "ada\n", "ada\nbob", "a\r\nb",
    "", " ada", "ada ", "-ada", ".ada", "ada\0", "ädä", "ada\u202e", "a\\b", "a*b", "a\ud800",
]  # fmt: skip


@pytest.mark.parametrize("user", USER_IDS)
def test_a_user_id_that_is_none(place: Place, user: str) -> None:
    for path in ("/api/workspaces", "/api/createWorkspace"):
        answer = place.api("POST", path, {"userId": user})
        assert answer.status in ((400, 422) if "\ud800" in user else (422,)), answer
        assert answer.error.get("field", "userId") == "userId"
        assert len(answer.body) < 500, "the message does not repeat what was sent"
    spelled = quote(user, errors="surrogatepass")
    if not user:
        return  # an empty filter is no filter
    for target, field in (
        (f"/api/workspaces?userId={spelled}", "userId"),
        (f"/api/usage?user={spelled}", "user"),
    ):
        answer = place.api("GET", target)
        assert answer.status == 422, answer
        assert answer.error["field"] == field
        assert len(answer.body) < 500


# Workspaces that are not there, or not yours.

CALLS = [
    ("GET", ""), ("DELETE", ""), ("DELETE", "?purge=true"), ("GET", "/activity"), ("POST", "/start"),
    ("POST", "/stop"), ("POST", "/extend"), ("POST", "/snapshot"), ("POST", "/heartbeat"),
    ("POST", "/enter"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "call"), CALLS)
def test_an_unknown_workspace_and_somebody_elses_answer_alike(
    place: Place, method: str, call: str
) -> None:
    origin = f"Origin: {place.origin}"
    unknown = place.person(method, f"/api/workspaces/{UNKNOWN}{call}", origin)
    others = place.person(method, f"/api/workspaces/{place.other.id}{call}", origin)
    assert (unknown.status, unknown.error["code"]) == (404, "not_found")
    assert without_date(others) == without_date(unknown)
    assert place.api(method, f"/api/workspaces/{UNKNOWN}{call}").body == unknown.body


def without_date(answer: raw.Answer) -> tuple[int, list[tuple[str, str]], bytes]:
    return answer.status, [pair for pair in answer.headers if pair[0] != "date"], answer.body


@pytest.mark.parametrize("path", ["/heartbeat", "/workspace/update"])
def test_a_heartbeat_for_what_is_not_yours(place: Place, path: str) -> None:
    for workspace in (UNKNOWN, place.other.id, "../x", "A", "x" * 40):
        body = json.dumps({"workspaceId": workspace}).encode()
        answer = place.person("POST", path, f"Origin: {place.origin}", body=body)
        assert (answer.status, answer.error["code"]) == (404, "not_found")
    long = json.dumps({"workspaceId": "x" * 10_000}).encode()
    assert place.person("POST", path, f"Origin: {place.origin}", body=long).status == 422


@pytest.mark.parametrize(
    "spelled",
    [
        "x" * 10_000,
        "..",
        "%2e%2e",
        "a%2fb",
        "a%00b",
        "a%0ab",
        "A",
        "a--b",
        "-a",
        "%ff",
        "*",
        "{mine}%20",
    ],
)
def test_a_workspace_id_that_is_none(place: Place, spelled: str) -> None:
    answer = place.api("GET", f"/api/workspaces/{spelled.replace('{mine}', place.mine.id)}")
    assert (answer.status, answer.error["code"]) == (404, "not_found")
    assert len(answer.body) < 500


def test_a_host_that_is_not_yours_answers_like_an_unknown_one(place: Place) -> None:
    mine, other = place.mine, place.other
    nobodys = f"{UNKNOWN}.localhost:{place.port}"
    for credential in (f"Authorization: Bearer {mine.token}", f"Cookie: {mine.cookie}"):
        hosts = (f"Host: {other.host}", f"Host: {nobodys}")
        theirs, unknown = (place.ask("GET", "/files/kept.txt", h, credential) for h in hosts)
        assert (theirs.status, theirs.error["code"]) == (401, "unauthorized")
        assert without_date(theirs) == without_date(unknown)
        theirs, unknown = (place.ask("GET", "/", h, credential, PAGE) for h in hosts)
        assert theirs.status == 303, "a person is sent to where one may enter"
        assert theirs.header("location") == f"{place.origin}/open/{other.id}?next=%2F"
        assert (unknown.header("location") or "").replace(UNKNOWN, other.id) == theirs.header(
            "location"
        )
        for host, origin in ((hosts[0], other.origin), (hosts[1], f"http://{nobodys}")):
            refused = raw.handshake(place.port, "/ws", host, f"Origin: {origin}", credential)
            assert refused.close[0] == 4401
    theirs, unknown = (place.person("GET", f"/open/{w}", PAGE) for w in (other.id, UNKNOWN))
    assert theirs.status == 404
    assert without_date(theirs) == without_date(unknown)


def test_a_workspace_that_was_purged_is_unknown_to_those_who_had_entered(place: Place) -> None:
    row = place.running(place.create(place.me, "short-lived"))
    gone = place.entered(row)
    path, _ = place.code(gone.id)
    assert place.api("DELETE", f"/api/workspaces/{gone.id}").status == 202
    place.becomes(gone.id, "terminated")
    assert place.api("DELETE", f"/api/workspaces/{gone.id}?purge=true").status == 204
    answer = place.ask("GET", "/files/x", *gone.by_token)
    assert (answer.status, answer.error["code"]) == (404, "not_found")
    page = place.ask("GET", "/", *gone.by_cookie, PAGE)
    assert page.status == 404
    assert b"There is no such page or workspace, or it belongs to somebody else." in page.body
    assert raw.handshake(place.port, "/ws", *gone.by_token).close[0] == 4404
    entered = place.ask("GET", path, f"Host: {gone.host}")
    assert (
        place.ask("GET", "/", f"Host: {gone.host}", f"Cookie: {cookie_of(entered)}", PAGE).status
        == 404
    )


# Entry codes.


@pytest.mark.parametrize(
    "code", ["", "wrong", "x" * 10_000, "a%0d%0aSet-Cookie:%20x=y", "%00", "%ff%fe", "..%2f"]
)
def test_a_wrong_entry_code(place: Place, code: str) -> None:
    right, _ = place.code(place.mine.id)
    for path, host in (("/enter", place.base), ("/_gateway/enter", f"Host: {place.mine.host}")):
        for query in (
            f"?code={code}",
            f"?code={code}&code=again",
            "" if not code else f"?Code={code}",
        ):
            answer = place.ask("GET", path + query, host)
            assert answer.status == 401, answer
            assert b"This entry address is used up" in answer.body
            assert answer.header("set-cookie") is None
            assert code not in answer.body.decode() or not code
    # The right one is as good as before.
    assert place.ask("GET", right, f"Host: {place.mine.host}").status == 303


def test_an_entry_code_works_once_and_where_it_is_for(place: Place) -> None:
    mine, host = place.mine, f"Host: {place.mine.host}"
    path, _ = place.code(mine.id)
    # Looking is not entering: what checks links and fetches ahead does not use it up.
    assert place.ask("HEAD", path, host).status == 204
    assert place.ask("GET", path, host, "Sec-Purpose: prefetch").status == 503
    first, second = place.ask("GET", path, host), place.ask("GET", path, host)
    assert first.status == 303
    assert (second.status, second.header("set-cookie")) == (401, None)
    # Somebody else's host, or the base host: taken, and good for nothing.
    for elsewhere, at in ((f"Host: {place.other.host}", "/_gateway/enter"), (place.base, "/enter")):
        path, _ = place.code(mine.id)
        query = path.partition("?")[2]
        answer = place.ask("GET", f"{at}?{query}", elsewhere)
        assert (answer.status, answer.header("set-cookie")) == (401, None)
        assert place.ask("GET", path, host).status == 401
    # The one that serve printed was used by this test's own entry.
    printed = place.gateway.entry.removeprefix(place.origin)
    again = place.ask("GET", printed, place.base)
    assert (again.status, again.header("set-cookie")) == (401, None)


# Origins.


def foreign(place: Place, own: str) -> list[str]:
    """Origins that are not this one, however near."""
    host = own.removeprefix("http://")
    name, _, port = host.partition(":")
    return [
        "null", "", "*", "https://evil.example", f"http://{host}.evil.example", f"http://evil{host}",
        f"http://{name}", f"http://{name}:{int(port) + 1}", f"http://{name}:0{port}", f"https://{host}",
        f"HTTP://{host}", f"http://{host.upper()}", f"http://{host}/", f"http://{host}/path", host,
        f"http://{name}.:{port}", f"http://user@{host}", f"http://evil.example@{host}", f"{own} {own}",
        f"{own}, {own}", f"{own},null", f"http://127.0.0.1:{port}", f"http://x.{host}", f"http://8080--{host}",
        *({place.origin, place.other.origin, place.mine.origin} - {own}),
    ]  # fmt: skip


def test_a_foreign_origin_on_a_websocket(place: Place) -> None:
    mine = place.mine
    assert raw.opens(place.port, "/ws", *mine.by_cookie, f"Origin: {mine.origin}")
    assert raw.opens(place.port, "/ws", *mine.by_token)
    assert raw.opens(place.port, "/ws", *mine.by_token, f"Origin: {mine.origin}")
    deadline = time.monotonic() + 10
    while (opened := events_of(place, "session.opened")) < 3:  # told with the next flush
        assert time.monotonic() < deadline, opened
        time.sleep(0.05)
    for origin in foreign(place, mine.origin):
        for credential in (mine.by_cookie, mine.by_token):
            answer = raw.handshake(place.port, "/ws", *credential, f"Origin: {origin}")
            assert answer.status == 403, (origin, answer)
            assert answer.body == b"this WebSocket may only be opened by its own page"
    # By cookie, none at all is a foreign one; two are refused before anybody reads them.
    assert raw.handshake(place.port, "/ws", *mine.by_cookie).status == 403
    twice = [f"Origin: {mine.origin}"] * 2
    assert raw.handshake(place.port, "/ws", *mine.by_cookie, *twice).status == 400
    assert events_of(place, "session.opened") == opened
    # What strangers send is no error of ours.
    assert '"level": "error"' not in place.gateway.log.read_text()


def events_of(place: Place, kind: str) -> int:
    told = json.loads(place.api("GET", "/api/events?limit=1000").body)
    return [event["type"] for event in told].count(kind)


def test_a_foreign_origin_on_the_api(place: Place) -> None:
    mine = place.mine
    body = json.dumps({"name": "stolen"}).encode()
    calls = [("POST", "/api/workspaces"), ("DELETE", f"/api/workspaces/{mine.id}")]
    calls += [("POST", f"/api/workspaces/{mine.id}/{verb}") for verb in ("stop", "enter", "start")]
    for method, path in calls:
        for origin in [*foreign(place, place.origin), None]:
            lines = [] if origin is None else [f"Origin: {origin}"]
            answer = place.person(method, path, *lines, body=body if path.count("/") == 2 else b"")
            assert answer.status == 403, (method, path, origin, answer)
            assert answer.error["code"] == "bad_origin"
    # A page cannot have the key; one that comes with a foreign Origin is refused all the same.
    assert place.api("POST", f"/api/workspaces/{mine.id}/stop", None, "Origin: null").status == 403
    assert place.api("POST", f"/api/workspaces/{mine.id}/start").status == 200


@pytest.mark.parametrize("method", ["PUT", "POST", "DELETE", "PATCH"])
def test_a_foreign_origin_on_what_is_proxied(place: Place, method: str) -> None:
    mine = place.mine
    for origin in [*foreign(place, mine.origin), None]:
        lines = [] if origin is None else [f"Origin: {origin}"]
        answer = place.ask(method, "/files/stolen.txt", *mine.by_cookie, *lines, body=b"x")
        assert (answer.status, answer.error["code"]) == (403, "bad_origin"), (origin, answer)
        assert mine.origin in answer.error["message"]
        if origin is not None:
            assert place.ask(method, "/files/stolen.txt", *mine.by_token, *lines).status == 403
    assert place.ask("GET", "/files/stolen.txt", *mine.by_token).status == 404
    own = place.ask("PUT", "/files/own.txt", *mine.by_cookie, f"Origin: {mine.origin}", body=b"x")
    assert own.status == 201


def test_a_foreign_origin_on_the_start_button(place: Place) -> None:
    mine = place.mine
    for origin in foreign(place, mine.origin):
        answer = place.ask("POST", "/_gateway/start", *mine.by_cookie, f"Origin: {origin}")
        assert (answer.status, answer.error["code"]) == (403, "bad_origin")


def test_two_cookies_of_ours(place: Place) -> None:
    """One of them was planted by a neighbour; which one, nobody can know."""
    mine = place.mine
    planted = f"Cookie: ide-gateway={place.other.cookie.partition('=')[2]}"
    for headers in ((*mine.by_cookie, planted), (f"Host: {mine.host}", planted, mine.by_cookie[1])):
        answer = place.ask("GET", "/files/kept.txt", *headers)
        assert (answer.status, answer.error["code"]) == (400, "bad_cookies")
        assert "clear this site's cookies" in answer.error["message"]
        refused = raw.handshake(place.port, "/ws", *headers, f"Origin: {mine.origin}")
        assert refused.status == 400
        assert b"clear this site's cookies" in refused.body
    twice = place.person("GET", "/api/workspaces", f"Cookie: {place.home}")
    assert (twice.status, twice.error["code"]) == (400, "bad_cookies")


# How a request is framed.


def test_a_second_host_header(place: Place) -> None:
    mine, other = place.mine, place.other
    for hosts in (
        (mine.host, mine.host), (mine.host, other.host), (mine.host, "evil.example"),
        ("evil.example", mine.host), (f"localhost:{place.port}", mine.host),
    ):  # fmt: skip
        lines = [f"Host: {host}" for host in hosts]
        for credential in (
            f"Authorization: Bearer {mine.token}",
            f"Authorization: Bearer {place.key}",
        ):
            answer = place.ask("GET", "/files/kept.txt", *lines, credential)
            assert (answer.status, answer.error["message"]) == (400, "more than one host header")
            assert answer.header("connection") == "close"
            answer = raw.handshake(place.port, "/ws", *lines, credential)
            assert (answer.status, answer.error["message"]) == (400, "more than one host header")


@pytest.mark.parametrize(
    "host",
    [
        None, "", "evil.example", "localhost.evil.example", "evil-localhost", "a--b.localhost", "-a.localhost",
        "x.{mine}", "{mine}@evil.example", "evil.example@{mine}", "{mine}, {mine}", "{mine}x",
        "0--{mine}", "65536--{mine}", "../{mine}", "localhost:99999", "ädä.localhost", "a" * 5_000,
    ],
)  # fmt: skip
def test_a_host_that_is_none_of_ours(place: Place, host: str | None) -> None:
    lines = [] if host is None else [f"Host: {host.replace('{mine}', place.mine.host)}"]
    for answer in (
        place.ask("GET", "/files/kept.txt", *lines, place.mine.by_token[1]),
        raw.handshake(place.port, "/ws", *lines, place.mine.by_token[1]),
    ):
        assert (answer.status, answer.error["code"]) == (421, "misdirected")
        assert answer.error["message"] == "this gateway serves localhost and *.localhost"


def test_white_space_around_a_value_is_no_part_of_it(place: Place) -> None:
    host, token = (f"{line} \t" for line in place.mine.by_token)
    assert place.ask("GET", "/files/kept.txt", host, token).body == b"kept"
    assert raw.opens(place.port, "/ws", host, token)


CHUNKED = b"5\r\nhello\r\n0\r\n\r\n"


@pytest.mark.parametrize(
    ("framing", "body"),
    [
        (("Content-Length: 4", "Transfer-Encoding: chunked"), CHUNKED),
        (("Transfer-Encoding: chunked", "Content-Length: 4"), CHUNKED),
        (("Transfer-Encoding: chunked", "Content-Length: 15"), CHUNKED),
        (("transfer-encoding: CHUNKED", "Content-Length: 0"), CHUNKED),
        (("Content-Length: 0", "Transfer-Encoding: identity"), CHUNKED),
        (("Content-Length: 5", "Content-Length: 5"), b"hello"),
        (("Content-Length: 5", "Content-Length: 0"), b"hello"),
        (("Content-Length: 5, 5",), b"hello"),
        (("Content-Length: +5",), b"hello"),
        (("Content-Length: 0x5",), b"hello"),
        (("Content-Length: 5 5",), b"hello"),
        (("Content-Length: -1",), b"hello"),
        (("Content-Length: 99999999999999999999",), b"hello"),
        (("Content-Length : 5",), b"hello"),
        (("Transfer-Encoding: xchunked",), CHUNKED),
        (("Transfer-Encoding: gzip, chunked",), CHUNKED),
        (("Transfer-Encoding: chunked, identity",), CHUNKED),
        (("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"), CHUNKED),
        (("Transfer-Encoding : chunked",), CHUNKED),
        (("Transfer-Encoding:\x0bchunked",), CHUNKED),
        (("X-Note: a\r\n folded",), b""),
        (("X-Note: a\0b",), b""),
        (("X-Note: a\nTransfer-Encoding: chunked",), CHUNKED),
        (("X Note: a",), b""),
        ((": a",), b""),
        (("no colon",), b""),
    ],
)  # fmt: skip
def test_a_body_whose_end_two_parsers_could_see_in_two_places(
    place: Place, framing: tuple[str, ...], body: bytes
) -> None:
    """One refusal, and nothing of what came behind it is taken for another request."""
    mine = place.mine
    for host, credential in (mine.by_token, (place.base, f"Authorization: Bearer {place.key}")):
        smuggled = "\r\n".join(
            ["PUT /files/smuggled.txt HTTP/1.1", *mine.by_token, "Content-Length: 1", "", "x"]
        )
        head = ["PUT /files/first.txt HTTP/1.1", host, credential, *framing, "", ""]
        sent = "\r\n".join(head).encode("latin-1") + body + smuggled.encode()
        answer = raw.send(place.port, sent)
        assert answer.status == 400, answer
        assert answer.error["code"] == "bad_request"
        assert answer.header("connection") == "close"
        assert answer.rest == b""
    for name in ("first", "smuggled"):
        assert place.ask("GET", f"/files/{name}.txt", *mine.by_token).status == 404


def test_content_length_and_transfer_encoding_are_told_apart(place: Place) -> None:
    both = ("Content-Length: 4", "Transfer-Encoding: chunked")
    answer = raw.request(
        place.port, "PUT", "/files/x", *place.mine.by_token, *both, body=CHUNKED, length=False
    )
    assert "Content-Length" in answer.error["message"]
    assert "Transfer-Encoding" in answer.error["message"]


@pytest.mark.parametrize(
    "line",
    [
        "GET http://evil.example/files/kept.txt HTTP/1.1", "GET files/kept.txt HTTP/1.1", "GET * HTTP/1.1",
        "CONNECT evil.example:80 HTTP/1.1", "TRACE /files/kept.txt HTTP/1.1", "GET /files/kept.txt",
        "GET /files/kept.txt HTTP/9.9", "GET /files/kept.txt HTTP/2.0", "GET /files/kept.txt HTTP/0.9",
        "GET /a b HTTP/1.1", "\x16\x03\x01\x02", "PRI * HTTP/2.0",
    ],
)  # fmt: skip
def test_a_request_line_that_is_none(place: Place, line: str) -> None:
    data = "\r\n".join([line, *place.mine.by_token, "", ""]).encode("latin-1")
    answer = raw.send(place.port, data)
    assert answer.status == 400, answer
    assert answer.error["code"] == "bad_request"
    assert answer.header("connection") == "close"


@pytest.mark.parametrize("version", ["8", "12", "14", "0", "013", "13.0", "", "x", "13, 8", None])
def test_an_upgrade_with_a_wrong_version(place: Place, version: str | None) -> None:
    lines = [] if version is None else [f"Sec-WebSocket-Version: {version}"]
    for headers in (place.mine.by_token, (place.base,), (f"Host: {UNKNOWN}.localhost",)):
        sent = "\r\n".join(["GET /ws HTTP/1.1", *headers, *raw.UPGRADE, raw.KEY, *lines, "", ""])
        answer = raw.send(place.port, sent.encode())
        assert answer.status == 426, answer
        assert answer.header("sec-websocket-version") == "13"
        assert answer.body == b"this server speaks WebSocket version 13 only\n"


@pytest.mark.parametrize(
    ("status", "lines", "body"),
    [
        (426, (raw.VERSION, "Sec-WebSocket-Version: 13", raw.KEY), b""),
        (400, (raw.VERSION,), b""),
        (400, (raw.VERSION, "Sec-WebSocket-Key: YWJj"), b""),
        (400, (raw.VERSION, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ"), b""),
        (400, (raw.VERSION, "Sec-WebSocket-Key: ***"), b""),
        (400, (raw.VERSION, raw.KEY, raw.KEY), b""),
        (400, (raw.VERSION, raw.KEY, "Content-Length: 5"), b"hello"),
        (400, (raw.VERSION, raw.KEY, "Transfer-Encoding: chunked"), CHUNKED),
        (431, (raw.VERSION, raw.KEY, f"Cookie: x={'y' * 9000}"), b""),
        (431, (raw.VERSION, raw.KEY, *(f"X-{n}: y" for n in range(150))), b""),
    ],
)
def test_an_upgrade_that_is_no_handshake(
    place: Place, status: int, lines: tuple[str, ...], body: bytes
) -> None:
    for headers in (place.mine.by_token, (place.base,)):
        sent = "\r\n".join(["GET /ws HTTP/1.1", *headers, *raw.UPGRADE, *lines, "", ""])
        answer = raw.send(place.port, sent.encode() + body)
        assert answer.status == status, answer
        assert answer.body


def test_an_upgrade_by_another_method(place: Place) -> None:
    for method in ("POST", "PUT", "HEAD"):
        lines = [f"{method} /ws HTTP/1.1", *place.mine.by_token, *raw.UPGRADE, raw.KEY, raw.VERSION]
        answer = raw.send(place.port, "\r\n".join([*lines, "", ""]).encode())
        assert (answer.status, answer.header("allow")) == (405, "GET")


# What is ours stays with us.


def test_nothing_of_ours_reaches_the_ide_or_the_log(place: Place) -> None:
    mine, port = place.mine, place.port
    ours, printed = secrets_of(place), place.gateway.entry.partition("code=")[2]
    home = f"ide-gateway-home={place.home.partition('=')[2]}"
    value = mine.cookie.partition("=")[2]
    jar = f"a=1; {mine.cookie}; {home}; __Host-ide-gateway={value}; b=2"
    theirs = ("X-Own: theirs", "Authorization: token theirs", f"Origin: {mine.origin}")
    by_cookie = (f"Host: {mine.host}", f"Cookie: {jar}", *theirs)
    by_token = (*mine.by_token, f"Cookie: a=1; {home}; b=2", "X-Own: theirs")
    # Each twice: what is asked again passes below the application.
    for headers in (by_cookie, by_token, by_cookie, by_token):
        over_http = json.loads(place.ask("GET", "/echo?x=1", *headers, "X-IDE-Secret: guess").body)
        for seen in (over_http["headers"], headers_over_websocket(port, *headers)):
            named: dict[str, list[str]] = {}
            for name, given in seen:
                named.setdefault(name.lower(), []).append(given)
            assert named["cookie"] == ["a=1;  b=2"] or named["cookie"] == ["a=1; b=2"]
            assert named["x-own"] == ["theirs"]
            expected = ["token theirs"] if headers is by_cookie else None
            assert named.get("authorization") == expected
            assert "guess" not in named["x-ide-secret"], "what opens the IDE comes from us alone"
            text = json.dumps(seen)
            assert [name for name, secret in ours.items() if secret in text] == []
    # The key opens no workspace, and is not passed on to see whether it would.
    stray = (f"Host: {mine.host}", f"Cookie: {mine.cookie}", f"Authorization: Bearer {place.key}")
    assert place.ask("GET", "/echo", *stray).status == 401
    # In a link, as a person would see it in the address bar.
    place.ask(
        "GET", f"/echo?code={ours['code']}&token={mine.token}&key={place.key}", *mine.by_cookie
    )
    entered = place.code(mine.id)[0]
    answer = place.ask("GET", entered, f"Host: {mine.host}")
    # The page behind it is not told where its visitor came from; nor is the IDE by one that says it.
    assert answer.status == 303
    assert answer.header("referrer-policy") == "no-referrer"
    came_from = f"Referer: {mine.origin}{entered}"
    for _ in range(2):
        told = place.ask("GET", "/echo", *mine.by_cookie, came_from).body.decode()
        assert entered.partition("code=")[2] not in told
        assert "_gateway" not in told

    pid = over_http["pid"]
    process = psutil.Process(pid)
    environment = json.dumps(process.environ()) + " ".join(process.cmdline())
    assert [name for name, secret in ours.items() if secret in environment] == []
    logs = [place.gateway.log, *place.gateway.data_dir.glob("machines/*/agent.log")]
    logs += place.gateway.data_dir.glob("machines/*/workspaces/*/ide.log")
    assert len(logs) >= 3
    for path in logs:
        text = path.read_text()
        # The printed code is printed, on the terminal that this file stands for: once.
        assert text.count(printed) == (path == place.gateway.log)
        found = [name for name, secret in ours.items() if secret in text]
        assert found == [], path.name


def secrets_of(place: Place) -> dict[str, str]:
    """Everything of ours that must not be seen by a workspace, by name."""
    path, token = place.code(place.mine.id)
    signing = (place.gateway.data_dir / "signing-key").read_text().strip()
    password = (place.gateway.data_dir / "redis" / "password").read_text().strip()
    return {
        "API key": place.key,
        "signing key": signing,
        "Redis password": password,
        "home cookie": place.home.partition("=")[2],
        "workspace cookie": place.mine.cookie.partition("=")[2],
        "other's cookie": place.other.cookie.partition("=")[2],
        "token": place.mine.token,
        "fresh token": token,
        "other's token": place.other.token,
        "code": path.partition("code=")[2],
    }


def headers_over_websocket(port: int, *headers: str) -> list[list[str]]:
    """What the IDE saw of a WebSocket's handshake, told by itself."""
    return json.loads(raw.exchange(port, "/ws", b"headers", *headers))


def test_what_the_api_shows_opens_nothing(place: Place) -> None:
    """Secrets of workspaces, machines' tokens: records hold them, answers do not."""
    seen = json.loads(place.ask("GET", "/echo", *place.mine.by_token).body)["headers"]
    secret = next(value for name, value in seen if name.lower() == "x-ide-secret")
    assert len(secret) >= 32
    paths = ["/api/workspaces", f"/api/workspaces/{place.mine.id}", "/api/machines", "/api/pool"]
    paths += ["/api/events?limit=1000", f"/api/workspaces/{place.mine.id}/activity", "/metrics"]
    for path in paths:
        answer = place.api("GET", path)
        assert answer.status == 200
        assert secret not in answer.body.decode()
        assert "secret" not in answer.body.decode().lower()
        assert '"token"' not in answer.body.decode()
    assert secret not in place.gateway.log.read_text()
