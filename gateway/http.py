"""uvicorn's HTTP protocol with what a gateway on the open net needs on top.

A request's head has an absolute deadline: uvicorn itself waits for ever on a client that sends its
headers a byte at a time. The proxy can drop a connection, so that an answer that was cut looks cut.
Whatever cannot be read gets an answer that says why, a WebSocket handshake as well. And requests of a kind
that the application has decided on pass below it (passing.py).
"""

from __future__ import annotations

import asyncio
import json
import sys
from functools import lru_cache, partial
from typing import Any, cast

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.bounds import PROBES, Beyond, Bounds, Refusal, bounds_of
from gateway.opening import Opening, handshake
from gateway.passing import REMEMBER, Key, Passing, Way, Ways, asked, ways_of
from gateway.proxy_client import ABORT

HEAD_TIMEOUT = 10.0  # seconds for a request's head, where the application sets no bound
HEAD_MAX = 64 * 1024  # bytes of request line and headers; above: 431 and the connection is closed


@lru_cache(4)
def _lines(headers: tuple[tuple[bytes, bytes], ...]) -> bytes:
    return b"".join(b"%b: %b\r\n" % header for header in headers)


_FRAMING = (b"content-length", b"transfer-encoding")
_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class GatewayHttpProtocol(HttpToolsProtocol):
    _deadline: asyncio.TimerHandle | None = None
    _head_bytes = 0
    _in_head = True
    _ways: Ways | None = None
    _passing: Passing | Opening | None = None
    _key: Key | None = None  # of the request that comes next, if it may be remembered
    _rest_timer: asyncio.TimerHandle | None = None
    _rested_at = 0.0
    _full = False  # the client does not take what is written to it
    _held: bytes | None = None  # what it asks meanwhile
    _data = b""  # what the parser is at
    _again = False  # it reads a head for the second time
    _bounds: Bounds | None = None  # while it counts as a connection that is no session
    _refusal: Refusal | None = None  # one connection too many: what it asks is answered so
    _head_timeout = HEAD_TIMEOUT
    waited = 0.0  # seconds that the first head had already, before this protocol was there (threshold.py)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._ways = ways_of(self.app)
        bounds = self._bounds = bounds_of(self.app)
        if bounds is not None:
            self._head_timeout = bounds.head_timeout
            try:
                self._refusal = bounds.arrived(self._address, len(self.connections))
            except Beyond:
                self.transport.abort()
                return
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._got_head()
        self._leave()
        if self._rest_timer is not None:
            self._rest_timer.cancel()
        if self._passing is not None:
            self._passing.client_gone()
            self._passing = None
        super().connection_lost(exc)

    @property
    def _address(self) -> str:
        return self.client[0] if self.client else ""

    def _leave(self) -> None:
        """It is over, or a session."""
        if self._bounds is not None:
            self._bounds.left(self._address)
            self._bounds = None

    def data_received(self, data: bytes) -> None:
        if self._held is not None:
            self._held += data
        elif self._passing is not None:
            self._passing.more(data)
        elif not (self._ways is not None and self._at_rest and self._pass(data, self._ways)):
            self._to_application(data)

    def _to_application(self, data: bytes) -> None:
        if self._in_head:
            # Counted roughly: a body that came with the end of its head counts, too, but only once.
            if self._head_bytes > HEAD_MAX:
                self.transport.write(_TOO_LARGE)
                self.transport.close()
                return
            self._head_bytes += len(data)
        self._data = data
        super().data_received(data)
        self._data, self._key = b"", None

    # Below the application

    @property
    def _at_rest(self) -> bool:
        """Between two requests, all of the last one done."""
        cycle = self.cycle
        return self._in_head and not self._head_bytes and (cycle is None or cycle.response_complete)

    def _pass(self, data: bytes, ways: Ways) -> bool:
        """Let this request pass, if it may."""
        found = asked(data)
        if found is None or self._refusal is not None:
            return False
        method, target, lines, body = found
        block, address = data[lines : body - 2], self._address
        opens = handshake(block, address)
        key = opens[0] if opens else (method, block, address)
        way = ways.find(key)
        if way is None:
            self._key = key
            return False
        self._got_head()
        self._in_head = True
        self._unset_keepalive_if_required()
        if opens:
            self._open(ways, way, target, opens[1], data, body)
            return True
        self._passing = passing = Passing(ways, self, way, method, target)
        passing.start(block, data[body:])
        return True

    def _open(
        self, ways: Ways, way: Way, target: bytes, key: bytes, data: bytes, body: int
    ) -> None:
        self._passing = opening = Opening(ways, self.app.sessions, self, way, target, key)
        opening.start(data[:body], data[body:])

    def let_go(self) -> None:
        self._passing = None
        self._leave()
        if self._rest_timer is not None:
            self._rest_timer.cancel()
        self.connections.discard(self)

    @property
    def date_line(self) -> bytes:
        return _lines(tuple(self.server_state.default_headers))

    def passed(self, rest: bytes, close: bool) -> None:
        self._passing = None
        if self.transport.is_closing():
            return
        if close:
            self.transport.close()
            return
        self._rested_at = self.loop.time()
        if self._rest_timer is None:
            self._rest_timer = self.loop.call_later(self.timeout_keep_alive, self._look_rest)
        if self._full:
            # Whoever asks on and on, and takes none of the answers, is answered no more of them.
            self._held = rest
            self.transport.pause_reading()
            return
        self.transport.resume_reading()
        if rest:
            self.data_received(rest)

    def look_again(self, request: bytes) -> None:
        self._passing = None
        if not self.transport.is_closing():
            self.transport.resume_reading()
            self._to_application(request)

    def _look_rest(self) -> None:
        """Close it once it has rested for long enough; one timer for many requests."""
        self._rest_timer = None
        if self._held is not None and self._ways is not None:
            left = self._rested_at + self._ways.patience.stall - self.loop.time()
            if left > 0:
                self._rest_timer = self.loop.call_later(left, self._look_rest)
            else:
                self.transport.abort()  # it has taken nothing for so long
            return
        if self._passing is not None or not self._at_rest or self.timeout_keep_alive_task:
            return  # `passed`, or uvicorn, looks after it again
        left = self._rested_at + self.timeout_keep_alive - self.loop.time()
        if left > 0:
            self._rest_timer = self.loop.call_later(left, self._look_rest)
        else:
            self.transport.close()

    def pause_writing(self) -> None:
        self._full = True
        if self._passing is not None:
            self._passing.client_full(True)
        else:
            super().pause_writing()

    def resume_writing(self) -> None:
        self._full = False
        held, self._held = self._held, None
        if self._passing is not None:
            self._passing.client_full(False)
        elif held is not None:
            self.passed(held, close=False)
        else:
            super().resume_writing()

    def shutdown(self) -> None:
        if self._passing is not None:
            self._passing.close_after()
        else:
            super().shutdown()

    # uvicorn's parser

    def _unsupported_upgrade_warning(self) -> None:
        """An upgrade to anything else is ignored, as every server may (RFC 9110, section 7.8). But the parser
        takes the body for that other protocol: a fresh one goes on with it, behind what frames it."""
        upgrade = cast(httptools.HttpParserUpgrade, sys.exception())
        rest = self._data[upgrade.args[0] :]
        framing = [header for header in self.headers if header[0] in _FRAMING]
        head = b"%b / HTTP/1.1\r\n%b\r\n" % (self.parser.get_method(), _lines(tuple(framing)))
        self.parser = httptools.HttpRequestParser(self)
        self._again, self._data = True, head + rest
        super().data_received(self._data)

    def on_message_begin(self) -> None:
        if self._again:
            return
        super().on_message_begin()
        extensions: dict[str, Any] = {ABORT: self.transport.abort}
        if self._key is not None and self._ways is not None:
            extensions[REMEMBER] = partial(self._ways.remember, self._key)
            self._key = None  # what follows in the same read is another request
        cast(dict[str, Any], self.scope)["extensions"] = extensions
        if self._deadline is None:
            self._await_head()

    def on_url(self, url: bytes) -> None:
        if not self._again:
            super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._again:
            return
        # White space around a value is no part of it; the parser takes away only what comes before.
        super().on_header(name, value.rstrip(b" \t"))

    def on_headers_complete(self) -> None:
        if self._again:
            self._again = False
            return
        self._got_head()
        if self._refusal is not None and self.url not in PROBES:
            raise _Refused
        if not self.url.startswith(b"/"):
            # Host says who is asked. A whole URL could say otherwise, and two parsers could differ.
            raise ValueError("the request target must be a path that starts with /")
        if self.parser.get_method() == b"CONNECT":
            raise ValueError("CONNECT is not served here")
        if self.parser.get_http_version() not in ("1.0", "1.1"):
            raise ValueError("this server speaks HTTP/1.1")
        if self.parser.get_http_version() == "1.0" and self._should_upgrade():
            raise ValueError("a WebSocket handshake needs HTTP/1.1")
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade() and not self._should_upgrade():
            return  # it says so at the head's end; the body is still to come
        super().on_message_complete()
        self._in_head, self._head_bytes = True, 0

    def send_400_response(self, msg: str) -> None:
        """In the API's shape, with what the parser objected to."""
        error = sys.exception()
        if isinstance(error, httptools.HttpParserCallbackError):
            error = error.__context__
        if isinstance(error, _Refused) and self._refusal is not None:
            self._refuse(self._refusal.message, self._refusal.status, self._refusal.code)
        else:
            self._refuse(str(error or msg))

    def handle_websocket_upgrade(self) -> None:
        self._leave()
        super().handle_websocket_upgrade()
        protocol = cast(Any, self.transport.get_protocol())
        remember = cast(dict[str, Any], self.scope)["extensions"].get(REMEMBER)
        if protocol.handshake_initiated:
            upgrade = cast(httptools.HttpParserUpgrade, sys.exception())
            early = self._data[upgrade.args[0] :]
            if early and not self.transport.is_closing():
                protocol.data_received(early)
            if remember is not None and not protocol.handshake_complete:
                protocol.scope["extensions"][REMEMBER] = remember
            return
        # A head that the WebSocket parser does not take; uvicorn would leave the client without a word.
        answer = b"".join(protocol.conn.data_to_send())
        if answer:
            self.transport.write(answer)
            self.transport.close()
        else:
            why = protocol.conn.handshake_exc.__cause__
            self._refuse(f"this WebSocket handshake cannot be read: {why}")

    def _refuse(self, why: str, status: str = "400 Bad Request", code: str = "bad_request") -> None:
        body = json.dumps({"error": {"code": code, "message": why}}).encode()
        head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\n"
        head += "retry-after: 5\r\n" if self._refusal is not None else ""
        head += f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        self.transport.write(head.encode("ascii") + body)
        self.transport.close()

    def _await_head(self) -> None:
        self._in_head = True
        left, self.waited = max(0.0, self._head_timeout - self.waited), 0.0
        self._deadline = self.loop.call_later(left, self._give_up)

    def _got_head(self) -> None:
        self._in_head, self._head_bytes = False, 0
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _give_up(self) -> None:
        self._deadline = None
        self.transport.abort()


class _Refused(Exception):
    """Its head is here, and it is one connection too many."""
