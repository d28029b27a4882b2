"""How many machines. Pure: facts and now in, a decision with its inputs and its reason out."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lifecycle.model import Machine, MachineStatus


@dataclass(frozen=True, slots=True)
class Decision:
    """launch: how many to add. revive: stopped machines to start first. undrain: drains to call off.
    drain: empty machines to give back. evict: dedicated machines of sleepers, whose files go into
    snapshots so that others can use them. reason: in words, for the log and GET /api/pool."""

    at_ms: int
    users: int
    slots: int
    warm_slots: int
    want: int
    have: int
    launch: int
    undrain: tuple[str, ...]
    revive: tuple[str, ...]
    drain: tuple[str, ...]
    evict: tuple[str, ...]
    reason: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def machines_wanted(users: int, slots: int, warm_slots: int, max_machines: int) -> int:
    """ceil((users + warm slots) / slots), at most max_machines."""
    return min(max_machines, -(-(users + warm_slots) // slots))


def scale(
    users: int,
    machines: Sequence[Machine],
    now_ms: int,
    *,
    slots: int,
    warm_slots: int,
    max_machines: int,
    scale_in_delay: float,
    parks: bool = True,
    returning: Collection[str] = (),
) -> Decision:
    """users: workspaces that hold a slot or wait for one. scale_in_delay: seconds a machine must have
    been empty. parks: a dedicated machine is stopped with its workspace, and keeps its disk.
    returning: machines whose files somebody waits for. A machine with a workspace in a slot is never
    named in `drain`."""
    want = machines_wanted(users, slots, warm_slots, max_machines)
    of = {status: [m for m in machines if m.status is status] for status in MachineStatus}
    # An adopted one that is still silent after its time may never answer: it does not count.
    coming = [m for m in of[MachineStatus.LAUNCHING] if not m.unheard and not m.doomed_at_ms]
    # A dedicated machine with somebody's files is theirs alone, and starts when they come back.
    own = {m.id for m in machines if parks and m.slots == 1 and m.holds_files}
    back = [m for m in of[MachineStatus.STOPPED] if m.id in own and m.id in returning]
    asleep = {m.id for m in machines if m.id in own and not m.occupied and m.id not in returning}
    awake = [m for m in [*coming, *of[MachineStatus.READY]] if m.id not in asleep]
    have = len(awake) + len(back)
    missing = max(0, want - have)
    draining = of[MachineStatus.DRAINING]
    undrain = tuple(m.id for m in draining if not (m.doomed_at_ms or m.held_by))[:missing]
    stopped = tuple(m.id for m in of[MachineStatus.STOPPED] if m.id not in own)
    revive = stopped[: missing - len(undrain)]
    # A lost machine keeps its place under the bound: it may still come back.
    alive = len(machines)
    launch = max(0, min(missing - len(undrain) - len(revive), max_machines - alive))
    # At the bound somebody who waits comes before the disk of somebody who sleeps.
    needed = machines_wanted(users, slots, 0, max_machines)
    unmet = max(0, needed - have - len(undrain) - len(revive) - launch)
    evict = tuple(m.id for m in sorted(machines, key=_asleep_first) if m.id in asleep)[:unmet]
    spare = max(0, have - want)
    empty = [
        m
        for m in of[MachineStatus.READY]
        if m.occupied == 0
        and m.id not in own
        and m.empty_since_ms
        and now_ms - m.empty_since_ms >= scale_in_delay * 1000
    ]
    # Least to move first, then the youngest: old machines have proved themselves.
    empty.sort(key=lambda m: (m.holds_files, -m.created_at_ms))
    drain = tuple(m.id for m in empty[:spare])
    return Decision(
        now_ms, users, slots, warm_slots, want, have, launch, undrain, revive, drain, evict,
        _reason(users, slots, warm_slots, want, have, max_machines, spare, len(drain)),
    )  # fmt: skip


def _asleep_first(m: Machine) -> tuple[bool, bool, int]:
    """What is on its way to be emptied goes on; then who has slept longest."""
    return (
        m.status is not MachineStatus.READY,
        m.status is not MachineStatus.LAUNCHING,
        m.status_since_ms,
    )


def _reason(
    users: int, slots: int, warm: int, want: int, have: int, bound: int, spare: int, drained: int
) -> str:
    law = f"{users} users + {warm} warm slots at {slots} a machine want {want}"
    if want == bound and users + warm > bound * slots:
        law += f", held at --max-machines {bound}"
    if want > have:
        return f"{law}; {have} are there: add {want - have}"
    if spare:
        waits = (
            f", {spare - drained} in use or not empty for long enough" if spare > drained else ""
        )
        return f"{law}; {have} are there: give back {drained} of {spare}{waits}"
    return f"{law}; {have} are there"
