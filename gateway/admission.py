"""How many sessions a user may open over all gateways, where their plan bounds it more closely than each
process does by itself: a round trip to Redis for each session is paid only there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Protocol

import structlog

from gateway import closing
from gateway.heartbeats import TooManySessions
from gateway.tunnel import Session
from lifecycle.plans import Quota
from lifecycle.stores import StoreError

log = structlog.get_logger(__name__)


class Sessions(Protocol):
    """What is open, as all gateways know it. Raises StoreError."""

    async def admit(self, user_id: str, member: str, bound: int) -> bool: ...

    async def release(self, user_id: str, member: str) -> None: ...


class Admission:
    def __init__(
        self, sessions: Sessions, quota_of: Callable[[str], Quota], process_bound: int
    ) -> None:
        """quota_of: plan → quota. process_bound: sessions of a user that each process lets in at most."""
        self._sessions, self._quota_of, self._bound = sessions, quota_of, process_bound
        self._counted: set[Session] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def is_bound(self, plan: str) -> bool:
        """Whether a session of that plan is counted over all gateways."""
        return 0 < self._quota_of(plan).sessions < self._bound

    async def admit(self, session: Session, plan: str) -> None:
        """Let this one in too, or raise TooManySessions. While Redis is away the process's own bound has
        to do."""
        allowed = self._quota_of(plan).sessions
        if not 0 < allowed < self._bound:
            return
        self._counted.add(
            session
        )  # also when the answer is lost: what is released twice does no harm
        try:
            admitted = await self._sessions.admit(session.user, session.member, allowed)
        except StoreError as error:
            log.warning("admission.unknown", user=session.user, why=str(error))
            return
        if not admitted:
            self._counted.discard(session)
            raise TooManySessions(closing.TOO_MANY_SESSIONS)

    def ended(self, session: Session) -> None:
        """It is over, and counts no more. One whose release is lost counts until its heartbeat is gone."""
        if session not in self._counted:
            return
        self._counted.discard(session)
        self._spawn(self._release(session))

    async def _release(self, session: Session) -> None:
        try:
            await self._sessions.release(session.user, session.member)
        except StoreError as error:
            log.info("admission.not_released", user=session.user, why=str(error))

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
