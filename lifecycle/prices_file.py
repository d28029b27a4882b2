"""The file of `--prices`: TOML, as deploy/prices.example.toml shows it."""

from __future__ import annotations

from lifecycle.named_file import read_named
from lifecycle.pricing import Prices, PricesError, read


def read_prices(path: str) -> Prices | None:
    """The prices of a file; "" is no file, and nothing is priced. Raises PricesError, which names the file."""
    return read_named(path, "--prices", read, PricesError) if path else None
