"""How often the loops look, and the one shape they have."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from lifecycle.pools import PoolError
from lifecycle.stores import StoreError

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Times:
    """Intervals and limits of the loops, in seconds, and the pool's bounds.

    snapshot_on_stop: a stopped workspace's files leave its machine. durable: records outlast Redis.
    machine_class: what a machine is billed as, where its pool does not say. max_starting: how many
    boot at once. settle: without scale-in after a change of leader. launch_burst, launch_rate: launches that
    the pool's API grants, and how many more a second; 0: no bound. boot_guess: until a machine is ready,
    before any was measured. wait_cost, machine_hour: prices of a cold wait, of an hour of a machine.
    move_after: without a session; 0: nothing moves.
    """

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
    snapshot_on_stop: bool = False
    durable: bool = False
    machine_class: str = "standard"
    countdown: tuple[float, ...] = ()
    max_starting: int = 100
    wait_probability: float = 0.0
    settle: float = 0.0
    standby_machines: int = 0
    launch_burst: int = 0
    launch_rate: float = 0.0
    boot_guess: float = 60.0
    wait_cost: float = 0.0
    machine_hour: float = 0.0
    move_after: float = 0.0

    @property
    def look_interval(self) -> float:
        """Between two looks at what is due: what is told in time needs more of them than a stop does."""
        shortest = min((lead / 10 for lead in self.countdown), default=self.idle_sweep_interval)
        return min(self.idle_sweep_interval, max(1.0, shortest))


async def every(
    interval: float, tick: Callable[[], Awaitable[None]], hurry: asyncio.Event | None = None
) -> None:
    """One shape for every loop: a tick that fails is logged and tried again; cancellation passes.
    hurry: set it for a tick before the interval is over; however often it is set, half of the time is left
    to others."""
    loop = asyncio.get_running_loop()
    while True:
        began = loop.time()
        if hurry is not None:
            hurry.clear()
        await once(tick, interval)
        if hurry is None:
            await asyncio.sleep(interval)
            continue
        rest = min(interval, loop.time() - began)
        await asyncio.sleep(rest)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(interval - rest):
                await hurry.wait()


async def once(tick: Callable[[], Awaitable[None]], next_try_s: float | None = None) -> None:
    """One tick; what it raises is logged."""
    try:
        await tick()
    except StoreError as error:
        log.warning("loop.store_away", tick=tick.__name__, why=str(error), next_try_s=next_try_s)
    except PoolError as error:
        log.warning("loop.pool_away", tick=tick.__name__, why=str(error), next_try_s=next_try_s)
    except Exception:
        log.exception("loop.failed", tick=tick.__name__, next_try_s=next_try_s)
