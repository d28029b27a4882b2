"""For how long nobody has been active on a machine, so that who comes goes where the machine stays in use anyway.

Workspaces stop when they were idle for long enough. A machine where nobody is active comes empty by itself then, unless
somebody new is put there.
"""

from __future__ import annotations

from collections.abc import Iterable

IN_USE = 60.0  # seconds since the last activity that count as none
LOOK_EVERY = 10.0  # seconds between two looks at a machine


def idle_ms(last_ms: Iterable[int], now_ms: int) -> int:
    """Milliseconds since the last activity on a machine; 0 while it is in use, and where nothing is known. last_ms: the
    last activity of each workspace there."""
    idle = now_ms - max(last_ms, default=now_ms)
    return idle if idle > IN_USE * 1000 else 0
