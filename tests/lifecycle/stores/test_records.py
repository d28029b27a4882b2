"""Records that outlast Redis: what every technology promises, and how each says what is wrong with it."""

from __future__ import annotations

import asyncio
import builtins
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifecycle.aws import Clients
from lifecycle.stores import StoreError, StoreUnavailable, dynamodb, postgresql
from lifecycle.stores.dynamodb import DynamoDbRecords
from lifecycle.stores.postgresql import PostgresRecords
from lifecycle.stores.records import DELETED, Record, Records, Succession, remembers, succession
from tests.aws.account import Account
from tests.lifecycle.stores.conftest import TABLE, Open, make_table
from tests.lifecycle.stores.postgres import Postgres

SECOND = 1_000_000
NOW = 1_790_000_000 * SECOND  # microseconds, as Redis's clock has them
ODD = {"name": "Ada's ☂ workspace", "error": 'said "no"\n\\', "machineId": "", "seen:frames": "17"}


def record(id: str = "w-1", stamp: int = NOW, **fields: Any) -> Record:
    usual: dict[str, Any] = {"user_id": "ada", "status": "running", "epoch": 3, "fields": ODD}
    return Record(id, stamp=stamp, **(usual | fields))


async def everything(records: Records) -> dict[str, Record]:
    return {one.workspace_id: one async for one in records.scan()}


# What every technology promises


async def test_what_is_written_is_read(records: Records) -> None:
    assert await records.get("w-1") is None
    assert await records.put(record(), None)
    assert await records.get("w-1") == record()
    gone = record("w-2", status=DELETED, user_id="", fields={}, expires_at=4_000_000_000)
    assert await records.put(gone, None)
    assert await everything(records) == {"w-1": record(), "w-2": gone}


async def test_it_is_written_only_over_what_one_has_seen(records: Records) -> None:
    one = record()
    assert await records.put(one, None)
    assert not await records.put(record(stamp=NOW + 9), None), "there is one"
    for other in (
        replace(one, stamp=NOW - 1),
        replace(one, epoch=2),
        replace(one, status="stopped"),
    ):
        assert not await records.put(record(stamp=NOW + 1), other)
    assert not await records.put(record("w-2"), record("w-2")), "there is none"
    assert await everything(records) == {"w-1": one}
    two = replace(one, stamp=NOW + 1, status="stopping", fields={"next": "start"})
    assert await records.put(two, one)
    assert await records.get("w-1") == two, "fields that are gone are gone"


async def test_of_many_at_once_one_wins(records: Records) -> None:
    assert await records.put(record(), None)
    tries = [record(stamp=NOW + n, user_id=f"u{n}") for n in range(1, 9)]
    won = await asyncio.gather(*(records.put(one, record()) for one in tries))
    assert sum(won) == 1
    assert await records.get("w-1") == tries[won.index(True)]


async def test_a_repeated_write_is_seen_to_be_there(records: Records) -> None:
    """The answer to the first one was lost."""
    newer = record(stamp=NOW + 1)
    await records.put(record(), None)
    assert [await records.put(newer, record()) for _ in range(2)] == [True, False]
    theirs = await records.get("w-1")
    assert succession(theirs, newer, (NOW, NOW + 1), 32) is Succession.SAME


async def test_every_record_is_found_page_by_page(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql, "PAGE", 3)
    many = [record(f"w-{n:02}", fields={"error": "x" * 200_000}) for n in range(11)]
    await asyncio.gather(*(records.put(one, None) for one in many))
    assert sorted(await everything(records)) == [one.workspace_id for one in many]


async def test_dynamodb_gives_a_page_at_a_time(table: Records, aws: Account) -> None:
    for n in range(6):
        await table.put(record(f"w-{n}", fields={"error": "x" * 300_000}), None)
    assert len(await everything(table)) == 6
    assert [call.action for call in aws.calls].count("Scan") > 1


async def test_a_name_tells_no_password() -> None:
    assert DynamoDbRecords("t", Clients()).name == "dynamodb:t"
    for url, name in (
        ("postgresql://ada:secret@db.example:5433/ide?sslmode=require", "db.example:5433/ide"),
        ("postgresql:///ide?host=/run/db&port=5433&password=secret", "/run/db:5433/ide"),
    ):
        assert PostgresRecords(url).name == f"postgresql://{name}"


# DynamoDB


@pytest.fixture
async def table(aws: Account, open_records: Open) -> AsyncIterator[Records]:
    async with open_records("dynamodb") as records:
        yield records


async def test_a_lost_reply_of_dynamodb_changes_nothing(table: Records, aws: Account) -> None:
    with aws.fault("dynamodb", "PutItem", drop_reply=True, times=1):
        assert not await table.put(record(), None), "its own first try was there already"
    assert await table.get("w-1") == record()
    with aws.fault("dynamodb", "GetItem", drop_request=True, times=1):
        assert await table.get("w-1") == record()


async def test_operators_can_read_an_item(table: Records, aws: Account) -> None:
    await table.put(record(expires_at=5), None)
    [item] = aws.client("dynamodb").scan(TableName=TABLE)["Items"]
    assert item["status"] == {"S": "running"}
    assert item["userId"] == {"S": "ada"}
    assert (item["epoch"], item["expiresAt"]) == ({"N": "3"}, {"N": "5"})
    assert item["seen:frames"] == {"S": "17"}


async def test_dynamodb_is_read_as_last_written(table: Records, aws: Account) -> None:
    await table.get("w-1")
    await everything(table)
    reads = [call for call in aws.calls if call.action in ("GetItem", "Scan")]
    assert len(reads) == 2
    assert all(b'"ConsistentRead": true' in call.body for call in reads)


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ({"drop_request": True}, StoreUnavailable),
        ({"error": ("InternalServerError", 500)}, StoreUnavailable),
        ({"error": ("ProvisionedThroughputExceededException", 400)}, StoreUnavailable),
        ({"delay": 1.0}, StoreUnavailable),
        ({"error": ("AccessDeniedException", 400)}, StoreError),
        ({"error": ("ResourceNotFoundException", 400)}, StoreError),
    ],
)
async def test_an_absent_dynamodb_is_unavailable_and_a_refusal_is_not(
    table: Records,
    aws: Account,
    monkeypatch: pytest.MonkeyPatch,
    fault: dict[str, Any],
    kind: type[StoreError],
) -> None:
    monkeypatch.setattr(dynamodb, "PATIENCE", 0.3)
    with aws.fault("dynamodb", "GetItem", **fault), pytest.raises(StoreError) as refused:
        await table.get("w-1")
    assert type(refused.value) is kind
    assert f"the DynamoDB table {TABLE}" in str(refused.value)
    monkeypatch.setattr(dynamodb, "PATIENCE", 10)
    assert await table.get("w-1") is None, "it is well again"


@pytest.mark.parametrize(
    ("name", "key", "kind"),
    [("missing", "", ""), ("strange", "id", "S"), ("numbered", "workspaceId", "N")],
)
async def test_a_table_that_does_not_fit_is_said_at_start(
    aws: Account, name: str, key: str, kind: str
) -> None:
    if key:
        make_table(aws, name, key, kind)
    clients = Clients()
    with pytest.raises(StoreError) as refused:
        await DynamoDbRecords(name, clients).open()
    await clients.close()
    assert not isinstance(refused.value, StoreUnavailable)
    assert name in str(refused.value)
    assert "correct" in str(refused.value)
    assert ("it needs workspaceId (S, HASH)" in str(refused.value)) == bool(key)


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), "set AWS_ACCESS_KEY_ID"),
        (("AWS_REGION", "AWS_DEFAULT_REGION"), "set --aws-region"),
    ],
)
async def test_missing_credentials_or_region_are_said_at_start(
    aws: Account, monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...], told: str
) -> None:
    for name in names:
        monkeypatch.delenv(name)
    clients = Clients()
    with pytest.raises(StoreError, match=told):
        await DynamoDbRecords(TABLE, clients).open()
    await clients.close()


# PostgreSQL


@pytest.fixture
async def rows(postgres: Postgres, open_records: Open) -> AsyncIterator[PostgresRecords]:
    async with open_records("postgresql") as records:
        assert isinstance(records, PostgresRecords)
        yield records


async def test_postgresql_that_was_started_anew_is_found_again(
    rows: PostgresRecords, postgres: Postgres
) -> None:
    await rows.put(record(), None)
    postgres.stop()
    try:
        with pytest.raises(StoreUnavailable, match="does not answer"):
            await rows.get("w-1")
    finally:
        postgres.start()
    assert await rows.get("w-1") == record()


async def test_connections_that_were_cut_are_replaced_unseen(
    rows: PostgresRecords, postgres: Postgres
) -> None:
    await asyncio.gather(*(rows.put(record(f"w-{n}"), None) for n in range(8)))
    cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
    assert len(postgres.execute(cut + " AND backend_type = 'client backend'")) == 4
    assert await rows.put(record("w-9"), None)
    assert len(await everything(rows)) == 9


async def test_a_locked_row_is_waited_for_so_long_and_no_longer(
    rows: PostgresRecords, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    await rows.put(record(), None)
    newer = record(stamp=NOW + 1)
    with monkeypatch.context() as patch, psycopg.connect(postgres.url()) as holder:
        patch.setattr(postgresql, "PATIENCE", 0.2)
        holder.execute("SELECT 1 FROM ide_gateway_workspaces FOR UPDATE")
        with pytest.raises(StoreUnavailable, match=r"did not answer in 0\.2 s"):
            await rows.put(newer, record())
        assert await rows.get("w-1") == record(), "others are not held up"
    assert await rows.put(newer, record())


async def test_many_gateways_start_at_once_and_migrate_once(postgres: Postgres) -> None:
    postgres.empty()
    starting = [PostgresRecords(postgres.url()) for _ in range(6)]
    await asyncio.gather(*(records.open() for records in starting))
    assert postgres.execute("SELECT version FROM ide_gateway_schema") == [(1,)]
    assert await starting[0].put(record(), None)
    await starting[1].open()
    assert await starting[1].get("w-1") == record(), "starting again keeps what is there"
    for records in starting:
        await records.close()


async def test_each_version_is_built_on_the_one_before(
    rows: PostgresRecords, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    await rows.put(record(), None)
    more = "ALTER TABLE ide_gateway_workspaces ADD COLUMN note text"
    monkeypatch.setattr(postgresql, "STEPS", (*postgresql.STEPS, more))
    newer = PostgresRecords(postgres.url())
    await newer.open()
    assert await newer.get("w-1") == record()
    await newer.close()
    assert postgres.execute("SELECT version FROM ide_gateway_schema") == [(2,)]
    monkeypatch.undo()
    with pytest.raises(StoreError, match="version 2 of the schema, and this gateway knows 1"):
        await rows.open()


async def test_a_step_that_fails_leaves_the_schema_as_it_was(
    rows: PostgresRecords, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = "CREATE TABLE half (x int); SELECT nonsense"
    monkeypatch.setattr(postgresql, "STEPS", (*postgresql.STEPS, broken))
    with pytest.raises(StoreError, match="nonsense"):
        await rows.open()
    assert postgres.execute("SELECT version, to_regclass('half') FROM ide_gateway_schema") == [
        (1, None)
    ]


async def test_what_has_expired_is_forgotten_at_start(rows: PostgresRecords) -> None:
    await rows.put(record("w-1"), None)
    await rows.put(record("w-2", status=DELETED, expires_at=5), None)
    await rows.put(record("w-3", status=DELETED, expires_at=9_000_000_000), None)
    await rows.open()
    assert sorted(await everything(rows)) == ["w-1", "w-3"]


@pytest.mark.parametrize(
    ("right", "wrong", "kind", "told"),
    [
        ("/postgres?", "/nowhere?", StoreError, 'database "nowhere" does not exist; check'),
        ("gateway@", "stranger@", StoreError, 'role "stranger" does not exist'),
        ("?host=", "?bogus=1&host=", StoreError, "bogus"),
        ("?host=", "?host=/nowhere", StoreUnavailable, "does not answer"),
    ],
)
async def test_a_postgresql_that_cannot_be_used_is_said_at_start(
    postgres: Postgres, right: str, wrong: str, kind: type[StoreError], told: str
) -> None:
    with pytest.raises(StoreError, match=told) as refused:
        await PostgresRecords(postgres.url().replace(right, wrong)).open()
    assert type(refused.value) is kind


async def test_rights_that_are_missing_are_said(rows: PostgresRecords, postgres: Postgres) -> None:
    postgres.execute("CREATE ROLE reader LOGIN")
    postgres.execute("GRANT USAGE ON SCHEMA public TO reader")
    reader = PostgresRecords(postgres.url().replace("gateway@", "reader@"))
    with pytest.raises(StoreError, match=r"permission denied.*check the user, its rights"):
        await reader.get("w-1")
    await reader.close()
    postgres.empty()  # what was granted to it goes first
    postgres.execute("DROP ROLE reader")


async def test_without_psycopg_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import_ = builtins.__import__

    def missing(name: str, *rest: Any) -> Any:
        if name == "psycopg":
            raise ImportError(name)
        return import_(name, *rest)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(StoreError, match=r"pip install 'ide-gateway\[postgresql\]'"):
        await PostgresRecords("postgresql://db/ide").open()


# Who follows whom


def test_a_record_follows_what_it_came_out_of() -> None:
    ours, trail = record(stamp=30), (10, 20, 30)
    assert succession(None, ours, trail, 32) is Succession.WRITE
    assert succession(record(stamp=30), ours, trail, 32) is Succession.SAME
    for known in (10, 20):
        assert succession(record(stamp=known), ours, trail, 32) is Succession.WRITE
    for unknown in (5, 15, 40):
        assert succession(record(stamp=unknown), ours, trail, 32) is Succession.RESTORE
    assert succession(record(stamp=5), ours, trail, 3) is Succession.WRITE, "long forgotten"


def test_what_redis_has_not_is_restored_unless_it_was_deleted() -> None:
    gone = record(stamp=20, status=DELETED, epoch=3)
    assert succession(record(), None, (), 32) is Succession.RESTORE
    assert succession(gone, None, (), 32) is Succession.SAME
    assert succession(None, None, (), 32) is Succession.SAME
    assert succession(gone, record(stamp=30, epoch=3), (30,), 32) is Succession.WRITE, "made again"
    assert succession(gone, record(stamp=30, epoch=0), (30,), 32) is Succession.RESTORE, "its epoch"
    assert succession(gone, record(stamp=30), (10, 30), 32) is Succession.RESTORE, "not deleted"


LENGTH = 4


@given(
    before=st.integers(0, 12),
    kept_at=st.integers(0, 12),
    lost=st.integers(0, 12),
    after=st.integers(0, 3),
)
def test_redis_wins_as_long_as_it_lost_nothing_that_is_kept(
    before: int, kept_at: int, lost: int, after: int
) -> None:
    """A history of `before` changes, the newest kept one among them; Redis goes back by `lost` of them and
    makes `after` new ones. It is ahead, unless what was kept is among what it lost."""
    changes = list(range(100, 101 + before))
    kept = changes[min(kept_at, before)]
    left = changes[: max(1, len(changes) - lost)]
    history = left + list(range(200, 200 + after))
    trail = tuple(history[-LENGTH:])
    step = succession(record(stamp=kept), record(stamp=history[-1]), trail, LENGTH)
    if kept in left:
        assert step is (Succession.SAME if kept == history[-1] else Succession.WRITE)
    elif len(trail) == LENGTH and kept < trail[0]:
        assert step is Succession.WRITE, "as good as forgotten: so many changes were never kept"
    else:
        assert step is Succession.RESTORE


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=9, unique=True), st.integers(1, 1000))
def test_a_trail_remembers_its_own_and_no_newer_ones(stamps: list[int], stamp: int) -> None:
    trail = sorted(stamps)
    if stamp in trail or (len(trail) == 9 and stamp < trail[0]):
        assert remembers(trail, stamp, 9)
    else:
        assert not remembers(trail, stamp, 9)
