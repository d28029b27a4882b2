"""Which Jupyter kernel is busy? One question to the IDE's server."""

from __future__ import annotations

import asyncio
import json
from typing import Any

TIMEOUT = 3.0  # seconds; a server that does not answer says nothing
ANSWER_MAX = 262_144  # bytes


async def busy_kernel(host: str, port: int, path: str, header: str) -> str:
    """Name of a busy kernel in Jupyter's list at that path; "" when there is none, or no answer. header:
    "Name: value" that opens the server, or ""."""
    try:
        async with asyncio.timeout(TIMEOUT):
            rows = json.loads(await _get(host, port, path, header))
    except (OSError, ValueError, RecursionError):  # it says what it likes, at any depth
        return ""
    return _busy(rows)


def _busy(rows: Any) -> str:
    if not isinstance(rows, list):
        return ""
    for row in rows:
        if isinstance(row, dict) and row.get("execution_state") == "busy":
            name = str(row.get("name", ""))[:64]
            return name if name.isprintable() and name else "of Jupyter"
    return ""


async def _get(host: str, port: int, path: str, header: str) -> bytes:
    """The body of the answer: HTTP/1.0, so it comes in one piece and ends with the connection."""
    lines = [f"GET {path} HTTP/1.0", f"Host: {host}:{port}", "Accept: application/json"]
    request = "\r\n".join([*lines, *([header] if header else []), "", ""])
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(request.encode())
        await writer.drain()
        answer = await reader.read(ANSWER_MAX)
        while len(answer) < ANSWER_MAX and (more := await reader.read(ANSWER_MAX - len(answer))):
            answer += more
    finally:
        writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    if b" 200 " not in head.partition(b"\r\n")[0] + b" ":
        return b"[]"
    return body
