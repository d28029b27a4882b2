"""What holds for every pool. A new one joins by a fixture function in POOLS."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from lifecycle.pools import Launch, Observed, Pool, PoolError
from lifecycle.pools.local import LocalPool

ONE, TWO = Launch("m-1", "token-1", 2), Launch("m-2", "token-2", 1)


@asynccontextmanager
async def local(directory: Path) -> AsyncIterator[Pool]:
    pool = LocalPool(directory / "data", stop_grace=2)
    try:
        yield pool
    finally:
        await pool.close(stop_machines=True)


POOLS: dict[str, Callable[[Path], AbstractAsyncContextManager[Pool]]] = {"local": local}


@pytest.fixture(params=sorted(POOLS))
async def pool(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Pool]:
    async with POOLS[request.param](tmp_path) as pool:
        yield pool


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


async def test_launched_machines_come_up_with_an_address(pool: Pool, states) -> None:
    await pool.launch([ONE, TWO])
    rows = await states(m_1="running", m_2="running")
    assert len({row.address for row in rows}) == 2
    assert all(row.address.count(":") == 1 for row in rows)


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


async def test_closing_with_a_stop_keeps_the_disks(pool: Pool, states) -> None:
    await pool.launch([ONE, TWO])
    await states(m_1="running", m_2="running")
    await pool.close(stop_machines=True)
    await states(m_1="stopped", m_2="stopped")
    await pool.start(ONE)
    await states(m_1="running", m_2="stopped")
