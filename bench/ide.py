"""The tiny IDE of the benchmarks: raw asyncio on uvloop, so that it costs little beside the gateway.

A workspace command: ide.py PORT. GET /N answers N bytes, GET / the port; a WebSocket on any path echoes.
"""

from __future__ import annotations

import asyncio
import re
import sys

import uvloop
from websockets.speedups import apply_mask
from websockets.utils import accept_key

_KEY = re.compile(rb"\r\nsec-websocket-key: *(\S+)", re.I)
_CLOSE = 0x88


class Ide(asyncio.Protocol):
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport, self.buffer, self.upgraded = transport, bytearray(), False

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while not self.upgraded and (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            self.transport.write(self.answer(bytes(self.buffer[: end + 2])))
            del self.buffer[: end + 4]
        while self.upgraded and len(self.buffer) > 1 and self.echo():
            pass

    def answer(self, head: bytes) -> bytes:
        if key := _KEY.search(head):
            self.upgraded = True
            lines = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade"
            accept = accept_key(key[1].decode())
            return f"{lines}\r\nSec-WebSocket-Accept: {accept}\r\n\r\n".encode()
        size = head.split(b" ", 2)[1].lstrip(b"/")
        body = b"x" * int(size) if size.isdigit() else sys.argv[1].encode()
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)

    def echo(self) -> bool:
        """One frame, if a whole one is there."""
        buffer, size, at = self.buffer, self.buffer[1] & 0x7F, 2
        if size > 125:
            at = 4 if size == 126 else 10
            size = int.from_bytes(buffer[2:at], "big")
        end = at + 4 + size
        if len(buffer) < end:
            return False
        payload = apply_mask(bytes(buffer[at + 4 : end]), bytes(buffer[at : at + 4]))
        self.transport.write(bytes((buffer[0], buffer[1] & 0x7F)) + buffer[2:at] + payload)
        if buffer[0] == _CLOSE:
            self.transport.close()
        del buffer[:end]
        return True


async def main(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Ide, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
