"""How far a workspace's start has come: said in words, and followed live as server-sent events."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Protocol

from sse_starlette import EventSourceResponse
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from lifecycle.model import Event, Workspace, WorkspaceStatus
from lifecycle.stores import StoreUnavailable

_W = WorkspaceStatus

QUEUE_INTERVAL = 2.0
"""Seconds: a place in the queue is told at least this often."""

LOOK_INTERVAL = 5.0
"""Seconds between looks at the record without news: an event lost on the way delays, it never strands."""

MAX_STREAMS = 20
"""Open streams of one workspace in this process. Who asks for more gets one account, and asks again."""

LOG_MAX_CHARS = 16_384
"""What a page shows of the IDE's log; the older part is cut off."""

ENDED = frozenset({_W.RUNNING, _W.FAILED})
"""Statuses after which nothing follows by itself: the stream says so and ends."""

UNAVAILABLE: Mapping[str, Any] = {
    "status": "unavailable",
    "message": "The gateway cannot reach its records just now. It goes on trying.",
    "steps": {},
}
GONE: Mapping[str, Any] = {
    "status": "gone",
    "message": "This workspace does not exist any more.",
    "steps": {},
}

MOVING = "moving: "
"""What the reason of a workspace begins with whose machine is being taken away."""

MACHINE_STOPPING = "machine-stopping"
"""Step of a queued workspace whose machine cannot be started before it has stopped."""

_MACHINE_STOPPING = "Its machine is still stopping from before; once it has, it is started again."
_STARTING = ("machine", "restore", "ide", "ready")
_WORDS = {
    "": "Finding a machine for it.",
    "machine": "Its machine is getting ready.",
    "restore": "Restoring its files.",
    "ide": "Starting the IDE.",
    "ready": "Ready. Opening it.",
}


def steps_of(workspace: Workspace) -> dict[str, str]:
    """Step → "done", "now", "todo" or "failed", in order, only those that apply to this start.

    Empty when there is no start to show: asleep, or failed after it had run.
    """
    status, step = workspace.status, workspace.step or "machine"
    names = [
        name
        for name in ("queue", *_STARTING)
        if name != "restore" or workspace.snapshot_id or step == "restore"
    ]
    if status in {_W.STOPPING, _W.TERMINATING}:
        return {"stop": "now"} | dict.fromkeys(names, "todo") if workspace.next == "start" else {}
    if status is _W.QUEUED:  # its files may still be on their way here: that is waiting, too
        return dict.fromkeys(names, "todo") | {"queue": "now"}
    if status is _W.RUNNING:
        return dict.fromkeys(names, "done")
    if status is _W.STARTING or (status is _W.FAILED and workspace.step in _STARTING[:-1]):
        at = names.index(step) if step in names else 1
        mark = "failed" if status is _W.FAILED else "now"
        return {n: "done" if i < at else mark if i == at else "todo" for i, n in enumerate(names)}
    return {}


def is_moving(workspace: Workspace) -> bool:
    """Whether it is on its way to another machine: its own is being taken away."""
    on_its_way = workspace.status in {_W.STOPPING, _W.QUEUED}
    return on_its_way and workspace.reason.startswith(MOVING)


def message_of(
    workspace: Workspace,
    position: int | None = None,
    eta: float | None = None,
    notice: str = "",
) -> str:
    """What is happening to it, a few short sentences for a person. eta: seconds. notice: why the pool has
    no machine to give; nobody knows then for how long."""
    comes_back = workspace.next == "start"
    match workspace.status:
        case _W.QUEUED:
            return _waiting(workspace, position, eta, notice)
        case _W.STARTING:
            return _WORDS.get(workspace.step, _WORDS["machine"])
        case _W.RUNNING:
            return _WORDS["ready"]
        case _W.STOPPING if comes_back and is_moving(workspace):
            return _leaving(workspace) + " The IDE is being stopped, then its files are saved."
        case _W.STOPPING if comes_back:
            return "Finishing the stop, then it starts again."
        case _W.STOPPING:
            return "It is being stopped. Its files are kept."
        case _W.TERMINATING if comes_back:
            return "Finishing its snapshot, then it starts again."
        case _W.TERMINATING:
            return "Its snapshot is being written, then its machine is let go."
        case _W.STOPPED:
            return "It is stopped. Its files are kept."
        case _W.TERMINATED:
            return "It was put away. Starting it restores its files from the snapshot."
        case _:
            return _sentence(workspace.error or "it failed, and no reason was recorded")


def _waiting(workspace: Workspace, position: int | None, eta: float | None, notice: str) -> str:
    place = f"In the queue, place {position}" if position else "In the queue"
    if workspace.step == MACHINE_STOPPING:
        return f"{place}. {_MACHINE_STOPPING}"
    said = f"{place}, about {roughly(eta)} to go." if eta else f"{place}."
    if is_moving(workspace):
        files = "Its files are being saved" if workspace.machine_id else "Its files are saved"
        said = f"{_leaving(workspace)} {files}. {said}"
    return f"{said} {_sentence(notice)}" if notice else said


def _leaving(workspace: Workspace) -> str:
    return _sentence(f"moving to another machine: {workspace.reason.removeprefix(MOVING)}")


def roughly(seconds: float) -> str:
    """A duration as a promise: coarse enough not to flicker. 7 → "10 s", 130 → "3 min"."""
    if seconds < 60:
        return f"{max(5, -int(-seconds // 5) * 5)} s"
    return f"{-int(-seconds // 60)} min"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


def facts(
    workspace: Workspace,
    now_ms: int,
    position: int | None = None,
    eta: float | None = None,
    log: str = "",
    notice: str = "",
) -> dict[str, Any]:
    """What a waiting page is told. since, now: milliseconds by the store's clock."""
    told: dict[str, Any] = {
        "status": workspace.status,
        "step": workspace.step,
        "steps": steps_of(workspace),
        "position": position,
        "etaSeconds": eta,
        "moving": is_moving(workspace),
        "message": message_of(workspace, position, eta, notice),
        "since": workspace.status_since_ms,
        "now": now_ms,
        "epoch": workspace.epoch,
        "error": workspace.error,
        "errorCode": workspace.error_code,
    }
    return told | {"log": log[-LOG_MAX_CHARS:]} if log else told


class Records(Protocol):
    """The store, as far as progress reads it."""

    async def now_ms(self) -> int: ...

    async def get(self, workspace_id: str) -> Workspace | None: ...


class News(Protocol):
    def follow(self, workspace: str) -> AsyncIterator[Event]:
        """Events of this workspace from now on. May end: the gateway is draining."""


Eta = Callable[[Workspace], Awaitable[tuple[int | None, float | None]]]
"""Its place in the queue and the seconds until it runs, as far as they are known."""

Log = Callable[[Workspace], Awaitable[str]]
"""Last lines of its IDE's own output, "" when nobody has them."""

Notice = Callable[[], Awaitable[str]]
"""Why the pool has no machines to give just now, in words for whoever waits; "" while it has."""


async def no_notice() -> str:
    return ""


class Progress:
    """Looks at one workspace, or follows it, for a waiting page."""

    def __init__(
        self, store: Records, news: News, eta: Eta, log: Log, notice: Notice = no_notice
    ) -> None:
        self._store, self._news, self._eta, self._log = store, news, eta, log
        self._notice = notice
        self._streams: Counter[str] = Counter()

    async def look(self, workspace_id: str) -> dict[str, Any]:
        """One account of it. While the store is away that is an account, too."""
        try:
            workspace = await self._store.get(workspace_id)
            if workspace is None:
                return dict(GONE)
            return await self.account(workspace)
        except StoreUnavailable:
            return dict(UNAVAILABLE)

    async def account(self, workspace: Workspace) -> dict[str, Any]:
        queued = workspace.status is _W.QUEUED
        position, eta = await self._eta(workspace) if queued else (None, None)
        log = await self._log(workspace) if workspace.status is _W.FAILED else ""
        notice = await self._notice() if queued else ""
        return facts(workspace, await self._store.now_ms(), position, eta, log, notice)

    async def follow(self, workspace_id: str) -> AsyncIterator[dict[str, Any]]:
        """An account at once, with every news, and whenever a look finds a change; ends when it is up or failed."""
        events = aiter(self._news.follow(workspace_id))
        news = asyncio.ensure_future(_next(events))
        await asyncio.sleep(
            0
        )  # the subscription begins before the first look: nothing falls between
        told: dict[str, Any] = {}
        heard = True
        try:
            while True:
                account = await self.look(workspace_id)
                queued = account["status"] == _W.QUEUED
                if heard or queued or account | {"now": 0} != told | {"now": 0}:
                    yield account
                told = account
                if account["status"] in ENDED or account["status"] == "gone":
                    return
                wait = (
                    QUEUE_INTERVAL
                    if queued or account["status"] == "unavailable"
                    else LOOK_INTERVAL
                )
                await asyncio.wait({news}, timeout=wait)
                heard = news.done()
                if heard:
                    if news.result() is None:
                        return  # no more news here; the page comes back and asks anew
                    news = asyncio.ensure_future(_next(events))
        finally:
            news.cancel()
            await asyncio.wait({news})
            if isinstance(events, AsyncGenerator):
                await events.aclose()

    async def respond(self, request: Request, workspace_id: str) -> Response:
        """GET /_gateway/progress. A stream, or one account for `Accept: application/json`. Wakes nothing."""
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        wanted = "text/event-stream" in request.headers.get("accept", "")
        if not wanted or self._streams[workspace_id] >= MAX_STREAMS:
            return JSONResponse(await self.look(workspace_id), headers=headers)
        return EventSourceResponse(self._lines(workspace_id), headers=headers, ping=15)

    async def _lines(self, workspace_id: str) -> AsyncIterator[dict[str, str]]:
        self._streams[workspace_id] += 1
        try:
            async for account in self.follow(workspace_id):
                yield {"data": json.dumps(account, ensure_ascii=False)}
        finally:
            self._streams[workspace_id] -= 1
            self._streams += Counter()  # those without any are forgotten


async def _next(events: AsyncIterator[Event]) -> Event | None:
    return await anext(events, None)
