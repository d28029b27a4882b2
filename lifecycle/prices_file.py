"""The file of `--prices`: TOML, as deploy/prices.example.toml shows it."""

from __future__ import annotations

from pathlib import Path

from lifecycle.pricing import Prices, PricesError, read


def read_prices(path: str) -> Prices | None:
    """The prices of a file; "" is no file, and nothing is priced. Raises PricesError, which names the file."""
    if not path:
        return None
    try:
        return read(Path(path).read_text("utf-8"))
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise PricesError(
            f"{path}: it cannot be read ({why}); correct the path, or leave --prices out"
        ) from error
    except UnicodeDecodeError as error:
        raise PricesError(f"{path}: it is no text in UTF-8 (byte {error.start})") from error
    except PricesError as error:
        raise PricesError(f"{path}: {error}") from error
