"""`serve --store postgresql://…`: records that outlast Redis, on a real server of the test's own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.harness import IDE_FLAGS
from tests.lifecycle.stores.postgres import MISSING, Postgres, binaries


@pytest.fixture
def postgres() -> Iterator[Postgres]:
    programs = binaries()
    if programs is None:
        pytest.skip(MISSING)
    server = Postgres(programs)
    try:
        server.start()
        yield server
    finally:
        server.close()


async def test_people_find_what_is_theirs_after_redis_lost_everything(
    postgres: Postgres, server: Any, state: Any, serve: Any, client_of: Any, until: Any
) -> None:
    flags = (*IDE_FLAGS, "--redis-url", server.url, "--store", postgres.url())
    gateway = await serve(*flags, "--scale-interval", "0.3")
    client = client_of(gateway)
    ada, ben = await client.running("ada"), await client.running("ben")
    token = (await client.enter(ada))["token"]
    await client.api("POST", f"/api/workspaces/{ben['workspaceId']}/stop")
    await client.becomes(ben, "stopped")
    async with client.websocket(ada, token=token) as ws:
        await state.flushall()

        async def back() -> bool:
            status, rows = await client.api("GET", "/api/workspaces")
            found = {row["userId"]: row["status"] for row in rows} if status == 200 else {}
            return found == {"ada": "running", "ben": "stopped"}

        await until(back, timeout=30, what="both records are back")
        await ws.send("still there?")
        assert await ws.recv() == "still there?", "nobody was stopped meanwhile"
    record = await client.status(ada)
    assert (record["epoch"], record["createdAt"]) == (1, ada["createdAt"])
    assert postgres.url() not in gateway.log.read_text()
    assert (await client.running("ben"))["epoch"] == 2


async def test_a_database_that_does_not_answer_is_said_at_start(serve: Any, tmp_path: Any) -> None:
    with pytest.raises(AssertionError) as failed:
        await serve(*IDE_FLAGS, "--store", f"postgresql://ada:secret@/ide?host={tmp_path}")
    said = str(failed.value)
    assert "--store" in said
    assert "secret" not in said
