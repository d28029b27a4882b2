"""How often one caller may call the API: a token bucket each, in this process."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

BUCKETS_MAX = (
    10_000  # at the bound the caller who was silent longest is forgotten, and starts afresh
)
BURST = 2.0  # seconds' worth of calls that may come at once


class Limits:
    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        """rate: calls a second. clock: seconds."""
        self._rate, self._clock = rate, clock
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def take(self, caller: str, times: float = 1.0) -> float:
        """One call of that caller: 0 when it may go on, else seconds until one may. times: as many times
        the rate is theirs."""
        now, rate = self._clock(), self._rate * times
        # A bucket is known by when it is full again: each call moves that by what it takes to refill.
        full_at = max(now, self._full_at.get(caller, now)) + 1 / rate
        wait = full_at - now - max(BURST, 1 / rate)
        if wait > 1e-9:
            return wait
        self._full_at[caller] = full_at
        self._full_at.move_to_end(caller)
        if len(self._full_at) > BUCKETS_MAX:
            self._full_at.popitem(last=False)
        return 0.0

    def __len__(self) -> int:
        return len(self._full_at)
