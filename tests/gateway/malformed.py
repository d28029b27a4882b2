"""Handshakes and frames that are wrong in some way, made from a seed, and what is right to answer them.

After RFC 6455 (sections 4.2.1, 5 and 7.4), RFC 9110 and RFC 9112, not after what the gateway happens to do.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

REFUSED = frozenset({400, 403, 404, 405, 421, 426, 431, 501, 505})
"""Statuses that refuse: what is no handshake is at best a request, which the IDE refuses (426)."""


@dataclass(frozen=True)
class Handshake:
    """right: statuses. cut: the client leaves in the middle, and nothing has to be said."""

    family: str
    sent: bytes
    right: frozenset[int] = REFUSED
    cut: bool = False


Lines = list[bytes]


def key(random: Random) -> bytes:
    return b64encode(random.randbytes(16))


def right(random: Random, known: Lines) -> Lines:
    """A handshake that is right, line by line. known: Host, Cookie, Origin."""
    return [
        b"GET /ws?n=%d HTTP/1.1" % random.randrange(10**6), *known,
        b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Version: 13",
        b"Sec-WebSocket-Key: " + key(random),
    ]  # fmt: skip


def joined(lines: Lines) -> bytes:
    return b"\r\n".join([*lines, b"", b""])


def _named(lines: Lines, name: bytes) -> int:
    return next(n for n, line in enumerate(lines) if line.lower().startswith(name.lower() + b":"))


def _replaced(lines: Lines, name: bytes, *by: bytes) -> Lines:
    at = _named(lines, name)
    return [*lines[:at], *by, *lines[at + 1 :]]


def _text(random: Random, alphabet: bytes, least: int = 1, most: int = 12) -> bytes:
    return bytes(random.choices(alphabet, k=random.randint(least, most)))


LETTERS = bytes(range(0x61, 0x7B))
CONTROL = bytes([*range(1, 9), 11, 12, *range(14, 32), 127])


def method(random: Random, lines: Lines) -> bytes:
    verb = random.choice(
        [
            b"POST",
            b"HEAD",
            b"PUT",
            b"DELETE",
            b"OPTIONS",
            b"PATCH",
            b"get",
            b"FOO",
            b"CONNECT",
            b"TRACE",
        ]
    )
    return joined([lines[0].replace(b"GET", verb, 1), *lines[1:]])


def version(random: Random, lines: Lines) -> bytes:
    value = random.choice(
        [
            b"8",
            b"0",
            b"12",
            b"14",
            b"013",
            b"13.0",
            b"",
            b"x",
            b"13, 8",
            b"-13",
            b"%d" % random.randrange(14, 999),
        ]
    )
    by = random.choice(
        [[b"Sec-WebSocket-Version: " + value], [], [b"Sec-WebSocket-Version: 13"] * 2]
    )
    return joined(_replaced(lines, b"Sec-WebSocket-Version", *by))


def wrong_key(random: Random, lines: Lines) -> bytes:
    name = b"Sec-WebSocket-Key: "
    size = random.choice([0, 1, 8, 15, 17, 24, 32])
    values = [
        b64encode(random.randbytes(size)), key(random)[:-1], key(random)[:-2], key(random) + b"A", b"",
        _text(random, b"*!#%&", 24, 24), key(random)[:10] + b" " + key(random)[11:],
        key(random)[:22] + b"xx", random.randbytes(24).replace(b"\r", b"r").replace(b"\n", b"n"),
    ]  # fmt: skip
    by = random.choice(
        [[name + random.choice(values)], [], [name + key(random), name + key(random)]]
    )
    return joined(_replaced(lines, b"Sec-WebSocket-Key", *by))


def upgrade(random: Random, lines: Lines) -> bytes:
    by = random.choice([
        [], [b"Upgrade: h2c"], [b"Upgrade: websocket2"], [b"Upgrade: web socket"], [b"Upgrade:"],
        [b"Upgrade: " + _text(random, LETTERS)], [b"Upgrade: websocket", b"Upgrade: h2c"], [b"X-Upgrade: websocket"],
    ])  # fmt: skip
    return joined(_replaced(lines, b"Upgrade", *by))


def connection(random: Random, lines: Lines) -> bytes:
    by = random.choice([
        [], [b"Connection: close"], [b"Connection: keep-alive"], [b"Connection: upgraded"], [b"Connection:"],
        [b"Connection: " + _text(random, LETTERS)], [b"X-Connection: Upgrade"],
    ])  # fmt: skip
    return joined(_replaced(lines, b"Connection", *by))


def host(random: Random, lines: Lines) -> bytes:
    by = random.choice([
        [], [b"Host:"], [b"Host: " + _text(random, LETTERS)], [b"Host: w1.localhost:8000"] * 2, [b"Host: w1.localhost@x"],
        [b"Host: w1.localhost:99999x"], [b"Host: w1.localhost, w2.localhost"], [b"Host: w1.localhost/.."],
        [b"Host: \xff\xfe"], [b"Host: w2.localhost:8000"],
    ])  # fmt: skip
    return joined(_replaced(lines, b"Host", *by))


def origin(random: Random, lines: Lines) -> bytes:
    by = random.choice([
        b"null", b"http://w2.localhost:8000", b"http://localhost:8000", b"https://w1.localhost:8000", b"http://w1.localhost",
        b"http://w1.localhost:8001", b"http://w1.localhost:8000.evil.example", b"http://" + _text(random, LETTERS), b"",
        b"http://evil.example/http://w1.localhost:8000", b"http://w1.localhost:8000@evil.example",
    ])  # fmt: skip
    return joined(_replaced(lines, b"Origin", b"Origin: " + by))


def header(random: Random, lines: Lines) -> bytes:
    control = bytes([random.choice(CONTROL)])
    bad = random.choice([
        b": value", b"no colon " + _text(random, LETTERS), b"X Y: z", b"X\x00: y", b"X: a" + control + b"b", b"X: a\0b",
        b" folded: line", b"\tfolded", b"X@: y", b"X\xe9: y", b"X: a\nY: b", b"X: a\rY: b", b"(x): y", control + b"X: y",
    ])  # fmt: skip
    at = random.randint(2, len(lines))
    return joined([*lines[:at], bad, *lines[at:]])


def line_end(random: Random, lines: Lines) -> bytes:
    whole = joined(lines)
    ends = [n for n in range(len(whole)) if whole[n : n + 2] == b"\r\n"]
    at = random.choice(ends[:-1])
    return whole[:at] + random.choice([b"\n", b"\r", b"\r\r\n", b"\n\r"]) + whole[at + 2 :]


def target(random: Random, lines: Lines) -> bytes:
    first = random.choice([
        b"GET http://w1.localhost:8000/ws HTTP/1.1", b"GET w1.localhost:80 HTTP/1.1", b"GET * HTTP/1.1", b"GET /ws",
        b"GET /w s HTTP/1.1", b"GET /ws\x00 HTTP/1.1", b"GET /ws\x7f HTTP/1.1", b"GET /ws HTTP/0.9", b"GET /ws HTTP/2.0",
        b"GET /ws HTTP/1.1 x", b"GET ws HTTP/1.1", b"GET /ws HTTP/11", b"GET /ws HTTQ/1.1", b"GET /ws HTTP/1.x",
        b"GET\t/ws HTTP/1.1", b"GET /" + _text(random, CONTROL) + b" HTTP/1.1", b"/ws HTTP/1.1", b"GET",
    ])  # fmt: skip
    return joined([first, *lines[1:]])


def old(random: Random, lines: Lines) -> bytes:
    del random
    return joined([lines[0].replace(b"HTTP/1.1", b"HTTP/1.0"), *lines[1:]])


def framed(random: Random, lines: Lines) -> bytes:
    more = random.choice([
        [b"Content-Length: %d" % random.randrange(1, 99)], [b"Transfer-Encoding: chunked"], [b"Content-Length: x"],
        [b"Content-Length: -1"], [b"Content-Length: 0", b"Content-Length: 0"], [b"Transfer-Encoding: x"],
        [b"Content-Length: 5", b"Transfer-Encoding: chunked"],
    ])  # fmt: skip
    return joined([*lines, *more]) + b"0\r\n\r\n"


def too_much(random: Random, lines: Lines) -> bytes:
    more = random.choice([
        [b"X-%d: y" % n for n in range(random.randint(200, 400))], [b"X: " + b"y" * random.randint(70_000, 90_000)],
        [b"Y" * 70_000 + b": x"],
    ])  # fmt: skip
    return joined([*lines, *more])


def noise(random: Random, lines: Lines) -> bytes:
    del lines
    return random.choice([
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" + random.randbytes(200), b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9),
        b"\x00" + random.randbytes(random.randint(1, 300)), b"SSH-2.0-OpenSSH_9.2\r\n", b"\x81\x85\0\0\0\0hello",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n", b"EHLO example\r\n\r\n", b"\xff" * 50, b"{}\r\n\r\n",
    ])  # fmt: skip


FAMILIES: list[Callable[[Random, Lines], bytes]] = [
    method, version, wrong_key, upgrade, connection, host, origin, header, line_end, target, old, framed, too_much, noise,
]  # fmt: skip


def handshakes(seed: int, count: int, known: Lines) -> list[Handshake]:
    random = Random(seed)
    found = []
    for n in range(count):
        lines = right(random, known)
        if n % 8 == 0:
            whole = joined(lines)
            found.append(Handshake("cut", whole[: random.randrange(1, len(whole))], cut=True))
        else:
            family = FAMILIES[n % len(FAMILIES)]
            sent = family(random, lines)
            # Where the head has no end, its end is waited for.
            found.append(Handshake(family.__name__, sent, cut=b"\r\n\r\n" not in sent))
    return found


# Frames

CLOSE = b"\x88\x82\x00\x00\x00\x00\x03\xe8"
"""What a client says at last: 1000, masked."""


def frame(
    first: int, payload: bytes, random: Random, *, masked: bool = True, spelled: int = 0
) -> bytes:
    """first: its first byte. spelled: bytes of its length field, 0 for the shortest (1, 3 or 9)."""
    size = len(payload)
    spelled = spelled or (1 if size < 126 else 3 if size < 65536 else 9)
    mark = 0x80 if masked else 0
    length = {
        1: lambda: bytes([mark | size]),
        3: lambda: bytes([mark | 126]) + size.to_bytes(2, "big"),
        9: lambda: bytes([mark | 127]) + size.to_bytes(8, "big"),
    }[spelled]()
    if not masked:
        return bytes([first]) + length + payload
    mask = random.randbytes(4)
    hidden = bytes(byte ^ mask[n % 4] for n, byte in enumerate(payload))
    return bytes([first]) + length + mask + hidden


def wrong(random: Random) -> bytes:
    """Frames of a client, at least one of them against the protocol or what the other side takes."""
    some = random.randbytes(random.choice([0, 1, 5, 125, 126, 300]))
    text = bytes(random.choices(LETTERS, k=20))
    fine = [frame(0x81, text, random) for _ in range(random.randrange(3))]
    return b"".join(fine) + random.choice([
        lambda: frame(0x80 | random.choice([3, 4, 5, 6, 7, 11, 12, 13, 14, 15]), some[:100], random),
        lambda: frame(0x81 | random.choice([0x10, 0x20, 0x40, 0x70]), text, random),
        lambda: frame(0x82, some, random, masked=False),
        lambda: frame(0x09, text, random),
        lambda: frame(random.choice([0x88, 0x89, 0x8A]), bytes(random.choice([126, 200])), random),
        lambda: frame(0x88, b"\x03", random),
        lambda: frame(0x88, random.choice([0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535]).to_bytes(2, "big"), random),
        lambda: frame(0x88, b"\x03\xe8\xff\xfe", random),
        lambda: frame(0x81, b"\xff\xfe" + some, random),
        lambda: frame(0x81, b"\xed\xa0\x80", random),
        lambda: frame(0x80, text, random),
        lambda: frame(0x01, text, random) + frame(0x81, text, random),
        lambda: frame(0x01, text, random) + frame(0x09, b"", random),
        lambda: b"\x82\xff" + (2**63 + random.randrange(2**62)).to_bytes(8, "big") + random.randbytes(14),
        lambda: b"\x82\xff" + (2**40).to_bytes(8, "big") + random.randbytes(14),
        lambda: frame(0x82, bytes(70_000), random),
    ])()  # fmt: skip


def odd(random: Random) -> bytes:
    """Frames as they may come from either end, masked or not, whole ones: nothing a relay has to mind."""
    first = random.choice(
        [0x00, 0x01, 0x02, 0x80, 0x81, 0x82, 0x83, 0x8B, 0x8F, 0x89, 0x8A, 0xF1, 0xC2, 0x09]
    )
    payload = random.randbytes(random.choice([0, 1, 5, 125, 126, 127, 400, 65535, 65536]))
    spelled = [n for n in (1, 3, 9) if len(payload) < {1: 126, 3: 65536, 9: 2**63}[n]]
    return frame(
        first, payload, random, masked=random.random() < 0.5, spelled=random.choice(spelled)
    )


def closes(data: bytes) -> bool:
    """Whether there is a whole Close frame in what came."""
    at = 0
    while at + 2 <= len(data):
        size, start = data[at + 1] & 0x7F, at + 2
        if size > 125:
            wide = 2 if size == 126 else 8
            size, start = int.from_bytes(data[start : start + wide], "big"), start + wide
        end = start + size + (4 if data[at + 1] & 0x80 else 0)
        if data[at] & 0x0F == 8:
            return end <= len(data)
        at = end
    return False
