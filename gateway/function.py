"""The lifecycle as a scheduled function, for those who want no resident leader.

Each call runs one turn of every loop under the same lease as a gateway's, and ends. The gateways then run
with `--lifecycle off`. Settings come from IDE_GATEWAY_… of the function's environment, the signing key
from Redis, where the gateways keep it. AWS Lambda's handler: `gateway.function.handler`.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Mapping
from typing import Any

import structlog

from gateway.assembly import Manager
from gateway.exits import ConfigurationError, DependencyMissing, Exit
from gateway.logs import configure
from gateway.settings import Settings
from gateway.sources import load
from lifecycle.stores import StoreError
from lifecycle.stores.connection import asked, connect
from lifecycle.stores.keys import SIGNING_KEY

log = structlog.get_logger(__name__)


def handler(event: Mapping[str, Any], context: Any) -> dict[str, Any]:
    """{"led": whether the lease was free, "workspaces": {status: how many}}. event: of any schedule;
    nothing is read from it. Raises ConfigurationError, DependencyMissing."""
    try:
        return asyncio.run(turn(_settings(os.environ)))
    except Exit as error:
        # Of an error, a function's log shows the message and no hint.
        raise type(error)("; ".join(filter(None, (str(error), error.hint)))) from error


async def turn(settings: Settings) -> dict[str, Any]:
    """One turn of every loop."""
    key = await _signing_key(settings.redis_url)
    manager = Manager(settings, settings.redis_url, key, f"function.{secrets.token_hex(4)}")
    try:
        await manager.open()
        led = await manager.turn()
        counts = await manager.store.counts()
    except StoreError as error:
        raise DependencyMissing(
            f"Redis did not answer: {error}", "the next turn tries again"
        ) from None
    finally:
        await manager.close()
    log.info("turn.done", led=led, **counts)
    return {"led": led, "workspaces": counts}


def _settings(environment: Mapping[str, str]) -> Settings:
    loaded = load({}, environment)
    settings = loaded.settings
    if not settings.redis_url:
        raise ConfigurationError(
            "a function has no Redis of its own", "set IDE_GATEWAY_REDIS_URL to the gateways' Redis"
        )
    if settings.pool == "local":
        raise ConfigurationError(
            "a function cannot run machines", "set IDE_GATEWAY_POOL to ec2 or ecs"
        )
    if settings.pool in ("asg", "eks"):
        raise ConfigurationError(
            f"a function cannot lead --pool {settings.pool}: which instance becomes which machine is"
            " seen over several turns, and a function remembers none",
            "let a gateway lead (--lifecycle on), or set IDE_GATEWAY_POOL to ec2 or ecs",
        )
    configure(settings.log_level, "json")
    return settings


async def _signing_key(redis_url: str) -> str:
    """Joins and machines' tokens are made from the key that the gateways share."""
    async with connect(redis_url) as redis:
        try:
            key = await asked(redis.get(SIGNING_KEY))
        except StoreError as error:
            raise DependencyMissing(
                f"Redis did not answer: {error}", "the next turn tries again"
            ) from None
    if not key:
        raise DependencyMissing(
            "no gateway has started on this Redis yet: there is no signing key",
            "start one with --lifecycle off",
        )
    return str(key)
