"""Fixtures of the end-to-end tests: real gateways, ended after each test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.harness import Client, Gateway

Start = Callable[..., Any]


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
