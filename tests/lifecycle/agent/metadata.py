"""A metadata service like that of an EC2 instance, version 2 only, on a port of this host."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread


@dataclass
class Metadata:
    """rows: what stands below /latest."""

    url: str = ""
    rows: dict[str, str] = field(default_factory=dict)
    tokens: set[str] = field(default_factory=set)
    unsigned: int = 0
    """Reads without a token: what version 1 would have answered."""


@contextmanager
def metadata_service() -> Iterator[Metadata]:
    served = Metadata()

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            ttl = self.headers.get("X-aws-ec2-metadata-token-ttl-seconds", "")
            if self.path != "/latest/api/token" or not 0 < int(ttl or 0) <= 21_600:
                return self.say(400, "")
            served.tokens.add(token := secrets.token_hex(8))
            return self.say(200, token)

        def do_GET(self) -> None:
            if self.headers.get("X-aws-ec2-metadata-token") not in served.tokens:
                served.unsigned += 1
                return self.say(401, "")
            text = served.rows.get(self.path.removeprefix("/latest"))
            return self.say(200 if text is not None else 404, text or "")

        def say(self, status: int, text: str) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    served.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield served
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
