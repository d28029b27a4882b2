"""The store's contract holds wherever records are kept: in Redis alone, in DynamoDB, in PostgreSQL."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
from redis.asyncio import Redis

from lifecycle.aws import Clients
from lifecycle.stores.dynamodb import DynamoDbRecords
from lifecycle.stores.postgresql import PostgresRecords
from lifecycle.stores.recorded import RecordedStore
from lifecycle.stores.records import Records
from lifecycle.stores.redis import RedisStore
from tests.aws.account import Account
from tests.lifecycle.stores.keeping import MemoryRecords, agree
from tests.lifecycle.stores.postgres import MISSING, Postgres, binaries

TABLE = "workspaces"
Open = Callable[[str], contextlib.AbstractAsyncContextManager[Records]]
MakeStore = Callable[..., RedisStore]


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A server of this test process's own."""
    programs = binaries()
    if programs is None:
        pytest.skip(MISSING)
    server = Postgres(programs)
    try:
        server.start()
        yield server
    finally:
        server.close()


def make_table(aws: Account, name: str = TABLE, key: str = "workspaceId", kind: str = "S") -> None:
    aws.client("dynamodb").create_table(
        TableName=name,
        KeySchema=[{"AttributeName": key, "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": key, "AttributeType": kind}],
        BillingMode="PAY_PER_REQUEST",
    )


@pytest.fixture
def open_records(request: pytest.FixtureRequest) -> Open:
    """Empty records of a technology, open."""

    @contextlib.asynccontextmanager
    async def opened(technology: str) -> AsyncIterator[Records]:
        records: Records = MemoryRecords()
        clients = Clients()
        if technology == "dynamodb":
            make_table(request.getfixturevalue("aws"))
            records = DynamoDbRecords(TABLE, clients)
        elif technology == "postgresql":
            server: Postgres = request.getfixturevalue("postgres")
            server.empty()
            records = PostgresRecords(server.url())
        await records.open()
        yield records
        await records.close()
        await clients.close()

    return opened


@pytest.fixture(params=["memory", "dynamodb", "postgresql"])
async def records(request: pytest.FixtureRequest, open_records: Open) -> AsyncIterator[Records]:
    async with open_records(request.param) as records:
        yield records


@pytest.fixture(params=["redis", "dynamodb", "postgresql"])
async def make_store(
    request: pytest.FixtureRequest, redis: Redis, open_records: Open
) -> AsyncIterator[MakeStore]:
    """A store on one Redis with its bounds, of each kind. In the end what is kept is what Redis has."""
    if request.param == "redis":
        yield lambda **bounds: RedisStore(redis, **bounds)
        return
    async with open_records(request.param) as records:
        store = RecordedStore(redis, records)
        await store.open()
        await store.rebuild()
        yield lambda **bounds: RecordedStore(redis, records, **bounds)
        await agree(redis, records)
