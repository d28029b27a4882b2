"""The dashboard's door: an operator shows the API key once, in a form, and gets a cookie for it.

The key is in the body of one request and nowhere else. Whoever guesses waits with every try, and after a
few for a minute; the wait is per address, so that nobody locks an operator out from elsewhere.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from urllib.parse import parse_qs

import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response

from gateway import pages
from gateway.entrance import Entrance
from gateway.pages import BASE_ASSETS, render

log = structlog.get_logger(__name__)

PATH = "/dashboard"
MAX_FORM = 4096  # bytes
TRIES = 5  # wrong keys of one address in WINDOW; more are told 429
WINDOW = 60.0  # seconds
WAIT = 0.5  # seconds that a wrong key costs
ADDRESSES = 1000  # that are remembered; the oldest is forgotten


class Operators:
    def __init__(self, entrance: Entrance, clock: Callable[[], float] = time.monotonic) -> None:
        self._entrance, self._clock = entrance, clock
        self._failed: OrderedDict[str, list[float]] = OrderedDict()

    async def page(self, request: Request) -> Response:
        """GET /dashboard"""
        inside = self._entrance.operator(request)
        return render(pages.dashboard() if inside else pages.operator_sign_in(), BASE_ASSETS)

    async def enter(self, request: Request) -> Response:
        """POST /dashboard/enter, a form with `key`."""
        if not self._entrance.origin_allowed(request, True):
            return render(pages.operator_sign_in(403, "Enter from this page itself."), BASE_ASSETS)
        address, key = request.client.host if request.client else "", await _key(request)
        if self._too_many(address):
            text = "Too many wrong keys. Wait a minute, then try again."
            return render(pages.operator_sign_in(429, text, int(WINDOW)), BASE_ASSETS)
        if self._entrance.is_key(key):
            self._failed.pop(address, None)
            log.info("operator.entered", address=address)
            return _go(self._entrance.operator_cookie())
        # Before the wait: many at once are as many tries.
        self._failed.setdefault(address, []).append(self._clock())
        while len(self._failed) > ADDRESSES:
            self._failed.popitem(last=False)
        log.warning("operator.refused", address=address)
        await asyncio.sleep(WAIT)
        text = (
            "That is not the API key. It is in DATA_DIR/api-key, or what IDE_GATEWAY_API_KEY says."
        )
        return render(pages.operator_sign_in(403, text), BASE_ASSETS)

    async def leave(self, request: Request) -> Response:
        """POST /dashboard/leave"""
        if not self._entrance.origin_allowed(request, True):
            return render(pages.operator_sign_in(403, "Leave from this page itself."), BASE_ASSETS)
        return _go(self._entrance.operator_leaves())

    def _too_many(self, address: str) -> bool:
        since = self._clock() - WINDOW
        failed = [at for at in self._failed.get(address, ()) if at > since]
        if failed:
            self._failed[address] = failed
        else:
            self._failed.pop(address, None)
        return len(failed) >= TRIES


async def _key(request: Request) -> str:
    raw = bytearray()
    try:
        async for chunk in request.stream():
            raw += chunk
            if len(raw) > MAX_FORM:
                return ""
    except ClientDisconnect:
        return ""
    try:
        found = parse_qs(raw.decode(), max_num_fields=4).get("key", [])
    except ValueError:
        return ""
    return found[0].strip() if len(found) == 1 else ""


def _go(cookie: str) -> Response:
    headers = {"cache-control": "no-store", "set-cookie": cookie}
    return RedirectResponse(PATH, 303, headers)
