"""One call of the API as data, and the one way every call goes:

method → who calls → may they → Origin → query and body → handler → answer, or an error in its one shape.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import structlog
from pydantic import BaseModel
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from gateway.api.bodies import read_body, read_query
from gateway.api.errors import ApiError, translate
from gateway.api.limits import Limits
from gateway.api.parts import Parts, Principal
from gateway.auth import Admin, Nobody, Person

log = structlog.get_logger()

CHANGING = frozenset({"POST", "PUT", "PATCH", "DELETE"})
NEVER_CACHED = {"Cache-Control": "no-store"}
_OPEN = ("public", "machine")
MANY = 10.0


@dataclass(frozen=True, slots=True)
class Call:
    """A request that was let in, its body and query read. body, query: of the operation's own models."""

    request: Request
    parts: Parts
    principal: Principal
    body: Any
    query: Any

    @property
    def user(self) -> str | None:
        """Whose things alone may be touched; None for an admin."""
        return self.principal.user if isinstance(self.principal, Person) else None


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    content: BaseModel | Sequence[BaseModel] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


Handler = Callable[[Call], Awaitable[Reply | Response]]


@dataclass(frozen=True, slots=True)
class Operation:
    """answers: status → the shape of the answer; many: it is a list of that shape. access "machine":
    the handler looks at the machine's token."""

    method: str
    path: str
    handler: Handler
    summary: str
    access: Literal["public", "machine", "person", "admin"]
    answers: Mapping[int, type[BaseModel] | None]
    body: type[BaseModel] | None = None
    query: type[BaseModel] | None = None
    many: bool = False
    errors: tuple[int, ...] = ()
    media_types: tuple[str, ...] = ("application/json",)


class Endpoint:
    """All operations of one path, as an ASGI application."""

    def __init__(self, operations: Iterable[Operation], parts: Parts) -> None:
        self._operations = {operation.method: operation for operation in operations}
        self._parts = parts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            response = await self._answer(request)
        except ClientDisconnect:
            return
        except Exception as error:
            response = _failure(error, request)
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        operation = self._operation(request.method)
        principal = self._parts.identify(request) if operation.access not in _OPEN else Nobody()
        if operation.path.startswith("/api"):  # not /healthz and the like: a balancer asks for many
            _hold(request, principal, operation, self._parts.limits)
        _admit(operation, principal)
        if operation.method in CHANGING and not self._parts.origin_allowed(
            request, principal.by_cookie
        ):
            message = "this call changes something, and its Origin is not the gateway's own"
            raise ApiError(403, "bad_origin", message)
        query = read_query(request, operation.query) if operation.query else None
        body = await read_body(request, operation.body) if operation.body else None
        reply = await operation.handler(Call(request, self._parts, principal, body, query))
        return reply if isinstance(reply, Response) else _response(reply)

    def _operation(self, method: str) -> Operation:
        operation = self._operations.get("GET" if method == "HEAD" else method)
        if operation is None:
            allowed = ", ".join(sorted(self._operations))
            message = f"{method[:16]} is not possible here; possible: {allowed}"
            raise ApiError(405, "method_not_allowed", message, headers={"Allow": allowed})
        return operation


class UnknownPath:
    """ASGI application for whatever is below /api and is no operation, by any method."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        error = ApiError(404, "not_found", "there is no such call; see /api/openapi.json")
        await _failure(error, Request(scope))(scope, receive, send)


def _hold(request: Request, principal: Principal, operation: Operation, limits: Limits) -> None:
    """No more calls than the caller's rate; an operator and machines have ten times as many."""
    where = request.client.host if request.client else ""
    match principal:
        case Admin():
            caller, times = "operator", MANY
        case Person(user=user):
            caller, times = f"user {user}", 1.0
        case _:  # many machines may share an address
            open = operation.access in _OPEN
            caller, times = (f"machines at {where}", MANY) if open else (f"address {where}", 1.0)
    if wait := limits.take(caller, times):
        message = f"more calls than one caller may make; try again in {math.ceil(wait)} s"
        raise ApiError(429, "rate_limited", message, retry_after=math.ceil(wait))


def _admit(operation: Operation, principal: Principal) -> None:
    if operation.access in _OPEN:
        return
    if isinstance(principal, Nobody):
        message = "say who you are: Authorization: Bearer KEY (DATA_DIR/api-key), or enter first"
        raise ApiError(401, "unauthorized", message, headers={"WWW-Authenticate": "Bearer"})
    if operation.access == "admin" and not isinstance(principal, Admin):
        raise ApiError(403, "forbidden", "only the operator's API key may ask this")


def _response(reply: Reply) -> Response:
    headers = {**NEVER_CACHED, **reply.headers}
    if reply.content is None:
        return Response(status_code=reply.status, headers=headers)
    content = reply.content
    data = _plain(content) if isinstance(content, BaseModel) else [_plain(row) for row in content]
    return JSONResponse(data, reply.status, headers)


def _plain(model: BaseModel) -> dict[str, Any]:
    return model.model_dump(mode="json", by_alias=True)


def _failure(error: Exception, request: Request) -> Response:
    known = translate(error)
    if known is None:
        log.error("api call failed", method=request.method, path=request.url.path, exc_info=error)
        known = ApiError(500, "internal", "the gateway failed at this call; its log says why")
    return JSONResponse(known.body(), known.status, {**NEVER_CACHED, **known.headers})
