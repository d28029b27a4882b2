"""Only a 101 that answers this very handshake is believed; everything else has a name of its own."""

from __future__ import annotations

import asyncio
import contextlib
from base64 import b64encode
from collections.abc import AsyncIterator

import pytest

from gateway.upgrade import (
    BODY_LIMIT,
    Headers,
    Upstream,
    UpstreamInvalid,
    UpstreamRefused,
    UpstreamUnreachable,
    accept_key,
    open_upstream,
)

KEY = b64encode(b"0123456789abcdef")
OFFER: Headers = [
    (b"host", b"demo.localhost"),
    (b"connection", b"Upgrade"),
    (b"upgrade", b"websocket"),
    (b"sec-websocket-key", KEY),
    (b"sec-websocket-version", b"13"),
    (b"sec-websocket-protocol", b"one, two"),
    (b"sec-websocket-extensions", b"permessage-deflate; client_max_window_bits"),
]
STATUS = b"HTTP/1.1 101 Switching Protocols"
UPGRADE = b"Upgrade: websocket"
CONNECTION = b"Connection: Upgrade"
ACCEPT = b"Sec-WebSocket-Accept: " + accept_key(KEY)


def head(*lines: bytes) -> bytes:
    return b"\r\n".join([*lines, b"", b""])


GOOD = head(STATUS, UPGRADE, CONNECTION, ACCEPT)


@contextlib.asynccontextmanager
async def answering(*pieces: bytes, hang_up: bool = False) -> AsyncIterator[int]:
    """A server that answers each request with `pieces`, one write each, and then says no more."""
    writers = []

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)
            if hang_up:
                writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


async def ask(port: int, timeout: float = 5, **more: int) -> Upstream:
    return await open_upstream("127.0.0.1", port, b"/a?b=c", OFFER, timeout=timeout, **more)


async def drop(upstream: Upstream) -> None:
    upstream.abort()
    await asyncio.sleep(0)


async def test_a_good_answer() -> None:
    chosen = [b"Sec-WebSocket-Protocol: two", b"Sec-WebSocket-Extensions: permessage-deflate"]
    answer = head(
        STATUS, b"upgrade: WebSocket", b"connection: keep-alive, UPGRADE", ACCEPT, *chosen
    )
    async with answering(answer) as port:
        upstream = await ask(port)
        assert (b"sec-websocket-protocol", b"two") in upstream.headers
        assert upstream.leftover == b""
        assert not upstream.transport.is_reading()
        await drop(upstream)


async def test_an_answer_in_single_bytes() -> None:
    async with answering(*(GOOD[i : i + 1] for i in range(len(GOOD)))) as port:
        await drop(await ask(port))


async def test_what_follows_the_head_is_kept() -> None:
    async with answering(GOOD + b"\x81\x01x") as port:
        upstream = await ask(port)
        assert upstream.leftover == b"\x81\x01x"
        await drop(upstream)


WRONG_ACCEPT = b"Sec-WebSocket-Accept: " + accept_key(b64encode(b"another key here"))

LIES = {
    "no Upgrade": head(STATUS, CONNECTION, ACCEPT),
    "another Upgrade": head(STATUS, b"Upgrade: h2c", CONNECTION, ACCEPT),
    "two Upgrades": head(STATUS, UPGRADE, UPGRADE, CONNECTION, ACCEPT),
    "a list of Upgrades": head(STATUS, b"Upgrade: websocket, h2c", CONNECTION, ACCEPT),
    "no Connection": head(STATUS, UPGRADE, ACCEPT),
    "another Connection": head(STATUS, UPGRADE, b"Connection: keep-alive", ACCEPT),
    "Connection by substring": head(STATUS, UPGRADE, b"Connection: no-upgrade", ACCEPT),
    "no Accept": head(STATUS, UPGRADE, CONNECTION),
    "wrong Accept": head(STATUS, UPGRADE, CONNECTION, WRONG_ACCEPT),
    "Accept in another case": head(STATUS, UPGRADE, CONNECTION, ACCEPT.swapcase()),
    "two Accepts": head(STATUS, UPGRADE, CONNECTION, ACCEPT, ACCEPT),
    "subprotocol not offered": head(
        STATUS, UPGRADE, CONNECTION, ACCEPT, b"Sec-WebSocket-Protocol: three"
    ),
    "subprotocol in another case": head(
        STATUS, UPGRADE, CONNECTION, ACCEPT, b"Sec-WebSocket-Protocol: ONE"
    ),
    "two subprotocols": head(
        STATUS, UPGRADE, CONNECTION, ACCEPT, *[b"Sec-WebSocket-Protocol: one"] * 2
    ),
    "extension not offered": head(
        STATUS, UPGRADE, CONNECTION, ACCEPT, b"Sec-WebSocket-Extensions: x-mux"
    ),
    "Content-Length": head(STATUS, UPGRADE, CONNECTION, ACCEPT, b"Content-Length: 0"),
    "Transfer-Encoding": head(STATUS, UPGRADE, CONNECTION, ACCEPT, b"Transfer-Encoding: chunked"),
    "HTTP/1.0": head(b"HTTP/1.0 101 Switching Protocols", UPGRADE, CONNECTION, ACCEPT),
    "HTTP/2": head(b"HTTP/2 101 Switching Protocols", UPGRADE, CONNECTION, ACCEPT),
    "an interim answer first": head(b"HTTP/1.1 100 Continue") + GOOD,
    "no HTTP": b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
    "folded header": head(STATUS, UPGRADE, CONNECTION, ACCEPT, b"X: a", b" b"),
    "space before the colon": head(STATUS, b"Upgrade : websocket", CONNECTION, ACCEPT),
    "bare line feed": head(STATUS, UPGRADE + b"\n" + CONNECTION, ACCEPT),
    "NUL in a value": head(STATUS, UPGRADE, CONNECTION, ACCEPT, b"X: a\0b"),
}


@pytest.mark.parametrize("lie", LIES)
async def test_a_101_that_does_not_answer_us_is_invalid(lie: str) -> None:
    async with answering(LIES[lie]) as port:
        with pytest.raises(UpstreamInvalid, match=f"the workspace at 127.0.0.1:{port}: "):
            await ask(port)


@pytest.mark.parametrize(
    "answer",
    [
        head(b"HTTP/1.1 426 Upgrade Required", b"Content-Length: 2", b"X-Why: so") + b"no",
        head(b"HTTP/1.1 200 OK", b"Transfer-Encoding: chunked", b"X-Why: so")
        + b"1\r\nn\r\n1\r\no\r\n0\r\n\r\n",
    ],
    ids=["length", "chunked"],
)
async def test_any_other_status_is_a_refusal_with_its_body(answer: bytes) -> None:
    half = len(answer) - 4
    async with answering(answer[:half], answer[half:]) as port:
        with pytest.raises(UpstreamRefused) as refused:
            await ask(port)
        assert refused.value.status in (200, 426)
        assert (b"x-why", b"so") in refused.value.headers
        assert refused.value.body == b"no"


async def test_a_refusal_that_ends_with_the_connection() -> None:
    async with answering(head(b"HTTP/1.0 503 Busy") + b"wait", hang_up=True) as port:
        with pytest.raises(UpstreamRefused) as refused:
            await ask(port)
        assert (refused.value.status, refused.value.body) == (503, b"wait")


async def test_a_refusals_body_is_bounded_in_size_and_time() -> None:
    endless = [head(b"HTTP/1.1 500 Oops"), *[b"x" * 4096] * 64]
    async with answering(*endless) as port:
        with pytest.raises(UpstreamRefused) as refused:
            await ask(port)
        assert len(refused.value.body) == BODY_LIMIT
    async with answering(head(b"HTTP/1.1 500 Oops", b"Content-Length: 9") + b"some") as port:
        with pytest.raises(UpstreamRefused) as refused:
            await ask(port, timeout=0.1)
        assert refused.value.body == b"some"


async def test_nobody_there() -> None:
    async with answering() as port:
        pass
    with pytest.raises(UpstreamUnreachable, match=f"127.0.0.1:{port} cannot be reached"):
        await ask(port)


@pytest.mark.parametrize("said", [b"", GOOD[:40], GOOD[:-1]])
async def test_no_whole_answer_in_time(said: bytes) -> None:
    async with answering(said) as port:
        with pytest.raises(UpstreamUnreachable, match=r"gave no answer in 0\.1 s"):
            await ask(port, timeout=0.1)


@pytest.mark.parametrize("said", [b"", GOOD[:40]])
async def test_hung_up_on_midway(said: bytes) -> None:
    async with answering(said, hang_up=True) as port:
        with pytest.raises(UpstreamUnreachable, match="closed the connection before it answered"):
            await ask(port)


async def test_a_head_without_end_is_cut_off() -> None:
    async with answering(STATUS + b"\r\n", *[b"X: " + b"y" * 1000 + b"\r\n"] * 100) as port:
        with pytest.raises(UpstreamInvalid, match="larger than 4096 bytes"):
            await ask(port, head_limit=4096)


async def test_the_deadline_is_for_all_of_it() -> None:
    """A byte now and then does not buy more time."""
    gone = asyncio.Event()

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while not reader.at_eof():
                writer.write(b"H")
                await writer.drain()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(reader.read(4096), 0.02)
        writer.close()
        gone.set()

    server = await asyncio.start_server(drip, "127.0.0.1", 0)
    async with server:
        with pytest.raises(UpstreamUnreachable):
            await ask(server.sockets[0].getsockname()[1], timeout=0.2)
        await asyncio.wait_for(gone.wait(), 5)


@pytest.mark.parametrize("target", [b"", b"a", b"/a b", b"/a\r\nX: y", b"/\x7f"])
async def test_a_target_that_would_be_another_request_is_not_sent(target: bytes) -> None:
    with pytest.raises(ValueError, match="not a request target"):
        await open_upstream("127.0.0.1", 1, target, OFFER)


async def test_a_header_that_would_be_two_is_not_sent() -> None:
    with pytest.raises(ValueError, match="line break"):
        await open_upstream("127.0.0.1", 1, b"/", [*OFFER, (b"x", b"a\r\nb: c")])
    with pytest.raises(ValueError, match="exactly one Sec-WebSocket-Key"):
        await open_upstream("127.0.0.1", 1, b"/", [*OFFER, (b"Sec-WebSocket-Key", KEY)])


async def test_a_cancelled_attempt_leaves_no_connection() -> None:
    gone = asyncio.Event()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        attempt.cancel()
        with contextlib.suppress(OSError):
            assert await reader.read() == b""
        writer.close()
        gone.set()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    async with server:
        attempt = asyncio.create_task(ask(server.sockets[0].getsockname()[1]))
        with pytest.raises(asyncio.CancelledError):
            await attempt
        await asyncio.wait_for(gone.wait(), 5)
