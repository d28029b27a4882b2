"""What a gateway process tells Redis of its sessions, second by second. Real Redis, sessions without wires."""

from __future__ import annotations

import asyncio
import json

import pytest
from redis.asyncio import Redis

from gateway import closing
from gateway.heartbeats import Heartbeats, TooManySessions
from gateway.metrics import Metrics
from gateway.tunnel import Session
from lifecycle.model import Event, MachineStatus, Workspace, WorkspaceStatus
from lifecycle.stores.connection import connect
from lifecycle.stores.fleet import RedisFleet
from lifecycle.stores.redis import RedisStore
from lifecycle.stores.signals import RedisSignals


@pytest.fixture
async def running(redis: Redis) -> Workspace:
    """A workspace that runs, as far as its record says."""
    store, fleet = RedisStore(redis), RedisFleet(redis)
    workspace, _ = await store.ensure("ada")
    [machine_id] = await fleet.intend("local", 5, 1, 10)
    machine = await fleet.machine(machine_id)
    assert machine is not None
    await fleet.change(machine, MachineStatus.READY, address="127.0.0.1:1")
    workspace = await store.wake(workspace.id)
    workspace = await store.change(workspace, WorkspaceStatus.STARTING, place=machine_id)
    return await store.change(workspace, WorkspaceStatus.RUNNING, fields={"address": "127.0.0.1:2"})


@pytest.fixture
async def beats(redis: Redis) -> Heartbeats:
    return Heartbeats(
        "g", RedisSignals(redis), Metrics(), ping_interval=20, max_sessions=3,
        max_sessions_per_user=2,
    )  # fmt: skip


def sends(session: Session, *, data: int = 0, control: int = 0) -> None:
    """The client sends that many frames (header and mask only: empty frames)."""
    session.up.feed(b"\x81\x80mask" * data + b"\x89\x80mask" * control)


async def events(redis: Redis) -> list[str]:
    return [row[1]["type"] for row in await redis.xrange("events")]


async def test_a_session_is_told_and_taken_back(
    redis: Redis, beats: Heartbeats, running: Workspace
) -> None:
    session = beats.admit(running.id, "ada", 1)
    beats.opened(session)
    await beats.flush()
    assert await redis.zrange("heartbeat:sessions", 0, -1) == [f"{running.id}/g-1"]
    assert await redis.hgetall("connections:g") == {running.id: "1"}
    assert await redis.zscore("heartbeat:gateways", "g")
    beats.ended(session, 1000)
    await beats.flush()
    assert await redis.exists("heartbeat:sessions", "connections:g") == 0
    told = await events(redis)
    assert told[-2:] == ["session.opened", "session.closed"]
    assert len(beats) == 0


def types(beats: Heartbeats, session: Session, now: float) -> None:
    """Five seconds of keys, looked at second by second."""
    for second in range(1, 6):
        for _ in range(4):
            sends(session, data=1)
            session.up.moments += 1  # they come apart, which the test's own haste hides
        beats.look(now + second)


async def test_data_frames_are_activity_and_pings_are_heartbeats_only(
    redis: Redis, beats: Heartbeats, running: Workspace
) -> None:
    session = beats.admit(running.id, "ada", 1)
    await beats.flush()
    await redis.zadd("heartbeat:workspaces", {running.id: 1})
    await redis.zadd("heartbeat:sessions", {f"{running.id}/g-1": 1})
    now = asyncio.get_running_loop().time()

    beats.look(now)
    await beats.flush()
    assert await redis.zscore("heartbeat:sessions", f"{running.id}/g-1") == 1, "silence told"

    sends(session, control=1)
    beats.look(now)
    await beats.flush()
    assert await redis.zscore("heartbeat:sessions", f"{running.id}/g-1") > 1
    assert await redis.zscore("heartbeat:workspaces", running.id) == 1, "a ping is no activity"

    sends(session, data=3)
    beats.look(now)
    await beats.flush()
    assert await redis.zscore("heartbeat:workspaces", running.id) == 1, "nor is a timer's beat"

    types(beats, session, now)
    await beats.flush()
    assert await redis.zscore("heartbeat:workspaces", running.id) > 1
    record = await RedisStore(redis).get(running.id)
    assert record is not None
    assert record.seen["frames"] > 1
    assert record.sources["frames"] == "frames of session g-1"


async def test_a_beat_that_goes_on_for_ever_is_a_heartbeat_and_no_activity(
    redis: Redis, beats: Heartbeats, running: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = beats.admit(running.id, "ada", 1)
    opened = asyncio.get_running_loop().time()
    saw: list[tuple[str, str, float]] = []
    monkeypatch.setattr(
        beats, "saw", lambda workspace, kind, source, at: saw.append((kind, source, at - opened))
    )
    for second in range(1, 400):
        sends(session, data=6 if second % 5 == 0 else 0)
        typed = range(300, 305)
        for _ in range(3 if second in typed else 0):
            sends(session, data=1)
            session.up.moments += 1  # they come apart, which the test's own haste hides
        beats.look(opened + second)
    assert {source for _, source, _ in saw} == {"frames of session g-1"}
    found = [round(at) for *_, at in saw]
    assert not any(at < 300 for at in found)
    assert any(300 <= at < 310 for at in found), "somebody types"
    assert not any(at > 310 for at in found)


async def test_what_others_saw_goes_along_with_its_kind(
    redis: Redis, beats: Heartbeats, running: Workspace
) -> None:
    now = asyncio.get_running_loop().time()
    beats.saw(running.id, "input", "browser")
    beats.saw(running.id, "input", "visit", now - 50)  # older: it stays as it is
    beats.saw(running.id, "frames", "frames of session g-9", now - 50)
    await beats.flush()
    record = await RedisStore(redis).get(running.id)
    assert record is not None
    assert (record.sources["input"], record.sources["frames"]) == (
        "browser", "frames of session g-9",
    )  # fmt: skip
    assert record.seen["input"] - record.seen["frames"] == pytest.approx(50_000, abs=1000)
    assert await redis.zscore("heartbeat:workspaces", running.id) == record.seen["input"]


async def test_activity_of_a_stopped_workspace_leaves_no_ghost(
    redis: Redis, beats: Heartbeats, running: Workspace
) -> None:
    session = beats.admit(running.id, "ada", 1)
    sends(session, data=1)
    store = RedisStore(redis)
    stopping = await store.stop(running.id, "asked")
    await store.change(stopping, WorkspaceStatus.STOPPED)
    beats.look(asyncio.get_running_loop().time())
    await beats.flush()
    assert await redis.zscore("heartbeat:workspaces", running.id) is None


async def test_a_thousand_frames_are_one_round_trip(
    redis: Redis, beats: Heartbeats, running: Workspace
) -> None:
    sessions = [beats.admit(running.id, user, 1) for user in ("ada", "ada", "bob")]
    await beats.flush()  # the script is known to the server from here on
    before = await redis.info("commandstats")
    for session in sessions:
        sends(session, data=1000)
    beats.look(asyncio.get_running_loop().time())
    await beats.flush()
    after = await redis.info("commandstats")
    assert after["cmdstat_evalsha"]["calls"] - before["cmdstat_evalsha"]["calls"] == 1


async def test_what_redis_did_not_take_is_told_later(valkey: str) -> None:
    away = connect("unix:///nonexistent/valkey.sock")
    beats = Heartbeats(
        "g",
        RedisSignals(away),
        Metrics(),
        ping_interval=20,
        max_sessions=3,
        max_sessions_per_user=3,
    )
    gone, stays = beats.admit("w", "ada", 1), beats.admit("w", "ada", 1)
    beats.opened(stays)
    types(beats, stays, asyncio.get_running_loop().time())
    beats.saw("w", "input", "visit")
    await beats.flush()
    beats.saw("w", "input", "browser")
    beats.ended(gone, 1000)
    await beats.flush()
    back = connect(valkey)
    await back.flushall()
    await back.hset("workspace:w", "status", "running")
    beats._signals = RedisSignals(back)
    await beats.flush()
    assert await back.zrange("heartbeat:sessions", 0, -1) == ["w/g-2"]
    assert await back.hgetall("connections:g") == {"w": "1"}
    assert "session.opened" in await events(back)
    sources = await back.hmget("workspace:w", "source:frames", "source:input")
    assert sources == ["frames of session g-2", "browser"], "the newest of each kind"
    await back.aclose()
    await away.aclose()


async def test_what_redis_lost_is_told_again(redis: Redis, beats: Heartbeats) -> None:
    session = beats.admit("w", "ada", 1)
    beats.opened(session)
    types(beats, session, asyncio.get_running_loop().time())
    beats.saw("w", "input", "browser")
    await beats.flush()
    await redis.flushall()
    await redis.hset("workspace:w", "status", "running")  # its record was written anew
    await beats.flush()  # nothing was heard of the client since
    await beats.flush()
    kinds = await redis.hmget("workspace:w", "source:frames", "source:input")
    assert kinds == ["frames of session g-1", "browser"]
    assert await redis.zscore("heartbeat:workspaces", "w")
    assert await redis.zrange("heartbeat:sessions", 0, -1) == ["w/g-1"]
    assert await redis.hgetall("connections:g") == {"w": "1"}
    assert "session.opened" not in await events(redis), "it was opened once"


async def test_bounds(beats: Heartbeats) -> None:
    beats.admit("w", "ada", 1)
    second = beats.admit("w", "ada", 1)
    with pytest.raises(TooManySessions) as refused:
        beats.admit("w", "ada", 1)
    assert refused.value.close is closing.TOO_MANY_SESSIONS
    beats.admit("v", "bob", 1)
    with pytest.raises(TooManySessions) as refused:
        beats.admit("v", "eve", 1)
    assert refused.value.close is closing.OVERLOADED
    beats.ended(second, 0)
    beats.admit("v", "eve", 1)


@pytest.mark.parametrize(
    ("event", "close"),
    [
        ("workspace.stopping", closing.STOPPED),
        ("workspace.failed", closing.CRASHED),
        ("workspace.terminated", closing.TERMINATED),
    ],
)
async def test_the_end_of_a_boot_ends_its_sessions(
    beats: Heartbeats, event: str, close: closing.Close, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[tuple[str, int]] = []
    monkeypatch.setattr(Session, "end", lambda self, c: ended.append((self.id, c.code)))
    beats.admit("w", "ada", 3)
    beats.admit("w", "ada", 4)
    beats.admit("v", "bob", 3)
    beats.on_event(Event("1-0", event, {"workspace": "w", "epoch": "3"}))
    assert ended == [("g-1", close.code)], "a newer boot's session goes on"


async def test_an_eviction_ends_that_session_only(
    beats: Heartbeats, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[tuple[str, int]] = []
    monkeypatch.setattr(Session, "end", lambda self, c: ended.append((self.id, c.code)))
    beats.admit("w", "ada", 1)
    beats.admit("w", "ada", 1)
    beats.on_event(Event("1-0", "session.evicted", {"workspace": "w", "session": "g-2"}))
    beats.on_event(Event("1-1", "session.evicted", {"workspace": "w", "session": "h-1"}))
    assert ended == [("g-2", closing.EVICTED.code)]


async def test_a_flood_of_sessions_does_not_flush_the_events_away(
    redis: Redis, running: Workspace
) -> None:
    beats = Heartbeats(
        "g", RedisSignals(redis), Metrics(), ping_interval=20, max_sessions=1000,
        max_sessions_per_user=1000,
    )  # fmt: skip
    for _ in range(500):
        beats.opened(beats.admit(running.id, "ada", 1))
    await beats.flush()
    told = await events(redis)
    assert told.count("session.opened") == 100
    assert json.loads((await redis.hget("connections:g", running.id)) or "0") == 500
