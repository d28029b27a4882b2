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
    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self._process, self.port = process, port

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
        port = int(await asyncio.wait_for(process.stdout.readline(), 20))
        yield MailServer(process, port)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
