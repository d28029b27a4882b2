"""The byte relay: a WebSocket that uvicorn accepted for us is handed over to its workspace.

    upstream = await open_upstream(host, port, target, headers)
    hand_over(scope, upstream, session, on_end=…)

uvicorn runs with `ws=GatewayWebSocketProtocol`. Up to the hand-over a connection is an ordinary
ASGI WebSocket, which an application may also accept and serve itself. From the hand-over on it is
a Session (tunnel.py), and everything the handshake needed can be freed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, cast

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import CloseCode
from websockets.http11 import Request

from gateway.closing import Close
from gateway.proxy_client import ABORT
from gateway.tunnel import Session
from gateway.upgrade import (
    Headers,
    Upstream,
    UpstreamError,
    UpstreamInvalid,
    UpstreamRefused,
    UpstreamUnreachable,
    open_upstream,
)
from gateway.wire import wired

__all__ = [
    "EXTENSION",
    "GatewayWebSocketProtocol",
    "Session",
    "Upstream",
    "UpstreamError",
    "UpstreamInvalid",
    "UpstreamRefused",
    "UpstreamUnreachable",
    "hand_over",
    "open_upstream",
    "refuse",
]

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

EXTENSION = "ide_gateway.relay"

EARLY_LIMIT = 65536
"""Bytes a client may send before it has its 101; above it is not read until then."""

_OF_THE_HANDSHAKE = (b"sec-websocket-", b"proxy-")
_HOP_BY_HOP = frozenset(
    b"connection upgrade keep-alive te trailer transfer-encoding content-length".split()
)


class GatewayWebSocketProtocol(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket protocol, with a way out of it for a connection that is handed over."""

    early = b""

    def handle_connect(self, event: Request) -> None:
        if event.method == "GET" and event.headers.get_all("Sec-WebSocket-Version") != ["13"]:
            self._refuse_version()
            return
        super().handle_connect(event)
        if not self.handshake_complete:
            extensions = cast(dict[str, Any], self.scope["extensions"])
            extensions[EXTENSION] = self
            extensions[ABORT] = self.transport.abort

    def data_received(self, data: bytes) -> None:
        """Before the handshake is complete, keep what comes: it is for whoever takes over."""
        if not self.handshake_initiated or self.handshake_complete:
            super().data_received(data)
            return
        self.early += data
        if len(self.early) > EARLY_LIMIT:
            self.transport.pause_reading()

    def send_receive_event_to_app(self) -> None:
        """Text that is none ends the connection (RFC 6455, section 8.1), which is no error of ours to log."""
        if self.curr_msg_data_type == "text" and not self.close_sent:
            try:
                b"".join(self.frames).decode()
            except UnicodeDecodeError as error:
                self.frames = []
                self.conn.fail(CloseCode.INVALID_DATA, f"{error.reason} at position {error.start}")
                self.handle_parser_exception()
                return
        super().send_receive_event_to_app()

    async def send(self, message: Any) -> None:
        await super().send(message)
        if self.close_sent and message["type"] == "websocket.http.response.body":
            self.handshake_complete = True  # refused, and so complete; uvicorn would log an error
        if self.early and message["type"] == "websocket.accept":
            early, self.early = self.early, b""
            self.transport.resume_reading()
            super().data_received(early)

    @property
    def accept_key(self) -> bytes:
        """Sec-WebSocket-Accept for this client."""
        return self.response.headers["Sec-WebSocket-Accept"].encode()

    def release(self) -> tuple[asyncio.Transport, bytes]:
        """Let go of the connection: its transport, and what the client sent already."""
        transport, early = self.transport, self.early
        self.stop_keepalive()
        self.connections.discard(self)
        # To the application the connection is over now; what it still sends is refused.
        self.handshake_complete = True
        self.disconnected = True
        self.writable.set()
        self.queue.put_nowait({"type": "websocket.disconnect", "code": 1005})
        # run_asgi closes "the" transport once the application returns.
        self.transport = cast(Any, _RELEASED)
        # Reference cycles and buffers go now, not with the next garbage collection.
        del self.conn, self.request, self.response
        return transport, early

    def _refuse_version(self) -> None:
        self.handshake_initiated = self.handshake_complete = self.close_sent = True
        response = self.conn.reject(426, "this server speaks WebSocket version 13 only\n")
        response.headers["Sec-WebSocket-Version"] = "13"
        self.conn.send_response(response)
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.transport.close()


class _Released:
    """Stands where the transport was."""

    def is_closing(self) -> bool:
        return True

    def close(self) -> None:
        pass

    def write(self, data: bytes) -> None:
        pass

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


_RELEASED = _Released()


def hand_over(
    scope: Scope,
    upstream: Upstream,
    session: Session,
    *,
    on_end: Callable[[Session, int], None],
    response_headers: Iterable[tuple[bytes, bytes]] = (),
) -> None:
    """Answer the client's handshake as the workspace did and copy bytes from here on.

    `response_headers`: what else the client gets with its 101, such as Set-Cookie; those of the
    handshake itself and hop-by-hop ones are left out. The application may only return afterwards.
    `on_end(session, code)` is called once, also if the client has gone away already.
    """
    protocol = scope.get("extensions", {}).pop(EXTENSION, None)
    if protocol is None:
        upstream.abort()
        raise RuntimeError(
            f"nothing to hand over: no {EXTENSION} in this scope; "
            "it is there once, and only if uvicorn runs with ws=GatewayWebSocketProtocol"
        )
    try:
        answer = switching_protocols(protocol.accept_key, upstream.headers, response_headers)
    except ValueError:
        upstream.abort()
        raise
    transport, early = protocol.release()
    transport = wired(transport)
    if not transport.is_closing():
        transport.write(answer)
    session.start(
        transport,
        upstream.transport,
        protocol.connections,
        on_end,
        early_up=early,
        early_down=upstream.leftover,
    )


async def refuse(scope: Scope, receive: Receive, send: Send, close: Close) -> None:
    """Accept the WebSocket and close it at once: the only way a page gets to see a reason."""
    await receive()  # websocket.connect
    subprotocol = next(iter(scope.get("subprotocols", [])), None)
    await send({"type": "websocket.accept", "subprotocol": subprotocol})
    await send({"type": "websocket.close", "code": close.code, "reason": close.reason})


def switching_protocols(
    accept: bytes, answered: Headers, more: Iterable[tuple[bytes, bytes]]
) -> bytes:
    """The 101 for a client. Raises ValueError for a header that has a line break."""
    lines = [
        b"HTTP/1.1 101 Switching Protocols",
        b"Upgrade: websocket",
        b"Connection: Upgrade",
        b"Sec-WebSocket-Accept: " + accept,
    ]
    for name, value in answered:
        if name in (b"sec-websocket-protocol", b"sec-websocket-extensions"):
            lines.append(name + b": " + value)
    for name, value in more:
        if b"\n" in name + value or b"\r" in name + value:
            raise ValueError(f"line break in the response header {name!r}")
        if name.lower() not in _HOP_BY_HOP and not name.lower().startswith(_OF_THE_HANDSHAKE):
            lines.append(name + b": " + value)
    return b"\r\n".join([*lines, b"", b""])
