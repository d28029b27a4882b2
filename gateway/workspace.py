"""A workspace's host: who may enter, what is relayed, what is proxied, what gets a page instead.

One request goes one way: sane? → ours under /_gateway? → who → whose → running? → relay or proxy. A tab's
visit of a running one is answered by the shell where the IDE's own page may be held in a frame (shell.py).
A WebSocket, an asset or a script's call never wakes a workspace; only a person's visit does.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from urllib.parse import quote

import structlog
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway import auth, closing, headers, pages, shell
from gateway.admission import Admission
from gateway.answer import CHUNKED
from gateway.heartbeats import Heartbeats, TooManySessions
from gateway.hosts import Base, PortHost, PublicUrl, WorkspaceHost, host_of, label_of, origin_of
from gateway.metrics import Metrics
from gateway.opening import without_key
from gateway.passing import REMEMBER, Way
from gateway.proxy import HttpProxy, UpstreamDown, framed, target_of
from gateway.relay import hand_over, refuse
from gateway.routes import Routes
from gateway.tunnel import Session
from gateway.upgrade import UpstreamError, UpstreamRefused, open_upstream
from gateway.upstreams import header_block
from gateway.visits import WorkspaceEndpoint, here_of, is_navigation, is_prefetch, is_visit
from lifecycle.model import Workspace, WorkspaceStatus
from lifecycle.stores import StoreUnavailable

log = structlog.get_logger(__name__)

_W = WorkspaceStatus
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_NOT_PLAIN = frozenset({b"upgrade", b"expect", b"te"})
"""Headers of requests that speak of the connection itself: the application looks at each of them."""
OURS = "/_gateway/"
CONTROL = OURS + "control"

NOT_RUNNING: Mapping[WorkspaceStatus, closing.Close] = {
    _W.QUEUED: closing.STARTING,
    _W.STARTING: closing.STARTING,
    _W.STOPPING: closing.STOPPED,
    _W.STOPPED: closing.STOPPED,
    _W.TERMINATING: closing.TERMINATED,
    _W.TERMINATED: closing.TERMINATED,
    _W.FAILED: closing.CRASHED,
}


@dataclass(frozen=True, slots=True)
class Upstream:
    """Where a request goes and what opens it there."""

    host: str
    port: int
    extra: tuple[str, str] | None


Control = Callable[[Scope, Receive, Send, Workspace], Awaitable[None]]
"""Serves a control channel to somebody who may have it."""


class WorkspaceApp:
    """ASGI application for every workspace's host and its ports' hosts."""

    def __init__(
        self,
        *,
        routes: Routes,
        keys: auth.Keys,
        public: PublicUrl,
        entry_ttl: float,
        upstream_header: str,
        proxy: HttpProxy,
        heartbeats: Heartbeats,
        admission: Admission,
        metrics: Metrics,
        visit: WorkspaceEndpoint,
        unanswered: WorkspaceEndpoint,
        ours: Mapping[tuple[str, str], WorkspaceEndpoint],
        enter: WorkspaceEndpoint,
        assets: ASGIApp,
        ports: Callable[[Workspace], Awaitable[frozenset[int]]],
        control: Control,
        shell: bool,
    ) -> None:
        """ours: (method, path below /_gateway) → endpoint for somebody who may. enter: for anybody
        with a code. ports: what a workspace's own processes listen on. shell: show the IDE in it."""
        self._routes, self._keys, self._public = routes, keys, public
        self._entry_ttl = entry_ttl
        name, _, value = upstream_header.partition(":")
        self._extra = (name.strip(), value.strip()) if value else None
        self._proxy, self._heartbeats, self._metrics = proxy, heartbeats, metrics
        self._visit, self._unanswered = visit, unanswered
        self._ours, self._enter, self._assets = ours, enter, assets
        self._admission = admission
        self._ports, self._control, self._shell = ports, control, shell

    async def __call__(
        self, scope: Scope, receive: Receive, send: Send, place: WorkspaceHost | PortHost
    ) -> None:
        if scope["type"] == "websocket":
            await self._websocket(scope, receive, send, place)
        else:
            response = await self._http(scope, receive, send, place)
            if response is not None:
                await response(scope, receive, send)

    def _who(self, scope: Scope, workspace: str) -> auth.Visitor | auth.TokenBearer | auth.Nobody:
        return auth.identify_workspace(
            scope["headers"],
            workspace,
            self._keys,
            https=self._public.https,
            max_age=self._entry_ttl,
            now=time.time(),
        )

    def _origin_ok(
        self, scope: Scope, who: auth.Principal, place: WorkspaceHost | PortHost
    ) -> bool:
        return auth.check_origin(
            auth.origin_header(scope["headers"]),
            origin_of(place, self._public),
            cookie_used=who.by_cookie,
        )

    def _asker_ok(self, scope: Scope, who: auth.Principal, place: WorkspaceHost | PortHost) -> bool:
        if scope["method"] in _SAFE:
            return auth.check_reader(scope["headers"], origin_of(place, self._public))
        return self._origin_ok(scope, who, place)

    # HTTP

    async def _http(
        self, scope: Scope, receive: Receive, send: Send, place: WorkspaceHost | PortHost
    ) -> Response | None:
        """A response to send, or None when it was proxied."""
        request = Request(scope, receive)
        path: str = scope["path"]
        if path.startswith(pages.WORKSPACE_ASSETS + "/"):
            inner = dict(scope, path=path.removeprefix(pages.WORKSPACE_ASSETS), root_path="")
            try:
                await self._assets(inner, receive, send)
            except HTTPException as error:
                return _problem(error.status_code, "not_found", "there is no such file")
            return None
        if path == OURS + "enter":
            return await self._enter(request, label_of(place))
        try:
            who = self._who(scope, place.workspace)
        except auth.BadCookies as error:
            return _problem(400, "bad_cookies", str(error))
        if isinstance(who, auth.Nobody):
            return self._ask_in(request, place)
        if not self._asker_ok(scope, who, place):
            return _problem(
                403, "bad_origin", f"this may only be asked by {origin_of(place, self._public)}"
            )
        try:
            workspace = await self._routes.find(place.workspace)
        except StoreUnavailable:
            return self._sorry(request, pages.unavailable(here_of(request)), "redis_unavailable", 5)
        if workspace is None or workspace.user_id != who.user:
            return self._sorry(request, pages.not_found(self._home), "not_found")
        if path.startswith(OURS):
            return await self._own(request, workspace)
        if workspace.status is not _W.RUNNING:
            return await self._asleep(request, workspace)
        return await self._forward(scope, receive, send, place, workspace)

    @property
    def _home(self) -> str:
        return origin_of(Base(), self._public) + "/"

    def _ask_in(self, request: Request, place: WorkspaceHost | PortHost) -> Response:
        """The base host knows who this browser is: let it send the person back with a code."""
        if is_navigation(request.headers, request.method) and not request.scope["path"].startswith(
            OURS
        ):
            link = f"{self._home}open/{label_of(place)}?next={quote(here_of(request), safe='')}"
            return RedirectResponse(link, 303, {"cache-control": "no-store"})
        return _problem(
            401,
            "unauthorized",
            "enter this workspace first: open its page, or send Authorization: Bearer TOKEN",
            {"www-authenticate": 'Bearer realm="ide-gateway"'},
        )

    async def _own(self, request: Request, workspace: Workspace) -> Response:
        """The gateway's own paths on this host."""
        below = request.scope["path"].removeprefix(OURS)
        endpoint = self._ours.get((request.method, below))
        if endpoint is None:
            return self._sorry(request, pages.not_found(self._home), "not_found")
        return await endpoint(request, workspace.id)

    async def _asleep(self, request: Request, workspace: Workspace) -> Response:
        if is_visit(request.headers, request.method):
            return await self._visit(request, workspace.id)
        if is_navigation(request.headers, request.method):
            return pages.render(pages.resting(workspace, here_of(request)), framed=True)
        close = NOT_RUNNING[workspace.status]
        return _problem(
            503, close.name.replace("-", "_"), close.reason, {"cache-control": "no-store"}
        )

    def _sorry(
        self, request: Request, page: pages.Page, code: str, retry_after: int = 0
    ) -> Response:
        """A page for a person, the API's error shape for everything else."""
        if is_navigation(request.headers, request.method):
            return pages.render(page, framed=shell.is_frame(request.headers))
        extra = {"retry-after": str(retry_after)} if retry_after else {}
        return _problem(page.status, code, page.fields["message"], extra)

    async def _upstream(
        self, place: WorkspaceHost | PortHost, workspace: Workspace
    ) -> Upstream | None:
        """Only addresses from our own records are dialled; None: nothing of the workspace's listens there."""
        host, _, port = workspace.address.rpartition(":")
        if isinstance(place, PortHost):
            if place.port not in await self._ports(workspace):
                return None
            return Upstream(host, place.port, None)
        extra = self._extra and (
            self._extra[0],
            self._extra[1].replace("{secret}", workspace.secret),
        )
        return Upstream(host, int(port), extra)

    def _headers(
        self, scope: Scope, place: WorkspaceHost | PortHost, extra: tuple[str, str] | None
    ) -> list[headers.Header]:
        return headers.upstream_headers(
            scope["headers"],
            host=host_of(place, self._public),
            client_ip=(scope.get("client") or ("unknown", 0))[0],
            scheme=self._public.scheme,
            trusted=False,
            own_cookie_names=auth.OWN_COOKIE_NAMES,
            drop_authorization=auth.authorization_is_ours(scope["headers"], self._keys),
            extra=extra,
            websocket=scope["type"] == "websocket",
        )

    async def _forward(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        place: WorkspaceHost | PortHost,
        workspace: Workspace,
    ) -> Response | None:
        request = Request(scope, receive)
        upstream = await self._upstream(place, workspace)
        if upstream is None:
            return self._sorry(request, pages.not_found(self._home), "nothing_listens")
        asked, instead, vary = self._headers(scope, place, upstream.extra), None, False
        if shell.is_asked(request.headers, request.method):
            if shell.by_hand(request.headers) and not is_prefetch(request.headers):
                self._heartbeats.saw(workspace.id, "input", "visit")
            if self._shell and isinstance(place, WorkspaceHost):
                asked = shell.whole(asked)
                instead = shell.instead(workspace, origin_of(place, self._public), self._home)
        else:
            vary = self._shell and shell.is_frame(request.headers)
            if isinstance(place, WorkspaceHost):
                _remember(scope, workspace, upstream, asked, vary)
        if vary:
            send = shell.varying(send)
        try:
            outcome = await self._proxy.forward(
                scope,
                receive,
                send,
                route_key=(workspace.id, workspace.epoch),
                host=upstream.host,
                port=upstream.port,
                headers=asked,
                instead=instead,
            )
        except UpstreamDown as error:
            self._metrics.proxied(502)
            log.warning("proxy.upstream_down", workspace=workspace.id, why=str(error))
            if shell.is_frame(request.headers):
                return pages.render(pages.resting(workspace, here_of(request)), framed=True)
            if is_navigation(request.headers, request.method):
                return await self._unanswered(request, workspace.id)
            return _problem(502, "upstream_down", "the workspace did not answer; reload its page")
        self._metrics.proxied(outcome.status)
        return None

    # WebSocket

    async def _websocket(
        self, scope: Scope, receive: Receive, send: Send, place: WorkspaceHost | PortHost
    ) -> None:
        try:
            who = self._who(scope, place.workspace)
        except auth.BadCookies as error:
            await _reject(send, 400, str(error))
            return
        # Before anything else: a page of another origin learns nothing, not even a close code.
        if not self._origin_ok(scope, who, place):
            await _reject(send, 403, "this WebSocket may only be opened by its own page")
            return
        if isinstance(who, auth.Nobody):
            await refuse(scope, receive, send, closing.UNAUTHORIZED)
            return
        try:
            workspace = await self._routes.find(place.workspace)
        except StoreUnavailable:
            await refuse(scope, receive, send, closing.OVERLOADED)
            return
        if workspace is None or workspace.user_id != who.user:
            await refuse(scope, receive, send, closing.NO_SUCH_WORKSPACE)
        elif scope["path"] == CONTROL and isinstance(place, WorkspaceHost):
            await self._control(scope, receive, send, workspace)
        elif scope["path"].startswith(OURS):
            await refuse(scope, receive, send, closing.NO_SUCH_WORKSPACE)
        elif workspace.status is not _W.RUNNING:
            await refuse(scope, receive, send, NOT_RUNNING[workspace.status])
        else:
            await self._relay(scope, receive, send, place, workspace)

    async def _relay(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        place: WorkspaceHost | PortHost,
        workspace: Workspace,
    ) -> None:
        target = await self._upstream(place, workspace)
        if target is None:
            await _reject(send, 404, "nothing of this workspace listens on that port")
            return
        offer = self._headers(scope, place, target.extra)
        try:
            session = self.admit(workspace)
        except TooManySessions as full:
            await refuse(scope, receive, send, full.close)
            return
        try:
            await self._admission.admit(session, workspace.plan)
            upstream = await open_upstream(
                target.host,
                target.port,
                _target(scope),
                offer,
                peer_timeout=self._proxy.upstreams.peer_timeout,
            )
        except TooManySessions as full:
            self.ended(session, 0)
            await refuse(scope, receive, send, full.close)
            return
        except UpstreamRefused as refused:
            self.ended(session, 0)
            await _reject(send, refused.status, refused.body, self.back(refused.headers))
            return
        except UpstreamError as error:
            self.ended(session, 0)
            log.warning("relay.upstream_down", workspace=workspace.id, why=str(error))
            await refuse(scope, receive, send, closing.UPSTREAM_LOST)
            return
        except BaseException:
            self.ended(session, 0)
            raise
        if isinstance(place, WorkspaceHost) and not self._admission.is_bound(workspace.plan):
            _remember_handshake(scope, workspace, target, offer)
        hand_over(
            scope,
            upstream,
            session,
            response_headers=self.back(upstream.headers),
            on_end=self.ended,
        )
        self.opened(session)

    # Sessions, also of those that open below us (opening.py)

    def admit(self, workspace: Workspace) -> Session:
        """Raises TooManySessions."""
        return self._heartbeats.admit(workspace.id, workspace.user_id, workspace.epoch)

    def opened(self, session: Session) -> None:
        self._heartbeats.opened(session)

    def ended(self, session: Session, code: int) -> None:
        self._heartbeats.ended(session, code)
        self._admission.ended(session)

    def back(self, given: list[headers.Header]) -> list[headers.Header]:
        try:
            return headers.client_headers(given, own_cookie_names=auth.OWN_COOKIE_NAMES)
        except headers.BadAnswer as error:
            log.warning("relay.bad_headers", why=str(error))
            return []


def _remember(
    scope: Scope, workspace: Workspace, to: Upstream, asked: list[headers.Header], vary: bool
) -> None:
    """Let the next request like this one pass below us (passing.py)."""
    remember = scope.get("extensions", {}).get(REMEMBER)
    said = dict(scope["headers"])
    if remember is None or not _NOT_PLAIN.isdisjoint(said) or scope["http_version"] != "1.1":
        return
    if said.get(b"connection", b"keep-alive").lower() != b"keep-alive":
        return
    in_chunks = b"transfer-encoding" in said
    sent = header_block(framed(scope["method"], asked, in_chunks))
    length = CHUNKED if in_chunks else int(said.get(b"content-length", b"0"))
    line = b"vary: %b\r\n" % shell.VARY if vary else b""
    remember(Way(workspace, to.host, to.port, sent, length, line), scope["headers"])


def _remember_handshake(
    scope: Scope, workspace: Workspace, to: Upstream, offer: list[headers.Header]
) -> None:
    remember = scope.get("extensions", {}).get(REMEMBER)
    if remember is not None:
        kept = tuple(without_key(offer))
        lines = b"".join(b"%b: %b\r\n" % header for header in kept)
        way = Way(workspace, to.host, to.port, lines, 0, offer=kept)
        remember(way, without_key(scope["headers"]))


def _target(scope: Scope) -> bytes:
    return target_of({"raw_path": scope["path"].encode(), "query_string": b"", **scope})


def _problem(
    status: int, code: str, message: str, extra: Mapping[str, str] | None = None
) -> Response:
    return JSONResponse(
        {"error": {"code": code, "message": message}},
        status,
        {"cache-control": "no-store", **(extra or {})},
    )


async def _reject(
    send: Send,
    status: int,
    body: str | bytes,
    given: list[headers.Header] | None = None,
) -> None:
    """Answer a WebSocket handshake with a plain HTTP response."""
    content = body.encode() if isinstance(body, str) else body
    kept = [
        pair for pair in given or [] if pair[0] not in (b"content-length", b"date", b"connection")
    ]
    await send({"type": "websocket.http.response.start", "status": status, "headers": kept})
    await send({"type": "websocket.http.response.body", "body": content, "more_body": False})
