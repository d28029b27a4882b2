"""Fixtures of the end-to-end tests: real gateways, ended after each test."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from tests.e2e.harness import Client, Gateway, Server

Start = Callable[..., Any]


@pytest.fixture
def server() -> Iterator[Server]:
    """A Valkey for several gateways. Ask for it before `serve`: it has to outlive them."""
    # The temporary directories of pytest are too long for a socket's path.
    with tempfile.TemporaryDirectory(prefix="valkey-") as directory:
        server = Server(Path(directory))
        server.start()
        yield server
        server.thaw()
        server.kill()


@pytest.fixture
async def state(server: Server) -> AsyncIterator[Redis]:
    """What redis-cli would show of it."""
    async with Redis.from_url(server.url, decode_responses=True) as client:
        yield client


@pytest.fixture
async def serve(tmp_path: Path) -> AsyncIterator[Start]:
    """serve(*flags, data_dir=…) → a started Gateway; all of them are ended after the test."""
    started: list[Gateway] = []

    async def start(
        *flags: str, data_dir: Path | None = None, env: dict[str, str] | None = None
    ) -> Gateway:
        gateway = Gateway(data_dir or tmp_path / "data", *flags, env=env)
        started.append(gateway)
        return await gateway.start()

    yield start
    for gateway in started:
        gateway.clean_up()


@pytest.fixture
async def client_of() -> AsyncIterator[Callable[[Gateway], Client]]:
    clients: list[Client] = []

    def make(gateway: Gateway) -> Client:
        clients.append(Client(gateway))
        return clients[-1]

    yield make
    for client in clients:
        await client.http.close()
