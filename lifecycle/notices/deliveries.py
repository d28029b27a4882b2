"""Deliveries: one notice on its way by one channel, and what follows from each answer. Pure.

pending → sending → sent
             ├────→ pending    it failed: once more, five times at most, each after a longer wait
             ├────→ failed     refused for good, or failed five times
             └────→ unknown    nobody knows what came of it, and it must not come twice (an e-mail)

Statuses of Standard Webhooks: 2xx is delivered; 410 says that nobody listens there any more; anything else, 4xx
and redirects too, is tried again, not before Retry-After where that is given.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from lifecycle.notices import Notice

TRIES = 5
WAITS = (5.0, 30.0, 120.0, 600.0)
"""Seconds after the first, second, … try, give or take a tenth: what failed together comes back apart."""

RETRY_AFTER_MAX = 3600.0
ANSWER_MAX = 1024  # characters of an answer that the log keeps


class Status(StrEnum):
    PENDING = "pending"
    SENDING = "sending"
    SENT = "sent"
    FAILED = "failed"
    UNKNOWN = "unknown"


class Outcome(StrEnum):
    SENT = "sent"
    FAILED = "failed"  # try again
    REFUSED = "refused"  # the same again would be refused again
    GONE = "gone"  # whatever is sent there will be refused
    UNKNOWN = "unknown"  # it may have arrived


@dataclass(frozen=True, slots=True)
class Answer:
    """code: of HTTP or SMTP, 0 without one. said: the answer itself, or why there is none.
    retry_after: seconds that the other side asks for."""

    outcome: Outcome
    said: str = ""
    code: int = 0
    retry_after: float = 0.0


@dataclass(frozen=True, slots=True)
class Delivery:
    """id: the same for every try. name: of the workspace, or its id. to: an address, where the channel needs one.
    attempts: those that began, since it was last asked for. retried: how often an operator asked for it again.
    interrupted: an attempt began, and whoever made it never said what came of it."""

    id: str
    channel: str
    notice: Notice
    name: str
    to: str = ""
    status: Status = Status.PENDING
    attempts: int = 0
    retried: int = 0
    created_at_ms: int = 0
    attempted_at_ms: int = 0
    due_at_ms: int = 0
    duration_ms: int = 0
    code: int = 0
    answer: str = ""
    claim: str = ""
    interrupted: bool = False


@dataclass(frozen=True, slots=True)
class Next:
    """due_at_ms: of the next attempt; None: there is none."""

    status: Status
    due_at_ms: int | None = None


class Channel(Protocol):
    """What notices leave by. repeatable: whoever gets one twice can tell."""

    name: str
    repeatable: bool

    async def send(self, delivery: Delivery) -> Answer:
        """One try. Raises nothing that the other side could cause."""

    async def close(self) -> None: ...


class Outbox(Protocol):
    """Everything may raise StoreUnavailable."""

    async def claim(self, limit: int, seconds: float) -> list[Delivery]:
        """Begin an attempt of those that are due, oldest first: nobody else begins one of them for so long."""

    async def note(self, delivery: Delivery, answer: Answer, took_ms: int, then: Next) -> bool:
        """What came of the attempt; False when it is no longer this one's to say."""


def next_attempt(delivery_id: str, attempts: int, answer: Answer, now_ms: int) -> Next:
    """What follows from that answer to that many attempts."""
    match answer.outcome:
        case Outcome.SENT:
            return Next(Status.SENT)
        case Outcome.UNKNOWN:
            return Next(Status.UNKNOWN)
        case Outcome.REFUSED | Outcome.GONE:
            return Next(Status.FAILED)
    if attempts >= TRIES:
        return Next(Status.FAILED)
    wait = WAITS[max(0, attempts - 1)] * (0.9 + 0.2 * _share(delivery_id, attempts))
    wait = max(wait, min(answer.retry_after, RETRY_AFTER_MAX))
    return Next(Status.PENDING, now_ms + round(wait * 1000))


def lost(repeatable: bool) -> Answer:
    """Of an attempt that was interrupted."""
    said = "the gateway ended during the attempt; what came of it is not known"
    return Answer(Outcome.FAILED if repeatable else Outcome.UNKNOWN, said)


def printable(text: str) -> str:
    """Fit for a log: bounded, and nothing that a terminal would obey."""
    return "".join(c if c.isprintable() else " " for c in text[:ANSWER_MAX]).strip()


def _share(delivery_id: str, attempts: int) -> float:
    """Between 0 and 1, the same for the same delivery and try."""
    digest = hashlib.sha256(f"{delivery_id}/{attempts}".encode()).digest()
    return int.from_bytes(digest[:4], "big") / 2**32
