"""A session as a record: taken from one relay and resumed by another, also in another process, byte for byte."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from random import Random

import pytest

from gateway import closing
from gateway.frames import NO_STATUS, Walked, close_frame
from gateway.handing import NotNow, Record, resume, take
from gateway.passing import Ways
from gateway.tunnel import Session
from tests.gateway.malformed import frame
from tests.gateway.proxying import RawClient, client, gateway, upstream
from tests.gateway.relaying import KEYS, Relaying, opening
from tests.gateway.test_opening import echo

Until = Callable[..., Awaitable[object]]


@contextlib.asynccontextmanager
async def one_session() -> AsyncIterator[tuple[Relaying, RawClient]]:
    async with upstream(echo) as up, gateway(up.port, kind=Relaying) as app, client(app.port) as c:
        assert isinstance(app, Relaying)
        app.ways = Ways(app, app.proxy.upstreams, app.counted.append)
        await c.send(opening(KEYS[0]))
        assert (await c.head())[0] == 101
        assert await c.reader.readexactly(4) == b"\x81\x02hi"
        yield app, c


async def handed(app: Relaying, session: Session) -> Session:
    record, mine, theirs = await take(session)
    return await resume(Record.unpacked(record.packed()), mine, theirs, app.connections, app.ended)


async def test_a_stream_goes_on_over_many_hands(until: Until) -> None:
    """At any byte, with as many frames as may be: nothing is lost, doubled or put in."""
    random = Random(7)
    sent = b"".join(
        frame(0x82, random.randbytes(random.choice([0, 5, 200, 70_000])), random)
        for _ in range(300)
    )
    async with one_session() as (app, c):
        session = app.open[0]

        async def writes() -> None:
            at = 0
            while at < len(sent):
                step = random.randint(1, 60_000)
                await c.send(sent[at : at + step])
                at += step
                await asyncio.sleep(0)

        async def hands() -> int:
            nonlocal session
            times, seen = 0, 0
            while session.bytes_down < len(sent):
                if session.bytes_down > seen:
                    seen = session.bytes_down + random.randint(1, 100_000)
                    session = await handed(app, session)
                    times += 1
                await asyncio.sleep(0)
            return times

        async with asyncio.TaskGroup() as group, asyncio.timeout(30):
            group.create_task(writes())
            handing = group.create_task(hands())
            assert await c.reader.readexactly(len(sent)) == sent
        assert handing.result() > 5
        assert (session.data_frames_up, session.bytes_up) == (300, len(sent))
        assert session.down.data_frames == 301
        assert (session.id, session.workspace, session.user, session.epoch) == ("s", "w1", "ada", 1)
        session.end(closing.STOPPED)
        stopped = close_frame(closing.STOPPED.code, closing.STOPPED.reason)
        assert await c.reader.readexactly(len(stopped)) == stopped
        await c.send(frame(0x88, b"\x11\x3a", random))
        await until(lambda: app.codes == [closing.STOPPED.code])
        await until(lambda: not app.connections)


async def test_half_a_header_and_a_ping_under_way_are_taken_along(until: Until) -> None:
    random = Random(8)
    whole = frame(0x82, b"x" * 300, random)
    async with one_session() as (app, c):
        await c.send(whole[:3])  # within its header
        await until(lambda: app.open[0].bytes_up == 3)
        session = await handed(app, app.open[0])
        assert session.up.walked.head == whole[:3]
        await c.send(whole[3:])
        assert await c.reader.readexactly(len(whole)) == whole
        session.ping(asyncio.get_running_loop().time())
        ping = await c.reader.readexactly(10)
        assert ping[:2] == b"\x89\x08"
        pong = frame(0x8A, ping[2:], random)
        await c.send(pong[:7])  # held back: it may be the answer
        await until(lambda: session._pong is not None and session._pong._held == pong[:7])
        session = await handed(app, session)
        assert session.pinged_at
        await c.send(pong[7:] + whole)
        assert await c.reader.readexactly(len(whole)) == whole, "the pong was ours alone"
        assert not session.pinged_at
        assert session.up.control_frames == 1


async def test_one_that_is_ending_or_cannot_be_emptied_stays(until: Until) -> None:
    async with one_session() as (app, c):
        session = app.open[0]
        c.reader._transport.pause_reading()  # type: ignore[attr-defined]
        while not session._client or not session._client.transport.get_write_buffer_size():
            await c.send(frame(0x82, bytes(60_000), Random(1)))
        with pytest.raises(NotNow, match="too little"):
            await take(session, 0.05)
        c.reader._transport.resume_reading()  # type: ignore[attr-defined]
        size = session.bytes_up
        assert len(await c.reader.readexactly(size)) == size
        session.end(closing.STOPPED)
        with pytest.raises(NotNow, match="ending"):
            await take(session)


def test_a_record_is_small_and_survives_its_way() -> None:
    walked = Walked(2**50, 2**40, 2**40, NO_STATUS, 2**62, b"x" * 13)
    record = Record(
        "gateway-1.abcd-123456", "ws-abcdefghij", "u" * 64, 12, walked, walked, b"y" * 13, b"p" * 8
    )
    assert Record.unpacked(record.packed()) == record
    assert len(record.packed()) < 300
    for data in (b"", b"\x90", b"\xc1", record.packed()[:-1]):
        with pytest.raises(ValueError, match="no record of a session"):
            Record.unpacked(data)


ELSEWHERE = """
import asyncio, json, socket, sys
import uvloop
from gateway.handing import Record, resume

async def main(sock):
    data, fds, _, _ = socket.recv_fds(sock, 4096, 2)
    mine, theirs = (socket.socket(fileno=fd) for fd in fds)
    over = asyncio.get_running_loop().create_future()
    session = await resume(Record.unpacked(data), mine, theirs, set(), lambda s, code: over.set_result(code))
    sock.send(b"resumed")
    code = await over
    print(json.dumps([code, session.data_frames_up, session.bytes_up]))

uvloop.run(main(socket.socket(fileno=int(sys.argv[1]))))
"""


def elsewhere(sock: socket.socket) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", ELSEWHERE, str(sock.fileno())]
    return subprocess.Popen(command, pass_fds=[sock.fileno()], stdout=subprocess.PIPE, text=True)


async def test_another_process_goes_on_with_it(until: Until) -> None:
    random = Random(9)
    first, second = frame(0x82, b"1" * 5000, random), frame(0x81, b"2" * 50, random)
    async with one_session() as (app, c):
        await c.send(first[:1000])
        assert await c.reader.readexactly(1000) == first[:1000]
        ours, its = socket.socketpair()
        with ours, its:
            process = elsewhere(its)
            try:
                record, mine, theirs = await take(app.open[0])
                with mine, theirs:
                    socket.send_fds(ours, [record.packed()], [mine.fileno(), theirs.fileno()])
                await asyncio.to_thread(ours.recv, 16)
                await c.send(first[1000:] + second)
                rest = first[1000:] + second
                assert await c.reader.readexactly(len(rest)) == rest
                assert not app.connections, "nothing of it is here any more"
                c.writer.close()
                out, _ = await asyncio.to_thread(process.communicate, None, 20)
            finally:
                process.kill()
                process.wait()
        assert json.loads(out) == [1006, 2, len(first + second)]
