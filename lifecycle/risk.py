"""How large a risk may a moment take, so that the promise is kept over time? Pure: figures in, figures out.

Of those who come, a share of at most `promised` finds no free slot. Machines come five slots at once, so most moments are
safer than that; and what is reckoned is not always what happens. Both correct the one risk that is taken:

| correction | comes of          | is                                                       | what for                        |
|------------|-------------------|----------------------------------------------------------|---------------------------------|
| credit     | what was reckoned | hours in which all of the promised risk was saved; below | what was saved is spent later,  |
|            |                   | 0: overdrawn. Forgotten within hours                     | which makes small pools cheap   |
| bias       | what happened     | logarithm of how much larger a risk may be reckoned than | who did wait is made up for,    |
|            |                   | promised; below 0: smaller. Kept until it is unlearnt    | so that reckonings come true    |

What is saved is reckoned against the promise with the bias in it, so that no moment is counted in both.
"""

from __future__ import annotations

from math import exp

CREDIT_S = 3600.0  # seconds over which the promise is kept
CREDIT_MIN, CREDIT_MAX, GAIN = -1.0, 1.4, 2.0
"""A risk of exp(-2) to exp(2.8) times the promised one: with more, one hour would have the waits of a whole night."""
FADES = 4.0  # times CREDIT_S until a third is left of credit that nothing is added to
RISK_MAX = 0.95
LESSON, LESSON_S = 10.0, 1800.0
"""Waits more or fewer than promised that change the risk taken by a factor of e: so many, and those of so many seconds."""
BIAS_MIN, BIAS_MAX = -2.0, 4.0


def allowed(promised: float, credit: float, bias: float) -> float:
    """The risk to take now, a probability; 0 without a promise. It is `promised` times exp(GAIN * credit) for what was
    saved, times exp(bias) for what happened. The two together are bounded, for each may be at its most: a tenth to
    exp(GAIN * CREDIT_MAX), sixteen, times `promised`, and RISK_MAX."""
    risk = promised * exp(min(GAIN * CREDIT_MAX, GAIN * credit + bias))
    return min(RISK_MAX, max(promised / 10, risk))


def saved(risk: float, promised: float, bias: float) -> float:
    """What a moment of that risk leaves of the one that it may take without credit: 1 is all of it, below 0 it took more.
    A moment's risk counts for no more than the largest that is ever taken on purpose."""
    return 1.0 - min(risk / (promised * exp(bias)), exp(GAIN * CREDIT_MAX))


def credited(credit: float, saving: float, seconds: float) -> float:
    """Credit, CREDIT_MIN to CREDIT_MAX, after so many seconds in which so much was saved."""
    credit += (saving - credit / FADES) * seconds / CREDIT_S
    return min(CREDIT_MAX, max(CREDIT_MIN, credit))


def learnt(bias: float, promised: float, came: int, waits: int, rate: float) -> float:
    """Bias, BIAS_MIN to BIAS_MAX, once so many more came and so many found no free slot. rate: of those who come, people a
    second: many waits of a crowd say as much as a few of a small pool."""
    expected = promised * rate * LESSON_S
    bias += (promised * came - waits) / max(LESSON, expected)
    return min(BIAS_MAX, max(BIAS_MIN, bias))
