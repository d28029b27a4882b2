"""How large a risk may a moment take, so that the promise is kept over time? Pure: figures in, figures out.

Of those who come, a share of at most `promised` finds no free slot. Machines come five slots at once, so most moments are
safer than that; and what is reckoned is not always what happens. Both correct the one risk that is taken:

| correction | comes of          | is                                                       | what for                        |
|------------|-------------------|----------------------------------------------------------|---------------------------------|
| credit     | what was reckoned | hours in which all of the promised risk was saved; below | what was saved is spent later,  |
|            |                   | 0: overdrawn. Forgotten within hours                     | which makes small pools cheap   |
| bias       | what happened     | logarithm of how much larger a risk may be reckoned than | who did wait is made up for,    |
|            |                   | promised; below 0: smaller. Forgotten while nothing is   | so that reckonings come true    |
|            |                   | learnt                                                   |                                 |

What is saved is reckoned against the promise with the bias in it, so that no moment is counted in both. Together they are
bounded, and neither grows at the bound: what could not be spent today would be spent tomorrow, on whoever comes first.

The promise is to all who come, and while more is there than it asks for hardly anybody waits: where that changes every few
minutes, more of the others may.
"""

from __future__ import annotations

from math import exp

CREDIT_S = 3600.0  # seconds over which the promise is kept
CREDIT_MIN, CREDIT_MAX, GAIN = -1.0, 1.4, 2.0
FADES = 4.0  # times CREDIT_S until a third is left of what nothing is added to
MOST = 3.4
"""Logarithm of the largest multiple of the promise that is risked, thirty: slots come in machines, which are kept for a
while, so a moment's risk is far below the largest one most of the time."""
RISK_MAX = 0.95
LESSON, LESSON_S = 10.0, 1800.0
"""Waits more or fewer than promised that change the risk taken by a factor of e: so many, and those of so many seconds."""
BIAS_MIN, BIAS_REST = -2.0, 0.4
"""BIAS_REST: what stays of what was learnt. Lead times are a high quantile of boots, so fewer wait than is reckoned. A pool
that begins takes the promise at its word: 0."""
SHARE_S = 600.0
"""Seconds of arrivals that the share of them is of: those of a night in which more was there than wanted are not made up for
in the morning."""
MADE_UP = 3.0  # times as many as promised may wait, at most, of those who come while no more is there than wanted


def allowed(promised: float, credit: float, bias: float) -> float:
    """The risk to take now, a probability; 0 without a promise. It is `promised` times exp(GAIN * credit) for what was
    saved, times exp(bias) for what happened; a tenth to exp(MOST) times `promised`, and at most RISK_MAX."""
    risk = promised * exp(min(MOST, GAIN * credit + bias))
    return min(RISK_MAX, max(promised / 10, risk))


def saved(risk: float, promised: float, bias: float) -> float:
    """What a moment of that risk leaves of the one that it may take without credit: 1 is all of it, below 0 it took more.
    A moment's risk counts for no more than the largest that is ever taken on purpose."""
    return 1.0 - min(risk / (promised * exp(bias)), exp(MOST))


def credited(credit: float, bias: float, saving: float, seconds: float) -> float:
    """Credit, CREDIT_MIN to CREDIT_MAX, after so many seconds in which so much was saved."""
    found = credit + (saving - credit / FADES) * seconds / CREDIT_S
    if _at_most(credit, bias):
        found = min(credit, found)
    return min(CREDIT_MAX, max(CREDIT_MIN, found))


def shared(share: float, bound: bool, came: int, rate: float) -> float:
    """The share of those who came of late while no more was there than wanted, once so many more did. bound: whether
    they came then. rate: of those who come, people a second."""
    if not came:
        return share
    return bound + (share - bound) * exp(-came / max(1.0, rate * SHARE_S))


def told(came: int, share: float) -> float:
    """As how many those count who came while no more was there than wanted: the others are promised to as well."""
    return came * (1 / share if share * MADE_UP > 1 else MADE_UP)


def learnt(
    bias: float, credit: float, promised: float, came: float, waits: int, rate: float
) -> float:
    """Bias, BIAS_MIN to MOST, once so many more came and so many found no free slot. rate: of those who come, people a
    second: many waits of a crowd say as much as a few of a small pool."""
    expected = promised * rate * LESSON_S
    found = bias + (promised * came - waits) / max(LESSON, expected)
    if _at_most(credit, bias):
        found = min(bias, found)
    return min(MOST, max(BIAS_MIN, found))


def forgotten(bias: float, seconds: float) -> float:
    """Bias after so many seconds in which nothing could be learnt: what was learnt of one evening says less of the
    morning after."""
    return BIAS_REST + (bias - BIAS_REST) * exp(-seconds / (FADES * CREDIT_S))


def _at_most(credit: float, bias: float) -> bool:
    return GAIN * credit + bias >= MOST
