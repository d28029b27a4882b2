"""Slots for a promise, held against brute force where few come, and against dice where many do."""

from __future__ import annotations

from itertools import pairwise
from math import exp, isnan, lgamma, log
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifecycle.scaling.promise import EXACT, GRID, shortfall, slots_needed

PROBABILITIES = (1e-6, 1e-4, 1e-3, 0.01, 0.05, 0.2, 0.5)
TOO_MANY = 10**8

probabilities = st.floats(1e-6, 0.5)
means = st.floats(0, 2000) | st.floats(0, 12)
spreads = st.floats(1, 6)


def counts(mean: float, spread: float, most: int = 600) -> list[float]:
    """P(0), P(1), … of a negative binomial law with that mean and variance spread × mean; or of a Poisson law."""
    if mean == 0:
        return [1.0]
    if spread == 1:
        return [exp(n * log(mean) - mean - lgamma(n + 1)) for n in range(most)]
    size = mean / (spread - 1)
    q = 1 - 1 / spread
    return [
        exp(lgamma(n + size) - lgamma(size) - lgamma(n + 1) + size * log(1 - q) + n * log(q))
        for n in range(most)
    ]


def brute(free: int, up: float, down: float, spread: float) -> float:
    """P(came - left ≥ free), summed up over all pairs."""
    come, leave = counts(up, spread), counts(down, 1, 120)
    at_least = [0.0] * (len(come) + 1)
    for n in range(len(come) - 1, -1, -1):
        at_least[n] = at_least[n + 1] + come[n]
    return sum(p * at_least[max(0, min(n + free, len(come)))] for n, p in enumerate(leave))


@given(probabilities, means, means, spreads)
def test_the_slots_are_the_fewest_that_keep_the_promise(
    probability: float, up: float, down: float, spread: float
) -> None:
    free = slots_needed(probability, up, down, spread)
    assert shortfall(free, up, down, spread) <= probability * (1 + 1e-9)
    if free:
        assert shortfall(free - 1, up, down, spread) > probability * (1 - 1e-9)


@pytest.mark.parametrize(
    ("up", "down", "spread"),
    [
        (0.05, 0.0, 1), (0.5, 0.0, 1), (0.5, 0.5, 1), (3.0, 1.0, 1), (8.0, 2.0, 1), (2.0, 8.0, 1),
        (0.3, 0.1, 2), (3.0, 3.0, 2), (0.5, 1.0, 6), (1.6, 2.0, 6), (4.0, 0.5, 2.5),
    ],
)  # fmt: skip
def test_of_few_it_is_counted_out(up: float, down: float, spread: float) -> None:
    """Means and spreads are rounded to GRID: it lies between the exact probabilities of half a step less and more."""
    step = GRID**0.51
    for free in (0, 1, 2, 5, 9, 15, 30):
        likely = shortfall(free, up, down, spread)
        far = (spread - 1) * step + 1 if spread > 1 else 1.0
        near = [
            brute(free, up * a, down * b, max(1.0, s))
            for a in (1 / step, step)
            for b in (1 / step, step)
            for s in {spread / step, float(spread), far}
        ]
        assert min(near) * 0.98 - 1e-9 <= likely <= max(near) * 1.02 + 0.02


@pytest.mark.parametrize("up", [0.1, 1.0, 4.0, 10.0])
@pytest.mark.parametrize("spread", [1, 3])
def test_of_few_the_slots_are_those_of_brute_force(up: float, spread: float) -> None:
    if spread * up > EXACT:
        return
    for probability in PROBABILITIES:
        exact = next(n for n in range(600) if brute(n, up, 0.0, spread) <= probability)
        assert abs(slots_needed(probability, up, 0.0, spread) - exact) <= 1 + exact * 0.05


def poisson(mean: float, dice: Random) -> int:
    """Large means are halved until a product of dice can count them."""
    if mean > 30:
        return poisson(mean / 2, dice) + poisson(mean / 2, dice)
    bound, product, n = exp(-mean), dice.random(), 0
    while product > bound:
        product *= dice.random()
        n += 1
    return n


@pytest.mark.parametrize(
    ("up", "down", "spread"), [(40, 0, 1), (60, 50, 1), (30, 10, 3), (80, 80, 2), (50, 0, 6)]
)
def test_of_many_it_is_as_often_as_dice_say(up: float, down: float, spread: float) -> None:
    """20,000 throws: 0.01 is known to 0.002. Tolerance: a fifth of it and 0.004."""
    dice = Random(f"{up} {down} {spread}")
    throws = []
    for _ in range(20_000):
        mean = dice.gammavariate(up / (spread - 1), spread - 1) if spread > 1 else up
        throws.append(poisson(mean, dice) - (poisson(down, dice) if down else 0))
    for probability in (0.01, 0.05, 0.2, 0.5):
        free = slots_needed(probability, up, down, spread)
        happens = sum(net >= free for net in throws) / len(throws)
        one_less = sum(net >= free - 1 for net in throws) / len(throws)
        assert happens <= probability * 1.2 + 0.004
        assert one_less >= probability * 0.8 - 0.004


regimes = st.sampled_from(["few", "many"])


def of(regime: str, share: float, spread: float) -> float:
    """People of whom the law is counted out, or is normal."""
    return share * (EXACT * 0.9) / spread if regime == "few" else EXACT * (1.1 + 50 * share)


@given(regimes, st.floats(0, 0.9), st.floats(0, 0.1), spreads, probabilities)
def test_more_comings_want_no_fewer_slots(
    regime: str, share: float, more: float, spread: float, probability: float
) -> None:
    fewer, many = of(regime, share, spread), of(regime, share + more, spread)
    assert slots_needed(probability, fewer, 0.5, spread) <= slots_needed(probability, many, 0.5, spread)  # fmt: skip


@given(regimes, st.floats(0, 0.9), st.floats(0, 0.1), spreads, probabilities)
def test_more_leavings_want_no_more_slots(
    regime: str, share: float, more: float, spread: float, probability: float
) -> None:
    up = of(regime, 0.5, spread) if regime == "many" else 1.0
    fewer, many = of(regime, share, 1.0) * 0.3, of(regime, share + more, 1.0) * 0.3
    assert slots_needed(probability, up, many, spread) <= slots_needed(probability, up, fewer, spread)  # fmt: skip


@given(st.floats(13, 500), st.floats(0, 100), spreads, st.floats(0, 2), st.floats(1e-6, 0.1))
def test_wider_comings_want_no_fewer_slots(
    up: float, down: float, spread: float, more: float, probability: float
) -> None:
    """Of many, and for a tail: of few, or half of the time, people who come in crowds mostly do not come."""
    assert slots_needed(probability, up, down, spread) <= slots_needed(probability, up, down, spread + more)  # fmt: skip


@given(probabilities, st.floats(1, 2), means, means, spreads)
def test_a_firmer_promise_wants_no_fewer_slots(
    probability: float, times: float, up: float, down: float, spread: float
) -> None:
    weaker = min(0.5, probability * times)
    assert slots_needed(weaker, up, down, spread) <= slots_needed(probability, up, down, spread)


@given(st.integers(0, 5000), means, means, spreads)
def test_more_free_slots_are_no_larger_risk(
    free: int, up: float, down: float, spread: float
) -> None:
    risks = [shortfall(free + more, up, down, spread) for more in (0, 1, 10, 1000)]
    assert all(0.0 <= risk <= 1.0 for risk in risks)
    assert all(a >= b - 1e-12 for a, b in pairwise(risks))
    assert shortfall(-1, up, down, spread) >= risks[0]


@pytest.mark.parametrize("spread", [1, 1.5, 2, 3, 6])
@pytest.mark.parametrize("down", [0.0, 2.0])
def test_where_counting_ends_and_the_normal_law_begins_nothing_jumps(
    spread: float, down: float
) -> None:
    """By two slots and a sixth, where ever it matters: 0.1 % and more. Of a millionth by a fifth."""
    up = (EXACT - down) / spread
    for probability in PROBABILITIES:
        counted = slots_needed(probability, up * 0.999, down, spread)
        normal = slots_needed(probability, up * 1.001, down, spread)
        assert abs(counted - normal) <= 2 + counted * (1 / 6 if probability >= 1e-3 else 1 / 5)


EXTREME = (0.0, 1e-300, 1e-12, 0.3, 11.9, 12.1, 1e3, 1e6)


@pytest.mark.parametrize("up", EXTREME)
@pytest.mark.parametrize("down", EXTREME)
def test_extremes_have_an_answer(up: float, down: float) -> None:
    for spread in (1.0, 1.00001, 1.0001, 1.04, 6.0):
        for probability in PROBABILITIES:
            free = slots_needed(probability, up, down, spread)
            assert isinstance(free, int)
            assert 0 <= free < TOO_MANY
        for free in (-1, 0, 1, 1000, 10**9):
            risk = shortfall(free, up, down, spread)
            assert not isnan(risk)
            assert 0.0 <= risk <= 1.0


def test_nobody_comes() -> None:
    assert slots_needed(0.01, 0.0, 0.0) == 1, "who comes nevertheless wants one"
    assert slots_needed(0.01, 0.0, 100.0) == 0, "so many leave"
    assert shortfall(0, 0.0, 0.0) == pytest.approx(1.0, abs=0.01)
    assert shortfall(2, 0.0, 0.0) < 1e-4


def test_examples() -> None:
    """P(Poisson(1) ≥ n) for n = 0, 1, …; nobody is taken for one in a hundred."""
    found = [shortfall(n, 1.0, 0.0) for n in range(6)]
    assert found == pytest.approx([1.0, 0.632, 0.264, 0.080, 0.019, 0.0037], abs=0.005)
    assert slots_needed(0.05, 1.0, 0.0) == 4
    assert slots_needed(0.001, 1000.0, 0.0) == pytest.approx(1000 + 3.09 * 1000**0.5, abs=3)


def test_however_small_the_promise_is_it_can_be_kept() -> None:
    few = slots_needed(1e-9, 30.0, 25.0)
    assert few < slots_needed(1e-17, 30.0, 25.0) < slots_needed(1e-300, 30.0, 25.0) < 1000
