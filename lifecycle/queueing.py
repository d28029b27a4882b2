"""Who is next in the boot queue, and how long that takes."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

PRIORITIES = {"vip": 600.0, "normal": 0.0, "batch": -600.0}
"""Seconds of waiting that a priority is worth. A number in place of a word is taken as seconds.

An earlier arrival by that much is the same as ageing at one second a second: a batch boot overtakes
a vip that comes 20 minutes later, so nobody starves.
"""

MAX_BOOST = 86_400.0
FIRST_BOOT_GUESS = 5.0  # seconds, before any boot was measured


def boost_ms(priority: str) -> int:
    """How many milliseconds earlier this priority counts as having come. ValueError if unknown."""
    if priority in PRIORITIES:
        return int(PRIORITIES[priority] * 1000)
    seconds = float(priority)
    if not abs(seconds) <= MAX_BOOST:  # NaN is refused as well
        raise ValueError(f"priority {priority}: at most ±{MAX_BOOST:.0f} seconds")
    return int(seconds * 1000)


def eta_seconds(
    position: int, free_slots: int, boots: Sequence[float], machine_lead: float
) -> float:
    """Seconds until the workspace in that place (1 is next) is likely to run.

    Those within the free slots need one boot; the others first need a machine, launched side by side.
    boots: durations of recent boots. machine_lead: seconds a machine takes to be ready.
    """
    boot = median(boots) if boots else FIRST_BOOT_GUESS
    return boot if position <= free_slots else boot + machine_lead
