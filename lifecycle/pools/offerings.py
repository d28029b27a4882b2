"""What can be asked for, in which order, and what was not to be had a moment ago. Pure: times are
seconds by the caller's clock.

An offering is an instance type in a subnet: capacity is short by type and zone, and a subnet is in one
zone. What was refused is passed over for a while that grows as long as it goes on being refused, so that
a machine comes from the next offering at once and nobody is asked in vain with every turn of the loops.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

FIRST_PAUSE = 30.0
LONGEST_PAUSE = 600.0
LASTING_PAUSE = 3600.0
"""For what does not change by itself: a type that is not sold in that zone."""


@dataclass(frozen=True, slots=True)
class Offering:
    """instance_type, subnet: "" leaves it to the launch template. zone: asked for where no subnet says it."""

    instance_type: str = ""
    subnet: str = ""
    zone: str = ""


@dataclass(frozen=True, slots=True)
class Refusal:
    """why: in the technology's words. pause: seconds, until `until`. Kept when the pause is over, until
    the offering gives something: the next pause is longer."""

    why: str
    until: float
    pause: float


Refusals = Mapping[Offering, Refusal]


def offerings(instance_types: Sequence[str], subnets: Sequence[str]) -> tuple[Offering, ...]:
    """Every type in every subnet, best first: the first type in each subnet, then the second one."""
    return tuple(
        Offering(instance_type, subnet)
        for instance_type in instance_types or ("",)
        for subnet in subnets or ("",)
    )


def paused(refusals: Refusals, offering: Offering, now: float) -> bool:
    refusal = refusals.get(offering)
    return refusal is not None and now < refusal.until


def order(choices: Iterable[Offering], refusals: Refusals, now: float) -> list[Offering]:
    """Those worth asking for now, best first."""
    return [offering for offering in choices if not paused(refusals, offering, now)]


def refused(
    refusals: Refusals, which: Iterable[Offering], why: str, now: float, *, lasting: bool = False
) -> dict[Offering, Refusal]:
    """The refusals with these added. Calls that were under way together count as one."""
    known = dict(refusals)
    for offering in which:
        before = known.get(offering)
        if before is not None and now < before.until:
            continue
        pause = min(before.pause * 2, LONGEST_PAUSE) if before else FIRST_PAUSE
        if lasting:
            pause = LASTING_PAUSE
        known[offering] = Refusal(why, now + pause, pause)
    return known


def taken(refusals: Refusals, offering: Offering) -> dict[Offering, Refusal]:
    """The refusals after it gave all that was asked for."""
    return {known: refusal for known, refusal in refusals.items() if known != offering}


def passed_over(
    choices: Sequence[Offering], refusals: Refusals, chosen: Offering
) -> list[Offering]:
    """Better ones than the chosen one that did not have it."""
    return [better for better in choices[: choices.index(chosen)] if better in refusals]


def next_try(choices: Iterable[Offering], refusals: Refusals, now: float) -> float:
    """Seconds until one of them is worth asking for."""
    waits = [refusals[each].until - now if each in refusals else 0.0 for each in choices]
    return max(0.0, min(waits, default=0.0))
