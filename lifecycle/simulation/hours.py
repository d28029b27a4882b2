"""What somebody's running hours are: what is left of them by their plan, and what they cost. Pure."""

from __future__ import annotations

from decimal import Decimal

from lifecycle import quota
from lifecycle.model import Machine, Workspace
from lifecycle.plans import Quota
from lifecycle.pricing import Prices
from lifecycle.simulation.clock import Clock
from lifecycle.usage import RUNNING, Piece, month_of, month_window

DAY_MS = 86_400_000


class Hours:
    """prices: None: nothing is billed. counted_from: seconds; what ran before is not billed."""

    def __init__(
        self, clock: Clock, bounds: Quota, prices: Prices | None, counted_from: float
    ) -> None:
        self._clock, self._bounds, self.prices = clock, bounds, prices
        self._bounded = bool(bounds.hours_a_day or bounds.hours_a_month)
        self._counted_ms = clock.ms(counted_from)
        # user → when metered, ms in that day, in that month
        self._metered: dict[str, tuple[int, int, int]] = {}
        self.billed = Decimal(0)

    def used_up(self, user_id: str) -> bool:
        """Whether they have no running hours left, as the plan counts them."""
        if not self._bounded:
            return False
        day_ms, month_ms = self._taken(user_id)
        taken = quota.Taken(self._clock.now_ms, day_ms=day_ms, month_ms=month_ms)
        return quota.used_up(self._bounds, taken)

    def _taken(self, user_id: str) -> tuple[int, int]:
        """Milliseconds that their workspace ran today, and this month."""
        at, day_ms, month_ms = self._metered.get(user_id, (0, 0, 0))
        day_begins, month_begins = self._periods()
        return day_ms * (at >= day_begins), month_ms * (at >= month_begins)

    def _periods(self) -> tuple[int, int]:
        """When this day and this month began, UTC."""
        now = self._clock.now_ms
        return now - now % DAY_MS, month_window(month_of(now))[0]

    def ran(self, workspace: Workspace, machine: Machine) -> None:
        """It ran there until now: that counts, and costs."""
        if self._bounded:
            now = self._clock.now_ms
            day_ms, month_ms = (
                before + now - max(workspace.running_since_ms, begins)
                for before, begins in zip(
                    self._taken(workspace.user_id), self._periods(), strict=True
                )
            )
            self._metered[workspace.user_id] = (now, day_ms, month_ms)
        self.bill(workspace, machine)

    def bill(self, workspace: Workspace, machine: Machine) -> None:
        """What it ran there until now."""
        now, since = self._clock.now_ms, max(workspace.running_since_ms, self._counted_ms)
        if self.prices is not None and since < now:
            piece = Piece(workspace.id, RUNNING, machine.machine_class, 0, since, now)
            self.billed += self.prices.cost([piece])
