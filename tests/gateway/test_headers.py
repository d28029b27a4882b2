"""Headers: what is ours stays, what is rebuilt cannot be forged, the rest passes untouched."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.auth import OWN_COOKIE_NAMES
from gateway.headers import BadAnswer, client_headers, redact, refuse, upstream_headers

Headers = list[tuple[bytes, bytes]]


def up(headers: Headers, **changes: Any) -> Headers:
    settings: dict[str, Any] = {
        "host": "w1.localhost:8000",
        "client_ip": "10.1.2.3",
        "scheme": "http",
        "trusted": False,
        "own_cookie_names": OWN_COOKIE_NAMES,
        "drop_authorization": False,
        "extra": None,
        "websocket": False,
    }
    return upstream_headers(headers, **{**settings, **changes})


def values(headers: Headers, name: bytes) -> list[bytes]:
    return [value for key, value in headers if key == name]


def down(headers: Headers, **changes: Any) -> Headers:
    return client_headers(headers, own_cookie_names=OWN_COOKIE_NAMES, **changes)


def test_the_rest_passes_in_order_with_duplicates() -> None:
    sent = [(b"accept", b"a"), (b"x-dup", b"1"), (b"x-other", b"\xc3\xa9"), (b"x-dup", b"2")]
    out = up([(b"host", b"forged"), *sent, (b"range", b"bytes=1-2"), (b"origin", b"null")])
    assert out[0] == (b"host", b"w1.localhost:8000")
    assert out[1:7] == [*sent, (b"range", b"bytes=1-2"), (b"origin", b"null")]
    assert values(out, b"host") == [b"w1.localhost:8000"]


@pytest.mark.parametrize("websocket", [False, True])
def test_hop_by_hop_headers_stay_here(websocket: bool) -> None:
    sent = [
        (b"connection", b"Keep-Alive, X-Drop ,upgrade"),
        (b"connection", b"x-Drop-Too"),
        (b"x-drop", b"1"),
        (b"x-drop-too", b"1"),
        (b"keep-alive", b"timeout=5"),
        (b"proxy-authorization", b"Basic x"),
        (b"proxy-connection", b"keep-alive"),
        (b"te", b"trailers"),
        (b"trailer", b"x"),
        (b"transfer-encoding", b"chunked"),
        (b"upgrade", b"h2c"),
        (b"expect", b"100-continue"),
    ]
    out = up([*sent, (b"x-keep", b"1")], websocket=websocket)
    names = {name for name, _ in out}
    assert names >= {b"host", b"x-keep", b"x-forwarded-for"}
    if websocket:
        assert values(out, b"connection") == [b"Upgrade"]
        assert values(out, b"upgrade") == [b"websocket"]
        names -= {b"connection", b"upgrade"}
    assert not names & {name for name, _ in sent}


def test_an_upgrade_keeps_its_own_headers() -> None:
    sent = [
        (b"sec-websocket-key", b"k"),
        (b"sec-websocket-version", b"13"),
        (b"sec-websocket-protocol", b"a, b"),
        (b"sec-websocket-extensions", b"permessage-deflate"),
        (b"sec-websocket-extensions", b"x"),
    ]
    out = up([*sent, (b"content-length", b"0")], websocket=True)
    assert [header for header in out if header in sent] == sent
    assert values(out, b"content-length") == []
    assert values(up([(b"content-length", b"0")]), b"content-length") == [b"0"]


SPOOFED: Headers = [
    (b"x-forwarded-for", b"1.1.1.1"),
    (b"x-forwarded-for", b"2.2.2.2"),
    (b"x-forwarded-proto", b"https"),
    (b"x-forwarded-host", b"evil.com"),
    (b"x-forwarded-port", b"1"),
    (b"x-forwarded-prefix", b"/evil"),
    (b"x-forwarded-user", b"root"),
    (b"x-real-ip", b"3.3.3.3"),
    (b"forwarded", b"for=4.4.4.4"),
]


def test_forwarding_headers_of_strangers_are_replaced() -> None:
    out = up(SPOOFED)
    assert out[1:] == [
        (b"x-forwarded-for", b"10.1.2.3"),
        (b"x-forwarded-proto", b"http"),
        (b"x-forwarded-host", b"w1.localhost:8000"),
        (b"x-forwarded-port", b"8000"),
    ]


def test_forwarding_headers_of_our_proxies_are_extended() -> None:
    out = up(SPOOFED, trusted=True)
    assert values(out, b"x-forwarded-for") == [b"1.1.1.1, 2.2.2.2, 10.1.2.3"]
    assert values(out, b"x-forwarded-proto") == [b"https"]
    assert values(out, b"x-forwarded-port") == [b"1"]
    assert values(out, b"x-real-ip") == [b"3.3.3.3"]
    assert values(out, b"forwarded") == []
    bare = up([], trusted=True)
    assert values(bare, b"x-forwarded-for") == [b"10.1.2.3"]
    assert values(bare, b"x-forwarded-proto") == [b"http"]


@pytest.mark.parametrize(
    ("host", "scheme", "proto", "port"),
    [
        ("w1.ide.example.com", "https", b"https", b"443"),
        ("w1.ide.example.com", "wss", b"https", b"443"),
        ("w1.localhost", "ws", b"http", b"80"),
        ("w1.localhost:81", "ws", b"http", b"81"),
        ("[::1]", "http", b"http", b"80"),
        ("[::1]:82", "http", b"http", b"82"),
    ],
)
def test_the_forwarded_port(host: str, scheme: str, proto: bytes, port: bytes) -> None:
    out = up([], host=host, scheme=scheme)
    assert values(out, b"x-forwarded-proto") == [proto]
    assert values(out, b"x-forwarded-port") == [port]


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        (b"a=1; b=2", [b"a=1; b=2"]),
        (b"a=1;b=2 ;  c", [b"a=1;b=2 ;  c"]),
        (b"ide-gateway=S", []),
        (b"ide-gateway=S; ide-gateway-home=S; __Host-ide-gateway=S", []),
        (b"a=1; ide-gateway=S; b=2", [b"a=1; b=2"]),
        (b"ide-gateway=S; a=1", [b"a=1"]),
        (b"a=1;ide-gateway=S", [b"a=1"]),
        (b"a=1; \tide-gateway \t= S;b=2", [b"a=1;b=2"]),
        (b"a=1; ide-gateway=S; ide-gateway=S;b=2", [b"a=1;b=2"]),
        (b'a="x; ide-gateway=S"', [b'a="x']),
        (b"ide-gateway-x=1; xide-gateway=2", [b"ide-gateway-x=1; xide-gateway=2"]),
        (b"__Host-ide-gateway-home=S; \xff=\xfe; =", [b"\xff=\xfe; ="]),
    ],
)
@pytest.mark.parametrize("websocket", [False, True])
def test_our_cookies_are_cut_out(sent: bytes, kept: list[bytes], websocket: bool) -> None:
    assert values(up([(b"cookie", sent)], websocket=websocket), b"cookie") == kept


def test_every_cookie_header_is_looked_at() -> None:
    sent = [(b"cookie", b"a=1; ide-gateway=S"), (b"cookie", b"ide-gateway=S"), (b"cookie", b"b=2")]
    assert values(up(sent), b"cookie") == [b"a=1", b"b=2"]


@given(st.lists(st.sampled_from([b"ide-gateway=S", b" a=1", b"", b" ", b"__Host-ide-gateway=S"])))
def test_no_arrangement_lets_a_cookie_of_ours_through(parts: list[bytes]) -> None:
    assert b"S" not in b"".join(values(up([(b"cookie", b";".join(parts))]), b"cookie"))


def test_authorization() -> None:
    sent = [(b"authorization", b"Bearer x")]
    assert values(up(sent), b"authorization") == [b"Bearer x"]
    assert values(up(sent, drop_authorization=True), b"authorization") == []


@pytest.mark.parametrize("websocket", [False, True])
def test_the_secret_is_ours_to_set(websocket: bool) -> None:
    sent = [
        (b"authorization", b"token guessed"),
        (b"connection", b"authorization"),
        (b"authorization", b"token again"),
    ]
    out = up(sent, extra=("Authorization", "token secret"), websocket=websocket)
    assert values(out, b"authorization") == [b"token secret"]


def test_answers_pass_in_order_with_duplicates() -> None:
    sent = [
        (b"Set-Cookie", b"a=1; Path=/"),
        (b"x-a", b"1"),
        (b"Set-Cookie", b"b=2"),
        (b"x-a", b"2"),
        (b"content-length", b"5"),
    ]
    assert down(sent) == [(name.lower(), value) for name, value in sent]


def test_hop_by_hop_headers_of_answers_stay_here() -> None:
    sent = [
        (b"connection", b"close, X-Drop"),
        (b"x-drop", b"1"),
        (b"keep-alive", b"timeout=5"),
        (b"transfer-encoding", b"chunked"),
        (b"content-length", b"5"),
        (b"trailer", b"x"),
        (b"upgrade", b"h2c"),
        (b"clear-site-data", b'"cookies"'),
        (b"x-keep", b"1"),
    ]
    assert down(sent) == [(b"x-keep", b"1")]


def test_a_length_without_a_body_is_dropped() -> None:
    assert down([(b"content-length", b"5")], bodyless=True) == []
    assert down([(b"content-length", b"5")]) == [(b"content-length", b"5")]


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        (b"ide-gateway=planted; Path=/", []),
        (b"ide-gateway-home=planted", []),
        (b"__Host-ide-gateway=planted; Secure; Path=/", []),
        (b"__HOST-ide-gateway=planted; Secure; Path=/", []),
        (b" ide-gateway =planted", []),
        (b"ide-gateway", []),
        (b"a=ide-gateway", [b"a=ide-gateway"]),
        (b"a=1; Domain=localhost; Path=/", [b"a=1; Path=/"]),
        (b"a=1;domain=.localhost;Secure", [b"a=1;Secure"]),
        (b"a=1; DOMAIN = w2.localhost", [b"a=1"]),
        (b"a=1; Domain; HttpOnly", [b"a=1; HttpOnly"]),
        (b"domain=1; Path=/", [b"domain=1; Path=/"]),
    ],
)
def test_cookies_of_a_workspace_stay_on_its_host(sent: bytes, kept: list[bytes]) -> None:
    assert values(down([(b"set-cookie", sent)]), b"set-cookie") == kept


@pytest.mark.parametrize(
    "header", [(b"x", b"a\r\nb: c"), (b"x", b"\0"), (b"x y", b""), (b"", b"x"), (b"x:", b"")]
)
def test_answers_with_impossible_headers_are_no_answers(header: tuple[bytes, bytes]) -> None:
    with pytest.raises(BadAnswer):
        down([header])


HOST = (b"host", b"w1.localhost")
UPGRADE: Headers = [
    HOST,
    (b"connection", b"Upgrade"),
    (b"upgrade", b"websocket"),
    (b"sec-websocket-version", b"13"),
    (b"sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ=="),
]


def test_ordinary_requests_are_taken() -> None:
    assert refuse([HOST], "GET") is None
    assert refuse([HOST, (b"content-length", b"5")], "POST") is None
    assert refuse([HOST, (b"transfer-encoding", b"Chunked")], "PUT", b"/x") is None
    assert refuse([HOST, (b"cookie", b"a=1"), (b"cookie", b"\xc3\xa9\t")], "GET") is None
    assert refuse(UPGRADE, "GET") is None
    assert refuse([*UPGRADE, (b"content-length", b"0")], "GET") is None


@pytest.mark.parametrize(
    ("headers", "says"),
    [
        ([HOST, HOST], "more than one host"),
        ([HOST, (b"host", b"other")], "more than one host"),
        ([HOST, (b"content-length", b"5"), (b"content-length", b"5")], "more than one content-len"),
        ([HOST, (b"content-length", b"5"), (b"transfer-encoding", b"chunked")], "both"),
        ([HOST, (b"content-length", b"5, 5")], "not a number"),
        ([HOST, (b"content-length", b"+5")], "not a number"),
        ([HOST, (b"content-length", b"0x5")], "not a number"),
        ([HOST, (b"content-length", b"")], "not a number"),
        ([HOST, (b"content-length", b"9" * 30)], "not a number"),
        ([HOST, (b"transfer-encoding", b"gzip, chunked")], "other than chunked"),
        ([HOST, (b"transfer-encoding", b"xchunked")], "other than chunked"),
        ([HOST, (b"transfer-encoding", b"chunked")] * 2, "more than one"),
        ([HOST, (b"origin", b"a"), (b"origin", b"b")], "more than one origin"),
        ([HOST, (b"authorization", b"a"), (b"authorization", b"b")], "more than one authorization"),
        ([HOST, (b"x", b"a\x00b")], "control characters"),
        ([HOST, (b"x", b"a\nb")], "control characters"),
        ([*UPGRADE, (b"sec-websocket-key", b"x")], "more than one sec-websocket-key"),
        ([*UPGRADE, (b"sec-websocket-version", b"13")], "more than one sec-websocket-version"),
        ([*UPGRADE, (b"content-length", b"5")], "has no body"),
        ([*UPGRADE, (b"transfer-encoding", b"chunked")], "has no body"),
        ([*UPGRADE[:3], UPGRADE[4]], "must be 13"),
        ([*UPGRADE[:3], (b"sec-websocket-version", b"8"), UPGRADE[4]], "must be 13"),
        (UPGRADE[:4], "16 bytes"),
        ([*UPGRADE[:4], (b"sec-websocket-key", b"c2hvcnQ=")], "16 bytes"),
        ([*UPGRADE[:4], (b"sec-websocket-key", b"!!!")], "16 bytes"),
    ],
)
def test_ambiguous_requests_are_refused(headers: Headers, says: str) -> None:
    assert says in (refuse(headers, "GET") or "")


def test_methods_and_targets() -> None:
    assert "CONNECT" in (refuse([HOST], "CONNECT") or "")
    assert "TRACE" in (refuse([HOST], "TRACE") or "")
    assert "must be a GET" in (refuse(UPGRADE, "POST") or "")
    assert "request target" in (refuse([HOST], "OPTIONS", b"*") or "")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/_gateway/enter?code=abc_-1&next=/lab", "/_gateway/enter?code=***&next=/lab"),
        ("GET /?a=1&token=x#y", "GET /?a=1&token=***#y"),
        ("Authorization: Bearer abc.def", "Authorization: Bearer ***"),
        ("?TOKEN=x", "?TOKEN=***"),
        ("igw_eyJ1.x-y_z in a line", "igw_*** in a line"),
        ("/lab/tree/decode=1?unicode=2", "/lab/tree/decode=1?unicode=2"),
    ],
)
def test_logs_show_no_secrets(text: str, shown: str) -> None:
    assert redact(text) == shown
