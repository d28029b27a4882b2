"""10,000 malformed handshakes and frames, from a seed: right refusals and close codes, and nothing is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from random import Random
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve

from gateway import closing
from gateway.frames import close_frame
from gateway.heartbeats import Heartbeats
from gateway.metrics import Metrics
from gateway.upgrade import accept_key
from tests.gateway import malformed
from tests.gateway.inside import HOST, ORIGIN, World, cookie, served
from tests.gateway.malformed import CLOSE, Handshake, closes, frame, handshakes, odd, wrong
from tests.gateway.proxying import upstream

Until = Callable[..., Awaitable[object]]

SEED = 20_240_506
AT_ONCE = 100
KNOWN = [b"Host: " + HOST.encode(), b"Cookie: " + cookie().encode(), b"Origin: " + ORIGIN.encode()]


@contextlib.asynccontextmanager
async def an_ide() -> AsyncIterator[int]:
    """Echoes, and minds the protocol."""

    async def echo(ws: ServerConnection) -> None:
        async for message in ws:
            await ws.send(message)

    async with serve(echo, "127.0.0.1", 0, max_size=65536, compression=None) as server:
        yield next(iter(server.sockets)).getsockname()[1]


@pytest.fixture
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No exception in the log; what nobody catches asyncio logs there as well."""
    logging.getLogger("websockets").setLevel(logging.CRITICAL)  # the IDE's own words
    yield
    logging.getLogger("websockets").setLevel(logging.NOTSET)
    loud = [r for r in caplog.records if r.exc_info or r.levelno >= logging.ERROR]
    assert not loud, [record.getMessage() for record in loud]


@contextlib.asynccontextmanager
async def gateway_before(port: int, until: Until) -> AsyncIterator[World]:
    """A gateway with one workspace; at the end as many descriptors as before, and no session."""
    beats = Heartbeats(
        "g", None, Metrics("0"), ping_interval=60, max_sessions=10_000, max_sessions_per_user=10_000  # type: ignore[arg-type]
    )  # fmt: skip
    async with served(port, heartbeats=beats) as world:
        before = descriptors()
        yield world
        await until(lambda: not len(beats) and not len(world.control) and descriptors() <= before)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


async def all_of(
    work: Callable[[Any], Awaitable[str]], cases: Iterable[Any], at_once: int = AT_ONCE
) -> list[str]:
    """What was wrong with them."""
    waiting, wrong = iter(cases), []

    async def one_after_another() -> None:
        for case in waiting:
            async with asyncio.timeout(30):
                if why := await work(case):
                    wrong.append(why)

    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(one_after_another())
    return wrong


async def says(port: int, opens: bytes, frames: bytes = b"", cut: bool = False) -> bytes:
    """What comes back: the head of a refusal, or all behind a 101 up to a Close frame. frames: sent once it is
    open. cut: the client closes its side behind what it sends."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    found = b""
    try:
        writer.write(opens)
        if frames:
            found = await reader.readuntil(b"\r\n\r\n")
            writer.write(frames)
        if cut:
            writer.write_eof()
        while data := await reader.read(65536):
            found += data
            head, ended, rest = found.partition(b"\r\n\r\n")
            if ended and (not head.startswith(b"HTTP/1.1 101") or closes(rest)):
                break
    except (ConnectionError, asyncio.IncompleteReadError):
        pass  # it did not read all that we sent
    finally:
        writer.transport.abort()
    return found


async def test_handshakes(until: Until, quiet: None) -> None:
    async with an_ide() as ide, gateway_before(ide, until) as world:

        async def ask(case: Handshake) -> str:
            answer = await says(world.port, case.sent, cut=case.cut)
            if case.cut and not answer:
                return ""
            status = int(answer[9:12]) if answer.startswith(b"HTTP/1.1 ") else 0
            # A page only sees why when it is let in, and closed at once with a code of ours.
            told = status == 101 and answer.partition(b"\r\n\r\n")[2][:1] == b"\x88"
            if status in case.right or (told and code(answer) in closing.BY_CODE):
                return ""
            return f"{case.family}: {case.sent[-300:]!r} was answered {answer[:200]!r}"

        cases = handshakes(SEED, 5000, KNOWN)
        assert {case.family for case in cases} == {
            "cut", *(family.__name__ for family in malformed.FAMILIES)
        }  # fmt: skip
        wrong_ones = await all_of(ask, cases)
    assert not wrong_ones, "\n".join([f"{len(wrong_ones)} of {len(cases)}", *wrong_ones[:20]])


def code(answer: bytes) -> int:
    """Of the Close frame behind a 101."""
    return int.from_bytes(answer.partition(b"\r\n\r\n")[2][2:4], "big")


def opening(random: Random, path: bytes = b"/ws", *more: bytes) -> bytes:
    lines = malformed.right(random, [*KNOWN, *more])
    return malformed.joined([b"GET %b HTTP/1.1" % path, *lines[1:]])


async def test_frames_of_clients_end_as_they_would_without_us(until: Until, quiet: None) -> None:
    """The relay decides nothing: what the IDE makes of them reaches the client, byte for byte."""
    random = Random(SEED)
    async with an_ide() as ide, gateway_before(ide, until) as world:

        async def compare(case: tuple[bytes, bytes]) -> str:
            handshake, frames = case
            straight = (await says(ide, handshake, frames)).partition(b"\r\n\r\n")[2]
            # Some do not wait until it is open.
            sent = (handshake + frames,) if len(frames) % 2 else (handshake, frames)
            through = (await says(world.port, *sent)).partition(b"\r\n\r\n")[2]
            return "" if straight == through else f"{frames[:60]!r}: {straight!r} {through!r}"

        cases = [(opening(random), wrong(random) + CLOSE) for _ in range(2000)]
        wrong_ones = await all_of(compare, cases)
    assert not wrong_ones, "\n".join([f"{len(wrong_ones)} of {len(cases)}", *wrong_ones[:20]])


async def test_frames_of_workspaces_pass_whatever_they_are(until: Until, quiet: None) -> None:
    """And where they break off, the client is told so: between two frames with a code, else by a cut."""
    random = Random(SEED + 1)
    said: dict[bytes, tuple[bytes, bool]] = {}
    for n in range(1500):
        frames = [odd(random) for _ in range(random.randint(1, 3))]
        whole = random.random() < 0.5
        if not whole:
            frames[-1] = frames[-1][: random.randrange(1, max(2, len(frames[-1])))]
            whole = len(frames[-1]) == 0
        said[b"/%d" % n] = b"".join(frames), whole

    async def ide(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = await reader.readuntil(b"\r\n\r\n")
        key = asked.split(b"sec-websocket-key: ")[1].split(b"\r\n")[0]
        writer.write(_switches(key) + said[asked.split()[1]][0])
        await writer.drain()

    async with upstream(ide) as up, gateway_before(up.port, until) as world:

        async def compare(case: tuple[bytes, bytes]) -> str:
            path, handshake = case
            frames, whole = said[path]
            got = (await says(world.port, handshake)).partition(b"\r\n\r\n")[2]
            lost = closing.UPSTREAM_LOST
            right = frames + (close_frame(lost.code, lost.reason) if whole else b"")
            return "" if got == right else f"{frames[:40]!r} ({len(frames)}) came as {got[-60:]!r}"

        cases = [(path, opening(random, path)) for path in said]
        wrong_ones = await all_of(compare, cases)
    assert not wrong_ones, "\n".join([f"{len(wrong_ones)} of {len(cases)}", *wrong_ones[:20]])


async def test_clients_that_leave_within_a_frame(until: Until, quiet: None) -> None:
    """What came of it reaches the workspace, and nothing that they did not send."""
    random = Random(SEED + 2)

    async def ide(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = await reader.readuntil(b"\r\n\r\n")
        writer.write(_switches(asked.split(b"sec-websocket-key: ")[1].split(b"\r\n")[0]))
        await reader.read()

    async with upstream(ide) as up, gateway_before(up.port, until) as world:

        async def leave(case: tuple[bytes, bytes, bool]) -> str:
            handshake, frames, reset = case
            _, writer = await asyncio.open_connection("127.0.0.1", world.port)
            writer.write(handshake + frames)
            await writer.drain()
            if reset:
                writer.transport.abort()
            else:
                writer.close()
            return ""

        cases = []
        for n in range(1000):
            cut = frame(0x82, random.randbytes(random.choice([3, 200, 70_000])), random)
            sent = frame(0x81, b"%d" % n, random) + cut[: random.randrange(1, len(cut))]
            cases.append((opening(random, b"/%d" % n), sent, random.random() < 0.5))
        assert not await all_of(leave, cases)
        await until(lambda: not len(world.server.server_state.connections) and up.idle)
    sent = {b"/%d" % n: frames for n, (_, frames, _) in enumerate(cases)}
    assert len(up.received) > 500, "most of them opened"
    for seen in filter(None, up.received):
        head, _, rest = bytes(seen).partition(b"\r\n\r\n")
        frames = sent[head.split()[1]]
        if not frames.startswith(rest):
            # Its reset took away what it had sent: it went between two frames.
            assert rest[-8:-6] == b"\x88\x82"
            assert rest[:-8] in (b"", frames[: 6 + frames[1] - 128])


@pytest.mark.parametrize("code", [1000, 999, 1004])
@pytest.mark.parametrize("reset", [True, False])
async def test_a_close_that_the_workspace_answers_by_leaving(
    until: Until, quiet: None, code: int, reset: bool
) -> None:
    """Where it breaks off it has failed the connection, and so it ends for the client. A code that nobody may
    send is not sent back."""

    async def ide(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = await reader.readuntil(b"\r\n\r\n")
        writer.write(_switches(asked.split(b"sec-websocket-key: ")[1].split(b"\r\n")[0]))
        await reader.readexactly(8)
        if reset:
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)

    said = b"\x88\x82\0\0\0\0" + code.to_bytes(2, "big")
    async with upstream(ide) as up, gateway_before(up.port, until) as world:
        found = (await says(world.port, opening(Random(1)), said)).partition(b"\r\n\r\n")[2]
        assert found == (close_frame(1000) if code == 1000 and not reset else b"")


def _switches(key: bytes) -> bytes:
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept_key(key) + b"\r\n\r\n"
    )


async def test_the_gateways_own_channel(until: Until, quiet: None) -> None:
    """It minds the protocol itself: the codes of RFC 6455, and 4400 for messages that are none of its own."""
    random = Random(SEED + 3)
    protocol = b"Sec-WebSocket-Protocol: ide-gateway.v1"
    async with upstream(nobody) as up, gateway_before(up.port, until) as world:

        async def say(case: tuple[bytes, bytes]) -> str:
            handshake, frames = case
            got = (await says(world.port, handshake, frames + CLOSE)).partition(b"\r\n\r\n")[2]
            closed = int.from_bytes(got[2:4], "big") if got[:1] == b"\x88" else 0
            return "" if closed in {1000, 1002, 1007, 1009, 4400} else f"{frames[:60]!r}: {got!r}"

        cases = [
            (opening(random, b"/_gateway/control", protocol), wrong(random)) for _ in range(500)
        ]
        wrong_ones = await all_of(say, cases, 8)
    assert not wrong_ones, "\n".join([f"{len(wrong_ones)} of {len(cases)}", *wrong_ones[:20]])


async def nobody(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    raise AssertionError("the channel is the gateway's own")
