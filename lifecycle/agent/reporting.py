"""What an agent that joined tells the gateway by itself: where it is, its figures, and what its cloud
announces. A gateway that does not know it (its Redis was lost) is told again until it does."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, replace

from lifecycle.agent.contract import Report
from lifecycle.agent.imds import Imds, NoMetadata, Notice
from lifecycle.agent.join import post

log = logging.getLogger("lifecycle.agent")

INTERVAL = 5.0  # seconds between two reports, and between two looks for notices


@dataclass(frozen=True, slots=True)
class Desk:
    """Where reports go. address: "host:port" of the agent. figures: () → the agent's report."""

    url: str
    machine_id: str
    token: str
    address: str
    instance: str
    figures: Callable[[], Awaitable[Report]]
    imds: Imds | None = None


class Reporting:
    def __init__(self, desk: Desk, interval: float = INTERVAL) -> None:
        self._desk, self._interval = desk, interval
        self._noticed: set[Notice] = set()
        self._pending: list[Notice] = []
        self._news = asyncio.Event()
        self._last = ""

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._report())
            if self._desk.imds is not None:
                group.create_task(self._look(self._desk.imds))

    async def _report(self) -> None:
        while True:
            self._news.clear()
            await self._tell()
            if self._pending and not self._last:
                continue
            try:
                async with asyncio.timeout(self._interval * random.uniform(0.8, 1.2)):
                    await self._news.wait()
            except TimeoutError:
                pass

    async def _tell(self) -> None:
        desk, notice = self._desk, self._pending[0] if self._pending else None
        # What lies here is told to whoever asks with our token: nobody needs it twice, with its secrets.
        figures = replace(await desk.figures(), workspaces=())
        body = {"address": desk.address, "instance": desk.instance, "report": asdict(figures)}
        if notice is not None:
            body["notice"] = {"kind": notice.kind, "at": notice.at_ms}
        url = f"{desk.url}/api/machines/{desk.machine_id}/report"
        try:
            status, told = await asyncio.to_thread(post, url, body, desk.token)
        except OSError as error:
            self._say(f"{desk.url} does not answer: {error}")
            return
        if status == 200:
            self._say("")
            if notice is not None:
                self._pending.remove(notice)
            return
        self._say(f"{desk.url} answers {status}: {told.get('error', {}).get('message', '')}")

    def _say(self, trouble: str) -> None:
        """Once when it begins, and once when it is over."""
        if trouble and trouble != self._last:
            log.warning("cannot report, and go on trying: %s", trouble)
        elif self._last and not trouble:
            log.info("reports arrive again")
        self._last = trouble

    async def _look(self, imds: Imds) -> None:
        while True:
            try:
                found = await asyncio.to_thread(imds.notices)
            except NoMetadata as error:
                log.warning("cannot look for notices: %s", error)
                found = []
            for notice in found:
                if notice not in self._noticed:
                    log.warning("this machine was told: %s at %d", notice.kind, notice.at_ms)
                    self._noticed.add(notice)
                    self._pending.append(notice)
                    self._news.set()
            await asyncio.sleep(self._interval * random.uniform(0.8, 1.2))
