"""Every close code the gateway itself sends: number, name, meaning, should the client come back?

Codes that a workspace or a client sends pass through the relay unchanged and are not listed here.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Close:
    """One row. `come_back`: a client may reconnect by itself; otherwise only a person's visit helps."""

    code: int
    name: str
    meaning: str
    come_back: bool
    reason: str
    """What the client is told: at most 123 bytes of UTF-8, so that it fits a close frame."""


GOING_AWAY = Close(
    1001,
    "going-away",
    "The gateway is going away; another one, or the same a moment later, takes over.",
    True,
    "the gateway is going away; reconnect",
)
UPSTREAM_LOST = Close(
    1011,
    "upstream-lost",
    "The workspace's end of the connection broke off without a close frame.",
    False,
    "the connection to the workspace was lost; reload the page",
)
RESTARTING = Close(
    1012,
    "restarting",
    "The gateway restarts. The workspace goes on running.",
    True,
    "the gateway is restarting; reconnect",
)
OVERLOADED = Close(
    1013,
    "overloaded",
    "The gateway holds as many sessions as it may.",
    True,
    "the gateway is overloaded; try again later",
)
BAD_MESSAGE = Close(
    4400,
    "bad-message",
    "On the control channel: what came is no message of its protocol, too large, too often, or no hello in time.",
    False,
    "this is not the control channel's protocol",
)
UNAUTHORIZED = Close(
    4401,
    "unauthorized",
    "No valid cookie or token for this workspace, or it has expired.",
    False,
    "not signed in to this workspace; open it from the home page",
)
NO_SUCH_WORKSPACE = Close(
    4404,
    "no-such-workspace",
    "There is no such workspace, or it belongs to somebody else.",
    False,
    "no such workspace",
)
EVICTED = Close(
    4408,
    "session-evicted",
    "Nothing was heard from the client for the session timeout, not even a pong.",
    False,
    "no heartbeat from this session; reload the page",
)
STOPPED = Close(
    4410,
    "workspace-stopped",
    "The workspace is stopped, its files are kept. Opening its page starts it.",
    False,
    "the workspace is stopped; open its page to start it",
)
TERMINATED = Close(
    4411,
    "workspace-terminated",
    "The workspace is terminated. Opening its page restores it from its snapshot.",
    False,
    "the workspace is terminated; open its page to restore it",
)
TOO_MANY_SESSIONS = Close(
    4429,
    "too-many-sessions",
    "This user has as many open sessions as one user may have.",
    False,
    "too many open sessions; close some tabs, then reload the page",
)
CRASHED = Close(
    4500,
    "workspace-crashed",
    "The workspace's process ended unexpectedly. Opening its page starts it again.",
    False,
    "the workspace crashed; open its page to start it again",
)
STARTING = Close(
    4503,
    "workspace-starting",
    "The workspace is still starting. Its page shows the progress and opens it when it is ready.",
    False,
    "the workspace is still starting; open its page",
)

TABLE: tuple[Close, ...] = (
    GOING_AWAY,
    UPSTREAM_LOST,
    RESTARTING,
    OVERLOADED,
    BAD_MESSAGE,
    UNAUTHORIZED,
    NO_SUCH_WORKSPACE,
    EVICTED,
    STOPPED,
    TERMINATED,
    TOO_MANY_SESSIONS,
    CRASHED,
    STARTING,
)

BY_CODE: dict[int, Close] = {close.code: close for close in TABLE}


def as_markdown() -> str:
    """docs/close-codes.md, whole."""
    rows = [
        f"| {c.code} | {c.name} | {c.meaning} | {'yes' if c.come_back else 'no'} | {c.reason} |"
        for c in TABLE
    ]
    return "\n".join([_HEAD, *rows, _FOOT])


_HEAD = """\
# Close codes

The WebSocket close codes that the gateway itself sends. A code that a workspace or a client sends
passes through unchanged. Made from `gateway/closing.py`; a test holds the two equal.

| code | name | meaning | reconnect by itself? | reason text |
|---|---|---|---|---|"""

_FOOT = """
To deliver a code on a refused handshake the gateway accepts the WebSocket, choosing the first
subprotocol the client offered, and closes at once: browsers hide the status of a refused handshake
from the page, not the code of a close.
"""
