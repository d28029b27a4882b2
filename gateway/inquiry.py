"""What pages and the API ask of records and machines: how long it takes, what an IDE said, where it listens."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from gateway.progress import Notice, no_notice
from lifecycle import waiting
from lifecycle.agents import AgentError, Agents
from lifecycle.model import Workspace
from lifecycle.pace import Pace
from lifecycle.queueing import boost_ms
from lifecycle.stores import StoreError
from lifecycle.stores.fleet import RedisFleet
from lifecycle.stores.redis import RedisStore
from lifecycle.waiting import Bounds, Outlook

log = structlog.get_logger(__name__)

PACE_FRESH = 1.0  # seconds; a list asks once per row
PORTS_FRESH = 3.0  # seconds a machine's word on a workspace's ports is believed
PORTS_MAX = 1000  # workspaces whose ports are remembered; above it all are asked for again
LOG_LINES = 60


class Inquiry:
    def __init__(
        self,
        store: RedisStore,
        fleet: RedisFleet,
        agents: Agents,
        pace: Callable[[], Awaitable[Pace]],
        bounds: Bounds,
        notice: Notice = no_notice,
    ) -> None:
        """pace: how fast things go now. bounds: the pool's. notice: why it has no machines to give, "" while
        it has."""
        self._store, self._fleet, self._agents = store, fleet, agents
        self._ask_pace, self._bounds, self._ask_notice = pace, bounds, notice
        self._notice_known = (0.0, "")
        self._outlook_known: tuple[float, int, Outlook] | None = None
        self._ports_known: dict[tuple[str, int], tuple[float, frozenset[int]]] = {}

    async def eta(self, position: int, workspace: Workspace | None = None) -> float:
        """Seconds until the workspace in that place of the queue is likely to run; 0 is one that boots now.
        workspace: the one in that place, whose priority says who may overtake it."""
        now_ms, outlook = await self._outlook()
        if workspace is None:
            return outlook.eta(position)
        waited = max(0, now_ms - workspace.status_since_ms) / 1000
        return outlook.eta(position, boost_ms(workspace.priority) / 1000, waited)

    async def _outlook(self) -> tuple[int, Outlook]:
        """The store's clock and what there is and comes, as of a moment ago."""
        now = asyncio.get_running_loop().time()
        if self._outlook_known is None or now >= self._outlook_known[0]:
            pace, machines = await self._ask_pace(), await self._fleet.machines()
            found = waiting.outlook(pace, machines, self._bounds)
            self._outlook_known = (now + PACE_FRESH, pace.now_ms, found)
        return self._outlook_known[1:]

    async def notice(self) -> str:
        """Why the pool has no machines to give just now, "" while it has or that cannot be told."""
        now = asyncio.get_running_loop().time()
        if now >= self._notice_known[0]:
            try:
                text = await self._ask_notice()
            except StoreError as error:
                log.warning("notice.unknown", why=str(error))
                text = ""
            self._notice_known = (now + PACE_FRESH, text)
        return self._notice_known[1]

    async def place(self, workspace: Workspace) -> tuple[int | None, float | None]:
        """Its place in the queue and the seconds until it runs; None when it is not queued, or when
        nobody can tell for want of machines."""
        position = await self._store.queue_position(workspace.id)
        unknown = position is None or await self.notice()
        return position, None if position is None or unknown else await self.eta(
            position, workspace
        )

    async def ide_log(self, workspace: Workspace) -> str:
        """The last lines of its IDE's output; "" when nobody has them."""
        machine = await self._fleet.machine(workspace.machine_id)
        if machine is None:
            return ""
        try:
            return await self._agents.log(machine, workspace.id, LOG_LINES)
        except AgentError:
            return ""

    async def ports(self, workspace: Workspace) -> frozenset[int]:
        """What its own processes listen on, as its machine says: nobody else's port is dialled."""
        key = (workspace.id, workspace.epoch)
        now = asyncio.get_running_loop().time()
        known = self._ports_known.get(key)
        if known is not None and now < known[0]:
            return known[1]
        try:
            machine = await self._fleet.machine(workspace.machine_id)
            ports = frozenset(await self._agents.ports(machine, workspace.id) if machine else ())
        except (AgentError, StoreError) as error:
            log.warning("ports.unknown", workspace=workspace.id, why=str(error))
            return known[1] if known is not None else frozenset()
        if len(self._ports_known) > PORTS_MAX:
            self._ports_known.clear()
        self._ports_known[key] = (now + PORTS_FRESH, ports)
        return ports
