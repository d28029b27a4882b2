"""How many connections a process holds, and which of them it turns away; and when a silent peer is dead.

Sessions are bounded where they are counted (heartbeats.py). This is about connections before they are
anybody's: all of them together, and those of one address that are no sessions.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import structlog

log = structlog.get_logger(__name__)

RESERVE = 256
"""Connections above the bound that are still read: to be told why they are refused, and for a load
balancer's probes. Beyond them a connection is closed as it comes."""

PROBES = (b"/healthz", b"/readyz")
SAY_EVERY = 10.0  # seconds between two words to the log about connections that were refused


@dataclass(frozen=True, slots=True)
class Refusal:
    """What a connection that is one too many is answered."""

    status: str
    code: str
    message: str


FULL = Refusal(
    "503 Service Unavailable", "overloaded", "this gateway has as many connections as it may; try again later"
)  # fmt: skip
TOO_MANY = Refusal(
    "429 Too Many Requests", "too_many_connections", "too many connections from your address; close some"
)  # fmt: skip


class Bounds:
    def __init__(
        self,
        connections: int,
        per_address: int,
        head_timeout: float = 10.0,
        refused: Callable[[str], None] = lambda code: None,
        is_near: Callable[[str], bool] | None = None,
    ) -> None:
        """connections, per_address: at most so many; 0 is no bound. head_timeout: seconds for a request's
        head. refused: told of each that is turned away. is_near: whether an address is not bounded by itself."""
        self.head_timeout = head_timeout
        self._most, self._per_address, self._refused = connections, per_address, refused
        self._is_near = is_near or is_near_address
        self._from: dict[str, int] = {}
        self._said_at = float("-inf")
        self._unsaid = 0

    def arrived(self, address: str, total: int) -> Refusal | None:
        """One more from there. total: of the process, this one included. Raises Beyond where it is not even
        read. Call left() for each that came, whatever became of it."""
        count = self._from.get(address, 0) + 1
        self._from[address] = count
        if self._most and total > self._most:
            self._tell(FULL, address, total)
            if total > self._most + RESERVE:
                raise Beyond
            return FULL
        if self._per_address and count > self._per_address and not self._is_near(address):
            self._tell(TOO_MANY, address, count)
            if count > self._per_address + RESERVE:
                raise Beyond
            return TOO_MANY
        return None

    def left(self, address: str) -> None:
        """One of them is over, or has become a session."""
        count = self._from.get(address, 0) - 1
        if count > 0:
            self._from[address] = count
        else:
            self._from.pop(address, None)

    @property
    def open(self) -> int:
        """Connections that are no sessions."""
        return sum(self._from.values())

    def _tell(self, refusal: Refusal, address: str, count: int) -> None:
        self._refused(refusal.code)
        self._unsaid += 1
        now = time.monotonic()
        if now - self._said_at >= SAY_EVERY:
            log.warning(
                "connections.refused", why=refusal.code, number=self._unsaid, newest_from=address, open=count,
                hint="raise --max-connections or --max-connections-per-address, or add a gateway",
            )  # fmt: skip
            self._said_at, self._unsaid = now, 0


class Beyond(Exception):
    """Not even to be read."""


def bounds_of(application: Any) -> Bounds | None:
    """The bounds that an ASGI application sets, if it does."""
    found = getattr(application, "bounds", None)
    return found if isinstance(found, Bounds) else None


@lru_cache(4096)
def is_near_address(address: str) -> bool:
    """A load balancer, a proxy, a campus behind one: many people's connections may come from there."""
    try:
        return not ipaddress.ip_address(address).is_global
    except ValueError:
        return True


@lru_cache(16)
def death_options(timeout: float) -> tuple[tuple[int, int, int], ...]:
    """Options of a socket, (level, option, value), that let the kernel end a connection once its peer has answered
    nothing for so many seconds: probed when idle, and with bytes on their way that nobody takes in. 0: none."""
    if not timeout:
        return ()
    idle, probes = max(1, int(timeout / 2)), 3
    options = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
    for name, value in (
        ("TCP_KEEPIDLE", idle),
        ("TCP_KEEPINTVL", max(1, idle // probes)),
        ("TCP_KEEPCNT", probes),
        ("TCP_USER_TIMEOUT", int(timeout * 1000)),
    ):
        if hasattr(socket, name):
            options.append((socket.IPPROTO_TCP, getattr(socket, name), value))
    return tuple(options)


def mind_death(sock: socket.socket, timeout: float) -> None:
    """Set them. A listening socket hands them on to what it accepts."""
    for option in death_options(timeout):
        sock.setsockopt(*option)


def mind_peer(transport: asyncio.BaseTransport, timeout: float) -> None:
    """As mind_death(), of a connection that was just made."""
    sock = socket.socket(fileno=transport.get_extra_info("socket").fileno())
    try:
        mind_death(sock, timeout)
    finally:
        sock.detach()
