"""How connections come in: where the relay is compiled they are Wires from their first byte on (wire.py).

Otherwise, and with TLS, uvicorn's way: the event loop's own server.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import structlog
import uvicorn

from gateway.bounds import bounds_of
from gateway.passing import ways_of
from gateway.threshold import House
from gateway.wire import IS_COMPILED, accept, wire

log = structlog.get_logger(__name__)

AT_ONCE = 64  # accepted in one go, so that those who are connected already have their turn
PAUSE = 1.0  # seconds without accepting when there is no descriptor or memory left


class Acceptor:
    """A listening socket, in the shape of an asyncio server."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        protocol: Callable[[], asyncio.Protocol],
        backlog: int,
    ) -> None:
        self._loop, self._sock, self._protocol = loop, sock, protocol
        self._again: asyncio.TimerHandle | None = None
        self._fd = sock.fileno()
        sock.setblocking(False)
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            # Handed on to what it accepts, as those of bounds.mind_death() are.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.listen(backlog)
        loop.add_reader(self._fd, self._ready)

    @property
    def sockets(self) -> list[socket.socket]:
        return [self._sock]

    def close(self) -> None:
        """What is connected goes on."""
        if self._again is not None:
            self._again.cancel()
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            self._fd = -1

    async def wait_closed(self) -> None:
        pass

    def _ready(self) -> None:
        for _ in range(AT_ONCE):
            try:
                fd = accept(self._fd)
                if fd is None:
                    return
                protocol = self._protocol()
                transport = wire(self._loop, fd, protocol)
            except (OSError, MemoryError) as error:
                # It waits in the kernel's queue meanwhile, and would be told of again at once.
                log.error(
                    "connections.not_accepted", why=str(error), again_in=PAUSE,
                    hint="raise the limit of open files (ulimit -n), or lower --max-connections",
                )  # fmt: skip
                self._loop.remove_reader(self._fd)
                self._again = self._loop.call_later(PAUSE, self._go_on)
                return
            protocol.connection_made(transport)
            if not transport.is_closing():
                transport.resume_reading()

    def _go_on(self) -> None:
        self._again = None
        self._loop.add_reader(self._fd, self._ready)


class Server(uvicorn.Server):
    """uvicorn's, with such acceptors for the sockets it is given."""

    _house: House | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        if not sockets or not IS_COMPILED or self.config.ssl:
            await super().startup(sockets)
            return
        await super().startup([])
        loop, config = asyncio.get_running_loop(), self.config
        make: Callable[[], Any] = partial(
            cast(Any, config.http_protocol_class),
            config=config, server_state=self.server_state, app_state=self.lifespan.state, _loop=loop,
        )  # fmt: skip
        app = config.loaded_app
        ways, bounds = ways_of(app), bounds_of(app)
        if ways is not None and bounds is not None:
            connections = self.server_state.connections
            self._house = House(loop, ways, app.sessions, bounds, connections, make)
            make = self._house.threshold
        acceptors: list[Any] = [Acceptor(loop, sock, make, config.backlog) for sock in sockets]
        self.servers = acceptors

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        if self._house is not None:
            self._house.close()
