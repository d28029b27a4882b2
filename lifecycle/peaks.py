"""Peaks that somebody has declared: "an exam at nine for 3,000". Pure; times in milliseconds unless a name says seconds.

Slots are free for all of them when the first may come, and machines are launched as late as that allows: at the pace that
the pool's API grants, the last of them one lead time before. Who comes takes one of the slots that are held; what
nobody has taken when the time is over is held no longer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil

SURE = (
    1.25  # of a lead time: all machines of a peak have to be there, and a few take longer than most
)


@dataclass(frozen=True, slots=True)
class Peak:
    """users: how many come on top of those who usually do. early, late: seconds before and after at_ms in which
    they come; slots that they have not taken by then are held for them no longer."""

    at_ms: int
    users: int
    name: str = ""
    early: float = 600.0
    late: float = 1800.0

    @property
    def from_ms(self) -> int:
        return self.at_ms - int(self.early * 1000)

    @property
    def until_ms(self) -> int:
        return self.at_ms + int(self.late * 1000)


@dataclass(frozen=True, slots=True)
class Opened:
    """A peak whose people may come: how many had come by then (of all who ever did), and how many do a second."""

    peak: Peak
    before: int
    usual: float


Peaks = tuple[Opened, ...]


def watch(opened: Peaks, peaks: Iterable[Peak], now_ms: int, arrivals: int, usual: float) -> Peaks:
    """The peaks that are open now. arrivals: all that ever came; usual: arrivals a second, without peaks."""
    known = {each.peak: each for each in opened}
    now_open = (peak for peak in peaks if peak.from_ms <= now_ms < peak.until_ms)
    return tuple(known.get(peak) or Opened(peak, arrivals, usual) for peak in now_open)


def usual_rate(opened: Peaks, rate: float) -> float:
    """Arrivals a second but for peaks: while one is open, as they were before it."""
    return min([rate, *(each.usual for each in opened)])


def held_slots(
    peaks: Sequence[Peak],
    opened: Peaks,
    now_ms: int,
    arrivals: int,
    lead_time: float,
    slots: int,
    granted: float,
    rate: float,
) -> int:
    """Slots to be free for peaks. lead_time: seconds until a machine is there. granted: launches that the pool's API
    grants at once, and `rate` a second after that (0: no bound)."""
    known = {each.peak: each for each in opened}
    held = 0
    for peak in peaks:
        if now_ms >= peak.until_ms:
            continue
        one = known.get(peak)
        if one is not None:
            others = one.usual * (now_ms - peak.from_ms) / 1000
            held += max(0, ceil(peak.users - max(0.0, arrivals - one.before - others)))
            continue
        left = (peak.from_ms - now_ms) / 1000 - SURE * lead_time
        if left <= 0:
            held += peak.users
        elif rate > 0:
            later = int(granted + rate * left) * slots  # can still be had in time
            held += max(0, peak.users - later)
    return held
