"""Running hours as they are used up: who is told, what stops. The leader looks at whoever is due."""

from __future__ import annotations

import structlog

from lifecycle import quota
from lifecycle.model import Workspace, WorkspaceStatus
from lifecycle.notices import QUOTA, Teller
from lifecycle.plans import Plans
from lifecycle.stores.quotas import RedisQuotas
from lifecycle.stores.redis import RedisStore

log = structlog.get_logger(__name__)

INTERVAL = 3.0  # seconds between two looks at who is due
AT_ONCE = 500  # users of one turn; the others come with the next
COUNTDOWN = 300.0  # seconds, where a plan names none


class FairUse:
    def __init__(
        self, store: RedisStore, quotas: RedisQuotas, teller: Teller | None, plans: Plans
    ) -> None:
        """For one time of leading. teller: writes notices down."""
        self._store, self._quotas, self._teller, self._plans = store, quotas, teller, plans
        self._begun = False

    async def tick(self) -> None:
        """Look at every user who is due: O(log n + due)."""
        if not self._begun:
            await self._quotas.everybody_due()
            self._begun = True
        for user_id, seen in await self._quotas.due(await self._store.now_ms(), AT_ONCE):
            await self._look(user_id, seen)

    async def _look(self, user_id: str, seen: str) -> None:
        taken = await self._quotas.taken(user_id)
        running = await self._store.list(user_id, {WorkspaceStatus.RUNNING})
        looks = []
        for name in sorted({workspace.plan for workspace in running}):
            plan = self._plans.of(name)
            theirs = [workspace for workspace in running if workspace.plan == name]
            for alert in quota.alerts(plan.quota, taken):
                await self._tell(running, alert)
                await self._quotas.told(user_id, alert.standing.quota, alert.mark)
            spent = quota.used_up(plan.quota, taken)
            lead = plan.policy.countdown[0] if plan.policy.countdown else COUNTDOWN
            changed = await self._quotas.stop_by([w.id for w in theirs], lead if spent else None)
            if changed:
                log.info("quota.hours", user=user_id, stops=spent, workspaces=changed)
            looks.append(quota.next_look_ms(plan.quota, taken))
        again = min((at_ms for at_ms in looks if at_ms is not None), default=None)
        await self._quotas.again(user_id, seen, again)

    async def _tell(self, running: list[Workspace], alert: quota.Alert) -> None:
        """Once, where the person was seen last; when hours are used up every IDE counts down by itself."""
        workspace = max(running, key=lambda each: each.last_active_at_ms)
        it = alert.standing
        data = {
            "quota": it.quota, "percent": str(alert.threshold), "used": f"{it.used:g}",
            "allowed": f"{it.allowed:g}", "freesAt": str(it.frees_at_ms),
        }  # fmt: skip
        log.info("quota.alert", user=workspace.user_id, **data)
        if self._teller is not None:
            key = f"quota/{it.quota}/{alert.mark.replace(' ', '/')}"
            await self._teller.tell(workspace, QUOTA, key, quota.alert_words(alert), data)
