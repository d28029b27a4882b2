"""The two connections of a session, as asyncio protocols: the relay's hot path."""

from __future__ import annotations

import asyncio
import fcntl
import sys
import termios
from collections.abc import Callable
from typing import TYPE_CHECKING

from gateway.wire import Scanner, SideBase

if TYPE_CHECKING:
    from gateway.tunnel import Session


class Side(SideBase, asyncio.Protocol):
    """One of a session's two connections: what comes in here goes out on the `other` transport.

    A Wire does what data_received() says without calling it, while `divert` is None.
    """

    __slots__ = ()

    session: Session
    scanner: Scanner
    transport: asyncio.Transport
    other: asyncio.Transport
    divert: Callable[[bytes], None] | None

    def __init__(
        self,
        session: Session,
        scanner: Scanner,
        transport: asyncio.Transport,
        other: asyncio.Transport,
    ) -> None:
        self.session = session
        self.scanner = scanner
        self.transport = transport
        self.other = other
        self.divert = None
        """Takes what comes in while it is not to be copied as it is."""

    def data_received(self, data: bytes) -> None:
        if self.divert is not None:
            self.divert(data)
            return
        close_code = self.scanner.feed(data)
        self.other.write(data)
        if close_code:
            self.session.close_passed(self.scanner)

    # Called when more than HIGH_WATER waits to be written here, and when it is down to a quarter.

    def pause_writing(self) -> None:
        self.other.pause_reading()
        self.session.full()

    def resume_writing(self) -> None:
        self.other.resume_reading()


class ClientSide(Side):
    __slots__ = ()

    def connection_lost(self, exc: Exception | None) -> None:
        self.session.client_lost()


class UpstreamSide(Side):
    __slots__ = ()

    def connection_lost(self, exc: Exception | None) -> None:
        self.session.upstream_lost(exc is not None)


def waiting(transport: asyncio.Transport) -> int:
    """Bytes that its peer has not taken yet: the kernel holds some, megabytes where it could."""
    size = transport.get_write_buffer_size()
    sock = transport.get_extra_info("socket")
    if sock is not None and not transport.is_closing():
        held = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4))
        size += int.from_bytes(held, sys.byteorder)
    return size
