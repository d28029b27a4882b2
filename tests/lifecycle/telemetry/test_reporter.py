from __future__ import annotations

from collections.abc import Sequence

from redis.asyncio import Redis

from lifecycle.model import Event
from lifecycle.stores.fleet import RedisFleet
from lifecycle.stores.redis import RedisStore
from lifecycle.stores.signals import Flush, RedisSignals
from lifecycle.telemetry import Datum, SinkError
from lifecycle.telemetry.reporter import Reporter


class Sink:
    def __init__(self) -> None:
        self.put_: list[Sequence[Datum]] = []
        self.broken = False

    async def check(self) -> None: ...

    async def put(self, data: Sequence[Datum]) -> None:
        if self.broken:
            raise SinkError("AWS does not answer")
        self.put_.append(data)

    def last(self) -> dict[str, tuple[float, ...]]:
        return {datum.name + datum.status: datum.values for datum in self.put_[-1]}


class World:
    def __init__(self, redis: Redis) -> None:
        self.sink, self.leads = Sink(), True
        self.store, self.fleet = RedisStore(redis), RedisFleet(redis)
        self.signals = RedisSignals(redis)
        self.reporter = Reporter(
            self.sink, self.store, self.fleet, self.signals, lambda: self.leads, 4
        )

    def hear(self, at_ms: int, kind: str, **data: str) -> None:
        self.reporter.on_event(Event(f"{at_ms}-0", kind, data))


async def test_reads_the_records(redis: Redis) -> None:
    world = World(redis)
    for user in ("ann", "bob"):
        workspace, _ = await world.store.ensure(user)
        await world.store.wake(workspace.id)
    await world.fleet.intend("ecs", 5, 1, 10)
    await world.signals.flush("g1", Flush(connections={"w1": 2}))
    await world.signals.flush("g2", Flush(connections={"w1": 1, "w2": 4}))
    await world.reporter.tick()
    told = world.sink.last()
    assert told["QueueLength"] == (2,)
    assert 0 <= told["QueueWait"][0] < 60
    assert told["Sessions"] == (7,)
    assert told["Machineslaunching"] == (1,)
    assert told["MachinesUsed"] == (25,)


async def test_hears_what_happens_once_and_tells_it_once(redis: Redis) -> None:
    world = World(redis)
    world.hear(1_000, "workspace.starting", workspace="w1")
    world.hear(1_500, "workspace.starting", workspace="w2")
    world.hear(3_500, "workspace.running", workspace="w1")
    world.hear(9_000, "workspace.failed", workspace="w2")
    world.hear(9_000, "workspace.failed", workspace="w9")  # of no boot: its snapshot
    world.hear(9_100, "workspace.stopping", workspace="w1", reason="idle")
    world.hear(9_200, "workspace.stopping", workspace="w3", reason="asked")
    world.hear(9_300, "machine.lost", machine="m-1")
    await world.reporter.tick()
    told = world.sink.last()
    assert told["BootTime"] == (2.5,)
    assert (told["FailedBoots"], told["IdleStops"], told["LostMachines"]) == ((1,), (1,), (1,))
    await world.reporter.tick()
    told = world.sink.last()
    assert "BootTime" not in told
    assert (told["FailedBoots"], told["IdleStops"], told["LostMachines"]) == ((0,), (0,), (0,))


async def test_only_the_leader_counts_and_sends(redis: Redis) -> None:
    world = World(redis)
    world.leads = False
    world.hear(9_100, "workspace.stopping", workspace="w1", reason="idle")
    await world.reporter.tick()
    assert world.sink.put_ == []
    world.leads = True
    await world.reporter.tick()
    assert world.sink.last()["IdleStops"] == (0,)


async def test_what_cannot_be_sent_is_not_kept(redis: Redis) -> None:
    world = World(redis)
    world.hear(9_100, "workspace.stopping", workspace="w1", reason="idle")
    world.sink.broken = True
    await world.reporter.tick()
    world.sink.broken = False
    await world.reporter.tick()
    assert world.sink.last()["IdleStops"] == (0,)
