"""The control channel over real sockets: what tabs tell, what they are told, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any

import aiohttp
import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed, InvalidStatus

from gateway import auth, closing, control, tab
from gateway.control_messages import BadMessage, Hello, Seen, Stay, heard
from gateway.tab import Pace, Tab
from lifecycle.model import WorkspaceStatus
from lifecycle.notices import STAYS, STOPPED, STOPPING_SOON
from tests.gateway.inside import HOST, KEYS, NOW_MS, ORIGIN, Channel, World, cookie, served

W = WorkspaceStatus
HOUR_MS = 3_600_000
Until = Callable[..., Awaitable[object]]


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with served() as world:
        yield world


async def closed(channel: Channel) -> tuple[int, str]:
    """(code, reason), once it is closed and nothing more came."""
    with pytest.raises(ConnectionClosed):
        raise AssertionError(f"it heard {await channel.hear()}")
    return channel.ws.close_code or 0, channel.ws.close_reason or ""


async def test_a_hello_is_answered_with_the_state(world: World) -> None:
    async with world.tab() as one:
        assert await one.hear() == {
            "t": "state", "status": "running", "stopsAt": NOW_MS + HOUR_MS, "because": "boot, 0 s ago",
            "reason": None, "canStay": True, "now": NOW_MS,
        }  # fmt: skip
        assert one.ws.subprotocol == "ide-gateway.v1"
        assert world.sightings == world.touches == []  # being there is no activity


async def test_two_tabs_hear_every_notice_once_and_in_order(world: World) -> None:
    async with world.tab() as one, world.tab(client="vim/9.1") as two:
        await one.hear(), await two.hear()
        for n in range(5):
            world.write(STOPPING_SOON, f"notice {n}")
        world.hear("workspace.notice", seq="5")  # told twice
        world.write(STAYS, "it goes on")
        for channel in (one, two):
            told = [await channel.hear() for _ in range(6)]
            assert [(m["t"], m["seq"]) for m in told] == [("notice", n) for n in range(1, 7)]
            assert told[-1] | {"t": 0} == {
                "t": 0, "seq": 6, "type": STAYS, "at": NOW_MS, "text": "it goes on",
                "data": {"at": "5"},
            }  # fmt: skip


async def test_a_tab_that_comes_back_hears_what_it_missed(world: World) -> None:
    for n in range(3):
        world.write(STAYS, f"notice {n}")
    async with world.tab(seq=0) as new, world.tab(seq=2) as back:
        assert [(await new.hear()).get("seq") for _ in range(4)] == [None, 1, 2, 3]
        assert [(await back.hear()).get("seq") for _ in range(2)] == [None, 3]
        world.write(STAYS)
        assert (await new.hear())["seq"] == (await back.hear())["seq"] == 4


async def test_numbers_of_a_store_that_lost_its_data_are_begun_anew(world: World) -> None:
    world.write(STAYS)
    async with world.tab(seq=90) as before, world.tab() as there:
        assert [(await before.hear()).get("seq") for _ in range(2)] == [None, 1]
        assert [(await there.hear()).get("seq") for _ in range(2)] == [None, 1]
        world.write(STAYS, seq=2)
        assert (await before.hear())["seq"] == (await there.hear())["seq"] == 2
        world.written.clear()
        world.hear("events.reset")
        world.write(STAYS, "anew")
        assert [(await c.hear())["text"] for c in (before, there)] == ["anew", "anew"]


async def test_input_is_seen_once_in_ten_seconds_of_each_tab(world: World, until: Until) -> None:
    async with world.tab() as one, world.tab(client="vim") as two:
        await one.hear(), await two.hear()
        for _ in range(3):
            await one.say(t="seen", kind="input")
        await two.say(t="seen", kind="input")
        await until(lambda: len(world.sightings) == 2)
        assert sorted(world.sightings) == [("w1", "input", "shell"), ("w1", "input", "vim")]
        assert world.touches == []


async def test_who_stays_takes_the_countdown_from_every_tab(world: World) -> None:
    world.now = NOW_MS + HOUR_MS - 200_000  # the countdown is on
    async with world.tab() as one, world.tab() as two:
        assert (await one.hear())["stopsAt"] == (await two.hear())["stopsAt"] == NOW_MS + HOUR_MS
        await one.say(t="stay")
        for channel in (one, two):
            assert (await channel.hear())["stopsAt"] == world.now + HOUR_MS
        assert world.touches == [("w1", "input", "stayed")]
        assert world.extensions == [3600]


@pytest.mark.parametrize("status", [W.STOPPING, W.QUEUED, W.STARTING])
async def test_who_stays_with_what_is_on_the_move_is_heard(
    world: World, until: Until, status: W
) -> None:
    world.now = NOW_MS + HOUR_MS - 200_000
    async with world.tab() as one:
        await one.hear()
        world.becomes(status, moved=True, next="start", reason="moving: its machine goes")
        assert (await one.hear())["status"] == status
        await one.say(t="stay")
        await until(lambda: world.extensions)
        assert (world.touches, world.extensions) == ([("w1", "input", "stayed")], [3600])


async def test_no_stay_keeps_what_stops(world: World, until: Until) -> None:
    async with world.tab() as one:
        await one.hear()
        world.becomes(W.STOPPING, reason="idle")
        await one.hear()
        reads = world.reads
        await one.say(t="stay")
        await until(lambda: world.reads > reads + 1)  # its own look, and that of all tabs
        assert world.touches == world.extensions == []


async def test_a_key_during_the_countdown_takes_it_away_as_well(world: World) -> None:
    world.now = NOW_MS + HOUR_MS - 1000
    async with world.tab() as one, world.tab() as two:
        await one.hear(), await two.hear()
        await one.say(t="seen", kind="input")
        assert (await two.hear())["stopsAt"] == (await one.hear())["stopsAt"] == world.now + HOUR_MS
        assert world.sightings == []
        assert world.extensions == []


async def test_no_stay_moves_a_stop_that_no_activity_prevents(world: World, until: Until) -> None:
    assert world.record is not None
    world.record = replace(world.record, stop_by_ms=NOW_MS + 9000, stop_by="its machine goes")
    async with world.tab() as one:
        said = await one.hear()
        assert (said["canStay"], said["because"]) == (False, "its machine goes")
        await one.say(t="stay")
        await until(lambda: world.touches)
        assert world.extensions == []


async def test_a_change_is_told_and_what_is_no_change_is_not(world: World, until: Until) -> None:
    async with world.tab() as one:
        await one.hear()
        before = world.reads
        world.hear("workspace.progress")
        await until(lambda: world.reads > before)
        world.policy = replace(world.policy, idle_timeout=60)
        world.hear("workspace.policy")
        assert (await one.hear())["stopsAt"] == NOW_MS + 60_000


async def test_the_countdowns_begin_is_looked_at_without_an_event(world: World) -> None:
    world.policy = replace(world.policy, idle_timeout=300.2)
    async with world.tab() as one:
        assert (await one.hear())["stopsAt"] == NOW_MS + 300_200
        world.now += 100_000
        assert world.record is not None
        world.record = replace(world.record, seen={"frames": world.now})
        assert (await one.hear())["stopsAt"] == world.now + 300_200


async def test_a_stop_is_told_then_explained_then_closed(world: World) -> None:
    async with world.tab() as one:
        await one.hear()
        world.now += 1000
        world.becomes(W.STOPPING, reason="idle")
        assert (await one.hear())["status"] == "stopping"
        world.becomes(W.STOPPED, reason="idle")
        said = await one.hear()
        assert (said["status"], said["reason"], said["stopsAt"], said["canStay"]) == (
            "stopped", "idle", None, False,
        )  # fmt: skip
        world.write(STOPPED, "it was stopped")  # a moment later
        assert (await one.hear())["text"] == "it was stopped"
        assert (await closed(one))[0] == 4410


async def test_who_asked_for_the_stop_needs_no_notice_of_it(world: World) -> None:
    async with world.tab() as one:
        await one.hear()
        world.becomes(W.STOPPED, reason="requested")
        assert (await one.hear())["reason"] == "requested"
        assert (await closed(one))[0] == 4410


async def test_an_end_without_a_word_closes_as_well(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.room.LINGER", 0.05)
    async with world.tab() as one:
        await one.hear()
        world.becomes(W.FAILED, error="it broke")
        assert (await one.hear())["reason"] == "it broke"
        world.now += 50
        assert (await closed(one))[0] == 4500


async def test_tabs_that_went_leave_nothing(world: World, until: Until) -> None:
    async with world.tab() as one, world.tab():
        await one.hear()
    await until(lambda: not world.control._rooms)
    assert len(world.control) == 0


@pytest.mark.parametrize(
    ("status", "code"),
    [(W.STOPPED, 4410), (W.FAILED, 4500), (W.TERMINATING, 4411), (W.TERMINATED, 4411)],
)
async def test_who_comes_after_the_end_hears_why_and_is_closed(
    world: World, status: W, code: int
) -> None:
    assert world.record is not None
    world.write(STOPPED, "it was stopped")
    world.record = replace(world.record, status=status, status_since_ms=NOW_MS - 60_000)
    async with world.tab() as one:
        assert (await one.hear())["status"] == status
        assert (await one.hear())["text"] == "it was stopped"
        assert (await closed(one))[0] == code


async def test_what_comes_back_is_followed_until_it_runs(world: World) -> None:
    assert world.record is not None
    world.record = replace(world.record, status=W.STOPPING, next="start")
    async with world.tab() as one:
        assert (await one.hear())["status"] == "stopping"
        for status in (W.QUEUED, W.STARTING, W.RUNNING):
            world.becomes(status, next="")
            assert (await one.hear())["status"] == status


async def test_a_workspace_that_is_gone_closes_its_tabs(world: World) -> None:
    async with world.tab() as one:
        await one.hear()
        world.record = None
        world.hear("workspace.deleted")
        assert (await closed(one))[0] == 4404


async def test_redis_away_delays_and_loses_nothing(
    world: World, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.room.RETRY", 0.05)
    async with world.tab() as one:
        await one.hear()
        world.away = True
        await one.say(t="stay")
        await until(lambda: world.sightings == [("w1", "input", "stayed")])
        world.write(STAYS, "told late")
        world.away = False
        assert (await one.hear())["text"] == "told late"


# Who may


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({"origin": "http://w2.localhost:8000"}, 403),
        ({"origin": None}, 403),
        ({"origin": "http://8080--w1.localhost:8000"}, 403),
        ({"headers": {"Cookie": f"{cookie()}; {cookie()}"}}, 400),
    ],
)
async def test_another_page_learns_nothing(
    world: World, options: dict[str, Any], status: int
) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with world.socket(**options):
            pass
    assert refused.value.response.status_code == status


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"headers": {}}, 4401),
        ({"headers": {"Cookie": cookie(user="bob")}}, 4404),
        ({"path": "/_gateway/other"}, 4404),
        ({"subprotocols": ["jupyter"]}, 4400),
        ({"subprotocols": None}, 4400),
    ],
)
async def test_who_may_not_is_told_why(world: World, options: dict[str, Any], code: int) -> None:
    async with world.socket(**options) as ws:
        assert (await closed(Channel(ws)))[0] == code


async def test_a_token_opens_it_without_an_origin(world: World) -> None:
    token = auth.make_workspace_token("w1", "ada", KEYS, now=time.time())
    async with world.tab(headers={"Authorization": f"Bearer {token}"}, origin=None) as one:
        assert (await one.hear())["t"] == "state"


# Bounds


GOOD = {"t": "hello", "seq": 0, "client": "shell"}


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (b"\xc1", "msgpack map"),
        (b"", "msgpack map"),
        (msgpack.packb(GOOD) + b"\x00", "msgpack map"),
        (msgpack.packb([GOOD]), "msgpack map"),
        (msgpack.packb({**GOOD, 1: 2}), "msgpack map"),
        (msgpack.packb({str(n): n for n in range(40)}), "msgpack map"),
        (b"\x91" * 4000, "msgpack map"),
        (msgpack.packb({**GOOD, "x": msgpack.ExtType(5, b"x")}), "msgpack map"),
        (msgpack.packb({**GOOD, "x": "y" * 4096}), "4096 bytes"),
        (msgpack.packb({**GOOD, "seq": -1}), "seq"),
        (msgpack.packb({**GOOD, "seq": True}), "seq"),
        (msgpack.packb({**GOOD, "seq": 2**60}), "seq"),
        (msgpack.packb({**GOOD, "client": ""}), "client"),
        (msgpack.packb({**GOOD, "client": "a\nb"}), "client"),
        (msgpack.packb({"t": "hello"}), "client"),
        (msgpack.packb({"t": "seen", "kind": "frames"}), "t is"),
        (msgpack.packb({"t": "bye"}), "t is"),
        (msgpack.packb({}), "t is"),
        (None, "binary"),
    ],
)
def test_what_is_no_message_is_refused_in_words(message: bytes | None, words: str) -> None:
    with pytest.raises(BadMessage, match=words) as refused:
        heard(message)
    assert len(str(refused.value).encode()) <= 123


def test_what_is_a_message_may_say_more_than_is_known_today() -> None:
    assert heard(msgpack.packb({**GOOD, "seq": 7, "later": {"a": [1]}})) == Hello(7, "shell")
    assert heard(msgpack.packb({"t": "seen", "kind": "input", "at": 5})) == Seen()
    assert heard(msgpack.packb({"t": "stay"})) == Stay()


@given(st.binary(max_size=200) | st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(0, 9), inner),
).map(msgpack.packb))  # fmt: skip
def test_no_bytes_do_anything_but_be_refused(data: bytes) -> None:
    with contextlib.suppress(BadMessage):
        assert isinstance(heard(data), Hello | Seen | Stay)


@pytest.mark.parametrize(
    "messages",
    [[b"\xc1"], ["text"], [{"t": "stay"}], [GOOD, GOOD], [GOOD, *[{"t": "stay"}] * 30],
     [GOOD, *[{"t": "seen", "kind": "input"}] * 30]],
)  # fmt: skip
async def test_who_breaks_the_protocol_is_closed_with_the_reason(
    world: World, messages: list[Any]
) -> None:
    async with world.socket() as ws:
        with contextlib.suppress(ConnectionClosed):
            for message in messages:
                await ws.send(msgpack.packb(message) if isinstance(message, dict) else message)
            while True:
                await ws.recv()
        assert ws.close_code == 4400
        assert ws.close_reason
    assert len(world.touches) + len(world.sightings) <= control.MESSAGES


async def test_without_a_hello_in_time_it_is_closed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "HELLO_WITHIN", 0.05)
    async with world.socket() as ws:
        assert await closed(Channel(ws)) == (4400, "no hello within 0.05 s")


async def test_so_many_tabs_of_one_workspace_and_of_all(
    world: World, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "TABS_MAX", 2)
    async with world.tab() as one, world.tab() as two:
        await one.hear(), await two.hear()
        async with world.socket() as ws:
            assert (await closed(Channel(ws)))[0] == 4429
        await two.ws.close()
        await until(lambda: len(world.control) == 1)
        async with world.tab() as three:
            await three.hear()
        world.control._max_tabs = 1
        async with world.socket() as ws:
            assert (await closed(Channel(ws)))[0] == 1013


def test_a_pace_is_so_many_a_second() -> None:
    pace = Pace(5, now=0)
    assert [pace.take(0) for _ in range(6)] == [True] * 5 + [False]
    assert [pace.take(0.2), pace.take(0.2)] == [True, False]
    assert [pace.take(60) for _ in range(6)] == [True] * 5 + [False]


async def test_a_slow_reader_is_closed_and_then_cut_off(
    monkeypatch: pytest.MonkeyPatch, until: Until
) -> None:
    monkeypatch.setattr(tab, "STALL", 0.1)
    sent: list[Any] = []
    room, cut = asyncio.Event(), asyncio.Event()

    async def send(message: Any) -> None:
        await room.wait()
        sent.append(message)

    slow = Tab(send, cut.set, Pace(5, 0))
    for n in range(tab.WAITING_MAX + 1):
        slow.push({"n": n})
    await asyncio.sleep(0)
    slow.push({"n": 99})
    room.set()  # it wakes up in time: it hears at least that it was too slow
    await until(lambda: sent and sent[-1]["type"] == "websocket.close")
    assert sent[-1]["code"] == 1013
    assert len(sent) <= 2
    room.clear()
    other = Tab(send, cut.set, Pace(5, 0))
    other.push({"n": 1})
    await asyncio.wait_for(cut.wait(), 5)


async def test_a_reader_that_stops_reading_is_gone_in_the_end(
    world: World, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tab, "STALL", 0.1)
    async with world.tab() as one:
        await one.hear()
        one.ws.transport.pause_reading()  # type: ignore[attr-defined]
        for _ in range(40):
            world.write(STAYS, "x" * 500_000)
        await until(lambda: len(world.control) == 0)
        one.ws.transport.abort()  # type: ignore[attr-defined]


async def test_a_gateway_that_goes_says_that_it_comes_back(world: World) -> None:
    async with world.tab() as one, world.tab() as two:
        await one.hear(), await two.hear()
        world.control.end_all(closing.RESTARTING)
        assert (await closed(one))[0] == 1012
        for connection in list(world.server.server_state.connections):
            connection.shutdown()
        assert (await closed(two))[0] == 1012


# Without the channel


async def test_input_by_post_counts_as_seen(world: World) -> None:
    async with aiohttp.ClientSession() as http:

        async def post(origin: str = ORIGIN) -> int:
            async with http.post(
                f"http://127.0.0.1:{world.port}/_gateway/input",
                headers={"Host": HOST, "Cookie": cookie(), "Origin": origin},
            ) as answer:
                return answer.status

        assert await post("http://w2.localhost:8000") == 403
        assert [await post() for _ in range(3)] == [204, 204, 204]
        assert world.sightings == [("w1", "input", "browser")]
        assert 429 in [await post() for _ in range(20)]
        assert world.sightings == [("w1", "input", "browser")]
