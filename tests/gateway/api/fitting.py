"""Does a real answer fit the OpenAPI document? Every answer of these tests is held against it."""

from __future__ import annotations

import re
from typing import Any

TYPES: dict[str, Any] = {
    "string": str, "integer": int, "number": (int, float), "boolean": bool, "null": type(None),
    "object": dict, "array": list,
}  # fmt: skip


class Fitting:
    def __init__(self, document: dict[str, Any]) -> None:
        self._document = document
        self._paths = [
            (re.compile(re.sub(r"{\w+}", "[^/]+", path)), path) for path in document["paths"]
        ]

    def check(self, method: str, path: str, status: int, body: Any) -> None:
        """Raises AssertionError that names the field. Paths and methods that are no call answer Error."""
        known = next((spelt for pattern, spelt in self._paths if pattern.fullmatch(path)), "")
        described = self._document["paths"].get(known, {}).get(method.lower())
        if described is None or status == 500:
            schema = {"$ref": "#/components/schemas/ErrorAnswer"}
        else:
            assert str(status) in described["responses"], f"{method} {known} answers {status}"
            content = described["responses"][str(status)]["content"]
            schema = content["application/json"]["schema"]
        self.fits(body, schema, f"{method} {path}")

    def fits(self, value: Any, schema: dict[str, Any], where: str) -> None:
        if "$ref" in schema:
            name = schema["$ref"].rpartition("/")[2]
            self.fits(value, self._document["components"]["schemas"][name], where)
        elif "anyOf" in schema:
            problems = [self._problem(value, one, where) for one in schema["anyOf"]]
            assert None in problems, f"{where}: {problems}"
        else:
            self._fits_plainly(value, schema, where)

    def _problem(self, value: Any, schema: dict[str, Any], where: str) -> str | None:
        try:
            self.fits(value, schema, where)
        except AssertionError as error:
            return str(error)
        return None

    def _fits_plainly(self, value: Any, schema: dict[str, Any], where: str) -> None:
        kind = TYPES.get(schema.get("type", ""), object)
        assert isinstance(value, kind), f"{where}: {value!r} is no {schema['type']}"
        assert kind is bool or not isinstance(value, bool) or kind is object, f"{where}: {value}"
        assert value in schema.get("enum", [value]), f"{where}: {value!r} is not listed"
        assert schema.get("const", value) == value, f"{where}: {value!r}"
        if isinstance(value, dict):
            properties = schema.get("properties", {})
            more = schema.get("additionalProperties", "properties" not in schema)
            for name in schema.get("required", []):
                assert name in value, f"{where}: {name} is missing"
            for name, one in value.items():
                assert name in properties or more, f"{where}: {name} is not described"
                if name in properties:
                    self.fits(one, properties[name], f"{where} {name}")
        if isinstance(value, list):
            for row in value:
                self.fits(row, schema["items"], f"{where}[]")
