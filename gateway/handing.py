"""What a relay knows of a session, as one small record, and a session made from it again, here or elsewhere.

    record, client, workspace = await take(session)      # both sockets, duplicated: they travel as descriptors
    session = await resume(record, client, workspace, connections, on_end)

In between nobody reads or writes: what either end sends waits in the kernel.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import msgpack

from gateway.frames import Walked
from gateway.tunnel import Session

DRAIN = 5.0  # seconds for what waits to be written: no event loop gives that back
TICK = 0.005


class NotNow(Exception):
    """It is ending, or a side does not take what waits for it."""


@dataclass(frozen=True, slots=True)
class Record:
    """up, down: how far each direction has been walked. held: what the client sent, and was not passed on.
    ping: payload of the gateway's ping that is still unanswered, if there is one. session_id: as it counts."""

    session_id: str
    workspace: str
    user: str
    epoch: int
    up: Walked
    down: Walked
    held: bytes = b""
    ping: bytes = b""

    def packed(self) -> bytes:
        found: bytes = msgpack.packb(dataclasses.astuple(self))
        return found

    @classmethod
    def unpacked(cls, data: bytes) -> Record:
        """Raises ValueError for what is none."""
        try:
            session_id, workspace, user, epoch, up, down, held, ping = msgpack.unpackb(data)
            return cls(session_id, workspace, user, epoch, Walked(*up), Walked(*down), held, ping)
        except (TypeError, ValueError, msgpack.UnpackException) as error:
            raise ValueError(f"no record of a session: {error}") from error


async def take(
    session: Session, within: float = DRAIN
) -> tuple[Record, socket.socket, socket.socket]:
    """Stop relaying it, between two bytes. within: seconds. Raises NotNow, and then it goes on as it was."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within
    session.hold(True)
    while not session.is_drained:
        if session.is_ending or loop.time() > deadline:
            session.hold(False)
            raise NotNow("it is ending" if session.is_ending else "a side takes too little")
        await asyncio.sleep(TICK)
    up, down = session.up.walked, session.down.walked
    held, ping = session.unanswered
    record = Record(
        session.id, session.workspace, session.user, session.epoch, up, down, held, ping
    )
    client, workspace = session.leave()
    sockets = _duplicate(client), _duplicate(workspace)
    for transport in (client, workspace):
        transport.abort()  # of ours; the connection goes on with the other descriptor
    return record, *sockets


async def resume(
    record: Record,
    client: socket.socket,
    workspace: socket.socket,
    connections: set[Any],
    on_end: Callable[[Session, int], None],
    **options: Any,
) -> Session:
    """Relay it from here. connections, on_end: as of Session.start. options: of Session."""
    session = Session(
        workspace=record.workspace, user=record.user, id=record.session_id, epoch=record.epoch, **options
    )  # fmt: skip
    loop = asyncio.get_running_loop()
    here, _ = await loop.create_connection(_Waiting, sock=client)
    there, _ = await loop.create_connection(_Waiting, sock=workspace)
    session.up.walk_on(record.up)
    session.down.walk_on(record.down)
    session.start(here, there, connections, on_end, early_up=b"", early_down=b"")
    if record.ping:
        session.await_pong(record.ping, record.held, loop.time())
    return session


def _duplicate(transport: asyncio.BaseTransport) -> socket.socket:
    sock = socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno()))
    sock.setblocking(False)
    return sock


class _Waiting(asyncio.Protocol):
    """Reads nothing until the session does."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.Transport, transport).pause_reading()
