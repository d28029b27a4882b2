"""Starts mail_server.py and reads what it took."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

SERVER = Path(__file__).with_name("mail_server.py")


class MailServer:
    def __init__(self, process: asyncio.subprocess.Process, ports: list[int]) -> None:
        """ports: without TLS, and, where there is a certificate, with STARTTLS and for smtps."""
        self._process, self.ports = process, ports

    @property
    def port(self) -> int:
        return self.ports[0]

    async def next(self) -> Any:
        """The next mail it takes."""
        assert self._process.stdout is not None
        return json.loads(await asyncio.wait_for(self._process.stdout.readline(), 10))

    async def stop(self) -> list[Any]:
        """What else it took."""
        self._process.terminate()
        assert self._process.stdout is not None
        rest = await self._process.stdout.read()
        await self._process.wait()
        return [json.loads(line) for line in rest.splitlines()]


@contextlib.asynccontextmanager
async def mail_server(*arguments: str) -> AsyncIterator[MailServer]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(SERVER), *arguments, stdout=asyncio.subprocess.PIPE, limit=2**20
    )
    try:
        assert process.stdout is not None
        ports = (await asyncio.wait_for(process.stdout.readline(), 20)).split()
        yield MailServer(process, [int(port) for port in ports])
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
