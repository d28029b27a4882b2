"""What a machine that joins by itself is told at its start: where to, and the code of its launch.

Whoever may read a machine's user data reads this. So there is nothing in it but an address and a code
that opens one thing once (see lifecycle.joining).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

URL = "IDE_GATEWAY_URL"
JOIN = "IDE_GATEWAY_JOIN"


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """url: what machines call. port: where their agents listen. code: (first, count) of a launch → its
    join code."""

    url: str
    port: int
    code: Callable[[int, int], str] = field(repr=False)

    def environment(self, first: int, count: int = 1) -> dict[str, str]:
        """For the machines m-{first} … of one launch."""
        return {URL: self.url, JOIN: self.code(first, count)}

    def user_data(self, first: int, count: int = 1) -> str:
        """The same as lines; nothing else belongs there."""
        pairs = self.environment(first, count).items()
        return "".join(f"{name}={value}\n" for name, value in pairs)
