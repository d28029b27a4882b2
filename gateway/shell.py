"""The shell: a page of ours that holds the IDE in a frame of its own origin, tells input and shows notices.

A person's top-level visit of a running workspace goes to the IDE first; only when what it answers is a
page that allows a frame of its own origin is the shell sent in its place. The frame then asks for the
same address and gets the IDE as it is: nothing is written into it. Downloads, pictures, redirects and
pages that refuse a frame are the IDE's own answers, as without a shell.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from urllib.parse import urlsplit

from starlette.types import Message, Send

from gateway import pages
from gateway.headers import Header
from lifecycle.model import Workspace

VARY = b"sec-fetch-dest, sec-fetch-mode"
"""One address, two answers: a browser's cache must not give the tab what the frame got."""

_CONDITIONAL = frozenset({b"if-none-match", b"if-modified-since", b"range", b"if-range"})
_KEPT = frozenset({b"set-cookie", b"cross-origin-opener-policy"})
_DEFAULT_PORTS = {"http": 80, "https": 443}
_HOST_SOURCE = re.compile(
    r"(?:(?P<scheme>[a-z][a-z0-9+.-]*)://)?(?P<host>\*|(?:\*\.)?[a-z0-9_-]+(?:\.[a-z0-9_-]+)*)"
    r"(?::(?P<port>[0-9]+|\*))?/?"
)


def is_asked(headers: Mapping[str, str], method: str) -> bool:
    """A browser fills a tab with this. Whoever does not say so (an older browser, a tool) gets the IDE."""
    return (
        method == "GET"
        and headers.get("sec-fetch-mode") == "navigate"
        and headers.get("sec-fetch-dest") == "document"
    )


def is_frame(headers: Mapping[str, str]) -> bool:
    """A browser fills a frame with this: the shell's, or one inside the IDE."""
    return headers.get("sec-fetch-dest") in {"iframe", "frame"}


def by_hand(headers: Mapping[str, str]) -> bool:
    """A person's own doing: a click, an address typed, a reload. A page that reloads itself is none."""
    return headers.get("sec-fetch-user") == "?1"


def whole(asked: Iterable[Header]) -> list[Header]:
    """The request without its conditions: the tab has no copy of the page that the shell stands for."""
    return [header for header in asked if header[0] not in _CONDITIONAL]


def frameable(answered: Iterable[Header], origin: str) -> bool:
    """May a page of this origin hold that page of the same origin in a frame, and is it the same there?

    As browsers decide: frame-ancestors of every policy that is enforced, and X-Frame-Options only where
    no policy speaks of frames. Not one that is isolated on purpose either: in a sandbox nothing can
    listen, and what asks for cross-origin isolation only has it as the top of its tab.
    """
    headers = [(name.lower(), value.decode("latin-1").lower()) for name, value in answered]
    if any(
        name == b"cross-origin-embedder-policy" for name, value in headers if value != "unsafe-none"
    ):
        return False
    policies = [dict(policy) for policy in _policies(headers)]
    if any("allow-same-origin" not in p["sandbox"] for p in policies if "sandbox" in p):
        return False
    ancestors = [policy["frame-ancestors"] for policy in policies if "frame-ancestors" in policy]
    if ancestors:
        return all(any(_allows(source, origin) for source in sources) for sources in ancestors)
    return _frame_options(headers)


def _policies(headers: Iterable[tuple[bytes, str]]) -> Iterator[Iterator[tuple[str, list[str]]]]:
    """Each policy that is enforced as (directive, its words), the first of a name last: it is what holds."""
    for name, value in headers:
        if name == b"content-security-policy":
            for policy in value.split(","):
                words = (directive.split() for directive in reversed(policy.split(";")))
                yield ((first, rest) for first, *rest in filter(None, words))


def _allows(source: str, origin: str) -> bool:
    if source in ("*", "'self'"):
        return True
    found = _HOST_SOURCE.fullmatch(source)
    if found is None:
        return source == urlsplit(origin).scheme + ":" or source == "http:"
    ours = urlsplit(origin)
    scheme, host, port = found["scheme"] or ours.scheme, found["host"], found["port"]
    if scheme != ours.scheme and (scheme, ours.scheme) != ("http", "https"):
        return False
    name = ours.hostname or ""
    named = host == "*" or name == host or (host[:2] == "*." and name.endswith(host[1:]))
    real = ours.port or _DEFAULT_PORTS[ours.scheme]
    return named and (port == "*" or real == (int(port) if port else _DEFAULT_PORTS[ours.scheme]))


def _frame_options(headers: Iterable[tuple[bytes, str]]) -> bool:
    """Words that contradict each other forbid; a single one that nobody knows says nothing."""
    values = [value for name, value in headers if name == b"x-frame-options"]
    said = {word.strip() for value in values for word in value.split(",")} - {""}
    if len(said) > 1:
        return not said & {"deny", "allowall", "sameorigin"}
    return said != {"deny"}


def stands_for(head: Message, origin: str) -> bool:
    """Whether the shell takes the place of an answer that begins so."""
    if head["status"] != 200:
        return False
    said = {name: value.decode("latin-1").lower() for name, value in head["headers"]}
    return (
        said.get(b"content-type", "").partition(";")[0].strip() == "text/html"
        and not said.get(b"content-disposition", "").lstrip().startswith("attachment")
        and frameable(head["headers"], origin)
    )


def instead(workspace: Workspace, origin: str, home: str) -> Callable[[Message], Sequence[Message]]:
    """What is sent in place of an answer that begins so; nothing: the answer itself."""

    def choose(head: Message) -> Sequence[Message]:
        if not stands_for(head, origin):
            return ()
        response = pages.render(_page(workspace, home))
        response.headers["content-security-policy"] = _policy(origin)
        response.headers["vary"] = VARY.decode()
        kept = [header for header in head["headers"] if header[0] in _KEPT]
        return (
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [*response.raw_headers, *kept],
            },
            {"type": "http.response.body", "body": bytes(response.body)},
        )

    return choose


def _page(workspace: Workspace, home: str) -> pages.Page:
    name = workspace.name or workspace.id
    account = {
        "workspace": workspace.id,
        "name": name,
        "home": home,
        "status": workspace.status,
        "epoch": workspace.epoch,
        "control": "/_gateway/control",
        "input": "/_gateway/input",
        "start": pages.START,
    }
    fields = {"name": name, "home": home, "account": json.dumps(account)}
    return pages.Page("shell.html", 200, name, fields)


def _policy(origin: str) -> str:
    """'self' does not mean ws: to every browser."""
    socket = origin.replace("http", "ws", 1)
    return (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; frame-src 'self'; "
        f"connect-src 'self' {socket}; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )


def varying(send: Send) -> Callable[[Message], Awaitable[None]]:
    """The same, with what tells a cache that a tab gets another answer than this frame."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], (b"vary", VARY)]}
        await send(message)

    return sending
