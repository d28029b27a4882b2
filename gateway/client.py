"""The commands beside serve: thin clients of the REST API, on the standard library alone so that they start fast."""

from __future__ import annotations

import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import Any
from urllib.parse import quote

from gateway.exits import ConfigurationError, DependencyMissing, Exit, TryAgain
from gateway.terminal import one_line

TIMEOUT = 30.0
"""Seconds for an answer; an event stream is asked for a sign of life this often."""

LONGEST_ANSWER = 64 * 2**20
"""Bytes; an answer beyond it is no list of workspaces."""

_WORKSPACE_ID = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?")
_COLUMNS = ("WORKSPACE", "USER", "STATUS", "MACHINE", "IDLE", "STOPS IN", "ALIVE BECAUSE")


class _StayHere(urllib.request.HTTPRedirectHandler):
    """The API redirects nowhere; following one would hand the API key to whoever is there."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


@dataclass(frozen=True, slots=True)
class Client:
    """url: of the home page. key_source: where the key was found, for the error."""

    url: str
    key: str = field(repr=False)
    key_source: str = ""

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """The answer's JSON. Raises Exit with the gateway's own words."""
        with self._open(method, path, body, "application/json") as response:
            return self._parsed(response.read(LONGEST_ANSWER))

    def stream(self, path: str) -> Iterator[Any]:
        """What a stream of server-sent events tells, until it ends. Raises Exit."""
        with self._open("GET", path, None, "text/event-stream") as response:
            try:
                for line in response:
                    if line.startswith(b"data:"):
                        yield self._parsed(line[5:])
            except (OSError, HTTPException) as error:
                raise self._unreachable(error) from error

    def _open(self, method: str, path: str, body: Mapping[str, Any] | None, accept: str) -> Any:
        headers = {"Authorization": f"Bearer {self.key}", "Accept": accept}
        data = None
        if method != "GET":
            data = json.dumps(body or {}).encode()
            headers["Content-Type"] = "application/json"
        request = urllib.request.Request(self.url + path, data=data, headers=headers, method=method)
        # No proxy from the environment: the key is for the gateway alone.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _StayHere())
        try:
            return opener.open(request, timeout=TIMEOUT)
        except urllib.error.HTTPError as error:
            with error:
                raise self._refused(error.code, error.read(65_536)) from error
        except (OSError, HTTPException, ValueError) as error:
            raise self._unreachable(error) from error

    def _parsed(self, data: bytes) -> Any:
        try:
            return json.loads(data)
        except ValueError as error:
            raise Exit(
                f"what answers at {self.url} is no ide-gateway: it sent no JSON",
                "name the gateway with --url",
            ) from error

    def _refused(self, status: int, body: bytes) -> Exit:
        try:
            problem = json.loads(body)["error"]
            message, code = one_line(str(problem["message"])), str(problem["code"])
            retry_after = problem.get("retryAfter")
        except (ValueError, KeyError, TypeError):
            return Exit(f"{self.url} answered {status}", "is it an ide-gateway? name it with --url")
        if status == 401:
            return ConfigurationError(
                f"{self.url} does not accept the API key ({message})", f"key: {self.key_source}"
            )
        if status in (429, 503):
            wait = f"try again in {retry_after} s" if retry_after else "try again"
            return TryAgain(f"{message} ({code})", wait)
        if status == 404:
            return NotThere(f"{message} ({code})", "see them all: ide-gateway ls")
        return Exit(f"{message} ({code})")

    def _unreachable(self, error: Exception) -> Exit:
        reason = getattr(error, "reason", error)
        text = getattr(reason, "strerror", None) or str(reason) or type(reason).__name__
        return DependencyMissing(
            f"no gateway answers at {self.url} ({one_line(text).lower()})",
            "start it with: ide-gateway serve, or name another with --url",
        )


class NotThere(Exit):
    """404: no such workspace, or none that is ours to see."""


def workspaces(client: Client, user: str = "") -> list[dict[str, Any]]:
    query = f"?userId={quote(user, safe='')}" if user else ""
    return _rows(client.call("GET", f"/api/workspaces{query}"))


def start(client: Client, name: str) -> dict[str, Any]:
    """Start the workspace of this name; if there is none, give the user of this name theirs."""
    if _WORKSPACE_ID.fullmatch(name):
        try:
            return _dict(client.call("POST", f"/api/workspaces/{name}/start"))
        except NotThere:
            pass
    return _dict(client.call("POST", "/api/workspaces", {"userId": name}))


def stop(client: Client, workspace: str) -> dict[str, Any]:
    return _dict(client.call("POST", f"/api/workspaces/{quote(workspace, safe='')}/stop"))


def enter(client: Client, workspace: str) -> dict[str, Any]:
    return _dict(client.call("POST", f"/api/workspaces/{quote(workspace, safe='')}/enter"))


def events(client: Client, follow: bool) -> Iterator[dict[str, Any]]:
    if follow:
        yield from (event for event in client.stream("/api/events") if isinstance(event, dict))
    else:
        yield from _rows(client.call("GET", "/api/events"))


def activity(client: Client, workspace: str) -> dict[str, Any]:
    return _dict(client.call("GET", f"/api/workspaces/{quote(workspace, safe='')}/activity"))


def why(row: dict[str, Any], now_ms: float) -> list[str]:
    """`why`, line by line: the sentence, the signals, what happens next."""
    lines = [str(row.get("text") or "nothing is known of it")]
    signals: list[tuple[str, ...]] = [("SIGNAL", "SEEN", "COUNTS", "FROM")]
    signals += [
        (
            str(each.get("kind")),
            f"{duration(each.get('secondsAgo') or 0)} ago",
            "yes" if each.get("counts") else "no",
            one_line(str(each.get("source") or "-")),
        )
        for each in _rows(row.get("signals"))
    ]
    if len(signals) > 1:
        lines += ["", *aligned(signals)]
    for step in _rows(row.get("next")):
        at, unless = step.get("at"), step.get("unless")
        when = f" in {duration((at - now_ms) / 1000)}" if at else ""
        lines.append(f"next: {step.get('what')}{when}{f', unless {unless}' if unless else ''}")
    return [one_line(line) for line in lines]


def aligned(lines: list[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]


def table(rows: list[dict[str, Any]], now_ms: float) -> list[str]:
    """`ls`, line by line. Cells come from users: control characters are spelled out."""
    lines: list[tuple[str, ...]] = [_COLUMNS, *(_cells(row, now_ms) for row in rows)]
    return aligned(lines)


def _cells(row: dict[str, Any], now_ms: float) -> tuple[str, ...]:
    seen, stops = row.get("lastActiveAt"), row.get("stopsAt")
    error = row.get("error") or {}
    cells = (
        row.get("workspaceId"),
        row.get("userId"),
        row.get("status"),
        row.get("instanceId"),
        duration((now_ms - seen) / 1000) if seen else None,
        duration((stops - now_ms) / 1000) if stops else None,
        row.get("aliveBecause") or (error.get("message") if isinstance(error, dict) else None),
    )
    return tuple(one_line(str(cell)) if cell else "-" for cell in cells)


def duration(seconds: float) -> str:
    """12s, 59m48s, 3h05m, 2d04h."""
    whole = max(0, int(seconds))
    days, hours, minutes = whole // 86400, whole // 3600 % 24, whole // 60 % 60
    if days:
        return f"{days}d{hours:02}h"
    if hours:
        return f"{hours}h{minutes:02}m"
    return f"{minutes}m{whole % 60:02}s" if minutes else f"{whole}s"


def event_line(event: dict[str, Any]) -> str:
    """`2026-01-31 12:00:00  workspace.running  workspaceId=demo …`"""
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(float(event.get("at") or 0) / 1000))
    data = event.get("data")
    named = {k: v for k, v in event.items() if k not in ("id", "type", "at", "data")}
    rest = {**named, **(data if isinstance(data, dict) else {})}
    words = (f"{name}={value}" for name, value in rest.items() if value not in (None, ""))
    return one_line("  ".join((at, f"{event.get('type', '')!s:<22}", " ".join(words)))).rstrip()


def _rows(answer: Any) -> list[dict[str, Any]]:
    return [row for row in answer if isinstance(row, dict)] if isinstance(answer, list) else []


def _dict(answer: Any) -> dict[str, Any]:
    return answer if isinstance(answer, dict) else {}


def find(load: Callable[[], Any], url: str, environ: Mapping[str, str]) -> Client:
    """The client for --url, IDE_GATEWAY_URL, the gateway that serves DATA_DIR, or the one the settings tell of."""
    loaded = load()
    settings, data_dir = loaded.settings, loaded.settings.data_dir
    url = (
        url or environ.get("IDE_GATEWAY_URL", "") or _text(data_dir / "url") or settings.public_url
    )
    if not url.startswith(("http://", "https://")):
        raise ConfigurationError(
            f"{url} is no URL of a gateway", "it looks like http://localhost:8000"
        )
    source = loaded.sources["api_key"]
    key = settings.api_key
    if not key:
        key, source = _text(data_dir / "api-key"), f"{data_dir / 'api-key'}"
    if not key:
        raise ConfigurationError(
            f"there is no API key: {data_dir / 'api-key'} is missing",
            "set IDE_GATEWAY_API_KEY, or run this where the gateway runs (--data-dir)",
        )
    return Client(url.rstrip("/"), key, source)


def _text(path: Any) -> str:
    try:
        return str(path.read_text("utf-8")).strip()
    except (OSError, UnicodeDecodeError):
        return ""


def summary(row: dict[str, Any]) -> str:
    """`demo  queued  place 3, about 40s  http://demo.localhost:8000`"""
    queue = row.get("queue")
    words = [row.get("workspaceId"), row.get("status")]
    if isinstance(queue, dict):
        words.append(
            f"place {queue.get('position')}, about {duration(queue.get('etaSeconds') or 0)}"
        )
    words.append(row.get("url"))
    return one_line("  ".join(str(word) for word in words if word))
