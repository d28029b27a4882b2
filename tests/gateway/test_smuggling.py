"""Request smuggling: whatever a client or a workspace says, nobody's request or answer hides in another's."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from gateway.passing import Ways
from gateway.upgrade import accept_key
from tests.gateway.proxying import Gateway, RawClient, client, gateway, ok, upstream
from tests.gateway.relaying import KEYS, Relaying, opening
from tests.gateway.smuggling import (
    EITHER,
    FAMILIES,
    FORGED,
    REFUSED,
    SMUGGLED,
    Case,
    NotStrict,
    Seen,
    Told,
    answers,
    head,
    strictly,
)

PROBE = head(method="GET", target="/probe")


def test_there_are_hundreds_of_them() -> None:
    cases = [case for family in FAMILIES.values() for case in family()]
    assert len({case.sent for case in cases}) == len(cases) >= 200


@pytest.fixture(params=[False, True], ids=["application", "below"])
async def gate(request: pytest.FixtureRequest) -> AsyncIterator[Gateway]:
    async with gateway(below=request.param) as running:
        yield running


class Workspace:
    """Reads strictly, and answers each request with what it saw of it."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.wrong: list[str] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while request := await strictly(reader):
                self.seen.append(request)
                writer.write(ok(b"%b %b %d" % (request.method, request.target, len(request.body))))
        except NotStrict as wrong:
            self.wrong.append(str(wrong))
        except asyncio.IncompleteReadError:
            pass  # a request that was broken off: the gateway gave up on its body


async def told(c: RawClient) -> list[tuple[int, bytes]]:
    """Every answer until the gateway closes, or has answered the probe."""
    found: list[tuple[int, bytes]] = []
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            status, headers = await c.head()
            if status == 100:
                continue
            body = await c.reader.readexactly(int(dict(headers)["content-length"]))
            found.append((status, body))
            if b"/probe" in body:
                break
    return found


async def wrong_with(case: Case, gate: Gateway, there: Workspace) -> str:
    """Why that case ended as it must not; "" when all is well."""
    there.seen.clear()
    there.wrong.clear()
    async with client(gate.port) as c:
        await c.send(case.sent)
        if case.right == REFUSED:
            c.writer.write_eof()
        else:
            with contextlib.suppress(ConnectionError):
                await c.send(PROBE)
        found = await told(c)
    if there.wrong:
        return f"a strict parser does not take what came: {there.wrong}"
    if case.right == REFUSED or (case.right == EITHER and not there.seen):
        others = [status for status, _ in found if status not in (400, 431, 501, 505)]
        return f"answered {found}, seen {there.seen}" if others or there.seen or not found else ""
    first, *more = there.seen or [None]
    asked = (case.method, b"/first", case.body)
    if first is None or (first.method, first.target, first.body) != asked:
        return f"answered {found}, seen {there.seen}"
    # Behind it only what the client asked for itself, in its order, and answered in that order.
    mine = [b"/smuggled"] * case.then + [b"/probe"]
    targets = [request.target for request in more]
    told_of = [body.split()[1] for status, body in found if status == 200]
    if targets != mine[: len(targets)] or told_of != [b"/first", *targets]:
        return f"answered {found}, seen {there.seen}"
    return ""


@pytest.mark.parametrize("family", FAMILIES)
async def test_the_workspace_never_sees_a_second_request(gate: Gateway, family: str) -> None:
    there = Workspace()
    async with upstream(there) as up:
        gate.target = up.port
        wrong = {}
        for case in FAMILIES[family]():
            async with asyncio.timeout(20):
                if why := await wrong_with(case, gate, there):
                    wrong[case.name] = why
            # Somebody else's, right afterwards, is answered with its own.
            async with client(gate.port) as other:
                answer = await other.get("/other")
                if (answer.status, answer.body) != (200, b"GET /other 0"):
                    wrong[case.name] = f"and the next one got {answer}"
        assert not wrong, "\n".join(f"{name}: {why}" for name, why in wrong.items())


@pytest.mark.parametrize("answer", list(answers()), ids=lambda one: one.name)
async def test_an_answer_is_never_another_ones(gate: Gateway, answer: Told) -> None:
    """Neither the client's next request nor anybody else's gets what a workspace said out of turn."""

    async def lies_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while request := await strictly(reader):
            first = request.target == b"/first"
            writer.write(answer.answer if first else ok(b"mine " + request.target))

    async with upstream(lies_once) as up:
        gate.target = up.port
        async with client(gate.port) as c:
            await c.send(head(method=answer.method, target="/first"))
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                async with asyncio.timeout(20):
                    got = await c.answer(answer.method)
                    assert got.body != b"forged"
                    if answer.body is None:
                        assert got.status == 502 or not got.whole, got
                    else:
                        assert got.body == answer.body
                    after = await c.get("/after")
                    assert after.body == b"mine /after"
        for _ in range(3):
            async with client(gate.port) as other:
                assert (await other.get("/other")).body == b"mine /other"


# WebSocket handshakes

OPENED = "HTTP/1.1 101 S\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
LIES = {
    "200": "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "200 that says it switches": OPENED.replace("101 S", "200 OK"),
    "200 in chunks": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "426": "HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nContent-Length: 2\r\n\r\nno",
    "426 that says it switches": OPENED.replace("101 S", "426 Upgrade Required"),
    "100 and 101": "HTTP/1.1 100 Continue\r\n\r\n" + OPENED,
    "another's Accept": OPENED.replace("{accept}", accept_key(b"another").decode()),
    "no Accept": OPENED.replace("Sec-WebSocket-Accept: {accept}\r\n", ""),
    "two Accepts": OPENED.replace("\r\n\r\n", "\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"),
    "no Upgrade": OPENED.replace("Upgrade: websocket\r\n", ""),
    "h2c": OPENED.replace("websocket\r\n", "h2c\r\n"),
    "no Connection": OPENED.replace("Connection: Upgrade\r\n", ""),
    "HTTP/1.0": OPENED.replace("HTTP/1.1", "HTTP/1.0"),
    "a length": OPENED.replace("\r\n\r\n", "\r\nContent-Length: 2\r\n\r\n"),
    "chunks": OPENED.replace("\r\n\r\n", "\r\nTransfer-Encoding: chunked\r\n\r\n"),
    "a subprotocol nobody offered": OPENED.replace("\r\n\r\n", "\r\nSec-WebSocket-Protocol: x\r\n\r\n"),
    "a bare LF": OPENED.replace("\r\n", "\n"),
    "a folded line": OPENED.replace("\r\n\r\n", "\r\nX: a\r\n b\r\n\r\n"),
}  # fmt: skip


@pytest.fixture
async def relaying() -> AsyncIterator[Relaying]:
    async with gateway(kind=Relaying) as app:
        assert isinstance(app, Relaying)
        app.ways = Ways(app, app.proxy.upstreams, app.counted.append)
        yield app


@pytest.mark.parametrize("below", [False, True], ids=["application", "below"])
@pytest.mark.parametrize("lie", LIES)
async def test_an_answer_that_does_not_switch_opens_no_tunnel(
    relaying: Relaying, lie: str, below: bool
) -> None:
    """What the client sent behind its handshake stays here: to the workspace it would be a request."""
    said = [OPENED if below else LIES[lie]]

    async def answers_so(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = await reader.readuntil(b"\r\n\r\n")
        key = asked.split(b"sec-websocket-key: ")[1].split(b"\r\n")[0]
        writer.write(said[-1].replace("{accept}", accept_key(key).decode()).encode())
        if said[-1] != OPENED:
            writer.write_eof()  # a refusal without a length ends with it
        await reader.read()

    async with upstream(answers_so) as up:
        relaying.target = up.port
        if below:
            for key in KEYS[2:4]:  # the second opens below, and its answer is known from then on
                async with client(relaying.port) as first:
                    await first.send(opening(key))
                    assert (await first.head())[0] == 101
            said.append(LIES[lie])
        async with client(relaying.port) as c:
            await c.send(opening(KEYS[1]) + SMUGGLED)
            async with asyncio.timeout(20):
                status, _ = await c.head()
                assert status == 502
                await c.reader.read()  # and it is closed
        async with asyncio.timeout(20):
            await up.closed.wait()
        assert not any(b"smuggled" in seen for seen in up.received)
        assert relaying.looked == (2 if below else 1)


@pytest.mark.parametrize("below", [False, True], ids=["application", "below"])
async def test_what_follows_a_101_is_the_tunnels_and_nothing_elses(
    relaying: Relaying, below: bool
) -> None:
    async def answers_more(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = await reader.readuntil(b"\r\n\r\n")
        key = asked.split(b"sec-websocket-key: ")[1].split(b"\r\n")[0]
        writer.write(OPENED.format(accept=accept_key(key).decode()).encode() + FORGED)
        writer.write(await reader.read(1000))

    async with upstream(answers_more) as up:
        relaying.target = up.port
        for n in range(2 if below else 1):
            async with client(relaying.port) as c:
                await c.send(opening(KEYS[n]))
                assert (await c.head())[0] == 101
                assert await c.reader.readexactly(len(FORGED)) == FORGED
                await c.send(SMUGGLED)
                assert await c.reader.readexactly(len(SMUGGLED)) == SMUGGLED
        assert relaying.looked == 1
        assert all(seen.endswith(SMUGGLED) for seen in up.received)
