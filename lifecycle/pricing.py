"""What does it cost? Prices by machine class, and usage times prices; pure, in decimals.

Errors: PricesError (what is wrong in the file, where, and what belongs there).

    currency = "EUR"

    [running]            # an hour of a running workspace, by the class of its machine
    default = 0.10       # every class that has no price of its own
    standard = 0.10
    "m7i.large" = 0.12

    [stored]
    gib-month = 0.05     # a GiB of files of a workspace that does not run; a month has 730 hours
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import ROUND_HALF_EVEN, Decimal
from difflib import get_close_matches
from typing import Any

from lifecycle.usage import RUNNING, Piece, Total

HOUR_MS = 3_600_000
MONTH_HOURS = 730  # 8,760 hours of a year over 12
GIB = 2**30
SHOWN = Decimal("0.0001")
PRICE_MAX = 10**6  # beyond is a slip of the pen, and sums would outgrow what decimals hold


class PricesError(Exception):
    """The file with prices is none. str(error) says what is wrong, and what belongs there."""


@dataclass(frozen=True, slots=True)
class Prices:
    """running: machine class → price of an hour. default: of a class that is not named there."""

    currency: str
    running: Mapping[str, Decimal] = field(default_factory=dict)
    default: Decimal = Decimal(0)
    stored: Decimal = Decimal(0)
    """Of a GiB in a month."""

    def hour(self, kind: str, machine_class: str, size: int) -> Decimal:
        """Price of an hour."""
        if kind == RUNNING:
            return self.running.get(machine_class, self.default)
        return self.stored * size / GIB / MONTH_HOURS

    def machine_hour(self, machine_class: str, slots: int) -> float:
        """Price of an hour of a machine with somebody on each of its slots."""
        return float(self.hour(RUNNING, machine_class, 0)) * slots

    def cost(self, used: Iterable[Piece]) -> Decimal:
        """Exact from milliseconds; round the sum, not its parts."""
        parts = (p.milliseconds * self.hour(p.kind, p.machine_class, p.bytes) for p in used)
        return sum(parts, Decimal(0)) / HOUR_MS

    def month(self, used: Iterable[Total]) -> Decimal:
        """Of everybody in a month."""
        parts = (t.amount * self.hour(t.kind, t.machine_class, 1) for t in used)
        return sum(parts, Decimal(0)) / HOUR_MS

    def rate(self, used: Iterable[Total]) -> Decimal:
        """Price of an hour of everything that goes on."""
        parts = (t.size * self.hour(t.kind, t.machine_class, 1) for t in used)
        return sum(parts, Decimal(0))


def shown(amount: Decimal) -> float:
    """As answers and pages show it: four places."""
    return float(amount.quantize(SHOWN, ROUND_HALF_EVEN))


def read(text: str) -> Prices:
    """Prices from a TOML file's text. Raises PricesError."""
    try:
        data = tomllib.loads(text, parse_float=Decimal)
    except (ValueError, ArithmeticError, RecursionError) as error:
        raise PricesError(f"it is no TOML: {error}") from None
    _only(data, {"currency", "running", "stored"}, "")
    currency = data.get("currency")
    if not isinstance(currency, str) or not re.fullmatch(r"[A-Z]{3}", currency):
        raise PricesError('currency: must be three capital letters, as in currency = "EUR"')
    running = {name: _price(value, f"running.{name}") for name, value in _part(data, "running")}
    if "default" not in running:
        raise PricesError("running.default: say what an hour of any other class costs (0 is free)")
    stored = dict(_part(data, "stored"))
    _only(stored, {"gib-month"}, "stored.")
    gib_month = _price(stored.get("gib-month", 0), "stored.gib-month")
    return Prices(currency, running, running.pop("default"), gib_month)


def _part(data: Mapping[str, Any], name: str) -> Iterable[tuple[str, Any]]:
    part = data.get(name, {})
    if not isinstance(part, dict):
        raise PricesError(f"{name}: must be a table of prices, headed [{name}]")
    return part.items()


def _only(found: Mapping[str, Any], known: set[str], where: str) -> None:
    for name in found:
        if name not in known:
            near = get_close_matches(name, known, 1)
            meant = f"did you mean {near[0]}?" if near else f"known: {', '.join(sorted(known))}"
            raise PricesError(f"{where}{name:.60}: is not known; {meant}")


def _price(value: Any, where: str) -> Decimal:
    """Not negative, and no infinity: TOML knows those too."""
    if isinstance(value, dict):  # m7i.large = 0.12 is TOML for a table m7i with a key large
        raise PricesError(f'{where}: put a name with dots in quotes, as in "m7i.large" = 0.12')
    number = isinstance(value, int | Decimal) and not isinstance(value, bool)
    price = Decimal(value) if number else Decimal(-1)
    if not price.is_finite() or not 0 <= price <= PRICE_MAX:
        said = repr(value) if isinstance(value, str) else str(value).lower()
        raise PricesError(f"{where}: must be a price such as 0.10, not {said:.40}")
    return price
