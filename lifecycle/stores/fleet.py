"""Machines' records in Redis."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal, cast

from redis.asyncio import Redis

from lifecycle.agent.contract import Report
from lifecycle.identifiers import machine_number
from lifecycle.model import Machine, MachineStatus, check_transition
from lifecycle.stores import Conflict, keys, scripts
from lifecycle.stores.connection import Scripts, asked, pairs

Joined = Literal["ok", "used", "gone"]

READ_BATCH = 500  # machines of one read: bounds how long Redis is busy with it


class RedisFleet:
    """Every machine that is not terminated, and the scaler's last decision."""

    def __init__(self, redis: Redis, token_of: Callable[[str], str] = lambda _: "") -> None:
        """token_of: machine id → its agent's token, for machines whose records hold none."""
        self._redis = redis
        self._token_of = token_of
        self._scripts = Scripts(redis)

    async def machines(self) -> list[Machine]:
        """All of them, oldest first."""
        found: list[Machine] = []
        ids: list[str] = []
        while True:
            rows, ids = await self._scripts.run(scripts.MACHINES_READ, READ_BATCH, *ids)
            found += [self._machine(pairs(row[0]), *row[1:]) for row in rows if row[0]]
            if not ids:
                return sorted(found, key=lambda machine: (machine.created_at_ms, machine.id))

    async def machine(self, machine_id: str) -> Machine | None:
        if not machine_id:
            return None
        ((row,), _) = await self._scripts.run(scripts.MACHINES_READ, 1, machine_id)
        return self._machine(pairs(row[0]), *row[1:]) if row[0] else None

    def _machine(
        self, row: Mapping[str, str], occupied: int, holds_files: int, report_ms: str | None
    ) -> Machine:
        machine = machine_from(row, occupied, holds_files, report_ms)
        if machine.token or machine.status is MachineStatus.TERMINATED:
            return machine
        return replace(machine, token=self._token_of(machine.id))

    async def files_on(self, machine_id: str) -> list[str]:
        """Ids of the workspaces whose files are on that machine."""
        return sorted(await asked(self._redis.smembers(keys.machine_files(machine_id))))

    async def intend(
        self,
        pool: str,
        slots: int,
        count: int,
        bound: int,
        beyond: int = 0,
        machine_class: str = "",
    ) -> list[str]:
        """Write down that machines will be launched: their ids, numbers that follow each other. Fewer at
        the bound. beyond: the highest number of a machine that the pool has. machine_class: what they
        are billed as, until the pool says more."""
        found = await self._scripts.run(
            scripts.MACHINE_NEW, pool, slots, count, bound, beyond, machine_class
        )
        return [str(machine_id) for machine_id in found]

    async def adopt(
        self,
        pool: str,
        machine_id: str,
        slots: int,
        token: str = "",
        instance: str = "",
        zone: str = "",
        machine_class: str = "",
    ) -> bool:
        """Write down a machine that the pool has and no record names; False when there is one by now.
        token: what it was launched with, when that is not what token_of says."""
        number = machine_number(machine_id)
        return bool(
            await self._scripts.run(
                scripts.MACHINE_ADOPT,
                machine_id,
                pool,
                slots,
                token,
                number,
                instance,
                zone,
                machine_class,
            )
        )

    async def observe(
        self, machine_id: str, instance: str, zone: str, machine_class: str = ""
    ) -> None:
        """What the pool calls it, where its disks are, of which kind it is; "" leaves what was known."""
        await self._scripts.run(scripts.MACHINE_OBSERVE, machine_id, instance, zone, machine_class)

    async def join(self, machine_id: str, nonce: str, address: str, instance: str) -> Joined:
        """Its agent comes with the code of its launch. "ok": it may have the token; also when the same
        nonce asks again, for the answer may have been lost. "used": another one came before, or nobody
        knows whether one did. "gone": there is no such machine (any more)."""
        found = await self._scripts.run(scripts.MACHINE_JOIN, machine_id, nonce, address, instance)
        return cast(Joined, str(found))

    async def heard(self, machine_id: str, address: str) -> bool:
        """Its agent reported by itself, from that address: a heartbeat. False when no record names it."""
        return bool(await self._scripts.run(scripts.MACHINE_HEARD, machine_id, address))

    async def doom(self, machine: Machine, at_ms: int, reason: str) -> bool:
        """The pool takes it back at that time: a ready one drains. Safe to repeat; an earlier time
        replaces a later one. False when it is gone."""
        return bool(await self._scripts.run(scripts.MACHINE_DOOM, machine.id, at_ms, reason))

    async def hold(self, machine_id: str, held: bool) -> None:
        """A person drains it: nothing new comes to it, and only a person lets it work again. Safe to
        repeat. Raises Conflict when there is no such machine, or it does not work."""
        outcome, status = await self._scripts.run(
            scripts.MACHINE_HOLD, machine_id, "1" if held else ""
        )
        if outcome == "gone":
            raise Conflict(f"there is no machine {machine_id}")
        if outcome == "doomed":
            raise Conflict(
                f"machine {machine_id} is taken away by its pool: it stays drained", status
            )
        if outcome != "ok":
            raise Conflict(
                f"machine {machine_id} is {status}: only a ready or draining one can be held",
                status,
            )

    async def change(
        self,
        machine: Machine,
        to: MachineStatus,
        *,
        reason: str = "",
        address: str = "",
        only_empty: bool = False,
        bare: bool = False,
    ) -> None:
        """Compare-and-set on the status in `machine`; only_empty: and on no slot taken; bare: and
        on no files there either. Raises Conflict."""
        check_transition(machine.status, to)
        outcome, status = await self._scripts.run(
            scripts.MACHINE_CHANGE, machine.id, to, machine.status,
            2 if bare else int(only_empty), reason, address,
        )  # fmt: skip
        if outcome != "ok":
            raise Conflict(f"machine {machine.id} not {to}: {outcome} ({status})", status)

    async def report(self, report: Report) -> None:
        """A machine's figures as its agent told them, and its heartbeat."""
        await self._scripts.run(
            scripts.MACHINE_REPORT, report.machine_id,
            "cpuPercent", f"{report.cpu_percent:.1f}",
            "memoryBytes", report.memory_bytes,
            "memoryTotalBytes", report.memory_total_bytes,
            "diskFreeBytes", report.disk_free_bytes,
            "warm", report.warm,
        )  # fmt: skip

    async def decided(
        self,
        decision: Mapping[str, Any],
        memory: Mapping[str, Any] | None = None,
        flow: Mapping[str, Any] | None = None,
    ) -> None:
        """memory, flow: what the scaler remembers and has counted, for whoever leads next."""
        row = {**decision, "memory": memory, "flow": flow} if memory else decision
        await asked(self._redis.set(keys.DECISION, json.dumps(row)))

    async def pool_decision(self) -> dict[str, Any]:
        """The scaler's last decision with its inputs, "memory" and "flow" among them; {} before the first."""
        text = await asked(self._redis.get(keys.DECISION))
        return dict(json.loads(text)) if text else {}


def machine_from(
    row: Mapping[str, str], occupied: int, holds_files: int, report_ms: str | float | None
) -> Machine:
    return Machine(
        id=row["machineId"],
        pool=row["pool"],
        status=MachineStatus(row["status"]),
        status_since_ms=int(row["statusSince"]),
        slots=int(row["slots"]),
        address=row.get("address", ""),
        token=row.get("token", ""),
        created_at_ms=int(row.get("createdAt", 0)),
        empty_since_ms=int(row.get("emptySince", 0)),
        last_report_ms=int(float(report_ms or 0)),
        cpu_percent=float(row.get("cpuPercent", 0)),
        memory_bytes=int(row.get("memoryBytes", 0)),
        memory_total_bytes=int(row.get("memoryTotalBytes", 0)),
        disk_free_bytes=int(row.get("diskFreeBytes", 0)),
        warm=int(row.get("warm", 0)),
        occupied=occupied,
        holds_files=holds_files,
        reason=row.get("reason", ""),
        unheard=row.get("unheard", "") == "1",
        joined=row.get("joined", "") == "1",
        instance=row.get("instance", ""),
        zone=row.get("zone", ""),
        machine_class=row.get("class", ""),
        doomed_at_ms=int(row.get("doomedAt", 0)),
        held_by=row.get("heldBy", ""),
    )
