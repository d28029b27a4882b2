"""The agent over HTTP: the calls of contract.py, nothing else."""

from __future__ import annotations

import hmac
import json
import logging
import re
from collections.abc import Callable
from dataclasses import asdict, fields
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from lifecycle.agent.agent import Agent
from lifecycle.agent.contract import SnapshotSpec, StartSpec, WarmSpec
from lifecycle.agent.refusal import Refused

log = logging.getLogger("lifecycle.agent")

MAX_BODY = 64 * 1024  # bytes; a StartSpec has some hundreds
MAX_WAIT = 60.0  # seconds that /status is held
MAX_GRACE = 600.0
MAX_TAIL = 5000  # lines

_WORKSPACE_ID = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?")
_KINDS: dict[str, tuple[type, ...]] = {"int": (int,), "str": (str,), "float": (int, float)}

_Spec = TypeVar("_Spec", StartSpec, SnapshotSpec, WarmSpec)


def create_app(agent: Agent, token: str) -> ASGIApp:
    """token: what every call must bear."""
    calls = _Calls(agent)
    routes = [
        Route("/status", calls.status, methods=["GET"]),
        Route("/shutdown", calls.shutdown, methods=["POST"]),
        Route("/warm", calls.warm, methods=["PUT"]),
        Route("/workspaces/{id}", calls.start, methods=["PUT"]),
        Route("/workspaces/{id}", calls.remove, methods=["DELETE"]),
        Route("/workspaces/{id}/stop", calls.stop, methods=["POST"]),
        Route("/workspaces/{id}/snapshot", calls.snapshot, methods=["POST"]),
        Route("/workspaces/{id}/ports", calls.ports, methods=["GET"]),
        Route("/workspaces/{id}/log", calls.log, methods=["GET"]),
    ]
    handlers: dict[Any, Any] = {Refused: _refusal, 404: _no_such_call, 405: _no_such_call}
    return _Bearer(Starlette(routes=routes, exception_handlers=handlers | {500: _fault}), token)


class _Bearer:
    """Nothing is answered without the token, not even whether a path exists."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._expected = f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        if len(given) == 1 and hmac.compare_digest(given[0], self._expected):
            await self._app(scope, receive, send)
            return
        refused = Refused(401, "unauthorized", "this is not the machine's token")
        await _answer(refused)(scope, receive, send)


class _Calls:
    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    async def status(self, request: Request) -> Response:
        since = int(_query(request, "since", 0, float("inf")))
        wait = _query(request, "wait", 0, MAX_WAIT)
        return JSONResponse((await self._agent.report(since, wait)).to_json())

    async def start(self, request: Request) -> Response:
        spec = await _spec(request, StartSpec, StartSpec.from_json)
        return JSONResponse(asdict(await self._agent.start(_id(request), spec)), 202)

    async def stop(self, request: Request) -> Response:
        body = await _body(request)
        grace = min(_number(body, "grace", 10.0), MAX_GRACE)
        report = await self._agent.stop(_id(request), _epoch(body), grace)
        return JSONResponse(asdict(report))

    async def snapshot(self, request: Request) -> Response:
        spec = await _spec(request, SnapshotSpec, lambda body: SnapshotSpec(**body))
        return JSONResponse(asdict(await self._agent.snapshot(_id(request), spec)))

    async def remove(self, request: Request) -> Response:
        await self._agent.remove(_id(request), _epoch(await _body(request)))
        return JSONResponse({})

    async def ports(self, request: Request) -> Response:
        return JSONResponse({"ports": await self._agent.ports(_id(request))})

    async def log(self, request: Request) -> Response:
        tail = int(_query(request, "tail", 200, MAX_TAIL))
        return PlainTextResponse(await self._agent.log(_id(request), tail))

    async def warm(self, request: Request) -> Response:
        spec = await _spec(request, WarmSpec, WarmSpec.from_json)
        self._agent.keep_warm(spec)
        return JSONResponse({})

    async def shutdown(self, request: Request) -> Response:
        self._agent.closing.set()
        return JSONResponse({}, 202)


def _id(request: Request) -> str:
    workspace_id: str = request.path_params["id"]
    if not _WORKSPACE_ID.fullmatch(workspace_id):  # it becomes a directory's name
        raise _bad(f"{workspace_id[:60]!r} is not a workspace id")
    return workspace_id


async def _body(request: Request) -> dict[str, Any]:
    received = bytearray()
    async for chunk in request.stream():
        received += chunk
        if len(received) > MAX_BODY:
            raise Refused(413, "bad_request", f"the body is larger than {MAX_BODY} bytes")
    try:
        body = json.loads(received)
    except ValueError as error:
        raise _bad(f"the body is not JSON ({error})") from None
    if not isinstance(body, dict):
        raise _bad("the body is not an object")
    return body


async def _spec(
    request: Request, kind: type[_Spec], read: Callable[[dict[str, Any]], _Spec]
) -> _Spec:
    body = await _body(request)
    if kind is not WarmSpec:
        _epoch(body)
    try:
        spec = read(body)
    except TypeError as error:  # a field too many or too few
        raise _bad(str(error)) from None
    for field in fields(kind):
        value = getattr(spec, field.name)
        if not isinstance(value, _KINDS.get(str(field.type), object)) or isinstance(value, bool):
            raise _bad(f"{field.name} must be {field.type}, not {value!r:.60}")
    lines = ("upstream_header", "ready_path", "jobs_path")
    header = "".join(getattr(spec, name, "") for name in lines)
    if "\r" in header or "\n" in header:
        raise _bad("upstream_header, ready_path and jobs_path are one line each")
    return spec


def _epoch(body: dict[str, Any]) -> int:
    epoch = body.get("epoch")
    if not isinstance(epoch, int) or isinstance(epoch, bool) or epoch < 1:
        raise _bad(f"epoch must be a whole number from 1, not {epoch!r:.60}")
    return epoch


def _number(body: dict[str, Any], name: str, default: float) -> float:
    value = body.get(name, default)
    if not isinstance(value, int | float) or isinstance(value, bool) or not value >= 0:
        raise _bad(f"{name} must be a number from 0, not {value!r:.60}")
    return float(value)


def _query(request: Request, name: str, default: float, most: float) -> float:
    text = request.query_params.get(name, str(default))
    try:
        value = float(text)
    except ValueError:
        value = -1
    if not 0 <= value < float("inf"):
        raise _bad(f"{name} must be a number from 0, not {text[:60]!r}")
    return min(value, most)


def _bad(message: str) -> Refused:
    return Refused(400, "bad_request", message)


def _answer(refused: Refused) -> JSONResponse:
    error = {"code": refused.code, "message": str(refused), "hint": refused.hint}
    return JSONResponse({"error": error}, refused.status)


async def _refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return _answer(error)


async def _no_such_call(request: Request, error: Exception) -> Response:
    path = request.url.path[:100]
    return _answer(Refused(404, "not_found", f"there is no {request.method} {path}"))


async def _fault(request: Request, error: Exception) -> Response:
    log.error("%s %s broke", request.method, request.url.path, exc_info=error)
    return _answer(Refused(500, "agent_error", f"{type(error).__name__}: {error}"))
