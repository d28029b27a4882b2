"""Parts that are put together from settings work together."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path

from redis.asyncio import Redis

from gateway.assembly import Manager
from gateway.settings import Settings
from lifecycle.notices import FAILED
from tests.lifecycle.notices.receiver import SECRET, receiving


async def test_what_happens_is_told_by_webhook_by_who_leads_and_in_a_turn(
    valkey: str, redis: Redis, tmp_path: Path, until: Callable[..., Awaitable[object]]
) -> None:
    async with receiving() as receiver, contextlib.AsyncExitStack() as stack:
        settings = Settings(
            data_dir=tmp_path, warm_slots=0, webhook_url=receiver.url, webhook_secret=SECRET,
            smtp_url="smtp://127.0.0.1:9", mail_from="ide@example.com",
        )  # fmt: skip
        manager = Manager(settings, valkey, "a key", "test")
        stack.push_async_callback(manager.close)
        workspace, _ = await manager.store.ensure("ada", "demo")

        async def fails() -> None:
            fields = {"workspace": workspace.id, "reason": "boot_failed", "epoch": "1"}
            await manager.signals.tell(FAILED, fields)

        def told() -> int:
            return [body["type"] for body in receiver.bodies].count(FAILED)

        assert await manager.turn()  # the first ever: it follows from here on
        await fails()
        assert await manager.turn()
        assert told() == 1
        leading = asyncio.create_task(manager.lead())
        await fails()
        await until(lambda: told() == 2)
        leading.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await leading
