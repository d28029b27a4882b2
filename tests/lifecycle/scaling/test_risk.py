"""How large a risk? Worked examples of what was saved and of what happened, each alone and both together."""

from __future__ import annotations

from math import exp

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifecycle.scaling.risk import (
    BIAS_MIN,
    BIAS_REST,
    CREDIT_MAX,
    CREDIT_MIN,
    GAIN,
    MADE_UP,
    MOST,
    RISK_MAX,
    SHARE_S,
    allowed,
    credited,
    forgotten,
    learnt,
    saved,
    shared,
    told,
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
    assert allowed(0.01, CREDIT_MAX, MOST) == pytest.approx(0.01 * exp(3.4)), "thirty times"
    assert allowed(0.01, CREDIT_MIN, BIAS_MIN) == 0.001
    assert allowed(0.3, CREDIT_MAX, MOST) == RISK_MAX


@pytest.mark.parametrize("credit", [0.0, 0.8, CREDIT_MAX])
def test_neither_grows_while_what_is_risked_is_at_its_bound(credit: float) -> None:
    at = MOST - GAIN * credit
    assert learnt(at, credit, 0.01, came=1000, waits=0, rate=0.1) == at
    assert learnt(at, credit, 0.01, came=0, waits=5, rate=0.1) == at - 0.5, "less is learnt"
    assert credited(credit, at, 1.0, HOUR) == min(credit, 1.0 + 0.75 * credit)
    assert credited(credit, at, -1.0, HOUR / 2) < credit
    below = at - 0.1
    assert learnt(below, credit, 0.01, came=1000, waits=0, rate=0.1) == min(MOST, below + 1)
    assert credited(credit, below, 1.0, HOUR / 100) >= credit


def test_a_moment_of_the_promised_risk_saves_nothing_and_one_without_risk_all_of_it() -> None:
    assert saved(0.01, 0.01, bias=0.0) == 0.0
    assert saved(0.0, 0.01, bias=0.0) == 1.0
    assert saved(0.03, 0.01, bias=0.0) == pytest.approx(-2.0)
    assert saved(0.03, 0.01, bias=1.0) == pytest.approx(1 - 3 / exp(1.0)), "it may be that large"
    assert saved(1.0, 0.01, bias=0.0) == pytest.approx(1 - exp(3.4)), "one moment is no night"


def test_an_hour_of_all_of_it_is_a_credit_of_one_and_is_forgotten_in_hours() -> None:
    assert credited(0.0, 0.0, 1.0, HOUR) == 1.0
    assert credited(1.0, 0.0, 0.0, HOUR) == 0.75
    assert credited(0.0, 0.0, 9.0, HOUR) == CREDIT_MAX
    assert credited(0.0, 0.0, -9.0, HOUR) == CREDIT_MIN


def test_ten_waits_more_than_promised_are_a_lesson_and_half_an_hours_of_a_crowd() -> None:
    def learn(came: int, waits: int, rate: float) -> float:
        return learnt(0.0, 0.0, 0.01, came=came, waits=waits, rate=rate)

    assert learn(0, 10, 0.1) == -1.0
    assert learn(1000, 0, 0.1) == 1.0
    assert learn(1000, 10, 0.1) == 0.0, "as promised"
    assert learn(0, 10, 10.0) == pytest.approx(-10 / 180)


def test_who_comes_while_more_is_there_than_wanted_is_promised_to_as_well() -> None:
    assert told(100, 1.0) == 100
    assert told(100, 0.5) == 200, "as many came while nobody had to wait"
    assert told(100, 0.1) == told(100, 0.0) == 100 * MADE_UP


def test_the_share_is_of_who_came_in_the_last_minutes() -> None:
    rate = 2.0
    within = int(rate * SHARE_S)
    assert shared(1.0, False, within, rate) == pytest.approx(1 / exp(1))
    assert shared(0.0, True, within, rate) == pytest.approx(1 - 1 / exp(1))
    assert shared(0.3, True, 0, 0.0) == shared(0.3, False, 0, 0.0) == 0.3, "nobody came"
    half = shared(shared(1.0, False, within // 2, rate), False, within // 2, rate)
    assert half == pytest.approx(shared(1.0, False, within, rate)), "however often it is looked at"
    assert shared(1.0, False, 1000, 0.0) == pytest.approx(0.0), "out of nothing"


def test_what_nothing_confirms_is_forgotten_in_hours() -> None:
    assert forgotten(2.0, 0.0) == 2.0
    assert forgotten(2.0, 4 * HOUR) == pytest.approx(BIAS_REST + (2.0 - BIAS_REST) / exp(1))
    assert forgotten(-1.0, 48 * HOUR) == pytest.approx(BIAS_REST, abs=1e-4)
    assert forgotten(forgotten(2.0, HOUR), HOUR) == pytest.approx(forgotten(2.0, 2 * HOUR))


@given(
    st.floats(-9, 9),
    st.floats(-9, 9),
    st.integers(0, 10**6),
    st.integers(0, 10**6),
    st.floats(0, 1e4),
    st.floats(0, 1),
)
def test_whatever_happens_both_stay_within_their_bounds(
    bias: float, credit: float, came: int, waits: int, rate: float, share: float
) -> None:
    assert BIAS_MIN <= learnt(bias, credit, 0.01, came, waits, rate) <= MOST
    assert 0 <= shared(share, came % 2 == 0, waits, rate) <= 1
    assert came <= told(came, share) <= came * MADE_UP
    assert CREDIT_MIN <= credited(credit, bias, saved(rate / 1e4, 0.01, bias), waits) <= CREDIT_MAX
