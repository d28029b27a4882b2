"""How the gateway itself ends a session: between two frames, with a close code of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.sides import ClientSide, UpstreamSide

if TYPE_CHECKING:
    from gateway.tunnel import Session

ECHO_TIMEOUT = 2.0
"""Seconds for the client to answer a Close of the gateway's."""


class Farewell:
    """A session that the gateway ends: both directions finish the frame under way, then Close."""

    __slots__ = (
        "_client",
        "_down_done",
        "_frame",
        "_session",
        "_up_closed",
        "_up_done",
        "_upstream",
    )

    def __init__(
        self,
        session: Session,
        client: ClientSide,
        upstream: UpstreamSide | None,
        frame: bytes,
    ) -> None:
        self._session = session
        self._client = client
        self._upstream = upstream
        self._frame = frame
        self._down_done = False  # the client has its Close
        self._up_done = False  # nothing more is passed on to the workspace
        self._up_closed = False  # the last that was passed on to it is the client's own Close

    def start(self, held: bytes) -> None:
        """`held`: from the client, neither scanned nor passed on."""
        self._client.divert = self.up
        if self._upstream is not None:
            self._upstream.divert = self.down
        self.down(b"")
        self.up(held)

    def down(self, data: bytes) -> None:
        if self._down_done:
            return
        scanner = self._session.down
        if not scanner.at_boundary:
            taken = scanner.feed_frame(data)
            self._client.transport.write(data[:taken])
        if scanner.at_boundary:
            self._down_done = True
            if not scanner.close_code:
                self._client.transport.write(self._frame)
            self._session.arm(ECHO_TIMEOUT)
            self._proceed()
        elif self._upstream is None:
            self._session.cut()

    def up(self, data: bytes) -> None:
        scanner = self._session.up
        if not self._up_done:
            if not scanner.at_boundary and self._upstream is not None:
                taken = scanner.feed_frame(data)
                self._upstream.transport.write(data[:taken])
                data = data[taken:]
            if scanner.at_boundary or self._upstream is None:
                self._up_done = True
                self._up_closed = bool(scanner.close_code)
                # The workspace may have been too slow for it; from here on nothing is passed on.
                self._client.transport.resume_reading()
        scanner.feed(data)
        self._proceed()

    def upstream_lost(self) -> None:
        self._upstream = None
        if self._down_done:
            self.up(b"")
        else:
            self._session.cut()

    def _proceed(self) -> None:
        if not (self._down_done and self._up_done):
            return
        self._session.leave_upstream(say_going=not self._up_closed)
        if self._session.up.close_code and self._session.up.at_boundary:
            self._client.transport.close()
