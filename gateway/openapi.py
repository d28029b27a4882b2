"""The OpenAPI 3.1 document, made from the table of operations and their models."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from gateway.api.answers import ErrorAnswer
from gateway.api.operation import CHANGING, Operation

_REF = "#/components/schemas/{model}"
_SECURITY: dict[str, list[dict[str, list[str]]]] = {
    "public": [],
    "machine": [{"machineToken": []}],
    "person": [{"apiKey": []}, {"homeCookie": []}],
    "admin": [{"apiKey": []}],
}
_HINTS = {
    400: "Malformed JSON, or two cookies of one of our names",
    401: "Nobody we know; say who you are",
    403: "Not yours to ask, a quota is used up, or a foreign Origin",
    404: "Unknown, or somebody else's",
    409: "It is in another state than this needs",
    413: "The body is too large",
    422: "A field is wrong or unknown; it is named",
    429: "A bound is reached; try again after retryAfter",
    503: "Redis does not answer; try again after retryAfter",
    507: "The disk is full; the previous snapshot is untouched",
}


def document(operations: Iterable[Operation], version: str, cookie: str) -> dict[str, Any]:
    """cookie: the name of the home cookie, by which a browser is known."""
    rows = list(operations)
    paths: dict[str, dict[str, Any]] = {}
    for row in rows:
        paths.setdefault(row.path, {})[row.method.lower()] = _operation(row)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "ide-gateway",
            "version": version,
            "description": "Times are milliseconds since the epoch. Errors have one shape, Error.",
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": _schemas(rows),
            "securitySchemes": {
                "apiKey": {"type": "http", "scheme": "bearer"},
                "machineToken": {"type": "http", "scheme": "bearer"},
                "homeCookie": {"type": "apiKey", "in": "cookie", "name": cookie},
            },
        },
    }


def _operation(row: Operation) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": _operation_id(row),
        "summary": row.summary,
        "security": _SECURITY[row.access],
        "parameters": [*_path_parameters(row), *_query_parameters(row), *_headers(row)],
        "responses": {
            **{str(status): _success(row, status) for status in row.answers},
            **{str(status): _problem(status) for status in _problems(row)},
        },
    }
    if row.body:
        schema = {"$ref": f"#/components/schemas/{row.body.__name__}"}
        needed = any(field.is_required() for field in row.body.model_fields.values())
        described["requestBody"] = {
            "required": needed,
            "content": {"application/json": {"schema": schema}},
        }
    return described


def _operation_id(row: Operation) -> str:
    words = re.findall(r"[A-Za-z]+", row.path.removeprefix("/api").replace("{id}", "one"))
    return row.method.lower() + "".join(word[0].upper() + word[1:] for word in words)


def _path_parameters(row: Operation) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"{(\w+)}", row.path)
    ]


def _query_parameters(row: Operation) -> list[dict[str, Any]]:
    if row.query is None:
        return []
    schema = row.query.model_json_schema(ref_template=_REF)
    return [
        {"name": name, "in": "query", "required": False, "schema": _without_title(of)}
        for name, of in schema["properties"].items()
    ]


def _headers(row: Operation) -> list[dict[str, Any]]:
    text = {"type": "string", "maxLength": 255}
    names = []
    if 429 in row.errors and row.body and row.body.__name__ == "Create":
        names.append("Idempotency-Key")
    if "text/event-stream" in row.media_types:
        names.append("Last-Event-ID")
    return [{"name": name, "in": "header", "required": False, "schema": text} for name in names]


def _success(row: Operation, status: int) -> dict[str, Any]:
    described: dict[str, Any] = {"description": HTTPStatus(status).phrase}
    if status == 204:
        return described
    model = row.answers[status]
    schema: dict[str, Any] = {"type": "object"}
    if model:
        schema = {"$ref": _REF.format(model=_name(model))}
    if row.many:
        schema = {"type": "array", "items": schema}
    described["content"] = {
        media: {"schema": schema if media == "application/json" else {"type": "string"}}
        for media in row.media_types
    }
    return described


def _problems(row: Operation) -> list[int]:
    """What the operation names, and what its way through the API brings along."""
    found = set(row.errors)
    if row.path.startswith("/api"):
        found.add(429)
    if row.access != "public":
        found |= {400, 401, 503}
    if row.access == "admin" or row.method in CHANGING:
        found.add(403)
    if row.body:
        found |= {400, 413, 422}
    if row.query:
        found.add(422)
    return sorted(found - set(row.answers))


def _problem(status: int) -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": _REF.format(model=_name(ErrorAnswer))}}}
    return {"description": _HINTS[status], "content": content}


def _schemas(rows: Iterable[Operation]) -> Mapping[str, Any]:
    """Every model that is sent or answered, and what they consist of. Unused ones are not listed."""
    answered = {model for row in rows for model in row.answers.values() if model} | {ErrorAnswer}
    sent = {row.body for row in rows if row.body}
    asked = {row.query for row in rows if row.query}
    schemas: dict[str, Any] = {}
    for models, mode in ((answered, "serialization"), (sent, "validation")):
        found = models_json_schema(
            [(model, mode) for model in sorted(models, key=_name)],  # type: ignore[misc]
            ref_template=_REF,
        )[1]
        schemas |= found["$defs"]
    for query in sorted(asked, key=_name):
        schemas |= query.model_json_schema(ref_template=_REF).get("$defs", {})
    return dict(sorted(schemas.items()))


def _name(model: type[BaseModel] | None) -> str:
    return model.__name__ if model else ""


def _without_title(schema: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in schema.items() if name != "title"}
