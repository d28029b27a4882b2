"""Peaks that somebody has declared: "an exam at nine for 3,000". Pure; times in milliseconds unless a name says seconds.

Slots are free for all of them when the first may come, and machines are launched as late as that allows: at the pace that
the pool's API grants, the last of them one lead time before. Who comes takes one of the slots that are held; what
nobody has taken when the time is over is held no longer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import ceil

SURE = (
    1.25  # of a lead time: all machines of a peak have to be there, and a few take longer than most
)
EARLY, LATE = 600.0, 1800.0  # seconds, where nobody says otherwise


@dataclass(frozen=True, slots=True)
class Peak:
    """users: how many come on top of those who usually do. early, late: seconds before and after at_ms in which
    they come; slots that they have not taken by then are held for them no longer."""

    at_ms: int
    users: int
    name: str = ""
    early: float = EARLY
    late: float = LATE

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


@dataclass(frozen=True, slots=True)
class Held:
    """Slots that are to be free for a peak."""

    peak: Peak
    slots: int


def watch(opened: Peaks, peaks: Iterable[Peak], now_ms: int, arrivals: int, usual: float) -> Peaks:
    """The peaks that are open now. arrivals: all that ever came; usual: arrivals a second, without peaks. Who came to one
    has come to it still when its numbers are changed meanwhile."""
    known = {_identity(each.peak): each for each in opened}
    usual = usual_rate(opened, usual)
    found = []
    for peak in peaks:
        if peak.from_ms <= now_ms < peak.until_ms:
            before = known.get(_identity(peak))
            found.append(replace(before, peak=peak) if before else Opened(peak, arrivals, usual))
    return tuple(found)


def _identity(peak: Peak) -> object:
    return (peak.name, peak.at_ms) if peak.name else peak


def usual_rate(opened: Peaks, rate: float) -> float:
    """Arrivals a second but for peaks: while one is open, as they were before it."""
    return min([rate, *(each.usual for each in opened)])


def holding(
    peaks: Sequence[Peak],
    opened: Peaks,
    now_ms: int,
    arrivals: int,
    lead_time: float,
    slots: int,
    granted: float,
    rate: float,
) -> list[Held]:
    """Slots to be free for each peak that is not over, as they begin. lead_time: seconds until a machine is there.
    granted: launches that the pool's API grants at once, and `rate` a second after that (0: no bound)."""
    known = {each.peak: each for each in opened}
    current = sorted((p for p in peaks if now_ms < p.until_ms), key=lambda p: p.from_ms)
    came = _came([known[peak] for peak in current if peak in known], now_ms, arrivals)
    found, due, sooner = [], 0, 0
    for peak in current:
        if peak in known:
            found.append(Held(peak, max(0, ceil(peak.users - came[peak]))))
            continue
        # What the API grants until then is for all that begin by then.
        due += peak.users
        left = (peak.from_ms - now_ms) / 1000 - SURE * lead_time
        later = int(granted + rate * left) * slots if left > 0 else 0
        wanted = due - later if rate > 0 or left <= 0 else 0
        found.append(Held(peak, max(0, wanted - sooner)))
        sooner = max(sooner, wanted)
    return found


def _came(opened: Iterable[Opened], now_ms: int, arrivals: int) -> dict[Peak, float]:
    """How many of each have come. Somebody who comes while two are open has come to one of them: the first."""
    found: dict[Peak, float] = {}
    rest = float(arrivals)
    for one in opened:
        others = one.usual * (now_ms - one.peak.from_ms) / 1000
        since = max(0.0, arrivals - one.before - others)
        found[one.peak] = min(float(one.peak.users), since, max(0.0, rest))
        rest = min(rest, since) - found[one.peak]
    return found
