"""Wires: what an asyncio transport promises, and what must not happen in C."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import random
import resource
import socket
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from gateway import accepting, wire
from gateway.bounds import death_options

Until = Callable[..., Awaitable[object]]

pytestmark = pytest.mark.skipif(not wire.IS_COMPILED, reason="the relay is not compiled here")


class Told(asyncio.Protocol):
    """Remembers what its transport told it."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.data = b""
        self.error: Exception | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.calls.append("made")

    def data_received(self, data: bytes) -> None:
        self.data += data

    def pause_writing(self) -> None:
        self.calls.append("pause")

    def resume_writing(self) -> None:
        self.calls.append("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self.calls.append("lost")
        self.error = exc


@contextlib.asynccontextmanager
async def pair(protocol: Any = None) -> AsyncIterator[tuple[Any, Any, socket.socket]]:
    """(a wire, its protocol, the other end as a socket)"""
    here, there = socket.socketpair()
    here.setblocking(False)
    there.setblocking(False)
    told = protocol or Told()
    made = wire.wire(asyncio.get_running_loop(), here.detach(), told)
    made.resume_reading()
    try:
        yield made, told, there
    finally:
        made.abort()
        there.close()
        await asyncio.sleep(0)


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


async def test_bytes_pass_both_ways_and_the_end_is_told_once(until: Until) -> None:
    async with pair() as (made, told, there):
        there.send(b"hello")
        await until(lambda: told.data == b"hello")
        made.write(b"good")
        made.writelines([b" ", bytearray(b"day"), b""])
        made.writelines([b"!", b"?"])
        assert there.recv(100) == b"good day!?"
        there.close()
        await until(lambda: told.calls == ["lost"])
        assert told.error is None
        assert made.is_closing()
        assert made.fileno() == -1
        for call in (made.close, made.abort, made.pause_reading, made.resume_reading):
            call()
        made.write(b"nobody reads this")
        made.writelines([b"nor", b"this"])
        await asyncio.sleep(0)
        assert told.calls == ["lost"]


async def test_a_side_that_does_not_read_holds_up_and_gets_all_of_it(until: Until) -> None:
    async with pair() as (made, told, there):
        sent = random.Random(1).randbytes(3_000_000)
        made.write(sent[:1_000_000])
        assert told.calls == ["pause"]
        made.writelines([sent[1_000_000:2_000_000], sent[2_000_000:]])
        assert made.get_write_buffer_size() > 2_000_000
        made.close()  # after what waits
        made.write(b"too late")
        received = bytearray()

        def read() -> bool:
            with contextlib.suppress(BlockingIOError):
                received.extend(there.recv(1 << 16))
            return told.calls[-1] == "lost" and len(received) >= len(sent)

        await until(read)
        assert received == sent
        assert told.calls == ["pause", "resume", "lost"]


async def test_limits_of_what_waits_are_those_that_were_set(until: Until) -> None:
    async with pair() as (made, told, there):
        there.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        made.set_write_buffer_limits(high=1_000_000)
        made.write(bytes(900_000))
        assert told.calls == []
        made.write(bytes(500_000))
        assert told.calls == ["pause"]
        with pytest.raises(ValueError, match="high"):
            made.set_write_buffer_limits(high=1, low=2)


async def test_what_is_paused_is_not_read_and_a_reset_meanwhile_waits(until: Until) -> None:
    listening = socket.create_server(("127.0.0.1", 0))
    theirs = socket.create_connection(listening.getsockname())
    ours, _ = listening.accept()
    ours.setblocking(False)
    told = Told()
    made: Any = wire.wire(asyncio.get_running_loop(), ours.detach(), told)
    with listening, theirs:
        assert not made.is_reading()
        theirs.send(b"early")
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        theirs.close()
        for _ in range(20):
            await asyncio.sleep(0)
        assert told.calls == []
        assert told.data == b""
        made.resume_reading()
        await until(lambda: told.calls == ["lost"])
        assert isinstance(told.error, ConnectionResetError)


async def test_connecting_is_told_and_so_is_failing(until: Until) -> None:
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        host, port = listening.getsockname()
        told = Told()
        made: Any = wire.connect(loop, host, port, told, death_options(45))
        made.write(b"early")
        await until(lambda: told.calls == ["made"])
        theirs, address = listening.accept()
        with theirs:
            assert made.getsockname() == address == made.get_extra_info("socket").getsockname()
            assert made.getpeername() == (host, port)
            assert theirs.recv(10) == b"early"
            theirs.send(b"late")
            await until(lambda: told.data == b"late")
        await until(lambda: told.calls == ["made", "lost"])
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # and nobody listens
        refused = Told()
        assert wire.connect(loop, *bound.getsockname(), refused) is not None
        await until(lambda: refused.calls == ["lost"])
        assert isinstance(refused.error, ConnectionRefusedError)
    assert wire.connect(loop, "localhost", 1, told) is None, "a name is looked up elsewhere"


async def test_ipv6_addresses_are_those_of_the_socket_module() -> None:
    try:
        listening = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("no IPv6 here")
    with listening:
        made: Any = wire.connect(asyncio.get_running_loop(), *listening.getsockname()[:2], Told())
        theirs, address = listening.accept()
        with theirs:
            assert made.getsockname() == address
        made.abort()
        await asyncio.sleep(0)


class Failing(Told):
    def data_received(self, data: bytes) -> None:
        raise ZeroDivisionError("of the test")


class FailingLater(Told):
    def connection_lost(self, exc: Exception | None) -> None:
        self.calls.append("lost")
        raise ZeroDivisionError("of the test")


@pytest.mark.parametrize("protocol", [Failing, FailingLater])
async def test_an_exception_in_a_protocol_is_told_to_the_loop_and_ends_that_one(
    protocol: type[Told], until: Until
) -> None:
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: told.append(context))
    async with pair(protocol()) as (made, failing, there), pair() as (_, well, other):
        there.send(b"x")
        if protocol is FailingLater:
            there.close()
        other.send(b"y")
        await until(lambda: failing.calls == ["lost"])
        await until(lambda: well.data == b"y")
        (context,) = told
        assert isinstance(context["exception"], ZeroDivisionError)
        assert made.fileno() == -1


async def test_nothing_is_left_of_wires_that_are_gone(until: Until) -> None:
    before = descriptors()
    random_, gone = random.Random(2), list[Any]()
    for _ in range(300):
        protocol = Told()
        gone.append(weakref.ref(protocol))
        async with pair(protocol) as (made, _, there):
            there.send(b"something")
            if random_.random() < 0.5:
                made.write(bytes(random_.choice([1, 400_000])))
            if random_.random() < 0.5:
                await asyncio.sleep(0)
            if random_.random() < 0.3:
                there.close()
            if random_.random() < 0.3:
                made.close()
        del protocol, made, there, _
    await until(lambda: descriptors() == before, what="closed")
    gc.collect()
    assert [ref for ref in gone if ref() is not None] == []


async def test_wires_may_end_one_another_within_one_turn(until: Until) -> None:
    class Ends(Told):
        others: tuple[Any, ...] = ()

        def data_received(self, data: bytes) -> None:
            for other in self.others:
                other.abort()

    async with pair(Ends()) as (a, one, there_a), pair(Ends()) as (b, two, there_b):
        one.others = two.others = (a, b)
        there_a.send(b"x")
        there_b.send(b"x")
        await until(lambda: one.calls == two.calls == ["lost"])


async def test_a_process_without_descriptors_accepts_again_once_there_are_some(
    until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accepting, "PAUSE", 0.01)
    made: list[Told] = []

    def protocol() -> Told:
        made.append(Told())
        return made[-1]

    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    acceptor = accepting.Acceptor(asyncio.get_running_loop(), listening, protocol, 10)
    clients = [socket.socket() for _ in range(3)]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(name) for name in descriptors())
    try:
        taken = []
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, hard))
        with contextlib.suppress(OSError):  # until there are too many
            while True:
                taken.append(os.dup(clients[0].fileno()))
        clients[0].connect(listening.getsockname())
        for _ in range(10):
            await asyncio.sleep(0)
        assert made == []
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in taken:
            os.close(fd)
    try:
        await until(lambda: made and made[0].calls == ["made"])
        for client in clients[1:]:
            client.connect(listening.getsockname())
        await until(lambda: len(made) == 3)
    finally:
        acceptor.close()
        listening.close()
        for client in clients:
            client.close()
    await until(lambda: all(told.calls == ["made", "lost"] for told in made))
