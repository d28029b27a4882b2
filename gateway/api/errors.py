"""The API's errors: one shape, `{"error": {"code", "message", "retryAfter"?, …}}`, and who becomes what.

ApiError
├── NotFound        404 not_found     unknown, or somebody else's: the two answer alike
├── Invalid         422 invalid …     a field, named
└── any other       ApiError(status, code, message)

What the parts raise is translated by `translate`; anything it does not know is a bug: 500 `internal`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from gateway.auth import BadCookies
from lifecycle.quota import FOR_GOOD, HOURLY, words
from lifecycle.snapshots import SnapshotError
from lifecycle.stores import Conflict, LimitReached, StoreUnavailable

RETRY_REDIS = 2
RETRY_LIMIT = 30
SNAPSHOT_STATUS = {
    "disk_full": 507,
    "not_found": 404,
    "too_large": 413,
    "unreachable": 503,
    "busy": 409,
    "stale_epoch": 409,
}


class ApiError(Exception):
    """An answer that is no success. details: further fields of the error object."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        retry_after: int | None = None,
        headers: Mapping[str, str] | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message
        self.retry_after, self.details = retry_after, dict(details or {})
        self.headers = dict(headers or {})
        if retry_after is not None:
            self.headers["Retry-After"] = str(retry_after)

    def body(self) -> dict[str, Any]:
        error: dict[str, Any] = {"code": self.code, "message": self.message, **self.details}
        if self.retry_after is not None:
            error["retryAfter"] = self.retry_after
        return {"error": error}


class NotFound(ApiError):
    def __init__(self, message: str) -> None:
        super().__init__(404, "not_found", message)


class Invalid(ApiError):
    """field: its name as the caller wrote it, dotted; "" for the whole."""

    def __init__(self, message: str, field: str = "", code: str = "invalid") -> None:
        super().__init__(422, code, message, details={"field": field} if field else {})


def translate(error: Exception) -> ApiError | None:
    """What the parts raise, as an answer; None for what nobody foresaw."""
    match error:
        case ApiError():
            return error
        case BadCookies():
            return ApiError(400, "bad_cookies", str(error))
        case StoreUnavailable():
            message = (
                "Redis does not answer, so nothing is known and nothing was changed; try again"
            )
            return ApiError(503, "redis_unavailable", message, retry_after=RETRY_REDIS)
        case LimitReached():
            return _limit(error)
        case Conflict():
            details = {"status": error.actual} if error.actual else {}
            return ApiError(
                409, "conflict", f"{error}; look at the workspace again", details=details
            )
        case SnapshotError():
            status = SNAPSHOT_STATUS.get(error.code, 500)
            retry = RETRY_LIMIT if status == 503 else None
            return ApiError(status, f"snapshot_{error.code}", str(error), retry_after=retry)
        case _:
            return None


def _limit(error: LimitReached) -> ApiError:
    """What something has to be deleted or stopped for is 403; what frees with time is 429."""
    details: dict[str, Any] = {"limit": error.limit, "allowed": error.allowed, "used": error.used}
    if error.frees_at_ms is not None:
        details["freesAt"] = error.frees_at_ms
    wait = error.retry_after or RETRY_LIMIT
    message = words(error.limit, error.used, error.allowed, error.frees_at_ms, error.retry_after)
    if error.limit in FOR_GOOD:
        return ApiError(403, "quota_exceeded", message, details=details)
    code = "quota_exceeded" if error.limit in HOURLY else "limit_reached"
    if error.limit == "start_rate":
        code = "rate_limited"
    return ApiError(429, code, message, retry_after=math.ceil(wait), details=details)
