"""Is the IDE ready? One question to its port."""

from __future__ import annotations

import asyncio
import os

TIMEOUT = 5.0  # seconds for one answer; an IDE that is busy starting gets asked again


async def accepts(host: str, port: int) -> str:
    """ "" when something listens on the port of that address, else why not."""
    try:
        async with asyncio.timeout(TIMEOUT):
            _, writer = await asyncio.open_connection(host, port)
    except TimeoutError:
        return f"port {port} did not accept within {TIMEOUT:g} s"
    except OSError as error:
        return f"port {port}: {os.strerror(error.errno) if error.errno else error}"
    writer.close()
    return ""


async def answers(host: str, port: int, path: str, header: str) -> str:
    """ "" when GET path answers 2xx or 3xx, else what came instead. header: "Name: value" or ""."""
    try:
        async with asyncio.timeout(TIMEOUT):
            line = await _status_line(host, port, path, header)
    except TimeoutError:
        return f"GET {path}: no answer within {TIMEOUT:g} s"
    except OSError as error:
        return f"GET {path}: {os.strerror(error.errno) if error.errno else error}"
    version, _, rest = line.partition(" ")
    if version.startswith("HTTP/1") and rest[:1] in ("2", "3"):
        return ""
    return f"GET {path} answered {line[:100]!r}"


async def _status_line(host: str, port: int, path: str, header: str) -> str:
    lines = [f"GET {path} HTTP/1.1", f"Host: {host}:{port}", "Connection: close", "Accept: */*"]
    request = "\r\n".join([*lines, *([header] if header else []), "", ""])
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(request.encode())
        await writer.drain()
        return (await reader.readline()).decode("latin-1").strip()
    except ValueError:  # a line longer than the reader takes
        return "no HTTP"
    finally:
        writer.close()
