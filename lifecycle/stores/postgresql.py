"""Workspaces' records in PostgreSQL: one row each. The schema is brought up to date at every start."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qs, urlsplit

from lifecycle.stores import StoreError, StoreUnavailable
from lifecycle.stores.records import Record

if TYPE_CHECKING:
    from psycopg import AsyncConnection

T = TypeVar("T")

PATIENCE = 5.0  # seconds for one answer, tries included: somebody may be waiting for it
MIGRATING = 600.0  # seconds for the schema: another gateway may be at it
CONNECTIONS = 4  # more at once wait for one that is free
PAGE = 500  # rows of a scan held in memory at once
LOCK = 0x1DE6A7E  # advisory lock of who brings the schema up to date

STEPS = (
    """
    CREATE TABLE ide_gateway_workspaces (
        workspace_id text PRIMARY KEY,
        user_id text NOT NULL,
        status text NOT NULL,
        epoch bigint NOT NULL,
        stamp bigint NOT NULL,
        expires_at bigint NOT NULL DEFAULT 0,
        fields json NOT NULL
    );
    CREATE INDEX ide_gateway_workspaces_user_id ON ide_gateway_workspaces (user_id);
    CREATE INDEX ide_gateway_workspaces_status ON ide_gateway_workspaces (status);
    """,
)
"""What each version of the schema adds to the one before it. Never edited, only added to."""

_COLUMNS = "workspace_id, user_id, status, epoch, stamp, expires_at, fields"
_INSERT = f"""INSERT INTO ide_gateway_workspaces ({_COLUMNS})
    VALUES (%s, %s, %s, %s, %s, %s, %s) ON CONFLICT (workspace_id) DO NOTHING"""
_UPDATE = f"""UPDATE ide_gateway_workspaces SET ({_COLUMNS}) = (%s, %s, %s, %s, %s, %s, %s)
    WHERE workspace_id = %s AND status = %s AND epoch = %s AND stamp = %s"""
_SOON_OVER = re.compile(r"starting up|shutting down|recovery mode|too many|connection slots")
"""Refusals of a server that is well again by itself."""


class PostgresRecords:
    """Records. url: as libpq takes it, sslmode and the like included."""

    def __init__(self, url: str) -> None:
        self.name = _name(url)
        self._url = url
        self._free: list[AsyncConnection[Any]] = []
        self._turns = asyncio.Semaphore(CONNECTIONS)

    async def open(self) -> None:
        try:
            import psycopg  # noqa: F401
        except ImportError as error:
            raise StoreError(
                "--store postgresql://… needs psycopg: pip install 'ide-gateway[postgresql]'"
            ) from error
        await self._ask(self._migrate, MIGRATING)

    async def _migrate(self, connection: AsyncConnection[Any]) -> None:
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK,))
            await connection.execute(
                "CREATE TABLE IF NOT EXISTS ide_gateway_schema (version integer NOT NULL)"
            )
            found = await connection.execute("SELECT version FROM ide_gateway_schema")
            row = await found.fetchone()
            version = row[0] if row else 0
            if version > len(STEPS):
                raise StoreError(
                    f"{self.name} has version {version} of the schema, and this gateway knows"
                    f" {len(STEPS)}: start the newer gateway that made it, or correct --store"
                )
            for step in STEPS[version:]:
                await connection.execute(step.encode())
            await connection.execute("DELETE FROM ide_gateway_schema")
            await connection.execute("INSERT INTO ide_gateway_schema VALUES (%s)", (len(STEPS),))
            await connection.execute(
                "DELETE FROM ide_gateway_workspaces"
                " WHERE expires_at > 0 AND expires_at < extract(epoch FROM now())"
            )

    async def get(self, workspace_id: str) -> Record | None:
        rows = await self._select("WHERE workspace_id = %s", workspace_id)
        return rows[0] if rows else None

    async def put(self, record: Record, over: Record | None) -> bool:
        row: tuple[object, ...] = (
            record.workspace_id, record.user_id, record.status, record.epoch, record.stamp,
            record.expires_at, json.dumps(dict(record.fields)),
        )  # fmt: skip
        if over is not None:
            row += (over.workspace_id, over.status, over.epoch, over.stamp)

        async def write(connection: AsyncConnection[Any]) -> int:
            done = await connection.execute(_INSERT if over is None else _UPDATE, row)
            return done.rowcount

        return await self._ask(write) == 1

    async def scan(self) -> AsyncIterator[Record]:
        last = ""
        while page := await self._select(
            "WHERE workspace_id > %s ORDER BY workspace_id LIMIT %s", last, PAGE
        ):
            for record in page:
                yield record
            last = page[-1].workspace_id

    async def close(self) -> None:
        while self._free:
            await self._free.pop().close()

    async def _select(self, where: str, *values: object) -> list[Record]:
        query = f"SELECT {_COLUMNS} FROM ide_gateway_workspaces {where}"

        async def read(connection: AsyncConnection[Any]) -> Sequence[Sequence[Any]]:
            return await (await connection.execute(query.encode(), values)).fetchall()

        return [Record(*row) for row in await self._ask(read)]

    async def _ask(
        self, do: Callable[[AsyncConnection[Any]], Awaitable[T]], patience: float = 0.0
    ) -> T:
        """On a connection that is free, or a new one. A broken one is replaced and asked once more: every
        question may be repeated, a write says what it is written over."""
        import psycopg

        patience = patience or PATIENCE
        try:
            async with asyncio.timeout(patience), self._turns:
                try:
                    return await self._on_one(do)
                except psycopg.OperationalError:
                    await self.close()  # the others are of the same server, and may be as old
                    return await self._on_one(do)
        except TimeoutError as error:
            raise StoreUnavailable(f"{self.name} did not answer in {patience:g} s") from error
        except (psycopg.Error, OSError) as error:
            raise self._explained(error) from error

    async def _on_one(self, do: Callable[[AsyncConnection[Any]], Awaitable[T]]) -> T:
        import psycopg

        if self._free:
            connection = self._free.pop()
        else:
            connection = await psycopg.AsyncConnection.connect(self._url, autocommit=True)
        try:
            answer = await do(connection)
        except BaseException:
            await connection.close()  # it may be in the middle of anything
            raise
        self._free.append(connection)
        return answer

    def _explained(self, error: Exception) -> StoreError:
        """What waiting mends, and what an operator has to."""
        import psycopg

        text = " ".join(str(error).split())
        away = isinstance(error, psycopg.OperationalError | psycopg.InterfaceError | OSError)
        if isinstance(error, psycopg.errors.ReadOnlySqlTransaction):
            away = True  # a standby that is about to be the primary
        refused = re.search(
            r"FATAL|does not support SSL|certificate", text
        ) and not _SOON_OVER.search(text)
        if away and not (refused and getattr(error, "sqlstate", None) is None):
            return StoreUnavailable(f"{self.name} does not answer: {text}")
        return StoreError(f"{self.name} refuses: {text}; check the user, its rights and --store")


def _name(url: str) -> str:
    """The URL without user, password and options: who, not how."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2] or "".join(parse_qs(parts.query).get("host", []))
    port = "".join(f":{port}" for port in parse_qs(parts.query).get("port", []))
    return f"postgresql://{host}{port}{parts.path}"
