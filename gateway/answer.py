"""What a workspace answers over HTTP: its head, and where its body ends (RFC 9112, sections 4 to 7). Pure.

Strict where leniency would let two readers disagree: an answer that could be read in two ways is a
BadAnswer and goes no further.
"""

from __future__ import annotations

import re
from functools import lru_cache

from gateway.headers import BadAnswer, Header

HEAD_MAX = 64 * 1024
HEADERS_MAX = 256
CHUNKED, UNTIL_CLOSE = -1, -2
"""Lengths of bodies whose head does not say one."""

_REMEMBERED = 1024  # heads that are read once: polls and assets are answered alike over and over
_SHORT = 2048  # bytes; longer ones are not remembered
_BODYLESS = frozenset({204, 304})
# The possessive + and * keep a hostile head from being read more than once.
_HEAD = re.compile(
    rb"HTTP/1\.([01]) ([1-5][0-9]{2})(?: [\t\x20-\x7e\x80-\xff]*+)?\r\n"
    rb"((?:[!#$%&'*+.^_`|~0-9A-Za-z-]++:[\t\x20-\x7e\x80-\xff]*+\r\n)*+)\r\n"
)
_LENGTH = re.compile(rb"[0-9]{1,18}")
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?")
_TRAILER = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t\x20-\x7e\x80-\xff]*")
_LINE_MAX = 4096
_TRAILERS_MAX = 16 * 1024


class Head:
    """headers: as they came, names in lower case. length: of the body in bytes, CHUNKED or UNTIL_CLOSE.
    reusable: the connection may carry another request once the body has ended."""

    __slots__ = ("headers", "length", "reusable", "status", "to_client")

    def __init__(
        self, status: int, headers: tuple[Header, ...], length: int, reusable: bool
    ) -> None:
        self.status, self.headers, self.length, self.reusable = status, headers, length, reusable
        self.to_client: bytes | None = None
        """What the client gets of it, once somebody has worked it out."""

    @property
    def interim(self) -> bool:
        return self.status < 200


def read_head(data: bytes, bodyless: bool) -> Head:
    """data: up to and with the empty line. bodyless: HEAD was asked. Raises BadAnswer."""
    return (_remembered if len(data) <= _SHORT else _read_head)(data, bodyless)


def _read_head(data: bytes, bodyless: bool) -> Head:
    found = _HEAD.fullmatch(data)
    if found is None:
        raise BadAnswer("it answered with something that is no HTTP/1.1")
    lines = found[3].split(b"\r\n")[:-1]
    if len(lines) > HEADERS_MAX:
        raise BadAnswer(f"more than {HEADERS_MAX} headers")
    headers = []
    for line in lines:
        name, _, value = line.partition(b":")
        headers.append((name.lower(), value.strip(b" \t")))
    status = int(found[2])
    if status == 101:
        raise BadAnswer("it switched protocols, and nobody asked it to")
    length, said_close = _length(headers), _says_close(headers)
    if bodyless or status < 200 or status in _BODYLESS:
        length = 0
    reusable = found[1] == b"1" and not said_close and length != UNTIL_CLOSE
    return Head(status, tuple(headers), length, reusable)


_remembered = lru_cache(_REMEMBERED)(_read_head)


def _length(headers: list[Header]) -> int:
    lengths = [value for name, value in headers if name == b"content-length"]
    encodings = [value for name, value in headers if name == b"transfer-encoding"]
    if encodings:
        if lengths:
            raise BadAnswer("both Content-Length and Transfer-Encoding")
        if len(encodings) > 1 or encodings[0].lower() != b"chunked":
            raise BadAnswer("a Transfer-Encoding other than chunked")
        return CHUNKED
    if not lengths:
        return UNTIL_CLOSE
    if len(lengths) > 1 or not _LENGTH.fullmatch(lengths[0]):
        raise BadAnswer("a Content-Length that is not one number")
    return int(lengths[0])


def _says_close(headers: list[Header]) -> bool:
    return any(
        name == b"connection" and b"close" in (token.strip().lower() for token in value.split(b","))
        for name, value in headers
    )


class Chunks:
    """Takes a chunked body apart as it comes in. Extensions and trailers are checked and left out."""

    __slots__ = ("_held", "_in_trailers", "_left", "_owed", "_trailers", "done")

    def __init__(self) -> None:
        self.done = False
        self._held = b""  # a line cut short by the end of a read
        self._left = 0  # bytes of the chunk under way that are still to come
        self._owed = False  # the line end behind a chunk's data
        self._in_trailers = False
        self._trailers = 0

    def feed(self, data: bytes) -> tuple[list[bytes], bytes]:
        """Pieces of the body, and what follows its end once `done`. Raises BadAnswer."""
        if self._held:
            data, self._held = self._held + data, b""
        pieces: list[bytes] = []
        at, size = 0, len(data)
        while not self.done:
            if self._left:
                piece = data[at : at + self._left]
                if piece:
                    pieces.append(piece)
                at += len(piece)
                self._left -= len(piece)
                if self._left:
                    return pieces, b""
                self._owed = True
            end = data.find(b"\r\n", at)
            if end < 0 or end - at > _LINE_MAX:
                if size - at > _LINE_MAX:
                    raise BadAnswer("a line between two chunks has no end")
                self._held = data[at:]
                return pieces, b""
            self._line(data[at:end])
            at = end + 2
        return pieces, data[at:]

    def _line(self, line: bytes) -> None:
        if self._owed:
            if line:
                raise BadAnswer("a chunk is longer than it says")
            self._owed = False
        elif self._in_trailers:
            self._trailers += len(line)
            if line and (not _TRAILER.fullmatch(line) or self._trailers > _TRAILERS_MAX):
                raise BadAnswer("trailers that are none")
            self.done = not line
        else:
            found = _SIZE.fullmatch(line)
            if found is None:
                raise BadAnswer("a chunk whose size is not a number")
            self._left = int(found[1], 16)
            self._in_trailers = not self._left


def chunked(pieces: list[bytes]) -> bytes:
    """These pieces of a body as one chunk; nothing when they are empty."""
    body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
    return b"%x\r\n%b\r\n" % (len(body), body) if body else b""


LAST_CHUNK = b"0\r\n\r\n"
