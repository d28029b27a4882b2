"""The other side of an agent's HTTP calls, for the lifecycle loops and the gateway.

AgentError
  AgentUnreachable   no answer, or one that is not an agent's; the call may or may not have arrived
  AgentRefused       the agent said no, with `code`; nothing was changed
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from types import TracebackType
from typing import Any, TypeVar
from urllib.parse import quote

import aiohttp

from lifecycle.agent.contract import (
    Manifest,
    Report,
    SnapshotSpec,
    StartSpec,
    WarmSpec,
    WorkspaceReport,
)
from lifecycle.model import Machine

CONNECT_TIMEOUT = 5.0  # seconds
ANSWER_TIMEOUT = 15.0  # for calls that an agent answers at once
KILL_TIMEOUT = 30.0  # on top of the grace, for what ignores SIGTERM
SNAPSHOT_TIMEOUT = 3600.0
ANSWER_MAX = 8 * 2**20  # bytes; a log's tail is the largest

_T = TypeVar("_T")


class AgentError(Exception):
    """An agent did not do what it was asked."""


class AgentUnreachable(AgentError):
    """Unknown is never idle, stopped or gone: ask again."""


class AgentRefused(AgentError):
    """code: stale_epoch, no_slot, busy, disk_full, … (lifecycle.agent.refusal)."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Agents:
    """All machines' agents, over one set of connections. `await close()`, or use it as a context."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def status(self, machine: Machine, since: int = 0, wait: float = 0.0) -> Report:
        """As soon as the agent's version is not `since`, at the latest after `wait` seconds."""
        path = f"/status?since={since}&wait={wait:g}"
        data = await self._json(machine, "GET", path, timeout=ANSWER_TIMEOUT + wait)
        return _read(machine, Report.from_json, data)

    async def start(self, machine: Machine, workspace_id: str, spec: StartSpec) -> WorkspaceReport:
        """Begin a boot. An epoch that has begun there already is only reported."""
        path, body = _path(workspace_id), spec.to_json()
        data = await self._json(machine, "PUT", path, body=body)
        return _read(machine, lambda row: WorkspaceReport(**row), data)

    async def stop(
        self, machine: Machine, workspace_id: str, epoch: int, grace: float = 10.0
    ) -> WorkspaceReport:
        """Return once nothing of it runs there. Stopping a stopped or unknown one is success."""
        path, body = _path(workspace_id, "/stop"), {"epoch": epoch, "grace": grace}
        timeout = ANSWER_TIMEOUT + grace + KILL_TIMEOUT
        data = await self._json(machine, "POST", path, body=body, timeout=timeout)
        return _read(machine, lambda row: WorkspaceReport(**row), data)

    async def snapshot(self, machine: Machine, workspace_id: str, spec: SnapshotSpec) -> Manifest:
        """Return once it is committed. Repeating a committed one returns its manifest."""
        path, body = _path(workspace_id, "/snapshot"), asdict(spec)
        data = await self._json(machine, "POST", path, body=body, timeout=SNAPSHOT_TIMEOUT)
        return _read(machine, lambda row: Manifest(**row), data)

    async def remove(self, machine: Machine, workspace_id: str, epoch: int) -> None:
        """Stop it and drop its files. Removing one that is gone is success."""
        path, body = _path(workspace_id), {"epoch": epoch}
        await self._json(machine, "DELETE", path, body=body, timeout=10 * KILL_TIMEOUT)

    async def warm(self, machine: Machine, spec: WarmSpec) -> None:
        """Have it keep IDEs started and empty. Told the same again it changes nothing."""
        await self._json(machine, "PUT", "/warm", body=spec.to_json())

    async def ports(self, machine: Machine, workspace_id: str) -> list[int]:
        """TCP ports its processes listen on, sorted; the IDE's own among them."""
        data = await self._json(machine, "GET", _path(workspace_id, "/ports"))
        return _read(machine, lambda found: [int(port) for port in found["ports"]], data)

    async def log(self, machine: Machine, workspace_id: str, tail: int = 200) -> str:
        """The last lines of its IDE's output."""
        answer = await self._call(machine, "GET", _path(workspace_id, f"/log?tail={tail}"))
        return answer.decode(errors="replace")

    async def shutdown(self, machine: Machine) -> None:
        """Ask the agent to stop every workspace and itself. Returns at once."""
        await self._call(machine, "POST", "/shutdown")

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def __aenter__(self) -> Agents:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def _json(
        self,
        machine: Machine,
        method: str,
        path: str,
        *,
        body: dict[str, Any] | None = None,
        timeout: float = ANSWER_TIMEOUT,
    ) -> dict[str, Any]:
        answer = await self._call(machine, method, path, body=body, timeout=timeout)
        data = _object(answer)
        if data is None:
            raise AgentUnreachable(f"{_name(machine)}: what answers there is not an agent")
        return data

    async def _call(
        self,
        machine: Machine,
        method: str,
        path: str,
        *,
        body: dict[str, Any] | None = None,
        timeout: float = ANSWER_TIMEOUT,
    ) -> bytes:
        limits = aiohttp.ClientTimeout(total=timeout, sock_connect=CONNECT_TIMEOUT)
        try:
            async with self._open().request(
                method,
                f"http://{machine.address}{path}",
                json=body,
                headers={"Authorization": f"Bearer {machine.token}"},
                timeout=limits,
                allow_redirects=False,
            ) as response:
                answer = await _bounded(response)
        except (aiohttp.ClientError, TimeoutError, ValueError, OSError) as error:
            why = str(error) or type(error).__name__
            raise AgentUnreachable(f"{_name(machine)} does not answer: {why}") from error
        if response.status >= 400:
            raise _error(machine, response.status, _object(answer))
        return answer

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            # No limit: each machine holds one connection for its long-polled status.
            connector = aiohttp.TCPConnector(limit=0)
            self._session = aiohttp.ClientSession(
                connector=connector, cookie_jar=aiohttp.DummyCookieJar()
            )
        return self._session


async def _bounded(response: aiohttp.ClientResponse) -> bytes:
    """The whole answer; a machine is not trusted to end it."""
    answer = bytearray()
    async for chunk in response.content.iter_chunked(65536):
        answer += chunk
        if len(answer) > ANSWER_MAX:
            raise ValueError(f"its answer is larger than {ANSWER_MAX} bytes")
    return bytes(answer)


def _error(machine: Machine, status: int, data: dict[str, Any] | None) -> AgentError:
    error = (data or {}).get("error")
    if not isinstance(error, dict) or "code" not in error:
        return AgentUnreachable(f"{_name(machine)}: HTTP {status}, which is not an agent's answer")
    message, hint = str(error.get("message", "")), str(error.get("hint", ""))
    if status == 503:  # it is shutting down: as good as gone
        return AgentUnreachable(f"{_name(machine)}: {message}")
    return AgentRefused(str(error["code"]), f"{message}; {hint}" if hint else message)


def _read(machine: Machine, read: Callable[[dict[str, Any]], _T], data: dict[str, Any]) -> _T:
    try:
        return read(data)
    except (TypeError, KeyError, ValueError) as error:
        message = f"{_name(machine)} speaks another version of the contract: {error}"
        raise AgentUnreachable(message) from error


def _object(answer: bytes) -> dict[str, Any] | None:
    try:
        data = json.loads(answer)
    except ValueError:
        return None
    return data if isinstance(data, dict) else None


def _path(workspace_id: str, call: str = "") -> str:
    return f"/workspaces/{quote(workspace_id, safe='')}{call}"


def _name(machine: Machine) -> str:
    return f"the agent of machine {machine.id} at {machine.address or '(no address)'}"
