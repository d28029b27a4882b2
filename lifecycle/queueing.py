"""Who is next in the boot queue. How long that takes: waiting.py."""

from __future__ import annotations

PRIORITIES = {"vip": 600.0, "normal": 0.0, "batch": -600.0}
"""Seconds of waiting that a priority is worth. A number in place of a word is taken as seconds.

An earlier arrival by that much is the same as ageing at one second a second: a batch boot overtakes
a vip that comes 20 minutes later, so nobody starves.
"""

MAX_BOOST = 86_400.0


def boost_ms(priority: str) -> int:
    """How many milliseconds earlier this priority counts as having come. ValueError if unknown."""
    if priority in PRIORITIES:
        return int(PRIORITIES[priority] * 1000)
    seconds = float(priority)
    if not abs(seconds) <= MAX_BOOST:  # NaN is refused as well
        raise ValueError(f"priority {priority}: at most ±{MAX_BOOST:.0f} seconds")
    return int(seconds * 1000)
