"""What the proxy does wrong on purpose, and to which calls."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType

from tests.aws.calls import CLIENTS, Call


@dataclass
class Fault:
    """Holds until `times` calls were hit, until `remove()`, or until the end of the with block.

    drop_reply: AWS does it, the caller's connection is cut. drop_request: nothing happens, it is cut.
    error: (code, status) instead of doing it. delay: seconds before it is done. before: called in a
    thread of its own, ahead of doing it. answer: makes the body that the caller gets.
    when: further condition. share: of the calls, drawn by `seed`. hits: calls it was done to.
    """

    service: str | None = None
    action: str | None = None
    times: int | None = None
    share: float = 1.0
    seed: int = 0
    when: Callable[[Call], bool] | None = None
    drop_reply: bool = False
    drop_request: bool = False
    error: tuple[str, int] | None = None
    delay: float = 0.0
    before: Callable[[Call], object] | None = None
    answer: Callable[[Call, bytes], bytes] | None = None
    hits: int = 0
    removed: bool = False
    _dice: random.Random = field(default_factory=random.Random, repr=False)

    def __post_init__(self) -> None:
        self.service = CLIENTS.get(self.service or "", self.service)
        self._dice.seed(self.seed)

    def strikes(self, call: Call) -> bool:
        """Whether it is done to this call; counts it then."""
        if self.removed or self.service not in (None, call.service):
            return False
        if self.action not in (None, call.action) or (self.when and not self.when(call)):
            return False
        if self.times is not None and self.hits >= self.times:
            return False
        if self.share < 1 and self._dice.random() >= self.share:
            return False
        self.hits += 1
        return True

    def remove(self) -> None:
        self.removed = True

    def __enter__(self) -> Fault:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.remove()
