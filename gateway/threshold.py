"""A connection that has not said anything yet.

When the first thing it says is a WebSocket handshake of a kind that the application has decided on (opening.py), it
becomes a session without ever having had an HTTP protocol, its parser and all that belongs to one. Anything else is
for GatewayHttpProtocol (http.py), which is made for it then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

from gateway.bounds import Beyond, Bounds
from gateway.deadlines import Deadlines
from gateway.opening import Opening, Sessions, handshake
from gateway.passing import Ways, asked


class House:
    """What all thresholds of a server share."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        ways: Ways,
        sessions: Sessions,
        bounds: Bounds,
        connections: set[Any],
        door: Callable[[], Any],
    ) -> None:
        """connections: uvicorn's, told when it shuts down. door: makes an HTTP protocol."""
        self.ways, self.sessions, self.bounds = ways, sessions, bounds
        self.connections, self.door = connections, door
        self.silent: Deadlines[Threshold] = Deadlines(loop, bounds.head_timeout, Threshold.give_up)

    def threshold(self) -> Threshold:
        return Threshold(self)

    def close(self) -> None:
        self.silent.close()


class Threshold(asyncio.Protocol):
    __slots__ = ("_address", "_began", "_counted", "_house", "_opening", "connections", "transport")

    transport: asyncio.Transport

    def __init__(self, house: House) -> None:
        self._house, self.connections = house, house.connections
        self._began = house.ways.loop.time()
        self._opening: Opening | None = None
        self._address = ""
        self._counted = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        house = self._house
        self.transport = cast(asyncio.Transport, transport)
        self.connections.add(self)
        try:
            self._address = cast(Any, transport).getpeername()[0]
        except OSError:  # it is gone again
            transport.abort()  # type: ignore[attr-defined]
            return
        try:
            self._counted = True
            refusal = house.bounds.arrived(self._address, len(self.connections))
        except Beyond:
            self.transport.abort()
            return
        if refusal is None:
            house.silent.set(self)
        else:
            self._enter(b"")

    def data_received(self, data: bytes) -> None:
        if self._opening is not None:
            self._opening.more(data)
        elif not self._open(data):
            self._enter(data)

    def _open(self, data: bytes) -> bool:
        found = asked(data)
        if found is None:
            return False
        _, target, lines, body = found
        opens = handshake(data[lines : body - 2], self._address)
        ways = self._house.ways
        way = ways.find(opens[0]) if opens else None
        if opens is None or way is None:
            return False
        self._house.silent.drop(self)
        self._opening = Opening(ways, self._house.sessions, self, way, target, opens[1])
        self._opening.start(data[:body], data[body:])
        return True

    def _enter(self, data: bytes) -> None:
        """It is for HTTP from here on."""
        self.let_go()
        transport, protocol = self.transport, self._house.door()
        protocol.waited = self._house.ways.loop.time() - self._began  # of the time for its head
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        if data and not transport.is_closing():
            protocol.data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        opening = self._opening
        self.let_go()
        if opening is not None:
            opening.client_gone()

    def give_up(self) -> None:
        self.transport.abort()

    # As an Opening needs it

    def let_go(self) -> None:
        self._opening = None
        house = self._house
        house.silent.drop(self)
        self.connections.discard(self)
        if self._counted:
            self._counted = False
            house.bounds.left(self._address)

    def look_again(self, request: bytes) -> None:
        self._opening = None
        if not self.transport.is_closing():
            self.transport.resume_reading()
            self._enter(request)

    # As uvicorn needs it

    def shutdown(self) -> None:
        if self._opening is not None:
            self._opening.close_after()
        else:
            self.transport.close()
