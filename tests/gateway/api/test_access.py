"""Who may do what. Somebody else's workspace answers to every verb exactly like none."""

from __future__ import annotations

from time import time
from typing import Any

import pytest

from gateway import api, auth
from gateway.api.bodies import DeclarePeak
from lifecycle.model import WorkspaceStatus as W
from lifecycle.peaks import Peak

OPERATIONS = api.operations()
CLOSED = [row for row in OPERATIONS if row.access in ("person", "admin")]
ADMINS = [row for row in OPERATIONS if row.access == "admin"]
CHANGING = [row for row in OPERATIONS if row.method != "GET"]
ABOUT_ONE = [row for row in OPERATIONS if row.path.startswith("/api/workspaces/{id}")]
UNKNOWN = "ws-aaaaaaaaaa"


def cookie_of(user: str) -> str:
    keys = auth.Keys(signing_key="signing-key", api_key="api-key")
    return f"ide-gateway-home={auth.make_home_cookie(user, keys, now=time())}"


def name(row: Any) -> str:
    return f"{row.method} {row.path}"


async def act(world: Any, row: Any, workspace_id: str, user: str | None, **headers: str) -> Any:
    """That operation, well-formed, on that workspace."""
    body: Any = {"workspaceId": workspace_id} if row.path in NAMED else None
    return await world.call(
        row.method, row.path.replace("{id}", workspace_id), body, user=user, **headers
    )


NAMED = {"/heartbeat", "/workspace/update"}
OWNED = [*ABOUT_ONE, *(row for row in OPERATIONS if row.path in NAMED)]


@pytest.mark.parametrize("row", OWNED, ids=name)
async def test_another_users_workspace_is_as_unknown_to_every_verb(world: Any, row: Any) -> None:
    hers = await world.bring("ada", W.RUNNING)
    before = await world.store.get(hers.id)
    foreign = await act(world, row, hers.id, "bob")
    unknown = await act(world, row, UNKNOWN, "bob")
    assert foreign.refusal == (404, "not_found")
    assert (foreign.status, foreign.text) == (unknown.status, unknown.text)
    volatile = {"date", "server"}
    assert {n.lower(): v for n, v in foreign.headers.items() if n.lower() not in volatile} == {
        n.lower(): v for n, v in unknown.headers.items() if n.lower() not in volatile
    }
    assert await world.store.get(hers.id) == before


@pytest.mark.parametrize("row", OWNED, ids=name)
async def test_its_owner_and_the_operator_get_through(alone: Any, row: Any) -> None:
    verb = row.path.rpartition("/")[2]
    status = {"keep": W.STOPPED, "download": W.TERMINATED}.get(verb, W.RUNNING)
    for user, owner in (("ada", "ada"), ("admin", "bob")):
        workspace = await alone.bring(owner, status)
        answer = await act(alone, row, workspace.id, user)
        if user == "ada" and verb in ("pin", "unpin"):
            assert answer.refusal == (403, "forbidden")
        else:
            assert answer.status in row.answers, answer.text


@pytest.mark.parametrize("row", OWNED, ids=name)
async def test_what_is_no_id_is_unknown(alone: Any, row: Any) -> None:
    for strange in ("UPPER", "a--b", "w%0Aw", "%00", "*", "ä", "-a", "x" * 41, "x" * 5000):
        answer = await act(alone, row, strange, "admin")
        too_long = len(strange) > 40 and row.path in NAMED
        assert answer.refusal == ((422, "invalid") if too_long else (404, "not_found"))
        assert len(answer.text) < 300


@pytest.mark.parametrize("row", CLOSED, ids=name)
async def test_nobody_is_told_how_to_say_who_they_are(alone: Any, row: Any) -> None:
    workspace = await alone.bring("ada", W.RUNNING)
    for headers in (
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Basic YXBpLWtleTo="},
        {"Authorization": "Bearer"},
        {"Cookie": "ide-gateway-home=forged.signature", "Origin": "http://localhost:8000"},
    ):
        answer = await act(alone, row, workspace.id, None, **headers)
        assert answer.refusal == (401, "unauthorized")
        assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert (await alone.store.get(workspace.id)).status is W.RUNNING


@pytest.mark.parametrize("row", ADMINS, ids=name)
async def test_the_operators_calls_are_closed_to_persons(alone: Any, row: Any) -> None:
    at = int(time() * 1000) + 3_600_000
    peak = {"name": "exam", "at": at, "users": 3} if row.body is DeclarePeak else None
    await alone.peaks.declare(Peak(at, 3, "lecture"))
    path = row.path.replace("{id}", "m-1").replace("{name}", "lecture")
    assert (await alone.call(row.method, path, peak, user="ada")).refusal == (403, "forbidden")
    assert (await alone.call(row.method, path, peak)).status == 200


FOREIGN = (
    "", "null", "http://ws-x.localhost:8000", "http://localhost", "http://localhost:8001",
    "https://localhost:8000", "http://LOCALHOST:8000", "http://localhost:8000.evil.example",
    "http://localhost:8000/", "http://localhost:8000, http://localhost:8000",
)  # fmt: skip


@pytest.mark.parametrize("row", [row for row in CHANGING if row not in ADMINS], ids=name)
async def test_a_cookie_from_another_origin_changes_nothing(alone: Any, row: Any) -> None:
    workspace = await alone.bring("ada", W.RUNNING)
    for origin in FOREIGN:
        answer = await act(alone, row, workspace.id, "ada", Origin=origin)
        assert answer.refusal == (403, "bad_origin"), origin
    assert await alone.store.list() == [workspace]


async def test_a_cookie_without_origin_reads_and_changes_nothing(alone: Any) -> None:
    workspace = await alone.bring("ada", W.RUNNING)
    cookie = {"Cookie": cookie_of("ada")}
    path = f"/api/workspaces/{workspace.id}"
    assert (await alone.call("GET", path, user=None, **cookie)).status == 200
    answer = await alone.call("POST", f"{path}/stop", user=None, **cookie)
    assert answer.refusal == (403, "bad_origin")


async def test_a_key_from_a_foreign_page_changes_nothing(alone: Any) -> None:
    workspace = await alone.bring("ada", W.RUNNING)
    path = f"/api/workspaces/{workspace.id}/stop"
    answer = await alone.call("POST", path, Origin="https://evil.example")
    assert answer.refusal == (403, "bad_origin")


async def test_two_cookies_of_ours_are_refused(alone: Any) -> None:
    twice = f"{cookie_of('ada')}; {cookie_of('bob')}"
    answer = await alone.call("GET", "/api/workspaces", user=None, Cookie=twice)
    assert answer.refusal == (400, "bad_cookies")


async def test_me(alone: Any) -> None:
    assert (await alone.call("GET", "/api/me")).json == {"userId": None, "admin": True}
    person = await alone.call("GET", "/api/me", user="ada")
    assert person.json == {"userId": "ada", "admin": False}


@pytest.mark.parametrize("user", ["admin", "ada", None])
async def test_unknown_paths_have_the_one_shape(alone: Any, user: str | None) -> None:
    for path in ("/api/nothing", "/api/", "/api/workspaces/w1/dance", "/api/workspaces/w1/start/x"):
        answer = await alone.call("GET", path, user=user)
        assert answer.refusal == (404, "not_found")


@pytest.mark.parametrize("path", sorted({row.path for row in OPERATIONS}))
async def test_other_methods_are_refused_with_those_that_are_possible(
    alone: Any, path: str
) -> None:
    possible = {row.method for row in OPERATIONS if row.path == path}
    for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"} - possible:
        answer = await alone.call(method, path.replace("{id}", UNKNOWN))
        assert answer.refusal == (405, "method_not_allowed")
        assert answer.headers["Allow"] == ", ".join(sorted(possible))


async def test_head_is_a_get_without_its_body(alone: Any) -> None:
    for path in ("/healthz", "/api/workspaces"):
        answer = await alone.call("HEAD", path)
        assert (answer.status, answer.text) == (200, "")
