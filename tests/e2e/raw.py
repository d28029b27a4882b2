"""HTTP as it is on the wire: no client library that tidies up what a test means to say badly."""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass
from typing import Any

KEY = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
UPGRADE = ("Upgrade: websocket", "Connection: Upgrade")
VERSION = "Sec-WebSocket-Version: 13"


@dataclass(frozen=True)
class Answer:
    """One response and what came after it. rest: behind its body, or behind the head of a 101."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    rest: bytes

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key == name), None)

    @property
    def error(self) -> dict[str, Any]:
        return dict(json.loads(self.body)["error"])

    @property
    def close(self) -> tuple[int, str]:
        """Code and reason of the close frame right behind a 101."""
        assert self.status == 101, (self.status, self.body)
        assert self.rest[0] == 0x88, self.rest
        frame = self.rest[2 : 2 + self.rest[1]]
        return int.from_bytes(frame[:2], "big"), frame[2:].decode()


def send(port: int, data: bytes, timeout: float = 5.0) -> Answer:
    """Everything that comes back until the server closes, or until a whole 101 with a frame."""
    received = b""
    with socket.create_connection(("127.0.0.1", port), timeout) as connection:
        connection.sendall(data)
        while not _is_enough(received):
            chunk = connection.recv(65536)
            if not chunk:
                break
            received += chunk
    return _parsed(received)


def request(
    port: int, method: str, target: str, *headers: str, body: bytes = b"", length: bool = True
) -> Answer:
    """One request, on a connection of its own. headers: lines, sent as they are."""
    lines = [f"{method} {target} HTTP/1.1", *headers, "Connection: close"]
    if body and length:
        lines.append(f"Content-Length: {len(body)}")
    return send(port, "\r\n".join([*lines, "", ""]).encode("latin-1") + body)


def handshake(port: int, target: str, *headers: str) -> Answer:
    """A WebSocket handshake. After a 101 the first frame, if the server sends one by itself."""
    lines = [f"GET {target} HTTP/1.1", *UPGRADE, KEY, VERSION, *headers]
    return send(port, "\r\n".join([*lines, "", ""]).encode("latin-1"))


def opens(port: int, target: str, *headers: str) -> bool:
    """Whether a handshake is answered with 101 and an echo comes back through the tunnel."""
    try:
        return exchange(port, target, b"hello", *headers) == "hello"
    except ConnectionRefusedError:
        return False


def exchange(port: int, target: str, text: bytes, *headers: str) -> str:
    """The text frame that answers this one. Raises ConnectionRefusedError for any answer but 101."""
    assert len(text) < 126
    lines = [f"GET {target} HTTP/1.1", *UPGRADE, KEY, VERSION, *headers, "", ""]
    with socket.create_connection(("127.0.0.1", port), 5) as connection:
        stream = connection.makefile("rwb")
        stream.write("\r\n".join(lines).encode("latin-1"))
        stream.flush()
        first = stream.readline()
        if b" 101 " not in first:
            raise ConnectionRefusedError(first)
        while stream.readline().strip():
            continue
        # Masked with zeros: a mask all the same.
        stream.write(bytes([0x81, 0x80 | len(text), 0, 0, 0, 0]) + text)
        stream.flush()
        kind, length = stream.read(2)
        assert kind == 0x81, kind
        if length == 126:
            length = int.from_bytes(stream.read(2), "big")
        return stream.read(length).decode()


def _is_enough(received: bytes) -> bool:
    head, found, rest = received.partition(b"\r\n\r\n")
    switched = b" 101 " in head.split(b"\r\n")[0]
    return bool(found and switched and len(rest) >= 2 and len(rest) >= 2 + rest[1])


def _parsed(received: bytes) -> Answer:
    head, found, rest = received.partition(b"\r\n\r\n")
    assert found, f"no whole answer: {received!r}"
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = [
        (name.lower(), value.strip()) for name, _, value in (x.partition(":") for x in lines)
    ]
    length = next((int(value) for name, value in headers if name == "content-length"), 0)
    status = int(first.split(" ")[1])
    if status == 101:
        return Answer(status, headers, b"", rest)
    if ("transfer-encoding", "chunked") in headers:
        return Answer(status, headers, rest, b"")
    return Answer(status, headers, rest[:length], rest[length:])
