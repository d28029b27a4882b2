"""A webhook's receiver on a port of its own, and the signature's check, written from the specification alone."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

SECRET = "whsec_" + base64.b64encode(b"0123456789abcdef0123456789abcdef").decode()


@dataclass
class Receiver:
    """answers: statuses to give, in order; then 204. hangs: never answers."""

    url: str = ""
    answers: list[int] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    text: str = ""
    hangs: bool = False
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    @property
    def ids(self) -> list[str]:
        return [headers["webhook-id"] for headers, _ in self.got]

    @property
    def bodies(self) -> list[dict[str, Any]]:
        return [json.loads(raw) for _, raw in self.got]

    async def hear(self, request: web.Request) -> web.Response:
        raw = await request.read()
        self.got.append(({name.lower(): value for name, value in request.headers.items()}, raw))
        if self.hangs:
            await asyncio.Event().wait()
        status = self.answers.pop(0) if self.answers else 204
        text = None if status == 204 else self.text
        return web.Response(status=status, text=text, headers=self.headers)


@contextlib.asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", receiver.hear)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    receiver.url = f"http://{host}:{port}/hook?from=gateway"
    try:
        yield receiver
    finally:
        await runner.cleanup()


def verified(headers: dict[str, str], raw: bytes, secret: str, now: float) -> bool:
    """standardwebhooks.com: content "{id}.{timestamp}.{body}", key of whsec_'s base64, within five minutes."""
    at = int(headers["webhook-timestamp"])
    if abs(now - at) > 300:
        return False
    mac = hmac.new(base64.b64decode(secret[6:]), digestmod=hashlib.sha256)
    mac.update(headers["webhook-id"].encode() + b".")
    mac.update(headers["webhook-timestamp"].encode() + b".")
    mac.update(raw)
    wanted = base64.b64encode(mac.digest()).decode()
    given = [part.split(",", 1) for part in headers["webhook-signature"].split(" ")]
    return any(version == "v1" and hmac.compare_digest(value, wanted) for version, value in given)
