"""A session after its hand-over: bytes copied both ways, and how it comes to its end.

While it lives a session is two protocols on two transports and nothing else: no task, no timer.
It ends in one of four ways, each bounded in time by the session's one timer:

    a Close frame passes      the other side has CLOSING_TIMEOUT to answer it, then both are cut
    the gateway ends it       a frame under way is finished first (BOUNDARY_TIMEOUT), then the
                              gateway's Close goes out and its echo is awaited (farewell.py)
    the workspace breaks off  the client gets UPSTREAM_LOST in the same way, or is cut off if
                              that would land in the middle of a frame
    the client breaks off     what it sent is flushed to the workspace (CLOSING_TIMEOUT)
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from typing import Any

from gateway import closing
from gateway.farewell import Farewell
from gateway.frames import PongFilter, close_frame, may_be_sent, ping_frame
from gateway.sides import ClientSide, UpstreamSide, waiting
from gateway.wire import Scanner, scanner_of_client, wired

HIGH_WATER = 65536
"""Bytes waiting to be written to one side above which the other side is not read."""

STALL_TIMEOUT = 60.0

CLOSING_TIMEOUT = 10.0
BOUNDARY_TIMEOUT = 5.0

CLIENT_LOST = 1006
"""What a session's end is called when its client went away without a Close frame."""

PING_PAYLOAD = secrets.token_bytes(8)
"""Tells the gateway's own pings from those of workspaces, which cannot know it."""

_PING = ping_frame(PING_PAYLOAD)


class Session:
    """One client connection of a workspace. Small: there are thousands of them, mostly idle."""

    __slots__ = (
        "_client",
        "_connections",
        "_farewell",
        "_loop",
        "_on_end",
        "_pong",
        "_requested",
        "_stall",
        "_stall_timeout",
        "_timer",
        "_upstream",
        "code",
        "down",
        "epoch",
        "id",
        "member",
        "pinged_at",
        "up",
        "user",
        "workspace",
    )

    _loop: asyncio.AbstractEventLoop
    _on_end: Callable[[Session, int], None]
    _connections: set[Any]

    def __init__(
        self,
        *,
        workspace: str,
        user: str,
        id: str,
        epoch: int,
        stall_timeout: float = STALL_TIMEOUT,
    ) -> None:
        """stall_timeout: seconds that a side may take nothing of what waits for it."""
        self.workspace = workspace
        self.user = user
        self.id = id
        self.epoch = epoch
        self.member = f"{workspace}/{id}"
        """As Redis knows it."""
        self.pinged_at = 0.0
        """When the gateway's ping that is still unanswered was asked for; 0 if there is none."""
        self.code = 0
        """The close code it ends with; 0 while it is open."""
        self.up = scanner_of_client()
        self.down = Scanner()
        self._client: ClientSide | None = None
        self._upstream: UpstreamSide | None = None
        self._farewell: Farewell | None = None
        self._pong: PongFilter | None = None
        self._requested: closing.Close | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._stall: asyncio.TimerHandle | None = None
        self._stall_timeout = stall_timeout

    @property
    def data_frames_up(self) -> int:
        """Client data frames so far."""
        return self.up.data_frames

    @property
    def moments_up(self) -> int:
        """Moments so far at which data frames of the client came: with them, its rhythm."""
        return self.up.moments

    @property
    def frames_up(self) -> int:
        """All client frames so far, answers to the gateway's pings among them: heartbeats."""
        return self.up.data_frames + self.up.control_frames

    @property
    def bytes_up(self) -> int:
        return self.up.bytes

    @property
    def bytes_down(self) -> int:
        return self.down.bytes

    def start(
        self,
        client: asyncio.Transport,
        upstream: asyncio.Transport,
        connections: set[Any],
        on_end: Callable[[Session, int], None],
        *,
        early_up: bytes,
        early_down: bytes,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """Take both transports over. `connections`: uvicorn's, told when it shuts down.

        `on_end(session, code)` is called once, when the client's connection is gone.
        `early_up`, `early_down`: what was read from client and workspace already.
        """
        self._loop = loop or asyncio.get_running_loop()
        self._on_end = on_end
        self._connections = connections
        upstream = wired(upstream)
        self._client = ClientSide(self, self.up, client, upstream)
        self._upstream = UpstreamSide(self, self.down, upstream, client)
        connections.add(self)
        for side in (self._client, self._upstream):
            side.transport.set_protocol(side)
            if not side.transport.is_closing():  # uvloop raises on one that is closed
                side.transport.set_write_buffer_limits(high=HIGH_WATER)
                side.transport.resume_reading()
        if early_down:
            self._upstream.data_received(early_down)
        if early_up:
            self._client.data_received(early_up)
        # The end of a transport that broke off earlier was told to the protocol before ours.
        if client.is_closing():
            self._loop.call_soon(self.client_lost)
        elif upstream.is_closing():
            self._loop.call_soon(self.upstream_lost)
        if self._requested is not None:
            self.end(self._requested)

    def end(self, close: closing.Close) -> None:
        """End it with `close` between two frames. Without effect on one that is ending already.

        Before the hand-over: it ends right after it.
        """
        if self._client is None:
            self._requested = close
        elif not self.code:
            self._say_farewell(close.code, close.reason)

    def shutdown(self) -> None:
        """Called by uvicorn when it shuts down; it then waits until both sides are gone."""
        self.end(closing.RESTARTING)

    def ping(self, now: float) -> None:
        """Ask the client for a sign of life, between this frame to it and the next.

        Its pong counts in `frames_up` and is not passed on. While one ping is unanswered no other
        is sent: TCP sees to it that it arrives, or that the connection ends.
        """
        if self._client is None or self._upstream is None or self.code or self.pinged_at:
            return
        self.pinged_at = now
        self._upstream.divert = self._ping_at_boundary
        self._ping_at_boundary(b"")

    def close_passed(self, scanner: Scanner) -> None:
        """A Close frame went through `scanner`; with one in each direction it is all said."""
        if not self.code:
            self.code = scanner.close_code
            self.arm(CLOSING_TIMEOUT)
        up, down = self.up, self.down
        if up.close_code and down.close_code and up.at_boundary and down.at_boundary:
            self.close_both()

    def client_lost(self) -> None:
        client, upstream = self._client, self._upstream
        if client is None:
            return
        self._client = client.divert = None  # no cycle is left for the collector
        self.code = self.code or CLIENT_LOST
        if upstream is None:
            self._over()
        else:
            upstream.divert = _discard
            between = self._farewell is None and self.up.at_boundary and not self.up.close_code
            if self._timer is None or not upstream.transport.is_closing():
                self.leave_upstream(say_going=between)
                self.arm(CLOSING_TIMEOUT)
        self._on_end(self, self.code)

    def upstream_lost(self, reset: bool = False) -> None:
        """reset: it was broken off, not closed."""
        if self._upstream is None:
            return
        self._upstream.divert = None
        self._upstream = None
        if self._client is None:
            self._over()
        elif self._farewell is not None:
            self._farewell.upstream_lost()
        elif self.code and (reset or not may_be_sent(self.code)):
            self.cut()  # it fails the connection over that Close frame, and so it ends for the client
        elif self.code:
            # It went away over a Close frame; what it owes the client is the same code back.
            self._say_farewell(self.code, "")
        else:
            self._say_farewell(closing.UPSTREAM_LOST.code, closing.UPSTREAM_LOST.reason)

    def leave_upstream(self, *, say_going: bool) -> None:
        """Close the workspace's side after what waits to be written to it."""
        if self._upstream is None or self._upstream.transport.is_closing():
            return
        if say_going:
            going = close_frame(closing.GOING_AWAY.code, mask=secrets.token_bytes(4))
            self._upstream.transport.write(going)
        self._upstream.transport.close()

    def close_both(self) -> None:
        """Close both sides after what waits to be written to them; the timer sees to the end."""
        for side in (self._client, self._upstream):
            if side is not None:
                side.transport.close()

    def _say_farewell(self, code: int, reason: str) -> None:
        assert self._client is not None
        self.code = code
        self.arm(BOUNDARY_TIMEOUT)
        held = self._pong.release() if self._pong is not None else b""
        self._farewell = Farewell(self, self._client, self._upstream, close_frame(code, reason))
        self._farewell.start(held)

    def _ping_at_boundary(self, data: bytes) -> None:
        """Stands in for UpstreamSide.data_received until our ping has gone out."""
        assert self._client is not None
        assert self._upstream is not None
        if not self.down.at_boundary:
            taken = self.down.feed_frame(data)
            self._client.transport.write(data[:taken])
            data = data[taken:]
        if self.down.close_code:
            self._upstream.divert = None
            self.close_passed(self.down)
        elif self.down.at_boundary:
            self._upstream.divert = None
            self._pong = PongFilter(self.up, PING_PAYLOAD)
            self._client.divert = self._await_pong
            self._client.transport.write(_PING)
        if data and self._upstream is not None:
            self._upstream.data_received(data)

    def _await_pong(self, data: bytes) -> None:
        """Stands in for ClientSide.data_received until our ping is answered."""
        assert self._client is not None
        assert self._pong is not None
        passed = self._pong.feed(data)
        if passed:
            self._client.other.write(passed)
        if self._pong.found:
            self._pong = None
            self.pinged_at = 0.0
            self._client.divert = None
        if self.up.close_code:
            self.close_passed(self.up)

    # Its way to another process (handing.py)

    @property
    def is_ending(self) -> bool:
        return bool(self.code) or self._client is None or self._upstream is None

    @property
    def is_drained(self) -> bool:
        """Nothing waits to be written, and nothing is under way that only this process can finish."""
        if self._client is None or self._upstream is None or self.code:
            return False
        # A ping that waits for the end of a frame is not sent yet.
        waits = self.pinged_at and self._pong is None
        sides = (self._client, self._upstream)
        return not waits and not any(side.transport.get_write_buffer_size() for side in sides)

    @property
    def unanswered(self) -> tuple[bytes, bytes]:
        """(what is held back while the gateway's ping is unanswered, that ping's payload), or nothing."""
        return (self._pong.release(), self._pong.payload) if self._pong is not None else (b"", b"")

    def hold(self, hold: bool) -> None:
        """Read neither side, or both again."""
        for side in (self._client, self._upstream):
            if side is not None and not side.transport.is_closing():
                (side.transport.pause_reading if hold else side.transport.resume_reading)()

    def leave(self) -> tuple[asyncio.Transport, asyncio.Transport]:
        """Let go of both transports; whoever has them ends it. `on_end` is not called."""
        client, upstream = self._client, self._upstream
        assert client is not None
        assert upstream is not None
        self._client = self._upstream = client.divert = upstream.divert = None
        for side in (client, upstream):
            side.transport.set_protocol(asyncio.Protocol())
        self._over()
        return client.transport, upstream.transport

    def await_pong(self, payload: bytes, held: bytes, now: float) -> None:
        """Another process has pinged the client, and kept `held` of what it sent since."""
        assert self._client is not None
        self.pinged_at = now
        self._pong = PongFilter(self.up, payload)
        self._client.divert = self._await_pong
        self._await_pong(held)

    def full(self) -> None:
        """A side does not take what is written to it, and the other is not read: not for ever."""
        if self._stall is None:
            taken = self._taken()
            self._stall = self._loop.call_later(self._stall_timeout, self._look_stalled, taken)

    def _look_stalled(self, before: tuple[int, int]) -> None:
        self._stall = None
        client, upstream = self._client, self._upstream
        if client is None or upstream is None or self.code:
            return  # it is ending, which takes its own time
        now = self._taken()
        for side, was, taken in zip((client, upstream), before, now, strict=True):
            if side.transport.get_write_buffer_size() <= HIGH_WATER // 4:
                continue
            if taken == was:
                side.transport.abort()
                return
            self.full()

    def _taken(self) -> tuple[int, int]:
        """Bytes that the client and the workspace have taken so far."""
        assert self._client is not None
        assert self._upstream is not None
        down = self.down.bytes - waiting(self._client.transport)
        return down, self.up.bytes - waiting(self._upstream.transport)

    def arm(self, delay: float) -> None:
        """Within `delay` seconds both sides are gone, unless it is armed again."""
        self.disarm()
        self._timer = self._loop.call_later(delay, self.cut)

    def _over(self) -> None:
        """Both sides are gone, and what was written to them before is with the kernel."""
        self.disarm()
        self._farewell = None
        self._connections.discard(self)

    def disarm(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def cut(self) -> None:
        for side in (self._client, self._upstream):
            if side is not None:
                side.transport.abort()


def _discard(data: bytes) -> None:
    """The end has begun; nobody is left to pass this on to."""
