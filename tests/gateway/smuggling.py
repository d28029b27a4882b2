"""Requests and answers that two parsers could read in two ways, and the strict one that looks at what came through.

Every case carries `SMUGGLED`, a request that nobody made, where one of the readings would find it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from dataclasses import dataclass

from tests.gateway.proxying import answer_bytes

SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: w1.localhost\r\n\r\n"
REFUSED, ONE, EITHER = "refused", "one", "either"


@dataclass(frozen=True)
class Case:
    """sent: bytes on one connection. right: refused before anything goes on, or exactly one request with
    `body`, and what is behind it refused or a request that the client made itself (`then`); or either."""

    name: str
    sent: bytes
    right: str = REFUSED
    body: bytes = b""
    then: int = 0
    method: bytes = b"POST"


def head(*lines: str | bytes, method: str = "POST", target: str = "/first") -> bytes:
    said = [line if isinstance(line, bytes) else line.encode("latin-1") for line in lines]
    first = f"{method} {target} HTTP/1.1".encode("latin-1")
    return b"\r\n".join([first, b"Host: w1.localhost", *said, b"", b""])


CHUNKS = b"5\r\nhello\r\n0\r\n\r\n"


def both_framings() -> Iterator[Case]:
    """Content-Length beside Transfer-Encoding, in every order and spelling, either of them longer."""
    lengths = [f"Content-Length: {n}" for n in (0, 5, 15, 100)] + [
        "content-length:15",
        "CONTENT-LENGTH: 15 ",
    ]
    codings = [
        "Transfer-Encoding: chunked", "transfer-encoding:chunked", "TRANSFER-ENCODING: CHUNKED",
        "Transfer-Encoding: identity", "Transfer-Encoding: chunked ", "Transfer-Encoding:\tchunked",
    ]  # fmt: skip
    for length in lengths:
        for coding in codings:
            for lines in ((length, coding), (coding, length)):
                yield Case(f"{lines}", head(*lines) + CHUNKS + SMUGGLED)


def codings() -> Iterator[Case]:
    """Transfer-Encodings that are no plain `chunked`."""
    for value in (
        "xchunked", "chunkedx", "gzip, chunked", "chunked, identity", "identity, chunked", "chunked, chunked",
        "chunked,", ",chunked", "chunked;q=1", "\"chunked\"", "chun ked", "gzip", "deflate", "identity", "cow",
        "\x0bchunked", "chunked\x0b", "\x00chunked", "chunk\xe9d", "\xa0chunked", "",
    ):  # fmt: skip
        yield Case(f"TE {value!r}", head(f"Transfer-Encoding: {value}") + CHUNKS + SMUGGLED)
    twice = [
        ("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"),
        ("Transfer-Encoding: chunked", "Transfer-Encoding: identity"),
        ("Transfer-Encoding: identity", "Transfer-Encoding: chunked"),
        ("Transfer-Encoding: cow", "Transfer-encoding: chunked"),
    ]
    for lines in twice:
        yield Case(f"{lines}", head(*lines) + CHUNKS + SMUGGLED)
    for name in (
        "Transfer-Encoding ", "Transfer-Encoding\t", " Transfer-Encoding", "\tTransfer-Encoding",
        "Transfer-Encoding\x00", "Transfer Encoding", "Transfer-Encoding\x0b", "Transfer-\r\n Encoding",
    ):  # fmt: skip
        yield Case(f"name {name!r}", head(f"{name}: chunked") + CHUNKS + SMUGGLED)
    for name in (
        "Transfer_Encoding",
        "Transfer.Encoding",
        "XTransfer-Encoding",
        "Transfer-Encoding-X",
    ):
        # Another header, as good as any: the body is empty, and what follows is a request of the client's.
        yield Case(f"name {name!r}", head(f"{name}: chunked") + SMUGGLED, ONE, then=1)


def lengths() -> Iterator[Case]:
    for value in (
        "+5", "-5", "-0", "0x5", "5 5", "5,5", "5, 5", "5;", "5.0", "5e0", "five", "", "٥", "5\x0b",
        "\x0b5", "5\x00", "1_0", "99999999999999999999", "18446744073709551621", "9" * 400, "005 5", "0b1",
    ):  # fmt: skip
        said = b"Content-Length: " + value.encode()
        yield Case(f"CL {value[:24]!r}", head(said) + b"hello" + SMUGGLED)
    for one, other in ((5, 5), (5, 0), (0, 5), (5, 6), (5, 50)):
        lines = (f"Content-Length: {one}", f"Content-Length: {other}")
        yield Case(f"{lines}", head(*lines) + b"hello" + SMUGGLED)
    for name in (
        "Content-Length ",
        "Content-Length\t",
        " Content-Length",
        "Content Length",
        "Content-Length\x00",
    ):
        yield Case(f"name {name!r}", head(f"{name}: 5") + b"hello" + SMUGGLED)
    for value in ("5", "5 ", "\t5", "05", "0000000005"):
        sent = head(f"Content-Length: {value}") + b"hello" + SMUGGLED
        yield Case(f"CL {value!r}", sent, ONE, b"hello", 1)


def chunks() -> Iterator[Case]:
    """Bodies in chunks whose sizes or ends are not what they seem: nothing behind them is a request."""
    coding = "Transfer-Encoding: chunked"
    for body in (
        b"+5\r\nhello\r\n0\r\n\r\n", b"-5\r\nhello\r\n0\r\n\r\n", b"0x5\r\nhello\r\n0\r\n\r\n",
        b"5 5\r\nhello\r\n0\r\n\r\n", b"g\r\nhello\r\n0\r\n\r\n", b"\r\nhello\r\n0\r\n\r\n",
        b" 5\r\nhello\r\n0\r\n\r\n", b"5\nhello\r\n0\r\n\r\n", b"5\rhello\r\n0\r\n\r\n", b"5\r\nhello\n0\r\n\r\n",
        b"5\r\nhelloX0\r\n\r\n", b"5\r\nhelloXX0\r\n\r\n", b"6\r\nhello\r\n0\r\n\r\n", b"4\r\nhello\r\n0\r\n\r\n",
        b"ffffffffffffffff5\r\nhello\r\n0\r\n\r\n", b"10000000000000005\r\nhello\r\n0\r\n\r\n", b"5\x00\r\nhello\r\n0\r\n\r\n",
        b"5\r\nhello\r\n0\n\n", b"5\r\nhello\r\n0\r\nX: a\nY: b\r\n\r\n", b"5\r\nhello\r\n0\r\n: a\r\n\r\n",
        b"5;a\nb\r\nhello\r\n0\r\n\r\n", b"5;\x00\r\nhello\r\n0\r\n\r\n", b"5\xa0\r\nhello\r\n0\r\n\r\n", b"\xd9\xa5\r\nhello\r\n0\r\n\r\n",
        b"5\r\nhello\r\n0\r\nX a\r\n\r\n", b"1_0\r\nhello\r\n0\r\n\r\n",
    ):  # fmt: skip
        yield Case(f"chunks {body[:24]!r}", head(coding) + body + SMUGGLED)
    for body in (
        CHUNKS, b"5;a=b\r\nhello\r\n0\r\n\r\n", b'5;a="b"\r\nhello\r\n0;x\r\n\r\n', b"005\r\nhello\r\n000\r\n\r\n",
        b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", b"5\r\nhello\r\n0\r\nX: trailer\r\n\r\n",
    ):  # fmt: skip
        yield Case(f"chunks {body[:24]!r}", head(coding) + body + SMUGGLED, ONE, b"hello", 1)
    trailers = b"5\r\nhello\r\n0\r\nContent-Length: 99\r\nTransfer-Encoding: x\r\nHost: b\r\n\r\n"
    yield Case("trailers that frame", head(coding) + trailers + SMUGGLED, EITHER, b"hello", 1)


def lines() -> Iterator[Case]:
    """Ends of lines, folding, and what hides in a header."""
    for raw in (
        b"X: a\nContent-Length: 5", b"X: a\rContent-Length: 5", b"X: a\r\r\nContent-Length: 5", b"X: a\n\nGET /smuggled",
        b"X: a\r\n Content-Length: 5", b"X: a\r\n\tfolded", b"X:\r\n a", b"X\r\n: a", b"X: a\0b", b"X: a\x0bb", b"X: a\x7fb",
        b": a", b"no colon", b"X Y: a", b"X\0: a", b"X(: a", b"X\xe9: a", b"X@: a",
    ):  # fmt: skip
        yield Case(f"line {raw[:24]!r}", head(raw, "Content-Length: 5") + b"hello" + SMUGGLED)
    whole = head("Content-Length: 5")
    for name, sent in {
        "bare LF everywhere": whole.replace(b"\r\n", b"\n"),
        "bare LF at the end": whole[:-2] + b"\n",
        "bare LF behind the request line": whole.replace(b"HTTP/1.1\r\n", b"HTTP/1.1\n"),
        "bare CR behind the request line": whole.replace(b"HTTP/1.1\r\n", b"HTTP/1.1\r"),
        "bare CR at the end": whole[:-2] + b"\r",
        "space before the first header": whole.replace(b"\r\nHost", b"\r\n Host"),
    }.items():
        yield Case(name, sent + b"hello" + SMUGGLED)
    yield Case(
        "obs-text is a value",
        head("X: \xe9", "Content-Length: 5") + b"hello" + SMUGGLED,
        ONE,
        b"hello",
        1,
    )
    yield Case("an empty line before", b"\r\n" + whole + b"hello" + SMUGGLED, ONE, b"hello", 1)


def targets() -> Iterator[Case]:
    for first in (
        "GET http://evil.example/ HTTP/1.1", "GET http://w1.localhost/ HTTP/1.1", "GET //[::1 HTTP/1.1 HTTP/1.1",
        "GET evil.example:80 HTTP/1.1", "GET * HTTP/1.1", "OPTIONS * HTTP/1.1", "CONNECT evil.example:80 HTTP/1.1",
        "CONNECT / HTTP/1.1", "TRACE / HTTP/1.1", "GET / HTTP/1.1 x", "GET /a b HTTP/1.1",
        "GET /\x00 HTTP/1.1", "GET /\x0b HTTP/1.1", "GET\t/ HTTP/1.1", "GET /\tHTTP/1.1", "GET / HTTP/1.2",
        "GET / HTTP/2.0", "GET / HTTP/0.9", "GET / http/1.1", "GET / HTTP/1.10", "GET / XTTP/1.1", "GET /", "G@T / HTTP/1.1",
        "GET /\r HTTP/1.1", "GET / HTTP/1.1\x00",
    ):  # fmt: skip
        sent = first.encode("latin-1") + b"\r\nHost: w1.localhost\r\n\r\n"
        yield Case(f"{first!r}", sent + SMUGGLED)
    yield Case("two spaces", head().replace(b" /first", b"  /first") + SMUGGLED, EITHER, then=1)
    for hosts in (
        "Host: w1.localhost\r\nHost: evil.example", "Host: w1.localhost\r\nhost: w1.localhost",
        "Host: w1.localhost\r\n Host: evil.example", "Host : w1.localhost",
    ):  # fmt: skip
        yield Case(f"{hosts!r}", f"GET / HTTP/1.1\r\n{hosts}\r\n\r\n".encode() + SMUGGLED)


def bodies() -> Iterator[Case]:
    """A body where few have one: it is the request's, whatever it looks like."""
    for method in ("GET", "OPTIONS", "DELETE", "PATCH", "PUT", "POST"):
        size = f"Content-Length: {len(SMUGGLED)}"
        sent = head(size, method=method)
        yield Case(f"{method} with a body", sent + SMUGGLED, ONE, SMUGGLED, method=method.encode())
        chunk = b"%x\r\n%b\r\n0\r\n\r\n" % (len(SMUGGLED), SMUGGLED)
        sent = head("Transfer-Encoding: chunked", method=method)
        yield Case(f"{method} in chunks", sent + chunk, ONE, SMUGGLED, method=method.encode())
    hop = [
        "Connection: content-length", "Connection: Content-Length, keep-alive", "Connection: host",
        "Connection: transfer-encoding", "Connection: close, content-length", "Connection: cookie, x-forwarded-for",
    ]  # fmt: skip
    for line in hop:
        then = 0 if "close" in line else 1
        yield Case(line, head(line, "Content-Length: 5") + b"hello" + SMUGGLED, ONE, b"hello", then)
        sent = head(line, "Transfer-Encoding: chunked") + CHUNKS + SMUGGLED
        yield Case(f"{line} chunked", sent, ONE, b"hello", then)
    expect = head("Expect: 100-continue", f"Content-Length: {len(SMUGGLED)}")
    yield Case("Expect with its body", expect + SMUGGLED, ONE, SMUGGLED)
    for line in (
        "Upgrade: h2c", "Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\nConnection: Upgrade, HTTP2-Settings",
        "Upgrade: h2c\r\nConnection: Upgrade", "Upgrade: h2c, websocket\r\nConnection: Upgrade",
        "Upgrade: TLS/1.0\r\nConnection: Upgrade",
    ):  # fmt: skip
        # Ignored, as RFC 9110 (7.8) lets every server do: a request like any other, its body counted.
        sent = head(line, f"Content-Length: {len(SMUGGLED)}") + SMUGGLED
        yield Case(f"{line[:40]!r}", sent, ONE, SMUGGLED)
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9)
    yield Case("HTTP/2 with prior knowledge", preface + SMUGGLED)


FAMILIES = {
    f.__name__: f for f in (both_framings, codings, lengths, chunks, lines, targets, bodies)
}


@dataclass(frozen=True)
class Seen:
    """A request as the strict parser found it."""

    method: bytes
    target: bytes
    body: bytes
    length: bool
    """Framed by a Content-Length, not in chunks."""


class NotStrict(Exception):
    pass


_REQUEST = re.compile(rb"([A-Z]+) (/[\x21-\x7e]*) HTTP/1\.1")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+): ([\t\x20-\x7e\x80-\xff]*)")


async def strictly(reader: asyncio.StreamReader) -> Seen | None:
    """The next request; None at the end. Raises NotStrict where RFC 9112 leaves any doubt."""
    try:
        block = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise NotStrict(f"left over: {error.partial!r}") from None
        return None
    first, *rest = block[:-4].split(b"\r\n")
    asked = _REQUEST.fullmatch(first)
    fields = [_FIELD.fullmatch(line) for line in rest]
    if asked is None or None in fields:
        raise NotStrict(f"no head: {block!r}")
    said = [(field[1].lower(), field[2]) for field in fields if field]
    once = {name: [value for key, value in said if key == name] for name, _ in said}
    sizes, codings = once.get(b"content-length", []), once.get(b"transfer-encoding", [])
    if len(once.get(b"host", [])) != 1 or len(sizes) + len(codings) > 1:
        raise NotStrict(f"more than one Host or framing: {block!r}")
    if b"upgrade" in once or b"http2-settings" in once:
        raise NotStrict(f"an upgrade went on: {block!r}")
    if codings:
        if codings != [b"chunked"]:
            raise NotStrict(f"a coding: {block!r}")
        return Seen(asked[1], asked[2], await _in_chunks(reader), False)
    if sizes and not re.fullmatch(rb"0|[1-9][0-9]*", sizes[0]):
        raise NotStrict(f"no length: {block!r}")
    return Seen(asked[1], asked[2], await reader.readexactly(int(sizes[0]) if sizes else 0), True)


async def _in_chunks(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while True:
        line = await reader.readuntil(b"\r\n")
        if not re.fullmatch(rb"[0-9a-f]+\r\n", line):
            raise NotStrict(f"a chunk's size: {line!r}")
        data = await reader.readexactly(int(line, 16) + 2)
        if data[-2:] != b"\r\n":
            raise NotStrict(f"a chunk's end: {data!r}")
        if not data[:-2]:
            return body
        body += data[:-2]


# What workspaces answer


@dataclass(frozen=True)
class Told:
    """An answer of a workspace, and what may come of it. body: all that the client may get as its own;
    None: it may only be told that there is none."""

    name: str
    answer: bytes
    body: bytes | None
    method: str = "GET"


FORGED = answer_bytes("200 OK", "Content-Length: 6") + b"forged"


def answers() -> Iterator[Told]:
    """Answers with another one behind or within them: nobody may ever get that one."""
    ok = "200 OK"
    for name, lines, body in (
        ("CL and TE", ("Content-Length: 5", "Transfer-Encoding: chunked"), CHUNKS),
        ("TE and CL", ("Transfer-Encoding: chunked", "Content-Length: 5"), CHUNKS),
        ("two CLs", ("Content-Length: 5", "Content-Length: 6"), b"hello"),
        ("a list of CLs", ("Content-Length: 5, 6",), b"hello"),
        ("CL with a sign", ("Content-Length: +5",), b"hello"),
        ("CL in hex", ("Content-Length: 0x5",), b"hello"),
        ("CL too large", ("Content-Length: 99999999999999999999",), b"hello"),
        ("a coding nobody knows", ("Transfer-Encoding: cow",), CHUNKS),
        ("a space before the colon", ("Content-Length : 5",), b"hello"),
        ("a folded line", ("X: a\r\n Content-Length: 5",), b"hello"),
        ("a bare CR", ("X: a\rContent-Length: 5",), b"hello"),
        ("a bare LF", ("X: a\nContent-Length: 50",), b"hello"),
        ("a NUL", ("X: a\0b", "Content-Length: 5"), b"hello"),
        ("101 to a plain request", None, b""),
    ):  # fmt: skip
        first = (
            answer_bytes(ok, *lines)
            if lines
            else answer_bytes("101 Switching Protocols", "Upgrade: websocket")
        )
        yield Told(name, first + body + FORGED, None)
    for name, chunked in (
        ("a chunk's size with a sign", b"+5\r\nhello\r\n0\r\n\r\n"),
        ("a chunk's size in words", b"five\r\nhello\r\n0\r\n\r\n"),
        ("a chunk without end", b"5\r\nhelloXX0\r\n\r\n"),
        ("a chunk's bare LF", b"5\nhello\n0\n\n"),
    ):
        yield Told(name, answer_bytes(ok, "Transfer-Encoding: chunked") + chunked + FORGED, None)
    fine = answer_bytes(ok, "Content-Length: 5") + b"hello"
    hop = answer_bytes(ok, "Content-Length: 5", "Connection: content-length")
    yield Told("a length for this hop only", hop + b"hello" + FORGED, b"hello")
    yield Told("bytes behind it", fine + FORGED, b"hello")
    yield Told(
        "chunks and bytes behind",
        answer_bytes(ok, "Transfer-Encoding: chunked") + CHUNKS + FORGED,
        b"hello",
    )
    yield Told("a body of 204", answer_bytes("204 No Content") + FORGED, b"")
    yield Told("a body of 304", answer_bytes("304 Not Modified", "Content-Length: 5") + FORGED, b"")
    yield Told("a body of HEAD", fine + FORGED, b"", "HEAD")
    yield Told(
        "1xx before it", answer_bytes("103 Early Hints", "Link: x") * 3 + fine + FORGED, b"hello"
    )
    yield Told("a storm of 1xx", answer_bytes("102 Processing") * 5000 + fine + FORGED, b"hello")
