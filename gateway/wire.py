"""The compiled part of the relay (_wire.c), where there is one: connections without the event loop's transports.

It is made when the package is installed, on Linux and with a C compiler. Without it, or with
IDE_GATEWAY_PURE=1 in the environment, sessions run on the event loop's own transports, in Python alone:
slower, and otherwise the same.
"""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakKeyDictionary

from gateway.frames import ClientScanner, FrameScanner, Walking
from gateway.rhythm import APART

_wire: Any = None
if not os.environ.get("IDE_GATEWAY_PURE"):
    try:
        from gateway import _wire  # type: ignore[attr-defined,no-redef]
    except ImportError:
        pass

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

    class Scanner(_wire.Scanner, Walking):
        __slots__ = ()

    def scanner_of_client() -> Scanner:
        return Scanner(apart=APART)


_hubs: WeakKeyDictionary[asyncio.AbstractEventLoop, Any] = WeakKeyDictionary()


def wire(fd: int, protocol: Any, *, connecting: bool = False) -> asyncio.Transport:
    """A transport for a socket that is not blocking, its descriptor now the transport's; nothing is read yet.
    connecting: it tells the protocol when it is connected."""
    loop = asyncio.get_running_loop()
    hub = _hubs.get(loop)
    if hub is None:
        hub = _hubs[loop] = _wire.Hub()
    made = _wire.Wire(loop, hub, fd, protocol, connecting)
    return cast(asyncio.Transport, made)


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
    fd = os.dup(transport.get_extra_info("socket").fileno())
    try:
        made = wire(fd, None)
    except BaseException:
        os.close(fd)
        raise
    transport.set_protocol(asyncio.Protocol())
    transport.abort()  # its own descriptor; the connection goes on with ours
    return made
