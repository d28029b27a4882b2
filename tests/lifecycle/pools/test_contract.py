"""What holds for every pool, as far as its traits go. A new one joins by a fixture function in POOLS."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest

from lifecycle.aws import Clients
from lifecycle.joining import Joining
from lifecycle.pools import Launch, Observed, Pool, PoolError
from lifecycle.pools.asg import AsgConfig, AsgPool
from lifecycle.pools.bootstrap import Bootstrap
from lifecycle.pools.ec2 import Ec2Pool
from lifecycle.pools.ec2_launch import Ec2Config
from lifecycle.pools.eks import EksConfig, EksPool
from lifecycle.pools.local import LocalPool
from tests.aws.ecs import Cluster
from tests.aws.groups import CLUSTER, GROUP, NODES, make_group, make_node_group

ONE, TWO = Launch("m-1", "token-1", 2), Launch("m-2", "token-2", 1)


@asynccontextmanager
async def local(request: pytest.FixtureRequest) -> AsyncIterator[Pool]:
    pool = LocalPool(request.getfixturevalue("tmp_path") / "data", stop_grace=2)
    try:
        yield pool
    finally:
        await pool.close(stop_machines=True)


@asynccontextmanager
async def ec2(request: pytest.FixtureRequest) -> AsyncIterator[Pool]:
    request.getfixturevalue("aws")
    clients = Clients()
    bootstrap = Bootstrap("https://ide.example.com", 7070, Joining("the gateways' key").code)
    config = Ec2Config("blue", 2, image="ami-12345678", instance_types=("t3.micro",))
    yield Ec2Pool(config, bootstrap, clients)
    await clients.close()


@asynccontextmanager
async def asg(request: pytest.FixtureRequest) -> AsyncIterator[Pool]:
    make_group(request.getfixturevalue("aws"))
    clients = Clients()
    bootstrap = Bootstrap("https://ide.example.com", 7070, Joining("the gateways' key").code)
    yield AsgPool(AsgConfig("blue", 2, GROUP), bootstrap, clients)
    await clients.close()


@asynccontextmanager
async def eks(request: pytest.FixtureRequest) -> AsyncIterator[Pool]:
    make_node_group(request.getfixturevalue("aws"))
    clients = Clients()
    bootstrap = Bootstrap("https://ide.example.com", 7070, Joining("the gateways' key").code)
    yield EksPool(EksConfig("blue", 2, CLUSTER, NODES), bootstrap, clients)
    await clients.close()


@asynccontextmanager
async def ecs(request: pytest.FixtureRequest) -> AsyncIterator[Pool]:
    cluster = Cluster(request.getfixturevalue("aws"))
    yield cluster.pool()
    await cluster.clients.close()


POOLS: dict[str, Callable[[pytest.FixtureRequest], AbstractAsyncContextManager[Pool]]] = {
    "asg": asg,
    "ec2": ec2,
    "ecs": ecs,
    "eks": eks,
    "local": local,
}


@pytest.fixture(params=sorted(POOLS))
async def pool(request: pytest.FixtureRequest) -> AsyncIterator[Pool]:
    async with POOLS[request.param](request) as pool:
        yield pool


@pytest.fixture
def keeping(pool: Pool) -> Pool:
    """One whose machines can be stopped and started again."""
    if not pool.traits.keeps_disks:
        pytest.skip(f"{pool.name}: a stopped machine has no disk")
    return pool


@pytest.fixture
def states(pool: Pool, until: Callable[..., Any]) -> Callable[..., Any]:
    """Wait until the pool shows exactly these machines in these states; what it shows then."""

    async def reach(**wanted: str) -> list[Observed]:
        expected = {name.replace("_", "-"): state for name, state in wanted.items()}

        async def seen() -> list[Observed] | None:
            rows = await pool.describe()
            found = {row.machine_id: row.state for row in rows}
            assert len(found) == len(rows), "a machine is shown twice"
            return [*rows, "as wanted"] if found == expected else None

        return (await until(seen, timeout=15, what=f"{expected}"))[:-1]

    return reach


async def test_a_new_pool_has_no_machines(pool: Pool) -> None:
    assert pool.name
    assert await pool.describe() == []


async def test_launched_machines_come_up(pool: Pool, states) -> None:
    assert await pool.launch([ONE, TWO]) == []
    rows = await states(m_1="running", m_2="running")
    assert {(row.machine_id, row.leaving) for row in rows} == {("m-1", ""), ("m-2", "")}
    # Where machines join, they say their address and nobody notes their token.
    if not pool.traits.joins:
        assert len({row.address for row in rows}) == 2
        assert all(row.address.count(":") == 1 for row in rows)
    assert len({row.address or row.instance for row in rows}) == 2
    assert {row.token for row in rows} <= {"", ONE.token, TWO.token}


async def test_slots_are_found_again(pool: Pool, states) -> None:
    await pool.launch([ONE, TWO])
    rows = await states(m_1="running", m_2="running")
    assert [row.slots for row in sorted(rows, key=lambda row: row.machine_id)] == [2, 1]


async def test_a_launch_shows_at_once(pool: Pool) -> None:
    await pool.launch([ONE])
    (row,) = await pool.describe()
    assert (row.machine_id, row.state in ("launching", "running")) == ("m-1", True)


async def test_launching_again_leaves_it_alone(pool: Pool, states) -> None:
    await pool.launch([ONE])
    await pool.launch([ONE, ONE])
    before = await states(m_1="running")
    await pool.launch([ONE])
    assert await states(m_1="running") == before


async def test_terminated_is_gone_and_again_is_success(pool: Pool, states) -> None:
    await pool.launch([ONE, TWO])
    await states(m_1="running", m_2="running")
    for _ in range(2):
        await pool.terminate("m-1")
        await states(m_2="running")
    await pool.terminate("m-77")


async def test_terminating_right_after_the_launch(pool: Pool, states) -> None:
    await pool.launch([ONE])
    await pool.terminate("m-1")
    assert await pool.describe() == []


async def test_starting_a_running_one_is_success(pool: Pool, states) -> None:
    await pool.launch([ONE])
    before = await states(m_1="running")
    await pool.start(ONE)
    assert await states(m_1="running") == before


async def test_starting_an_unknown_one_is_an_error(pool: Pool) -> None:
    with pytest.raises(PoolError, match="m-9"):
        await pool.start(Launch("m-9", "token", 1))
    assert await pool.describe() == []


async def test_a_stop_keeps_the_disk_and_again_is_success(keeping: Pool, states) -> None:
    await keeping.launch([ONE, TWO])
    await states(m_1="running", m_2="running")
    for _ in range(2):
        await keeping.stop("m-1")
        await states(m_1="stopped", m_2="running")
    await keeping.start(ONE)
    await states(m_1="running", m_2="running")


async def test_stopping_an_unknown_one_is_success(pool: Pool) -> None:
    await pool.stop("m-9")
    assert await pool.describe() == []


async def test_a_stopped_one_can_be_terminated(keeping: Pool, states) -> None:
    await keeping.launch([ONE, TWO])
    await states(m_1="running", m_2="running")
    await keeping.stop("m-1")
    await states(m_1="stopped", m_2="running")
    await keeping.terminate("m-1")
    await states(m_2="running")


async def test_protection_changes_nothing_that_shows(pool: Pool, states) -> None:
    await pool.launch([ONE, TWO])
    before = await states(m_1="running", m_2="running")
    for names in (["m-1", "m-77"], ["m-2"], []):
        await pool.protect(names)
    assert await states(m_1="running", m_2="running") == before
    await pool.protect(["m-1"])
    await pool.terminate("m-1")  # who decides that it goes means it
    await states(m_2="running")


async def test_closing_without_a_stop_leaves_them_running(pool: Pool, states) -> None:
    await pool.launch([ONE])
    before = await states(m_1="running")
    await pool.close(stop_machines=False)
    assert await states(m_1="running") == before


async def test_closing_with_a_stop_keeps_the_disks(keeping: Pool, states) -> None:
    await keeping.launch([ONE, TWO])
    await states(m_1="running", m_2="running")
    await keeping.close(stop_machines=True)
    await states(m_1="stopped", m_2="stopped")
    await keeping.start(ONE)
    await states(m_1="running", m_2="stopped")
