"""The document against the routes, both ways, and against itself.

That real answers fit it is checked at every call of tests/gateway/api.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, cast

import pytest
from starlette.routing import Route

from gateway import api
from gateway.openapi import document

DOCUMENT = document(api.operations(), "1.2.3", "__Host-ide-gateway-home")
CALLS = [
    (path, method, described)
    for path, methods in DOCUMENT["paths"].items()
    for method, described in methods.items()
]
SCHEMAS = DOCUMENT["components"]["schemas"]


def refs(node: Any) -> Iterator[str]:
    """Names of the schemas that this part of the document refers to."""
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"].removeprefix("#/components/schemas/")
        for value in node.values():
            yield from refs(value)
    elif isinstance(node, list):
        for value in node:
            yield from refs(value)


def test_every_route_is_described_and_nothing_else() -> None:
    routes = [route for route in api.routes(cast(api.Parts, None)) if isinstance(route, Route)]
    assert routes[-1].path == "/api/{rest:path}"  # answers 404 for all the others
    assert sorted(route.path for route in routes[:-1]) == sorted(DOCUMENT["paths"])


def test_every_method_is_described_once() -> None:
    table = [(row.path, row.method.lower()) for row in api.operations()]
    assert sorted(table) == sorted((path, method) for path, method, _ in CALLS)
    assert len(set(table)) == len(table)


def test_the_contract_is_there() -> None:
    contract = """
        POST /api/workspaces · POST /api/createWorkspace · GET /api/workspaces
        GET /api/workspaces/{id} · DELETE /api/workspaces/{id} · POST /api/workspaces/{id}/start
        POST /api/workspaces/{id}/stop · POST /api/workspaces/{id}/extend
        POST /api/workspaces/{id}/snapshot · POST /api/workspaces/{id}/heartbeat · POST /heartbeat
        POST /workspace/update · POST /api/workspaces/{id}/enter
        GET /api/workspaces/{id}/activity · GET /api/machines · GET /api/pool · GET /api/usage · GET /api/quota
        POST /api/machines/join · POST /api/machines/{id}/report
        POST /api/machines/{id}/drain · POST /api/machines/{id}/undrain · GET /api/dashboard
        GET /api/workspaces/{id}/notices · GET /api/preferences · PUT /api/preferences
        GET /api/workspaces/{id}/policy · PUT /api/workspaces/{id}/policy
        POST /api/workspaces/{id}/keep · POST /api/workspaces/{id}/pin · POST /api/workspaces/{id}/unpin
        GET /api/workspaces/{id}/download · GET /api/deliveries · POST /api/deliveries/{id}/retry
        GET /api/events · GET /api/me · GET /api/openapi.json · GET /healthz · GET /readyz
        GET /metrics · GET /api/peaks · POST /api/peaks · DELETE /api/peaks/{name}
    """
    wanted = {call.strip() for line in contract.splitlines() for call in line.split("·")} - {""}
    assert {f"{method.upper()} {path}" for path, method, _ in CALLS} == wanted


def test_references_lead_somewhere_and_nothing_is_spare() -> None:
    assert set(refs(DOCUMENT)) == set(SCHEMAS)


def test_operations_have_names_of_their_own_and_say_what_they_do() -> None:
    names = [described["operationId"] for _, _, described in CALLS]
    assert len(set(names)) == len(names)
    assert all(described["summary"] for _, _, described in CALLS)


@pytest.mark.parametrize(("path", "method", "described"), CALLS)
def test_what_can_be_refused_is_said(path: str, method: str, described: dict[str, Any]) -> None:
    answers, public = set(described["responses"]), described["security"] == []
    open_to_all = ("/api/openapi.json", "/healthz", "/readyz", "/metrics", "/api/machines/join")
    assert public == (path in open_to_all)
    if not public:
        assert {"400", "401", "503"} <= answers
    if "{id}" in path:
        assert "404" in answers
        assert [p["name"] for p in described["parameters"] if p["in"] == "path"] == ["id"]
    if method != "get":
        assert "403" in answers
    if "requestBody" in described:
        assert {"413", "422"} <= answers
    for status, response in described["responses"].items():
        assert response["description"]
        if int(status) >= 400 and path != "/readyz":
            assert list(refs(response)) == ["ErrorAnswer"]


def test_what_is_sent_and_answered_is_spelt_in_camel_case() -> None:
    for name, schema in SCHEMAS.items():
        for field in schema.get("properties", {}):
            assert "_" not in field, f"{name}.{field}"


def test_bodies_take_no_other_fields() -> None:
    sent = {name for _, _, described in CALLS for name in refs(described.get("requestBody", {}))}
    from_people = {"Create", "Extend", "Enter", "Heartbeat", "Update", "Nothing", "Keep"}
    assert (
        from_people | {"OwnPolicy", "Preferences", "Join", "MachineReport", "DeclarePeak"} == sent
    )
    for name in sent:
        assert SCHEMAS[name]["additionalProperties"] is False
    user = SCHEMAS["Create"]["properties"]["userId"]["anyOf"][0]
    assert (user["minLength"], user["maxLength"]) == (1, 128)


def test_no_answer_has_room_for_a_secret() -> None:
    shown = {name for _, _, described in CALLS for name in refs(described["responses"])}
    for name in shown - {"EntryAnswer", "JoinAnswer"}:
        assert not {"secret", "token", "address"} & set(SCHEMAS[name].get("properties", {}))


def test_it_is_json_of_version_3_1() -> None:
    assert json.loads(json.dumps(DOCUMENT)) == DOCUMENT
    assert DOCUMENT["openapi"] == "3.1.0"
    assert DOCUMENT["info"]["version"] == "1.2.3"
    cookie = DOCUMENT["components"]["securitySchemes"]["homeCookie"]
    assert cookie == {"type": "apiKey", "in": "cookie", "name": "__Host-ide-gateway-home"}
