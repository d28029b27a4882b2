"""Who connects to an agent and does not say what they want is hung up on."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest
import uvicorn
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from lifecycle.agent.deadline import Prompt
from tests import prompt

HEAD = b"GET / HTTP/1.1\r\nHost: agent\r\n"


class Hasty(Prompt):
    headers_within = 0.2


async def slowly(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers later than headers may take: that is our time, not the caller's."""
    await Request(scope, receive).body()
    await asyncio.sleep(0.4)
    await PlainTextResponse("here")(scope, receive, send)


@pytest.fixture
async def port() -> AsyncIterator[int]:
    config = uvicorn.Config(slowly, http=Hasty, lifespan="off", ws="none", log_config=None)
    server = prompt.Server(config)
    listener = socket.create_server(("127.0.0.1", 0))
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    yield listener.getsockname()[1]
    server.should_exit = True
    await serving
    listener.close()


async def hung_up(reader: asyncio.StreamReader) -> bool:
    async with asyncio.timeout(5):
        try:
            return await reader.read() == b""
        except ConnectionResetError:
            return True


@pytest.mark.parametrize("said", [b"", b"G", HEAD, HEAD + b"X: "])
async def test_a_head_that_never_ends_is_not_waited_for(port: int, said: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(said)
    assert await hung_up(reader)
    writer.close()


async def test_an_answer_may_take_its_time_and_the_next_head_may_not(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for _ in range(2):
        writer.write(HEAD + b"\r\n")
        assert b"200" in await reader.readuntil(b"\r\n")
        assert (await reader.readuntil(b"here")).endswith(b"here")
    writer.write(HEAD)
    assert await hung_up(reader)
    writer.close()
