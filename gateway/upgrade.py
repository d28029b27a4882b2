"""Opens the upstream side of a session: the upgrade request, and a strict look at its answer.

    UpstreamError
    ├── UpstreamUnreachable   no connection, or no whole answer in time
    ├── UpstreamRefused       an answer other than 101: status, headers, start of the body
    └── UpstreamInvalid       a 101 that does not answer this request, or no HTTP at all

A 101 is believed only if it proves that the workspace understood this very handshake (RFC 6455,
section 4.1). Anything else would make a tunnel out of an ordinary HTTP connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from base64 import b64encode
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha1
from typing import cast

import httptools

from gateway.bounds import mind_peer

Headers = list[tuple[bytes, bytes]]

BODY_LIMIT = 65536
"""Of a refusal's body this much is kept; the rest is cut off."""

TIMEOUT = 10.0
"""Seconds for connecting to a workspace, and its answer's head."""

HEAD_LIMIT = 65536
"""Bytes of that head."""

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: [\t\x20-\x7e\x80-\xff]*)?")
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t\x20-\x7e\x80-\xff]*)")
_UNSAFE_TARGET = re.compile(rb"[\x00-\x20\x7f]")
_UNSAFE_HEADER = re.compile(rb"[\r\n\x00]")


class UpstreamError(Exception):
    """The workspace could not be reached by WebSocket."""


class UpstreamUnreachable(UpstreamError):
    """No connection, or no whole answer in time. The workspace may be starting or gone."""


class UpstreamInvalid(UpstreamError):
    """What came back is no answer to this handshake. Trying again will not help."""


class UpstreamRefused(UpstreamError):
    """The workspace answered, but not with 101. Its answer can be passed on to the client."""

    def __init__(self, status: int, headers: Headers, body: bytes) -> None:
        super().__init__(f"the workspace answered the WebSocket upgrade with {status}")
        self.status = status
        self.headers = headers
        self.body = body


@dataclass(slots=True)
class Upstream:
    """An open upstream connection after its 101, reading paused, waiting to be handed over."""

    transport: asyncio.Transport
    headers: Headers
    """Of the 101, names in lower case."""
    leftover: bytes
    """What the workspace sent right behind its 101."""

    def abort(self) -> None:
        """Drop the connection; for a session that does not come about."""
        self.transport.abort()


async def open_upstream(
    host: str,
    port: int,
    target: bytes,
    headers: Headers,
    *,
    timeout: float = TIMEOUT,
    peer_timeout: float = 0,
    head_limit: int = HEAD_LIMIT,
) -> Upstream:
    """Send the upgrade request and wait for its 101.

    `target`: path and query as the client sent them. `headers`: complete, with the client's
    Sec-WebSocket-*, Host, Connection and Upgrade. `timeout`: seconds for all of it. `peer_timeout`: seconds (bounds.py).
    Raises UpstreamError as listed above, ValueError for a request that must not be sent.
    """
    request = _request(target, headers)
    answer = _Answer(head_limit)
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    where = f"the workspace at {host}:{port}"
    try:
        async with asyncio.timeout_at(deadline):
            transport, _ = await loop.create_connection(lambda: answer, host, port)
            if peer_timeout:
                mind_peer(transport, peer_timeout)
            transport.write(request)
            head, leftover = await answer.head
        status, answered = _parse_head(head)
        if status != 101:
            body = await answer.body(head, leftover, deadline)
            raise UpstreamRefused(status, answered, body)
        _check_switch(headers, answered)
    except BaseException as error:
        answer.abort()
        if isinstance(error, TimeoutError):
            raise UpstreamUnreachable(f"{where} gave no answer in {timeout:g} s") from error
        if isinstance(error, OSError):
            raise UpstreamUnreachable(f"{where} cannot be reached: {error}") from error
        if isinstance(error, UpstreamInvalid):
            raise UpstreamInvalid(f"{where}: {error}") from None
        raise
    return Upstream(transport, answered, leftover)


def switched(head: bytes, offer: Headers) -> Headers:
    """Headers of the 101 with this head, if it is one and answers this offer. Raises UpstreamInvalid."""
    status, answered = _parse_head(head)
    if status != 101:
        raise UpstreamInvalid(f"answered the upgrade with {status}")
    _check_switch(offer, answered)
    return answered


def _request(target: bytes, headers: Headers) -> bytes:
    if not target.startswith(b"/") or _UNSAFE_TARGET.search(target):
        raise ValueError(f"not a request target: {target!r}")
    lines = [b"GET %s HTTP/1.1" % target]
    for name, value in headers:
        if _UNSAFE_HEADER.search(name) or _UNSAFE_HEADER.search(value):
            raise ValueError(f"line break in the request header {name!r}")
        lines.append(name + b": " + value)
    if len(_values(headers, b"sec-websocket-key")) != 1:
        raise ValueError("an upgrade request needs exactly one Sec-WebSocket-Key")
    return b"\r\n".join([*lines, b"", b""])


def _parse_head(head: bytes) -> tuple[int, Headers]:
    """Status and headers of an answer's head, names in lower case."""
    status_line, *lines = head.split(b"\r\n")
    matched = _STATUS_LINE.fullmatch(status_line)
    if matched is None:
        raise UpstreamInvalid("answered the upgrade with something that is no HTTP/1.1")
    headers = []
    for line in lines:
        header = _HEADER.fullmatch(line)
        if header is None:
            raise UpstreamInvalid("answered the upgrade with a malformed header line")
        headers.append((header[1].lower(), header[2].rstrip(b" \t")))
    status = int(matched[2])
    if status == 101 and matched[1] != b"1":
        raise UpstreamInvalid("answered 101 in HTTP/1.0")
    if status < 200 and status != 101:
        raise UpstreamInvalid(f"answered the upgrade with an interim {status}")
    return status, headers


def _check_switch(offer: Headers, answer: Headers) -> None:
    """Raise UpstreamInvalid unless `answer` is the 101 to exactly this `offer`."""
    for name in (b"transfer-encoding", b"content-length"):
        if _values(answer, name):
            raise UpstreamInvalid(f"announced a body with its 101 ({name.decode()})")
    if [value.lower() for value in _values(answer, b"upgrade")] != [b"websocket"]:
        raise UpstreamInvalid("its 101 does not say Upgrade: websocket")
    if b"upgrade" not in [token.lower() for token in _tokens(answer, b"connection")]:
        raise UpstreamInvalid("its 101 does not say Connection: Upgrade")
    (key,) = _values(offer, b"sec-websocket-key")
    if _values(answer, b"sec-websocket-accept") != [accept_key(key)]:
        raise UpstreamInvalid("its Sec-WebSocket-Accept does not answer the key that was sent")
    chosen = _values(answer, b"sec-websocket-protocol")
    offered = _tokens(offer, b"sec-websocket-protocol")
    if len(chosen) > 1 or any(protocol not in offered for protocol in chosen):
        raise UpstreamInvalid("chose a subprotocol that was not offered")
    extensions = _names(_tokens(offer, b"sec-websocket-extensions"))
    if not _names(_tokens(answer, b"sec-websocket-extensions")) <= extensions:
        raise UpstreamInvalid("chose an extension that was not offered")


def accept_key(key: bytes) -> bytes:
    """Sec-WebSocket-Accept for a Sec-WebSocket-Key (RFC 6455, section 4.2.2)."""
    return b64encode(sha1(key + _GUID, usedforsecurity=False).digest())


def _values(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> list[bytes]:
    return [value for field, value in headers if field.lower() == name]


def _tokens(headers: Headers, name: bytes) -> list[bytes]:
    """Members of a comma-separated list, over all of its lines."""
    members = (token.strip() for token in b",".join(_values(headers, name)).split(b","))
    return [member for member in members if member]


def _names(extensions: list[bytes]) -> set[bytes]:
    return {extension.split(b";")[0].strip().lower() for extension in extensions}


class _Answer(asyncio.Protocol):
    """Collects the head of the answer, bounded, then pauses reading: what follows stays in TCP."""

    def __init__(self, head_limit: int) -> None:
        self.head: asyncio.Future[tuple[bytes, bytes]] = asyncio.Future()
        self._limit = head_limit
        self._received = bytearray()
        self._transport: asyncio.Transport | None = None
        self._body: _Body | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass

    def data_received(self, data: bytes) -> None:
        if self._body is not None:
            self._body.feed(data)
            return
        # The end of the head may straddle two reads: look again at the last three bytes.
        start = max(0, len(self._received) - 3)
        self._received += data
        end = self._received.find(b"\r\n\r\n", start)
        if (len(self._received) if end < 0 else end) > self._limit:
            self._fail(UpstreamInvalid(f"its answer's head is larger than {self._limit} bytes"))
        elif end >= 0 and self._transport is not None and not self.head.done():
            self._transport.pause_reading()
            received = bytes(self._received)
            self.head.set_result((received[:end], received[end + 4 :]))

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(exc or ConnectionResetError("it closed the connection before it answered"))
        if self._body is not None:
            self._body.end()

    def abort(self) -> None:
        self.head.cancel()
        if self._transport is not None:
            self._transport.abort()

    async def body(self, head: bytes, leftover: bytes, deadline: float) -> bytes:
        """Body of a refusal, as far as it comes before the deadline and within BODY_LIMIT."""
        assert self._transport is not None
        self._body = _Body(head + b"\r\n\r\n" + leftover)
        if not self._transport.is_closing():
            self._transport.resume_reading()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(deadline):
                    await self._body.complete.wait()
        return bytes(self._body.content[:BODY_LIMIT])

    def _fail(self, error: Exception) -> None:
        if not self.head.done():
            self.head.set_exception(error)
            if self._transport is not None:
                self._transport.abort()


class _Body:
    """A refusal's body, chunks put together by httptools."""

    def __init__(self, start: bytes) -> None:
        self.content = bytearray()
        self.complete = asyncio.Event()
        self._parser = httptools.HttpResponseParser(self)
        self.feed(start)

    def feed(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self.end()

    def on_body(self, body: bytes) -> None:
        self.content += body
        if len(self.content) >= BODY_LIMIT:
            self.end()

    def on_message_complete(self) -> None:
        self.end()

    def end(self) -> None:
        self.complete.set()
