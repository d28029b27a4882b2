"""Does a person work in this connection, or does the IDE only keep it open?

An idle tab speaks too: VS Code sends 1.8 data frames a second for ever, others a beat every 5 to 60 s,
often of several frames. That is the connection's keep-alive floor, and each connection has its own. What a
person does differs in one thing that no size and no single burst shows: it goes on. So this looks at the
last five seconds, second by second, and asks how much came in the *quiet* ones of them:

    idle VS Code     1.6  1    0    1    0     two quietest and half the third: 0 + 0 + 0.5 = 0.5
    telemetry        0    9    9    0    0                                      0 + 0 + 0   = 0
    typing, 3 a s.   3    3    4    2    3                                      2 + 3 + 1.5 = 6.5

A second is worth its moments: frames that come at least APART after the one before. A frame close behind
another is worth an eighth of one, so that a beat of six frames is little more than a beat of one. The floor
is what this score was in the quieter quarter of the last three minutes; activity is what rises above it
by a margin that grows with how much and how unevenly the floor itself moves.

In the first LEARNING seconds of a connection no floor is known. What goes on then as typing does counts, and so
does a page that loads for seconds; the timers of a tab that has only come back, after a deploy or a lost network, do
not: a tab is not in use because its connection broke. When the floor itself rises (a terminal that prints for hours), that counts for two
or three minutes and is the floor from then on: nothing without a person keeps a workspace for ever. In turn a
person who never pauses for longer becomes the floor, until they have paused for a minute. A single
click or key is no activity by this measure, nor are bursts of less than three seconds.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

LEARNING = 28
"""Seconds from a connection's start until its floor is known; a multiple of SAMPLE."""

UNKNOWN = 56
"""The score from which on it is activity until then: 3.5 moments."""

APART = 0.1
"""Seconds: frames closer than this belong to one moment. A beat's frames come within a few milliseconds,
a person's keys seldom nearer than this."""

SAMPLE = 4  # seconds from sample to sample of the floor, a little less than a window
SAMPLES = 48  # of them are kept: 192 s
RELEARN = 16  # seconds from which to which the floor is worked out again; a multiple of SAMPLE

_WINDOW = (1 << 40) - 1  # five seconds, a byte each


class Rhythm:
    """What is known of one connection: its last five seconds, and samples of its last three minutes."""

    __slots__ = ("_line", "_looked", "_samples", "_second", "_window")

    def __init__(self, opened: float) -> None:
        """opened: when the connection was, on the clock of the looks."""
        self._looked = opened
        self._second = 0  # how many have passed, in looks: one that is late is one all the same
        self._window = 0
        self._samples = bytearray(SAMPLES)
        self._line = UNKNOWN  # score from which it is activity

    def look(self, now: float, frames: int, moments: int) -> bool:
        """Was that activity? frames, moments: since the last look, about a second ago.

        A look without frames may be left out: that second was silent. After a longer wait of the caller's
        all that piled up counts as one second's: too little is seen then, never too much.
        """
        passed = round(now - self._looked) or 1
        self._looked = now
        came = 7 * moments + frames  # eight for the first frame of a moment, one for each after it
        if came > 255:
            came = 255
        window = self._window << 8 * passed & _WINDOW | came if passed < 5 else came
        second = self._second + passed
        if second // SAMPLE != self._second // SAMPLE:
            self._sample(second, window)
        self._second = second
        self._window = window
        return frames > 0 and score(window) >= self._line

    def _sample(self, now: int, window: int) -> None:
        """Note the scores of what was due since the last look; `window` ends with the second `now`."""
        before, ring = self._second, self._samples
        # After a silence longer than all that is kept, only as much of it is noted.
        first = max(before - before % SAMPLE, now - now % SAMPLE - SAMPLE * SAMPLES) + SAMPLE
        for due in range(first, now, SAMPLE):
            gone = due - before
            seen = self._window << 8 * gone & _WINDOW if gone < 5 else 0
            ring[due // SAMPLE % SAMPLES] = sample(seen)
        if now % SAMPLE == 0:
            ring[now // SAMPLE % SAMPLES] = sample(window)
        if now >= LEARNING and (before < LEARNING or now // RELEARN != before // RELEARN):
            # The first sample is of the second SAMPLE, in place 1; place 0 comes when all are there.
            known = now // SAMPLE
            self._line = line(ring[1 : known + 1] if known < SAMPLES else ring)


@lru_cache(maxsize=8192)
def score(window: int) -> int:
    """How much came in the quiet seconds of five, in sixteenths of a moment: the two quietest, half the
    third. Idle tabs repeat themselves, so it is known already for nearly every look."""
    quiet = sorted(window.to_bytes(5, "big"))
    return 2 * quiet[0] + 2 * quiet[1] + quiet[2]


@lru_cache(maxsize=8192)
def sample(window: int) -> int:
    """A window's score in half moments, as a byte. 0: nothing came at all."""
    return min(255, 1 + score(window) // 8) if window else 0


def line(samples: bytes | bytearray) -> int:
    """The score (sixteenths of a moment) from which on it is activity, above a floor of these samples.

    On a connection that is mostly silent 2.5 moments: typing 2 a second for five seconds, but no burst of
    two. Else 3.5 and more: what several timers come to that happen to meet, and less than 3 keys a second.
    """
    ranked = sorted(samples)
    floor, upper = ranked[len(ranked) // 4], ranked[len(ranked) * 3 // 4]
    if not upper:
        return 40
    low = max(0, floor - 1) / 2  # moments
    uneven = min(1.5, (upper - max(floor, 1)) / 4)
    return int(16 * (low + 3.5 + 0.4 * low**0.5 + uneven))


def judge(
    frames: Iterable[tuple[float, int]], until: float, *, opened: float | None = None
) -> list[float]:
    """Seconds at which a recorded connection was found active, looking once a second up to `until`.

    frames: (second, payload length) of the client's data frames. opened: when the connection was; with
    its first frame unless given. Exactly what the gateway finds, which looks at some phase of the second.
    """
    times = sorted(at for at, _ in frames)
    if not times:
        return []
    start = times[0] if opened is None else opened
    rhythm, found, moment, at = Rhythm(start), [], -APART + start, 0
    for second in range(1, int(until - start) + 2):
        now, came, moments = start + second, 0, 0
        while at < len(times) and times[at] < now:
            came += 1
            if times[at] - moment >= APART:
                moment = times[at]
                moments += 1
            at += 1
        if came and rhythm.look(now, came, moments):
            found.append(now)
    return found
