"""Alive? Take traffic? And the figures."""

from __future__ import annotations

import hmac

from starlette.responses import JSONResponse, Response

from gateway.api.answers import HealthAnswer, ReadyAnswer
from gateway.api.errors import ApiError
from gateway.api.operation import NEVER_CACHED, Call, Reply
from gateway.auth import Admin, bearer
from gateway.metrics import CONTENT_TYPE


async def healthz(call: Call) -> Reply:
    return Reply(200, HealthAnswer(status="ok"))


async def readyz(call: Call) -> Reply:
    ready, reasons = await call.parts.health.ready()
    content = ReadyAnswer(status="ok" if ready else "unavailable", reasons=list(reasons))
    return Reply(200 if ready else 503, content)


async def metrics(call: Call) -> Response:
    """Open unless a metrics token is set; then that token or the API key opens it."""
    if call.parts.metrics_token and not _may_read(call):
        message = "metrics ask for Authorization: Bearer, with the metrics token or the API key"
        raise ApiError(401, "unauthorized", message, headers={"WWW-Authenticate": "Bearer"})
    return Response(call.parts.metrics(), headers=NEVER_CACHED, media_type=CONTENT_TYPE)


async def openapi(call: Call) -> Response:
    return JSONResponse(call.parts.openapi, headers={"Cache-Control": "no-cache"})


def _may_read(call: Call) -> bool:
    given = (bearer(call.request.headers.raw) or "").encode()
    if hmac.compare_digest(given, call.parts.metrics_token.encode()):
        return True
    return isinstance(call.parts.identify(call.request), Admin)
