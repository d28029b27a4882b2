"""The HTTP reverse proxy: one request of a client, streamed to a workspace and back.

Errors: UpstreamDown, before anything was answered; the caller shows a page. After the answer has
begun an error can only be shown by cutting the client's connection, so that what is truncated
looks truncated; `forward` then returns an Outcome that says so.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Collection, Hashable, Sequence
from contextlib import asynccontextmanager
from typing import Literal

import aiohttp
from starlette.types import Message, Receive, Scope, Send
from yarl import URL

from gateway.headers import BadAnswer, Header, client_headers
from gateway.proxy_client import Client, ClientStalled, Outcome, Patience

Kind = Literal["refused", "timeout", "reset", "bad_answer"]

Instead = Callable[[Message], Sequence[Message]]
"""Given the head of an answer as the client would get it: the whole answer to send in its place, whose
body is then not read; nothing: the answer goes on as it is."""

_MAX_HEADER_BYTES = 64 * 1024
_MAX_CONNECTIONS = 128  # per route; the next request waits until one is free
# Below the 5 s after which Node closes an idle connection: none is picked while it is closing.
_KEEP_ALIVE = 4.0
_NOT_OURS_TO_SAY = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")
_BODYLESS = frozenset({204, 304})


class UpstreamDown(Exception):
    """The workspace gave no answer.

    kind: refused (nobody listens), timeout (no connection or no answer in time), reset (the
    connection broke before the answer), bad_answer (what came may not be passed on).
    """

    def __init__(self, kind: Kind, detail: str) -> None:
        super().__init__(f"{kind}: {detail}")
        self.kind = kind


class HttpProxy:
    def __init__(
        self,
        *,
        own_cookie_names: Collection[str],
        max_routes: int = 1000,
        patience: Patience | None = None,
    ) -> None:
        """max_routes: above it the longest unused routes without a request in flight are closed."""
        self._own_cookie_names = own_cookie_names
        self._max_routes = max_routes
        self._patience = patience or Patience()
        self._routes: OrderedDict[Hashable, _Route] = OrderedDict()

    async def forward(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        *,
        route_key: Hashable,
        host: str,
        port: int,
        headers: Sequence[Header],
        instead: Instead | None = None,
    ) -> Outcome:
        """Send this request to host:port and its answer to the client.

        route_key: who may share connections: (workspace, epoch). headers: as `upstream_headers`
        made them. Raises UpstreamDown as long as nothing was answered.
        """
        outcome = Outcome()
        client = Client(scope, receive, send, outcome, self._patience)
        try:
            async with self._route(route_key) as route:
                url = _url(scope, host, port)
                outcome.ended = await client.attend(
                    self._exchange(scope["method"], url, client, route, headers, instead)
                )
        except (aiohttp.ClientError, BadAnswer, TimeoutError, OSError) as error:
            if not outcome.status:
                raise _upstream_down(error, f"{host}:{port}") from error
            outcome.ended = "upstream_lost"
        except ClientStalled:
            outcome.ended = "client_stalled"
        if outcome.ended in ("upstream_lost", "client_stalled"):
            await client.cut_off()
        return outcome

    async def drop(self, route_key: Hashable) -> None:
        """Close this route's connections at once, those in use too. An unknown route is success."""
        if route := self._routes.pop(route_key, None):
            await route.session.close()

    async def close(self) -> None:
        for key in list(self._routes):
            await self.drop(key)

    @asynccontextmanager
    async def _route(self, key: Hashable) -> AsyncIterator[_Route]:
        route = self._routes.get(key)
        if route is None:
            route = self._routes[key] = _Route(self._patience)
        self._routes.move_to_end(key)
        route.busy += 1
        try:
            excess = len(self._routes) - self._max_routes
            if excess > 0:
                unused = [k for k, other in self._routes.items() if not other.busy]
                for old in unused[:excess]:
                    await self.drop(old)
            yield route
        finally:
            route.busy -= 1

    async def _exchange(
        self,
        method: str,
        url: URL,
        client: Client,
        route: _Route,
        headers: Sequence[Header],
        instead: Instead | None,
    ) -> None:
        if route.session.closed:
            raise aiohttp.ClientConnectionError("the workspace has just been stopped")
        answer = await route.session.request(
            method,
            url,
            headers=[(name.decode("ascii"), _text(value)) for name, value in headers],
            data=client.body() if client.has_body else None,
            allow_redirects=False,
        )
        try:
            head = self._head(answer)
            replacement = instead(head) if instead else ()
            for message in replacement or (head,):
                await client.send(message)
            last = bool(replacement)
            while not last:
                chunk = await answer.content.readany()
                last = answer.content.at_eof()
                if last and route.session.closed:
                    # Dropped: an answer without a length would seem complete.
                    raise aiohttp.ClientPayloadError("the workspace has just been stopped")
                await client.send(
                    {"type": "http.response.body", "body": chunk, "more_body": not last}
                )
        finally:
            # Reused if it was read to its end, closed otherwise.
            answer.close()

    def _head(self, answer: aiohttp.ClientResponse) -> Message:
        if not 200 <= answer.status <= 599:
            raise BadAnswer(f"status {answer.status}")
        if sum(len(name) + len(value) for name, value in answer.raw_headers) > _MAX_HEADER_BYTES:
            raise BadAnswer(f"more than {_MAX_HEADER_BYTES} bytes of headers")
        headers = client_headers(
            answer.raw_headers,
            own_cookie_names=self._own_cookie_names,
            bodyless=answer.status in _BODYLESS,
        )
        return {"type": "http.response.start", "status": answer.status, "headers": headers}


class _Route:
    """The connections to one workspace in one epoch; no other user's request travels on them."""

    def __init__(self, patience: Patience) -> None:
        self.busy = 0
        """Requests in flight."""
        self.session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=_MAX_CONNECTIONS, keepalive_timeout=_KEEP_ALIVE),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=_NOT_OURS_TO_SAY,
            timeout=aiohttp.ClientTimeout(
                total=None, connect=patience.answer, sock_connect=patience.connect
            ),
            max_line_size=_MAX_HEADER_BYTES,
            max_field_size=_MAX_HEADER_BYTES,
        )


def _url(scope: Scope, host: str, port: int) -> URL:
    """Path and query byte for byte: nothing decoded, resolved or quoted again."""
    return URL.build(
        scheme="http",
        host=host,
        port=port,
        path=scope["raw_path"].decode("ascii"),
        query_string=scope["query_string"].decode("ascii"),
        encoded=True,
    )


def _text(value: bytes) -> str:
    # aiohttp writes UTF-8: what is UTF-8 stays byte for byte, Latin-1 becomes UTF-8.
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _upstream_down(error: Exception, address: str) -> UpstreamDown:
    kind: Kind
    match error:
        case TimeoutError():
            kind = "timeout"
        case aiohttp.ClientConnectorError():
            kind = "refused"
        case aiohttp.ClientConnectionError() | OSError():
            kind = "reset"
        case _:
            kind = "bad_answer"
    return UpstreamDown(kind, f"{address}: {error}")
