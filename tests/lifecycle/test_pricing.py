"""Prices from a file, and what usage costs by them."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from lifecycle.pricing import GIB, PricesError, read, shown
from lifecycle.usage import Interval, Total, pieces

EXAMPLE = Path(__file__).parents[2] / "deploy" / "prices.example.toml"
HOUR = 3_600_000


def test_the_example_can_be_read_and_prices_usage() -> None:
    prices = read(EXAMPLE.read_text())
    assert (prices.currency, prices.default) == ("EUR", Decimal("0.10"))
    rows = [
        Interval("w1", 1, 0, HOUR // 2, "running", "m7i.large"),
        Interval("w1", 1, HOUR // 2, 3 * HOUR // 2, "stored", "", 730 * GIB),
        Interval("w2", 1, 0, HOUR, "running", "a class without a price"),
    ]
    used = pieces(rows, 2 * HOUR, (0, 2 * HOUR))
    assert shown(prices.cost(used)) == 0.21  # 0.06 + 0.05 + 0.10
    everybody = [
        Total("running", "m7i.large", Decimal(HOUR // 2), Decimal(2)),
        Total("running", "a class without a price", Decimal(HOUR), Decimal(0)),
        Total("stored", "", Decimal(HOUR * 730 * GIB), Decimal(73 * GIB)),
    ]
    assert shown(prices.month(everybody)) == 0.21
    assert shown(prices.rate(everybody)) == 0.245


def test_milliseconds_are_not_rounded_away() -> None:
    prices = read('currency = "EUR"\n[running]\ndefault = 3600')
    used = pieces([Interval(f"w{n}", 1, 0, 1) for n in range(1000)], 1, (0, 1))
    assert prices.cost(used) == Decimal("1")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("currency = ", "no TOML"),
        ("[running]\ndefault = 1", "currency"),
        ('currency = "euro"', "three capital letters"),
        ('currency = "EUR"', "running.default"),
        ('currency = "EUR"\nrunning = 1', "must be a table"),
        ('currency = "EUR"\n[running]\ndefault = -1', "running.default: must be a price"),
        ('currency = "EUR"\n[running]\ndefault = 1\nbig = inf', "running.big"),
        ('currency = "EUR"\n[running]\ndefault = "1"', "running.default"),
        ('currency = "EUR"\n[running]\ndefault = 1\n[stored]\ngb = 1', "stored.gb: is not known"),
        ('currency = "EUR"\nprices = 1', "prices: is not known"),
    ],
)
def test_what_is_wrong_is_named(text: str, said: str) -> None:
    with pytest.raises(PricesError, match=said):
        read(text)
