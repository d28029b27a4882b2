"""The open sessions of this process, and once a second one flush of what was seen of them.

The relay only counts frames. This looks at the counters each second: a session with new frames is alive,
one whose data frames are above its own keep-alive floor is active (rhythm.py), and all of it goes to Redis
in one round trip, together with what else was seen of a person (saw). While Redis is away the newest moment
of each is kept and told later, as an age, so that no two clocks ever meet.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import structlog

from gateway import closing
from gateway.metrics import Metrics
from gateway.rhythm import Rhythm
from gateway.tunnel import STALL_TIMEOUT, Session
from lifecycle.model import Event
from lifecycle.stores import StoreError
from lifecycle.stores.signals import Flush, RedisSignals

log = structlog.get_logger(__name__)

FLUSH_INTERVAL = 1.0
SLICE = 16  # sessions looked at in one go: some 0.2 ms, which is what it may delay a message by
PENDING_MAX = 20_000  # endings kept while Redis is away; what is dropped runs into its timeout

EVENTS_MAX = 100
"""Openings and closings told in one flush: a storm of reconnects must not push what happened to
workspaces out of the events' bounded memory. The counters and gauges miss none."""

_ENDINGS = {
    "workspace.stopping": closing.STOPPED,
    "workspace.stopped": closing.STOPPED,
    "workspace.failed": closing.CRASHED,
    "workspace.terminating": closing.TERMINATED,
    "workspace.terminated": closing.TERMINATED,
}


class TooManySessions(Exception):
    """A bound on open sessions is reached. close: what the client is told."""

    def __init__(self, close: closing.Close) -> None:
        super().__init__(close.reason)
        self.close = close


@dataclass(slots=True)
class _Seen:
    """Counters at the last look, and when they last moved (loop time)."""

    opened: float
    at: float
    frames: int = 0
    data_frames: int = 0
    moments: int = 0
    bytes_up: int = 0
    bytes_down: int = 0
    rhythm: Rhythm | None = None
    """None until a data frame comes: many sessions never send one."""


Sightings = dict[str, tuple[float, str]]
"""Kind of signal → when it was last seen (loop time), and of what."""


@dataclass(slots=True)
class _Pending:
    """What Redis has not been told yet. The moments are loop time."""

    sessions: dict[str, float] = field(default_factory=dict)
    active: dict[str, Sightings] = field(default_factory=dict)
    closed: list[str] = field(default_factory=list)
    events: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    connections: bool = True


class Heartbeats:
    def __init__(
        self,
        gateway: str,
        signals: RedisSignals,
        metrics: Metrics,
        *,
        ping_interval: float,
        max_sessions: int,
        max_sessions_per_user: int,
        stall_timeout: float = STALL_TIMEOUT,
    ) -> None:
        """ping_interval: seconds of silence after which a client is pinged. stall_timeout: as of a Session."""
        self._stall_timeout = stall_timeout
        self.gateway = gateway
        self._signals, self._metrics = signals, metrics
        self._ping_interval = ping_interval
        self._max, self._max_per_user = max_sessions, max_sessions_per_user
        self._sessions: dict[Session, _Seen] = {}
        self._by_workspace: dict[str, dict[str, Session]] = {}
        self._by_user: Counter[str] = Counter()
        self._active: dict[str, Sightings] = {}  # of workspaces with open sessions: told again
        self._pending = _Pending()
        self._moved_up = self._moved_down = (
            0  # bytes of sessions that have ended since the last look
        )
        self._number = 0
        self._told = False
        self._loop = (
            asyncio.get_running_loop()
        )  # asking for it costs a system call, on some Pythons
        self.flushed_at = self._loop.time()
        """Loop time of the last flush that Redis took."""

    def __len__(self) -> int:
        return len(self._sessions)

    def admit(self, workspace: str, user: str, epoch: int) -> Session:
        """A session for a connection that is about to be handed over. Raises TooManySessions.
        Give it back with ended(), whatever becomes of it."""
        if len(self._sessions) >= self._max:
            raise TooManySessions(closing.OVERLOADED)
        if self._by_user[user] >= self._max_per_user:
            raise TooManySessions(closing.TOO_MANY_SESSIONS)
        self._number += 1
        session = Session(
            workspace=workspace, user=user, id=f"{self.gateway}-{self._number}", epoch=epoch,
            stall_timeout=self._stall_timeout,
        )  # fmt: skip
        now = self._loop.time()
        self._sessions[session] = _Seen(now, now)
        self._by_workspace.setdefault(workspace, {})[session.id] = session
        self._by_user[user] += 1
        self._pending.sessions[session.member] = now
        self._pending.connections = True
        return session

    def opened(self, session: Session) -> None:
        """It was handed over: from here on it is a session to everybody."""
        self._metrics.session_opened()
        self._tell("session.opened", session)

    def ended(self, session: Session, code: int) -> None:
        """It is over. code: the close code it ended with; 0: it never came about."""
        seen = self._sessions.pop(session, None)
        if seen is None:
            return
        up, down = self._look(session, seen, self._loop.time(), is_last=True)
        self._moved_up, self._moved_down = self._moved_up + up, self._moved_down + down
        of_workspace = self._by_workspace[session.workspace]
        del of_workspace[session.id]
        if not of_workspace:
            del self._by_workspace[session.workspace]
            self._active.pop(session.workspace, None)
        self._by_user[session.user] -= 1
        if not self._by_user[session.user]:
            del self._by_user[session.user]
        self._pending.sessions.pop(session.member, None)
        self._pending.closed.append(session.member)
        self._pending.connections = True
        if code:
            self._metrics.session_closed(code)
            self._tell("session.closed", session, code=str(code))

    def saw(self, workspace: str, kind: str, source: str, at: float | None = None) -> None:
        """A sign of a person in that workspace. kind: of signal, "input" or "frames". source: what it was
        seen of, in a few words. at: loop time; now unless given."""
        sighting = (self._loop.time() if at is None else at, source)
        _newest(self._pending.active.setdefault(workspace, {}), kind, sighting)
        if workspace in self._by_workspace:
            _newest(self._active.setdefault(workspace, {}), kind, sighting)

    def on_event(self, event: Event) -> None:
        """End what the lifecycle says is over. Called with every event, in order."""
        if event.type == "session.evicted":
            here = self._by_workspace.get(event.data.get("workspace", ""), {})
            session = here.get(event.data.get("session", ""))
            if session is not None:
                self._metrics.evictions.inc()
                session.end(closing.EVICTED)
            return
        close = _ENDINGS.get(event.type)
        if close is None:
            return
        epoch = int(event.data.get("epoch", 0))
        for session in list(self._by_workspace.get(event.data.get("workspace", ""), {}).values()):
            if session.epoch <= epoch:
                session.end(close)

    def end_all(self, close: closing.Close) -> None:
        for session in list(self._sessions):
            session.end(close)

    async def run(self) -> None:
        """Look and flush each second, for ever."""
        loop = self._loop
        while True:
            started = loop.time()
            for some in self._slices():
                self._look_at(some, started)
                await asyncio.sleep(0)
            await self.flush()
            await asyncio.sleep(max(0.05, FLUSH_INTERVAL - (loop.time() - started)))

    def look(self, now: float) -> None:
        """Read every session's counters; ping those that were silent. now: loop time."""
        for some in self._slices():
            self._look_at(some, now)

    def _slices(self) -> Iterator[list[Session]]:
        """All sessions, some at a time: between two slices what came in meanwhile is relayed."""
        every = list(self._sessions)
        for start in range(0, max(1, len(every)), SLICE):
            yield every[start : start + SLICE]

    def _look_at(self, sessions: list[Session], now: float) -> None:
        up = down = 0
        for session in sessions:
            seen = self._sessions.get(session)
            if seen is None:  # it has ended between two slices
                continue
            more_up, more_down = self._look(session, seen, now)
            up, down = up + more_up, down + more_down
            if now - seen.at >= self._ping_interval:
                session.ping(now)
        self._metrics.relayed(up + self._moved_up, down + self._moved_down)
        self._moved_up = self._moved_down = 0

    def _look(
        self, session: Session, seen: _Seen, now: float, is_last: bool = False
    ) -> tuple[int, int]:
        """What of it is new; returns how many bytes went up and down since the last look."""
        sent, received = (
            session.up,
            session.down,
        )  # read as they are: this is done a thousand times a second
        data = sent.data_frames
        frames = data + sent.control_frames
        if frames != seen.frames:
            seen.frames, seen.at = frames, now
            self._pending.sessions[session.member] = now
        # The first second of a rhythm is no activity yet: for a session that ends in it, it is not begun.
        if data != seen.data_frames and not (is_last and seen.rhythm is None):
            if seen.rhythm is None:
                seen.rhythm = Rhythm(seen.opened)
            moments = sent.moments
            if seen.rhythm.look(now, data - seen.data_frames, moments - seen.moments):
                self.saw(session.workspace, "frames", f"frames of session {session.id}", now)
            seen.data_frames, seen.moments = data, moments
        up, down = sent.bytes, received.bytes
        more = up - seen.bytes_up, down - seen.bytes_down
        seen.bytes_up, seen.bytes_down = up, down
        return more

    async def flush(self) -> None:
        """Tell Redis what it has not been told. While it is away, keep it."""
        loop = self._loop
        told, self._pending = self._pending, _Pending(connections=False)
        now = loop.time()
        seen = Flush(
            sessions={member: _age_ms(now, at) for member, at in told.sessions.items()},
            active={
                workspace: {kind: [_age_ms(now, at), of] for kind, (at, of) in kinds.items()}
                for workspace, kinds in told.active.items()
            },
            closed=told.closed,
            connections=self._connections() if told.connections else None,
            events=told.events,
        )
        started = time.perf_counter()
        try:
            flushed = await self._signals.flush(self.gateway, seen)
        except StoreError as error:
            self._keep(told)
            self._metrics.redis_up.set(0)
            log.warning("heartbeats.kept", sessions=len(told.sessions), why=str(error))
            return
        self.flushed_at = loop.time()
        if flushed.new and self._told:
            self._tell_all_again()
        self._told = True
        self._metrics.redis_up.set(1)
        self._metrics.heartbeat_flush_seconds.observe(time.perf_counter() - started)

    def _keep(self, told: _Pending) -> None:
        """Put back what Redis did not take, behind what came meanwhile."""
        new = self._pending
        new.sessions = told.sessions | new.sessions
        _merge(new.active, told.active)
        for member in told.closed:
            new.sessions.pop(member, None)
        new.closed = (told.closed + new.closed)[-PENDING_MAX:]
        new.events = (told.events + new.events)[:EVENTS_MAX]
        new.connections = True

    def _tell_all_again(self) -> None:
        """Redis knew nothing of this gateway: what it was told before is lost."""
        self._pending.connections = True
        for session, seen in self._sessions.items():
            self._pending.sessions[session.member] = seen.at
        _merge(self._pending.active, self._active)

    def _connections(self) -> dict[str, int]:
        return {workspace: len(here) for workspace, here in self._by_workspace.items()}

    def _tell(self, kind: str, session: Session, **more: str) -> None:
        if len(self._pending.events) >= EVENTS_MAX:
            return
        fields = {
            "workspace": session.workspace,
            "user": session.user,
            "session": session.id,
            "gateway": self.gateway,
            "epoch": str(session.epoch),
        }
        self._pending.events.append((kind, fields | more))


def _newest(known: Sightings, kind: str, sighting: tuple[float, str]) -> None:
    if kind not in known or known[kind][0] < sighting[0]:
        known[kind] = sighting


def _merge(into: dict[str, Sightings], more: dict[str, Sightings]) -> None:
    for workspace, kinds in more.items():
        known = into.setdefault(workspace, {})
        for kind, sighting in kinds.items():
            _newest(known, kind, sighting)


def _age_ms(now: float, at: float) -> int:
    return max(0, int((now - at) * 1000))
