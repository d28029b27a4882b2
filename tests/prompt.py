"""uvicorn for tests, ended at once: the usual one looks every 0.1 s whether it shall, and waits 0.1 s more."""

from __future__ import annotations

import asyncio
import socket

import uvicorn

TICK = 0.004  # seconds


class Server(uvicorn.Server):
    async def main_loop(self) -> None:
        await self.on_tick(0)  # makes the headers that every answer has
        while not self.should_exit:  # noqa: ASYNC110 (uvicorn sets it)
            await asyncio.sleep(TICK)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's, for an app without a lifespan."""
        for one in (*self.servers, *(sockets or ())):
            one.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        tasks, connections = self.server_state.tasks, self.server_state.connections
        within = 0.1 if self.force_exit else self.config.timeout_graceful_shutdown
        try:
            async with asyncio.timeout(within):
                while connections or tasks:  # noqa: ASYNC110 (uvicorn empties them)
                    await asyncio.sleep(TICK)
        except TimeoutError:
            for task in () if self.force_exit else tasks:
                task.cancel()
        for server in self.servers:
            await server.wait_closed()
