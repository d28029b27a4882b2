"""Bad bodies and queries: refused with the field's name, never echoed at length, nothing changed."""

from __future__ import annotations

import json
from typing import Any

import pytest

CREATE = "/api/workspaces"


async def refused(world: Any, body: Any, path: str = CREATE) -> dict[str, Any]:
    """The error; and nothing was made."""
    answer = await world.call("POST", path, body)
    assert answer.status == 422, answer.text
    assert len(answer.text) < 500
    assert await world.store.list() == []
    error: dict[str, Any] = answer.error
    return error


@pytest.mark.parametrize(
    ("raw", "line", "column"),
    [
        (b"{", 1, 2),
        (b'{"userId": "ada",\n "name" "x"}', 2, 9),
        (b"userId=ada&name=x", 1, 1),
        (b'{"userId": "a\nb"}', 1, 14),
        (b'{"userId": "ada"} {}', 1, 19),
    ],
)
async def test_malformed_json_says_where(alone: Any, raw: bytes, line: int, column: int) -> None:
    answer = await alone.call("POST", CREATE, raw=raw)
    assert answer.refusal == (400, "bad_json")
    assert (answer.error["line"], answer.error["column"]) == (line, column)
    assert f"line {line}, column {column}" in answer.error["message"]


@pytest.mark.parametrize(
    "raw",
    [b"\xff\xfe{}", b"[" * 60_000, b'{"a":' * 12_000, b'{"seconds": NaN}', b"9" * 5000],
)
async def test_what_cannot_be_read_is_bad_json(alone: Any, raw: bytes) -> None:
    answer = await alone.call("POST", CREATE, raw=raw)
    assert answer.refusal == (400, "bad_json")
    assert len(answer.text) < 500


@pytest.mark.parametrize("raw", [b"[]", b'"ada"', b"1", b"null", b"true"])
async def test_a_body_is_an_object(alone: Any, raw: bytes) -> None:
    answer = await alone.call("POST", CREATE, raw=raw)
    assert answer.refusal == (422, "invalid")


async def test_a_body_is_64_kib_at_most(alone: Any) -> None:
    whole = json.dumps({"userId": "ada"}).encode()
    fits = await alone.call("POST", CREATE, raw=whole + b" " * (65_536 - len(whole)))
    assert fits.status == 202
    answer = await alone.call("POST", CREATE, raw=whole + b" " * (65_537 - len(whole)))
    assert answer.refusal == (413, "body_too_large")


async def test_a_body_without_a_length_is_bounded_too(alone: Any) -> None:
    async def endless() -> Any:
        for _ in range(80):
            yield b" " * 1024

    answer = await alone.call("POST", CREATE, raw=endless())
    assert answer.refusal == (413, "body_too_large")


async def test_the_declared_type_does_not_matter(alone: Any) -> None:
    for media in ("text/plain", "application/x-www-form-urlencoded", "application/json; a=b"):
        answer = await alone.call("POST", CREATE, {"userId": "ada"}, Content_Type=media)
        assert answer.status == 202


async def test_unknown_fields_are_named(alone: Any) -> None:
    error = await refused(alone, {"userId": "ada", "prioritty": "vip"})
    assert (error["code"], error["field"]) == ("unknown_field", "prioritty")
    assert "priority" in error["message"]
    for body in (
        {"user_id": "ada"},
        {"userId": "ada", "plan_": "x"},
        {"userId": "a", "x" * 999: 1},
    ):
        assert (await refused(alone, body))["code"] == "unknown_field"
    assert (await refused(alone, {"userId": "ada", "a\nb": 1}))["field"] == "a?b"


@pytest.mark.parametrize("action", ["start", "stop", "snapshot"])
async def test_calls_without_fields_take_none(alone: Any, action: str) -> None:
    workspace = await alone.bring("ada")
    answer = await alone.call("POST", f"/api/workspaces/{workspace.id}/{action}", {"force": True})
    assert answer.refusal == (422, "unknown_field")
    assert (await alone.store.get(workspace.id)) == workspace


BAD_USERS = [
    "", "u" * 129, "u" * 10_000, "a/b", "../a", "a..b", "..", ".", "a\nb", "ada\n", "a\rb", "a\0b",
    " ada", "a b", "-ada", "@ada", "ä", "a\ud800", "a%2Fb", "a*b", "a{b}", "<b>",
]  # fmt: skip


async def test_user_ids_that_are_none(alone: Any) -> None:
    for user in BAD_USERS:
        error = await refused(alone, {"userId": user})
        assert (error["code"], error["field"]) == ("invalid", "userId"), user
    for user in (1, None, ["ada"], {"a": 1}, True):
        body = {"userId": user}
        assert (await refused(alone, body))["field"] == "userId"


async def test_user_ids_that_are_some(alone: Any) -> None:
    for user in ("a", "_x", "u" * 128, "ada@example.org", "auth0|5f", "a+b:c=d-e.f", "ADA"):
        answer = await alone.call("POST", CREATE, {"userId": user})
        assert (answer.status, answer.json["userId"]) == (202, user)
        await alone.store.stop(answer.json["workspaceId"], "test")  # the queue has four places


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("name", ["n" * 65, "a\nb", "a\tb", "\u202e", 5, None]),
        ("plan", ["", "p" * 65, "a b", "../x", "-x", 1]),
        ("region", ["", "r" * 65, "a/b", 1]),
        ("priority", ["high", "", "VIP", 86_401, -86_401, 10**30, 1.5, True, None, ["vip"]]),
    ],
)
async def test_other_fields_have_limits(alone: Any, field: str, values: list[Any]) -> None:
    for value in values:
        error = await refused(alone, {"userId": "ada", field: value})
        assert (error["code"], error["field"]) == ("invalid", field), value


async def test_a_name_is_any_printable_text(alone: Any) -> None:
    for user, name in enumerate(("", "n" * 64, "Äpfel & Birnen / 1", "论文")):
        answer = await alone.call("POST", CREATE, {"userId": f"u{user}", "name": name})
        assert (answer.status, answer.json["name"]) == (202, name)


@pytest.mark.parametrize("seconds", [0, -1, 604_801, 1e400, "60", True, [60]])
async def test_extensions_have_limits(alone: Any, seconds: Any) -> None:
    workspace = await alone.bring("ada")
    raw = f'{{"seconds": {"1e400" if seconds == 1e400 else json.dumps(seconds)}}}'.encode()
    answer = await alone.call("POST", f"/api/workspaces/{workspace.id}/extend", raw=raw)
    assert answer.refusal == (422, "invalid")
    assert answer.error["field"] == "seconds"
    assert (await alone.store.get(workspace.id)).extend_until_ms == 0


async def test_kinds_of_heartbeat_are_a_closed_set(alone: Any) -> None:
    workspace = await alone.bring("ada")
    for kind in ("boot", "ping", "x" * 10_000, "", None, 1):
        body = {"workspaceId": workspace.id, "kind": kind}
        answer = await alone.call("POST", "/heartbeat", body)
        assert answer.refusal == (422, "invalid")
        assert answer.error["field"] == "kind"
        assert len(answer.text) < 300


@pytest.mark.parametrize(
    ("path", "field", "code"),
    [
        ("/api/workspaces?status=asleep", "status", "invalid"),
        ("/api/workspaces?userId=a/b", "userId", "invalid"),
        ("/api/workspaces?user=ada", "user", "unknown_field"),
        ("/api/workspaces?userId=ada&userId=bob", "userId", "invalid"),
        ("/api/usage?user=ada&month=2025-13", "month", "invalid"),
        ("/api/usage?user=ada&month=2025-1", "month", "invalid"),
        ("/api/usage?user=..", "user", "invalid"),
        ("/api/events?limit=0", "limit", "invalid"),
        ("/api/events?limit=1001", "limit", "invalid"),
        ("/api/events?limit=many", "limit", "invalid"),
        ("/api/events?after=yesterday", "after", "invalid"),
        ("/api/events?after=1-", "after", "invalid"),
    ],
)
async def test_bad_queries(alone: Any, path: str, field: str, code: str) -> None:
    answer = await alone.call("GET", path)
    assert answer.refusal == (422, code)
    assert answer.error["field"] == field


async def test_purge_is_a_yes_or_a_no(alone: Any) -> None:
    workspace = await alone.bring("ada")
    answer = await alone.call("DELETE", f"/api/workspaces/{workspace.id}?purge=perhaps")
    assert answer.refusal == (422, "invalid")
    assert (await alone.store.get(workspace.id)) == workspace
