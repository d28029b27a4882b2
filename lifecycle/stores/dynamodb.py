"""Workspaces' records in a DynamoDB table: one item each, every field an attribute of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

from lifecycle.aws import Clients, code_of, explain, failures
from lifecycle.stores import StoreError, StoreUnavailable
from lifecycle.stores.records import Record

PATIENCE = 5.0  # seconds for one answer, tries included: somebody may be waiting for it
KEY = "workspaceId"
NUMBERS = ("epoch", "stamp", "expiresAt")
"""Attributes that are numbers; the others are texts. expiresAt is the one for the table's time to live."""

_OUR_FAULT = frozenset(
    {
        "AccessDeniedException", "UnrecognizedClientException", "InvalidSignatureException",
        "IncompleteSignature", "MissingAuthenticationTokenException", "ResourceNotFoundException",
        "ValidationException", "InvalidClientTokenId", "SignatureDoesNotMatch", "ExpiredTokenException",
        "NoCredentialsError", "PartialCredentialsError", "NoRegionError",
    }
)  # fmt: skip
"""What an operator has to mend: waiting does not."""

_AS_IT_WAS = "#status = :status AND epoch = :epoch AND stamp = :stamp"


class DynamoDbRecords:
    """Records. The table: key `workspaceId` (String), nothing else; on demand or provisioned."""

    def __init__(self, table: str, clients: Clients) -> None:
        self.name = f"dynamodb:{table}"
        self._table, self._clients = table, clients

    async def open(self) -> None:
        found = await self._ask("describe_table")
        schema = [(row["AttributeName"], row["KeyType"]) for row in found["Table"]["KeySchema"]]
        types = {
            r["AttributeName"]: r["AttributeType"] for r in found["Table"]["AttributeDefinitions"]
        }
        if schema != [(KEY, "HASH")] or types.get(KEY) != "S":
            told = ", ".join(f"{name} ({types.get(name)}, {kind})" for name, kind in schema)
            raise StoreError(
                f"the DynamoDB table {self._table} has the key {told}; it needs {KEY} (S, HASH) and no"
                " other: make one with that key, or correct --store"
            )

    async def get(self, workspace_id: str) -> Record | None:
        found = await self._ask("get_item", Key={KEY: {"S": workspace_id}}, ConsistentRead=True)
        return _record(found["Item"]) if "Item" in found else None

    async def put(self, record: Record, over: Record | None) -> bool:
        condition: dict[str, Any] = {"ConditionExpression": f"attribute_not_exists({KEY})"}
        if over is not None:
            condition = {
                "ConditionExpression": _AS_IT_WAS,
                "ExpressionAttributeNames": {"#status": "status"},
                "ExpressionAttributeValues": {
                    ":status": {"S": over.status},
                    ":epoch": {"N": str(over.epoch)},
                    ":stamp": {"N": str(over.stamp)},
                },
            }
        try:
            await self._ask("put_item", Item=_item(record), **condition)
        except _Otherwise:
            return False
        return True

    async def scan(self) -> AsyncIterator[Record]:
        start: dict[str, Any] = {}
        while True:
            page = await self._ask("scan", ConsistentRead=True, **start)
            for item in page["Items"]:
                yield _record(item)
            if "LastEvaluatedKey" not in page:
                return
            start = {"ExclusiveStartKey": page["LastEvaluatedKey"]}

    async def close(self) -> None:
        """The clients belong to whoever made them."""

    async def _ask(self, call: str, **arguments: Any) -> Any:
        doing = f"use the DynamoDB table {self._table} ({call})"
        try:
            async with asyncio.timeout(PATIENCE):
                client = await self._clients.get("dynamodb")
                return await getattr(client, call)(TableName=self._table, **arguments)
        except failures() as error:
            code = code_of(error) or type(error).__name__
            if code == "ConditionalCheckFailedException":
                raise _Otherwise from error
            if isinstance(error, TimeoutError) and not str(error):
                raise StoreUnavailable(f"cannot {doing}: no answer in {PATIENCE:g} s") from error
            kind = StoreError if code in _OUR_FAULT else StoreUnavailable
            raise kind(explain(error, doing)) from error


class _Otherwise(Exception):
    """What is there is not as the condition says."""


def _item(record: Record) -> dict[str, dict[str, str]]:
    return {name: {"N" if name in NUMBERS else "S": value} for name, value in record.row().items()}


def _record(item: Mapping[str, Mapping[str, str]]) -> Record:
    return Record.of({name: value for name, typed in item.items() for value in typed.values()})
