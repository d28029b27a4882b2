"""The check that every answer goes through notices what it is there for."""

from __future__ import annotations

from typing import Any

import pytest

ME = {"userId": "ada", "admin": False}


@pytest.mark.parametrize(
    ("status", "body", "problem"),
    [
        (200, {**ME, "extra": 1}, "extra is not described"),
        (200, {"admin": False}, "userId is missing"),
        (200, {**ME, "admin": "no"}, "is no boolean"),
        (200, {**ME, "userId": 5}, "userId"),
        (418, ME, "answers 418"),
        (401, {"error": {"code": "x"}}, "message is missing"),
        (401, {"error": {"code": "x", "message": "y", "trace": "z"}}, "trace is not described"),
    ],
)
def test_what_does_not_fit(fitting: Any, status: int, body: Any, problem: str) -> None:
    with pytest.raises(AssertionError, match=problem):
        fitting.check("GET", "/api/me", status, body)


def test_what_fits(fitting: Any) -> None:
    fitting.check("GET", "/api/me", 200, ME)
    fitting.check("GET", "/api/nothing", 404, {"error": {"code": "x", "message": "y"}})
