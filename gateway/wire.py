"""The compiled part of the relay (_wire.c), where there is one: connections without the event loop's transports.

It is made when the package is installed, on Linux and with a C compiler. Without it, or with
IDE_GATEWAY_PURE=1 in the environment, sessions run on the event loop's own transports, in Python alone:
slower, and otherwise the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakKeyDictionary

from gateway.frames import ClientScanner, FrameScanner
from gateway.rhythm import APART

__all__ = [
    "IS_COMPILED",
    "Scanner",
    "SideBase",
    "accept",
    "connect",
    "scanner_of_client",
    "wire",
    "wired",
]

_wire: Any = None
if not os.environ.get("IDE_GATEWAY_PURE"):
    with contextlib.suppress(ImportError):
        from gateway import _wire  # type: ignore[attr-defined,no-redef]

IS_COMPILED = _wire is not None


class _SideBase:
    __slots__ = ("divert", "other", "scanner", "session", "transport")


if TYPE_CHECKING or not IS_COMPILED:
    SideBase = _SideBase
    Scanner = FrameScanner

    def scanner_of_client() -> ClientScanner:
        return ClientScanner(time.monotonic, APART)

else:
    SideBase = _wire.Side

    class Scanner(_wire.Scanner):
        __slots__ = ()

        walked = FrameScanner.walked
        walk_on = FrameScanner.walk_on
        feed_frame = FrameScanner.feed_frame

    def scanner_of_client() -> Scanner:
        return Scanner(apart=APART)


def accept(listening: int) -> int | None:
    """Descriptor of a connection that waits there, not blocking. Raises OSError; only where it is compiled."""
    found: int | None = _wire.accept(listening)
    return found


_hubs: WeakKeyDictionary[asyncio.AbstractEventLoop, Any] = WeakKeyDictionary()


def wire(
    loop: asyncio.AbstractEventLoop, fd: int, protocol: Any, *, connecting: bool = False
) -> asyncio.Transport:
    """A transport for a socket that is not blocking, its descriptor now the transport's; nothing is read yet.
    connecting: begin() is to be called."""
    hub = _hubs.get(loop)
    if hub is None:
        hub = _hubs[loop] = _wire.Hub()
    try:
        made = _wire.Wire(loop, hub, fd, protocol, connecting)
    except BaseException:
        os.close(fd)
        raise
    return cast(asyncio.Transport, made)


def connect(
    loop: asyncio.AbstractEventLoop,
    host: str,
    port: int,
    protocol: asyncio.Protocol,
    options: tuple[tuple[int, int, int], ...] = (),
) -> asyncio.Transport | None:
    """Begin to connect; None where a name is to be looked up first, or nothing is compiled. The protocol is told
    how it went, maybe before this returns, and reading has begun then. options: of the socket, (level, option, value). Raises OSError."""
    fd = _wire.connect(host, port, options) if IS_COMPILED else None
    if fd is None:
        return None
    made = wire(loop, fd, protocol, connecting=True)
    cast(Any, made).begin()
    return made


def wired(transport: asyncio.Transport) -> asyncio.Transport:
    """The same connection on a Wire; `transport` itself where that cannot be. Nothing is read before
    resume_reading(), and the protocol is to be set."""
    if (
        not IS_COMPILED
        or isinstance(transport, _wire.Wire)
        or transport.is_closing()
        or transport.get_write_buffer_size()  # an answer to an earlier request
        or transport.get_extra_info("sslcontext")
    ):
        return transport
    transport.pause_reading()
    made = wire(
        asyncio.get_running_loop(), os.dup(transport.get_extra_info("socket").fileno()), None
    )
    transport.set_protocol(asyncio.Protocol())
    transport.abort()  # its own descriptor; the connection goes on with ours
    return made
