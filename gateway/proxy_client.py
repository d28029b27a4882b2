"""The client's side of a proxied request: its body, its patience, its departure.

uvicorn's `send` does not raise when the client is gone; only `receive` tells. So one object reads
`receive` all the time, first for the body, then for the disconnect.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass
from typing import Any, Literal

from starlette.types import Message, Receive, Scope, Send

Ended = Literal["complete", "client_gone", "client_stalled", "upstream_lost"]

ABORT = "ide_gateway.abort"
"""ASGI extension: a callable that drops the client's connection together with what is buffered for
it. Without it the server closes, which waits until the client has taken what is buffered."""


class ClientStalled(Exception):
    """The client takes nothing, or does not send what it announced."""


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds. stall: with data due from the client, or waiting for a side that takes none.
    answer: from the end of the request to the head of its answer. Once that has come the workspace
    may be silent for as long as it likes: events may be hours apart."""

    connect: float = 10.0
    answer: float = 600.0
    stall: float = 60.0


@dataclass(slots=True)
class Outcome:
    """How a request went. status: 0 when nothing was answered. Bytes are those of the bodies."""

    status: int = 0
    bytes_up: int = 0
    bytes_down: int = 0
    ended: Ended = "complete"


class Client:
    """One request. `attend` runs its exchange, which takes `body` and gives to `send`."""

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, outcome: Outcome, patience: Patience
    ) -> None:
        self.in_chunks = any(name == b"transfer-encoding" for name, _ in scope["headers"])
        self.has_body = self.in_chunks or any(
            name == b"content-length" and value.strip(b"0") for name, value in scope["headers"]
        )
        self._scope = scope
        self._receive = receive
        self._send = send
        self._outcome = outcome
        self._patience = patience
        self._now = asyncio.get_running_loop().time
        self._uploaded = asyncio.Event()
        if not self.has_body:
            self._uploaded.set()
        self._wait_for("answer")

    async def attend(self, exchange: Coroutine[Any, Any, None]) -> Ended:
        """Run the exchange to its end, to the client's departure or to the end of our patience.

        Raises what the exchange raises, ClientStalled, and TimeoutError for the workspace.
        """
        work = asyncio.create_task(exchange)
        gone = asyncio.create_task(self._until_gone())
        tick = min(self._patience.stall, self._patience.answer) / 4
        try:
            while not work.done() and not gone.done():
                await asyncio.wait({work, gone}, timeout=tick, return_when=asyncio.FIRST_COMPLETED)
                self._check_patience()
            if work.done():
                await work
                return "complete"
            return "client_gone"
        finally:
            gone.cancel()
            work.cancel()
            await asyncio.gather(gone, work, return_exceptions=True)

    async def body(self) -> AsyncIterator[bytes]:
        """The request's body. When the client leaves it waits for ever: `attend` ends the exchange."""
        more = True
        while more:
            self._wait_for("client")
            message = await self._receive()
            if message["type"] == "http.disconnect":
                self._uploaded.set()
                await asyncio.Future()
            self._wait_for("room")
            more = message.get("more_body", False)
            if chunk := message.get("body", b""):
                self._outcome.bytes_up += len(chunk)
                yield chunk
        self._wait_for("answer")
        self._uploaded.set()

    async def send(self, message: Message) -> None:
        """Raises ClientStalled when the client takes nothing for too long."""
        self._outcome.status = message.get("status", self._outcome.status)
        try:
            async with asyncio.timeout(self._patience.stall):
                await self._send(message)
        except TimeoutError:
            raise ClientStalled from None
        self._outcome.bytes_down += len(message.get("body", b""))

    async def cut_off(self) -> None:
        """End this so that the client sees that something is missing: 408, or a cut connection."""
        if not self._outcome.status:
            self._outcome.status = 408
            headers = [(b"content-length", b"0"), (b"connection", b"close")]
            await self._send({"type": "http.response.start", "status": 408, "headers": headers})
            await self._send({"type": "http.response.body"})
        elif abort := self._scope.get("extensions", {}).get(ABORT):
            abort()
            await asyncio.sleep(0)  # the server notices, and does not log a forgotten answer

    async def _until_gone(self) -> None:
        await self._uploaded.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass

    def _wait_for(self, what: Literal["client", "room", "answer"]) -> None:
        self._waiting_for = what
        self._waiting_since = self._now()

    def _check_patience(self) -> None:
        """Only until the answer begins: from then on `send` watches over the client."""
        if self._outcome.status:
            return
        limit = self._patience.answer if self._waiting_for == "answer" else self._patience.stall
        if self._now() - self._waiting_since <= limit:
            return
        if self._waiting_for == "client":
            raise ClientStalled
        raise TimeoutError(f"no answer after {limit:g} s")
