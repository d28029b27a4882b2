"""How large a risk? Worked examples of what was saved and of what happened, each alone and both together."""

from __future__ import annotations

from math import exp

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifecycle.risk import (
    BIAS_MAX,
    BIAS_MIN,
    CREDIT_MAX,
    CREDIT_MIN,
    RISK_MAX,
    allowed,
    credited,
    learnt,
    saved,
)

HOUR = 3600.0


def test_with_nothing_saved_and_nothing_learnt_it_is_the_promise() -> None:
    assert allowed(0.01, credit=0.0, bias=0.0) == 0.01
    assert allowed(0.0, credit=1.0, bias=1.0) == 0.0, "without a promise there is none"


def test_what_was_saved_and_what_happened_multiply_it() -> None:
    assert allowed(0.01, credit=0.5, bias=0.0) == pytest.approx(0.01 * exp(1.0))
    assert allowed(0.01, credit=0.0, bias=0.7) == pytest.approx(0.01 * exp(0.7))
    assert allowed(0.01, credit=0.5, bias=-1.0) == pytest.approx(0.01), (
        "each makes up for the other"
    )


def test_both_together_are_bounded() -> None:
    assert allowed(0.01, CREDIT_MAX, BIAS_MAX) == pytest.approx(0.01 * exp(2.8))
    assert allowed(0.01, CREDIT_MIN, BIAS_MIN) == 0.001
    assert allowed(0.3, CREDIT_MAX, BIAS_MAX) == RISK_MAX


def test_a_moment_of_the_promised_risk_saves_nothing_and_one_without_risk_all_of_it() -> None:
    assert saved(0.01, 0.01, bias=0.0) == 0.0
    assert saved(0.0, 0.01, bias=0.0) == 1.0
    assert saved(0.03, 0.01, bias=0.0) == pytest.approx(-2.0)
    assert saved(0.03, 0.01, bias=1.0) == pytest.approx(1 - 3 / exp(1.0)), "it may be that large"
    assert saved(1.0, 0.01, bias=0.0) == pytest.approx(1 - exp(2.8)), "one moment is no night"


def test_an_hour_of_all_of_it_is_a_credit_of_one_and_is_forgotten_in_hours() -> None:
    assert credited(0.0, 1.0, HOUR) == 1.0
    assert credited(1.0, 0.0, HOUR) == 0.75
    assert (credited(0.0, 9.0, HOUR), credited(0.0, -9.0, HOUR)) == (CREDIT_MAX, CREDIT_MIN)


def test_ten_waits_more_than_promised_are_a_lesson_and_half_an_hours_of_a_crowd() -> None:
    assert learnt(0.0, 0.01, came=0, waits=10, rate=0.1) == -1.0
    assert learnt(0.0, 0.01, came=1000, waits=0, rate=0.1) == 1.0
    assert learnt(0.0, 0.01, came=1000, waits=10, rate=0.1) == 0.0, "as promised"
    assert learnt(0.0, 0.01, came=0, waits=10, rate=10.0) == pytest.approx(-10 / 180)


@given(st.floats(-9, 9), st.integers(0, 10**6), st.integers(0, 10**6), st.floats(0, 1e4))
def test_whatever_happens_bias_stays_within_its_bounds(
    bias: float, came: int, waits: int, rate: float
) -> None:
    assert BIAS_MIN <= learnt(bias, 0.01, came, waits, rate) <= BIAS_MAX
