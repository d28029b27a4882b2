"""The HTTP reverse proxy: one request of a client, streamed to a workspace and back.

Errors: UpstreamDown, before anything was answered; the caller shows a page. After the answer has
begun an error can only be shown by cutting the client's connection, so that what is truncated
looks truncated; `forward` then returns an Outcome that says so.

This is the way of requests that the application looks at. What it has decided for a browser's next
requests of the same kind is done below it (passing.py), over the same connections.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Collection, Hashable, Sequence
from typing import Literal

from starlette.types import Message, Receive, Scope, Send

from gateway.answer import LAST_CHUNK, Head, chunked
from gateway.headers import BadAnswer, Header, client_headers
from gateway.proxy_client import Client, ClientStalled, Outcome, Patience
from gateway.upstreams import Connection, Lost, Refused, Route, Upstreams, request_head

Kind = Literal["refused", "timeout", "reset", "bad_answer"]

Instead = Callable[[Message], Sequence[Message]]
"""Given the head of an answer as the client would get it: the whole answer to send in its place, whose
body is then not read; nothing: the answer goes on as it is."""

HELD_MAX = 65536
"""Bytes of an answer that wait for the client, above which no more is read."""

REPEATABLE = frozenset({"GET", "HEAD", "OPTIONS", "DELETE"})
"""Asked once more when a connection that had rested turns out to be dead: nothing was answered, and asking
twice is asking once."""

_BODYLESS = frozenset({204, 304})
_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})


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
        peer_timeout: float = 0,
    ) -> None:
        """peer_timeout: seconds (bounds.py). max_routes: above it the longest unused routes without a request in flight are closed."""
        self._own_cookie_names = own_cookie_names
        self._patience = patience or Patience()
        self.upstreams = Upstreams(
            connect_timeout=self._patience.connect, max_routes=max_routes, peer_timeout=peer_timeout
        )

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
        route = self.upstreams.route(route_key, host, port)
        head = request_head(
            scope["method"], target_of(scope), framed(scope["method"], headers, client.in_chunks)
        )
        route.busy += 1
        try:
            outcome.ended = await client.attend(
                self._exchange(scope["method"], head, client, route, instead)
            )
        except (BadAnswer, TimeoutError, OSError) as error:
            if not outcome.status:
                raise _upstream_down(error, f"{host}:{port}") from error
            outcome.ended = "upstream_lost"
        except ClientStalled:
            outcome.ended = "client_stalled"
        finally:
            route.busy -= 1
        if outcome.ended in ("upstream_lost", "client_stalled"):
            await client.cut_off()
        return outcome

    async def drop(self, route_key: Hashable) -> None:
        """Close this route's connections at once, those in use too. An unknown route is success."""
        self.upstreams.drop(route_key)

    async def close(self) -> None:
        self.upstreams.close()

    async def _exchange(
        self, method: str, request: bytes, client: Client, route: Route, instead: Instead | None
    ) -> None:
        again = method in REPEATABLE and not client.has_body
        connection = await route.connection()
        while True:
            asked = _Asked(connection)
            connection.ask(asked, request, method == "HEAD")
            try:
                await self._upload_and_answer(asked, client, instead)
                return
            except Lost:
                if asked.head is not None or not (again and connection.answers):
                    raise
            finally:
                asked.close()
            connection, again = await route.connection(fresh=True), False

    async def _upload_and_answer(
        self, asked: _Asked, client: Client, instead: Instead | None
    ) -> None:
        upload = asyncio.create_task(asked.upload(client)) if client.has_body else None
        try:
            await self._answer(asked, client, instead)
        finally:
            if upload is not None:
                upload.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await upload

    async def _answer(self, asked: _Asked, client: Client, instead: Instead | None) -> None:
        head = self._head(await asked.answer())
        replacement = instead(head) if instead else ()
        for message in replacement or (head,):
            await client.send(message)
        more = not replacement
        while more:
            body = await asked.read()
            more = not asked.over
            await client.send({"type": "http.response.body", "body": body, "more_body": more})

    def _head(self, head: Head) -> Message:
        headers = client_headers(
            head.headers,
            own_cookie_names=self._own_cookie_names,
            bodyless=head.status in _BODYLESS,
        )
        return {"type": "http.response.start", "status": head.status, "headers": headers}


class _Asked:
    """One exchange on one connection, for somebody who awaits. A Receiver."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.head: Head | None = None
        self.over = False
        """The answer has ended, and all of it was read."""
        self._ended = False
        self._error: Exception | None = None
        self._pieces: deque[bytes] = deque()
        self._held = 0
        self._paused = False
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._sent = True

    async def answer(self) -> Head:
        """Raises Lost, BadAnswer."""
        while self.head is None:
            await self._next()
        return self.head

    async def read(self) -> bytes:
        """What there is of the body, once there is something. Raises Lost, BadAnswer."""
        while not self._pieces and not self._ended:
            await self._next()
        body = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()
        self._held = 0
        self.over = self._ended
        if self._paused and not self._ended:
            self._paused = False
            self._transport.resume_reading()
        return body

    async def upload(self, client: Client) -> None:
        """Send the client's body on, as fast as the workspace takes it."""
        self._sent = False
        in_chunks = client.in_chunks
        async for data in client.body():
            if self._transport.is_closing():
                return
            self._transport.write(chunked([data]) if in_chunks else data)
            await self._room.wait()
        if in_chunks and not self._transport.is_closing():
            self._transport.write(LAST_CHUNK)
        self._sent = True

    def close(self) -> None:
        """The connection may rest if everything was sent and read."""
        if self._ended and self._sent:
            self._connection.release()
        else:
            self._connection.receiver = None
            self._connection.close()

    @property
    def _transport(self) -> asyncio.Transport:
        transport = self._connection.transport
        assert transport is not None
        return transport

    async def _next(self) -> None:
        if self._error is not None:
            raise self._error
        self._news.clear()
        await self._news.wait()

    # Receiver

    def answered(self, head: Head, follows: bool) -> None:
        self.head = head
        self._news.set()

    def body(self, data: bytes) -> None:
        self._pieces.append(data)
        self._held += len(data)
        if self._held > HELD_MAX and not self._paused:
            self._paused = True
            self._transport.pause_reading()
        self._news.set()

    def chunks(self, pieces: list[bytes]) -> None:
        self.body(b"".join(pieces))

    def ended(self) -> None:
        self._ended = True
        self._news.set()

    def lost(self, error: Exception) -> None:
        self._error = error
        self._room.set()
        self._news.set()

    def full(self, full: bool) -> None:
        (self._room.clear if full else self._room.set)()


def target_of(scope: Scope) -> bytes:
    """Path and query byte for byte: nothing decoded, resolved or quoted again."""
    query: bytes = scope["query_string"]
    raw: bytes = scope["raw_path"]
    return raw + (b"?" + query if query else b"")


def framed(method: str, headers: Sequence[Header], in_chunks: bool) -> list[Header]:
    """With what says where the request's body ends."""
    if in_chunks:
        return [*headers, (b"transfer-encoding", b"chunked")]
    if method in _WITH_BODY and not any(name == b"content-length" for name, _ in headers):
        return [*headers, (b"content-length", b"0")]
    return list(headers)


def _upstream_down(error: Exception, address: str) -> UpstreamDown:
    kind: Kind
    match error:
        case TimeoutError():
            kind = "timeout"
        case Refused():
            kind = "refused"
        case BadAnswer():
            kind = "bad_answer"
        case _:
            kind = "reset"
    return UpstreamDown(kind, f"{address}: {error}")
