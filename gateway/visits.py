"""People's visits: is this one, what does it wake, and how does somebody come in?

Endpoints are made here from what they need; gateway/app.py puts them together. Those of a workspace's
host are called with the workspace's id beside the request; who may call them was checked before.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from gateway import pages
from gateway.entry import Grant, safe_next
from gateway.hosts import PortHost, WorkspaceHost, label_of, place_of_label
from gateway.pages import BASE_ASSETS, render
from gateway.progress import Progress
from lifecycle.model import Workspace, WorkspaceStatus
from lifecycle.quota import FOR_GOOD, words
from lifecycle.stores import Conflict, LimitReached, StoreError, StoreUnavailable

_W = WorkspaceStatus

_WOKEN = frozenset({_W.STOPPED, _W.TERMINATED, _W.STOPPING, _W.TERMINATING})
_COMING = frozenset({_W.QUEUED, _W.STARTING, _W.RUNNING})

Endpoint = Callable[[Request], Awaitable[Response]]
WorkspaceEndpoint = Callable[[Request, str], Awaitable[Response]]
Who = Callable[[Request], str | None]
"""The person whose cookie this request carries on the base host."""


Redeem = Callable[[str], Awaitable[Grant | None]]
"""Take a code; it is gone then, whatever it was for. None: unknown, used or too old."""

Mint = Callable[[str, str, str], Awaitable[str]]
"""(user, label, next) → a one-use code for the host of that label."""


class Records(Protocol):
    """The store, as far as a visit needs it."""

    async def get(self, workspace_id: str) -> Workspace | None: ...

    async def wake(self, workspace_id: str) -> Workspace: ...


def is_prefetch(headers: Mapping[str, str]) -> bool:
    """Fetched ahead in case somebody comes; nobody has come yet. headers: lower-case names."""
    said = (
        f"{headers.get('sec-purpose', '')} {headers.get('purpose', '')} {headers.get('x-moz', '')}"
    )
    return any(word in said.lower() for word in ("prefetch", "prerender", "preview"))


def is_navigation(headers: Mapping[str, str], method: str) -> bool:
    """A browser shows this as a page, in a tab or in a frame. headers: lower-case names."""
    if method != "GET" or is_prefetch(headers):
        return False
    if mode := headers.get("sec-fetch-mode"):
        return mode == "navigate" and headers.get("sec-fetch-dest") in {"document", "iframe"}
    return "text/html" in headers.get("accept", "") and "x-requested-with" not in headers


def is_visit(headers: Mapping[str, str], method: str) -> bool:
    """A navigation that wakes what sleeps: of a tab. A frame's only shows that it sleeps: the page around
    it may be an hour old, with nobody before it."""
    return is_navigation(headers, method) and headers.get("sec-fetch-dest") != "iframe"


def here_of(request: Request) -> str:
    """Path and query as they were asked for, still encoded."""
    path = request.scope.get("raw_path") or request.url.path.encode()
    query = request.scope.get("query_string", b"")
    return safe_next((path + (b"?" + query if query else b"")).decode("latin-1"))


def home(who: Who) -> Endpoint:
    """GET / on the base host."""

    async def endpoint(request: Request) -> Response:
        user = who(request)
        return render(pages.home_page(user) if user else pages.sign_in(), BASE_ASSETS)

    return endpoint


def enter(redeem: Redeem, cookie: Callable[[str], str]) -> Endpoint:
    """GET /enter?code= on the base host. cookie(user): a Set-Cookie value."""

    async def endpoint(request: Request) -> Response:
        if early := _only_looking(request):
            return early
        try:
            entry = await redeem(request.query_params.get("code", ""))
        except StoreUnavailable:
            # Not the asked-for address: whether the code was taken is unknown.
            return render(pages.unavailable("/"), BASE_ASSETS)
        if entry is None or entry.kind != "home":
            return render(pages.code_expired("/"), BASE_ASSETS)
        return _go("/", cookie(entry.user))

    return endpoint


def workspace_enter(
    redeem: Redeem, cookie: Callable[[str, str], str], home: str
) -> WorkspaceEndpoint:
    """GET /_gateway/enter?code=&next= on the host of a label. cookie(workspace, user): a Set-Cookie value."""

    async def endpoint(request: Request, label: str) -> Response:
        if early := _only_looking(request):
            return early
        place = place_of_label(label)
        try:
            entry = await redeem(request.query_params.get("code", ""))
        except StoreUnavailable:
            return render(pages.unavailable("/"))
        if place is None or entry is None or (entry.kind, entry.workspace) != ("workspace", label):
            return render(pages.code_expired(home))
        wanted = entry.next if entry.next != "/" else request.query_params.get("next", "/")
        return _go(safe_next(wanted), cookie(place.workspace, entry.user))

    return endpoint


def open_workspace(
    store: Records, who: Who, mint: Mint, origin: Callable[[WorkspaceHost | PortHost], str]
) -> Endpoint:
    """GET /open/{id}?next= on the base host. origin(place): "http://{label}.localhost:8000"."""

    async def endpoint(request: Request) -> Response:
        if early := _only_looking(request):
            return early
        user = who(request)
        if not user:
            return render(pages.sign_in(), BASE_ASSETS)
        # "8080--ada-x2k4" asks for that port of it: an origin, and so an entry, of its own.
        place = place_of_label(request.path_params["id"])
        if place is None:
            return render(pages.not_found("/"), BASE_ASSETS)
        try:
            workspace = await store.get(place.workspace)
            if workspace is None or workspace.user_id != user:
                return render(pages.not_found("/"), BASE_ASSETS)
            wanted = safe_next(request.query_params.get("next", "/"))
            code = await mint(user, label_of(place), wanted)
        except StoreUnavailable:
            return render(pages.unavailable(here_of(request)), BASE_ASSETS)
        return _go(f"{origin(place)}/_gateway/enter?{urlencode({'code': code})}")

    return endpoint


def visit(
    store: Records, progress: Progress, home: str, unanswered: bool = False
) -> WorkspaceEndpoint:
    """A navigation to a workspace that is not running: wake it, show how far it is.

    unanswered: its record says running, and the proxy could not reach its IDE.
    A failed one is never woken by a visit: it would fail in a loop, with nobody having read why.
    """

    async def endpoint(request: Request, workspace_id: str) -> Response:
        here = here_of(request)
        try:
            workspace = await store.get(workspace_id)
            found = workspace.status if workspace else None
            # What moves starts by itself, and may just be up; that somebody waits for it has to be told, once.
            if found in _WOKEN or (workspace and workspace.moved and found in _COMING):
                workspace = await store.wake(workspace_id)
            account = await progress.account(workspace) if workspace else None
        except StoreError as error:
            return render(_refusal(error, here, home))
        page = pages.page_for(
            workspace, here=here, home=home, found=found, account=account, unanswered=unanswered
        )
        return render(page)

    return endpoint


def start(store: Records, progress: Progress, home: str) -> WorkspaceEndpoint:
    """POST /_gateway/start[?next=]: the button. A script gets JSON, a form without script comes back to its page."""

    async def endpoint(request: Request, workspace_id: str) -> Response:
        form = "text/html" in request.headers.get("accept", "")
        here = safe_next(request.query_params.get("next", "/"))
        try:
            account = await progress.account(await store.wake(workspace_id))
        except StoreError as error:
            page = _refusal(error, here, home)
            return render(page) if form else _as_json(page)
        return _go(here) if form else JSONResponse(account, 202, {"cache-control": "no-store"})

    return endpoint


def _refusal(error: StoreError, here: str, home: str) -> pages.Page:
    match error:
        case LimitReached(limit=limit, frees_at_ms=frees_at_ms):
            wait = math.ceil(error.retry_after)
            message = words(limit, error.used, error.allowed, frees_at_ms, wait)
            if limit in FOR_GOOD:
                return pages.quota_exceeded(message, home)
            return pages.too_many(message, here, wait or 30)
        case Conflict():
            return pages.not_found(home)
        case StoreUnavailable():
            return pages.unavailable(here)
        case _:
            raise error


_CODES = {403: "quota_exceeded", 404: "not_found", 429: "limit_reached", 503: "redis_unavailable"}


def _as_json(page: pages.Page) -> Response:
    """The same refusal in the API's shape."""
    error: dict[str, str | int] = {"code": _CODES[page.status], "message": page.fields["message"]}
    headers = {"cache-control": "no-store"}
    if page.retry_after:
        error["retryAfter"] = page.retry_after
        headers["retry-after"] = str(page.retry_after)
    return JSONResponse({"error": error}, page.status, headers)


def _only_looking(request: Request) -> Response | None:
    """A HEAD or a prefetch must not use up a code: link checkers and eager browsers send them."""
    if request.method == "HEAD" or is_prefetch(request.headers):
        return Response(
            status_code=204 if request.method == "HEAD" else 503, headers=dict(pages.HEADERS)
        )
    return None


def _go(where: str, cookie: str = "") -> Response:
    response = RedirectResponse(
        where, 303, {"cache-control": "no-store", "referrer-policy": "no-referrer"}
    )
    if cookie:
        response.headers["set-cookie"] = cookie
    return response
