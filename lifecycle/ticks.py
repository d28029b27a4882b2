"""How often the loops look, and the one shape they have."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from lifecycle.stores import StoreError

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Times:
    """Intervals and limits of the loops, in seconds, and the pool's bounds."""

    idle_timeout: float
    retention: float
    idle_sweep_interval: float
    terminate_sweep_interval: float
    session_timeout: float
    boot_timeout: float
    scale_interval: float
    scale_in_delay: float
    launch_timeout: float
    slots: int
    warm_slots: int
    max_machines: int


async def every(interval: float, tick: Callable[[], Awaitable[None]]) -> None:
    """One shape for every loop: a tick that fails is logged and tried again; cancellation passes."""
    while True:
        try:
            await tick()
        except StoreError as error:
            log.warning("loop.store_away", tick=tick.__name__, why=str(error), next_try_s=interval)
        except Exception:
            log.exception("loop.failed", tick=tick.__name__, next_try_s=interval)
        await asyncio.sleep(interval)
