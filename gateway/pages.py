"""Which page a person gets, and how it is written. Choosing is pure; static/ holds the templates.

Two sets of addresses for scripts and styles: /static on the base host, /_gateway/static on a
workspace's host (everything else there belongs to the IDE). Both are served to anybody: the page that
asks a stranger to enter needs its style, too.
"""

from __future__ import annotations

import html
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from string import Template
from typing import Any
from urllib.parse import quote

from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from gateway.entry import safe_next
from gateway.progress import facts, is_moving
from lifecycle.model import Workspace, WorkspaceStatus

_W = WorkspaceStatus

BASE_ASSETS = "/static"
WORKSPACE_ASSETS = "/_gateway/static"
START = "/_gateway/start"

HEADERS: Mapping[str, str] = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
    "vary": "accept, sec-fetch-mode, sec-fetch-dest",
}


@dataclass(frozen=True, slots=True)
class Page:
    """One answer for a person. template: a file of static/. retry_after: seconds, 0 = none said."""

    template: str
    status: int
    title: str
    fields: Mapping[str, str] = field(default_factory=dict)
    retry_after: int = 0


def page_for(
    workspace: Workspace | None,
    *,
    here: str = "/",
    home: str = "",
    found: WorkspaceStatus | None = None,
    account: Mapping[str, Any] | None = None,
    unanswered: bool = False,
) -> Page:
    """The page of a workspace that cannot be shown just now.

    here: path and query the person asked for. home: address of the base host.
    found: its status before this visit woke it. account: what Progress tells of it.
    unanswered: it should be running, and its IDE cannot be reached.
    """
    if workspace is None:
        return not_found(home)
    told = account or facts(workspace, now_ms=workspace.status_since_ms)
    name = f"“{workspace.name or workspace.id}”"
    variant, status, heading = _kind(workspace.status, found, name)
    message = _opening(workspace.status, found) + told["message"]
    if is_moving(workspace):
        heading, message = f"{name} is moving", told["message"]
    if unanswered and workspace.status is _W.RUNNING:
        variant, status, heading = "unanswered", 502, f"{name} does not answer"
        message = (
            "Its machine says it runs, yet the IDE gave no answer. It may be busy, or just ending."
        )
    fields = {
        "heading": heading,
        "message": message,
        "variant": variant,
        "name": name,
        "here": safe_next(here),
        "home": home,
        "start": f"{START}?next={quote(safe_next(here), safe='')}",
        "start_label": "Start again" if workspace.status is _W.FAILED else "Start",
        "account": json.dumps(dict(told)),
        "workspace": workspace.id,
        "log": told.get("log", ""),
        "log_hidden": "" if told.get("log") else "hidden",
        "start_hidden": "" if variant in {"failed", "asleep"} else "hidden",
    }
    steps = told["steps"]
    states = {
        f"{s}_state": steps.get(s, "")
        for s in ("stop", "queue", "machine", "restore", "ide", "ready")
    }
    return Page("waiting.html", status, f"{heading} · ide-gateway", fields | states)


def _kind(
    status: WorkspaceStatus, found: WorkspaceStatus | None, name: str
) -> tuple[str, int, str]:
    """Variant of the waiting page, HTTP status, heading.

    202: accepted, not there yet. 503 and 502 only where waiting alone does not help.
    """
    match status:
        case _W.FAILED:
            return "failed", 503, f"{name} has failed"
        case _W.STOPPED:
            return "asleep", 503, f"{name} is stopped"
        case _W.TERMINATED:
            return "asleep", 503, f"{name} is put away"
        case _W.RUNNING:
            return "waiting", 202, f"Opening {name}"
        case _W.STOPPING | _W.TERMINATING:
            return "waiting", 202, f"{name} is stopping"
        case _ if found is _W.TERMINATED:
            return "waiting", 202, f"Bringing back {name}"
        case _ if found is _W.STOPPED:
            return "waiting", 202, f"Waking {name}"
        case _:
            return "waiting", 202, f"Starting {name}"


def _opening(status: WorkspaceStatus, found: WorkspaceStatus | None) -> str:
    if status in {_W.QUEUED, _W.STARTING} and found is _W.STOPPED:
        return "It was stopped; your visit starts it. "
    if status in {_W.QUEUED, _W.STARTING} and found is _W.TERMINATED:
        return "It was put away; its files come back from the snapshot. "
    return ""


def home_page(user: str) -> Page:
    return Page("home.html", 200, "Your workspaces · ide-gateway", {"user": user})


def dashboard() -> Page:
    """For an operator who has shown the key."""
    return Page("dashboard.html", 200, "Dashboard · ide-gateway")


def operator_sign_in(status: int = 401, problem: str = "", retry_after: int = 0) -> Page:
    """The form that asks for the API key. problem: what was wrong with the last try."""
    fields = {"problem": problem, "problem_hidden": "" if problem else "hidden"}
    return Page("operator.html", status, "Operator · ide-gateway", fields, retry_after)


def _message(
    status: int, heading: str, message: str, link: str = "", label: str = "", retry_after: int = 0
) -> Page:
    fields = {"heading": heading, "message": message, "link": link, "label": label}
    fields["link_hidden"] = "" if link else "hidden"
    return Page("message.html", status, f"{heading} · ide-gateway", fields, retry_after)


def sign_in() -> Page:
    """On the base host, for somebody without a cookie."""
    return _message(
        401,
        "Please enter first",
        "Open the entry address you were given, or the one that ide-gateway serve printed in its "
        "terminal. It works once. The command ide-gateway open prints a fresh one.",
    )


def enter_hint(link: str) -> Page:
    """On a workspace's host. link: the base host's /open/… for this workspace and path."""
    return _message(
        401,
        "Please enter first",
        "This is a workspace, and this browser has not entered it yet, or its entry has run out. "
        "If it is yours, you go straight in.",
        link,
        "Enter the workspace",
    )


def not_found(home: str = "") -> Page:
    message = "There is no such page or workspace, or it belongs to somebody else."
    return _message(404, "Not found", message, home, "Your workspaces")


def code_expired(home: str = "") -> Page:
    return _message(
        401,
        "This entry address is used up",
        "An entry address works once and only for a short time. Open your workspaces and enter from "
        "there, or ask for a fresh address: ide-gateway open prints one.",
        home,
        "Your workspaces",
    )


def resting(workspace: Workspace, here: str = "/") -> Page:
    """In a frame, while the workspace does not run or its IDE gives no answer. Wakes nothing, asks nothing."""
    name = f"“{workspace.name or workspace.id}”"
    if workspace.status is _W.RUNNING:
        return _message(
            502, f"{name} does not answer", "Its IDE gave no answer.", here, "Try again"
        )
    message = "Its files are kept." if workspace.status is _W.STOPPED else ""
    heading = f"{name} is {workspace.status}"
    return _message(503, heading, message or "It does not run just now.", here, "Open its page")


def too_many(message: str, here: str = "", retry_after: int = 30) -> Page:
    """message: which bound was met, and what to do about it."""
    return _message(
        429, "Too many at once", message, safe_next(here) if here else "", "Try again", retry_after
    )


def quota_exceeded(message: str, home: str = "") -> Page:
    """message: which quota, and what to do about it. Trying again does not help."""
    return _message(403, "No more for now", message, home, "Your workspaces")


def unavailable(here: str = "/") -> Page:
    """The store does not answer. Nothing is known of the workspace, so nothing is said of it."""
    return _message(
        503,
        "Try again in a few seconds",
        "The gateway cannot reach its records just now. Workspaces that are open go on working.",
        safe_next(here),
        "Try again",
        retry_after=5,
    )


@cache
def _template(name: str) -> Template:
    return Template((files("static") / name).read_text(encoding="utf-8"))


def render(page: Page, assets: str = WORKSPACE_ASSETS, framed: bool = False) -> Response:
    """framed: in a frame of the same origin, which may show it."""
    fields = {"title": page.title, "assets": assets, **page.fields}
    body = _template(page.template).substitute({k: html.escape(v) for k, v in fields.items()})
    headers = dict(HEADERS)
    if framed:
        policy = headers["content-security-policy"]
        headers["content-security-policy"] = policy.replace(
            "frame-ancestors 'none'", "frame-ancestors 'self'"
        )
    if page.retry_after:
        headers["retry-after"] = str(page.retry_after)
    if page.status == 401:
        headers["www-authenticate"] = 'Bearer realm="ide-gateway"'
    return HTMLResponse(body, page.status, headers)


class Assets(StaticFiles):
    """Scripts, styles and pictures of static/; its templates and Python files are nobody's business."""

    def __init__(self) -> None:
        super().__init__(directory=str(files("static")))

    async def get_response(self, path: str, scope: Scope) -> Response:
        if os.path.splitext(path)[1] not in {".js", ".css", ".svg"}:
            raise HTTPException(404)
        response = await super().get_response(path, scope)
        # Asked again each time (the ETag answers in a few bytes), so that a new release is never half old.
        response.headers.update({"cache-control": "no-cache", "x-content-type-options": "nosniff"})
        return response
