"""Records written anew after Redis lost them: once, as the machine says, and never over newer ones."""

from __future__ import annotations

import asyncio

import pytest
from redis.asyncio import Redis

from lifecycle.agent.contract import WorkspaceReport
from lifecycle.identifiers import workspace_id_for
from lifecycle.model import Machine, MachineStatus, Workspace, WorkspaceStatus
from lifecycle.stores import keys
from lifecycle.stores.fleet import RedisFleet
from lifecycle.stores.redis import RedisStore
from tests.lifecycle.agreement import Agreement
from tests.lifecycle.stores.conftest import MakeStore

W, M = WorkspaceStatus, MachineStatus
ADA = workspace_id_for("ada", "x")
ADDRESS = "10.0.0.1:9000"


def row(status: str, epoch: int = 3, **fields: str) -> WorkspaceReport:
    told = {"user_id": "ada", "name": "x", "plan": "gpu", "secret": "the-secret"} | fields
    return WorkspaceReport(ADA, epoch, status, **told)


@pytest.fixture
def store(make_store: MakeStore) -> RedisStore:
    return make_store()


@pytest.fixture
def fleet(redis: Redis) -> RedisFleet:
    return RedisFleet(redis)


@pytest.fixture
async def home(fleet: RedisFleet) -> Machine:
    """A machine whose record was lost."""
    assert await fleet.adopt("fake", "m-4", 2, "token")
    return await read(fleet, "m-4")


async def read(fleet: RedisFleet, machine_id: str) -> Machine:
    machine = await fleet.machine(machine_id)
    assert machine is not None
    return machine


async def record(store: RedisStore) -> Workspace:
    found = await store.get(ADA)
    assert found is not None
    return found


async def events(redis: Redis) -> list[str]:
    return [row[1]["type"] for row in await redis.xrange("events")]


# Machines


async def test_a_machine_is_adopted_once(fleet: RedisFleet, redis: Redis) -> None:
    calls = (fleet.adopt("fake", "m-4", 2, "token") for _ in range(5))
    assert sorted(await asyncio.gather(*calls)) == [False, False, False, False, True]
    one = await read(fleet, "m-4")
    assert (one.status, one.slots, one.token, one.pool) == (M.LAUNCHING, 2, "token", "fake")
    assert one.unheard
    assert await fleet.machines() == [one]
    assert await events(redis) == ["machine.adopted"]
    assert await fleet.intend("fake", 2, 1, bound=9) == ["m-5"], "no number is given out twice"


async def test_a_machine_with_a_record_is_not_adopted(fleet: RedisFleet) -> None:
    [machine_id] = await fleet.intend("fake", 5, 1, bound=9)
    assert not await fleet.adopt("fake", machine_id, 2, "token")
    await fleet.change(await read(fleet, machine_id), M.TERMINATED)
    assert not await fleet.adopt("fake", machine_id, 2, "token"), "it is being removed"


async def test_it_has_been_heard_once_it_is_ready(fleet: RedisFleet, home: Machine) -> None:
    await fleet.change(home, M.READY, address="10.0.0.1:7000")
    assert not (await read(fleet, home.id)).unheard


# Workspaces


async def test_a_running_one_is_written_as_its_machine_says(
    store: RedisStore, fleet: RedisFleet, home: Machine, redis: Redis
) -> None:
    assert await store.adopt(home.id, row("running"), ADDRESS) == "ok"
    one = await record(store)
    assert (one.status, one.epoch, one.machine_id, one.address) == (W.RUNNING, 3, "m-4", ADDRESS)
    assert (one.user_id, one.name, one.plan, one.secret) == ("ada", "x", "gpu", "the-secret")
    now = await store.now_ms()
    for moment in (one.running_since_ms, one.last_active_at_ms, one.seen["boot"]):
        assert now - 5000 < moment <= now, "idleness is counted from now"
    assert await redis.smembers(keys.user_workspaces("ada")) == {ADA}
    assert await fleet.files_on(home.id) == [ADA]
    there = await read(fleet, home.id)
    assert (there.occupied, there.holds_files, there.empty_since_ms) == (1, 1, 0)
    assert await events(redis) == ["machine.adopted", "workspace.adopted"]
    await Agreement(redis).check()


async def test_what_was_moved_before_is_of_no_matter(
    store: RedisStore, home: Machine, redis: Redis
) -> None:
    await store.adopt(home.id, row("stopped", epoch=2), ADDRESS)
    await redis.hset(keys.workspace(ADA), "moved", "1")
    assert await store.adopt(home.id, row("running"), ADDRESS) == "ok"
    assert not (await record(store)).moved


@pytest.mark.parametrize("status", ["starting", "running", "stopping", "stopped", "failed"])
async def test_whatever_is_said_the_records_agree(
    store: RedisStore, home: Machine, redis: Redis, status: str
) -> None:
    said = row(status, error_code="oops" if status == "failed" else "", restore="s1")
    assert await store.adopt(home.id, said, "") == "ok"
    one = await record(store)
    assert (one.status, one.epoch, one.restore, one.snapshot_id) == (status, 3, "s1", "s1")
    await Agreement(redis).check()


async def test_adopting_twice_changes_nothing(
    store: RedisStore, home: Machine, redis: Redis
) -> None:
    calls = (store.adopt(home.id, row("running"), ADDRESS) for _ in range(5))
    assert sorted(await asyncio.gather(*calls)) == ["busy"] * 4 + ["ok"]
    assert (await events(redis)).count("workspace.adopted") == 1
    stopped = await store.change(await record(store), W.STOPPED, chain=(W.STOPPING,))
    assert await store.adopt(home.id, row("running"), ADDRESS) == "known"
    assert await record(store) == stopped


async def test_racing_with_one_who_comes_back(
    store: RedisStore, home: Machine, redis: Redis
) -> None:
    async def comes_back() -> None:
        await store.ensure("ada", "x")
        await store.wake(ADA)

    outcome, _ = await asyncio.gather(store.adopt(home.id, row("running"), ADDRESS), comes_back())
    assert outcome == "ok"
    one = await record(store)
    assert (one.status, one.epoch, one.machine_id) == (W.RUNNING, 3, home.id)
    assert await store.queued() == []
    await Agreement(redis).check()


async def test_who_came_back_first_finds_it_running(
    store: RedisStore, home: Machine, redis: Redis
) -> None:
    await store.ensure("ada", "x")
    await store.wake(ADA)
    assert await store.adopt(home.id, row("running"), ADDRESS) == "ok"
    one = await record(store)
    assert (one.status, one.epoch, one.address) == (W.RUNNING, 3, ADDRESS)
    assert await store.queued() == []
    assert (await events(redis))[-2:] == ["workspace.adopted", "workspace.running"]
    await Agreement(redis).check()


@pytest.mark.parametrize("status", ["stopped", "failed"])
async def test_who_came_back_first_waits_for_a_boot_at_home(
    store: RedisStore, home: Machine, redis: Redis, status: str
) -> None:
    await store.ensure("ada", "x")
    await store.wake(ADA)
    assert await store.adopt(home.id, row(status, error_code="oops"), "") == "ok"
    (one,) = await store.queued()
    assert (one.status, one.epoch, one.machine_id) == (W.QUEUED, 3, home.id)
    assert (one.error_code, one.error) == ("", "")
    await Agreement(redis).check()


async def test_who_came_back_first_is_started_after_the_stop(
    store: RedisStore, home: Machine
) -> None:
    await store.ensure("ada", "x")
    await store.wake(ADA)
    assert await store.adopt(home.id, row("stopping"), "") == "ok"
    await store.change(await record(store), W.STOPPED)
    assert [one.epoch for one in await store.queued()] == [3]


async def test_one_in_a_slot_elsewhere_is_left_alone(
    store: RedisStore, fleet: RedisFleet, home: Machine
) -> None:
    await fleet.change(home, M.READY)
    await store.ensure("ada", "x")
    other = await store.change(await store.wake(ADA), W.STARTING, place=home.id)
    assert await fleet.adopt("fake", "m-7", 2, "token")
    assert await store.adopt("m-7", row("running"), ADDRESS) == "busy"
    assert await record(store) == other


async def test_a_newer_run_on_another_machine_wins(
    store: RedisStore, fleet: RedisFleet, home: Machine, redis: Redis
) -> None:
    """Files that were left behind on a machine are older than where it went on."""
    assert await store.adopt(home.id, row("stopped", 2), "") == "ok"
    assert await fleet.adopt("fake", "m-7", 2, "token")
    assert await store.adopt("m-7", row("running", 3), ADDRESS) == "ok"
    assert await store.adopt(home.id, row("stopped", 2), "") == "busy"
    one = await record(store)
    assert (one.status, one.epoch, one.machine_id) == (W.RUNNING, 3, "m-7")
    assert await fleet.files_on(home.id) == []
    await Agreement(redis).check()


async def test_what_was_deleted_does_not_come_back(
    store: RedisStore, fleet: RedisFleet, home: Machine
) -> None:
    assert await store.adopt(home.id, row("stopped"), "") == "ok"
    one = await store.change(await record(store), W.TERMINATING)
    await store.change(one, W.TERMINATED, fields={"machineId": ""})
    await store.delete(ADA)
    assert await store.adopt(home.id, row("stopped"), "") == "deleted"
    assert await store.get(ADA) is None


async def test_only_of_a_machine_that_is_there(store: RedisStore) -> None:
    assert await store.adopt("m-9", row("running"), ADDRESS) == "machine"
    assert await store.get(ADA) is None
