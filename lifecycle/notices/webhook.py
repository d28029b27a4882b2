"""Notices by webhook, signed as Standard Webhooks says (standardwebhooks.com): any of its libraries verifies them.

POST
webhook-id: msg_…              the same for every try, so that a receiver can tell what it had before
webhook-timestamp: 1790000000  of this try
webhook-signature: v1,base64(HMAC-SHA256(secret, "{id}.{timestamp}.{body}"))
{"type": "workspace.stopped", "timestamp": "2026-11-24T08:00:00.000Z", "data": {…}}
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import aiohttp

from lifecycle.notices.deliveries import ANSWER_MAX, Answer, Delivery, Outcome, printable

TIMEOUT = 10.0  # seconds for the status
BODY_TIMEOUT = 2.0  # for what else is said: it is only for the log
KINDS: Mapping[str, Callable[[str], int | float | bool]] = {
    "at": int, "freesAt": int, "epoch": int, "percent": int,
    "lead": float, "used": float, "allowed": float, "canStay": bool,
}  # fmt: skip
"""What of a notice's data is no text, and what it is. Times are milliseconds, as in the API."""


class Webhook:
    name = "webhook"
    repeatable = True

    def __init__(
        self,
        url: str,
        secret: str,
        now_s: Callable[[], float] = time.time,
        timeout: float = TIMEOUT,
    ) -> None:
        """secret: whsec_ and base64."""
        self._url, self._key = url, base64.b64decode(secret.removeprefix("whsec_"))
        self._now_s, self._timeout = now_s, timeout
        self._session: aiohttp.ClientSession | None = None

    async def send(self, delivery: Delivery) -> Answer:
        sent = body(delivery)
        timestamp = str(int(self._now_s()))
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "ide-gateway",
            "Accept-Encoding": "identity",
            "webhook-id": delivery.id,
            "webhook-timestamp": timestamp,
            "webhook-signature": signature(self._key, delivery.id, timestamp, sent),
        }
        try:
            async with asyncio.timeout(self._timeout):
                # A redirect is an answer: the operator named this address, and no other is to hear of it.
                response = await self._open().post(
                    self._url, data=sent, headers=headers, allow_redirects=False
                )
        except TimeoutError:
            return Answer(Outcome.FAILED, f"no answer in {self._timeout:g} s")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return Answer(Outcome.FAILED, printable(f"no answer: {error or type(error).__name__}"))
        try:
            said = await _said(response)
        finally:
            response.close()
        wait = response.headers.get("Retry-After", "")
        after = float(wait) if wait.isascii() and wait.isdecimal() and len(wait) < 10 else 0.0
        return Answer(outcome_of(response.status), said, response.status, after)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                # Minutes lie between two notices: a connection that was kept would often be dead.
                connector=aiohttp.TCPConnector(force_close=True),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                timeout=aiohttp.ClientTimeout(None),
            )
        return self._session


def body(delivery: Delivery) -> bytes:
    notice = delivery.notice
    data: dict[str, Any] = {name: _value(name, value) for name, value in notice.data.items()}
    data |= {
        "workspaceId": notice.workspace_id,
        "userId": notice.user_id,
        "name": delivery.name,
        "seq": notice.seq,
        "text": notice.text,
    }
    at = datetime.fromtimestamp(notice.at_ms / 1000, UTC)
    timestamp = f"{at:%Y-%m-%dT%H:%M:%S}.{notice.at_ms % 1000:03d}Z"
    whole = {"type": notice.type, "timestamp": timestamp, "data": data}
    return json.dumps(whole, ensure_ascii=False, separators=(",", ":")).encode()


def signature(key: bytes, delivery_id: str, timestamp: str, sent: bytes) -> str:
    signed = f"{delivery_id}.{timestamp}.".encode() + sent
    return "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()


def outcome_of(status: int) -> Outcome:
    if 200 <= status < 300:
        return Outcome.SENT
    return Outcome.GONE if status == 410 else Outcome.FAILED


async def _said(response: aiohttp.ClientResponse) -> str:
    """The beginning of the answer; the status counts, whether or not the rest comes."""
    raw = bytearray()
    try:
        async with asyncio.timeout(BODY_TIMEOUT):
            while len(raw) < ANSWER_MAX and (part := await response.content.read(ANSWER_MAX)):
                raw += part
    except (TimeoutError, aiohttp.ClientError, OSError):
        pass
    return printable(raw.decode(errors="replace"))


def _value(name: str, text: str) -> str | int | float | bool:
    try:
        return KINDS[name](text) if name in KINDS else text
    except ValueError:
        return text
