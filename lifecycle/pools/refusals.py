"""What AWS refuses, as the error of a pool that tells the loops what follows from it."""

from __future__ import annotations

from collections.abc import Sequence

from lifecycle.aws import explain, is_throttled
from lifecycle.pools import PoolError, Throttled


def pool_error(error: BaseException, doing: str) -> PoolError:
    """doing: what was asked, of what."""
    words = explain(error, doing)
    return Throttled(words) if is_throttled(error) else PoolError(words)


def all_in_one(words: str, errors: Sequence[BaseException]) -> PoolError:
    """Of several calls made together: one that was throttled says so for all of them."""
    return Throttled(words) if any(isinstance(e, Throttled) for e in errors) else PoolError(words)
