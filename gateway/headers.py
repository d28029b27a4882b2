"""What passes between a client and a workspace, what is rebuilt, what stays with us. Pure.

Headers are lists of (lower-case name, value) in bytes, as ASGI has them: duplicates and order count.
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Collection, Iterable, Iterator

Header = tuple[bytes, bytes]

HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
# Expect is answered by the server here, as soon as the upstream takes the body.
_NOT_UPSTREAM = HOP_BY_HOP | {b"host", b"expect", b"forwarded"}
_FORWARDED = (b"x-forwarded-", b"x-real-ip")
# Clears the cookies of the whole registrable domain, the neighbours' and ours among them.
# Date is set by the server that answers, which is the gateway's.
_NOT_TO_CLIENT = HOP_BY_HOP | {b"clear-site-data", b"date"}
_ONCE = (
    b"host",
    b"content-length",
    b"transfer-encoding",
    b"authorization",
    b"origin",
    b"upgrade",
    b"sec-websocket-key",
    b"sec-websocket-version",
)
_FRAMING = {b"content-length", b"transfer-encoding", b"host"}
_BAD_NAME = re.compile(rb"[^!#$%&'*+.^_`|~0-9A-Za-z-]")
_BAD_VALUE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_SECRETS = re.compile(r"(?i)\b(code|token|secret|api_?key)=[^&\s\"'#;]+|\b(bearer )[^\s\"']+")
_TOKENS = re.compile(r"\bigw_[\w.-]+")


class BadAnswer(ValueError):
    """The workspace answered with headers that must not be passed on."""


def upstream_headers(
    client_headers: Iterable[Header],
    *,
    host: str,
    client_ip: str,
    scheme: str,
    trusted: bool,
    own_cookie_names: Collection[str],
    drop_authorization: bool,
    extra: tuple[str, str] | None,
    websocket: bool,
) -> list[Header]:
    """The headers for the workspace. Adds Host first and what proxies add last.

    host: as the client asked for it. scheme: of the client's request. trusted: the peer is a proxy
    of ours, so its X-Forwarded-* are believed and extended; else they are replaced. extra: what
    opens the IDE; a header of that name from the client is dropped, whatever it says.
    """
    client = list(client_headers)
    dropped = set(_NOT_UPSTREAM) | named_by_connection(client)
    if drop_authorization:
        dropped.add(b"authorization")
    if extra:
        dropped.add(extra[0].lower().encode("ascii"))
    if websocket:
        dropped.add(b"content-length")
    kept = (
        header
        for header in client
        if header[0] not in dropped
        and not header[0].startswith(_FORWARDED)
        # An address of ours may have a code in it; it tells the IDE nothing.
        and not (header[0] == b"referer" and b"/_gateway/" in header[1])
    )
    out = [(b"host", host.encode("ascii")), *_without_own_cookies(kept, own_cookie_names)]
    # As a number is written: with zeros before it somebody could take it for octal.
    out = [(n, b"%d" % int(v) if n == b"content-length" else v) for n, v in out]
    out += _forwarded(client, host, client_ip, scheme, trusted)
    if extra:
        out.append((extra[0].lower().encode("ascii"), extra[1].encode("utf-8")))
    if websocket:
        out += [(b"connection", b"Upgrade"), (b"upgrade", b"websocket")]
    return out


def client_headers(
    upstream: Iterable[Header], *, own_cookie_names: Collection[str], bodyless: bool = False
) -> list[Header]:
    """The headers for the client. bodyless: the status is 204 or 304. Raises BadAnswer.

    Cookies of the workspace become host-only, so that it sets none for its siblings, and none
    under our names.
    """
    upstream = [(name.lower(), value) for name, value in upstream]
    for name, value in upstream:
        if not name or _BAD_NAME.search(name) or _BAD_VALUE.search(value):
            raise BadAnswer(f"header {name!r} has characters that no header may have")
    dropped = _NOT_TO_CLIENT | named_by_connection(upstream)
    if bodyless or any(name == b"transfer-encoding" for name, _ in upstream):
        # The length no longer tells where the body ends.
        dropped |= {b"content-length"}
    out = []
    for name, value in upstream:
        if name in dropped:
            continue
        if name == b"set-cookie":
            if _cookie_name(value).lower() in _lower(own_cookie_names):
                continue
            value = _host_only(value)
        out.append((name, value))
    return out


def refuse(headers: Iterable[Header], method: str, path: bytes = b"/") -> str | None:
    """Why this request is not taken at all (400), for the client; None: it is fine.

    What two parsers could read in two ways goes no further. path: the raw one.
    """
    headers = list(headers)
    if method in ("CONNECT", "TRACE"):
        return f"{method} is not served here"
    if not path.startswith(b"/"):
        return "the request target must be a path that starts with /"
    names = [name for name, _ in headers]
    for name in _ONCE:
        if names.count(name) > 1:
            return f"more than one {name.decode()} header"
    if any(_BAD_VALUE.search(value) for _, value in headers):
        return "control characters in a header"
    return _refuse_framing(dict(headers)) or _refuse_upgrade(dict(headers), method)


def _refuse_framing(first: dict[bytes, bytes]) -> str | None:
    length, encoding = first.get(b"content-length"), first.get(b"transfer-encoding")
    if length is not None and encoding is not None:
        return "both Content-Length and Transfer-Encoding"
    if length is not None and not re.fullmatch(rb"[0-9]{1,18}", length):
        return "Content-Length is not a number"
    if encoding is not None and encoding.lower() != b"chunked":
        return "a Transfer-Encoding other than chunked"
    return None


def _refuse_upgrade(first: dict[bytes, bytes], method: str) -> str | None:
    if first.get(b"upgrade", b"").lower() != b"websocket":
        return None
    if method != "GET":
        return "an upgrade to WebSocket must be a GET"
    if first.get(b"sec-websocket-version") != b"13":
        return "Sec-WebSocket-Version must be 13"
    try:
        key = b64decode(first.get(b"sec-websocket-key", b""), validate=True)
    except ValueError:
        key = b""
    if len(key) != 16:
        return "Sec-WebSocket-Key must be 16 bytes in base64"
    if b"transfer-encoding" in first or first.get(b"content-length", b"0") != b"0":
        return "an upgrade to WebSocket has no body"
    return None


def redact(text: str) -> str:
    """A URL or line for the log, without codes, tokens and bearer credentials."""
    hidden = _SECRETS.sub(lambda m: f"{m[1]}=***" if m[1] else f"{m[2]}***", text)
    return _TOKENS.sub("igw_***", hidden)


def named_by_connection(headers: Iterable[Header]) -> set[bytes]:
    """Headers that Connection declares to be for this hop only. Never those that say where a body ends and
    for whom it is: without them what follows would be another message."""
    values = [value for name, value in headers if name == b"connection"]
    return {token.strip().lower() for value in values for token in value.split(b",")} - _FRAMING


def _without_own_cookies(headers: Iterable[Header], own: Collection[str]) -> Iterator[Header]:
    names = {name.encode() for name in own}
    for name, value in headers:
        if name == b"cookie":
            parts = value.split(b";")
            kept = [part for part in parts if _cookie_name(part) not in names]
            if len(kept) < len(parts):
                value = b";".join(kept).strip(b" ")
                if not value:
                    continue
        yield name, value


def _forwarded(
    client: list[Header], host: str, client_ip: str, scheme: str, trusted: bool
) -> Iterator[Header]:
    scheme = {"ws": "http", "wss": "https"}.get(scheme, scheme)
    _, colon, port = host.rpartition(":")
    if not (colon and port.isdecimal()):
        port = "443" if scheme == "https" else "80"
    told: dict[bytes, bytes] = {}
    if trusted:
        for name, value in client:
            if name.startswith(_FORWARDED):
                told[name] = told[name] + b", " + value if name in told else value
    chain = told.pop(b"x-forwarded-for", b"")
    ours = {
        b"x-forwarded-for": chain + b", " * bool(chain) + client_ip.encode("ascii"),
        b"x-forwarded-proto": scheme.encode("ascii"),
        b"x-forwarded-host": host.encode("ascii"),
        b"x-forwarded-port": port.encode("ascii"),
    }
    yield from (ours | told).items()


def _cookie_name(pair: bytes) -> bytes:
    return pair.partition(b";")[0].partition(b"=")[0].strip()


def _lower(names: Collection[str]) -> set[bytes]:
    # Browsers match the prefix __Host- without regard to case.
    return {name.lower().encode() for name in names}


def _host_only(set_cookie: bytes) -> bytes:
    parts = set_cookie.split(b";")
    kept = [part for part in parts[1:] if part.partition(b"=")[0].strip().lower() != b"domain"]
    return b";".join([parts[0], *kept])
