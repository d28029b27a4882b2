"""The front door: every request and handshake comes in here and goes to the place its Host names."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway import closing, headers, pages, visits
from gateway.bounds import Bounds
from gateway.entry import safe_next
from gateway.hosts import Base, PortHost, PublicUrl, WorkspaceHost, host_of, origin_of, place_of
from gateway.passing import Ways
from gateway.relay import refuse
from gateway.workspace import WorkspaceApp

_PROBES = frozenset({"/healthz", "/readyz"})


class Front:
    """ASGI application."""

    def __init__(
        self,
        domain: str,
        public: PublicUrl,
        base: ASGIApp,
        workspaces: WorkspaceApp,
        ways: Ways,
        bounds: Bounds | None = None,
    ) -> None:
        """ways: requests that pass below this. bounds: of connections."""
        self.ways, self.sessions, self.bounds = ways, workspaces, bounds
        self._domain, self._public = domain, public
        self._base, self._workspaces = base, workspaces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        raw = scope.get("raw_path") or scope["path"].encode()
        wrong = headers.refuse(scope["headers"], scope.get("method", "GET"), raw)
        if wrong is not None:
            await _answer(scope, receive, send, 400, "bad_request", wrong)
            return
        host = next((value for name, value in scope["headers"] if name == b"host"), None)
        place = place_of(host, self._domain)
        if scope["path"] in _PROBES and not isinstance(place, WorkspaceHost | PortHost):
            place = Base()  # load balancers ask by address
        if place is None:
            text = f"this gateway serves {self._domain} and *.{self._domain}"
            await _answer(scope, receive, send, 421, "misdirected", text)
        elif not isinstance(place, Base):
            await self._workspaces(scope, receive, send, place)
        elif scope["type"] == "websocket":
            await refuse(scope, receive, send, closing.NO_SUCH_WORKSPACE)
        elif self._is_astray(scope, host):
            # By its address the page works, but what it changes would come from a foreign origin.
            target = raw + (b"?" + scope["query_string"] if scope["query_string"] else b"")
            link = origin_of(Base(), self._public) + safe_next(target.decode("latin-1"))
            await RedirectResponse(link, 307, {"cache-control": "no-store"})(scope, receive, send)
        else:
            await self._base(scope, receive, send)

    def _is_astray(self, scope: Scope, host: bytes | None) -> bool:
        """A person's visit of the base host under an address instead of its name."""
        by_name = host is not None and host.lower() == host_of(Base(), self._public).encode()
        return not by_name and visits.is_navigation(Headers(scope=scope), scope["method"])


async def not_found(request: Request, error: Exception) -> Response:
    """The base host's answer for a path it does not have."""
    del error
    if visits.is_navigation(request.headers, request.method):
        return pages.render(pages.not_found("/"), pages.BASE_ASSETS)
    body = {"error": {"code": "not_found", "message": f"there is nothing at {request.url.path}"}}
    return JSONResponse(body, 404)


async def _answer(
    scope: Scope, receive: Receive, send: Send, status: int, code: str, message: str
) -> None:
    """A plain refusal, to a request or to a WebSocket handshake."""
    response = JSONResponse(
        {"error": {"code": code, "message": message}}, status, {"connection": "close"}
    )
    await response(scope, receive, send)
