"""The proxy over real sockets: what goes in comes out, and what breaks is seen to break."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import hashlib
import socket
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import pytest
import uvloop

from gateway.auth import make_home_cookie, make_workspace_cookie, make_workspace_token
from gateway.proxy_client import Patience
from tests.gateway.proxying import (
    KEYS,
    Answer,
    Gateway,
    answer_bytes,
    answering,
    client,
    gateway,
    ok,
    request,
    upstream,
)

Until = Callable[..., Awaitable[object]]
Reader = asyncio.StreamReader
Writer = asyncio.StreamWriter

MIB = 2**20


@pytest.fixture(params=["application", "below"])
async def gate(request: pytest.FixtureRequest) -> AsyncIterator[Gateway]:
    """The same promises for what the application looks at and for what passes below it."""
    async with gateway(below=request.param == "below") as app:
        yield app


@pytest.fixture(params=[False, True], ids=["application", "below"])
def below(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def is_down(answer: Answer, kind: str) -> bool:
    """The application names the kind; below it there is one answer for all of them."""
    return answer.status == 502 and (
        answer.body == kind.encode() or b'"upstream_down"' in answer.body
    )


async def read_head(reader: Reader) -> bytes:
    return await reader.readuntil(b"\r\n\r\n")


# What is passed on


@pytest.mark.parametrize(
    "target",
    [
        "/",
        "//",
        "//a//b",
        "/a%2Fb%2fc",
        "/a;b=c;d",
        "/a?",
        "/?x=1?y=2",
        "/a/../b/./c",
        "/%zz?q=%zz&b=a+b%20c",
        "/%C3%A9?%00",
        '/a|b"<>{}^`?"<>|{}^`',
        "/a@b:80/c?d=http://e/f",
        "/a?b=c&b=c&&",
        "/" + "x" * 30_000,
    ],
)
async def test_path_and_query_pass_byte_for_byte(gate: Gateway, target: str) -> None:
    async with upstream(answering(ok())) as up, client(gate.port) as c:
        gate.target = up.port
        assert (await c.get(target)).status == 200
        sent = up.received[0].split(b"\r\n")[0].decode()
    # uvicorn does not tell "/a?" from "/a"; below the application nobody has taken it apart.
    assert sent in (f"GET {target.removesuffix('?')} HTTP/1.1", f"GET {target} HTTP/1.1")


async def test_the_host_of_an_absolute_target_is_not_dialled(gate: Gateway) -> None:
    async with upstream(answering(ok())) as up, client(gate.port) as c:
        gate.target = up.port
        assert (await c.get("http://127.0.0.1:1/x")).status == 400
        assert not up.received


async def test_nothing_is_added_that_nobody_said(gate: Gateway) -> None:
    async with upstream(answering(ok())) as up, client(gate.port) as c:
        gate.target = up.port
        await c.get("/", "X-Dup: 1", "Accept: x/y", "X-Dup: 2", "Cookie: a=1;b=2", "X-U: \xc3\xa9")
        lines = bytes(up.received[0]).split(b"\r\n")
    assert [line.lower() for line in lines] == [
        b"get / http/1.1",
        b"host: w1.localhost",
        b"x-dup: 1",
        b"accept: x/y",
        b"x-dup: 2",
        b"cookie: a=1;b=2",
        b"x-u: \xc3\xa9",
        b"x-forwarded-for: 127.0.0.1",
        b"x-forwarded-proto: http",
        b"x-forwarded-host: w1.localhost",
        b"x-forwarded-port: 80",
        b"x-secret: of-the-ide",
        b"",
        b"",
    ]


async def test_answers_pass_unchanged(gate: Gateway) -> None:
    packed = gzip.compress(b"x" * 1000)
    sent = ok(
        packed,
        "Set-Cookie: a=1; Path=/",
        "Set-Cookie: b=2; Domain=localhost",
        "Content-Encoding: gzip",
        "X-Dup: 1",
        "X-Dup: 2",
        "X-Raw: \xff",
        "Connection: keep-alive, X-Hop",
        "X-Hop: 1",
    )
    async with upstream(answering(sent)) as up, client(gate.port) as c:
        gate.target = up.port
        answer = await c.get()
        assert answer.body == packed
        assert answer.headers == [
            ("content-length", str(len(packed))),
            ("set-cookie", "a=1; Path=/"),
            ("set-cookie", "b=2"),
            ("content-encoding", "gzip"),
            ("x-dup", "1"),
            ("x-dup", "2"),
            ("x-raw", "\xff"),
        ]
        # No cookie jar: the next request brings what the client brings.
        await c.get()
        assert b"cookie" not in up.received[0].lower()


async def test_redirects_are_the_clients_to_follow(gate: Gateway) -> None:
    sent = answer_bytes("302 Found", "Location: http://127.0.0.1:1/", "Content-Length: 0")
    async with upstream(answering(sent)) as up, client(gate.port) as c:
        gate.target = up.port
        answer = await c.get()
        assert (answer.status, answer.values("location")) == (302, ["http://127.0.0.1:1/"])
        assert up.received[0].count(b"GET") == 1


async def test_ranges_pass(gate: Gateway) -> None:
    sent = answer_bytes("206 Partial Content", "Content-Range: bytes 2-4/9", "Content-Length: 3")
    async with upstream(answering(sent + b"cde")) as up, client(gate.port) as c:
        gate.target = up.port
        answer = await c.get("/", "Range: bytes=2-4")
        assert (answer.status, answer.body) == (206, b"cde")
        assert answer.values("content-range") == ["bytes 2-4/9"]
        assert b"range: bytes=2-4\r\n" in up.received[0].lower()


@pytest.mark.parametrize(
    ("method", "sent", "length"),
    [
        ("HEAD", answer_bytes("200 OK", "Content-Length: 12345"), ["12345"]),
        ("HEAD", answer_bytes("200 OK", "Transfer-Encoding: chunked"), []),
        ("GET", answer_bytes("204 No Content"), []),
        ("DELETE", answer_bytes("204 No Content", "Content-Length: 0"), []),
        ("GET", answer_bytes("304 Not Modified", "Content-Length: 12345", "ETag: x"), []),
        ("HEAD", answer_bytes("304 Not Modified", "Content-Length: 12345"), []),
        ("GET", ok(b""), ["0"]),
        ("OPTIONS", ok(b"x"), ["1"]),
    ],
)
async def test_answers_without_body_leave_the_connection_usable(
    gate: Gateway, method: str, sent: bytes, length: list[str]
) -> None:
    async with upstream(answering(sent, ok(b"next"))) as up, client(gate.port) as c:
        gate.target = up.port
        answer = await c.get(method=method)
        assert answer.values("content-length") == length
        assert answer.values("transfer-encoding") == []
        assert (await c.get()).body == b"next"
        assert len(up.received) == 1  # the upstream's connection was kept too


async def test_an_answer_without_length_ends_with_its_connection(gate: Gateway) -> None:
    async def handler(reader: Reader, writer: Writer) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.0 200 OK\r\n\r\nall of it")

    async with upstream(handler) as up, client(gate.port) as c:
        gate.target = up.port
        answer = await c.get()
        assert (answer.body, answer.whole) == (b"all of it", True)


async def test_informational_answers_and_trailers_are_left_out(gate: Gateway) -> None:
    sent = (
        b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n"
        b"2;ext=1\r\nab\r\n1\r\nc\r\n0\r\nX: trailer\r\n\r\n"
    )
    async with upstream(answering(sent, ok(b"next"))) as up, client(gate.port) as c:
        gate.target = up.port
        answer = await c.get()
        assert (answer.status, answer.body) == (200, b"abc")
        assert answer.headers == [("transfer-encoding", "chunked")]
        assert (await c.get()).body == b"next"


# Bodies of any size


async def hashing(reader: Reader, writer: Writer) -> None:
    """Answers with the hash of the body, sent with a length or in chunks."""
    head = (await read_head(reader)).lower()
    digest = hashlib.sha256()
    if b"transfer-encoding: chunked" in head:
        while size := int(await reader.readuntil(b"\r\n"), 16):
            digest.update(await reader.readexactly(size))
            await reader.readexactly(2)
        await reader.readexactly(2)
    else:
        left = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
        while left:
            data = await reader.read(min(left, 65536))
            digest.update(data)
            left -= len(data)
    writer.write(ok(digest.hexdigest().encode()))
    await writer.drain()
    await reader.read()


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_large_upload(gate: Gateway, chunked: bool) -> None:
    piece = bytes(range(256)) * 1024
    framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {80 * len(piece)}"
    async with upstream(hashing) as up, client(gate.port) as c:
        gate.target = up.port
        tracemalloc.start()
        await c.send(f"PUT /x HTTP/1.1\r\nHost: w1.localhost\r\n{framing}\r\n\r\n".encode())
        for _ in range(80):
            await c.send(b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece)
        await c.send(b"0\r\n\r\n" if chunked else b"")
        answer = await c.answer()
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert answer.body.decode() == hashlib.sha256(piece * 80).hexdigest()
    assert peak < 6 * MIB, "20 MiB passed through"
    assert gate.ways or gate.outcomes[0].bytes_up == 80 * len(piece)


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_large_download_waits_for_a_slow_reader(gate: Gateway, chunked: bool) -> None:
    piece = bytes(range(256)) * 256
    framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {320 * len(piece)}"

    async def handler(reader: Reader, writer: Writer) -> None:
        await read_head(reader)
        writer.write(answer_bytes("200 OK", framing))
        for _ in range(320):
            writer.write(b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece)
            await writer.drain()
        writer.write(b"0\r\n\r\n" if chunked else b"")
        await writer.drain()
        await reader.read()

    async with upstream(handler) as up, client(gate.port) as c:
        gate.target = up.port
        tracemalloc.start()
        await c.send(b"GET / HTTP/1.1\r\nHost: w1.localhost\r\n\r\n")
        assert (await c.head())[0] == 200
        digest, left = hashlib.sha256(), 320 * len(piece)
        while left:
            data = await c.chunk() if chunked else await c.reader.read(16384)
            digest.update(data)
            left -= len(data)
            await asyncio.sleep(0)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert digest.digest() == hashlib.sha256(piece * 320).digest()
    assert peak < 6 * MIB, "20 MiB passed through"


async def test_an_upload_waits_for_an_upstream_that_does_not_read(gate: Gateway) -> None:
    go = asyncio.Event()

    async def handler(reader: Reader, writer: Writer) -> None:
        await go.wait()
        await hashing(reader, writer)

    piece = b"x" * 65536
    async with upstream(handler) as up, client(gate.port) as c:
        gate.target = up.port
        await c.send(b"PUT / HTTP/1.1\r\nHost: w1.localhost\r\nContent-Length: 67108864\r\n\r\n")
        tracemalloc.start()
        sent = 0
        try:
            async with asyncio.timeout(1):
                for _ in range(1024):
                    await c.send(piece)
                    sent += 1
        except TimeoutError:
            sent += 1  # handed over, though not drained
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert sent < 1024, "64 MiB went somewhere"
        assert peak < 4 * MIB
        go.set()
        for _ in range(1024 - sent):
            await c.send(piece)
        assert (await c.answer()).body.decode() == hashlib.sha256(piece * 1024).hexdigest()


def test_a_connection_that_was_held_back_to_the_end_serves_on(below: bool) -> None:
    """The last of a body fills the client's side: what is asked next on that connection is answered, too.
    On the gateway's own loop, which tells of a full buffer before it has tried to empty it."""
    sizes = range(60_000, 320_000, 20_000)

    async def ask() -> None:
        answers = answering(*(ok(b"x" * size) for size in sizes))
        async with gateway(below=below) as gate, upstream(answers) as up:
            gate.target = up.port
            for size in sizes:
                async with client(gate.port) as c, asyncio.timeout(10):
                    assert len((await c.get()).body) == size
            assert len(up.received) == 1

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(ask())


async def test_who_asks_on_and_takes_nothing_is_not_answered_on(gate: Gateway) -> None:
    body = b"x" * 1_000_000
    async with upstream(answering(ok(body))) as up, client(gate.port, limit=1024) as c:
        gate.target = up.port
        tracemalloc.start()
        await c.send(request("GET", "/") * 40)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.5):
                await up.closed.wait()
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 8 * MIB, "40 MB were asked for"
        for _ in range(40):
            assert (await c.answer()).body == body


async def test_events_pass_at_once(gate: Gateway) -> None:
    heard: asyncio.Queue[None] = asyncio.Queue()

    async def handler(reader: Reader, writer: Writer) -> None:
        await read_head(reader)
        writer.write(
            answer_bytes("200 OK", "Content-Type: text/event-stream", "Transfer-Encoding: chunked")
        )
        for i in range(5):
            writer.write(b"9\r\ndata: %d\n\n\r\n" % i)
            await heard.get()  # the next one leaves only after this one has arrived
        writer.write(b"0\r\n\r\n")
        await reader.read()

    async with upstream(handler) as up, client(gate.port) as c:
        gate.target = up.port
        await c.send(b"GET / HTTP/1.1\r\nHost: w1.localhost\r\n\r\n")
        assert dict((await c.head())[1])["content-type"] == "text/event-stream"
        for i in range(5):
            assert await c.chunk() == b"data: %d\n\n" % i
            heard.put_nowait(None)
        assert await c.chunk() == b""


async def test_both_directions_at_once(gate: Gateway) -> None:
    async def handler(reader: Reader, writer: Writer) -> None:
        await read_head(reader)
        writer.write(answer_bytes("200 OK", "Transfer-Encoding: chunked"))
        while size := int(await reader.readuntil(b"\r\n"), 16):
            data = (await reader.readexactly(size + 2))[:-2]
            writer.write(b"%x\r\n%s\r\n" % (len(data), data.upper()))
        writer.write(b"0\r\n\r\n")
        await reader.read()

    async with upstream(handler) as up, client(gate.port) as c:
        gate.target = up.port
        head = b"POST / HTTP/1.1\r\nHost: w1.localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        await c.send(head + b"3\r\none\r\n")
        await c.head()
        assert await c.chunk() == b"ONE"
        await c.send(b"3\r\ntwo\r\n")
        assert await c.chunk() == b"TWO"
        await c.send(b"0\r\n\r\n")
        assert await c.chunk() == b""


async def test_expect_continue_is_answered_here(gate: Gateway) -> None:
    async with upstream(hashing) as up, client(gate.port) as c:
        gate.target = up.port
        await c.send(
            b"POST / HTTP/1.1\r\nHost: w1.localhost\r\n"
            b"Content-Length: 3\r\nExpect: 100-continue\r\n\r\n"
        )
        assert (await c.head())[0] == 100
        await c.send(b"abc")
        answer = await c.answer()
        assert answer.body.decode() == hashlib.sha256(b"abc").hexdigest()
        assert b"expect" not in up.received[0].lower()


async def test_nobody_is_asked_to_continue_when_the_upstream_is_down(gate: Gateway) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        gate.target = unused.getsockname()[1]
        async with client(gate.port) as c:
            await c.send(
                b"POST / HTTP/1.1\r\nHost: w1.localhost\r\n"
                b"Content-Length: 3\r\nExpect: 100-continue\r\n\r\n"
            )
            assert (await c.answer()).status == 502


async def test_an_early_answer_passes_while_the_upload_goes_on(gate: Gateway) -> None:
    async def handler(reader: Reader, writer: Writer) -> None:
        await read_head(reader)
        writer.write(answer_bytes("413 Too Large", "Content-Length: 3") + b"big")
        await reader.read()

    async with upstream(handler) as up, client(gate.port) as c:
        gate.target = up.port
        await c.send(b"PUT / HTTP/1.1\r\nHost: w1.localhost\r\nContent-Length: 1000\r\n\r\nsome")
        answer = await c.answer()
        assert (answer.status, answer.body) == (413, b"big")
        # The rest of the upload goes nowhere, and the client's next request is understood.
        await c.send(b"x" * 996)
        assert (await c.get()).status == 413
        # The half-fed connection was not used again.
        assert len(up.received) == 2


@pytest.mark.parametrize("framing", ["Content-Length: 0", "Content-Type: x/y"])
async def test_a_post_without_body(gate: Gateway, framing: str) -> None:
    async with upstream(answering(ok())) as up, client(gate.port) as c:
        gate.target = up.port
        assert (await c.get("/", framing, method="POST")).body == b"ok"
        assert up.received[0].lower().count(b"content-length: 0\r\n") == 1
        assert b"transfer-encoding" not in up.received[0].lower()


# Partings


async def silent(reader: Reader, writer: Writer) -> None:
    await reader.read()


async def dripping(reader: Reader, writer: Writer) -> None:
    await read_head(reader)
    writer.write(answer_bytes("200 OK", "Transfer-Encoding: chunked") + b"1\r\nx\r\n")
    await reader.read()


@pytest.mark.parametrize("handler", [silent, dripping])
@pytest.mark.parametrize(
    "sent", ["\r\n", "Content-Length: 1000\r\n\r\nsome", "Content-Length: 4\r\n\r\nsome"]
)
async def test_a_client_that_leaves_takes_its_request_along(
    gate: Gateway, until: Until, handler: Callable[..., Awaitable[None]], sent: str
) -> None:
    async with upstream(handler) as up:
        gate.target = up.port
        async with client(gate.port) as c:
            await c.send(f"PUT / HTTP/1.1\r\nHost: w1.localhost\r\n{sent}".encode())
            if handler is dripping:
                await c.head()
                assert await c.chunk() == b"x"
            else:
                await until(lambda: up.received and b"\r\n\r\n" in up.received[0])
            assert not up.closed.is_set()
        await asyncio.wait_for(up.closed.wait(), 5)
        await until(lambda: gate.over)
    assert gate.ways or gate.outcomes[0].ended == "client_gone"


@pytest.mark.parametrize(
    "sent",
    [
        b"Content-Length: 100\r\n\r\npart",
        b"Transfer-Encoding: chunked\r\n\r\n4\r\npart\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n4\r\npart\r\n5\r\nhal",
    ],
)
@pytest.mark.parametrize("reset", [False, True])
async def test_an_answer_cut_short_looks_cut_short(gate: Gateway, sent: bytes, reset: bool) -> None:
    arrived = asyncio.Event()

    async def handler(reader: Reader, writer: Writer) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n" + sent)
        await arrived.wait()
        if reset:
            writer.transport.abort()

    async with upstream(handler) as up, client(gate.port) as c:
        gate.target = up.port
        await c.send(b"GET / HTTP/1.1\r\nHost: w1.localhost\r\n\r\n")
        assert (await c.head())[0] == 200
        arrived.set()
        rest = await c.reader.read()  # until the gateway closes
        assert b"0\r\n\r\n" not in rest
        assert rest.count(b"part") <= 1
    assert gate.ways or gate.outcomes[0].ended == "upstream_lost"
    assert gate.down == []


async def test_a_dropped_route_ends_what_runs_on_it(gate: Gateway, until: Until) -> None:
    async def endless(reader: Reader, writer: Writer) -> None:
        await read_head(reader)
        writer.write(answer_bytes("200 OK") + b"no length")
        await reader.read()

    async with upstream(endless) as up, client(gate.port) as c:
        gate.target = up.port
        await c.send(b"GET / HTTP/1.1\r\nHost: w1.localhost\r\n\r\n")
        await c.head()
        assert await c.chunk() == b"no length"
        await gate.proxy.drop(("w1", 1))
        assert await c.reader.read() == b""
        await asyncio.wait_for(up.closed.wait(), 5)
        await until(lambda: gate.over)
        assert gate.ways or gate.outcomes[0].ended == "upstream_lost"
        await gate.proxy.drop(("w1", 1))  # again is fine


async def test_an_upstream_nobody_listens_on(gate: Gateway) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        gate.target = unused.getsockname()[1]
        async with client(gate.port) as c:
            answer = await c.get()
            assert (answer.status, answer.body) == (502, b"refused")
            assert (await c.get()).status == 502  # the client's connection lives on


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200 OK\r\nContent-Le"])
async def test_an_upstream_that_hangs_up(gate: Gateway, sent: bytes) -> None:
    async def handler(reader: Reader, writer: Writer) -> None:
        await read_head(reader)
        writer.write(sent)

    async with upstream(handler) as up, client(gate.port) as c:
        gate.target = up.port
        assert (await c.get()).body == b"reset"


HUGE = "x" * 70_000


@pytest.mark.parametrize(
    "sent",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        answer_bytes("101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade"),
        answer_bytes("999 Odd", "Content-Length: 0"),
        answer_bytes("200 OK", f"X-Huge: {HUGE}", "Content-Length: 0"),
        answer_bytes("200 OK", *(f"X-{i}: {HUGE[:9000]}" for i in range(9)), "Content-Length: 0"),
        answer_bytes("200 OK", *(f"X-{i}: 1" for i in range(2000)), "Content-Length: 0"),
        answer_bytes("200 OK", "Content-Length: 1", "Content-Length: 2") + b"ab",
        answer_bytes("200 OK", "Content-Length: -1"),
        answer_bytes("200 OK", "X-Bad: a\x01b", "Content-Length: 0"),
    ],
    ids=range(10),
)
async def test_an_answer_that_is_none(gate: Gateway, sent: bytes) -> None:
    async with upstream(answering(sent)) as up, client(gate.port) as c:
        gate.target = up.port
        answer = await c.get()
        assert (answer.status, answer.body) == (502, b"bad_answer")
        assert (await c.get()).status == 502  # and the next one is not taken for a rest of it


# Patience


async def test_an_upstream_that_never_answers(below: bool) -> None:
    async with (
        gateway(patience=Patience(answer=0.2), below=below) as gate,
        upstream(silent) as up,
        client(gate.port) as c,
    ):
        gate.target = up.port
        assert is_down(await c.get(), "timeout")
        await asyncio.wait_for(up.closed.wait(), 5)


async def test_a_silent_stream_is_not_ended(below: bool) -> None:
    go = asyncio.Event()

    async def handler(reader: Reader, writer: Writer) -> None:
        await read_head(reader)
        writer.write(answer_bytes("200 OK", "Transfer-Encoding: chunked") + b"1\r\na\r\n")
        await go.wait()
        writer.write(b"1\r\nb\r\n0\r\n\r\n")
        await reader.read()

    async with (
        gateway(patience=Patience(answer=1, stall=0.05), below=below) as gate,
        upstream(handler) as up,
        client(gate.port) as c,
    ):
        gate.target = up.port
        await c.send(b"GET / HTTP/1.1\r\nHost: w1.localhost\r\n\r\n")
        await c.head()
        assert await c.chunk() == b"a"
        asyncio.get_running_loop().call_later(1.3, go.set)  # longer than its patience
        assert await c.chunk() == b"b"
        assert await c.chunk() == b""


async def test_an_upstream_that_takes_no_upload(below: bool) -> None:
    async def handler(reader: Reader, writer: Writer) -> None:
        await asyncio.Future()

    async with (
        gateway(patience=Patience(stall=0.3), below=below) as gate,
        upstream(handler) as up,
        client(gate.port) as c,
    ):
        gate.target = up.port
        await c.send(b"PUT / HTTP/1.1\r\nHost: w1.localhost\r\nContent-Length: 99999999\r\n\r\n")
        c.writer.write(b"x" * 99_999_999)
        async with asyncio.timeout(10):
            assert is_down(await c.answer(), "timeout")


async def test_a_client_that_does_not_send_what_it_announced(below: bool, until: Until) -> None:
    async with (
        gateway(patience=Patience(stall=0.2), below=below) as gate,
        upstream(silent) as up,
        client(gate.port) as c,
    ):
        gate.target = up.port
        await c.send(b"PUT / HTTP/1.1\r\nHost: w1.localhost\r\nContent-Length: 10\r\n\r\nabc")
        assert (await c.answer()).status == 408
        assert await c.reader.read() == b""
        await asyncio.wait_for(up.closed.wait(), 5)
        await until(lambda: gate.over)
        assert gate.ways or gate.outcomes[0].ended == "client_stalled"


async def test_a_client_that_reads_nothing(below: bool, until: Until) -> None:
    async def handler(reader: Reader, writer: Writer) -> None:
        await read_head(reader)
        writer.write(answer_bytes("200 OK", "Transfer-Encoding: chunked"))
        while True:
            writer.write(b"10000\r\n" + b"x" * 65536 + b"\r\n")
            await writer.drain()

    async with (
        gateway(patience=Patience(stall=0.3), below=below) as gate,
        upstream(handler) as up,
        client(gate.port, limit=1024) as c,
    ):
        gate.target = up.port
        await c.send(b"GET / HTTP/1.1\r\nHost: w1.localhost\r\n\r\n")
        await until(lambda: gate.counted or gate.outcomes, what="the answer begins")
        await until(lambda: gate.over, what="the gateway lost patience")
        assert gate.ways or gate.outcomes[0].ended == "client_stalled"
        await until(up.closed.is_set)
        # Its connection is gone too, though it has not taken what was buffered.
        await until(lambda: not gate.connections)


# Connections


def hanging_up_on_the_second(seen: list[bytes]) -> Callable[[Reader, Writer], Awaitable[None]]:
    """Answers once per connection, and hangs up on the next request without an answer."""

    async def handler(reader: Reader, writer: Writer) -> None:
        seen.append(await read_head(reader))
        writer.write(ok(b""))
        seen.append(await read_head(reader))

    return handler


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE"])
async def test_a_dead_connection_is_not_the_clients_problem(gate: Gateway, method: str) -> None:
    seen: list[bytes] = []
    async with upstream(hanging_up_on_the_second(seen)) as up, client(gate.port) as c:
        gate.target = up.port
        assert (await c.get()).status == 200
        assert (await c.get(method=method)).status == 200
        assert len(up.received) == 2
        assert [line.split()[0].decode() for line in seen] == ["GET", method, method]


@pytest.mark.parametrize(
    ("method", "body"), [("POST", ""), ("POST", "abc"), ("PUT", "abc"), ("PATCH", "abc")]
)
async def test_what_may_have_happened_is_not_repeated(
    gate: Gateway, method: str, body: str
) -> None:
    seen: list[bytes] = []
    async with upstream(hanging_up_on_the_second(seen)) as up, client(gate.port) as c:
        gate.target = up.port
        assert (await c.get()).status == 200
        await c.send(
            f"{method} / HTTP/1.1\r\nHost: w1.localhost\r\n"
            f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
        )
        assert is_down(await c.answer(), "reset")
        assert [line.split()[0].decode() for line in seen] == ["GET", method]


async def test_connections_are_kept_but_never_shared_between_routes(gate: Gateway) -> None:
    async with upstream(answering(ok())) as up:
        gate.target = up.port
        for route_key, connections in [
            (("w1", 1), 1),
            (("w1", 1), 1),
            (("w2", 1), 2),
            (("w1", 2), 3),
            (("w2", 1), 3),
            (("w1", 1), 3),
        ]:
            gate.route_key = route_key
            async with client(gate.port) as c:
                assert (await c.get()).status == 200
            assert len(up.received) == connections, route_key


async def test_the_longest_unused_route_is_closed(below: bool) -> None:
    async with gateway(max_routes=2, below=below) as gate, upstream(answering(ok())) as up:
        gate.target = up.port
        async with client(gate.port) as c:
            for key, connections in [("a", 1), ("b", 2), ("a", 2), ("c", 3), ("a", 3), ("b", 4)]:
                gate.route_key = key, 1
                assert (await c.get()).status == 200
                assert len(up.received) == connections, key
        await asyncio.wait_for(up.closed.wait(), 5)


async def test_a_route_in_use_is_never_the_one_closed(below: bool) -> None:
    go = asyncio.Event()

    async def handler(reader: Reader, writer: Writer) -> None:
        await read_head(reader)
        writer.write(answer_bytes("200 OK", "Content-Length: 2") + b"a")
        await go.wait()
        writer.write(b"b")
        await reader.read()

    async with (
        gateway(max_routes=1, below=below) as gate,
        upstream(handler) as up,
        AsyncExitStack() as stack,
    ):
        gate.target = up.port
        clients = []
        for key in "abc":
            gate.route_key = key, 1
            clients.append(await stack.enter_async_context(client(gate.port)))
            await clients[-1].send(b"GET / HTTP/1.1\r\nHost: w1.localhost\r\n\r\n")
            assert (await clients[-1].head())[0] == 200
        go.set()
        for c in clients:
            assert await asyncio.wait_for(c.reader.readexactly(2), 10) == b"ab"


# Secrets


async def test_nothing_of_ours_reaches_the_upstream(gate: Gateway) -> None:
    home = make_home_cookie("ada", KEYS, now=0)
    room = make_workspace_cookie("w1", "ada", KEYS, now=0)
    token = make_workspace_token("w1", "ada", KEYS, now=0)
    canaries = [home, room, token, KEYS.api_key, KEYS.signing_key]
    async with upstream(answering(ok())) as up, client(gate.port) as c:
        gate.target = up.port
        for lines in [
            [f"Cookie: a=1; ide-gateway={room}; ide-gateway-home={home}; b=2"],
            [f"Cookie: __Host-ide-gateway={room};__Host-ide-gateway-home={home}"],
            [f"cookie: ide-gateway={room}", f"Cookie: ide-gateway-home={home}"],
            [f"Authorization: Bearer {token}"],
            [f"AUTHORIZATION: bearer  {token}"],
            [f"Authorization: Bearer {KEYS.api_key}"],
            [f"Proxy-Authorization: Bearer {token}"],
            [f"X-Secret: {token}", f"Connection: X-Other, cookie, x-secret, {token}"],
        ]:
            assert (await c.get("/", *lines)).status == 200
        for seen in up.received:
            for canary in canaries:
                assert canary.encode() not in seen
        everything = b"".join(bytes(seen) for seen in up.received)
        assert b"cookie: a=1; b=2\r\n" in everything
        assert everything.count(b"x-secret: of-the-ide\r\n") == 8


async def test_the_ides_own_credentials_pass(gate: Gateway) -> None:
    async with upstream(answering(ok())) as up, client(gate.port) as c:
        gate.target = up.port
        await c.get("/", "Authorization: Bearer of-the-ide", "Cookie: _xsrf=2|x")
        assert b"authorization: Bearer of-the-ide\r\n" in up.received[0]
        assert b"cookie: _xsrf=2|x\r\n" in up.received[0]


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n folded\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
        b"TRACE / HTTP/1.1\r\nHost: a\r\n\r\n",
    ],
)
async def test_smuggled_requests_stop_here(gate: Gateway, head: bytes) -> None:
    async with upstream(answering(ok())) as up, client(gate.port) as c:
        gate.target = up.port
        await c.send(head)
        assert (await c.head())[0] == 400
        assert up.received == []
